// What a session asks of the near cache: reads that it may answer, reads whose replies may be
// stored.
//
// A read that may be stored goes upstream behind a PTTL of its key. A change between the two, or
// after, is told of by Valkey, and the reply is not stored; so the deadline belongs to the reply.
#include "nearkey/session/session.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/split_reply.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace nearkey {

namespace {

constexpr std::string_view kOne = ":1\r\n";

// The encoding of the command's arguments from the third on.
std::string_view encode_tail(const CommandView& command, std::string& scratch) {
    if (command.size() <= 2) return {};
    if (command.is_canonical()) {
        const char* begin = command[1].data() + command[1].size();
        return {begin, static_cast<size_t>(command.raw().data() + command.raw().size() - begin)};
    }
    scratch = "\r\n";
    for (size_t i = 2; i < command.size(); ++i)
        append_bulk(scratch, command[i]);
    return scratch;
}

}  // namespace

// --- reads ---

Session::Executed Session::read(const CommandView& command) {
    // What is found is not changed by another event loop until it is copied.
    const NearCache::Hold hold(*context_.cache);
    if (spec_->is_split(command)) return read_split(command);
    const NearCache::Found found = context_.cache->find(query(command), context_.boot_ms);
    if (found.outcome == NearCache::Outcome::Hit && !may_be_overtaken(command[1])) {
        has_awaited_ = false;
        if (Auditor& auditor = context_.pool.auditor(); auditor.is_due())
            auditor.note({protocol_, query(command), command, found.reply, spec_->reads_fields});
        answer_as(RequestOutcome::Hit, found.reply);
        sample_hit(command[1]);
        return Executed::Yes;
    }
    if (context_.pool.serves_stale() && serve_stale(command)) return Executed::Yes;
    // Who is owed something would have to keep it back.
    if (found.outcome == NearCache::Outcome::Pending && owed() == 0 && !has_awaited_ &&
        context_.cache->wait(found.ticket, *this, context_.fill_loop, context_.boot_ms)) {
        awaited_fill_ = found.ticket;
        awaited_since_ms_ = context_.loop.now_ms();
        pause(kFill, nullptr);
        return Executed::NotYet;
    }
    return read_upstream(command);
}

// Answered here if every key is stored. Else all are read anew, as one command, for it shows them
// as they were at one time; what was not stored of them is then.
Session::Executed Session::read_split(const CommandView& command) {
    const bool has_values = spec_->cache_split == CacheSplit::Values;
    std::string& reply = context_.encoded;
    reply.clear();
    if (has_values) append_array_header(reply, command.size() - 1);
    int64_t count = 0;
    context_.missing.clear();
    for (size_t i = 1; i < command.size(); ++i) {
        const NearCache::Found found =
            context_.cache->find(query_part(command[i]), context_.boot_ms);
        if (found.outcome != NearCache::Outcome::Hit || may_be_overtaken(command[i])) {
            context_.missing.push_back(i);
        } else if (has_values) {
            reply += found.reply;
        } else {
            count += found.reply == kOne ? 1 : 0;
        }
    }
    if (!context_.missing.empty()) return read_upstream(command);
    if (!has_values) append_integer(reply, count);
    answer_as(RequestOutcome::Hit, reply);
    for (size_t i = 1; i < command.size(); ++i)
        sample_hit(command[i]);
    return Executed::Yes;
}

void Session::sample_hit(std::string_view key) {
    if (context_.pool.touch().is_due()) context_.pool.touch().note(database_, key);
    if (context_.hot_keys != nullptr && context_.hot_keys->is_due(HotKeys::Outcome::Hit)) {
        context_.hot_keys->note(key, HotKeys::Outcome::Hit, context_.loop.now_ms());
    }
}

Session::Executed Session::read_upstream(const CommandView& command) {
    if (awaited_ms() >= context_.pool.request_timeout_ms()) {
        has_awaited_ = false;
        ++context_.metrics.upstream_timeout_total;
        answer_error("UPSTREAMTIMEOUT Valkey did not answer another client's equal read in time");
        return Executed::Yes;
    }
    is_cache_read_ = true;
    const Executed executed = forward_shared(command);
    is_cache_read_ = false;
    if (executed == Executed::Yes) has_awaited_ = false;
    return executed;
}

// With what may be untrue by now, rather than not at all.
bool Session::serve_stale(const CommandView& command) {
    if (may_be_overtaken(command[1])) return false;
    const std::string_view reply = context_.cache->find_stale(query(command), context_.boot_ms);
    if (reply.empty()) return false;
    ++context_.metrics.near_cache_stale_hits_total;
    has_awaited_ = false;
    answer_as(RequestOutcome::Hit, reply);
    return true;
}

