#include "nearkey/coherence/ledger.h"

#include "nearkey/base/check.h"
#include "nearkey/base/heap_bytes.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/coherence/split_reply.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// A command that reads more keys than this counts as reading any.
constexpr size_t kMarksMax = 16;
constexpr size_t kQueuedKeysMax = 1024;
constexpr size_t kQueuedBytesMax = size_t{256} << 10;
constexpr size_t kManyWrites = 64;
// Of a record in `writes_` that is for OwnWrites alone.
constexpr WriteScope kNoted = WriteScope::Nothing;
// Memory of a key that is being written in NearCache, unless it is long.
constexpr size_t kWriteBytes = 160;

bool is_null(std::string_view reply) {
    return reply == "*-1\r\n" || reply == "_\r\n";
}

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

Sharing sharing_of(const CommandSpec& spec) {
    if (spec.cache_split == CacheSplit::Values) return Sharing::Part;
    return spec.name == "get" ? Sharing::Get : Sharing::None;
}

PendingFill pending_fill(const CommandSpec& spec, uint32_t ticket) {
    return {.ticket = ticket,
            .fill = 0,
            .sent_ms = Loop::boot_ms(),
            .ttl_ms = PendingFill::kTtlUnknown,
            .split = CacheSplit::None,
            .part = 0,
            .parts = 0,
            .node = 0,
            .reads_fields = spec.reads_fields};
}
}  // namespace

bool LedgerContext::may_overtake(uint16_t number, Protocol protocol) const {
    // A reply may come from another node than it was asked for.
    if (cluster != nullptr && cluster->sent_on().size() > 0) return true;
    // A reader of shared memory sees what was read with either protocol.
    if (cache != nullptr && cache->shared_replies().is_active() && !is_broken(Rule::SegmentAhead)) {
        return true;
    }
    const NodeCoherence* const coherence = coherence_of(number);
    return coherence == nullptr || coherence->may_overtake(protocol);
}

Ledger::Ledger(LedgerContext& context, const ClientState& client, LedgerOwner& owner)
    : context_(context), client_(client), owner_(owner), ttl_receiver_(*this) {
}

// --- reads that the near cache may answer ---

CacheQuery Ledger::query(const CommandSpec& spec, const CommandView& command) const {
    CacheQuery query = query_part(spec, command[1]);
    query.arguments = encode_tail(command, context_.arguments);
    return query;
}

CacheQuery Ledger::query_part(const CommandSpec& spec, std::string_view key) const {
    return {
        .key = key,
        .arguments = {},
        .command = static_cast<uint8_t>(spec.cache_number << 1 |
                                        (client_.protocol == Protocol::Resp3 ? 1 : 0)),
        .database = static_cast<uint16_t>(is_broken(Rule::Database) ? 0 : client_.database),
        .sharing = client_.shares_replies && context_.cache->shared_replies().is_active()
                       ? sharing_of(spec)
                       : Sharing::None,
    };
}

bool Ledger::may_be_overtaken(std::string_view key) const {
    if (told_writes_ > 0 || !unstored_reads_.empty()) return true;
    if (fills_.empty()) return false;
    if (context_.cache->is_being_read(key)) return true;
    // The cache has forgotten which key a void fill was of.
    for (size_t i = 0; i < fills_.size() && !is_broken(Rule::VoidFill); ++i) {
        if (!context_.cache->is_open(fills_[i].fill)) return true;
    }
    return false;
}

bool Ledger::await_fill(NearCache::Ticket fill) {
    if (has_awaited_) return false;
    if (!context_.cache->wait(fill, *this, context_.fill_loop, context_.boot_ms)) return false;
    awaited_fill_ = fill;
    awaited_since_ms_ = owner_.now_ms();
    owner_.on_ledger_waits();
    return true;
}

void Ledger::on_fill_closed() {
    awaited_fill_ = 0;
    has_awaited_ = true;
    if (proofs_awaited_ == 0) owner_.on_ledger_open();
}

// --- an entry is begun ---

void Ledger::note(const Plan& plan, const CommandView& command, uint32_t ticket,
                  const SendWay& way) {
    if (!plan.is_call()) return;
    if (plan.spec != nullptr && plan.spec->tells_of_keys) {
        if (!is_off()) note_read(plan, command, ticket, way);
    } else {
        begin_writes(plan, command, ticket);
    }
}

