#include "nearkey/upstream/connection.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/upstream/advice.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>

namespace nearkey {

namespace {

std::string_view name_of(ConnectionState state) {
    static constexpr std::string_view kNames[] = {"idle", "connecting", "handshaking", "ready",
                                                  "closed"};
    return kNames[static_cast<size_t>(state)];
}

}  // namespace

Connection::Connection(ConnectionContext& context, Protocol protocol, int database)
    : context_(context),
      protocol_(protocol),
      database_(database),
      pipeline_(context, *this),
      errors_(context, pipeline_, *this),
      dialer_(context, pipeline_, *this),
      probe_(context, pipeline_, *this),
      tracking_(context, pipeline_, *this),
      tunnel_(context, pipeline_) {
    use_.set_identity({.name = context.options.client_name, .library = {}, .library_version = {}});
    ++context_.metrics.upstream_connections_idle;
}

Connection::~Connection() {
    NEARKEY_CHECK(pipeline_.is_idle());
    set_state(ConnectionState::Closed);
}

void Connection::begin_tunnel() {
    NEARKEY_CHECK(is_ready() && use_.owner() != nullptr);
    tunnel_.begin();
}

// --- what the server says ---

bool Connection::on_bytes(std::string_view bytes) {
    if (!is_retired_) context_.heard_ms = context_.loop.now_ms();
    bytes_received_ += bytes.size();
    InFlight& in_flight = pipeline_.in_flight();
    while (!bytes.empty()) {
        if (tunnel_.is_open() && in_flight.empty()) {
            if (bytes.front() == '-') errors_.note(bytes);
            use_.owner()->on_tunnel_bytes(bytes);
            return pipeline_.socket() != nullptr;
        }
        size_t taken = 0;
        const ScanResult result = scanner_.scan(bytes, taken);
        if (result == ScanResult::Malformed) {
            lose(is_ready() ? "malformed reply" : name_stranger(bytes), ConnectionLoss::Malformed);
            return false;
        }
        const bool is_end = result == ScanResult::Complete;
        if (scanner_.type() == '>') {
            tracking_.on_push(bytes.substr(0, taken), is_end);
        } else if (in_flight.empty()) {
            lose("a reply that nobody asked for", ConnectionLoss::Malformed);
            return false;
        } else {
            const std::string_view piece = bytes.substr(0, taken);
            if (scanner_.type() != '-') {
                in_flight.deliver(piece, is_end);
            } else if (!errors_.take(piece, is_end)) {
                return false;
            }
        }
        if (pipeline_.socket() == nullptr) return false;
        bytes.remove_prefix(taken);
    }
    return true;
}

void Connection::on_socket_room() {
    if (use_.owner() != nullptr && tunnel_.is_open()) use_.owner()->on_tunnel_room();
}

// --- how it begins ---

void Connection::dial() {
    NEARKEY_CHECK(state_ == ConnectionState::Idle);
    set_state(ConnectionState::Connecting);
    dialer_.begin();
}

void Connection::on_connected() {
    set_state(ConnectionState::Handshaking);
    scanner_ = ReplyScanner();
    // A lease carries scripts, which may say anything, and state that can't move.
    const bool is_shared = !use_.is_leased();
    errors_.begin(is_shared);
    dialer_.begin_handshake({protocol_, database_, is_shared, context_.reads_replica});
}

void Connection::become_ready(const Value& hello, const Pong& pong) {
    set_state(ConnectionState::Ready);
    ready_ms_ = context_.loop.now_ms();
    ++context_.metrics.upstream_connects_total;
    probe_.note_ready(hello, pong);
    pipeline_.set_ready(context_.is_held_back ? Pipeline::Gate::Held : Pipeline::Gate::Open);
    context_.events.on_ready(*this, hello);
}

// --- how it ends ---

void Connection::redirect(UpstreamTarget& target) {
    if (is_ready() && use_.owner() != nullptr) use_.owner()->on_failover();
    if (state_ == ConnectionState::Closed) return;
    const bool was_ready = is_ready();
    disconnect(ConnectionState::Idle, true);
    dialer_.set_target(target);
    if (was_ready && use_.owner() != nullptr) use_.owner()->on_connection_lost();
}

void Connection::retire() {
    NEARKEY_CHECK(is_ready() && !is_retired_);
    tracking_.stop();
    is_retired_ = true;
    dialer_.forget_target();
    --context_.metrics.upstream_connections;
    ++context_.metrics.upstream_connections_retired;
    --context_.ready;
    ++context_.retired;
}

void Connection::set_state(ConnectionState next) {
    static constexpr Count Metrics::*kGauges[] = {
        &Metrics::upstream_connections_idle, &Metrics::upstream_connections_connecting,
        &Metrics::upstream_connections_handshaking, &Metrics::upstream_connections};
    static_assert(static_cast<size_t>(ConnectionState::Closed) == std::size(kGauges));
    const auto count = [this](ConnectionState state, uint64_t step) {
        if (state == ConnectionState::Closed) return;
        context_.metrics.*(is_retired_ ? &Metrics::upstream_connections_retired
                                       : kGauges[static_cast<size_t>(state)]) += step;
        if (is_retired_) {
            context_.retired += step;
        } else if (state == ConnectionState::Ready) {
            context_.ready += step;
        }
    };
    count(std::exchange(state_, next), UINT64_MAX);
    count(next, 1);
}

void Connection::on_socket_lost(const std::string& reason) {
    if (!tunnel_.is_end_expected() || use_.owner() == nullptr) {
        lose(reason, ConnectionLoss::Socket);
        return;
    }
    disconnect(ConnectionState::Closed, false);
    use_.owner()->on_connection_lost();
    context_.events.on_closed(*this, reason);
}

void Connection::lose(const std::string& reason, ConnectionLoss loss) {
    if (state_ == ConnectionState::Idle || state_ == ConnectionState::Closed) return;
    if (loss == ConnectionLoss::Malformed) note_violation(reason);
    const bool was_ready = is_ready();
    if (!was_ready && loss != ConnectionLoss::Auth) dialer_.note_failure({});
    static constexpr Count Metrics::*kLosses[] = {
        &Metrics::upstream_lost_socket_total, &Metrics::upstream_lost_mute_total,
        &Metrics::upstream_lost_auth_total, &Metrics::upstream_lost_malformed_total,
        &Metrics::upstream_lost_demoted_total};
    ++(context_.metrics.*
       (was_ready ? kLosses[static_cast<size_t>(loss)] : &Metrics::upstream_dial_failures_total));
    disconnect(is_retired_ ? ConnectionState::Closed : ConnectionState::Idle,
               loss == ConnectionLoss::Demoted);
    if (!was_ready) {
        context_.events.on_dial_failed(*this, reason);
        return;
    }
    if (use_.owner() != nullptr) use_.owner()->on_connection_lost();
    if (!is_retired_) {
        context_.events.on_lost(*this, reason);
        return;
    }
    pipeline_.waiting().fail_all(fmt::format("UPSTREAMDOWN {}", reason));
    context_.events.on_closed(*this, reason);
}

// The server says something that nobody asked for, or that is not RESP. From here on nobody knows
// whose reply is whose: nothing of it is delivered any more.
void Connection::note_violation(const std::string& reason) {
    ++context_.metrics.upstream_protocol_errors_total;
    if (!is_ready()) return;
    context_.log.warning("upstream_violation", {{"reason", reason},
                                                {"connection", probe_.server_id()},
                                                {"dedicated", use_.is_leased() ? "yes" : "no"}});
}

void Connection::disconnect(ConnectionState next, bool is_left) {
    if (is_ready()) {
        use_.set_identity(
            {.name = context_.options.client_name, .library = {}, .library_version = {}});
    }
    set_state(next);
    errors_.end();
    if (!is_left || !is_broken(Rule::FailoverVoid)) tracking_.stop();
    tracking_.end();
    probe_.end();
    tunnel_.end();
    dialer_.stop();
    const bool is_over = next == ConnectionState::Closed;
    // It may be reaped later than its target.
    if (is_over) dialer_.forget_target();
    pipeline_.end(is_over ? Pipeline::Gate::Closed : Pipeline::Gate::Away, is_left);
}

void Connection::close(const std::string& reason) {
    if (state_ == ConnectionState::Closed) return;
    disconnect(ConnectionState::Closed, false);
    pipeline_.waiting().fail_all(fmt::format("UPSTREAMDOWN {}", reason));
    context_.events.on_closed(*this, reason);
}

void Connection::expire(uint64_t now_ms) {
    pipeline_.in_flight().shrink_if_sparse();
    if (is_ready()) {
        pipeline_.waiting().expire_held_back(now_ms);
    } else {
        pipeline_.waiting().expire_queued(now_ms, dialer_.patience_ms(), dialer_.words());
    }
    pipeline_.in_flight().expire(now_ms);
    dialer_.tick();
    if (!is_ready()) return;
    pipeline_.in_flight().look_at_head(now_ms);
    tunnel_.expire(now_ms, bytes_received_);
    const bool is_mute = probe_.is_mute(now_ms) || tunnel_.is_mute(now_ms);
    if (!in_flight().is_overdue(now_ms) && !is_mute) return;
    ++context_.metrics.tombstone_closes_total;
    lose("no answer for too long", ConnectionLoss::Mute);
}

bool Connection::wants_expiry() const {
    return pipeline_.wants_expiry() || tunnel_.wants_expiry() || probe_.is_beating();
}

bool Connection::owes_nobody() const {
    return pipeline_.owed() == 0 ||
           (probe_.is_beating() && !pipeline_.has_waiting() && in_flight().size() == 1);
}

// Beside a Unix socket a node has TCP on the same host.
std::string Connection::host() const {
    if (context_.target->tls != nullptr) return context_.target->url.host;
    return address().empty() ? "127.0.0.1" : address();
}

ConnectionFacts Connection::facts() const {
    return {.kind = tunnel_.is_open()  ? "tunnel"
                    : use_.is_leased() ? "dedicated"
                                       : "shared",
            .state = name_of(state_),
            .protocol = protocol_,
            .database = database_,
            .address = address(),
            .server_id = is_ready() ? probe_.server_id() : 0,
            .ready_ms = is_ready() ? ready_ms_ : 0,
            .proven_ms = probe_.proven_ms(),
            .sessions = use_.users(),
            .in_flight = in_flight().size(),
            .tombstones = in_flight().count_tombstones(),
            .waiting = pipeline_.owed() - in_flight().size(),
            .bytes_sent = pipeline_.bytes_sent(),
            .bytes_received = bytes_received_,
            .is_tracked = tracking_.is_on()};
}

}  // namespace nearkey
