// Sockets that somebody else opened for us: whose they are, and what stays when we end.
#include "nearkey/loop/inherited_sockets.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nearkey::inherited_sockets_test {
namespace {

constexpr int kFirst = 700;

bool exists(const std::string& path) {
    struct stat found {};
    return lstat(path.c_str(), &found) == 0;
}

bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

ListenVariables variables(const std::string& count, const std::string& names) {
    return {.fds = count, .pid = std::to_string(getpid()), .names = names, .first_fd = kFirst};
}

TEST_CASE("inherited sockets: taken by its address, a foreign one leaves its file behind") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    ListenSocket foreign(path, 8, {0600});
    REQUIRE(dup2(foreign.fd(), kFirst) == kFirst);
    REQUIRE(dup2(foreign.fd(), kFirst + 1) == kFirst + 1);
    InheritedSockets inherited(variables("2", "app:admin"));
    CHECK(inherited.foreign_addresses() == std::vector<std::string>{path});
    CHECK(inherited.address_of(InheritedSockets::kAdmin) == path);
    CHECK(inherited.take("/else.sock") == nullptr);
    auto socket = inherited.take(path);
    REQUIRE(socket != nullptr);
    CHECK(socket->address() == path);
    CHECK(socket->is_unix());
    CHECK_FALSE(socket->is_ours());
    CHECK_FALSE(socket->refuse_more());
    CHECK((fcntl(socket->fd(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((fcntl(socket->fd(), F_GETFD) & FD_CLOEXEC) != 0);
    socket.reset();
    CHECK(exists(path));
    inherited.drop_rest();
    CHECK_FALSE(is_open(kFirst + 1));
    CHECK(exists(path));
}

TEST_CASE("inherited sockets: only that of metrics may be open to other hosts") {
    const auto network = ListenSocket::for_network("0.0.0.0:0", 8);
    CHECK(network->address().starts_with("0.0.0.0:"));
    for (const std::string name : {"app", "admin", ""}) {
        CAPTURE(name);
        REQUIRE(dup2(network->fd(), kFirst) == kFirst);
        CHECK_THROWS_AS(InheritedSockets(variables("1", name)), ListenError);
    }
    REQUIRE(dup2(network->fd(), kFirst) == kFirst);
    InheritedSockets inherited(variables("1", "metrics"));
    CHECK(inherited.foreign_addresses().empty());
    CHECK(inherited.address_of(InheritedSockets::kMetrics) == network->address());
    CHECK(inherited.take(network->address()) != nullptr);
}

TEST_CASE("inherited sockets: with its lock comes the file") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    auto predecessor = std::make_unique<ListenSocket>(path, 8, SocketFile{0600});
    REQUIRE(dup2(predecessor->fd(), kFirst) == kFirst);
    REQUIRE(dup2(predecessor->lock_fd(), kFirst + 1) == kFirst + 1);
    InheritedSockets inherited(variables("2", "nearkey-own:nearkey-lock"));
    CHECK(inherited.foreign_addresses().empty());
    predecessor->leave();
    predecessor.reset();
    CHECK(exists(path));
    CHECK(exists(path + ".lock"));
    // Locked still: nobody else gets in between.
    CHECK_THROWS_AS(ListenSocket(path, 8, {0600}), ListenError);
    auto socket = inherited.take(path);
    REQUIRE(socket != nullptr);
    socket->claim();
    CHECK(socket->is_ours());
    socket.reset();
    CHECK(directory.is_empty());
}

TEST_CASE("inherited sockets: until it is claimed, it is the predecessor's") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    const ListenSocket predecessor(path, 8, {0600});
    for (const std::string end : {"taken", "not taken"}) {
        CAPTURE(end);
        REQUIRE(dup2(predecessor.fd(), kFirst) == kFirst);
        REQUIRE(dup2(predecessor.lock_fd(), kFirst + 1) == kFirst + 1);
        InheritedSockets inherited(variables("2", "nearkey-own:nearkey-lock"));
        const auto socket = end == "taken" ? inherited.take(path) : nullptr;
        CHECK((socket == nullptr || !socket->refuse_more()));
    }
    CHECK(exists(path));
    CHECK(exists(path + ".lock"));
    const SocketAddress address = parse_socket_address(path);
    const int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(client, address.get(), address.length) == 0);
    close(client);
}

TEST_CASE("inherited sockets: what nobody takes any more goes, if it is ours") {
    const TemporaryDirectory directory;
    const std::string path = directory / "a.sock";
    auto predecessor = std::make_unique<ListenSocket>(path, 8, SocketFile{0600});
    REQUIRE(dup2(predecessor->fd(), kFirst) == kFirst);
    REQUIRE(dup2(predecessor->lock_fd(), kFirst + 1) == kFirst + 1);
    InheritedSockets inherited(variables("2", "nearkey-own:nearkey-lock"));
    predecessor->leave();
    inherited.drop_rest();
    CHECK(directory.is_empty());
}

TEST_CASE("inherited sockets: none, or another process's") {
    CHECK(InheritedSockets().foreign_addresses().empty());
    const TemporaryDirectory directory;
    const ListenSocket foreign(directory / "a.sock", 8, {0600});
    REQUIRE(dup2(foreign.fd(), kFirst) == kFirst);
    for (const std::string& pid : {std::string(), std::string("x"), std::to_string(getppid())}) {
        const InheritedSockets inherited({.fds = "1", .pid = pid, .names = "", .first_fd = kFirst});
        CHECK(inherited.foreign_addresses().empty());
    }
    CHECK(is_open(kFirst));
    close(kFirst);
}

TEST_CASE("inherited sockets: what can't be listened on is refused, with its number and name") {
    const auto refusal = [](const std::string& count) -> std::string {
        try {
            const InheritedSockets inherited(variables(count, "app"));
        } catch (const ListenError& error) {
            return error.what();
        }
        return "";
    };
    close(kFirst);
    CHECK(refusal("1").find("descriptor 700 (app) of LISTEN_FDS: it is not open") == 0);
    CHECK(refusal("x").find("LISTEN_FDS=x") == 0);
    CHECK(refusal("99999999999").find("LISTEN_FDS=99999999999") == 0);
    const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(dup2(file, kFirst) == kFirst);
    CHECK(refusal("1").find("no listening stream socket") != std::string::npos);
    close(file);
    close(kFirst);
}

}  // namespace
}  // namespace nearkey::inherited_sockets_test
