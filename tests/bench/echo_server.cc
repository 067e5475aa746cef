// The floor: a server on libuv that answers each request of a fixed size with a fixed reply, and
// looks at neither. It reads and writes as nearkey's SocketStream does: uv_poll, one recv() and one
// send() for what arrived together.
//
//   nearkey_echo_server SOCKET REQUEST_BYTES VALUE_BYTES       replies: $VALUE_BYTES and the value
#include <fmt/format.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr size_t kRepliesAtOnce = 1024;

struct Server {
    size_t request_bytes;
    size_t reply_bytes;
    std::string replies;  // kRepliesAtOnce of them
    std::vector<char> scratch = std::vector<char>(size_t{1} << 16);
    uv_poll_t poll{};
    int fd = -1;
};

// Frees itself in the close callback of its poll handle.
struct Peer {
    Server* server;
    int fd;
    uv_poll_t poll{};
    size_t received = 0;  // of the request that is not complete
    size_t owed = 0;      // bytes of replies
    size_t sent = 0;      // all so far: where in the replies' period we are
    bool is_blocked = false;

    void watch(int events);
    // False when the connection is lost.
    bool receive();
    bool send_owed();
};

void on_peer(uv_poll_t* poll, int status, int events) {
    auto* const peer = static_cast<Peer*>(poll->data);
    bool is_open = status == 0;
    if (is_open && (events & UV_READABLE)) is_open = peer->receive();
    if (is_open && peer->owed > 0) is_open = peer->send_owed();
    if (is_open) return;
    uv_poll_stop(poll);
    close(peer->fd);
    uv_close(reinterpret_cast<uv_handle_t*>(poll),
             [](uv_handle_t* handle) { delete static_cast<Peer*>(handle->data); });
}

void Peer::watch(int events) {
    uv_poll_start(&poll, events, on_peer);
}

bool Peer::receive() {
    const ssize_t count = recv(fd, server->scratch.data(), server->scratch.size(), 0);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (count == 0) return false;
    received += static_cast<size_t>(count);
    owed += received / server->request_bytes * server->reply_bytes;
    received %= server->request_bytes;
    return true;
}

bool Peer::send_owed() {
    while (owed > 0) {
        const size_t from = sent % server->reply_bytes;
        const size_t size = std::min(owed, server->replies.size() - from);
        const ssize_t count = send(fd, server->replies.data() + from, size, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno == EAGAIN) {
            is_blocked = true;
            watch(UV_WRITABLE);  // It is read again when it has taken what it is owed.
            return true;
        }
        if (count < 0) return false;
        owed -= static_cast<size_t>(count);
        sent += static_cast<size_t>(count);
    }
    if (is_blocked) watch(UV_READABLE);
    is_blocked = false;
    return true;
}

void on_listen(uv_poll_t* poll, int, int) {
    auto* const server = static_cast<Server*>(poll->data);
    const int fd = accept4(server->fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    auto* const peer = new Peer{server, fd};
    uv_poll_init(poll->loop, &peer->poll, fd);
    peer->poll.data = peer;
    peer->watch(UV_READABLE);
}

int listen_at(const char* path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || std::strlen(path) >= sizeof address.sun_path) return -1;
    std::copy(path, path + std::strlen(path), address.sun_path);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return -1;
    return listen(fd, 1024) == 0 ? fd : -1;
}

}  // namespace

int main(int argc, char** argv) {
    const size_t request_bytes = argc == 4 ? std::strtoul(argv[2], nullptr, 10) : 0;
    if (request_bytes == 0) {
        fmt::print(stderr, "usage: nearkey_echo_server SOCKET REQUEST_BYTES VALUE_BYTES\n");
        return 2;
    }
    const size_t value_bytes = std::strtoul(argv[3], nullptr, 10);
    const std::string reply =
        fmt::format("${}\r\n{}\r\n", value_bytes, std::string(value_bytes, 'x'));
    Server server{request_bytes, reply.size(), {}};
    for (size_t i = 0; i < kRepliesAtOnce; ++i)
        server.replies += reply;
    server.fd = listen_at(argv[1]);
    if (server.fd < 0) {
        fmt::print(stderr, "nearkey_echo_server: {}: {}\n", argv[1], std::strerror(errno));
        return 1;
    }
    uv_poll_init(uv_default_loop(), &server.poll, server.fd);
    server.poll.data = &server;
    uv_poll_start(&server.poll, UV_READABLE, on_listen);
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