// Whether a reply that comes before may show a newer state of the key than what is stored now.
bool Session::may_be_overtaken(std::string_view key) {
    if (owed() == 0) return false;
    if (told_writes_ > 0 || !unstored_reads_.empty()) return true;
    if (fills_.empty()) return false;
    if (context_.cache->is_being_read(key)) return true;
    // The cache has forgotten which key a void fill was of.
    for (size_t i = 0; i < fills_.size() && !is_broken(Rule::VoidFill); ++i) {
        if (!context_.cache->is_open(fills_[i].fill)) return true;
    }
    return false;
}

void Session::on_fill_closed() {
    awaited_fill_ = 0;
    has_awaited_ = true;
    if (proofs_awaited_ == 0) unpause(kFill);
}

// How much of its time the command being executed has waited for another client's read.
uint64_t Session::awaited_ms() const {
    return has_awaited_ ? context_.loop.now_ms() - awaited_since_ms_ : 0;
}

bool Session::may_be_stored(const CommandView& command) const {
    return cache_use_ == CacheUse::On && !context_.cache->has_monitors() &&
           spec_->is_cacheable(command) &&
           (spec_->is_split(command) || context_.pool.is_told_of(command[1])) &&
           database_ <= std::numeric_limits<uint16_t>::max();
}

CacheQuery Session::query(const CommandView& command) {
    CacheQuery query = query_part(command[1]);
    query.arguments = encode_tail(command, context_.arguments);
    return query;
}

// One key's part of a split read; it has no other arguments.
CacheQuery Session::query_part(std::string_view key) const {
    return {
        .key = key,
        .arguments = {},
        .command = static_cast<uint8_t>(spec_->cache_number << 1 | (protocol_ == 3 ? 1 : 0)),
        .database = static_cast<uint16_t>(is_broken(Rule::Database) ? 0 : database_),
    };
}

// Before `command` goes over `connection`.
void Session::note(Connection& connection, const CommandView& command, uint32_t ticket) {
    if (spec_ != nullptr && !spec_->accepts(command.size())) return;
    if (spec_ != nullptr && spec_->tells_of_keys) {
        note_read(connection, command, ticket);
    } else {
        begin_writes(command, ticket);
    }
}

void Session::note_read(Connection& connection, const CommandView& command, uint32_t ticket) {
    const bool is_shared = &connection == connection_;
    if (is_shared && may_be_stored(command)) {
        const bool is_split = spec_->is_split(command);
        if (is_split ? note_split(connection, command, ticket)
                     : begin_fill(connection, query(command), pending_fill(ticket))) {
            return;
        }
    }
    if (may_be_in_multi()) {
        multi_reads_ = !is_broken(Rule::QueuedRead);
        return;
    }
    note_unstored(connection, command, ticket);
    const bool has_keys = !spec_->key_specs.empty();
    if (has_keys && is_shared && context_.pool.are_reads_tracked(connection) &&
        !context_.cache->has_monitors()) {
        connection.send(
            {ConnectionPool::kUntracked, &context_.pool.discard(), 0, RequestKind::Read});
    }
}

// The keys in context_.missing will be stored, those that may be. False: none.
bool Session::note_split(Connection& connection, const CommandView& command, uint32_t ticket) {
    PendingFill fill = pending_fill(ticket);
    fill.split = spec_->cache_split;
    fill.parts = static_cast<uint16_t>(command.size() - 1);
    std::vector<size_t>& filled = context_.missing;
    size_t count = 0;
    for (const size_t i : filled) {
        fill.part = static_cast<uint16_t>(i - 1);
        if (begin_fill(connection, query_part(command[i]), fill)) filled[count++] = i;
    }
    if (count == 0) return false;
    filled.resize(count);
    // Of the others the reply may show something newer than what is stored.
    context_.keys.clear();
    auto next = filled.begin();
    for (size_t i = 1; i < command.size(); ++i) {
        const bool is_filled = next != filled.end() && *next == i;
        if (is_filled) ++next;
        if (!is_filled) context_.keys.push_back(command[i]);
    }
    if (!context_.keys.empty() && !is_broken(Rule::UnfilledPart)) mark_unstored(connection, ticket);
    return true;
}

PendingFill Session::pending_fill(uint32_t ticket) const {
    return {.ticket = ticket,
            .fill = 0,
            .sent_ms = Loop::boot_ms(),
            .ttl_ms = PendingFill::kTtlUnknown,
            .split = CacheSplit::None,
            .part = 0,
            .parts = 0,
            .reads_fields = spec_->reads_fields};
}

