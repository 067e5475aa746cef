#include "nearkey/session/conversation.h"

#include "nearkey/base/check.h"
#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/cluster_face.h"
#include "nearkey/session/connection_answers.h"

#include <memory>
#include <optional>
#include <utility>

namespace nearkey {

namespace {
// Somebody makes a browser or another program speak HTTP to us.
void close_as_attack(Desk& desk) {
    ++desk.context.metrics.security_closes_total;
    desk.warn("possible_attack", "POST or Host: instead of a command; client closed");
    desk.end();
}

// So many commands behind a reply as large as kLarge go over a lease, for likely the client gets
// another such reply.
constexpr uint32_t kLeasedAfterLarge = 32;

// The credentials in AUTH [user] password and HELLO version ... AUTH user password ...
std::optional<UpstreamCredentials> find_credentials(const CommandView& command) {
    if (equals_ignoring_case(command[0], "AUTH")) {
        if (command.size() == 2) return UpstreamCredentials{"default", command[1]};
        return UpstreamCredentials{command[1], command[2]};
    }
    if (!equals_ignoring_case(command[0], "HELLO")) return std::nullopt;
    for (size_t i = 2; i + 2 < command.size(); ++i) {
        if (equals_ignoring_case(command[i], "AUTH")) {
            return UpstreamCredentials{command[i + 1], command[i + 2]};
        }
        ++i;  // what SETNAME says
    }
    return std::nullopt;
}
// A subscriber of a cluster leaves all first.
Executed reset(const Call& call, OwnAnswers own_answers, std::unique_ptr<FanIn>& fan_in) {
    if (fan_in != nullptr) {
        if (const auto executed = fan_in->leave_all()) return *executed;
    }
    const Executed executed = own_answers.execute(call);
    if (executed == Executed::Yes) fan_in.reset();
    return executed;
}
}  // namespace

Conversation::Conversation(Desk& desk, Input& input)
    : desk_(desk), input_(input), lease_(desk, transaction_, *this, *this), shared_(desk, lease_) {
}

Conversation::~Conversation() {
    NEARKEY_CHECK(shared_.connection() == nullptr && !lease_);
}

// --- commands ---

Plan Conversation::plan_unusual(const CommandSpec* spec, const CommandView& command) const {
    const bool in_transaction = transaction_.is_open();
    const Node& node = desk_.context.node;
    const auto* const told_prefixes =
        desk_.ledger.is_off() ? nullptr : desk_.context.node.coherence().sources().told_prefixes();
    const PlanFacts facts{.commands = node.catalog().commands(),
                          .access = desk_.terms.access,
                          .caching = desk_.ledger.caching(),
                          .told_prefixes = told_prefixes,
                          .in_tunnel = tunnel_ != nullptr,
                          .in_transaction = in_transaction,
                          .in_multi = in_transaction && transaction_.may_be_in_multi(),
                          .owes_multi = transaction_.is_owed(),
                          .after_large = leased_commands_left_ > 0,
                          .has_written = desk_.client.has_written,
                          .input_over = desk_.is_input_over(),
                          .is_let_in = is_let_in_,
                          .hearing = fan_in_ == nullptr ? Hearing::Nothing : fan_in_->hearing()};
    const Plan plan = plan_rest(spec, command, facts);
    return plan.hides_secrets ? plan_without_secrets(plan, node, command, facts) : plan;
}

Executed Conversation::execute(const Call& call, std::string_view rest) {
    const Plan& plan = call.plan;
    if (plan.spec == nullptr && tunnel_ == nullptr) desk_.context.node.refresh_commands();
    // In a transaction and in a tunnel it is refused, or the server's to answer.
    if (desk_.terms.face == Face::Cluster && tunnel_ == nullptr && !transaction_.is_open() &&
        is_answered_by_face(call)) {
        return desk_.answer_as_cluster(call);
    }
    if (desk_.context.cluster != nullptr &&
        is_for_one_server(call, transaction_.is_open(), desk_.context.ledgers.keys)) {
        return ConnectionAnswers(desk_, lease_, transaction_, transaction_route(), own_answers())
            .execute(call);
    }
    if (desk_.context.cluster != nullptr && !transaction_.is_open() && NodesInTurn::takes(call)) {
        if (in_turn_ == nullptr) in_turn_ = std::make_unique<NodesInTurn>(desk_, lease_);
        return in_turn_->forward(call);
    }
    if (plan.before == Before::Multi) {
        if (const auto executed = transaction_route().begin_owed(call)) return *executed;
    }
    switch (plan.way) {
        case Way::Shared:
            return shared_.forward(call);
        case Way::Apart:
            return lease_route().forward_apart(call, shared_, input_);
        case Way::Lease:
            return plan.hides_secrets ? forward_config_get(call)
                                      : lease_route().forward(call, plan.kind);
        case Way::Script:
            return lease_route().forward_script(call);
        case Way::Unproven:
            return lease_route().forward_unproven(call);
        case Way::Wait:
            return lease_route().forward_wait(call);
        case Way::Whole: {
            const auto executed = transaction_route().forward_whole(call, rest, shared_, input_);
            return executed ? *executed : transaction_route().forward_step(call);
        }
        case Way::Step:
            return transaction_route().forward_step(call);
        case Way::Tunnel:
            return enter_tunnel(call);
        case Way::PassThrough:
            return fan_in_ != nullptr ? fan_in_->execute(call) : pass_through(call);
        case Way::Local:
            if (call.special() == Special::Nearkey)
                return NearkeyCommand(desk_, *this).execute(call);
            if (call.special() == Special::Reset) return reset(call, own_answers(), fan_in_);
            return own_answers().execute(call);
        case Way::Refused:
        case Way::StandIn:
            return refuse(call);
        case Way::Close:
            close_as_attack(desk_);
            break;
    }
    return Executed::Yes;
}

void Conversation::note_wait(const CommandView& command, Executed executed) {
    if (executed == Executed::NotYet) {
        // One that only waits for its turn has begun nothing.
        const bool has_begun = desk_.pauses.any_of(PauseReason::kLease);
        is_let_in_ = is_let_in_ || (has_begun && !plan_of(command).is_refused());
        return;
    }
    is_let_in_ = false;
    // A tunnel that waits does so for itself.
    if (tunnel_ != nullptr || desk_.has_ended()) return;
    if (fan_in_ != nullptr) fan_in_->forget_waiting();
    if (in_turn_ != nullptr) in_turn_->forget_waiting();
    shared_.forget_waiting();
    lease_.forget_waiting();
    if (lease_ && desk_.owed() == 0 && !transaction_.is_open()) lease_.end();
}

Executed Conversation::read_at_server(const Call& call, std::string_view rest) {
    const Executed executed = execute(call, rest);
    if (executed == Executed::Yes) desk_.ledger.forget_awaited();
    return executed;
}

Executed Conversation::forward_config_get(const Call& call) {
    const std::string instead = without_secrets(desk_.context.node, call.command);
    if (instead.empty()) return lease_route().forward(call, call.plan.kind);
    CommandParser parser(static_cast<int64_t>(instead.size()));
    const ParseResult parsed = parser.next(instead);
    NEARKEY_CHECK(parsed == ParseResult::Command);
    return lease_route().forward({call.plan, parser.command()}, call.plan.kind);
}

Executed Conversation::refuse(const Call& call) {
    if (tunnel_ != nullptr) {
        desk_.count_forwarded(call.spec());
        ++desk_.context.metrics.commands_refused_total;
        desk_.tally.count_error(call.spec(), refusal_of(desk_.context.node, call));
        tunnel_->send_stand_in(stand_in_for(call));
        return Executed::Yes;
    }
    if (call.plan.way == Way::StandIn) return transaction_route().forward_refused(call);
    const bool is_by_rule = call.plan.why == Why::Rule || call.plan.why == Why::Secrets;
    if (is_by_rule) ++desk_.context.metrics.commands_refused_total;
    desk_.answer_error(call.spec(), refusal_of(desk_.context.node, call));
    return Executed::Yes;
}

void Conversation::refuse_input() {
    const CommandParser& parser = input_.parser;
    ++desk_.context.metrics.protocol_errors_total;
    desk_.warn("protocol_error", parser.error());
    if (tunnel_ == nullptr) {
        desk_.answer_error(nullptr, parser.error());
    } else {
        tunnel_->refuse_input(parser.counterpart());
    }
    desk_.stop_input();
}

// --- replies ---

void Conversation::on_reply(uint32_t ticket) {
    Output& output = desk_.output;
    const bool is_followed = kept_.followed != nullptr && kept_.followed->has_sent(ticket);
    if (desk_.context.cluster != nullptr && lease_ && output.is_error() && !is_followed) {
        transaction_route().reword_redirect(ticket);
    }
    if (output.reply_size() >= kLarge) {
        leased_commands_left_ = kLeasedAfterLarge;
        prefetch_lease();
    } else if (leased_commands_left_ > 0) {
        --leased_commands_left_;
    }
    if (transaction_.is_step(ticket)) transaction_route().finish_step();
    desk_.ledger.end(ticket, output.whole_reply());
    if (shared_.is_selecting()) own_answers().on_selected();
    lease_.note_reply(output.is_error());
}

std::string Conversation::fail(uint32_t ticket, std::string_view error) {
    if (transaction_.is_open()) return transaction_route().fail(ticket, error);
    std::string reply;
    append_error(reply, error);
    return reply;
}

void Conversation::on_failed(std::string_view error) {
    if (shared_.is_selecting()) own_answers().on_select_failed(error);
}

void Conversation::on_held_up() {
    if (lease_ || lease_.preparation().state != Lease::Preparation::State::None) return;
    shared_.pass_held_up(desk_.receiver());
}

// --- the lease ---

bool Conversation::on_lease_settled(bool is_refused) {
    if (tunnel_ != nullptr) return tunnel_->on_lease_settled(is_refused);
    if (kept_.blocked != nullptr && kept_.blocked->on_lease_settled(is_refused)) return true;
    return kept_.followed != nullptr && kept_.followed->on_lease_settled(is_refused);
}

void Conversation::on_prepared() {
    if (desk_.is_over()) return;
    if (tunnel_ == nullptr) {
        desk_.pauses.unpause(PauseReason::kLease);
        return;
    }
    tunnel_->on_prepared();
    check_tunnel();
}

void Conversation::forget_replies(Connection& connection) {
    connection.forget(desk_.receiver());
    if (kept_.blocked != nullptr) connection.forget(*kept_.blocked);
    if (kept_.followed != nullptr) kept_.followed->forget_replies(connection);
}

// Commands in flight have been answered with an error.
void Conversation::on_connection_lost() {
    if (desk_.has_ended()) return;
    if (tunnel_ != nullptr && desk_.context.node.target().has_sentinels() && tunnel_->may_move() &&
        !tunnel_->is_reading_paused()) {
        tunnel_->move();
        check_tunnel();
        return;
    }
    if (tunnel_ != nullptr) {
        end_tunnel();
    } else if (transaction_.is_open()) {
        transaction_route().lose();
        // What is asked or waited for on it is for nobody any more.
        const Lease::Preparation asked = lease_.take_preparation();
        if (asked.state == Lease::Preparation::State::Pending)
            desk_.pauses.unpause(PauseReason::kLease);
    }
    lease_.void_preparation();
    const bool is_asked = lease_.preparation().state != Lease::Preparation::State::None;
    if (desk_.owed() == 0 && !is_asked) lease_.end();
    desk_.flush_soon();
}

// --- at another server ---

void Conversation::on_failover() {
    if (desk_.has_ended()) return;
    if (tunnel_ != nullptr) {
        if (!tunnel_->may_move()) return;
        tunnel_->move();
        check_tunnel();
    } else if (kept_.blocked != nullptr) {
        kept_.blocked->on_failover();
    }
}

void Conversation::on_tunnel_wait_over() {
    if (desk_.is_over() || tunnel_ == nullptr) return;
    tunnel_->go_on();
    check_tunnel();
}

// --- tunnels ---

Executed Conversation::enter_tunnel(const Call& call) {
    if (desk_.context.cluster != nullptr) {
        if (fan_in_ == nullptr) fan_in_ = std::make_unique<FanIn>(desk_);
        return fan_in_->execute(call);
    }
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (const auto executed = lease_.take(call)) return *executed;
    using State = Lease::Preparation::State;
    const Lease::Preparation& asked = lease_.preparation();
    if (call.plan.before == Before::Mark && asked.state == State::None) {
        lease_->send({LeaseRoute::kMark, &desk_.context.node.discard(), 0, RequestKind::Write});
    }
    // Valkey swallows the error of an AUTH that is pipelined (addAuthErrReply in networking.c), so
    // nothing of ours may be in flight before the client's command.
    const bool is_proven =
        lease_->is_ready() && lease_->pipeline().is_idle() && !lease_->pipeline().is_held_back();
    const bool is_unauthorized = asked.state == State::Done && asked.has_failed &&
                                 lease_->dialer().is_unauthorized() && !lease_.is_spoilt();
    const auto credentials = is_unauthorized ? find_credentials(call.command) : std::nullopt;
    if (credentials) {
        // Valkey refuses nearkey's own password, and the client is just saying one. A connection is
        // set up with that; if it is refused as well, its words are those that the client would
        // have got.
        lease_.end();
        static_cast<void>(lease_.take_preparation());
        if (!lease_.take_as(*credentials)) return Executed::NotYet;
    }
    const bool needs_no_auth = call.spec()->needs_no_auth;
    const auto when = needs_no_auth ? WhenRefused::WaitOrTell : WhenRefused::Fail;
    if (const auto executed = lease_.prove(call, is_proven, when)) {
        // The server does not know of the command, and would run EXEC without it.
        const bool is_lost = *executed == Executed::Yes && transaction_.may_be_in_multi();
        if (is_lost) transaction_route().lose();
        return *executed;
    }
    shared_.leave(desk_.receiver());
    std::unique_ptr<Subscriptions> subscriptions;
    if (!transaction_.is_open() && Subscriptions::is_about(call.spec())) {
        subscriptions = std::make_unique<Subscriptions>();
    }
    transaction_.leave();  // The server knows.
    TunnelEvents& events = *this;
    tunnel_ = std::make_unique<Tunnel>(desk_, lease_, events, std::move(subscriptions));
    return pass_through(call);
}

Executed Conversation::pass_through(const Call& call) {
    tunnel_->send(call, call.plan.hides_secrets ? without_secrets(desk_.context.node, call.command)
                                                : std::string());
    return Executed::Yes;
}

void Conversation::on_tunnel_bytes(std::string_view bytes) {
    if (desk_.has_ended()) return;
    tunnel_->on_bytes(bytes);
    check_tunnel();
    if (tunnel_ == nullptr) return;
    tunnel_->update_reading();
    desk_.account();
}

void Conversation::check_tunnel() {
    if (!tunnel_->has_failed_to_move()) return;
    end_tunnel();
    desk_.flush_soon();
}

void Conversation::end_tunnel() {
    const Tunnel::End end = tunnel_->end();
    leave_tunnel();
    if (end == Tunnel::End::Reset) {
        desk_.ledger.change_way();
        own_answers().forget_state();
        desk_.pauses.unpause(PauseReason::kLease | PauseReason::kServer);
        return;
    }
    desk_.stop_input();
    desk_.pauses.end_all();
    if (end == Tunnel::End::Stuck) desk_.end();
}

void Conversation::leave_tunnel() {
    tunnel_.reset();
    lease_.spoil();
    lease_.end();
}

// A client that only sends no more still reads. One that is gone must not stay blocked there.
void Conversation::on_client_left() {
    if (tunnel_ != nullptr && tunnel_->is_left_to_server()) lease_->tunnel().finish_when_silent();
}

void Conversation::end() {
    lease_.stop_waiting();
    if (tunnel_ != nullptr) leave_tunnel();
    if (fan_in_ != nullptr) fan_in_->close();
    if (kept_.followed != nullptr) kept_.followed->close();
    lease_.end();
    shared_.leave(desk_.receiver());
}

// --- facts ---

std::string_view Conversation::route() const {
    if (tunnel_ != nullptr) return "tunnel";
    if (fan_in_ != nullptr) return "feeds";
    if (transaction_.is_open()) return "transaction";
    if (lease_) return "leased";
    return shared_.connection() != nullptr ? "shared" : "none";
}

size_t Conversation::lease_bytes() const {
    const Connection* const connection = lease_.connection();
    return connection == nullptr ? 0
                                 : connection->pipeline().memory_bytes() +
                                       connection->pipeline().owed() * MemoryBudget::kRequestBytes;
}

}  // namespace nearkey
