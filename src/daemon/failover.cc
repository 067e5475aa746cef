#include "nearkey/daemon/failover.h"

#include "nearkey/base/probes.h"

#include <exception>
#include <string_view>
#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kBelievedAfterMs = 30'000;

void trace_failover(std::string_view cause, const Endpoint& primary) {
    if (!probes::is_traced(nearkey_failover_semaphore)) return;
    probes::failover(cause, to_text(primary).c_str());
}
}  // namespace

Failover::Failover(const DaemonParts& parts)
    : parts_(parts), patience_timer_(parts.loop, [this] { on_patience_over(); }) {
}

void Failover::begin(std::unique_ptr<SentinelWatch> watch, const Endpoint& primary) {
    // A search for the former upstream's primary is of no use.
    if (parts_.workers.is_trying_for(*this)) parts_.workers.forget_target();
    tried_.reset();
    refused_.clear();
    // Of the same primary the loops still wait to be told, and do not ask again at once.
    const bool is_same = !primary.host.empty() && primary == primary_ && watch != nullptr;
    if (!is_same) is_confirmation_wanted_ = false;
    patience_timer_.stop();
    primary_ = primary;
    watch_ = std::move(watch);
    if (watch_ == nullptr) return;
    watch_->tell(*this);
    if (!primary_.host.empty()) watch_->follow(primary_);
    watch_->ask();
    if (is_confirmation_wanted_) be_patient();
}

std::vector<SentinelFacts> Failover::sentinels() const {
    return watch_ == nullptr ? std::vector<SentinelFacts>{} : watch_->facts();
}

void Failover::on_demoted() {
    if (watch_ != nullptr) {
        watch_->doubt();
        watch_->ask();
    } else if (!parts_.workers.is_trying()) {
        parts_.workers.seek_primary({}, *this);
    }
}

void Failover::on_sentinel_word(const SentinelWord& word) {
    if (const auto wanted = watch_->wanted()) {
        try_primary(*wanted);
    } else if (word.primary == primary_ && word.asked_ms >= doubted_ms_) {
        confirm(true);
    }
}

// --- another primary ---

void Failover::try_primary(const Endpoint& primary) {
    const bool is_ours = parts_.workers.is_trying_for(*this);
    if (is_ours && tried_ == primary) return;
    if (is_ours) parts_.workers.forget_target();
    // A reload's trial comes first.
    if (parts_.workers.is_trying()) return;
    tried_ = primary;
    try {
        parts_.workers.seek_primary(parts_.upstreams.make_targets(parts_.config, primary, {}),
                                    *this);
    } catch (const std::exception& error) {
        say_refused(*std::exchange(tried_, std::nullopt), error.what());
    }
}

void Failover::on_target_proven() {
    parts_.workers.adopt_target();
    if (watch_ == nullptr) {
        ++parts_.metrics.failovers_demoted_total;
        trace_failover("demoted", parts_.workers.target().url.endpoint());
        parts_.log.info("upstream_failover", {{"upstream", redacted(parts_.workers.target().url)},
                                              {"cause", "demoted"},
                                              {"what", "a primary answers there now"}});
        return;
    }
    const Endpoint former = std::exchange(primary_, *std::exchange(tried_, std::nullopt));
    refused_.clear();
    is_confirmation_wanted_ = false;
    watch_->follow(primary_);
    if (former.host.empty()) {
        parts_.log.info("upstream_found", {{"upstream", to_text(primary_)}});
        return;
    }
    ++parts_.metrics.failovers_sentinel_total;
    trace_failover("sentinel", primary_);
    parts_.log.info(
        "upstream_failover",
        {{"upstream", to_text(primary_)}, {"former", to_text(former)}, {"cause", "sentinel"}});
}

void Failover::on_target_refused(const std::string& reason) {
    if (!tried_) return;
    watch_->refuse(*tried_);
    watch_->ask();
    say_refused(*std::exchange(tried_, std::nullopt), reason);
    // Other Sentinels still name this one, though one names a server that is no primary.
    if (watch_->is_named_since(primary_, doubted_ms_)) confirm(true);
}

// Said once, however often it is named.
void Failover::say_refused(const Endpoint& primary, const std::string& reason) {
    const std::string text = to_text(primary) + ": " + reason;
    if (std::exchange(refused_, text) == text) return;
    parts_.log.warning("primary_refused", {{"upstream", to_text(primary)}, {"reason", reason}});
}

// --- the same one, after a silence ---

void Failover::on_confirmation_wanted() {
    if (watch_ == nullptr) {
        parts_.workers.confirm_primary();
        return;
    }
    is_confirmation_wanted_ = true;
    doubted_ms_ = parts_.loop.now_ms();
    watch_->ask();
    if (!patience_timer_.is_active()) be_patient();
}

// The wish may have been lost, as one that came while something else was decided. A wish that is
// known is not renewed: its time counts from when the server was doubted.
void Failover::on_confirmation_missing() {
    if (!is_confirmation_wanted_) on_confirmation_wanted();
}

void Failover::be_patient() {
    patience_timer_.start_once(parts_.config.upstream.connect_timeout_ms);
}

// Where no Sentinel answers, nobody knows better than the server itself. If one names another
// server, which is no primary, the present one is believed after a while: Sentinels that were right
// would have made it a replica by then.
void Failover::on_patience_over() {
    if (!is_confirmation_wanted_) return;
    const bool is_long = doubted_ms_ + kBelievedAfterMs <= parts_.loop.now_ms();
    if (watch_->has_reachable() && !is_long) {
        be_patient();
    } else {
        confirm(false);
    }
}

void Failover::confirm(bool is_said_by_sentinel) {
    if (!std::exchange(is_confirmation_wanted_, false)) return;
    patience_timer_.stop();
    if (!is_said_by_sentinel) {
        parts_.log.warning("primary_unconfirmed",
                           {{"upstream", to_text(primary_)},
                            {"what", "no Sentinel names it: the server's own word counts"}});
    }
    parts_.workers.confirm_primary();
}

}  // namespace nearkey
