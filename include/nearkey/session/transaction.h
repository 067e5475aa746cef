// The state of a session's transaction, as far as the replies have told: before the reply to a step
// only the possible states are known. Owned by Conversation, and as new when it is over.
//
//   none ──MULTI──▶ queuing ──EXEC, DISCARD──▶ none        WATCH before it: watching, until then
//          MULTI, while the server is busy ──▶ owed: the client was told that it is in MULTI, the
//                                              server is to be told with its next command
#pragma once

#include "nearkey/base/ring.h"
#include "nearkey/resp/command_table.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

class Transaction {
public:
    // Anything is open, or may be soon.
    bool is_open() const { return is_queuing_ || is_watching_ || !steps_.empty(); }
    // The same, and the server knows of it, as far as it was told.
    bool is_at_server() const { return is_open() && !is_owed_; }
    // True if a command sent now may be queued, as far as is known.
    bool may_be_in_multi() const;
    // True if, by the replies so far, nothing would be lost.
    bool has_nothing() const { return !is_queuing_ && !is_watching_; }

    // A command whose reply says how the transaction stands.
    void begin_step(uint32_t ticket, Special what) { steps_.push_back({ticket, what}); }
    bool is_step(uint32_t ticket) const { return !steps_.empty() && steps_[0].ticket == ticket; }
    Special step() const { return steps_[0].what; }
    void drop_step() { steps_.pop_front(); }
    // Its reply is whole; `reply` is empty where it could not be kept.
    void finish_step(std::string_view reply, bool is_error);

    // The server does not know of MULTI yet.
    bool is_owed() const { return is_owed_; }
    bool is_spoilt() const { return is_spoilt_; }
    void owe() { is_queuing_ = is_owed_ = true; }
    // Something of it was refused: EXEC must fail.
    void spoil() { is_spoilt_ = true; }
    // Commands, canonical RESP, that the client was told are queued, and which follow MULTI. False:
    // there is no room for more.
    bool keep(std::string_view command, Route route, Special special);
    // What they leave behind at a connection, in the words of Lease.
    bool keeps_scripts() const { return keeps_scripts_; }
    bool keeps_unproven() const { return keeps_unproven_; }
    const std::string& kept() const { return kept_; }
    uint32_t kept_commands() const { return kept_commands_; }
    // No more can be kept: the next command goes to a node, and MULTI with it.
    void tie() { is_tied_ = true; }
    bool is_tied() const { return is_tied_; }
    // The server knows of MULTI now.
    void settle() {
        is_owed_ = is_spoilt_ = is_tied_ = false;
        kept_.clear();
        kept_commands_ = 0;
        keeps_scripts_ = keeps_unproven_ = false;
    }

    // It is over, but for steps whose replies are still to come.
    void leave() {
        is_queuing_ = is_watching_ = false;
        settle();
    }
    // It is over, and no reply to a step counts any more.
    void lose();

    size_t record_bytes() { return steps_.trimmed_bytes() + kept_.capacity(); }
    size_t capacity() const { return steps_.capacity(); }
    bool has_steps() const { return !steps_.empty(); }
    void shrink() { steps_.shrink(); }

private:
    struct Step {
        uint32_t ticket;
        Special what;
    };

    Ring<Step> steps_;  // in flight, in order
    bool is_queuing_ = false;
    bool is_watching_ = false;
    bool is_owed_ = false;
    bool is_spoilt_ = false;
    bool is_tied_ = false;
    std::string kept_;
    uint32_t kept_commands_ = 0;
    bool keeps_scripts_ = false;
    bool keeps_unproven_ = false;
};

}  // namespace nearkey
