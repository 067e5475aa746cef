#include "nearkey/loop/socket_stream.h"

#include <sys/socket.h>
#include <algorithm>
#include <cerrno>
#include <cstring>

namespace nearkey {

namespace {
// More at a time is no faster.
constexpr size_t kStreamRead = size_t{64} << 10;
}  // namespace

SocketStream::SocketStream(Loop& loop, int fd, std::span<char> scratch, StreamEvents& events)
    : loop_(loop),
      fd_(fd),
      scratch_(scratch),
      events_(events),
      read_max_(scratch.size()),
      watch_(loop, fd, [this](FdEvents seen) { on_events(seen); }) {
    watch();
}

SocketStream::~SocketStream() = default;

WriteResult SocketStream::write(std::string_view bytes, size_t& written) {
    written = 0;
    while (written < bytes.size()) {
        if (written >= Loop::kWholePiece) {
            blocked_ = true;  // The next turn says that more can be written.
            watch();
            return WriteResult::WouldBlock;
        }
        const ssize_t count = send_some(bytes.substr(written, Loop::kWholePiece));
        if (count >= 0) {
            written += static_cast<size_t>(count);
        } else if (errno == EAGAIN) {
            blocked_ = true;
            watch();
            return WriteResult::WouldBlock;
        } else if (errno != EINTR) {
            return WriteResult::Lost;
        }
    }
    return WriteResult::Ok;
}

ssize_t SocketStream::send_some(std::string_view bytes) {
    if (passed_.get() < 0) return send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int passed = passed_.get();
    std::memcpy(CMSG_DATA(header), &passed, sizeof passed);
    const ssize_t count = sendmsg(fd(), &message, MSG_NOSIGNAL);
    if (count > 0) passed_.reset();
    // Others have been passed so many that they did not take. The peer is there, and would wait.
    if (count < 0 && errno == ETOOMANYREFS) {
        shutdown(fd(), SHUT_RDWR);
        errno = ETOOMANYREFS;
    }
    return count;
}

void SocketStream::pause_reading() {
    reading_ = false;
    watch();
}

void SocketStream::resume_reading() {
    reading_ = true;
    watch();
}

// The kernel keeps what a Unix socket has received, and fails the peer's next send() with EPIPE.
// Over TCP the peer would go on sending into the void.
bool SocketStream::refuse_more() {
    int domain = 0;
    socklen_t length = sizeof domain;
    return getsockopt(fd(), SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX &&
           shutdown(fd(), SHUT_RD) == 0;
}

void SocketStream::on_events(FdEvents seen) {
    if (seen.writable && blocked_) {
        blocked_ = false;
        watch();
        events_.on_writable();
    }
    if (seen.readable && reading_ && !ended_) read_once();
}

void SocketStream::read_once() {
    const ssize_t count = recv(fd(), scratch_.data(), read_max_, 0);
    if (count > 0) {
        // A batch of requests is best read as a whole; a full buffer means a large value.
        const bool is_full = static_cast<size_t>(count) == read_max_;
        read_max_ = is_full ? std::min({kStreamRead, scratch_.size(), loop_.large_piece()})
                            : scratch_.size();
        events_.on_bytes({scratch_.data(), static_cast<size_t>(count)});
    } else if (count == 0) {
        ended_ = true;
        watch();
        events_.on_end();
    } else if (errno != EAGAIN && errno != EINTR) {
        ended_ = true;
        watch();
        events_.on_stream_lost();
    }
}

void SocketStream::watch() {
    watch_.want({reading_ && !ended_, blocked_});
}

}  // namespace nearkey
