#include "nearkey/upstream/touch_reporter.h"

#include "nearkey/cache/near_cache.h"
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/shared_connections.h"
#include "nearkey/upstream/sources.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kMemory = "*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n";
constexpr uint64_t kPolicyAgainMs = 10'000;
// A longer key is not reported: a batch has a limit in bytes, too.
constexpr size_t kKeyMax = 1024;
// Twice as many samples as there is room for, since some are of the same key.
constexpr uint64_t kSamplesPerKey = 2;
}  // namespace

TouchReporter::TouchReporter(ConnectionContext& context, SharedConnections& connections)
    : context_(context), connections_(connections), options_(context.cache->options()) {
}

void TouchReporter::note(const Group& group, std::string_view key) {
    if (key.size() > kKeyMax || keys_ >= options_.touch_keys_max) return;
    const auto batch = batches_.try_emplace(group, *this).first;
    if (batch->second.keys.emplace(key).second) ++keys_;
}

// Between none and twice the gap: hits that come in a pattern are all seen.
void TouchReporter::schedule() {
    const bool is_on = is_touching() && keys_ < options_.touch_keys_max;
    hits_ += hits_planned_ - hits_left_;
    hits_left_ = is_on ? std::uniform_int_distribution<uint64_t>(1, 2 * gap_ - 1)(random_) : kNever;
    hits_planned_ = hits_left_;
}

void TouchReporter::beat(Connection& primary, uint64_t now_ms) {
    if (!options_.touch) {
        if (is_touching()) set_evicts(false);
        policy_asked_ms_ = 0;
        return;
    }
    ask_for_policy(primary, now_ms);
    const uint64_t hits = std::exchange(hits_, 0) + hits_planned_ - hits_left_;
    hits_planned_ = hits_left_;
    gap_ = std::max(uint64_t{1}, hits / (kSamplesPerKey * options_.touch_keys_max));
    send_batches();
    schedule();
}

// Batches that can't be sent now are dropped: keys that are still read later are noted anew.
void TouchReporter::send_batches() {
    const bool is_on = is_touching();
    for (auto next = batches_.begin(); next != batches_.end();) {
        const int database = next->first.database;
        Batch& batch = next->second;
        Connection* connection = connections_.find_ready(Protocol::Resp2, database);
        if (connection == nullptr) connection = connections_.find_ready(Protocol::Resp3, database);
        if (is_on && batch.asked == nullptr && !batch.keys.empty() && connection != nullptr) {
            context_.metrics.near_cache_touched_total += batch.keys.size();
            batch.send(*connection);
        }
        batch.keys.clear();
        next = batch.asked != nullptr ? std::next(next) : batches_.erase(next);
    }
    keys_ = 0;
}

// --- the policy ---

void TouchReporter::ask_for_policy(Connection& primary, uint64_t now_ms) {
    if (is_refused_ || asked_ != nullptr || !primary.is_ready()) return;
    const uint64_t again_ms = is_policy_refused_ ? kRefusedAgainMs : kPolicyAgainMs;
    if (policy_asked_ms_ != 0 && now_ms < policy_asked_ms_ + again_ms) return;
    policy_asked_ms_ = now_ms;
    asked_ = &primary;
    primary.send({kMemory, this, 0, RequestKind::Write});
}

void TouchReporter::on_whole_reply(uint32_t, const std::string& reply) {
    Connection& asked = *std::exchange(asked_, nullptr);
    if (!has_answered(asked, OwnCommand::Info, reply)) return;
    if (reply.starts_with('-')) {
        // A user that may not ask must not lose hot keys; LOADING and the like pass.
        is_policy_refused_ = reply.starts_with("-NOPERM");
        if (is_policy_refused_) set_evicts(true);
        return;
    }
    is_policy_refused_ = false;
    const std::string_view policy = find_in_info(reply, "\nmaxmemory_policy:");
    const bool is_by_use = policy.find("lru") != std::string_view::npos ||
                           policy.find("lfu") != std::string_view::npos;
    set_evicts(is_by_use && find_in_info(reply, "\nmaxmemory:") != "0");
}

void TouchReporter::on_no_reply(uint32_t) {
    asked_ = nullptr;
    policy_asked_ms_ = 0;
}

void TouchReporter::set_evicts(bool evicts_by_use) {
    evicts_by_use_ = evicts_by_use;
    if (context_.redirects == nullptr) {
        context_.metrics.near_cache_touching = is_touching() ? 1 : 0;
    }
    schedule();
}

// --- a batch ---

void TouchReporter::Batch::send(Connection& connection) {
    std::string bytes;
    append_array_header(bytes, keys.size() + 1);
    append_bulk(bytes, "TOUCH");
    for (const std::string& key : keys)
        append_bulk(bytes, key);
    asked = &connection;
    Sources::send_untracked(connection, bytes, *this);
}

void TouchReporter::Batch::on_whole_reply(uint32_t ticket, const std::string& reply) {
    const bool is_last = ticket == Sources::kUntrackedTicket;
    Connection& connection = *asked;
    if (is_last) asked = nullptr;
    const OwnCommand command = is_last ? OwnCommand::Touch : OwnCommand::Caching;
    if (has_answered(connection, command, reply) && is_last) reporter_.on_touch_reply(reply);
}

void TouchReporter::Batch::on_no_reply(uint32_t ticket) {
    if (ticket == Sources::kUntrackedTicket) asked = nullptr;
}

void TouchReporter::on_touch_reply(std::string_view reply) {
    const bool is_refusal = reply.starts_with("-NOPERM") || reply.starts_with("-ERR unknown");
    if (!is_refusal || is_refused_) return;
    is_refused_ = true;
    set_evicts(evicts_by_use_);
    context_.log.warning(
        "near_cache_touch_off",
        {{"reason", reply.substr(1, std::min<size_t>(reply.size() - 1, 200))},
         {"what", "Valkey is not told which keys are read here, and may evict them"}});
}

}  // namespace nearkey
