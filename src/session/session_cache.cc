// What a session asks of the near cache, and tells it: reads that it may answer, reads whose
// replies may be stored, and every write, so that nobody on this host reads what was there before.
//
// A read that may be stored goes upstream behind a PTTL of its key. A change between the two, or
// after, is told of by Valkey, and the reply is not stored; so the deadline belongs to the reply.
#include "nearkey/session/session.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace nearkey {

namespace {

// The next command of the connection is not tracked.
constexpr std::string_view kUntracked = "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";

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
    const NearCache::Found found = context_.cache->find(query(command), context_.boot_ms);
    if (found.outcome == NearCache::Outcome::Hit && !may_be_overtaken(command[1])) {
        has_awaited_ = false;
        answer(found.reply);
        return Executed::Yes;
    }
    // Who is owed something would have to keep it back.
    if (found.outcome == NearCache::Outcome::Pending && owed() == 0 && !has_awaited_ &&
        context_.cache->wait(found.ticket, *this)) {
        awaited_fill_ = found.ticket;
        pause(kFill, nullptr);
        return Executed::NotYet;
    }
    if (command.raw().size() >= kLarge) return forward_large(command);
    const Executed executed = alone_ > 0 ? forward_alone(command, RequestKind::Write)
                                         : forward(command, RequestKind::Read);
    if (executed == Executed::Yes) has_awaited_ = false;
    return executed;
}

// Whether a reply that comes before may show a newer state of the key than what is stored now.
bool Session::may_be_overtaken(std::string_view key) const {
    if (owed() == 0) return false;
    return !unstored_reads_.empty() || (!fills_.empty() && context_.cache->is_being_read(key));
}

void Session::on_fill_closed() {
    awaited_fill_ = 0;
    has_awaited_ = true;
    if (proofs_awaited_ == 0) unpause(kFill);
}

bool Session::may_be_stored(const CommandView& command) const {
    return context_.monitors == 0 && spec_->is_cacheable(command) &&
           database_ <= std::numeric_limits<uint16_t>::max();
}

CacheQuery Session::query(const CommandView& command) {
    return {
        .key = command[1],
        .arguments = encode_tail(command, context_.arguments),
        .command = static_cast<uint8_t>(spec_->cache_number << 1 | (protocol_ == 3 ? 1 : 0)),
        .database = static_cast<uint16_t>(is_broken(Rule::Database) ? 0 : database_),
    };
}

// Before `command` goes over `connection`.
void Session::note(Connection& connection, const CommandView& command, uint32_t ticket) {
    if (spec_ != nullptr && !spec_->accepts(command.size())) return;
    if (spec_ != nullptr && spec_->is_readonly) {
        note_read(connection, command, ticket);
    } else {
        begin_writes(command, ticket);
    }
}

void Session::note_read(Connection& connection, const CommandView& command, uint32_t ticket) {
    const bool is_tracked =
        &connection == connection_ && connection.source() != NearCache::kNoSource;
    if (may_be_stored(command)) {
        const NearCache::Ticket fill = context_.cache->begin_fill(
            query(command), is_tracked ? connection.source() : NearCache::kNoSource);
        if (fill != 0) {
            fills_.push_back({ticket, fill, Loop::boot_ms(), PendingFill::kTtlUnknown});
            std::string& pttl = context_.arguments;
            pttl.clear();
            append_array_header(pttl, 2);
            append_bulk(pttl, "PTTL");
            append_bulk(pttl, command[1]);
            connection.send({pttl, &ttl_receiver_, ticket, RequestKind::Read});
            return;
        }
    }
    if (spec_->key_specs.empty()) return;
    if (may_be_in_multi()) {
        multi_reads_ = true;
        return;
    }
    unstored_reads_.push_back({ticket, may_be_newer(command)});
    if (is_tracked && context_.monitors == 0) {
        connection.send({kUntracked, &context_.pool.discard(), 0, RequestKind::Read});
    }
}

// Whether what the command will show may be newer than what is stored of the same keys.
bool Session::may_be_newer(const CommandView& command) {
    NearCache& cache = *context_.cache;
    if (cache.entries() == 0 || !context_.pool.may_overtake(protocol_)) return false;
    context_.keys.clear();
    if (!spec_->find_keys(command, context_.keys)) return true;
    return std::any_of(context_.keys.begin(), context_.keys.end(),
                       [&](std::string_view key) { return cache.holds(key); });
}

void Session::TtlReceiver::on_reply_bytes(uint32_t, std::string_view bytes) {
    bytes = bytes.substr(0, kReplyMax - size_);
    std::copy(bytes.begin(), bytes.end(), reply_ + size_);
    size_ += bytes.size();
}

void Session::TtlReceiver::on_reply_end(uint32_t ticket) {
    const std::string_view reply{reply_, std::exchange(size_, 0)};
    if (!reply.starts_with(':') || !reply.ends_with("\r\n")) return;
    const auto ttl = parse_integer(reply.substr(1, reply.size() - 3));
    for (size_t i = 0; ttl && i < session_.fills_.size(); ++i) {
        if (session_.fills_[i].ticket == ticket) session_.fills_[i].ttl_ms = *ttl;
    }
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
    end_fills(ticket, reply);
    end_writes(ticket);
}

