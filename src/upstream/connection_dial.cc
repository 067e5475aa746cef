// How a connection begins: the name is resolved, the socket connected, the handshake started.
#include "nearkey/upstream/connection.h"

#include "nearkey/base/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace nearkey {

void Connection::dial() {
    CHECK(state_ == ConnectionState::Idle);
    set_state(ConnectionState::Connecting);
    dialled_ms_ = context_.loop.now_ms();
    connect_timer_.start_once(context_.options.connect_timeout_ms);
    if (target_->url.kind != UpstreamUrl::Kind::Tcp) {
        open_socket("");
        return;
    }
    resolve();
}

// The name is asked anew each time; where it can't be answered, its last good address is tried.
void Connection::resolve() {
    resolution_ = std::make_unique<Resolution>(
        context_.loop, target_->url.host, [this](const Resolution::Answer& answer) {
            if (!answer.addresses.empty()) {
                // Nobody may answer on the first (::1): a failed dial moves on to the next.
                open_socket(answer.addresses[target_->failed_dials % answer.addresses.size()]);
            } else if (!target_->last_good_address.empty()) {
                open_socket(target_->last_good_address);
            } else {
                lose(fmt::format("{}: {}", target_->url.host, answer.error), Loss::Socket);
            }
        });
}

void Connection::redirect(UpstreamTarget& target) {
    CHECK(!is_ready());
    if (state_ == ConnectionState::Closed) return;
    disconnect(ConnectionState::Idle);
    target_ = &target;
}

void Connection::retire() {
    CHECK(is_ready() && !is_retired_);
    stop_tracking();
    is_retired_ = true;
    target_ = nullptr;
    --context_.metrics.upstream_connections;
    ++context_.metrics.upstream_connections_retired;
}

// How much longer a request waits for a connection whose handshake is not answered while others
// stand: Valkey is there, and it is slow or busy. A direct client would wait for it.
uint64_t Connection::patience_ms() const {
    const bool is_known = context_.metrics.upstream_connections > 0 && !is_unauthorized_;
    if (state_ != ConnectionState::Handshaking || !is_known) return 0;
    const uint64_t request_ms = context_.options.request_timeout_ms;
    return request_ms - std::min(context_.options.queue_timeout_ms, request_ms);
}

void Connection::on_connect_timeout() {
    if (dialled_ms_ + patience_ms() > context_.loop.now_ms()) {
        connect_timer_.start_once(context_.options.connect_timeout_ms);
        return;
    }
    if (!busy_words_.empty()) {
        const std::string words = busy_words_;
        fail_waiting(words);
        close(words);
        return;
    }
    const bool is_resolving = socket_ == nullptr;
    if (!is_resolving || target_->last_good_address.empty()) {
        lose(is_resolving ? fmt::format("{}: no answer from DNS", target_->url.host) : late_peer(),
             Loss::Mute);
        return;
    }
    resolution_.reset();
    connect_timer_.start_once(context_.options.connect_timeout_ms);
    open_socket(target_->last_good_address);
}

// Who did not do his part within upstream.connect_timeout_ms.
std::string Connection::late_peer() const {
    if (state_ == ConnectionState::Connecting) return "nobody takes the connection";
    return target_->url.tls ? "no TLS answer" : "no answer to our HELLO";
}

void Connection::open_socket(const std::string& address) {
    address_ = address;
    socket_ =
        std::make_unique<HiredisSocket>(context_.loop, context_.scratch, context_.metrics, *this);
    const std::string error = socket_->connect(
        {target_->url, address, target_->tls.get(), context_.options.tcp_user_timeout_ms});
    if (!error.empty()) lose(error, Loss::Socket);
}

void Connection::on_connected() {
    set_state(ConnectionState::Handshaking);
    scanner_ = ReplyScanner();
    begin_handshake();
}

void Connection::begin_handshake() {
    const UpstreamUrl& url = own_url_ == nullptr ? target_->url : *own_url_;
    handshake_.emplace(url, context_.options.client_name, protocol_, database_);
    send_own(Own::Handshake, handshake_->command());
}

void Connection::use_credentials(const UpstreamCredentials& credentials) {
    CHECK(state_ == ConnectionState::Idle);
    own_url_ = std::make_unique<UpstreamUrl>(target_->url);
    own_url_->user = credentials.user;
    own_url_->password = credentials.password;
}

}  // namespace nearkey
