#include "nearkey/cli/http_exchange.h"

#include "nearkey/base/unique_fd.h"
#include "nearkey/loop/listen_socket.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <cerrno>
#include <chrono>

namespace nearkey {

namespace {

using Kind = HttpOutcome::Kind;

class Exchange {
public:
    explicit Exchange(int timeout_ms)
        : deadline_(Clock::now() + std::chrono::milliseconds(timeout_ms)) {}

    // False, and errno says why.
    bool connect_to(const SocketAddress& address) {
        fd_.reset(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        return fd_.get() >= 0 && limit_next_call() &&
               connect(fd_.get(), address.get(), address.length) == 0;
    }

    bool send_all(std::string_view bytes) {
        while (!bytes.empty()) {
            if (!limit_next_call()) return false;
            const ssize_t count = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (count < 0 && errno != EINTR) return false;
            if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
        }
        return true;
    }

    // Reads to the end of the connection, or to the first byte that is too much.
    bool receive_all(std::string& answer) {
        char bytes[16384];
        while (answer.size() <= kHttpAnswerMax) {
            if (!limit_next_call()) return false;
            const ssize_t count = recv(fd_.get(), bytes, sizeof bytes, 0);
            if (count == 0) return true;
            if (count < 0 && errno != EINTR) return false;
            if (count > 0) answer.append(bytes, static_cast<size_t>(count));
        }
        return true;
    }

private:
    using Clock = std::chrono::steady_clock;

    // The kernel ends a blocking call for us. False, and errno says so, when no time is left.
    bool limit_next_call() {
        const auto left =
            std::chrono::duration_cast<std::chrono::microseconds>(deadline_ - Clock::now());
        if (left.count() <= 0) {
            errno = ETIMEDOUT;
            return false;
        }
        const timeval limit{static_cast<time_t>(left.count() / 1'000'000),
                            static_cast<suseconds_t>(left.count() % 1'000'000)};
        return setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
               setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0;
    }

    Clock::time_point deadline_;
    UniqueFd fd_;
};

// A blocking call that ran into its limit says EAGAIN, and connect() says EINPROGRESS.
bool is_late(int error) {
    return error == EAGAIN || error == EINPROGRESS || error == ETIMEDOUT;
}

HttpOutcome failed_to_connect(int error) {
    const bool is_denied = error == EACCES || error == EPERM;
    return {is_late(error) ? Kind::Late : is_denied ? Kind::Denied : Kind::Nobody, {}, error};
}

std::string bytes_of(const HttpRequest& request) {
    std::string bytes(request.method);
    bytes.append(" ").append(request.target);
    bytes.append(" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if (request.method == "POST") bytes.append("Content-Length: 0\r\n");
    return bytes + "\r\n";
}

HttpOutcome understood(const std::string& bytes) {
    if (bytes.size() > kHttpAnswerMax) return {Kind::TooLong, {}, 0};
    HttpOutcome outcome{Kind::NotHttp, parse_http_answer(bytes), 0};
    if (outcome.answer.state == HttpAnswer::State::Whole) outcome.kind = Kind::Answered;
    if (outcome.answer.state == HttpAnswer::State::CutShort) outcome.kind = Kind::Lost;
    return outcome;
}

}  // namespace

HttpOutcome ask_http(const std::string& address, const HttpRequest& request, int timeout_ms) {
    Exchange exchange(timeout_ms);
    try {
        const SocketAddress parsed = parse_socket_address(address);
        if (!exchange.connect_to(parsed)) return failed_to_connect(errno);
    } catch (const ListenError&) {
        return {Kind::Nobody, {}, 0};
    }
    std::string bytes;
    // A server that answers and closes before it has read everything has answered.
    const bool is_sent = exchange.send_all(bytes_of(request));
    if (!is_sent && is_late(errno)) return {Kind::Late, {}, 0};
    if (!exchange.receive_all(bytes)) return {is_late(errno) ? Kind::Late : Kind::Lost, {}, 0};
    return understood(bytes);
}

}  // namespace nearkey