void Ledger::note_read(const Plan& plan, const CommandView& command, uint32_t ticket,
                       const SendWay& way) {
    const CommandSpec& spec = *plan.spec;
    if (way.is_shared && plan.may_be_stored()) {
        const bool is_begun =
            plan.is_split() ? note_split(spec, command, ticket, way)
                            : begin_fill(way, query(spec, command), pending_fill(spec, ticket));
        if (is_begun) return;
    }
    if (plan.is_queued) {
        queued_reads_ = !is_broken(Rule::QueuedRead);
        return;
    }
    context_.keys.clear();
    if (!spec.find_keys(command, context_.keys)) context_.keys.clear();
    mark_unstored(ticket, way);
    if (!spec.key_specs.empty() && way.is_shared && Sources::are_reads_tracked(way.connection) &&
        !context_.cache->has_monitors()) {
        way.connection.send({Sources::kUntracked, &context_.node.discard(), 0, RequestKind::Read});
    }
}

// The keys in context_.missing will be stored, those that may be. False: none.
bool Ledger::note_split(const CommandSpec& spec, const CommandView& command, uint32_t ticket,
                        const SendWay& way) {
    PendingFill fill = pending_fill(spec, ticket);
    fill.split = spec.cache_split;
    fill.parts = static_cast<uint16_t>(command.size() - 1);
    std::vector<size_t>& filled = context_.missing;
    size_t count = 0;
    for (const size_t i : filled) {
        fill.part = static_cast<uint16_t>(i - 1);
        if (begin_fill(way, query_part(spec, command[i]), fill)) filled[count++] = i;
    }
    if (count == 0) return false;
    filled.resize(count);
    // The reply may show the others newer than what is stored of them.
    context_.keys.clear();
    auto next = filled.begin();
    for (size_t i = 1; i < command.size(); ++i) {
        const bool is_filled = next != filled.end() && *next == i;
        if (is_filled) ++next;
        if (!is_filled) context_.keys.push_back(command[i]);
    }
    if (!context_.keys.empty() && !is_broken(Rule::UnfilledPart)) {
        mark_unstored(ticket, way);
    }
    return true;
}

// False: its reply may not be stored. Else the PTTL that belongs to it is on its way.
bool Ledger::begin_fill(const SendWay& way, const CacheQuery& query, PendingFill fill) {
    const Sources& sources = way.node.coherence().sources();
    if (!sources.is_told_of(query.key)) return false;
    fill.node = way.node.coherence().number();
    fill.fill = context_.cache->begin_fill(query, sources.source_of(way.connection));
    if (fill.fill == 0) return false;
    // Done before the scratch that may hold the query's arguments is used again.
    std::string& pttl = context_.pttl;
    pttl.clear();
    append_array_header(pttl, 2);
    append_bulk(pttl, "PTTL");
    append_bulk(pttl, query.key);
    const auto number = first_fill_ + static_cast<uint32_t>(fills_.size());
    fills_.push_back(fill);
    way.connection.send({pttl, &ttl_receiver_, number, RequestKind::Read, 1, awaited_ms()});
    return true;
}

// The reply may show context_.keys; none: it is not known which.
void Ledger::mark_unstored(uint32_t ticket, const SendWay& way) {
    using What = UnstoredRead::What;
    if (!way.is_shared && is_broken(Rule::OtherConnection)) return;
    const uint16_t node = way.node.coherence().number();
    const bool is_known = !context_.keys.empty() && context_.keys.size() <= kMarksMax;
    if (!is_known || (way.is_shared && !context_.may_overtake(node, client_.protocol))) {
        unstored_reads_.push_back(
            {ticket, way.is_shared ? What::SharedRead : What::OtherRead, node, 0});
        return;
    }
    for (const std::string_view key : context_.keys)
        unstored_reads_.push_back({ticket, What::Key, node, context_.cache->mark_of(key)});
}

void Ledger::TtlReceiver::on_reply_bytes(uint32_t, std::string_view bytes) {
    bytes = bytes.substr(0, kReplyMax - size_);
    std::copy(bytes.begin(), bytes.end(), reply_ + size_);
    size_ += bytes.size();
}

void Ledger::TtlReceiver::on_reply_end(uint32_t number) {
    const std::string_view reply{reply_, std::exchange(size_, 0)};
    const uint32_t place = number - ledger_.first_fill_;
    if (place >= ledger_.fills_.size()) return;
    PendingFill& fill = ledger_.fills_[place];
    // Where only a key is not allowed, Valkey says "NOPERM No permissions to access a key", Redis
    // 7.0 "NOPERM this user has no permissions to access one of the keys ...".
    const bool is_refused = reply.starts_with("-NOPERM User ") ||
                            reply.starts_with("-NOPERM this user has no permissions to run ");
    NodeCoherence* const coherence = ledger_.context_.coherence_of(fill.node);
    if (is_refused && coherence != nullptr) coherence->sources().note_pttl_refused();
    if (!reply.starts_with(':') || !reply.ends_with("\r\n")) return;
    const auto ttl = parse_integer(reply.substr(1, reply.size() - 3));
    if (ttl) fill.ttl_ms = *ttl;
}

