// Sends each command of a client on its way and keeps the state that this leaves behind: plain, in
// a transaction, or in a tunnel. Owned by Session.
//
//   shared ──blocking, script──▶ lease ──answered──▶ shared
//          ──WATCH, MULTI──────▶ lease ──EXEC ...──▶ shared     lost: the client is closed
//          ──SUBSCRIBE, AUTH ...▶ tunnel ──RESET──▶ shared      bytes pass; its end is the client's
//
// In a cluster there are no tunnels: a subscriber has a FanIn until RESET, beside all other ways.
//
// One upstream connection is used at a time; another is turned to only when nothing is owed.
#pragma once

#include "nearkey/session/blocked_wait.h"
#include "nearkey/session/cached_reads.h"
#include "nearkey/session/desk.h"
#include "nearkey/session/fan_in.h"
#include "nearkey/session/input.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/lease_route.h"
#include "nearkey/session/nearkey_command.h"
#include "nearkey/session/nodes_in_turn.h"
#include "nearkey/session/own_answers.h"
#include "nearkey/session/refusals.h"
#include "nearkey/session/shared_route.h"
#include "nearkey/session/transaction.h"
#include "nearkey/session/transaction_route.h"
#include "nearkey/session/tunnel.h"

#include <memory>
#include <string>
#include <string_view>

namespace nearkey {

class Conversation final : private ConnectionOwner,
                           private Planner,
                           private LeaseEvents,
                           private TunnelEvents {
public:
    Conversation(Desk& desk, Input& input);
    ~Conversation();

    // `rest` is all input that is there, from the command on.
    Executed execute(const CommandView& command, std::string_view rest) {
        const Plan plan = plan_of(command);
        const Call call{plan, command};
        if (plan.may_be_stored()) {
            if (const auto executed = CachedReads(desk_, lease_).answer(call)) return *executed;
            return read_at_server(call, rest);
        }
        return plan.way == Way::Shared ? shared_.forward(call) : execute(call, rest);
    }
    // Of a command that waits: it must be tried again, or is over, which is answered or on its way.
    // Tables and rules may have changed meanwhile, so that it went another way than it began:
    // nothing of that way stays.
    void note_wait(const CommandView& command, Executed executed);
    // The input is not RESP.
    void refuse_input();
    // A large argument is coming: gets a lease ready for it.
    void prefetch_lease() { static_cast<void>(lease_.is_there_at_once()); }

    // The reply to the first ticket is whole, in the output.
    void on_reply(uint32_t ticket);
    // The client's answer in place of a reply that will not come.
    std::string fail(uint32_t ticket, std::string_view error);
    // The failure is in the output.
    void on_failed(std::string_view error);
    // Nothing is owed any more.
    void on_idle() {
        lease_.set_blocked(false);
        if (lease_ && !transaction_.is_open()) lease_.end();
    }
    void on_held_up();
    // The client has closed its sending half, or is gone.
    void on_client_left();
    void end();

    // Null: it has none.
    Tunnel* tunnel() const { return tunnel_.get(); }
    // Null: it is none.
    FanIn* fan_in() const { return fan_in_.get(); }
    // A blocking command is in flight.
    bool is_blocked() const { return lease_.is_blocked(); }
    // True if the client may leave before it is answered, which must be noticed.
    bool waits_at_server() const {
        return is_blocked() || (tunnel_ != nullptr && tunnel_->is_left_to_server());
    }
    // "none", "shared", "leased", "transaction", "feeds" or "tunnel".
    std::string_view route() const;
    // Bytes kept to go on at another server.
    size_t kept_bytes() const {
        return (kept_.blocked == nullptr ? 0 : kept_.blocked->memory_bytes()) +
               (kept_.followed == nullptr ? 0 : kept_.followed->memory_bytes()) +
               (tunnel_ == nullptr ? 0 : tunnel_->kept_bytes()) +
               (fan_in_ == nullptr ? 0 : fan_in_->memory_bytes());
    }
    // Bytes that its lease holds for it.
    size_t lease_bytes() const;
    bool has_lease() const { return static_cast<bool>(lease_); }
    Transaction& transaction() { return transaction_; }

private:
    // ConnectionOwner: of the lease
    void on_tunnel_bytes(std::string_view bytes) override;
    void on_tunnel_room() override { desk_.pauses.unpause(PauseReason::kServer); }
    void on_connection_lost() override;
    void on_failover() override;
    // LeaseEvents
    bool on_lease_settled(bool is_refused) override;
    void on_prepared() override;
    void forget_replies(Connection& connection) override;
    // TunnelEvents
    void on_tunnel_wait_over() override;

    // KnownFacts, of the next command: each is looked at when it is asked for.
    struct SessionFacts {
        const Conversation& of;

        bool is_plain() const {
            return of.tunnel_ == nullptr && of.fan_in_ == nullptr && !of.transaction_.is_open();
        }
        const CommandAccess& access() const { return of.desk_.terms.access; }
        bool after_large() const { return of.leased_commands_left_ > 0; }
        Caching caching() const { return of.desk_.ledger.caching(); }
        const std::vector<std::string>* told_prefixes() const {
            return of.desk_.context.node.coherence().sources().told_prefixes();
        }
        Plan plan_rest(const CommandSpec* spec, const CommandView& command) const {
            return of.plan_unusual(spec, command);
        }
    };

    Plan plan_unusual(const CommandSpec* spec, const CommandView& command) const;
    [[gnu::always_inline]] Plan plan_of(const CommandView& command) const {
        const CommandSpec* const spec = desk_.context.node.catalog().commands().find(command);
        return plan_with(spec, command, SessionFacts{*this});
    }
    Plan plan_for(const CommandView& command) const override { return plan_of(command); }
    Executed execute(const Call& call, std::string_view rest);
    Executed read_at_server(const Call& call, std::string_view rest);
    Executed forward_config_get(const Call& call);
    Executed refuse(const Call& call);
    Executed enter_tunnel(const Call& call);
    Executed pass_through(const Call& call);
    void check_tunnel();
    void end_tunnel();
    void leave_tunnel();

    // The ways, each made for one command.
    LeaseRoute lease_route() { return {desk_, lease_, transaction_, kept_}; }
    TransactionRoute transaction_route() { return {desk_, lease_, transaction_}; }
    OwnAnswers own_answers() { return {desk_, lease_, shared_, transaction_}; }

    Desk& desk_;
    Input& input_;
    Transaction transaction_;
    Lease lease_;
    SharedRoute shared_;
    std::unique_ptr<Tunnel> tunnel_;
    std::unique_ptr<FanIn> fan_in_;  // from the first SUBSCRIBE or MONITOR before a cluster
    LeaseRoute::Kept kept_;
    std::unique_ptr<NodesInTurn> in_turn_;  // from the first such command on
    uint32_t leased_commands_left_ = 0;     // commands that take a lease behind a large reply
    // The next command has begun, and waits for connections or nodes: it keeps its rules' verdict.
    bool is_let_in_ = false;
};

}  // namespace nearkey
