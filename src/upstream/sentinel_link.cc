#include "nearkey/upstream/sentinel_link.h"

#include "nearkey/base/parse_number.h"
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/own_question.h"
#include "nearkey/upstream/sentinel_watch.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace nearkey {

namespace {

constexpr uint64_t kAskEachMs = 1000;
// Every so many questions its peers are asked for, too.
constexpr size_t kPeersEach = 10;
constexpr size_t kPeersMax = 32;
constexpr size_t kSentinelReplyMax = size_t{1} << 20;
// libuv looks up no more than two names at a time, of which the upstream's own may be one.
constexpr size_t kLookupsMax = 1;
constexpr uint64_t kLookupAgainMs = 50;

Endpoint endpoint_of(std::string_view host, std::string_view port) {
    const auto number = parse_number<unsigned>(port);
    if (!is_host(std::string(host)) || !number || *number == 0 || *number > 65535) return {};
    return {std::string(host), static_cast<uint16_t>(*number)};
}

// An error text goes into a log line.
std::string first_line(std::string_view text) {
    return std::string(text.substr(0, std::min(text.find_first_of("\r\n"), size_t{200})));
}

std::string with_advice_of_access(const std::string& reason) {
    const bool is_refused = reason.starts_with("WRONGPASS") || reason.starts_with("NOAUTH") ||
                            reason.starts_with("NOPERM");
    return is_refused ? reason + "; correct sentinel.username and sentinel.password_file" : reason;
}

}  // namespace

SentinelLink::SentinelLink(const SentinelContext& context, Endpoint where, SentinelWatch& watch)
    : context_(context),
      where_(std::move(where)),
      watch_(watch),
      ask_timer_(context.loop, [this] { ask(); }),
      deadline_timer_(context.loop, [this] { on_deadline(); }) {
}

SentinelLink::~SentinelLink() {
    if (resolution_ != nullptr && is_lookup_) --context_.lookups;
    context_.reaper.take(std::move(socket_));
}

void SentinelLink::ask() {
    if (socket_ == nullptr && resolution_ == nullptr) {
        connect();
    } else if (is_ready_ && asks_.empty()) {
        ask_now();
    } else {
        asks_again_ = true;
    }
}

// --- the connection ---

// A lookup is not given up, for its thread is busy until it ends.
void SentinelLink::connect() {
    is_lookup_ = !Resolution::is_address(where_.host);
    if (is_lookup_ && context_.lookups >= kLookupsMax) {
        ask_timer_.start_once(kLookupAgainMs);
        return;
    }
    ask_timer_.stop();
    deadline_timer_.start_once(context_.options.connect_timeout_ms);
    if (is_lookup_) ++context_.lookups;
    resolution_ = std::make_unique<Resolution>(
        context_.loop, where_.host, [this](const Resolution::Answer& answer) {
            if (is_lookup_) --context_.lookups;
            resolution_.reset();
            if (answer.addresses.empty()) {
                lose(answer.error);
                return;
            }
            ask_timer_.stop();
            deadline_timer_.start_once(context_.options.connect_timeout_ms);
            open_socket(answer.addresses[asked_++ % answer.addresses.size()]);
        });
}

void SentinelLink::open_socket(const std::string& address) {
    UpstreamUrl url;
    url.kind = UpstreamUrl::Kind::Tcp;
    url.port = where_.port;
    try {
        if (context_.url.tls) tls_ = std::make_unique<TlsContext>(context_.options, where_.host);
    } catch (const std::exception& error) {
        lose(error.what());
        return;
    }
    socket_ =
        std::make_unique<HiredisSocket>(context_.loop, context_.scratch, context_.metrics, *this);
    const std::string error =
        socket_->connect({url, address, tls_.get(), context_.options.tcp_user_timeout_ms,
                          &context_.metrics.tls_server_certificate_expires_seconds});
    if (!error.empty()) lose(error);
}

void SentinelLink::on_connected() {
    scanner_ = ReplyScanner();
    reply_.clear();
    asked_ = 0;
    try {
        say_hello();
    } catch (const std::exception& error) {
        lose(error.what());
    }
}

void SentinelLink::say_hello() {
    const SentinelCredentials who = context_.credentials();
    if (who.username.empty() && who.password.empty()) {
        send(Ask::Hello, {"HELLO", "3"});
        return;
    }
    const std::string_view user = who.username.empty() ? "default" : std::string_view(who.username);
    send(Ask::Hello, {"HELLO", "3", "AUTH", user, who.password});
}

void SentinelLink::send(Ask what, std::initializer_list<std::string_view> words) {
    std::string command;
    append_command(command, words);
    asks_.push_back(what);
    socket_->send(command);
}

void SentinelLink::on_deadline() {
    lose(socket_ == nullptr ? "no answer from DNS"
         : is_ready_        ? "no answer"
                            : "no answer to HELLO");
}

