#include "nearkey/session/cached_reads.h"

#include "nearkey/base/probes.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/slot.h"

#include <string>

namespace nearkey {

namespace {
constexpr std::string_view kOne = ":1\r\n";

// REQUIRES: its reply is being answered.
void trace_hit(Desk& desk, std::string_view key, size_t bytes) {
    if (!probes::is_traced(nearkey_hit_semaphore)) return;
    probes::hit({&desk.receiver(), desk.replies.next()}, key, bytes);
}
}  // namespace

std::optional<Executed> CachedReads::answer(const Call& call) {
    // No other event loop changes the found reply until it is copied.
    const NearCache::Hold hold(cache_);
    Ledger& ledger = desk_.ledger;
    const CommandSpec& spec = *call.spec();
    if (call.plan.is_split()) return answer_split(call);
    const CacheQuery query = ledger.query(spec, call.command);
    const NearCache::Found found = cache_.find(query, desk_.context.ledgers.boot_ms);
    if (found.outcome == NearCache::Outcome::Hit && !is_overtaken(query.key)) {
        ledger.forget_awaited();
        const uint32_t told = desk_.shared_hits.told_with(desk_.tally.commands());
        if (Auditor& auditor = desk_.context.node.coherence().auditor(); auditor.is_due(told)) {
            auditor.schedule();
            desk_.node_of(query.key).coherence().auditor().note(
                {desk_.client.protocol, query, call.command, found.reply, spec.reads_fields});
        }
        ledger.note_shown();
        trace_hit(desk_, query.key, found.reply.size());
        desk_.answer_as(&spec, RequestOutcome::Hit, found.reply);
        sample_hit(query.key, told);
        return Executed::Yes;
    }
    if (desk_.context.node.serves_stale() && answer_stale(call)) return Executed::Yes;
    // A client that is owed replies can't wait here: they would be held up behind this read.
    if (found.outcome == NearCache::Outcome::Pending && desk_.owed() == 0 &&
        ledger.await_fill(found.ticket)) {
        return Executed::NotYet;
    }
    return give_up_late(spec);
}

// Answers here if every key is stored. Otherwise all are read anew, as one command, for it shows
// them at one time; those that were not stored are stored then.
std::optional<Executed> CachedReads::answer_split(const Call& call) {
    const CommandSpec& spec = *call.spec();
    const CommandView& command = call.command;
    LedgerContext& shared = desk_.context.ledgers;
    const bool has_values = spec.cache_split == CacheSplit::Values;
    std::string& reply = desk_.context.encoded;
    reply.clear();
    if (has_values) append_array_header(reply, command.size() - 1);
    int64_t count = 0;
    shared.missing.clear();
    for (size_t i = 1; i < command.size(); ++i) {
        const NearCache::Found found =
            cache_.find(desk_.ledger.query_part(spec, command[i]), shared.boot_ms);
        if (found.outcome != NearCache::Outcome::Hit || is_overtaken(command[i])) {
            shared.missing.push_back(i);
        } else if (has_values) {
            reply += found.reply;
        } else {
            count += found.reply == kOne ? 1 : 0;
        }
    }
    if (!shared.missing.empty()) return give_up_late(spec);
    if (!has_values) append_integer(reply, count);
    const uint32_t told = desk_.shared_hits.told_with(desk_.tally.commands());
    desk_.ledger.note_shown();
    trace_hit(desk_, command[1], reply.size());
    desk_.answer_as(&spec, RequestOutcome::Hit, reply);
    for (size_t i = 1; i < command.size(); ++i)
        sample_hit(command[i], i == 1 ? told : 0);
    return Executed::Yes;
}

// The command has waited for another client's read as long as a reply may take.
std::optional<Executed> CachedReads::give_up_late(const CommandSpec& spec) {
    Ledger& ledger = desk_.ledger;
    if (ledger.awaited_ms() < desk_.context.node.options().request_timeout_ms) return std::nullopt;
    ledger.forget_awaited();
    ++desk_.context.metrics.upstream_timeout_total;
    desk_.answer_error(&spec,
                       "UPSTREAMTIMEOUT Valkey did not answer another client's equal read in time");
    return Executed::Yes;
}

bool CachedReads::answer_stale(const Call& call) {
    if (is_overtaken(call.command[1])) return false;
    const std::string_view reply = find_stale(desk_, call);
    if (reply.empty()) return false;
    ++desk_.context.metrics.near_cache_stale_hits_total;
    desk_.ledger.forget_awaited();
    desk_.ledger.note_shown();
    trace_hit(desk_, call.command[1], reply.size());
    desk_.answer_as(call.spec(), RequestOutcome::Hit, reply);
    return true;
}

std::string_view CachedReads::find_stale(const Desk& desk, const Call& call) {
    if (!desk.context.node.serves_stale()) return {};
    return desk.context.ledgers.cache->find_stale(desk.ledger.query(*call.spec(), call.command),
                                                  desk.context.ledgers.boot_ms);
}

// What a lease owes may take as long as it likes, and tell of what was changed meanwhile: a job
// that BLPOP waits for, of the key that it is about.
bool CachedReads::is_overtaken(std::string_view key) const {
    return desk_.owed() > 0 && (lease_ || desk_.ledger.may_be_overtaken(key));
}

void CachedReads::sample_hit(std::string_view key, uint32_t told) {
    TouchReporter& touch = desk_.context.node.coherence().touch();
    if (touch.is_due(told)) {
        touch.schedule();
        desk_.node_of(key).coherence().touch().note(
            {desk_.client.database, desk_.context.cluster == nullptr ? -1 : slot_of(key)}, key);
    }
    HotKeys* const hot_keys = desk_.context.hot_keys;
    if (hot_keys != nullptr && told > 0)
        hot_keys->note_hits(key, told, desk_.context.loop.now_ms());
    if (hot_keys != nullptr && hot_keys->is_due(HotKeys::Outcome::Hit)) {
        hot_keys->note(key, HotKeys::Outcome::Hit, desk_.context.loop.now_ms());
    }
}

}  // namespace nearkey
