#include "nearkey/upstream/hiredis_adapter.h"

#include "nearkey/base/check.h"

// C functions, though their header does not say so; hiredis's own headers include it later.
extern "C" {
#include <hiredis/sds.h>
}
#include <hiredis/async.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace nearkey {

namespace {

// hiredis moves what is left of its output buffer after each partial write; a small buffer keeps
// that cheap when a big value is written.
constexpr size_t kTlsOutputMax = size_t{256} << 10;
// From this size on a system call costs less than copying the bytes to write them later.
constexpr size_t kWriteAtOnce = size_t{8} << 10;
// Fewer unsent bytes count as room for more.
constexpr size_t kRoom = size_t{64} << 10;
// Reads of one turn, so that one connection does not keep the loop to itself.
constexpr int kReadsPerTurn = 4;

}  // namespace

HiredisSocket::HiredisSocket(Loop& loop, std::span<char> scratch, Metrics& metrics,
                             SocketEvents& events)
    : Deferred(loop, Phase::Upstream),
      loop_(loop),
      scratch_(scratch),
      metrics_(metrics),
      events_(events),
      read_max_(scratch.size()) {
}

HiredisSocket::~HiredisSocket() {
    metrics_.upstream_unsent_bytes -= counted_unsent_;
    watch_.reset();
    if (context_ == nullptr) return;
    redisAsyncContext* context = context_;
    context_ = nullptr;
    context->data = nullptr;
    redisAsyncFree(context);
}

std::string HiredisSocket::connect(const SocketOptions& options) {
    redisOptions hiredis{};
    if (options.url.is_tcp()) {
        REDIS_OPTIONS_SET_TCP(&hiredis, options.address.c_str(), options.url.port);
    } else {
        REDIS_OPTIONS_SET_UNIX(&hiredis, options.url.path.c_str());
    }
    tls_ = options.tls;
    context_ = redisAsyncConnectWithOptions(&hiredis);
    if (context_ == nullptr) return "out of memory";
    if (context_->err != 0) return context_->errstr;
    context_->data = this;
    // hiredis calls this when the attempt has failed, and frees the context afterwards.
    redisAsyncSetConnectCallback(context_, [](const redisAsyncContext* context, int status) {
        auto* self = static_cast<HiredisSocket*>(context->data);
        if (self == nullptr || status == REDIS_OK) return;
        const std::string reason = self->error_text();
        self->context_ = nullptr;
        self->lose(reason);
    });
    if (options.url.is_tcp()) set_tcp_options(options.tcp_user_timeout_ms);
    certificate_end_s_ = options.certificate_end_s;
    watch_ = std::make_unique<FdWatch>(loop_, context_->c.fd,
                                       [this](FdEvents seen) { on_events(seen); });
    watch_->want({false, true});
    return "";
}

// A peer that vanished is found by unanswered bytes (TCP_USER_TIMEOUT), or by probes when idle.
void HiredisSocket::set_tcp_options(uint64_t user_timeout_ms) {
    const int fd = context_->c.fd;
    const auto timeout = static_cast<unsigned>(user_timeout_ms);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
    const int on = 1;
    const int second = 1;
    const int probes = 2;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &second, sizeof second);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &second, sizeof second);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

void HiredisSocket::send(std::string_view bytes) {
    NEARKEY_CHECK(context_ != nullptr && connected_);
    const bool is_blocked = watch_->wanted().writable;
    if (bytes.size() >= kWriteAtOnce && tls_ == nullptr && !is_blocked && !lost_) {
        const std::optional<size_t> written = write_plain(output_.view(), bytes);
        // The sender is in the middle of its work: the next write tells of the loss.
        const size_t count = written.value_or(0);
        const size_t queued = std::min(count, output_.size());
        output_.consume(queued);
        bytes.remove_prefix(count - queued);
    }
    queue(bytes);
}

void HiredisSocket::queue(std::string_view bytes) {
    output_.append(bytes);
    count_unsent();
    if (!watch_->wanted().writable) defer();
}

