// The private server of managed: lives as long as we do, and not longer.
#include "nearkey/upstream/managed_server.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string_view>

namespace nearkey::managed_server_test {
namespace {

// Everything that a ManagedServer borrows, and a log that goes to a file.
struct Parts {
    TemporaryDirectory directory;
    int log_fd = open((directory.path() + ".log").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    Loop loop;
    Metrics metrics;
    Log log{log_fd, LogLevel::Info, metrics};
    ManagedServerOptions options;

    Parts() {
        options.directory = directory / "run";
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 20;
    }
    ~Parts() {
        close(log_fd);
        unlink((directory.path() + ".log").c_str());
    }

    std::unique_ptr<ManagedServer> start() {
        return std::make_unique<ManagedServer>(loop, log, metrics, options);
    }
    std::string refusal() {
        try {
            start();
            return "";
        } catch (const std::runtime_error& error) {
            return error.what();
        }
    }
    int logged(std::string_view event) const {
        std::ifstream file(directory.path() + ".log");
        int count = 0;
        for (std::string line; std::getline(file, line);) {
            count += line.find(event) != std::string::npos ? 1 : 0;
        }
        return count;
    }
};

bool is_installed(const char* name) {
    for (const char* const folder : {"/usr/bin/", "/usr/local/bin/"}) {
        if (access((std::string(folder) + name).c_str(), X_OK) == 0) return true;
    }
    return false;
}

bool has_server() {
    const bool found = is_installed("valkey-server") || is_installed("redis-server");
    if (!found) MESSAGE("skipped: neither valkey-server nor redis-server is installed");
    return found;
}

// What the server at the path answers to an inline command, in one read; "" if nobody is there.
std::string asked(const std::string& path, const std::string& command) {
    const SocketAddress address = parse_socket_address(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    char bytes[4096];
    ssize_t count = 0;
    if (connect(fd, address.get(), address.length) == 0 &&
        send(fd, (command + "\r\n").data(), command.size() + 2, MSG_NOSIGNAL) > 0) {
        count = recv(fd, bytes, sizeof bytes, 0);
    }
    close(fd);
    return {bytes, count > 0 ? static_cast<size_t>(count) : 0};
}

bool is_up(const ManagedServer& server) {
    return asked(server.socket_path(), "PING") == "+PONG\r\n";
}

bool is_gone(pid_t pid) {
    return kill(pid, 0) != 0 && errno == ESRCH;
}

mode_t mode_of(const std::string& path) {
    struct stat found {};
    REQUIRE(stat(path.c_str(), &found) == 0);
    return found.st_mode & 07777;
}

// Of a process that may not be our child: a zombie that nobody reaps has ended too.
bool ends_within(pid_t pid, int timeout_ms) {
    const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0) return errno == ESRCH;
    pollfd watched{pidfd, POLLIN, 0};
    const bool ended = poll(&watched, 1, timeout_ms) == 1;
    close(pidfd);
    return ended;
}

TEST_CASE("managed server: it answers on a private socket, within its memory, and goes with us") {
    if (!has_server()) return;
    Parts parts;
    auto server = parts.start();
    const pid_t pid = server->pid();
    REQUIRE(run_until(parts.loop, [&] { return is_up(*server); }));
    const std::string path = server->socket_path();
    CHECK(mode_of(parts.options.directory) == 0700);
    CHECK(mode_of(path.substr(0, path.rfind('/'))) == 0700);
    CHECK(mode_of(path) == 0700);
    const std::string memory = std::to_string(parts.options.memory_bytes);
    CHECK(asked(path, "CONFIG GET maxmemory").find(memory) != std::string::npos);
    CHECK(asked(path, "CONFIG GET maxmemory-policy").find("allkeys-lru") != std::string::npos);
    CHECK(asked(path, "CONFIG GET port").ends_with("\r\n$1\r\n0\r\n"));
    CHECK(asked(path, "CONFIG GET save").ends_with("\r\n$0\r\n\r\n"));
    CHECK(asked(path, "CONFIG GET appendonly").ends_with("\r\n$2\r\nno\r\n"));
    server.reset();
    CHECK(is_gone(pid));
    CHECK(std::filesystem::is_empty(parts.options.directory));
    CHECK(parts.metrics.managed_restarts_total == 0);
}

TEST_CASE("managed server: when it is killed, it is started again, counted, and said once") {
    if (!has_server()) return;
    Parts parts;
    const auto server = parts.start();
    REQUIRE(run_until(parts.loop, [&] { return is_up(*server); }));
    const pid_t first = server->pid();
    REQUIRE(kill(first, SIGKILL) == 0);
    CHECK(run_until(parts.loop, [&] { return server->pid() != first && is_up(*server); }));
    CHECK(parts.metrics.managed_restarts_total == 1);
    CHECK(parts.logged("managed_server_ended") == 1);
    CHECK(run_until(parts.loop, [&] { return parts.logged("managed_server_running") > 0; }));
}

TEST_CASE("managed server: one that can't run is tried again, and said once") {
    Parts parts;
    parts.options.server = "/bin/false";
    const auto server = parts.start();
    CHECK(run_until(parts.loop, [&] { return parts.metrics.managed_restarts_total >= 3; }));
    CHECK(parts.logged("managed_server_ended") == 1);
    CHECK(parts.logged("managed_server_running") == 0);
}

TEST_CASE("managed server: a frozen one is killed in the end") {
    if (!has_server()) return;
    Parts parts;
    auto server = parts.start();
    REQUIRE(run_until(parts.loop, [&] { return is_up(*server); }));
    const pid_t pid = server->pid();
    REQUIRE(kill(pid, SIGSTOP) == 0);
    server.reset();
    CHECK(is_gone(pid));
    CHECK(std::filesystem::is_empty(parts.options.directory));
}

TEST_CASE("managed server: when we are killed, it dies, and the next one removes what is left") {
    if (!has_server()) return;
    Parts parts;
    int pipe_fds[2];
    REQUIRE(pipe2(pipe_fds, O_CLOEXEC) == 0);
    const pid_t daemon = fork();
    REQUIRE(daemon >= 0);
    if (daemon == 0) {
        Loop loop;
        const ManagedServer server(loop, parts.log, parts.metrics, parts.options);
        const pid_t pid = server.pid();
        if (run_until(loop, [&] { return is_up(server); }) &&
            write(pipe_fds[1], &pid, sizeof pid) == sizeof pid) {
            loop.run();
        }
        _exit(1);
    }
    close(pipe_fds[1]);
    pid_t pid = 0;
    REQUIRE(read(pipe_fds[0], &pid, sizeof pid) == sizeof pid);
    close(pipe_fds[0]);
    const std::string left = parts.options.directory + "/managed-" + std::to_string(daemon);
    REQUIRE(access(left.c_str(), F_OK) == 0);
    REQUIRE(kill(daemon, SIGKILL) == 0);
    REQUIRE(waitpid(daemon, nullptr, 0) == daemon);
    CHECK(ends_within(pid, 5000));
    CHECK(access(left.c_str(), F_OK) == 0);
    const auto server = parts.start();
    CHECK(access(left.c_str(), F_OK) != 0);
    CHECK(access((left + ".lock").c_str(), F_OK) != 0);
    CHECK(run_until(parts.loop, [&] { return is_up(*server); }));
}

TEST_CASE("managed server: what a predecessor with our own pid left is replaced") {
    if (!has_server()) return;
    Parts parts;
    const std::string left = parts.options.directory + "/managed-" + std::to_string(getpid());
    std::filesystem::create_directories(left);
    std::ofstream(left + "/valkey.sock") << "stale";
    std::ofstream(left + "/dump.rdb") << "stale";
    const auto server = parts.start();
    CHECK(run_until(parts.loop, [&] { return is_up(*server); }));
    CHECK(access((left + "/dump.rdb").c_str(), F_OK) != 0);
}

TEST_CASE("managed server: what another process still holds, or is not ours by name, stays") {
    if (!has_server()) return;
    Parts parts;
    // A pid above the kernel's largest is dead for us; its lock says that it lives elsewhere.
    const std::string held = parts.options.directory + "/managed-4194305";
    const std::string other = parts.options.directory + "/managed-by-hand";
    std::filesystem::create_directories(held);
    std::filesystem::create_directories(other);
    {
        const auto lock = FileLock::take(held + ".lock");
        parts.start();
        CHECK(access(held.c_str(), F_OK) == 0);
    }
    parts.start();
    CHECK(access(held.c_str(), F_OK) != 0);
    CHECK(access(other.c_str(), F_OK) == 0);
}

TEST_CASE("managed server: two at once in one place are refused") {
    if (!has_server()) return;
    Parts parts;
    const auto first = parts.start();
    CHECK(parts.refusal().find("a running process uses") != std::string::npos);
    CHECK(run_until(parts.loop, [&] { return is_up(*first); }));
}

TEST_CASE("managed server: no place for its socket is said at once") {
    if (!has_server()) return;
    Parts parts;
    parts.options.directory = parts.directory / "no/such";
    CHECK(parts.refusal().find(parts.options.directory) != std::string::npos);
    parts.options.directory = parts.directory / std::string(90, 'a');
    CHECK(parts.refusal().find("at most 107 bytes") != std::string::npos);
}

TEST_CASE("managed server: redis-server will do in the place of valkey-server, of no other") {
    Parts parts;
    const std::string path = std::getenv("PATH");
    setenv("PATH", parts.directory.path().c_str(), 1);
    CHECK(parts.refusal().find("no valkey-server, nor redis-server;") != std::string::npos);
    const std::string program = parts.directory / "redis-server";
    std::ofstream(program) << "#!/bin/sh\n";
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    CHECK(parts.refusal().empty());
    parts.options.server = "nearkey-no-such-server";
    CHECK(parts.refusal().find("there is no nearkey-no-such-server;") != std::string::npos);
    setenv("PATH", path.c_str(), 1);
}

TEST_CASE("managed server: one that can't be started at all is tried again, and said once") {
    Parts parts;
    const std::string program = parts.directory / "server";
    std::ofstream(program) << "#!/no/such/interpreter\n";
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    parts.options.server = program;
    const auto server = parts.start();
    CHECK(run_until(parts.loop, [&] { return parts.metrics.managed_restarts_total >= 3; }));
    CHECK(parts.logged("managed_server_not_started") == 1);
    CHECK(parts.logged("managed_server_ended") == 0);
    CHECK(parts.logged("managed_server_running") == 0);
}

TEST_CASE("managed server: what stands in the place of its folder and is none is said") {
    if (!has_server()) return;
    Parts parts;
    std::filesystem::create_directories(parts.options.directory);
    const std::string place = parts.options.directory + "/managed-" + std::to_string(getpid());
    std::ofstream(place) << "a file";
    CHECK(parts.refusal().find("cannot create " + place) != std::string::npos);
    CHECK(access(place.c_str(), F_OK) == 0);
}

}  // namespace
}  // namespace nearkey::managed_server_test
