// Whose a socket path is: a live one stays, a dead one goes, and what is not ours is left alone.
#include "nearkey/loop/listen_socket.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <fstream>
#include <thread>
#include <vector>

namespace nearkey::listen_socket_test {
namespace {

constexpr int kBacklog = 8;
constexpr mode_t kMode = 0600;

bool exists(const std::string& path) {
    struct stat found {};
    return lstat(path.c_str(), &found) == 0;
}

mode_t mode_of(const std::string& path) {
    struct stat found {};
    REQUIRE(stat(path.c_str(), &found) == 0);
    return found.st_mode & 07777;
}

bool is_answered(const std::string& address) {
    const SocketAddress parsed = parse_socket_address(address);
    const int fd = socket(parsed.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool connected = connect(fd, parsed.get(), parsed.length) == 0;
    close(fd);
    return connected;
}

// Binds without a lock, as other programs do. Listening or not.
int foreign_socket(const std::string& path) {
    const SocketAddress parsed = parse_socket_address(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(fd, parsed.get(), parsed.length) == 0);
    return fd;
}

// Why the address is refused, or "" if it is not.
std::string refusal(const std::string& address) {
    try {
        const ListenSocket socket(address, kBacklog, {kMode});
        return "";
    } catch (const ListenError& error) {
        CHECK(std::string(error.what()).find('\n') == std::string::npos);
        return error.what();
    }
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_CASE("listen socket: a Unix socket answers, has its mode, and leaves nothing behind") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    for (const mode_t mode : {0600U, 0660U, 0666U}) {
        const ListenSocket socket(path, kBacklog, {mode});
        CHECK(socket.address() == path);
        CHECK(socket.is_unix());
        CHECK(mode_of(path) == mode);
        CHECK(is_answered(path));
        CHECK((fcntl(socket.fd(), F_GETFL) & O_NONBLOCK) != 0);
        CHECK((fcntl(socket.fd(), F_GETFD) & FD_CLOEXEC) != 0);
    }
    CHECK(directory.is_empty());
}

TEST_CASE("listen socket: the umask is the same afterwards") {
    const TemporaryDirectory directory;
    const mode_t before = umask(027);
    const ListenSocket socket(directory / "a.sock", kBacklog, {0666});
    CHECK(umask(before) == 027);
}

TEST_CASE("listen socket: the socket of one who lives is not stolen") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    const ListenSocket first(path, kBacklog, {kMode});
    CHECK(contains(refusal(path), path));
    CHECK(is_answered(path));
}

TEST_CASE("listen socket: the socket of a program without our lock is not stolen either") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    const int fd = foreign_socket(path);
    REQUIRE(listen(fd, 0) == 0);
    CHECK(contains(refusal(path), "answers"));
    SUBCASE("and a full queue is a sign of life") {
        const SocketAddress parsed = parse_socket_address(path);
        std::vector<int> waiting;
        int error = 0;
        while (error == 0 && waiting.size() < 100) {
            waiting.push_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
            error = connect(waiting.back(), parsed.get(), parsed.length) == 0 ? 0 : errno;
        }
        CHECK(error == EAGAIN);
        CHECK(contains(refusal(path), "answers"));
        for (const int one : waiting)
            close(one);
    }
    CHECK(exists(path));
    close(fd);
}

TEST_CASE("listen socket: a dead socket is replaced") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    close(foreign_socket(path));
    REQUIRE(exists(path));
    const ListenSocket socket(path, kBacklog, {kMode});
    CHECK(is_answered(path));
}

TEST_CASE("listen socket: what a killed process left, lock and socket, is taken over") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const ListenSocket socket(path, kBacklog, {kMode});
        _exit(0);  // No destructor runs, as after SIGKILL.
    }
    REQUIRE(waitpid(child, nullptr, 0) == child);
    REQUIRE(exists(path));
    REQUIRE(exists(path + ".lock"));
    const ListenSocket socket(path, kBacklog, {kMode});
    CHECK(is_answered(path));
}

TEST_CASE("listen socket: a file that is no socket is left alone") {
    const TemporaryDirectory directory;
    const std::string path = directory / "precious";
    std::ofstream(path) << "text";
    CHECK(contains(refusal(path), "no socket"));
    std::string text;
    std::ifstream(path) >> text;
    CHECK(text == "text");
    CHECK_FALSE(exists(path + ".lock"));
}

TEST_CASE("listen socket: a file that has taken its place is not removed") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    {
        const ListenSocket socket(path, kBacklog, {kMode});
        REQUIRE(unlink(path.c_str()) == 0);
        close(foreign_socket(path));
    }
    CHECK(exists(path));
}

