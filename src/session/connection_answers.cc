#include "nearkey/session/connection_answers.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/session/refusals.h"

#include <fmt/format.h>

#include <string>

namespace nearkey {

namespace {
constexpr std::string_view kOk = "+OK\r\n";

// A user whose password the command says, and who is not `user`; empty: there is none.
std::string_view find_other_user(const CommandView& command, std::string_view user) {
    if (equals_ignoring_case(command[0], "AUTH")) {
        if (command.size() > 3) return {};  // A syntax error.
        const std::string_view said = command.size() == 2 ? "default" : command[1];
        return said == user ? std::string_view() : said;
    }
    for (size_t i = 2; i + 1 < command.size(); i += 2) {
        if (!equals_ignoring_case(command[i], "AUTH")) continue;
        if (command[i + 1] != user) return command[i + 1];
        ++i;
    }
    return {};
}
}  // namespace

Executed ConnectionAnswers::execute(const Call& call) {
    if (transaction_.is_at_server()) {
        // There the server itself must refuse it, so that EXEC fails.
        if (transaction_.may_be_in_multi()) return route_.forward_refused(call);
        // The transaction may be over when what is owed is there.
        if (desk_.owed() > 0) return desk_.wait_until_idle();
    }
    if (transaction_.is_owed()) transaction_.spoil();
    if (transaction_.is_open() || call.plan.way != Way::Tunnel) return refuse(call);
    const std::string& name = call.spec()->name;
    if (name == "auth" || name == "hello") return authenticate(call);
    // No node is asked for more than it has, and none sends elsewhere.
    if (name == "readonly" || name == "readwrite" || name == "client|capa") {
        return answer(call, kOk);
    }
    if (name == "client|id") return answer(call, fmt::format(":{}\r\n", OwnAnswers::id_of(desk_)));
    if (name == "client|getredir") return answer(call, ":-1\r\n");
    // The connections are of all clients, and no server gives them up for one of these.
    if (name == "client|no-evict") return answer_switch(call, kOk, kOk);
    if (name == "client|no-touch") return answer_switch(call, {}, kOk);
    if (name == "client|tracking" && call.command.size() == 3) return answer_switch(call, {}, kOk);
    if (name == "client|reply" && equals_ignoring_case(call.command[2], "ON")) {
        return answer(call, kOk);
    }
    return refuse(call);
}

Executed ConnectionAnswers::authenticate(const Call& call) {
    const std::string user(desk_.context.node.target().user());
    const std::string_view other = find_other_user(call.command, user);
    if (!other.empty()) {
        desk_.answer_error(call.spec(),
                           fmt::format("ERR before a cluster all clients of nearkey are its user "
                                       "'{}'; they can't be '{}'",
                                       user, other));
        return Executed::Yes;
    }
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    if (const auto executed = lease_.take(call)) return *executed;
    if (!lease_.is_spoilt()) {
        // Valkey swallows the error of an AUTH that is pipelined (addAuthErrReply in networking.c).
        const bool is_proven = lease_->is_ready() && lease_->pipeline().is_idle() &&
                               !lease_->pipeline().is_held_back();
        if (const auto executed = lease_.prove(call, is_proven, WhenRefused::Fail)) {
            return *executed;
        }
        lease_.spoil();
        lease_.prepare(desk_.canonical(call.command), WhenRefused::Fail);
        return Executed::NotYet;
    }
    const Lease::Preparation done = lease_.take_preparation();
    lease_.end();
    if (!done.error.empty()) {
        desk_.answer_error(call.spec(), done.error);
        return Executed::Yes;
    }
    return call.special() == Special::Hello ? own_.hello(call) : answer(call, kOk);
}

Executed ConnectionAnswers::answer(const Call& call, std::string_view reply) {
    desk_.answer(call.spec(), reply);
    return Executed::Yes;
}

Executed ConnectionAnswers::answer_switch(const Call& call, std::string_view on,
                                          std::string_view off) {
    const bool is_on = equals_ignoring_case(call.command[2], "ON");
    if (!is_on && !equals_ignoring_case(call.command[2], "OFF")) {
        return answer(call, "-ERR syntax error\r\n");
    }
    const std::string_view reply = is_on ? on : off;
    return reply.empty() ? refuse(call) : answer(call, reply);
}

Executed ConnectionAnswers::refuse(const Call& call) {
    desk_.answer_error(
        call.spec(), cluster_refusal_of(call, transaction_.is_open(), desk_.context.ledgers.keys));
    return Executed::Yes;
}

}  // namespace nearkey