// False: its reply may not be stored. Else the PTTL that belongs to it is on its way.
bool Session::begin_fill(Connection& connection, const CacheQuery& query, PendingFill fill) {
    if (!context_.pool.is_told_of(query.key)) return false;
    fill.fill = context_.cache->begin_fill(query, context_.pool.source_of(connection));
    if (fill.fill == 0) return false;
    // Before the scratch that a query's arguments may lie in is used again.
    std::string& pttl = context_.pttl;
    pttl.clear();
    append_array_header(pttl, 2);
    append_bulk(pttl, "PTTL");
    append_bulk(pttl, query.key);
    const auto number = first_fill_ + static_cast<uint32_t>(fills_.size());
    fills_.push_back(fill);
    connection.send({pttl, &ttl_receiver_, number, RequestKind::Read, 1, awaited_ms()});
    return true;
}

void Session::TtlReceiver::on_reply_bytes(uint32_t, std::string_view bytes) {
    bytes = bytes.substr(0, kReplyMax - size_);
    std::copy(bytes.begin(), bytes.end(), reply_ + size_);
    size_ += bytes.size();
}

void Session::TtlReceiver::on_reply_end(uint32_t number) {
    const std::string_view reply{reply_, std::exchange(size_, 0)};
    // Of one key alone it says "NOPERM No permissions to access a key"; Redis 7.0 "NOPERM this user
    // has no permissions to access one of the keys ...".
    const bool is_refused = reply.starts_with("-NOPERM User ") ||
                            reply.starts_with("-NOPERM this user has no permissions to run ");
    if (is_refused) session_.context_.pool.on_pttl_refused();
    if (!reply.starts_with(':') || !reply.ends_with("\r\n")) return;
    const auto ttl = parse_integer(reply.substr(1, reply.size() - 3));
    const uint32_t place = number - session_.first_fill_;
    if (ttl && place < session_.fills_.size()) session_.fills_[place].ttl_ms = *ttl;
}

bool Session::TtlReceiver::on_reply_void(uint32_t) {
    // Its read will be sent again over a connection of which nothing is to be stored yet.
    size_ = 0;
    return false;
}

void Session::TtlReceiver::on_request_failed(uint32_t, std::string_view) {
    size_ = 0;
}

// What was in flight with the ticket is over. REQUIRES: tickets come in order.
void Session::tell_cache(uint32_t ticket, std::string_view reply) {
    if (context_.cache == nullptr) return;
    if (fills_.empty() && unstored_reads_.empty() && writes_.empty()) return;
    // That it is alone holds until it is stored.
    const NearCache::Hold hold(*context_.cache);
    const bool is_fill_ahead = !end_fills(ticket, reply) && context_.pool.may_overtake(protocol_);
    const bool is_read_ahead = end_unstored(ticket, reply);
    const bool has_told = end_writes(ticket);
    if (!is_fill_ahead && !is_read_ahead && !has_told) return;
    if (!context_.cache->is_idle()) await_proof();
}

// The client was shown nothing: what is stored can't be older than that. What a lost script has
// written Valkey tells of, too; but who looks whether it ran does so at once.
void Session::tell_cache_of_failure(uint32_t ticket) {
    if (context_.cache == nullptr) return;
    static_cast<void>(end_fills(ticket, {}));
    static_cast<void>(end_unstored(ticket, {}));
    if (end_writes(ticket) && !is_broken(Rule::LostScript)) {
        context_.cache->clear(InvalidationCause::Barrier, Loop::boot_ms());
    }
}

// The read is over; an empty `reply` is none that may be stored. False: something else of its key
// is here, or may be, that may be older than what the reply shows.
bool Session::end_fills(uint32_t ticket, std::string_view reply) {
    bool is_alone = true;
    SplitReply parts(reply);
    while (!fills_.empty() && fills_.front().ticket == ticket) {
        const PendingFill pending = fills_.front();
        fills_.pop_front();
        ++first_fill_;
        is_alone = is_alone && context_.cache->is_alone(pending.fill);
        end_fill(pending, pending.split == CacheSplit::None
                              ? reply
                              : parts.part(pending.split, pending.part, pending.parts));
    }
    return is_alone;
}

void Session::end_fill(const PendingFill& pending, std::string_view reply) {
    if (reply.empty() || pending.ttl_ms == PendingFill::kTtlUnknown) {
        context_.cache->abandon(pending.fill);
        return;
    }
    const uint64_t since_ms = is_broken(Rule::TtlSent) ? Loop::boot_ms() : pending.sent_ms;
    uint64_t deadline_ms =
        pending.ttl_ms < 0 ? UINT64_MAX : since_ms + static_cast<uint64_t>(pending.ttl_ms);
    if (pending.reads_fields) {
        deadline_ms = std::min(deadline_ms, context_.pool.fields_deadline_ms(pending.sent_ms));
    }
    store(pending.fill, reply, deadline_ms);
}

}  // namespace nearkey