void HiredisSocket::send_owned(Buffer bytes) {
    if (!output_.empty()) {
        send(bytes.view());
        return;
    }
    output_ = std::move(bytes);
    is_large_ = true;
    queue({});
}

void HiredisSocket::count_unsent() {
    metrics_.upstream_unsent_bytes -= counted_unsent_;
    counted_unsent_ = output_.capacity() + (unsent() - output_.size());
    metrics_.upstream_unsent_bytes += counted_unsent_;
}

size_t HiredisSocket::unsent() const {
    const bool has_more = tls_ != nullptr && context_ != nullptr;
    return output_.size() + (has_more ? sdslen(context_->c.obuf) : 0);
}

void HiredisSocket::shrink() {
    if (context_ == nullptr || context_->c.obuf == nullptr || sdslen(context_->c.obuf) > 0) return;
    sdsfree(std::exchange(context_->c.obuf, sdsempty()));
}

void HiredisSocket::finish_sending() {
    is_finishing_ = true;
    defer();
}

void HiredisSocket::pause_reading() {
    if (lost_ || std::exchange(is_paused_, true)) return;
    watch_->want({false, watch_->wanted().writable});
}

void HiredisSocket::resume_reading() {
    if (lost_ || !std::exchange(is_paused_, false)) return;
    watch_->want({true, watch_->wanted().writable});
    read_again_ = tls_ != nullptr;
    if (read_again_) defer();
}

void HiredisSocket::abandon() {
    lost_ = true;
    if (watch_ != nullptr) watch_->want({false, false});
    output_ = {};
    count_unsent();
}

void SocketReaper::take(std::unique_ptr<HiredisSocket> socket) {
    if (socket == nullptr) return;
    socket->abandon();
    ended_.push_back(std::move(socket));
    defer();
}

void HiredisSocket::before_sleep() {
    if (!lost_ && !is_paused_ && std::exchange(read_again_, false)) read();
    if (!lost_) flush();
}

void HiredisSocket::on_events(FdEvents seen) {
    if (!connected_) {
        finish_connecting();
        return;
    }
    if (seen.readable) read();
    if (!lost_ && (seen.writable || (seen.readable && tls_ != nullptr && unsent() > 0))) flush();
}

void HiredisSocket::finish_connecting() {
    redisAsyncHandleWrite(context_);
    if (lost_ || (context_->c.flags & REDIS_CONNECTED) == 0) return;
    connected_ = true;
    if (tls_ != nullptr) {
        const std::string reason = tls_->start(context_->c, ssl_);
        if (!reason.empty()) {
            lose(reason);
            return;
        }
    }
    watch_->want({true, false});
    events_.on_connected();
}

void HiredisSocket::read() {
    size_t taken = 0;
    for (int i = 0; i < kReadsPerTurn; ++i) {
        const ssize_t count = context_->c.funcs->read(&context_->c, scratch_.data(), read_max_);
        if (count == 0) return;
        if (count < 0) {
            lose(error_text());
            return;
        }
        const auto size = static_cast<size_t>(count);
        if (ssl_ != nullptr && certificate_end_s_ != nullptr) note_certificate();
        if (!events_.on_bytes({scratch_.data(), size}) || lost_ || is_paused_) return;
        const bool is_full = size == read_max_;
        const bool is_large = events_.is_reading_large();
        read_max_ = is_large ? std::min(scratch_.size(), loop_.large_piece()) : scratch_.size();
        if (tls_ != nullptr) continue;
        taken += size;
        if (!is_full || (is_large && taken >= loop_.large_piece())) return;
    }
    read_again_ = tls_ != nullptr;
    if (read_again_) defer();
}