void SentinelLink::lose(const std::string& reason) {
    deadline_timer_.stop();
    context_.reaper.take(std::move(socket_));
    is_ready_ = asks_again_ = false;
    asks_.clear();
    word_.reset();
    ask_timer_.start_once(kAskEachMs);
    report(with_advice_of_access(first_line(reason)));
}

void SentinelLink::report(const std::string& problem) {
    word_.reset();
    problem_ = problem;
    watch_.on_problem(*this);
}

// --- questions and answers ---

void SentinelLink::ask_now() {
    asks_again_ = false;
    ask_timer_.stop();
    deadline_timer_.start_once(context_.options.connect_timeout_ms);
    asked_ms_ = context_.loop.now_ms();
    const std::string_view name = context_.url.primary_name;
    if (asked_++ % kPeersEach == 0) send(Ask::Peers, {"SENTINEL", "SENTINELS", name});
    // In this order: what changes in between makes a new address look old, and never an old one
    // new.
    send(Ask::Epoch, {"SENTINEL", "MASTER", name});
    send(Ask::Address, {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", name});
}

bool SentinelLink::on_bytes(std::string_view bytes) {
    while (!bytes.empty()) {
        size_t taken = 0;
        const ScanResult result = scanner_.scan(bytes, taken);
        if (result == ScanResult::Malformed) {
            lose(is_ready_ ? "malformed reply" : name_stranger(bytes));
            return false;
        }
        reply_ += bytes.substr(0, taken);
        bytes.remove_prefix(taken);
        if (reply_.size() > kSentinelReplyMax) {
            lose("a reply of more than 1 MiB");
            return false;
        }
        if (result != ScanResult::Complete) continue;
        const std::optional<Value> reply = parse_value(std::exchange(reply_, {}));
        if (reply && reply->type == '>') {
            // A failover, or the reply to SUBSCRIBE.
            if (is_ready_) ask();
        } else if (asks_.empty() || !reply) {
            lose("a reply that nobody asked for");
        } else {
            on_reply(*reply);
        }
        if (socket_ == nullptr) return false;
    }
    return true;
}

void SentinelLink::on_reply(const Value& reply) {
    const Ask what = asks_.front();
    asks_.pop_front();
    switch (what) {
        case Ask::Hello:
            on_hello(reply);
            return;
        case Ask::Id:
            if (!reply.is_error()) id_ = reply.text;
            return;
        case Ask::Subscribe:
            // If it is allowed, only the PING behind it is answered.
            if (reply.is_error()) {
                asks_.push_front(Ask::Ping);
                return;
            }
            [[fallthrough]];
        case Ask::Ping:
            ask_now();
            return;
        case Ask::Epoch:
            epoch_ = parse_number<uint64_t>(reply.text_of("config-epoch")).value_or(0);
            return;
        case Ask::Peers:
            on_peers(reply);
            return;
        case Ask::Address:
            on_address(reply);
            return;
    }
}

void SentinelLink::on_hello(const Value& reply) {
    if (reply.is_error()) {
        lose(reply.text);
        return;
    }
    if (reply.text_of("mode") != "sentinel") {
        lose("the server there is no Sentinel; correct upstream.url");
        return;
    }
    is_ready_ = true;
    send(Ask::Id, {"SENTINEL", "MYID"});
    // A user that may not subscribe asks each second all the same.
    asks_.push_back(Ask::Subscribe);
    std::string command;
    append_command(command, {"SUBSCRIBE", "+switch-master", "+promoted-slave",
                             "+failover-state-reconf-slaves"});
    append_command(command, {"PING"});
    socket_->send(command);
}

void SentinelLink::on_peers(const Value& reply) {
    if (reply.is_error()) return;
    peers_.clear();
    for (const Value& peer : reply.elements) {
        const Endpoint where = endpoint_of(peer.text_of("ip"), peer.text_of("port"));
        if (where.host.empty() || peers_.size() >= kPeersMax) continue;
        peers_.push_back({where, std::string(peer.text_of("runid"))});
    }
}

void SentinelLink::on_address(const Value& reply) {
    deadline_timer_.stop();
    const uint64_t asked_ms = asked_ms_;
    if (asks_again_) {
        // The next answer may show later events.
        ask_now();
    } else {
        ask_timer_.start_once(kAskEachMs);
    }
    if (reply.is_null() || reply.text.starts_with("IDONTKNOW")) {
        report("does not know " + context_.url.primary_name);
        return;
    }
    if (reply.is_error()) {
        report(with_advice_of_access(first_line(reply.text)));
        return;
    }
    const bool is_pair = reply.elements.size() == 2;
    const Endpoint primary =
        is_pair ? endpoint_of(reply.elements[0].text, reply.elements[1].text) : Endpoint{};
    if (primary.host.empty()) {
        lose("an address that can't be used");
        return;
    }
    problem_.clear();
    word_ = SentinelWord{primary, epoch_, asked_ms};
    watch_.on_answer(*this);
}

}  // namespace nearkey
