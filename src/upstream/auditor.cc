#include "nearkey/upstream/auditor.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/node_coherence.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

namespace nearkey {

namespace {
constexpr uint64_t kLogAgainMs = 10'000;

// The number of values in one element of a reply without an order; 0: it has one.
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
        append_value(elements.back(), value.elements[i], Protocol::Resp3);
    }
    std::sort(elements.begin(), elements.end());
    return elements;
}
}  // namespace

Auditor::Auditor(NodeCoherence& coherence, ConnectionContext& context,
                 SharedConnections& connections)
    : coherence_(coherence),
      connections_(connections),
      cache_(*context.cache),
      metrics_(context.metrics),
      log_(context.log),
      watch_(cache_) {
    schedule();
}

// The gaps add up to 1/ratio hits each.
void Auditor::schedule() {
    const double ratio = cache_.options().audit_ratio;
    // A ratio below one in 2^53 audits none.
    if (ratio < 1e-15) return;
    carried_ += 1 / ratio;
    hits_left_ = static_cast<uint64_t>(carried_);
    carried_ -= static_cast<double>(hits_left_);
}

void Auditor::note(const Hit& hit) {
    if (state_ != State::Idle || !hit.command.is_canonical()) return;
    // Valkey does not tell of fields that expire by themselves.
    if (hit.reads_fields && coherence_.fields_deadline_ms(0) != UINT64_MAX) return;
    Connection* connection = connections_.find_ready(hit.protocol, hit.query.database);
    if (connection == nullptr) return;
    command_ = hit.command[0];
    served_ = hit.reply;
    truth_.clear();
    key_hash_ = std::hash<std::string_view>{}(hit.query.key);
    hit_ms_ = Loop::boot_ms();
    watch_.set(hit.query);
    state_ = State::Reading;
    Sources::send_untracked(*connection, hit.command.raw(), *this);
}

// One byte too many is enough to see the difference.
void Auditor::on_reply_bytes(uint32_t ticket, std::string_view bytes) {
    if (ticket != Sources::kUntrackedTicket) return;
    truth_ += bytes.substr(0, cache_.options().value_max + 1 - truth_.size());
}

void Auditor::on_reply_end(uint32_t ticket) {
    if (ticket == Sources::kUntrackedTicket) judge(std::exchange(truth_, {}));
}

void Auditor::on_request_failed(uint32_t ticket, std::string_view) {
    if (ticket == Sources::kUntrackedTicket) state_ = State::Idle;
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
    coherence_.proofs().prove(*this);
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
    if (!watch_.is_served(Loop::boot_ms())) {
        end_late();
        return;
    }
    state_ = State::Doubting;
}

// Valkey does not tell of SWAPDB: it is looked for with the heartbeats, and voids everything.
void Auditor::beat() {
    if (state_ != State::Doubting || coherence_.swapdb_known_ms() < read_ms_) return;
    if (watch_.was_cleared()) {
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
