#include "nearkey/session/tunnel.h"

#include "nearkey/upstream/own_question.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// The commands sent behind RESET, and the server's last words then: neither is ever refused or
// silenced. (The reply to the client's own RESET is, behind CLIENT REPLY SKIP.)
constexpr std::string_view kEnd = "*1\r\n$5\r\nRESET\r\n*1\r\n$4\r\nQUIT\r\n";
constexpr std::string_view kLastWords = "+RESET\r\n+OK\r\n";

// The number of bytes at the end of `bytes` that may be the beginning of kLastWords.
size_t last_words_at_end(std::string_view bytes) {
    for (size_t size = std::min(bytes.size(), kLastWords.size()); size > 0; --size) {
        if (bytes.ends_with(kLastWords.substr(0, size))) return size;
    }
    return 0;
}

}  // namespace

Tunnel::Tunnel(Desk& desk, Lease& lease, TunnelEvents& events,
               std::unique_ptr<Subscriptions> subscriptions)
    : desk_(desk),
      lease_(lease),
      reader_(desk.context.node),
      subscriptions_(std::move(subscriptions)),
      wait_(desk.context.loop, [&events] { events.on_tunnel_wait_over(); }) {
    ++desk_.context.metrics.upstream_tunnels;
    lease_->begin_tunnel();
}

Tunnel::~Tunnel() {
    end_monitor();
    --desk_.context.metrics.upstream_tunnels;
}

void Tunnel::send(const Call& call, std::string_view instead) {
    if (subscriptions_ != nullptr) subscriptions_->follow(call.spec(), call.command);
    desk_.count_forwarded(call.spec());
    desk_.client.has_written = true;
    desk_.ledger.note_through(call.plan, call.command);
    lease_->tunnel().send(instead.empty() ? desk_.canonical(call.command) : instead);
    if (lease_->tunnel().unsent_bytes() >= desk_.terms.limits.output_per_client_high_water) {
        lease_->tunnel().tell_of_room();
        desk_.pauses.pause(PauseReason::kServer,
                           &desk_.context.metrics.clients_paused_output_total);
    }
    if (!call.is_sound()) return;
    if (call.special() == Special::Sync) {
        is_replica_ = true;
        reader_.stop();
    }
    if (call.special() == Special::Monitor) {
        reader_.expect_refusals();
        begin_monitor();
    }
    if (call.special() == Special::Reset && !is_replica_) {
        is_resetting_ = true;
        lease_->tunnel().send(kEnd);
        lease_->tunnel().expect_end();
        desk_.pauses.pause(PauseReason::kLease, nullptr);
    }
}

void Tunnel::begin_monitor() {
    NearCache* const cache = desk_.context.ledgers.cache;
    if (monitors_++ == 0 && cache != nullptr) cache->add_monitor();
}

void Tunnel::end_monitor() {
    NearCache* const cache = desk_.context.ledgers.cache;
    if (std::exchange(monitors_, 0) > 0 && cache != nullptr) cache->remove_monitor();
}

void Tunnel::send_stand_in(std::string_view bytes) {
    reader_.expect_refusals();
    lease_->tunnel().send(bytes);
}

void Tunnel::refuse_input(std::string_view counterpart) {
    lease_->tunnel().send(counterpart);
    is_refused_ = true;
}

void Tunnel::finish_sending() {
    if (is_finishing_ || is_refused_) return;
    is_finishing_ = true;
    lease_->tunnel().finish_sending();
}

void Tunnel::on_bytes(std::string_view bytes) {
    std::string both;
    if (is_resetting_) {
        if (!last_words_.empty()) {
            both = std::exchange(last_words_, {}).append(bytes);
            bytes = both;
        }
        const size_t size = last_words_at_end(bytes);
        last_words_ = bytes.substr(bytes.size() - size);
        bytes.remove_suffix(size);
    }
    reader_.pass(bytes, subscriptions_.get(), desk_.output);
    // Of several one may run.
    if (reader_.take_monitor_refusal() && monitors_ == 1) end_monitor();
    desk_.output.commit();
    desk_.flush_soon();
    if (is_moving_) note_moved();
}

