// What a session tells the near cache of writes, so that nobody on this host reads what was there
// before: their keys are invalidated before they are sent, and blocked until their reply.
#include "nearkey/session/session.h"

#include "nearkey/base/sabotage.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kMultiKeysMax = 1024;
constexpr size_t kMultiKeysBytesMax = size_t{256} << 10;
constexpr size_t kManyWrites = 64;
}  // namespace

void Session::begin_writes(const CommandView& command, uint32_t ticket) {
    const Special special = spec_ == nullptr ? Special::None : spec_->special;
    const bool is_exec = special == Special::Exec;
    if (special == Special::Discard) forget_queued();
    if (special == Special::Watch) multi_watches_ = true;
    const bool is_queued = may_be_in_multi() && !is_exec;
    if (is_exec) note_exec(ticket);
    if (is_broken(Rule::OwnWrite)) return;
    context_.scope = spec_ == nullptr ? WriteScope::Everything : spec_->writes;
    context_.keys.clear();
    if (is_exec) {
        context_.scope = std::exchange(multi_scope_, WriteScope::Keys);
        context_.keys.assign(multi_keys_.begin(), multi_keys_.end());
    } else if (context_.scope == WriteScope::Nothing) {
        return;
    } else if (context_.scope == WriteScope::Keys && !spec_->find_keys(command, context_.keys)) {
        context_.scope = WriteScope::Everything;
    }
    // If MULTI was refused it is not queued but run.
    begin_whole(ticket);
    if (is_exec) forget_queued();
    if (is_queued && !is_broken(Rule::QueuedWrite)) queue_writes();
}

// EXEC shows what was read, or, by a nil in place of all replies, that a watched key has changed.
void Session::note_exec(uint32_t ticket) {
    using What = UnstoredRead::What;
    const bool is_watched = std::exchange(multi_watches_, false);
    const bool reads = std::exchange(multi_reads_, false);
    if (is_watched || reads) {
        unstored_reads_.push_back({ticket, reads ? What::OtherRead : What::Watched, 0});
    }
}

void Session::forget_queued() {
    multi_keys_.clear();
    multi_keys_.shrink_to_fit();
    held_by_.multi_keys = 0;
    multi_scope_ = WriteScope::Keys;
    multi_reads_ = multi_watches_ = false;
}

// EXEC will write what context_.scope and keys say, too.
void Session::queue_writes() {
    for (const std::string_view key : context_.keys)
        held_by_.multi_keys += sizeof(std::string) + key.size();
    const bool fits = multi_keys_.size() + context_.keys.size() <= kMultiKeysMax &&
                      held_by_.multi_keys <= kMultiKeysBytesMax;
    multi_scope_ = std::max(multi_scope_, fits ? context_.scope : WriteScope::Everything);
    if (multi_scope_ == WriteScope::Everything) {
        multi_keys_.clear();
        held_by_.multi_keys = 0;
    } else {
        multi_keys_.insert(multi_keys_.end(), context_.keys.begin(), context_.keys.end());
    }
}

// A write of the keys in context_.keys, and of more if context_.scope says so.
void Session::begin_whole(uint32_t ticket) {
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
        if (!NearCache::may_hold(key)) continue;
        writes_.push_back({ticket, WriteScope::Keys, cache.begin_write(key, context_.boot_ms)});
    }
    if (context_.keys.size() > kManyWrites) account();
}

// True: what was written Valkey tells of, on the connections that read it. The client is to see the
// reply once that has come, so that nobody who has seen it is served what was there before.
bool Session::end_writes(uint32_t ticket) {
    bool has_told = false;
    while (!writes_.empty() && writes_.front().ticket == ticket)
        has_told |= end_write() == WriteScope::Told;
    return has_told;
}

WriteScope Session::end_write() {
    const PendingWrite pending = writes_.front();
    writes_.pop_front();
    if (pending.scope == WriteScope::Told) {
        --told_writes_;
    } else {
        context_.cache->end_write(pending.write);
    }
    return pending.scope;
}

// A tunnel's replies are not read: what it writes is dropped once it has left, and from then on
// Valkey's word is waited for, as with a change from elsewhere.
void Session::note_through(const CommandSpec* spec, const CommandView& command) {
    if (spec != nullptr && !spec->accepts(command.size())) return;
    const WriteScope scope = spec == nullptr ? WriteScope::Everything : spec->writes;
    if (scope == WriteScope::Nothing || scope == WriteScope::Told) return;
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
    if (awaited_fill_ != 0) context_.cache->stop_waiting(awaited_fill_, *this, context_.fill_loop);
    if (proofs_awaited_ > 0) context_.pool.stop_waiting(static_cast<ProofWaiter&>(*this));
    for (; !fills_.empty(); fills_.pop_front(), ++first_fill_)
        context_.cache->abandon(fills_.front().fill);
    for (const LateFill& late : late_fills_)
        context_.cache->abandon(late.fill);
    late_fills_.clear();
    late_bytes_ = 0;
    while (!writes_.empty())
        end_write();
}

}  // namespace nearkey
