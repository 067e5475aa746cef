// Commands over a lease that a node of a cluster did not run, and that go on at the one that does.
// A script that has run may say a node's words, too: so the node is asked about the same keys
// (EXISTS), and what it says then is followed, not the first words.
//
//   in flight ──MOVED, ASK, TRYAGAIN ...──▶ parked ──the others are answered──▶ the node is asked
//       ▲                                                 it says so, too │      │ it has the keys
//       └──── one after the other, over a lease of that node ◀────┘      └▶ the words are its reply
//
// A script that a node was never told (NOSCRIPT) is told it there, and goes on.
// Owned by Conversation from the first such command on; kept, since connections may still name it.
// The one rule: a command is sent again only if the node has refused its keys, asked by us.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/primary_wait.h"
#include "nearkey/upstream/own_question.h"

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

namespace nearkey {

class FollowedCommands final : public ReplyReceiver {
public:
    FollowedCommands(Desk& desk, Lease& lease);

    // REQUIRES: no transaction.
    static bool takes(const Call& call) {
        return call.is_sound() && !call.spec()->key_specs.empty();
    }
    // REQUIRES: takes(), and a lease.
    void send(const Call& call, RequestKind kind);

    bool on_lease_settled(bool is_refused) { return wait_.on_lease_settled(is_refused); }
    // True of those that were sent since nothing was in flight.
    bool has_sent(uint32_t ticket) const { return ticket - first_sent_ < sent_; }
    void forget_replies(Connection& connection);
    void close();
    size_t memory_bytes() const {
        return parked_bytes_ + counts_.size() * sizeof(Counts::value_type);
    }

    // ReplyReceiver
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t ticket) override;
    void on_request_failed(uint32_t ticket, std::string_view error) override;
    bool counts_errors() const override { return true; }
    void on_slow_request(uint32_t ticket, const RequestTiming& timing, SlowEnd end) override {
        desk_.receiver().on_slow_request(ticket, timing, end);
    }

private:
    void go_on();
    enum class Verdict : uint8_t {
        None,
        Run,        // its node runs such commands, or could not be asked: the words are its reply
        Elsewhere,  // another node runs it
        Later,      // nobody runs it now
    };
    struct Parked {
        UnsentRequest request;
        std::string words;  // the reply, where it does not go on
        Verdict verdict = Verdict::None;
        bool is_asking = false;     // it goes behind ASKING
        bool was_late = false;      // its node could not run it yet
        bool lacks_script = false;  // its node does not know that, and is told
        uint16_t node = 0;
        int slot = -1;
    };
    struct Asker final : WholeReplyReceiver {
        explicit Asker(FollowedCommands& of) : owner(of) {}
        void on_whole_reply(uint32_t ticket, const std::string& reply) override {
            owner.on_answer(ticket, reply);
        }
        void on_no_reply(uint32_t) override { owner.on_no_answer(); }
        FollowedCommands& owner;
    };

    using Counts = std::deque<std::pair<uint32_t, CommandCount*>>;
    Counts::iterator find_count(uint32_t ticket);
    void count_error(uint32_t ticket, std::string_view error);
    void forget_count(uint32_t ticket);
    bool park(uint32_t ticket);
    std::string script_of(std::string_view bytes) const;
    void load(const Parked& parked);
    void ask_for_leave();
    std::string question_about(const Parked& parked) const;
    void follow();
    void on_answer(uint32_t ticket, const std::string& reply);
    void on_no_answer();
    void act();
    void go_to(uint16_t node, bool is_asking);
    void take_lease();
    bool is_overtaken() const;
    bool delay();
    void answer_first();
    void fail_first(std::string_view error);
    void give_up();
    Parked take_first();

    Desk& desk_;
    Lease& lease_;
    PrimaryWait wait_;
    Asker asker_;
    bool is_asking_ = false;  // what is sent again goes behind ASKING
    bool waits_for_lease_ = false;
    bool is_passing_ = false;  // the reply that is read goes on to the session
    uint32_t first_sent_ = 0;  // the tickets since nothing was owed
    uint32_t sent_ = 0;
    Counts counts_;  // of each that is not answered, by its ticket
    size_t in_flight_ = 0;
    size_t asked_ = 0;         // questions that are not answered
    std::string words_;        // the beginning of an error that may be a node's
    UnsentRequest refused_{};  // the command of these words
    std::deque<Parked> parked_;
    size_t parked_bytes_ = 0;
};

}  // namespace nearkey
