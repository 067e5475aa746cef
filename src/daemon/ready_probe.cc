#include "nearkey/daemon/ready_probe.h"

#include "nearkey/loop/listen_socket.h"

#include <nlohmann/json.hpp>

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ostream>
#include <string_view>
#include <system_error>

namespace nearkey {

namespace {

constexpr int kExitReady = 0;
constexpr int kExitNotReady = 1;
constexpr int kExitNobody = 2;

// The state is one short line; what is longer does not come from nearkey.
constexpr size_t kAnswerMax = size_t{64} << 10;
constexpr size_t kTextMax = 500;
constexpr std::string_view kRequest =
    "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

// One HTTP exchange within a deadline.
class Exchange {
public:
    explicit Exchange(int timeout_ms)
        : deadline_(Clock::now() + std::chrono::milliseconds(timeout_ms)) {}
    ~Exchange() {
        if (fd_ >= 0) close(fd_);
    }
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    // The whole answer, up to the end of the connection; or "" and `failure` says why.
    std::string ask(const SocketAddress& address, std::string& failure) {
        fd_ = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        std::string answer;
        if (fd_ < 0 || !limit_next_call() || connect(fd_, address.get(), address.length) != 0 ||
            !limit_next_call() || send(fd_, kRequest.data(), kRequest.size(), MSG_NOSIGNAL) < 0 ||
            !receive(answer)) {
            failure = reason(errno);
            return "";
        }
        return answer;
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
        return setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
               setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0;
    }

    bool receive(std::string& answer) {
        char bytes[4096];
        while (answer.size() < kAnswerMax) {
            if (!limit_next_call()) return false;
            const ssize_t count = recv(fd_, bytes, sizeof bytes, 0);
            if (count == 0) return true;
            if (count < 0 && errno != EINTR) return false;
            if (count > 0) answer.append(bytes, static_cast<size_t>(count));
        }
        return true;
    }

    // A blocking call that ran into its limit says EAGAIN, and connect() says EINPROGRESS.
    static std::string reason(int error) {
        const bool is_timeout = error == EAGAIN || error == EINPROGRESS || error == ETIMEDOUT;
        return is_timeout ? "no answer in time" : std::system_category().message(error);
    }

    Clock::time_point deadline_;
    int fd_ = -1;
};

struct Readiness {
    int exit_code = kExitNobody;
    std::string line;
};

// One line, whatever the other side sent.
std::string shown(const nlohmann::json& body, const char* key) {
    const auto found = body.find(key);
    if (found == body.end() || !found->is_string()) return "";
    std::string text = found->get<std::string>().substr(0, kTextMax);
    std::replace_if(
        text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; }, ' ');
    return text;
}

Readiness understand(std::string_view answer) {
    const size_t body_at = answer.find("\r\n\r\n");
    const bool is_http = answer.starts_with("HTTP/1.") && body_at != std::string_view::npos;
    const std::string_view status = is_http ? answer.substr(8, 5) : "";
    if (status != " 200 " && status != " 503 ") return {};
    const auto body = nlohmann::json::parse(answer.substr(body_at + 4), nullptr, false);
    if (!body.is_object()) return {};
    const std::string state = shown(body, "state");
    const bool is_ready = state == "ready";
    if (state.empty() || is_ready != (status == " 200 ")) return {};

    std::string line = state;
    const std::string why = shown(body, "reason");
    if (!why.empty()) line.append(": ").append(why);
    const std::string since = shown(body, "since");
    if (!since.empty()) line.append(" (since ").append(since).append(")");
    return {is_ready ? kExitReady : kExitNotReady, line};
}

}  // namespace

int run_ready(const std::string& admin_address, int timeout_ms, std::ostream& out) {
    std::string failure;
    Readiness readiness;
    try {
        const SocketAddress address = parse_socket_address(admin_address);
        const std::string answer = Exchange(timeout_ms).ask(address, failure);
        if (failure.empty()) readiness = understand(answer);
    } catch (const ListenError&) {
        failure = "this is no address";
    }
    if (!failure.empty()) {
        readiness.line = "nobody answers at " + admin_address + ": " + failure +
                         "; is nearkey running, and is --admin its address?";
    } else if (readiness.line.empty()) {
        readiness.line = "something that is not nearkey answers at " + admin_address +
                         "; name nearkey's own admin address with --admin";
    }
    out << readiness.line << '\n';
    return readiness.exit_code;
}

}  // namespace nearkey
