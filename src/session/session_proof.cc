// What a client has seen must not be followed by what is older, though replies and the news of
// changes come over several connections.
//
// A reply may overtake the news of what it shows, on its way over another connection than that
// news. Then something older of the same key may still be stored, or is just being read:
//   - Its client sees the reply when a proof has come: all that was changed before is known, and
//     whatever was older is gone.
//   - Nobody else sees it sooner either: it is stored at the same time. Else another client could
//   be
//     served the new reply, and next the old one, of another command.
// What is stored or being read counts when the reply comes, not when its read was sent: an older
// read may have begun, and been stored, in between.
#include "nearkey/session/session.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"

namespace nearkey {

namespace {
// What reads more keys than this counts as reading any.
constexpr size_t kMarksMax = 16;

bool is_null(std::string_view reply) {
    return reply == "*-1\r\n" || reply == "_\r\n";
}
}  // namespace

void Session::note_unstored(const Connection& connection, const CommandView& command,
                            uint32_t ticket) {
    context_.keys.clear();
    if (!spec_->find_keys(command, context_.keys)) context_.keys.clear();
    mark_unstored(connection, ticket);
}

// Of context_.keys; none: they are not known. What is stored of them when the reply comes counts,
// not what is now: an older read of another connection may be stored meanwhile.
void Session::mark_unstored(const Connection& connection, uint32_t ticket) {
    using What = UnstoredRead::What;
    const bool is_shared = &connection == connection_;
    if (!is_shared && is_broken(Rule::OtherConnection)) return;
    const bool is_known = !context_.keys.empty() && context_.keys.size() <= kMarksMax;
    if (!is_known || (is_shared && !context_.pool.may_overtake(protocol_))) {
        unstored_reads_.push_back({ticket, is_shared ? What::SharedRead : What::OtherRead, 0});
        return;
    }
    for (const std::string_view key : context_.keys)
        unstored_reads_.push_back({ticket, What::Key, context_.cache->mark_of(key)});
}

// True: something that is stored of the same keys, or may soon be, may be older than what the reply
// shows. A shared connection's reply stands behind the news, unless there are others of its kind; a
// lease's overtakes them.
bool Session::end_unstored(uint32_t ticket, std::string_view reply) {
    bool is_ahead = false;
    while (!unstored_reads_.empty() && unstored_reads_.front().ticket == ticket) {
        const UnstoredRead read = unstored_reads_.front();
        unstored_reads_.pop_front();
        switch (read.what) {
            case UnstoredRead::What::Key:
                is_ahead = is_ahead || context_.cache->holds(read.key);
                break;
            case UnstoredRead::What::SharedRead:
                is_ahead = is_ahead || context_.pool.may_overtake(protocol_);
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

// At once if nothing older is stored of the key; else when the proof has come that tell_cache() is
// going to ask for.
void Session::store(NearCache::Ticket fill, std::string_view reply, uint64_t deadline_ms) {
    NearCache& cache = *context_.cache;
    const bool is_late = cache.is_open(fill) && !cache.is_alone(fill) &&
                         context_.pool.may_overtake(protocol_) &&
                         reply.size() <= cache.options().value_max;
    if (is_late) {
        late_bytes_ += reply.size();
        late_fills_.push_back(
            {proofs_had_ + proofs_awaited_ + 1, fill, deadline_ms, std::string(reply)});
    } else {
        cache.commit(fill, reply, deadline_ms, Loop::boot_ms());
    }
}

// The client goes on by another way (docs/near_cache.md lists them all). What it is served there
// may be older than what it was shown so far: a RESP3 connection's replies stand behind the news of
// what was read over that connection alone, and a tunnel's behind none. So nothing that it sends
// next is run before a proof; what it is owed, and the answer to the change itself, leave at once.
void Session::change_way() {
    if (context_.cache == nullptr || commands_ == commands_unseen_) return;
    commands_unseen_ = commands_;
    if (context_.cache->is_idle() || is_broken(Rule::Way)) return;
    await_proof();
    is_changing_way_ = true;
}

// With RESP2 each reply has waited for its own proof.
void Session::leave_database_or_protocol() {
    if (protocol_ == 3) change_way();
}

void Session::await_proof() {
    ++proofs_awaited_;
    is_changing_way_ = false;
    pause(kFill, nullptr);
    context_.pool.prove(*this);
}

void Session::on_proven() {
    CHECK(proofs_awaited_ > 0);
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
    if (awaited_fill_ == 0) unpause(kFill);
    flush_hook_.defer();
}

}  // namespace nearkey
