// How a connection begins: the name is resolved, the socket connected, the handshake started.
#include "nearkey/upstream/connection.h"

#include "nearkey/base/check.h"

#include <fmt/format.h>

#include <memory>

namespace nearkey {

void Connection::dial() {
    CHECK(state_ == ConnectionState::Idle);
    set_state(ConnectionState::Connecting);
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

void Connection::on_connect_timeout() {
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
    handshake_.emplace(target_->url, context_.options.client_name, protocol_, database_);
    send_own(Own::Handshake, handshake_->command());
}

}  // namespace nearkey
