#include "nearkey/upstream/dialer.h"

#include "nearkey/upstream/connection.h"

#include <fmt/format.h>

#include <algorithm>

namespace nearkey {

Dialer::Dialer(ConnectionContext& context, Pipeline& pipeline, Connection& connection)
    : context_(context),
      pipeline_(pipeline),
      connection_(connection),
      target_(context.target),
      timer_(context.loop, [this] { on_timeout(); }) {
}

void Dialer::use_credentials(const UpstreamCredentials& credentials) {
    own_url_ = std::make_unique<UpstreamUrl>(target_->url);
    own_url_->user = credentials.user;
    own_url_->password = credentials.password;
}

void Dialer::begin() {
    number_ = ++context_.dials;
    begun_ms_ = context_.loop.now_ms();
    timer_.start_once(context_.options.connect_timeout_ms);
    if (!target_->url.is_tcp()) {
        open_socket("");
    } else if (target_->url.host.empty()) {
        connection_.lose("no Sentinel has named the primary yet", ConnectionLoss::Socket);
    } else {
        resolve();
    }
}

// The name is asked anew each time; where it can't be answered, its last good address is tried.
void Dialer::resolve() {
    resolution_ = std::make_unique<Resolution>(
        context_.loop, target_->url.host, [this](const Resolution::Answer& answer) {
            if (!answer.addresses.empty()) {
                // Nobody may answer on the first (::1): a failed dial moves on to the next.
                open_socket(answer.addresses[target_->failed_dials % answer.addresses.size()]);
            } else if (!target_->last_good_address.empty()) {
                open_socket(target_->last_good_address);
            } else {
                connection_.lose(fmt::format("{}: {}", target_->url.host, answer.error),
                                 ConnectionLoss::Socket);
            }
        });
}

void Dialer::open_socket(const std::string& address) {
    address_ = address;
    const std::string error = pipeline_.open_socket({target_->url, address, target_->tls.get(),
                                                     context_.options.tcp_user_timeout_ms,
                                                     &context_.certificate_end_s()});
    if (!error.empty()) connection_.lose(error, ConnectionLoss::Socket);
}

void Dialer::begin_handshake(const Handshake::Wish& wish) {
    wish_ = wish;
    handshake_.emplace(own_url_ == nullptr ? target_->url : *own_url_, context_.options.client_name,
                       wish);
    say_next();
}

void Dialer::say_next() {
    pipeline_.ask(*this, 0, handshake_->command(), 1);
}

void Dialer::on_whole_reply(uint32_t, const std::string& reply) {
    handshake_->on_reply(parse_value(reply).value_or(Value{}));
    if (handshake_->is_complete()) {
        on_complete();
    } else if (handshake_->failure() == Handshake::Failure::None) {
        say_next();
    } else {
        on_refused();
    }
}

void Dialer::on_complete() {
    const Value hello = handshake_->hello();
    const Pong pong = handshake_->pong();
    stop();
    target_->last_good_address = address_;
    target_->refusal.clear();
    own_url_.reset();
    connection_.become_ready(hello, pong);
}

// A server that answers can be reached: waiting requests fail with its own words, and so do those
// that come before the next attempt.
void Dialer::on_refused() {
    const Handshake::Failure failure = handshake_->failure();
    const std::string error = handshake_->error();
    const std::string words = handshake_->words();
    const WhenRefused when = connection_.use().when_refused();
    is_unauthorized_ = failure == Handshake::Failure::Auth;
    if (is_unauthorized_ && own_url_ != nullptr) {
        give_up(error);
        return;
    }
    if (is_unauthorized_) {
        context_.events.on_auth_refused(connection_, error);
        // Another password may be known now, and the connection closed for it.
        if (connection_.state() != ConnectionState::Handshaking) return;
        if (when == WhenRefused::WaitOrTell) {
            connection_.close("Valkey refuses nearkey's own password; not sent");
            return;
        }
    }
    const bool is_database =
        failure == Handshake::Failure::Database && !connection_.use().is_primary();
    if (is_database && error.starts_with("BUSY") && when != WhenRefused::Fail) {
        busy_words_ = error;
        return;
    }
    if (!is_database) note_failure(words);
    if (!words.empty()) pipeline_.waiting().fail_all(words);
    // Who has waited may have given the connection back.
    if (connection_.state() != ConnectionState::Handshaking) return;
    if (is_database) {
        context_.events.on_database_refused(connection_);
        connection_.close(error);
        return;
    }
    connection_.lose(error, ConnectionLoss::Auth);
}

void Dialer::give_up(const std::string& words) {
    pipeline_.waiting().fail_all(words);
    connection_.close(words);
}

void Dialer::stop() {
    timer_.stop();
    resolution_.reset();
    handshake_.reset();
    busy_words_.clear();
}

void Dialer::note_failure(const std::string& words) {
    ++target_->failed_dials;
    target_->refusal = words;
}

void Dialer::tick() {
    if (handshake_ && handshake_->failure() != Handshake::Failure::None) begin_handshake(wish_);
}

// While others stand, Valkey is there, but slow or busy. A direct client would wait for it.
uint64_t Dialer::patience_ms() const {
    const bool is_known = context_.ready > 0 && !is_unauthorized_;
    if (!handshake_ || !is_known) return 0;
    const uint64_t request_ms = context_.options.request_timeout_ms;
    return request_ms - std::min(context_.options.queue_timeout_ms, request_ms);
}

std::string Dialer::words() const {
    return busy_words_.empty() && target_ != nullptr ? target_->refusal : busy_words_;
}

void Dialer::on_timeout() {
    if (begun_ms_ + patience_ms() > context_.loop.now_ms()) {
        timer_.start_once(context_.options.connect_timeout_ms);
        return;
    }
    if (!busy_words_.empty()) {
        give_up(std::string(busy_words_));
        return;
    }
    const bool is_resolving = pipeline_.socket() == nullptr;
    if (!is_resolving || target_->last_good_address.empty()) {
        connection_.lose(late_step(), ConnectionLoss::Mute);
        return;
    }
    resolution_.reset();
    timer_.start_once(context_.options.connect_timeout_ms);
    open_socket(target_->last_good_address);
}

// Names the step that timed out (connect, TLS or HELLO).
std::string Dialer::late_step() const {
    if (pipeline_.socket() == nullptr) return target_->url.host + ": no answer from DNS";
    if (!handshake_) return "nobody takes the connection";
    return target_->url.tls ? "no TLS answer" : "no answer to HELLO";
}

}  // namespace nearkey