TEST_CASE("listen socket: after stop_listening a successor may have the path, and keeps it") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    ListenSocket first(path, kBacklog, {kMode});
    first.stop_listening();
    CHECK(first.fd() == -1);
    CHECK(directory.is_empty());
    const ListenSocket second(path, kBacklog, {kMode});
    first.stop_listening();
    CHECK(is_answered(path));
}

TEST_CASE("listen socket: a directory that is missing is made for us alone, but only one level") {
    const TemporaryDirectory directory;
    const ListenSocket socket(directory / "new/a.sock", kBacklog, {kMode});
    CHECK(mode_of(directory / "new") == 0700);
    CHECK(contains(refusal(directory / "no/such/a.sock"), directory / "no/such"));
}

TEST_CASE("listen socket: a folder of another user under a folder of everybody is refused") {
    if (geteuid() != 0) return;  // Only root can make a folder for somebody else.
    const TemporaryDirectory directory;
    const std::string theirs = directory / "theirs";
    REQUIRE(mkdir(theirs.c_str(), 0777) == 0);
    REQUIRE(chown(theirs.c_str(), 12345, 12345) == 0);
    CHECK(refusal(theirs + "/a.sock").empty());
    REQUIRE(chmod(directory.path().c_str(), 01777) == 0);
    CHECK(contains(refusal(theirs + "/a.sock"), "another user"));
}

TEST_CASE("listen socket: a path that is too long says so, one that just fits works") {
    const TemporaryDirectory directory;
    const size_t room = 107 - directory.path().size() - 1;
    CHECK(refusal(directory / std::string(room, 'a')).empty());
    CHECK(contains(refusal(directory / std::string(room + 1, 'a')), "at most 107 bytes"));
}

TEST_CASE("listen socket: TCP listens on loopback, with or without tcp: before it") {
    const ListenSocket first("tcp:127.0.0.1:0", kBacklog, {kMode});
    CHECK(first.address().starts_with("127.0.0.1:"));
    CHECK_FALSE(first.is_unix());
    CHECK(is_answered(first.address()));
    CHECK(contains(refusal(first.address()), "Address already in use; stop the process"));
    CHECK(contains(refusal("tcp:" + first.address()), first.address()));
}

TEST_CASE("listen socket: everything else is no address") {
    for (const char* const text : {"", "a.sock", "tcp:", "tcp:0.0.0.0:6380", "0.0.0.0:1",
                                   "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                                   "127.0.0.1:-1", "[::]:1", "::1:80", "tcp:/a", "/a/"}) {
        INFO(text);
        CHECK_FALSE(refusal(text).empty());
    }
    CHECK(parse_socket_address("tcp:[::1]:80").storage.ss_family == AF_INET6);
}

TEST_CASE("listen socket: faults.md row 67: a file that was removed is bound anew") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    ListenSocket socket(path, kBacklog, {kMode});
    socket.set_mode(0640);
    CHECK_FALSE(socket.has_lost_file());
    const SocketAddress parsed = parse_socket_address(path);
    const int early = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(early, parsed.get(), parsed.length) == 0);
    REQUIRE(unlink(path.c_str()) == 0);
    SUBCASE("and so is its lock") {
        REQUIRE(unlink((path + ".lock").c_str()) == 0);
    }
    SUBCASE("a dead socket in its place goes") {
        close(foreign_socket(path));
    }
    REQUIRE(socket.has_lost_file());
    const int before = socket.rebind();
    CHECK_FALSE(socket.has_lost_file());
    CHECK(is_answered(path));
    CHECK(mode_of(path) == 0640);
    CHECK(exists(path + ".lock"));
    CHECK(FileLock::take(path + ".lock") == nullptr);
    // Who had connected before is not lost.
    const int accepted = accept4(before, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(accepted >= 0);
    for (const int fd : {early, before, accepted})
        close(fd);
    socket.stop_listening();
    CHECK_FALSE(exists(path));
    CHECK_FALSE(exists(path + ".lock"));
}

TEST_CASE("listen socket: faults.md row 67: who answers in its place stays, and so do we") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    ListenSocket socket(path, kBacklog, {kMode});
    const int fd = socket.fd();
    REQUIRE(rename(path.c_str(), (directory / "moved.sock").c_str()) == 0);
    SUBCASE("a program without our lock") {
        const int other = foreign_socket(path);
        REQUIRE(listen(other, kBacklog) == 0);
        CHECK_THROWS_AS(static_cast<void>(socket.rebind()), ListenError);
        CHECK(socket.fd() == fd);
        CHECK(socket.has_lost_file());
        CHECK(is_answered(path));
        close(other);
    }
    SUBCASE("a nearkey that took its own lock") {
        REQUIRE(unlink((path + ".lock").c_str()) == 0);
        const ListenSocket other(path, kBacklog, {kMode});
        CHECK_THROWS_AS(static_cast<void>(socket.rebind()), ListenError);
        CHECK(socket.has_lost_file());
        socket.stop_listening();
        CHECK(is_answered(path));
        CHECK(exists(path + ".lock"));
        return;
    }
    // Whoever still finds us under the other name is served.
    CHECK(is_answered(directory / "moved.sock"));
    // And when the place is free, it is ours again.
    const int before = socket.rebind();
    CHECK(before == fd);
    close(before);
    CHECK(is_answered(path));
}

