#include "nearkey/session/refusals.h"

#include "nearkey/base/check.h"
#include "nearkey/dispatch/placement.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/session/config_get.h"
#include "nearkey/session/subscriptions.h"
#include "nearkey/upstream/handshake.h"

#include <fmt/format.h>

namespace nearkey {

namespace {
constexpr std::string_view kStandIn = "nearkey:refused:";
// Behind it, before the name, if it is for what the command would ask, and not for a rule.
constexpr char kForNodes = '/';
// The words before the name in Valkey's error, with a quote behind it.
constexpr std::string_view kUnknown = "-ERR unknown command ";
constexpr size_t kNameMax = 64;
constexpr std::string_view kExecAbort = "EXECABORT Transaction discarded because of:";

// A client may call a command anything; the error shows a plain word.
std::string name_of(const Call& call) {
    std::string name(call.spec() != nullptr ? std::string_view(call.spec()->name)
                                            : call.command[0].substr(0, kNameMax));
    for (char& c : name)
        c = c > ' ' && c < 127 && c != '\'' && c != '`' ? c : '?';
    return name;
}

// Why a command is refused before a cluster.
enum class Unplaced : char {
    OneServer = '1',
    EveryNode = '2',
    InTransaction = '3',  // every node, which is asked elsewhere
    NoCluster = '4',
};

Unplaced why_unplaced(const Call& call, bool in_transaction, std::vector<std::string_view>& keys) {
    using Where = Placement::Where;
    const Placement placement = place(call.spec(), call.command, keys);
    if (placement.where == Where::Nowhere) return Unplaced::NoCluster;
    if (placement.where != Where::EveryNode) return Unplaced::OneServer;
    const bool is_known = call.spec()->spread != Spread::Nowhere;
    return is_known && in_transaction ? Unplaced::InTransaction : Unplaced::EveryNode;
}

std::string words_of(Unplaced why, std::string_view name) {
    if (why == Unplaced::NoCluster) return "ERR This instance has cluster support disabled";
    if (why == Unplaced::OneServer) {
        return fmt::format(
            "ERR {} needs a connection to one server, which nearkey can't give "
            "before a cluster",
            name);
    }
    return fmt::format(
        "ERR {} would have to ask every node of the cluster, which nearkey can't do {}", name,
        why == Unplaced::InTransaction ? "in a transaction" : "yet");
}

// The refusal in the server's own words, with the user's name.
std::string refusal(const Node& node, std::string_view name) {
    const std::string who = is_redis_7_0(node.catalog().hello())
                                ? "this user"
                                : fmt::format("User {}", node.target().user());
    return fmt::format("NOPERM {} has no permissions to run the '{}' command", who, name);
}

}  // namespace

std::string refusal_of(const Node& node, const Call& call) {
    if (call.plan.why == Why::Subscriber) {
        const bool is_exec = call.special() == Special::Exec;
        return fmt::format(
            "{} Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / "
            "QUIT / RESET are allowed in this context",
            is_exec ? kExecAbort : "ERR", call.spec()->name);
    }
    if (call.plan.why == Why::Monitor) return "ERR Replica can't interact with the keyspace";
    return call.special() == Special::Exec ? exec_refusal(node) : refusal(node, name_of(call));
}

std::string exec_refusal(const Node& node) {
    return fmt::format("{} {}", kExecAbort, refusal(node, "exec"));
}

std::string cluster_refusal_of(const Call& call, bool in_transaction,
                               std::vector<std::string_view>& keys) {
    return words_of(why_unplaced(call, in_transaction, keys), call.spec()->name);
}

std::string stand_in_for(const Call& call) {
    std::string why;
    if (!call.plan.is_refused()) {
        std::vector<std::string_view> keys;
        why = {kForNodes, static_cast<char>(why_unplaced(call, true, keys))};
    }
    std::string bytes;
    append_array_header(bytes, 1);
    append_bulk(bytes, fmt::format("{}{}{}", kStandIn, why, name_of(call)));
    return bytes;
}

std::string in_words_of_refusal(const Node& node, std::string_view reply) {
    const size_t start = kUnknown.size() + 1 + kStandIn.size();
    if (!reply.starts_with(kUnknown) || reply.size() <= start ||
        reply.substr(kUnknown.size() + 1, kStandIn.size()) != kStandIn) {
        return std::string(reply);
    }
    std::string_view name = reply.substr(start, reply.find_first_of("'`", start) - start);
    std::string text;
    if (name.size() > 2 && name.front() == kForNodes) {
        const auto why = static_cast<Unplaced>(name[1]);
        name.remove_prefix(2);
        append_error(text, words_of(why, name));
    } else {
        append_error(text, refusal(node, name));
    }
    return text;
}

bool is_for_one_server(const Call& call, bool in_transaction, std::vector<std::string_view>& keys) {
    using Where = Placement::Where;
    const Plan& plan = call.plan;
    if (plan.way == Way::Local || plan.way == Way::Refused || plan.way == Way::StandIn ||
        plan.way == Way::Close) {
        return false;
    }
    if (plan.way == Way::Tunnel) {
        return in_transaction ||
               !(Subscriptions::is_about(call.spec()) || call.spec()->special == Special::Monitor);
    }
    const Placement placement = place(call.spec(), call.command, keys);
    if (plan.way == Way::PassThrough) {
        return placement.where == Where::Slot || placement.where == Where::Nowhere;
    }
    if (placement.where != Where::EveryNode) return placement.where == Where::Nowhere;
    return in_transaction || call.spec()->spread == Spread::Nowhere;
}

Plan plan_without_secrets(Plan plan, const Node& node, const CommandView& command,
                          const PlanFacts& facts) {
    std::string instead;
    const auto secrets = leave_out_secrets(command, node.catalog().parameters(), instead);
    if (secrets == ConfigGetSecrets::Unknown) plan.refuse(Why::Secrets, facts);
    return plan;
}

std::string without_secrets(const Node& node, const CommandView& command) {
    std::string instead;
    const auto secrets = leave_out_secrets(command, node.catalog().parameters(), instead);
    NEARKEY_CHECK(secrets != ConfigGetSecrets::Unknown);
    return instead;
}

}  // namespace nearkey
