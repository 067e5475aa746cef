// A network of a fixed delay: what comes from either side is passed on so much later, in order.
//
//   nearkey_delay_relay PORT TARGET DELAY_US     from 127.0.0.1:PORT to the Unix socket TARGET
//
// The delay is the same for all, so that one queue holds everything under way and is in the order
// of what is due. Timers are exact to some microseconds (epoll_pwait2, timer slack of 1 ns).
#include <fmt/format.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// A side that has so much under way is not read until some of it has been passed on.
constexpr size_t kUnderWayMax = size_t{4} << 20;
// What is due so soon is passed on at once: a wake-up less.
constexpr auto kEarly = std::chrono::microseconds(20);

struct Link;

// One end of a link: a socket, and what is to be written to it.
struct End {
    Link* link = nullptr;
    int fd = -1;
    uint32_t watched = 0;
    bool is_reading = true;   // from this socket
    bool is_at_end = false;   // there is nothing more to read
    size_t under_way = 0;     // bytes that were read here and not written to the other end
    std::string blocked;      // due, but the socket does not take it
    bool is_end_due = false;  // nothing follows what is blocked
};

struct Link : std::enable_shared_from_this<Link> {
    End client;
    End server;
    bool is_lost = false;
    size_t ends_passed_on = 0;

    End& other(const End& end) { return &end == &client ? server : client; }
};

struct Chunk {
    Clock::time_point due;
    std::shared_ptr<Link> link;
    End* from;
    std::string bytes;  // empty: the end
};

class Relay {
public:
    Relay(int listener, std::string target, std::chrono::microseconds delay)
        : listener_(listener),
          target_(std::move(target)),
          delay_(delay),
          poll_(epoll_create1(EPOLL_CLOEXEC)) {
        epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
        epoll_ctl(poll_, EPOLL_CTL_ADD, listener_, &event);
    }