TEST_CASE("listen socket: a file that is put back is not lost") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    const ListenSocket socket(path, kBacklog, {kMode});
    REQUIRE(rename(path.c_str(), (directory / "b.sock").c_str()) == 0);
    CHECK(socket.has_lost_file());
    REQUIRE(rename((directory / "b.sock").c_str(), path.c_str()) == 0);
    CHECK_FALSE(socket.has_lost_file());
}

TEST_CASE("listen socket: refuses for a while, and listens again") {
    const TemporaryDirectory directory;
    std::string address = directory / "a.sock";
    SUBCASE("a Unix socket") {
    }
    SUBCASE("TCP, a port that the kernel chose") {
        address = "127.0.0.1:0";
    }
    SUBCASE("TCP, a port that was named") {
        address = ListenSocket("127.0.0.1:0", kBacklog, {kMode}).address();
    }
    ListenSocket socket(address, kBacklog, {0640});
    address = socket.address();
    for (int round = 0; round < 3; ++round) {
        CAPTURE(round);
        REQUIRE(socket.refuse_more());
        CHECK(socket.is_refusing());
        CHECK_FALSE(is_answered(address));
        socket.set_backlog(kBacklog + 1);
        CHECK_FALSE(is_answered(address));
        if (round == 1 && socket.is_unix()) REQUIRE(unlink(address.c_str()) == 0);
        socket.listen_again();
        CHECK_FALSE(socket.is_refusing());
        CHECK(is_answered(address));
        CHECK(socket.address() == address);
        if (socket.is_unix()) CHECK(mode_of(address) == 0640);
    }
}

TEST_CASE("listen socket: who waits for room in its queue is refused as well") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    ListenSocket socket(path, 1, {kMode});
    std::atomic<int> refused = 0;
    std::atomic<int> ended = 0;
    constexpr int kClients = 12;
    std::vector<std::thread> clients;
    for (int i = 0; i < kClients; ++i) {
        clients.emplace_back([&] {
            const SocketAddress parsed = parse_socket_address(path);
            const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (connect(fd, parsed.get(), parsed.length) != 0) refused += errno == ECONNREFUSED;
            ++ended;
            close(fd);
        });
    }
    Loop loop;
    // A queue of one lets two in.
    REQUIRE(run_until(loop, [&] { return ended == 2; }));
    REQUIRE(socket.refuse_more());
    CHECK(run_until(loop, [&] { return ended == kClients; }));
    CHECK(refused == kClients - 2);
    if (ended != kClients) socket.stop_listening();
    for (std::thread& client : clients)
        client.join();
}

TEST_CASE("listen socket: a mode that lets nobody in is no obstacle") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    ListenSocket socket(path, kBacklog, {0000});
    REQUIRE(socket.refuse_more());
    socket.listen_again();
    CHECK(mode_of(path) == 0);
    CHECK_FALSE(socket.has_lost_file());
}

TEST_CASE("listen socket: who has taken its place meanwhile stays there") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    ListenSocket socket(path, kBacklog, {kMode});
    REQUIRE(socket.refuse_more());
    REQUIRE(unlink(path.c_str()) == 0);
    const int other = foreign_socket(path);
    REQUIRE(listen(other, kBacklog) == 0);
    CHECK_THROWS_AS(socket.listen_again(), ListenError);
    CHECK(socket.is_refusing());
    CHECK(is_answered(path));
    close(other);
    socket.listen_again();
    CHECK(is_answered(path));
}

TEST_CASE("file lock: one at a time, and gone with its owner") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.lock";
    auto first = FileLock::take(path);
    REQUIRE(first != nullptr);
    CHECK(FileLock::take(path) == nullptr);
    CHECK(exists(path));
    first.reset();
    CHECK_FALSE(exists(path));
    CHECK(FileLock::take(path) != nullptr);
}

TEST_CASE("file lock: a symbolic link is not followed") {
    const TemporaryDirectory directory;
    REQUIRE(symlink("/tmp/nearkey-unit-nobody", (directory / "a.lock").c_str()) == 0);
    CHECK_THROWS_AS(static_cast<void>(FileLock::take(directory / "a.lock")), ListenError);
}

}  // namespace
}  // namespace nearkey::listen_socket_test
