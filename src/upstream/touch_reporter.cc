#include "nearkey/upstream/touch_reporter.h"

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/pool.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kMemory = "*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n";
constexpr uint64_t kPolicyAgainMs = 10'000;
constexpr size_t kMemoryReplyMax = size_t{64} << 10;
constexpr size_t kReplyMax = 256;
// A longer key is not reported: a batch has a limit in bytes, too.
constexpr size_t kKeyMax = 1024;
// Twice as many samples as there is room for, since some are of the same key.
constexpr uint64_t kSamplesPerKey = 2;
// Of a batch: the reply to CLIENT CACHING NO, if it was sent, and the one to TOUCH.
constexpr uint32_t kCachingTicket = 0;
constexpr uint32_t kTouchTicket = 1;

// The value of "name:value" in what INFO says; empty if it is not there.
std::string_view field(std::string_view report, std::string_view name) {
    const size_t at = report.find(name);
    if (at == std::string_view::npos) return {};
    const std::string_view rest = report.substr(at + name.size());
    return rest.substr(0, rest.find_first_of("\r\n"));
}
}  // namespace

TouchReporter::TouchReporter(ConnectionPool& pool, const NearCacheOptions& options,
                             Metrics& metrics, Log& log)
    : pool_(pool), options_(options), metrics_(metrics), log_(log) {
}

void TouchReporter::note(int database, std::string_view key) {
    schedule();
    if (key.size() > kKeyMax || keys_ >= options_.touch_keys_max) return;
    const auto batch = batches_.try_emplace(database, *this).first;
    if (batch->second.keys.emplace(key).second) ++keys_;
}

// Between none and twice the gap: hits that come in a pattern are all seen.
void TouchReporter::schedule() {
    const bool is_on = metrics_.near_cache_touching != 0 && keys_ < options_.touch_keys_max;
    hits_ += hits_planned_ - hits_left_;
    hits_left_ = is_on ? std::uniform_int_distribution<uint64_t>(1, 2 * gap_ - 1)(random_) : kNever;
    hits_planned_ = hits_left_;
}

void TouchReporter::beat(Connection& primary, uint64_t now_ms) {
    if (!options_.touch) {
        if (metrics_.near_cache_touching != 0) set_evicts(false);
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

// What can't be sent now is dropped: what is still read then is noted anew.
void TouchReporter::send_batches() {
    const bool is_on = metrics_.near_cache_touching != 0;
    for (auto next = batches_.begin(); next != batches_.end();) {
        const int database = next->first;
        Batch& batch = next->second;
        Connection* connection = pool_.find_ready(2, database);
        if (connection == nullptr) connection = pool_.find_ready(3, database);
        if (is_on && !batch.is_in_flight && !batch.keys.empty() && connection != nullptr) {
            metrics_.near_cache_touched_total += batch.keys.size();
            batch.send(*connection, pool_.are_reads_tracked(*connection));
        }
        batch.keys.clear();
        next = batch.is_in_flight ? std::next(next) : batches_.erase(next);
    }
    keys_ = 0;
}

// --- the policy ---

void TouchReporter::ask_for_policy(Connection& primary, uint64_t now_ms) {
    if (is_refused_ || asking_for_policy_ || !primary.is_ready()) return;
    const uint64_t again_ms = is_policy_refused_ ? kRefusedAgainMs : kPolicyAgainMs;
    if (policy_asked_ms_ != 0 && now_ms < policy_asked_ms_ + again_ms) return;
    policy_asked_ms_ = now_ms;
    asking_for_policy_ = true;
    primary.send({kMemory, this, 0, RequestKind::Write});
}

void TouchReporter::on_reply_bytes(uint32_t, std::string_view bytes) {
    if (reply_.size() + bytes.size() <= kMemoryReplyMax) reply_ += bytes;
}

void TouchReporter::on_reply_end(uint32_t) {
    asking_for_policy_ = false;
    const std::string reply = std::exchange(reply_, {});
    if (reply.starts_with('-')) {
        // Who may not ask is not to lose the keys that are read most; LOADING and the like pass.
        is_policy_refused_ = reply.starts_with("-NOPERM");
        if (is_policy_refused_) set_evicts(true);
        return;
    }
    is_policy_refused_ = false;
    const std::string_view policy = field(reply, "\nmaxmemory_policy:");
    const bool is_by_use = policy.find("lru") != std::string_view::npos ||
                           policy.find("lfu") != std::string_view::npos;
    set_evicts(is_by_use && field(reply, "\nmaxmemory:") != "0");
}

void TouchReporter::on_request_failed(uint32_t, std::string_view) {
    asking_for_policy_ = false;
    reply_.clear();
    policy_asked_ms_ = 0;
}

void TouchReporter::set_evicts(bool evicts_by_use) {
    evicts_by_use_ = evicts_by_use;
    metrics_.near_cache_touching = evicts_by_use_ && !is_refused_ ? 1 : 0;
    schedule();
}

// --- a batch ---

void TouchReporter::Batch::send(Connection& connection, bool is_tracked) {
    std::string bytes;
    if (is_tracked) bytes = ConnectionPool::kUntracked;
    append_array_header(bytes, keys.size() + 1);
    append_bulk(bytes, "TOUCH");
    for (const std::string& key : keys)
        append_bulk(bytes, key);
    is_in_flight = true;
    connection.send({bytes, this, is_tracked ? kCachingTicket : kTouchTicket, RequestKind::Write,
                     is_tracked ? 2U : 1U});
}

void TouchReporter::Batch::on_reply_bytes(uint32_t, std::string_view bytes) {
    if (reply_.size() + bytes.size() <= kReplyMax) reply_ += bytes;
}

void TouchReporter::Batch::on_reply_end(uint32_t ticket) {
    const std::string reply = std::exchange(reply_, {});
    if (ticket != kTouchTicket) return;
    is_in_flight = false;
    reporter_.on_touch_reply(reply);
}

void TouchReporter::Batch::on_request_failed(uint32_t ticket, std::string_view) {
    reply_.clear();
    if (ticket == kTouchTicket) is_in_flight = false;
}

void TouchReporter::on_touch_reply(std::string_view reply) {
    const bool is_refusal = reply.starts_with("-NOPERM") || reply.starts_with("-ERR unknown");
    if (!is_refusal || is_refused_) return;
    is_refused_ = true;
    set_evicts(evicts_by_use_);
    log_.warning("near_cache_touch_off",
                 {{"reason", reply.substr(1, std::min<size_t>(reply.size() - 1, 200))},
                  {"what", "Valkey is not told which keys are read here, and may evict them"}});
}

}  // namespace nearkey