// As in hiredis, an error is kept in the context.
std::optional<size_t> HiredisSocket::write_plain(std::string_view first, std::string_view second) {
    const int fd = context_->c.fd;
    ssize_t written = 0;
    if (first.empty() || second.empty()) {
        const std::string_view piece = first.empty() ? second : first;
        written = ::send(fd, piece.data(), piece.size(), MSG_NOSIGNAL);
    } else {
        std::array<iovec, 2> pieces{{{const_cast<char*>(first.data()), first.size()},
                                     {const_cast<char*>(second.data()), second.size()}}};
        msghdr message{};
        message.msg_iov = pieces.data();
        message.msg_iovlen = pieces.size();
        written = sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    if (written >= 0) return static_cast<size_t>(written);
    if (errno == EAGAIN || errno == EINTR) return 0;
    if (context_->c.err == 0) {
        context_->c.err = REDIS_ERR_IO;
        const std::string reason = std::generic_category().message(errno);
        context_->c.errstr[reason.copy(context_->c.errstr, sizeof context_->c.errstr - 1)] = '\0';
    }
    return std::nullopt;
}

std::optional<bool> HiredisSocket::write_output() {
    const std::string_view next =
        output_.view().substr(0, is_large_ ? loop_.large_piece() : Loop::kWholePiece);
    const std::optional<size_t> written = write_plain(next, {});
    if (!written) return std::nullopt;
    output_.consume(*written);
    return *written == next.size();
}

std::optional<bool> HiredisSocket::write_tls() {
    redisContext& context = context_->c;
    if (sdslen(context.obuf) == 0) {
        const std::string_view next = output_.view().substr(0, kTlsOutputMax);
        NEARKEY_CHECK(redisAppendFormattedCommand(&context, next.data(), next.size()) == REDIS_OK);
        output_.consume(next.size());
    }
    const ssize_t written = context.funcs->write(&context);
    if (written < 0) return std::nullopt;
    if (written > 0) sdsrange(context.obuf, written, -1);
    return sdslen(context.obuf) == 0;
}

// Bytes were read, so the handshake is over.
void HiredisSocket::note_certificate() {
    const CertificateEnds ends = certificate_ends(*ssl_);
    *std::exchange(certificate_end_s_, nullptr) = ends.server_s;
    metrics_.tls_client_certificate_expires_seconds = ends.client_s;
}

void HiredisSocket::flush() {
    bool blocked = false;
    // The rest follows in the next turn.
    const size_t written_max = is_large_ ? loop_.large_piece() : Loop::kWholePiece;
    const size_t before = unsent();
    while (!blocked && unsent() > 0 && before - unsent() < written_max) {
        const std::optional<bool> is_taken = tls_ != nullptr ? write_tls() : write_output();
        if (!is_taken) {
            const std::string reason = error_text();
            // Reads the last words of a peer that refuses the connection, or ends it.
            if (tls_ == nullptr && !is_paused_) read();
            lose(reason);
            return;
        }
        blocked = !*is_taken;
    }
    if (output_.empty()) is_large_ = false;
    count_unsent();
    // While TLS waits for the peer the socket is writable all the time; on_events() flushes again
    // when something was read.
    const bool waits = unsent() > 0 && (ssl_ == nullptr || !blocked || !waits_for_peer(*ssl_));
    watch_->want({!is_paused_, waits});
    if (is_finishing_ && unsent() == 0) {
        is_finishing_ = false;
        shutdown(context_->c.fd, SHUT_WR);
    }
    if (tells_of_room_ && unsent() <= kRoom) {
        tells_of_room_ = false;
        events_.on_socket_room();
    }
}

void HiredisSocket::lose(std::string reason) {
    if (lost_) return;
    lost_ = true;
    watch_->want({false, false});
    events_.on_socket_lost(reason);
}

std::string HiredisSocket::error_text() const {
    if (tls_ != nullptr) {
        const std::string reason = take_tls_error();
        if (!reason.empty()) {
            return "TLS: " + reason + (ssl_ == nullptr ? "" : certificate_problem(*ssl_));
        }
    }
    if (context_->c.err == 0) return "lost";
    return context_->c.errstr[0] == '\0' ? "TLS: connection closed" : context_->c.errstr;
}

}  // namespace nearkey