bool Ledger::TtlReceiver::on_reply_void(uint32_t) {
    // Its read will be sent again over a connection of which nothing is to be stored yet.
    size_ = 0;
    return false;
}

void Ledger::TtlReceiver::on_request_failed(uint32_t, std::string_view) {
    size_ = 0;
}

// --- writes ---

void Ledger::begin_writes(const Plan& plan, const CommandView& command, uint32_t ticket) {
    const Special special = plan.spec == nullptr ? Special::None : plan.spec->special;
    const bool is_exec = special == Special::Exec;
    if (special == Special::Discard) forget_queued();
    if (special == Special::Watch) queued_watches_ = true;
    if (is_exec && !is_off() && (queued_reads_ || queued_watches_)) {
        // It shows what was read, or, by a nil in place of all replies, that a watched key has
        // changed.
        using What = UnstoredRead::What;
        unstored_reads_.push_back({ticket, queued_reads_ ? What::OtherRead : What::Watched, 0, 0});
        queued_reads_ = queued_watches_ = false;
    }
    if (is_broken(Rule::OwnWrite)) return;
    context_.keys.clear();
    if (is_exec) {
        context_.scope = std::exchange(queued_scope_, WriteScope::Keys);
        context_.keys.assign(queued_keys_.begin(), queued_keys_.end());
    } else {
        context_.scope = find_writes(plan, command, context_.keys);
        if (context_.scope == WriteScope::Nothing) return;
    }
    // If MULTI was refused it is not queued but run.
    write_keys(ticket);
    if (is_exec) forget_queued();
    if (plan.is_queued && !is_exec && !is_broken(Rule::QueuedWrite)) queue_writes();
}

void Ledger::forget_queued() {
    queued_keys_.clear();
    queued_keys_.shrink_to_fit();
    queued_bytes_ = 0;
    queued_scope_ = WriteScope::Keys;
    queued_reads_ = queued_watches_ = false;
}

// EXEC will also write context_.keys, or by context_.scope more.
void Ledger::queue_writes() {
    for (const std::string_view key : context_.keys)
        queued_bytes_ += sizeof(std::string) + key.size();
    const bool fits = queued_keys_.size() + context_.keys.size() <= kQueuedKeysMax &&
                      queued_bytes_ <= kQueuedBytesMax;
    queued_scope_ = std::max(queued_scope_, fits ? context_.scope : WriteScope::Everything);
    if (queued_scope_ == WriteScope::Everything) {
        queued_keys_.clear();
        queued_bytes_ = 0;
    } else {
        queued_keys_.insert(queued_keys_.end(), context_.keys.begin(), context_.keys.end());
    }
}

void Ledger::begin_whole(uint32_t ticket, Node& node, bool reads) {
    if (!context_.is_kept()) return;
    write_keys(ticket);
    if (reads && !is_off()) {
        unstored_reads_.push_back(
            {ticket, UnstoredRead::What::SharedRead, node.coherence().number(), 0});
    }
}

// A write of the keys in context_.keys, and of more if context_.scope says so.
void Ledger::write_keys(uint32_t ticket) {
    if (context_.own_writes != nullptr) {
        const bool is_known = context_.scope == WriteScope::Keys;
        if (!is_known) writes_.push_back({ticket, kNoted, nullptr, OwnWrites::kAnySlot});
        for (size_t i = 0; is_known && i < context_.keys.size(); ++i)
            writes_.push_back({ticket, kNoted, nullptr, slot_of(context_.keys[i])});
    }
    if (is_off()) return;
    NearCache& cache = *context_.cache;
    if (context_.scope == WriteScope::Everything) {
        writes_.push_back({ticket, WriteScope::Everything, cache.begin_barrier(context_.boot_ms)});
        return;
    }
    if (context_.scope == WriteScope::Told) {
        writes_.push_back({ticket, WriteScope::Told, nullptr});
        ++told_writes_;
    }
    for (const std::string_view key : context_.keys) {
        if (!StoredReplies::may_hold(key)) continue;
        writes_.push_back({ticket, WriteScope::Keys, cache.begin_write(key, context_.boot_ms)});
    }
    if (context_.keys.size() > kManyWrites) owner_.on_ledger_grown();
}

