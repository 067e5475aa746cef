// A client's socket: what arrives is told, what does not fit waits, and nothing blocks.
#include "nearkey/loop/socket_stream.h"

#include "../run_until.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

namespace nearkey::socket_stream_test {
namespace {

// The stream has one end of a socket pair, the test the other.
struct StreamRig final : StreamEvents {
    StreamRig() {
        int ends[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
        peer = ends[1];
        stream = std::make_unique<SocketStream>(loop, ends[0], scratch, *this);
    }
    ~StreamRig() {
        if (peer >= 0) close(peer);
    }
    void hang_up() {
        close(peer);
        peer = -1;
    }
    void say(std::string_view bytes) const {
        REQUIRE(send(peer, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
                static_cast<ssize_t>(bytes.size()));
    }
    // What has arrived at the peer.
    std::string take() const {
        std::string taken;
        char bytes[65536];
        ssize_t count = 0;
        while ((count = recv(peer, bytes, sizeof bytes, 0)) > 0)
            taken.append(bytes, static_cast<size_t>(count));
        return taken;
    }

    void on_bytes(std::string_view bytes) override {
        heard += bytes;
        pieces.push_back(bytes.size());
    }
    void on_end() override { ++ends_told; }
    void on_stream_lost() override { ++losses_told; }
    void on_writable() override { ++writable_told; }

    Loop loop;
    std::vector<char> scratch = std::vector<char>(16);
    int peer = -1;
    std::unique_ptr<SocketStream> stream;
    std::string heard;
    std::vector<size_t> pieces;
    int ends_told = 0;
    int losses_told = 0;
    int writable_told = 0;
};

TEST_CASE("socket stream: bytes are told in order, at most one scratch buffer a turn") {
    StreamRig rig;
    rig.say("0123456789abcdef0123456789");
    REQUIRE(run_until(rig.loop, [&] { return rig.heard.size() == 26; }));
    CHECK(rig.heard == "0123456789abcdef0123456789");
    CHECK(rig.pieces == std::vector<size_t>{16, 10});
}

TEST_CASE("socket stream: a write that does not fit is partial, and on_writable follows") {
    StreamRig rig;
    const std::string bytes(4 << 20, 'x');
    size_t written = 0;
    REQUIRE(rig.stream->write(bytes, written) == WriteResult::WouldBlock);
    CHECK(written > 0);
    CHECK(written < bytes.size());
    std::string arrived;
    while (written < bytes.size()) {
        const int before = rig.writable_told;
        arrived += rig.take();
        REQUIRE(run_until(rig.loop, [&] { return rig.writable_told > before; }));
        size_t more = 0;
        (void)rig.stream->write(std::string_view(bytes).substr(written), more);
        written += more;
    }
    arrived += rig.take();
    CHECK((arrived == bytes));
}

TEST_CASE("socket stream: what fits is written whole, and on_writable does not come") {
    StreamRig rig;
    size_t written = 99;
    CHECK(rig.stream->write("hello", written) == WriteResult::Ok);
    CHECK(written == 5);
    CHECK(rig.stream->write("", written) == WriteResult::Ok);
    CHECK(written == 0);
    CHECK(rig.take() == "hello");
    rig.say("x");
    REQUIRE(run_until(rig.loop, [&] { return rig.heard == "x"; }));
    CHECK(rig.writable_told == 0);
}

TEST_CASE("socket stream: the end is told once, after all bytes, and writing still works") {
    StreamRig rig;
    rig.say("last words, more than one buffer");
    shutdown(rig.peer, SHUT_WR);
    REQUIRE(run_until(rig.loop, [&] { return rig.ends_told == 1; }));
    CHECK(rig.heard == "last words, more than one buffer");
    size_t written = 0;
    CHECK(rig.stream->write("bye", written) == WriteResult::Ok);
    CHECK(rig.take() == "bye");
    // Neither pausing nor resuming brings the end back.
    rig.stream->pause_reading();
    rig.stream->resume_reading();
    int looks = 0;
    run_until(rig.loop, [&] { return ++looks > 3; });
    CHECK(rig.ends_told == 1);
    CHECK(rig.losses_told == 0);
}

TEST_CASE("socket stream: refused more, a peer's send fails, and what it had sent still comes") {
    StreamRig rig;
    const std::string sent(100, 'x');
    rig.say(sent);
    REQUIRE(rig.stream->refuse_more());
    CHECK(send(rig.peer, "y", 1, MSG_NOSIGNAL) == -1);
    CHECK(errno == EPIPE);
    CHECK(run_until(rig.loop, [&] { return rig.ends_told == 1; }));
    CHECK(rig.heard == sent);
    size_t written = 0;
    CHECK(rig.stream->write("reply", written) == WriteResult::Ok);
    CHECK(rig.take() == "reply");
}

TEST_CASE("socket stream: refused more while a peer's send is under way, no byte is lost") {
    StreamRig rig;
    // More than the socket takes: what was taken is what comes.
    const std::string sent(size_t{4} << 20, 'x');
    const ssize_t taken = send(rig.peer, sent.data(), sent.size(), MSG_NOSIGNAL);
    REQUIRE(taken > 0);
    REQUIRE(static_cast<size_t>(taken) < sent.size());
    REQUIRE(rig.stream->refuse_more());
    CHECK(run_until(rig.loop, [&] { return rig.ends_told == 1; }));
    CHECK(rig.heard.size() == static_cast<size_t>(taken));
}

TEST_CASE("socket stream: a peer over TCP can't be refused more") {
    const int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(listen(listening, 1) == 0);
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    REQUIRE(getsockname(listening, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    const int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(peer, reinterpret_cast<sockaddr*>(&address), length) == 0);
    StreamRig rig;
    rig.stream = std::make_unique<SocketStream>(
        rig.loop, accept4(listening, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC), rig.scratch,
        rig);
    CHECK_FALSE(rig.stream->refuse_more());
    CHECK(send(peer, "x", 1, MSG_NOSIGNAL) == 1);
    CHECK(run_until(rig.loop, [&] { return rig.heard == "x"; }));
    close(peer);
    close(listening);
}

TEST_CASE("socket stream: a peer that is gone is lost to writing, without a signal") {
    StreamRig rig;
    rig.hang_up();
    size_t written = 0;
    CHECK(rig.stream->write("hello", written) == WriteResult::Lost);
    CHECK(written == 0);
}

// In a child, as a user whose descriptors under way are counted: root's are not.
bool is_ended_by_a_descriptor_too_many() {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        constexpr rlim_t kDescriptors = 64;
        const rlimit few{kDescriptors, kDescriptors};
        bool is_ended = setrlimit(RLIMIT_NOFILE, &few) == 0;
        if (geteuid() == 0) is_ended = is_ended && setuid(65534) == 0;
        StreamRig rig;
        WriteResult result = WriteResult::Ok;
        for (rlim_t i = 0; i < 2 * kDescriptors && result == WriteResult::Ok; ++i) {
            rig.stream->pass(UniqueFd(dup(STDIN_FILENO)));
            size_t written = 0;
            result = rig.stream->write("x", written);
        }
        is_ended = is_ended && result == WriteResult::Lost;
        is_ended = is_ended && !rig.take().empty();
        char byte = 0;
        is_ended = is_ended && recv(rig.peer, &byte, 1, 0) == 0;
        _exit(is_ended ? 0 : 1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_CASE("socket stream: where no descriptor can be passed any more, the peer sees the end") {
    CHECK(is_ended_by_a_descriptor_too_many());
}

TEST_CASE("socket stream: a connection that was reset is told as lost, once") {
    StreamRig rig;
    size_t written = 0;
    // A Unix socket that is closed with bytes unread is reset for the other side.
    REQUIRE(rig.stream->write("unread", written) == WriteResult::Ok);
    rig.hang_up();
    REQUIRE(run_until(rig.loop, [&] { return rig.losses_told + rig.ends_told > 0; }));
    int looks = 0;
    run_until(rig.loop, [&] { return ++looks > 3; });
    CHECK(rig.losses_told == 1);
    CHECK(rig.ends_told == 0);
}

TEST_CASE("socket stream: while reading is paused nothing is told, and nothing gets lost") {
    StreamRig rig;
    rig.stream->pause_reading();
    rig.say("hello");
    int looks = 0;
    run_until(rig.loop, [&] { return ++looks > 3; });
    CHECK(rig.heard.empty());
    rig.stream->resume_reading();
    REQUIRE(run_until(rig.loop, [&] { return rig.heard == "hello"; }));
}

TEST_CASE("socket stream: destroyed, it closes the socket") {
    StreamRig rig;
    rig.stream.reset();
    char byte = 0;
    CHECK(recv(rig.peer, &byte, 1, 0) == 0);
}

}  // namespace
}  // namespace nearkey::socket_stream_test
