#include "load_client.h"

#include <fmt/format.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

namespace nearkey::bench {
namespace {

constexpr time_t kConnectSecondsMax = 10;
// Hits in a row before a request is sent all the same: others have their turn.
constexpr uint64_t kSegmentHitsMax = 1000;
// Pieces of text and of value in one call: two for each request of a batch, and the last text.
constexpr size_t kPiecesMax = 2 * 256 + 1;

int connect_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) fail_run("too long a path: " + path);
    std::copy(path.begin(), path.end(), address.sun_path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{.tv_sec = kConnectSecondsMax, .tv_usec = 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        fail_run(fmt::format("can't connect to {}: {}", path, std::strerror(errno)));
    }
    return fd;
}

int connect_tcp(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{.tv_sec = kConnectSecondsMax, .tv_usec = 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        fail_run(fmt::format("can't connect to port {}: {}", port, std::strerror(errno)));
    }
    return fd;
}

KeyDraws draws_of(const LoadOptions& options) {
    return options.draw == LoadDraw::Zipf ? KeyDraws::zipf(options.keys, options.zipf_exponent)
                                          : KeyDraws::uniform(options.keys);
}

// What is left of a batch, in pieces, after `skip` bytes of it.
class Pieces {
public:
    explicit Pieces(size_t skip) : skip_(skip) {}

    void add(const char* data, size_t size) {
        const size_t skipped = std::min(skip_, size);
        skip_ -= skipped;
        if (skipped == size) return;
        pieces_[count_++] = {const_cast<char*>(data) + skipped, size - skipped};
    }
    ssize_t send(int fd) {
        msghdr message{};
        message.msg_iov = pieces_.data();
        message.msg_iovlen = count_;
        return sendmsg(fd, &message, MSG_NOSIGNAL);
    }

private:
    size_t skip_;
    size_t count_ = 0;
    std::array<iovec, kPiecesMax> pieces_;
};

}  // namespace

LoadPlan::LoadPlan(const LoadOptions& chosen)
    : options(chosen),
      shapes(make_shapes(chosen)),
      draws(draws_of(chosen)),
      seed(std::random_device{}()) {
    if (!options.segment.empty()) {
        segment = nearkey_open(options.segment.c_str(), nullptr);
        nearkey_info_t info{};
        info.size = sizeof info;
        if (segment != nullptr) nearkey_info(segment, &info);
        if (segment == nullptr || info.why_off != nullptr) {
            fail_run(fmt::format("no shared memory: {}", info.why_off ? info.why_off : "the URL"));
        }
    }
    if (options.value_bytes > kValueInlineMax) value.assign(options.value_bytes, 'x') += "\r\n";
}

void fail_run(const std::string& reason) {
    fmt::print(stderr, "nearkey_load_client: {}\n", reason);
    std::_Exit(1);  // Other threads are at work: nothing is torn down under them.
}

LoadClient::LoadClient(const LoadPlan& plan, size_t number, int poll)
    : plan_(plan),
      poll_(poll),
      fd_(plan.options.unix_path.empty() ? connect_tcp(plan.options.tcp_port)
                                         : connect_unix(plan.options.unix_path)),
      random_((plan.seed + number) * 0x9e3779b97f4a7c15U | 1),
      turn_(plan.options.command == LoadCommand::Mixed ? number : 0),
      watched_(EPOLLIN) {
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
    for (int i = 0; i < 16; ++i)
        next_random(random_);  // Neighbouring seeds have parted by then.
    epoll_event event{.events = watched_, .data = {.ptr = this}};
    if (epoll_ctl(poll_, EPOLL_CTL_ADD, fd_, &event) != 0) fail_run("epoll_ctl");
}

LoadClient::~LoadClient() {
    close(fd_);
}

void LoadClient::start_batch(uint64_t first, uint64_t now_ns) {
    shape_ = &plan_.shapes[turn_++ % plan_.shapes.size()];
    text_ = shape_->text;
    const LoadOptions& options = plan_.options;
    first *= shape_->key_digits.size() / options.pipeline;
    for (const size_t place : shape_->key_digits) {
        const bool is_sequence = options.draw == LoadDraw::Sequence;
        const uint64_t key = is_sequence ? first++ % options.keys : plan_.draws.draw(random_);
        write_key(text_.data() + place, key);
    }
    if (plan_.segment != nullptr) read_segment();
    sent_ = 0;
    total_bytes_ = text_.size() + shape_->value_places.size() * plan_.value.size();
    cursor_.start(shape_->replies);
    start_ns_ = now_ns;
    continue_sending();
}

// Draws one key after the other, until one is not in shared memory: that one is sent.
void LoadClient::read_segment() {
    const size_t digits_at = shape_->key_digits.front();
    const size_t key_at = digits_at - plan_.options.prefix.size();
    const size_t key_size = digits_at + kKeyDigits - key_at;
    char value[NEARKEY_VALUE_MAX];
    for (segment_hits_ = 0; segment_hits_ < kSegmentHitsMax; ++segment_hits_) {
        const int64_t size =
            nearkey_get(plan_.segment, text_.data() + key_at, key_size, value, sizeof value);
        if (size != static_cast<int64_t>(plan_.options.value_bytes)) return;
        write_key(text_.data() + digits_at, plan_.draws.draw(random_));
    }
}

void LoadClient::continue_sending() {
    while (!is_sent()) {
        const ssize_t count = send_once();
        if (count < 0 && errno == EAGAIN) break;
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_run(fmt::format("send: {}", std::strerror(errno)));
        sent_ += static_cast<size_t>(count);
    }
    watch_writable(is_sent() ? 0U : uint32_t{EPOLLOUT});
}

long LoadClient::send_once() {
    if (shape_->value_places.empty()) {
        return ::send(fd_, text_.data() + sent_, text_.size() - sent_, MSG_NOSIGNAL);
    }
    Pieces pieces(sent_);
    size_t from = 0;
    for (const size_t place : shape_->value_places) {
        pieces.add(text_.data() + from, place - from);
        pieces.add(plan_.value.data(), plan_.value.size());
        from = place;
    }
    pieces.add(text_.data() + from, text_.size() - from);
    return pieces.send(fd_);
}

void LoadClient::watch_writable(uint32_t events) {
    if (watched_ == (EPOLLIN | events)) return;
    watched_ = EPOLLIN | events;
    epoll_event event{.events = watched_, .data = {.ptr = this}};
    epoll_ctl(poll_, EPOLL_CTL_MOD, fd_, &event);
}

bool LoadClient::receive(std::span<char> scratch) {
    const ssize_t count = recv(fd_, scratch.data(), scratch.size(), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (count < 0) fail_run(fmt::format("recv: {}", std::strerror(errno)));
    if (count == 0) fail_run("the connection was closed");
    const std::string_view bytes(scratch.data(), static_cast<size_t>(count));
    const ReplyCursor::State state = cursor_.feed(bytes);
    if (state == ReplyCursor::State::Wrong) {
        fail_run(fmt::format("not the expected reply, in: {}", bytes.substr(0, 100)));
    }
    return state == ReplyCursor::State::Complete && is_sent();
}

}  // namespace nearkey::bench