// Keys that a tunnel writes are dropped once the command has left, and from then on Valkey tells of
// them, as with a change from elsewhere.
void Ledger::note_through(const Plan& plan, const CommandView& command) {
    if (is_off() || plan.writes == WriteScope::Nothing || plan.writes == WriteScope::Told) return;
    context_.keys.clear();
    if (find_writes(plan, command, context_.keys) == WriteScope::Everything) {
        context_.cache->clear(InvalidationCause::Barrier, context_.boot_ms);
        return;
    }
    for (const std::string_view key : context_.keys)
        context_.cache->invalidate(key, InvalidationCause::Write, context_.boot_ms);
}

// --- an entry is ended ---

void Ledger::end_records(uint32_t ticket, std::string_view reply) {
    if (is_off()) {
        static_cast<void>(end_writes(ticket));
        return;
    }
    // Its fill stays alone until it is stored.
    const NearCache::Hold hold(*context_.cache);
    const bool is_fill_ahead = end_fills(ticket, reply);
    const bool is_read_ahead = end_unstored(ticket, reply);
    const bool has_told = end_writes(ticket);
    if (!is_fill_ahead && !is_read_ahead && !has_told) return;
    if (!context_.cache->is_idle()) await_proof();
}

// The client was shown nothing: no stored reply can be older than that. Valkey also tells of a lost
// script's writes; but a client that looks whether it ran does so at once.
void Ledger::fail(uint32_t ticket) {
    if (is_empty()) return;
    if (is_off()) {
        static_cast<void>(end_writes(ticket));
        return;
    }
    static_cast<void>(end_fills(ticket, {}));
    static_cast<void>(end_unstored(ticket, {}));
    if (end_writes(ticket) && !is_broken(Rule::LostScript)) {
        context_.cache->clear(InvalidationCause::Barrier, Loop::boot_ms());
    }
}

// True: something else of its key is here, or may be, that may be older than the reply.
bool Ledger::end_fills(uint32_t ticket, std::string_view reply) {
    bool is_ahead = false;
    SplitReply parts(reply);
    while (!fills_.empty() && fills_.front().ticket == ticket) {
        const PendingFill pending = fills_.front();
        fills_.pop_front();
        ++first_fill_;
        is_ahead = is_ahead || (!context_.cache->is_alone(pending.fill) &&
                                context_.may_overtake(pending.node, client_.protocol));
        end_fill(pending, pending.split == CacheSplit::None
                              ? reply
                              : parts.part(pending.split, pending.part, pending.parts));
    }
    return is_ahead;
}

void Ledger::end_fill(const PendingFill& pending, std::string_view reply) {
    if (reply.empty() || pending.ttl_ms == PendingFill::kTtlUnknown) {
        context_.cache->abandon(pending.fill);
        return;
    }
    const uint64_t since_ms = is_broken(Rule::TtlSent) ? Loop::boot_ms() : pending.sent_ms;
    uint64_t deadline_ms =
        pending.ttl_ms < 0 ? UINT64_MAX : since_ms + static_cast<uint64_t>(pending.ttl_ms);
    NodeCoherence* const coherence = context_.coherence_of(pending.node);
    if (pending.reads_fields && coherence != nullptr) {
        deadline_ms = std::min(deadline_ms, coherence->fields_deadline_ms(pending.sent_ms));
    }
    // Nobody tells of a key that was not there once its slot is another server's.
    constexpr int64_t kNoKey = -2;
    if (context_.cluster != nullptr && pending.ttl_ms == kNoKey && !is_broken(Rule::Absence)) {
        deadline_ms = pending.sent_ms + context_.cache->options().max_staleness_ms;
    }
    store(pending, reply, deadline_ms);
}

// Stores it at once if nothing older is stored of the key, otherwise when the proof comes that
// end() is going to ask for.
void Ledger::store(const PendingFill& pending, std::string_view reply, uint64_t deadline_ms) {
    NearCache& cache = *context_.cache;
    const NearCache::Ticket fill = pending.fill;
    const bool is_late = cache.is_open(fill) && !cache.is_alone(fill) &&
                         context_.may_overtake(pending.node, client_.protocol) &&
                         reply.size() <= cache.options().value_max;
    if (is_late) {
        late_bytes_ += reply.size();
        late_fills_.push_back(
            {proofs_had_ + proofs_awaited_ + 1, fill, deadline_ms, std::string(reply)});
    } else {
        cache.commit(fill, reply, deadline_ms, Loop::boot_ms());
    }
}

