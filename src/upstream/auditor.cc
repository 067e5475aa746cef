#include "nearkey/upstream/auditor.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

namespace nearkey {

namespace {
constexpr uint64_t kLogAgainMs = 10'000;
// Of an audit: the reply to CLIENT CACHING NO, if it was sent, and the truth.
constexpr uint32_t kCachingTicket = 0;
constexpr uint32_t kTruthTicket = 1;

// How many values make up one element of a reply whose elements come in no order; 0: in order.
size_t unordered_step(const std::string& command) {
    if (equals_ignoring_case(command, "HGETALL")) return 2;
    const bool is_set = equals_ignoring_case(command, "SMEMBERS") ||
                        equals_ignoring_case(command, "HKEYS") ||
                        equals_ignoring_case(command, "HVALS");
    return is_set ? 1 : 0;
}

std::vector<std::string> sorted_elements(const Value& value, size_t step) {
    std::vector<std::string> elements;
    for (size_t i = 0; i < value.elements.size(); ++i) {
        if (i % step == 0) elements.emplace_back();
        append_value(elements.back(), value.elements[i], 3);
    }
    std::sort(elements.begin(), elements.end());
    return elements;
}
}  // namespace

Auditor::Auditor(ConnectionPool& pool, Metrics& metrics, Log& log)
    : pool_(pool), metrics_(metrics), log_(log), watch_(pool.cache()->add_watch()) {
    schedule();
}

// The gaps add up to 1/ratio hits each.
void Auditor::schedule() {
    const double ratio = pool_.cache()->options().audit_ratio;
    // Who is to see less than one in 2^53 sees none.
    if (ratio < 1e-15) return;
    carried_ += 1 / ratio;
    hits_left_ = static_cast<uint64_t>(carried_);
    carried_ -= static_cast<double>(hits_left_);
}

void Auditor::note(const Hit& hit) {
    schedule();
    if (state_ != State::Idle || !hit.command.is_canonical()) return;
    // Of fields that expire by themselves no news comes.
    if (hit.reads_fields && pool_.fields_deadline_ms(0) != UINT64_MAX) return;
    Connection* connection = pool_.find_ready(hit.protocol, hit.query.database);
    if (connection == nullptr) return;
    command_ = hit.command[0];
    served_ = hit.reply;
    truth_.clear();
    key_hash_ = std::hash<std::string_view>{}(hit.query.key);
    hit_ms_ = Loop::boot_ms();
    clears_ = pool_.cache()->clears();
    pool_.cache()->watch(watch_, hit.query);
    state_ = State::Reading;
    const bool is_tracked = pool_.are_reads_tracked(*connection);
    std::string bytes;
    if (is_tracked) bytes = ConnectionPool::kUntracked;
    bytes += hit.command.raw();
    connection->send({bytes, this, is_tracked ? kCachingTicket : kTruthTicket, RequestKind::Write,
                      is_tracked ? 2U : 1U});
}

// One byte too many is enough to see the difference.
void Auditor::on_reply_bytes(uint32_t ticket, std::string_view bytes) {
    if (ticket != kTruthTicket) return;
    truth_ += bytes.substr(0, pool_.cache()->options().value_max + 1 - truth_.size());
}

void Auditor::on_reply_end(uint32_t ticket) {
    if (ticket == kTruthTicket) judge(std::exchange(truth_, {}));
}

void Auditor::on_request_failed(uint32_t ticket, std::string_view) {
    if (ticket == kTruthTicket) state_ = State::Idle;
}

void Auditor::judge(std::string_view truth) {
    const bool is_error = truth.starts_with('-') || truth.starts_with('!');
    if (is_error && !truth.starts_with("-WRONGTYPE")) {
        state_ = State::Idle;
        return;
    }
    ++metrics_.near_cache_audits_total;
    if (is_same(truth)) {
        state_ = State::Idle;
        return;
    }
    read_ms_ = Loop::boot_ms();
    state_ = State::Proving;
    pool_.prove(*this);
}

bool Auditor::is_same(std::string_view truth) const {
    if (truth == served_) return true;
    const size_t step = unordered_step(command_);
    if (step == 0 || truth.size() != served_.size()) return false;
    const std::optional<Value> now = parse_value(truth);
    const std::optional<Value> then = parse_value(served_);
    return now && then && now->type == then->type &&
           sorted_elements(*now, step) == sorted_elements(*then, step);
}

void Auditor::on_proven() {
    if (!pool_.cache()->is_watched_served(watch_, Loop::boot_ms())) {
        end_late();
        return;
    }
    state_ = State::Doubting;
}

// Of SWAPDB no news comes: it is looked for with the heartbeats, and voids everything.
void Auditor::beat() {
    if (state_ != State::Doubting || pool_.swapdb_known_ms() < read_ms_) return;
    if (pool_.cache()->clears() != clears_) {
        end_late();
    } else {
        end_violated();
    }
}

void Auditor::end_late() {
    state_ = State::Idle;
    ++metrics_.near_cache_audit_late_total;
    metrics_.near_cache_audit_late_max_ms.raise_to(Loop::boot_ms() - hit_ms_);
}

void Auditor::end_violated() {
    state_ = State::Idle;
    ++metrics_.near_cache_audit_violations_total;
    const uint64_t now_ms = Loop::boot_ms();
    if (logged_ms_ != 0 && now_ms < logged_ms_ + kLogAgainMs) return;
    logged_ms_ = now_ms;
    const std::string hash = fmt::format("{:016x}", key_hash_);
    log_.warning("near_cache_violation",
                 {{"command", command_},
                  {"key_hash", hash},
                  {"what", "a hit differed from Valkey's reply, and no news of a change came"}});
}

}  // namespace nearkey