    [[noreturn]] void run() {
        std::array<epoll_event, 128> events;
        while (true) {
            const int count = wait(events.data(), events.size());
            for (int i = 0; i < count; ++i) {
                const epoll_event& event = events[static_cast<size_t>(i)];
                if (event.data.ptr == nullptr) {
                    accept_one();
                } else {
                    on_event(*static_cast<End*>(event.data.ptr), event.events);
                }
            }
            pass_on_what_is_due();
            std::erase_if(links_, [](const auto& link) { return link->is_lost; });
        }
    }

private:
    int wait(epoll_event* events, size_t size) {
        if (queue_.empty()) return epoll_wait(poll_, events, static_cast<int>(size), -1);
        const auto left = std::max(queue_.front().due - Clock::now(), Clock::duration::zero());
        const auto ns = std::chrono::nanoseconds(left).count();
        const timespec limit{.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
        return epoll_pwait2(poll_, events, static_cast<int>(size), &limit, nullptr);
    }

    void accept_one() {
        const int client = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0) return;
        const int on = 1;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::copy(target_.begin(), target_.end(), address.sun_path);
        const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
            fmt::print(stderr, "nearkey_delay_relay: {}: {}\n", target_, std::strerror(errno));
            close(client);
            close(server);
            return;
        }
        const auto link = std::make_shared<Link>();
        link->client.fd = client;
        link->server.fd = server;
        link->client.link = link->server.link = link.get();
        links_.push_back(link);
        watch(link->client, EPOLLIN);
        watch(link->server, EPOLLIN);
    }

    void on_event(End& end, uint32_t events) {
        if (end.link->is_lost) return;
        if (events & EPOLLOUT) write_blocked(end);
        if (end.link->is_lost || !end.is_reading || !(events & ~EPOLLOUT)) return;
        const ssize_t count = recv(end.fd, scratch_.data(), scratch_.size(), 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (count < 0) return lose(*end.link);
        const auto size = static_cast<size_t>(count);
        queue_.push_back(
            {Clock::now() + delay_, end.link->shared_from_this(), &end, take_buffer()});
        queue_.back().bytes.assign(scratch_.data(), size);
        end.under_way += size;
        end.is_at_end = size == 0;
        if (end.is_at_end || end.under_way > kUnderWayMax) {
            end.is_reading = false;
            watch(end, end.watched & ~EPOLLIN);
        }
    }

    void pass_on_what_is_due() {
        const auto now = Clock::now() + kEarly;
        while (!queue_.empty() && queue_.front().due <= now) {
            Chunk& chunk = queue_.front();
            if (!chunk.link->is_lost) pass_on(chunk);
            buffers_.push_back(std::move(chunk.bytes));
            queue_.pop_front();
        }
    }

    void pass_on(const Chunk& chunk) {
        End& to = chunk.link->other(*chunk.from);
        if (chunk.bytes.empty()) {
            to.is_end_due = true;
        } else if (to.blocked.empty()) {
            const ssize_t count = send(to.fd, chunk.bytes.data(), chunk.bytes.size(), MSG_NOSIGNAL);
            if (count < 0 && errno != EAGAIN) return lose(*chunk.link);
            const auto written = static_cast<size_t>(std::max<ssize_t>(count, 0));
            to.blocked.assign(chunk.bytes, written);
            account(*chunk.from, written);
        } else {
            to.blocked += chunk.bytes;
        }
        settle(to);
    }

    void write_blocked(End& to) {
        const ssize_t count = send(to.fd, to.blocked.data(), to.blocked.size(), MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) return;
        if (count < 0) return lose(*to.link);
        to.blocked.erase(0, static_cast<size_t>(count));
        account(to.link->other(to), static_cast<size_t>(count));
        settle(to);
    }

    // So much of what was read at this end has been written.
    void account(End& from, size_t written) {
        from.under_way -= written;
        if (from.is_reading || from.is_at_end || from.under_way > kUnderWayMax / 2) return;
        from.is_reading = true;
        watch(from, from.watched | EPOLLIN);
    }

    void settle(End& to) {
        if (to.blocked.empty() && to.is_end_due) {
            shutdown(to.fd, SHUT_WR);
            if (++to.link->ends_passed_on == 2) return lose(*to.link);
        }
        const uint32_t writable = to.blocked.empty() ? 0U : uint32_t{EPOLLOUT};
        watch(to, (to.watched & EPOLLIN) | writable);
    }

    void watch(End& end, uint32_t events) {
        if (end.watched == events && events != 0) return;
        const int how = end.watched == 0 ? EPOLL_CTL_ADD
                        : events == 0    ? EPOLL_CTL_DEL
                                         : EPOLL_CTL_MOD;
        if (end.watched == 0 && events == 0) return;
        epoll_event event{.events = events, .data = {.ptr = &end}};
        epoll_ctl(poll_, how, end.fd, &event);
        end.watched = events;
    }

    // Its memory stays until the turn is over and nothing of it is under way.
    void lose(Link& link) {
        if (link.is_lost) return;
        link.is_lost = true;
        close(link.client.fd);
        close(link.server.fd);
    }

    std::string take_buffer() {
        if (buffers_.empty()) return {};
        std::string buffer = std::move(buffers_.back());
        buffers_.pop_back();
        return buffer;
    }

    int listener_;
    std::string target_;
    std::chrono::microseconds delay_;
    int poll_;
    std::vector<std::shared_ptr<Link>> links_;
    std::deque<Chunk> queue_;
    std::vector<std::string> buffers_;  // of chunks that were passed on
    std::vector<char> scratch_ = std::vector<char>(size_t{1} << 16);
};

int listen_at(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return -1;
    return listen(fd, 1024) == 0 ? fd : -1;
}

}  // namespace

int main(int argc, char** argv) {
    const unsigned long port = argc == 4 ? std::strtoul(argv[1], nullptr, 10) : 0;
    const std::string target = argc == 4 ? argv[2] : "";
    if (port == 0 || port > 65535 || target.size() >= sizeof(sockaddr_un::sun_path)) {
        fmt::print(stderr, "usage: nearkey_delay_relay PORT TARGET DELAY_US\n");
        return 2;
    }
    const int listener = listen_at(static_cast<uint16_t>(port));
    if (listener < 0) {
        fmt::print(stderr, "nearkey_delay_relay: port {}: {}\n", port, std::strerror(errno));
        return 1;
    }
    prctl(PR_SET_TIMERSLACK, 1);
    Relay(listener, target, std::chrono::microseconds(std::strtoul(argv[3], nullptr, 10))).run();
}