// The server was asked to end it behind RESET: all that it owed before, in whatever form, has been
// passed on by now.
Tunnel::End Tunnel::end() {
    const bool is_reset = is_resetting_ && last_words_ == kLastWords;
    if (!is_reset) desk_.output.append(last_words_);
    desk_.output.commit();
    return is_reset ? End::Reset : is_reading_paused_ ? End::Stuck : End::Client;
}

void Tunnel::update_reading() {
    if (!lease_) return;  // On its way to another server.
    const uint64_t high_water = desk_.terms.limits.output_per_client_high_water;
    const bool is_full = desk_.unsent() >= high_water;
    const bool is_short = desk_.pauses.any_of(PauseReason::kMemory);
    if (!is_reading_paused_ && (is_full || is_short)) {
        is_reading_paused_ = true;
        if (is_full) ++desk_.context.metrics.clients_paused_output_total;
        lease_->tunnel().pause_reading();
    } else if (is_reading_paused_ && !is_short && desk_.unsent() <= high_water / 2) {
        is_reading_paused_ = false;
        lease_->tunnel().resume_reading();
    }
}

// --- to another server ---

bool Tunnel::may_move() const {
    return subscriptions_ != nullptr && subscriptions_->may_move() && !reader_.has_refused() &&
           reader_.is_between_replies() && !is_left_to_server() && !is_finishing_ &&
           !desk_.is_input_over() && !desk_.output.is_lost();
}

void Tunnel::move() {
    static_cast<void>(lease_.take_preparation());
    wait_.restart();
    is_moving_ = true;
    lease_.spoil();
    lease_.end();
    dial();
}

// Takes a connection that is dialled now, for idle ones may be to the former primary.
void Tunnel::dial() {
    const bool is_there = lease_.take_one(true);
    wait_.wait_for_lease(!is_there);
    if (!is_there) return;
    lease_.prepare(kPing, WhenRefused::Fail);
    if (lease_.preparation().state == Lease::Preparation::State::Done) on_prepared();
}

void Tunnel::go_on() {
    const bool is_refused = wait_.take_refusal();
    if (is_refused || desk_.is_input_over()) {
        fail_to_move(is_refused ? PrimaryWait::kNoLease : "the client has left");
    } else {
        dial();
    }
}

// The answer tells now whether the new connection works.
void Tunnel::on_prepared() {
    const Lease::Preparation done = lease_.take_preparation();
    if (done.has_failed || !done.error.empty()) {
        const bool is_away = done.error.starts_with("UPSTREAMDOWN");
        if (is_away && !desk_.is_input_over() && wait_.pause_for_primary(desk_.context.node)) {
            lease_.spoil();
            lease_.end();
            desk_.pauses.pause(PauseReason::kLease, nullptr);
        } else {
            fail_to_move(done.error);
        }
        return;
    }
    wait_.restart();
    lease_->begin_tunnel();
    reader_.restart();
    lease_->tunnel().send(subscriptions_->begin_anew());
    if (is_reading_paused_) lease_->tunnel().pause_reading();
    desk_.pauses.unpause(PauseReason::kLease);
    note_moved();
}

void Tunnel::note_moved() {
    if (subscriptions_->is_refused()) {
        fail_to_move("a subscription was refused");
        return;
    }
    if (!subscriptions_->is_done()) return;
    is_moving_ = false;
    ++desk_.context.metrics.clients_moved_subscriber_total;
    desk_.context.log.warning("subscriber_moved",
                              {{"what", "what was published meanwhile may be missing"},
                               {"session", static_cast<int64_t>(desk_.id)},
                               {"subscriptions", static_cast<int64_t>(subscriptions_->size())},
                               {"tag", desk_.tag()}});
}

// Ends as if its connection were lost.
void Tunnel::fail_to_move(std::string_view why) {
    desk_.warn("subscriber_closed", why);
    has_failed_to_move_ = true;
}

}  // namespace nearkey