// True: a reply that is stored of the same keys, or may soon be, may be older than this one. A
// shared connection's reply stands behind the news, unless there are others of its kind; a lease's
// overtakes them.
bool Ledger::end_unstored(uint32_t ticket, std::string_view reply) {
    bool is_ahead = false;
    while (!unstored_reads_.empty() && unstored_reads_.front().ticket == ticket) {
        const UnstoredRead read = unstored_reads_.front();
        unstored_reads_.pop_front();
        switch (read.what) {
            case UnstoredRead::What::Key:
                is_ahead = is_ahead || context_.cache->holds(read.key);
                break;
            case UnstoredRead::What::SharedRead:
                is_ahead = is_ahead || context_.may_overtake(read.node, client_.protocol);
                break;
            case UnstoredRead::What::OtherRead:
                is_ahead = true;
                break;
            case UnstoredRead::What::Watched:
                is_ahead = is_ahead || is_null(reply);
                break;
        }
    }
    return is_ahead;
}

// True: Valkey tells of the writes, on the connections that read those keys. The client sees the
// reply once that has come, so that nobody who has seen it is served an older value.
bool Ledger::end_writes(uint32_t ticket) {
    bool has_told = false;
    for (; !writes_.empty() && writes_.front().ticket == ticket; writes_.pop_front()) {
        const PendingWrite& pending = writes_.front();
        if (pending.scope == kNoted) {
            context_.own_writes->note(pending.slot, Loop::boot_ms());
        } else if (pending.scope == WriteScope::Told) {
            --told_writes_;
            has_told = true;
        } else {
            context_.cache->end_write(pending.write);
        }
    }
    return has_told;
}

void Ledger::forget(Connection& connection) {
    connection.forget(ttl_receiver_);
    for (size_t i = 0; i < fills_.size(); ++i)
        fills_[i].ttl_ms = PendingFill::kTtlUnknown;
}

void Ledger::close() {
    while (!writes_.empty())
        static_cast<void>(end_writes(writes_.front().ticket));
    if (is_off()) return;
    if (awaited_fill_ != 0) context_.cache->stop_waiting(awaited_fill_, *this, context_.fill_loop);
    if (proofs_awaited_ > 0) context_.node.coherence().proofs().stop_waiting(*this);
    for (; !fills_.empty(); fills_.pop_front(), ++first_fill_)
        context_.cache->abandon(fills_.front().fill);
    for (const LateFill& late : late_fills_)
        context_.cache->abandon(late.fill);
    late_fills_.clear();
    late_bytes_ = 0;
}

// --- proofs ---

// A RESP3 connection's replies stand behind the invalidations of keys read over that connection
// alone, and a tunnel's behind none.
void Ledger::change_way() {
    if (is_off() || !has_shown_) return;
    has_shown_ = false;
    if (context_.cache->is_idle() || is_broken(Rule::Way)) return;
    await_proof();
    is_changing_way_ = true;
}

// With RESP2 each reply has waited for its own proof.
void Ledger::leave_database_or_protocol() {
    if (client_.protocol == Protocol::Resp3) change_way();
}

void Ledger::await_proof() {
    ++proofs_awaited_;
    is_changing_way_ = false;
    owner_.on_ledger_waits();
    context_.node.coherence().proofs().prove(*this);
}

void Ledger::on_proven() {
    NEARKEY_CHECK(proofs_awaited_ > 0);
    ++proofs_had_;
    size_t stored = 0;
    for (; stored < late_fills_.size() && late_fills_[stored].proof == proofs_had_; ++stored) {
        const LateFill& late = late_fills_[stored];
        late_bytes_ -= late.reply.size();
        context_.cache->commit(late.fill, late.reply, late.deadline_ms, Loop::boot_ms());
    }
    late_fills_.erase(late_fills_.begin(), late_fills_.begin() + static_cast<ptrdiff_t>(stored));
    if (--proofs_awaited_ > 0) return;
    is_changing_way_ = false;
    if (awaited_fill_ == 0) owner_.on_ledger_open();
    owner_.on_replies_proven();
}

// --- memory ---

size_t Ledger::record_bytes() {
    return fills_.trimmed_bytes() + writes_.trimmed_bytes() + unstored_reads_.trimmed_bytes() +
           writes_.size() * kWriteBytes;
}

size_t Ledger::write_bytes() const {
    size_t bytes = 0;
    for (size_t i = 0; i < writes_.size(); ++i) {
        if (writes_[i].write == nullptr) continue;
        bytes += heap_bytes(writes_[i].write->first);
    }
    return bytes;
}

void Ledger::shrink() {
    fills_.shrink();
    writes_.shrink();
    unstored_reads_.shrink();
    late_fills_.shrink_to_fit();
}

}  // namespace nearkey