// The read is answered; an empty `reply` is none that may be stored.
void Session::end_fills(uint32_t ticket, std::string_view reply) {
    bool is_alone = true;
    while (!fills_.empty() && fills_.front().ticket == ticket) {
        const PendingFill pending = fills_.front();
        fills_.pop_front();
        if (reply.empty() || pending.ttl_ms == PendingFill::kTtlUnknown) {
            is_alone &= context_.cache->abandon(pending.fill);
            continue;
        }
        const uint64_t deadline_ms = pending.ttl_ms < 0
                                         ? UINT64_MAX
                                         : pending.sent_ms + static_cast<uint64_t>(pending.ttl_ms);
        is_alone &= context_.cache->commit(pending.fill, reply, deadline_ms, Loop::boot_ms());
    }
    while (!unstored_reads_.empty() && unstored_reads_.front().ticket == ticket) {
        is_alone &= !unstored_reads_.front().is_held;
        unstored_reads_.pop_front();
    }
    if (!is_alone && context_.pool.may_overtake(protocol_)) await_proof();
}

// What was just read may be newer than something that is stored of the same key. The client, once
// it has seen it, must not be served that: so it sees it when the news of every change before it
// has come.
void Session::await_proof() {
    ++proofs_awaited_;
    pause(kFill, nullptr);
    context_.pool.prove(*this);
}

void Session::on_proven() {
    if (--proofs_awaited_ > 0) return;
    if (awaited_fill_ == 0) unpause(kFill);
    flush_hook_.defer();
}

// --- writes ---

void Session::begin_writes(const CommandView& command, uint32_t ticket) {
    const Special special = spec_ == nullptr ? Special::None : spec_->special;
    const bool is_exec = special == Special::Exec;
    if (special == Special::Discard) {
        multi_keys_.clear();
        are_multi_keys_known_ = true;
        multi_reads_ = false;
    }
    const bool is_queued = may_be_in_multi() && !is_exec;
    if (is_exec && std::exchange(multi_reads_, false)) unstored_reads_.push_back({ticket, true});
    if (is_broken(Rule::OwnWrite)) return;
    const WriteScope scope = spec_ == nullptr ? WriteScope::Everything : spec_->writes;
    context_.keys.clear();
    if (is_exec) {
        context_.are_keys_known = std::exchange(are_multi_keys_known_, true);
        context_.keys.assign(multi_keys_.begin(), multi_keys_.end());
    } else {
        if (scope == WriteScope::Nothing) return;
        context_.are_keys_known =
            scope == WriteScope::Keys && spec_->find_keys(command, context_.keys);
    }
    // If MULTI was refused it is not queued but run.
    begin_whole(ticket);
    if (is_exec) multi_keys_.clear();
    if (is_queued) queue_writes();
}

// EXEC will write the keys in context_.keys, too.
void Session::queue_writes() {
    are_multi_keys_known_ &=
        context_.are_keys_known && multi_keys_.size() + context_.keys.size() <= kMultiKeysMax;
    if (!are_multi_keys_known_) {
        multi_keys_.clear();
        return;
    }
    multi_keys_.insert(multi_keys_.end(), context_.keys.begin(), context_.keys.end());
}

// The keys in context_.keys, or all if they are not known.
void Session::begin_whole(uint32_t ticket) {
    NearCache& cache = *context_.cache;
    if (!context_.are_keys_known) {
        writes_.push_back({ticket, cache.begin_barrier(context_.boot_ms)});
        return;
    }
    for (const std::string_view key : context_.keys)
        writes_.push_back({ticket, cache.begin_write(key, context_.boot_ms)});
}

void Session::end_writes(uint32_t ticket) {
    while (!writes_.empty() && writes_.front().ticket == ticket) {
        context_.cache->end_write(writes_.front().write, Loop::boot_ms());
        writes_.pop_front();
    }
}

// A tunnel's replies are not read: what it writes is dropped once it has left, and from then on
// Valkey's word is waited for, as with a change from elsewhere.
void Session::note_through(const CommandSpec* spec, const CommandView& command) {
    if (spec != nullptr && (!spec->accepts(command.size()) || spec->is_readonly)) return;
    const WriteScope scope = spec == nullptr ? WriteScope::Everything : spec->writes;
    if (scope == WriteScope::Nothing) return;
    context_.keys.clear();
    if (scope == WriteScope::Everything || !spec->find_keys(command, context_.keys)) {
        context_.cache->clear(InvalidationCause::Barrier, context_.boot_ms);
        return;
    }
    for (const std::string_view key : context_.keys)
        context_.cache->invalidate(key, InvalidationCause::Write, context_.boot_ms);
}

// Nobody waits for what is in flight any more.
void Session::leave_cache() {
    if (context_.cache == nullptr) return;
    if (awaited_fill_ != 0) context_.cache->stop_waiting(awaited_fill_, *this);
    if (proofs_awaited_ > 0) context_.pool.stop_waiting(static_cast<ProofWaiter&>(*this));
    for (; !fills_.empty(); fills_.pop_front())
        context_.cache->abandon(fills_.front().fill);
    for (; !writes_.empty(); writes_.pop_front())
        context_.cache->end_write(writes_.front().write, Loop::boot_ms());
}

}  // namespace nearkey
