#include "nearkey/dispatch/plan.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/number.h"

#include <algorithm>
#include <limits>

namespace nearkey {

namespace {

// Commands that nearkey answers in a transaction too: its end, and questions to nearkey. All other
// state of a session is kept by the server, once EXEC has run it.
bool is_local_in_transaction(Special special) {
    return special == Special::Quit || special == Special::Reset || special == Special::Nearkey;
}

bool is_allowed(const Plan& plan, const CommandView& command, const PlanFacts& facts) {
    if (plan.spec != nullptr) return facts.access.allows(*plan.spec, command);
    return facts.access.allows_unknown(facts.commands.find_name(command[0]), command);
}

// HELLO version ... AUTH user password: the server itself decides. A call with an error before that
// is answered by nearkey, as one without AUTH is.
bool says_credentials(const CommandView& command) {
    if (command.size() < 2) return false;
    const auto version = parse_integer(command[1]);
    if (!version || *version < 2 || *version > 3) return false;
    for (size_t i = 2; i + 1 < command.size(); i += 2) {
        if (equals_ignoring_case(command[i], "AUTH")) return i + 2 < command.size();
        if (!equals_ignoring_case(command[i], "SETNAME")) return false;
    }
    return false;
}

// What a server refuses to a client that hears that (processCommand in server.c).
bool is_refused_to(const CommandSpec& spec, Hearing hearing) {
    switch (hearing) {
        case Hearing::Nothing:
            return false;
        case Hearing::Messages:
            return spec.name != "ping" && spec.special != Special::Quit &&
                   spec.special != Special::Reset && !spec.is_about_subscriptions();
        case Hearing::Commands:
            return spec.is_readonly || spec.is_write || spec.waits_in_pause;
    }
    return false;
}

bool names_database(const CommandView& command) {
    const auto database = parse_integer(command[1]);
    return database && *database >= 0 && *database <= std::numeric_limits<int>::max();
}

void plan_local(Plan& plan, const CommandView& command) {
    plan.way = Way::Local;
    if (plan.spec->special == Special::Hello && says_credentials(command)) {
        plan.way = Way::Tunnel;
        plan.why = Why::Credentials;
    } else if (plan.spec->special == Special::Select && !names_database(command)) {
        plan.way = Way::Unproven;
        plan.why = Why::NoDatabase;
    }
}

// A connection of the session's own, for as long as the server takes or the client stays.
void plan_lease(Plan& plan, const CommandView& command, const PlanFacts& facts) {
    const CommandSpec& spec = *plan.spec;
    const bool is_wait = spec.special == Special::Wait && !facts.in_multi;
    plan.way = is_wait ? Way::Wait : spec.may_say_anything() ? Way::Script : Way::Lease;
    const bool may_wait = spec.blocks_by_option ? has_block_option(command) : spec.is_blocking;
    if (spec.special == Special::ConfigGet) {
        plan.kind = RequestKind::Read;
    } else if ((is_wait || may_wait) && !facts.in_multi && !facts.input_over) {
        plan.kind = RequestKind::Blocking;
    }
}

void plan_plain(Plan& plan, const CommandView& command, const PlanFacts& facts) {
    switch (plan.spec->route) {
        case Route::Shared:
            if (plan.spec->blocks_by_option && has_block_option(command)) {
                plan_lease(plan, command, facts);
            } else {
                plan = plan_shared(*plan.spec, command, KnownFacts{facts});
            }
            break;
        case Route::Dedicated:
            plan_lease(plan, command, facts);
            break;
        case Route::Unproven:
            plan.way = Way::Unproven;
            break;
        case Route::Transaction:
            if (plan.spec->special == Special::Multi) {
                plan.way = Way::Whole;
            } else if (plan.spec->special == Special::Watch) {
                plan.way = Way::Step;
            } else {
                plan.way = Way::Shared;
                plan.why = Why::NoTransaction;
                plan.writes = WriteScope::Nothing;
            }
            break;
        case Route::Tunnel:
            plan.way = Way::Tunnel;
            break;
        case Route::Local:
            plan_local(plan, command);
            break;
        case Route::Close:
            plan.way = Way::Close;
            break;
    }
}

void plan_in_transaction(Plan& plan, const CommandView& command, const PlanFacts& facts) {
    const CommandSpec& spec = *plan.spec;
    switch (spec.route) {
        case Route::Transaction:
            plan.way = Way::Step;
            break;
        case Route::Unproven:
            plan.way = Way::Unproven;
            break;
        case Route::Tunnel:
            plan.way = Way::Tunnel;
            break;
        case Route::Local:
            plan.way = is_local_in_transaction(spec.special) ? Way::Local : Way::Tunnel;
            if (plan.way == Way::Tunnel) plan.why = Why::KeptByServer;
            break;
        case Route::Close:
            plan.way = Way::Close;
            break;
        case Route::Shared:
        case Route::Dedicated:
            plan_lease(plan, command, facts);
            plan.why = Why::InTransaction;
            break;
    }
}

// The server itself says what is wrong with a call that it will not run. A refused EXEC ends the
// transaction, any other refused call leaves it (rejectCommand in server.c).
void plan_no_call(Plan& plan, const PlanFacts& facts) {
    const CommandSpec& spec = *plan.spec;
    if (facts.in_transaction) {
        plan.way = spec.special == Special::Exec ? Way::Step : Way::Lease;
    } else if (spec.route == Route::Shared) {
        plan.way = Way::Shared;
        plan.kind = RequestKind::Read;
    } else {
        plan.way = Way::Unproven;
    }
}

// The caching of a command that goes any way but the usual one.
Caching caching_otherwise(const Plan& plan, const CommandView& command, const PlanFacts& facts) {
    if (plan.spec == nullptr || !plan.is_call()) return Caching::NoCall;
    const Caching caching = caching_of(*plan.spec, command, KnownFacts{facts});
    if (caching > Caching::Split) return caching;
    return facts.in_tunnel        ? Caching::InTunnel
           : facts.in_transaction ? Caching::InTransaction
                                  : caching;
}

}  // namespace

bool begins_with_one_of(std::string_view key, const std::vector<std::string>& prefixes) {
    return prefixes.empty() ||
           std::any_of(prefixes.begin(), prefixes.end(),
                       [key](const std::string& prefix) { return key.starts_with(prefix); });
}

void Plan::refuse(Why reason, const PlanFacts& facts) {
    way = facts.in_tunnel || facts.in_transaction ? Way::StandIn : Way::Refused;
    why = reason;
    writes = WriteScope::Nothing;
    caching = Caching::Refused;
}

Plan apart(Plan plan, bool is_large) {
    plan.way = Way::Apart;
    plan.why = is_large ? Why::Large : Why::AfterLarge;
    return plan;
}

Plan plan_rest(const CommandSpec* spec, const CommandView& command, const PlanFacts& facts) {
    const bool is_call = spec == nullptr || spec->accepts(command.size());
    Plan plan{.spec = spec,
              .writes = spec == nullptr ? WriteScope::Everything
                        : is_call       ? spec->writes
                                        : WriteScope::Nothing,
              .why = !is_call          ? Why::WrongArguments
                     : spec == nullptr ? Why::Unknown
                                       : Why::Table,
              .is_queued = facts.in_multi};
    plan.caching = caching_otherwise(plan, command, facts);
    if (is_call && !facts.is_let_in && !is_allowed(plan, command, facts)) {
        plan.refuse(Why::Rule, facts);
    } else if (facts.in_tunnel) {
        plan.way = Way::PassThrough;
        if (is_call && spec != nullptr) plan.why = Why::InTunnel;
    } else if (!is_call) {
        plan_no_call(plan, facts);
    } else if (spec == nullptr) {
        plan.way = Way::Unproven;
    } else if (is_refused_to(*spec, facts.hearing)) {
        plan.refuse(facts.hearing == Hearing::Messages ? Why::Subscriber : Why::Monitor, facts);
    } else if (facts.hearing == Hearing::Messages && spec->name == "ping") {
        plan.way = Way::PassThrough;
        plan.why = Why::InTunnel;
    } else if (facts.in_transaction) {
        plan_in_transaction(plan, command, facts);
    } else {
        plan_plain(plan, command, facts);
    }
    if (facts.owes_multi && plan.way != Way::Local && plan.way != Way::Close) {
        plan.before = Before::Multi;
    }
    const bool is_counted = plan.way == Way::Wait || plan.way == Way::Tunnel;
    if (is_counted && facts.has_written && !facts.in_multi) plan.before = Before::Mark;
    const bool is_config_get = spec != nullptr && spec->special == Special::ConfigGet;
    plan.hides_secrets =
        is_config_get && plan.is_call() && !plan.is_refused() && !facts.access.shows_secrets();
    return plan;
}

bool may_go_whole(const CommandSpec* spec, const CommandView& command,
                  const CommandAccess& access) {
    if (spec == nullptr || !spec->accepts(command.size())) return false;
    if (!access.allows(*spec, command)) return false;
    return spec->route == Route::Shared || spec->special == Special::Exec ||
           spec->special == Special::Discard;
}

WriteScope find_writes(const Plan& plan, const CommandView& command,
                       std::vector<std::string_view>& keys) {
    return plan.writes == WriteScope::Keys ? find_writes(*plan.spec, command, keys) : plan.writes;
}

WriteScope find_writes(const CommandSpec& spec, const CommandView& command,
                       std::vector<std::string_view>& keys) {
    if (spec.writes != WriteScope::Keys) return spec.writes;
    return spec.find_keys(command, keys) ? WriteScope::Keys : WriteScope::Everything;
}

std::string_view way_in_words(const Plan& plan) {
    switch (plan.way) {
        case Way::Shared:
            return "shared";
        case Way::Apart:
            return "dedicated if a connection is free, else shared";
        case Way::Lease:
        case Way::Script:
        case Way::Wait:
        case Way::Step:
            return "dedicated";
        case Way::Unproven:
            return "dedicated, closed afterwards unless the server refused";
        case Way::Whole:
            return "shared if the transaction arrives whole, else dedicated";
        case Way::Tunnel:
        case Way::PassThrough:
            return "tunnel";
        case Way::Local:
            return "local";
        case Way::Refused:
        case Way::StandIn:
            return "refused by rule";
        case Way::Close:
            return "the client is closed";
    }
    return "";
}

std::string_view why_in_words(const Plan& plan) {
    switch (plan.why) {
        case Why::Table:
            return plan.spec->reason.empty() ? "leaves nothing behind on its connection"
                                             : plan.spec->reason;
        case Why::Unknown:
            return "the server does not know it";
        case Why::WrongArguments:
            return "wrong number of arguments: the server says so";
        case Why::Rule:
            return "the option commands of its listener leaves it out";
        case Why::Secrets:
            return "would show a password, and which parameters else is not known yet";
        case Why::Large:
            return "is large, and is to hold up nobody else";
        case Why::AfterLarge:
            return "may be answered with as much as a command before it";
        case Why::Credentials:
            return "the server itself judges a user's password";
        case Why::NoDatabase:
            return "no number of a database: the server says so";
        case Why::NoTransaction:
            return "changes nothing without a transaction";
        case Why::InTransaction:
            return "the session's transaction has a connection of its own";
        case Why::KeptByServer:
            return "in a transaction the server keeps what belongs to the session";
        case Why::InTunnel:
            return "the session has a connection of its own until RESET";
        case Why::Subscriber:
            return "a subscriber in RESP2 may not";
        case Why::Monitor:
            return "a client behind MONITOR may not";
    }
    return "";
}

std::string_view caching_in_words(const Plan& plan) {
    switch (plan.caching) {
        case Caching::Whole:
        case Caching::Split:
            return "may be stored";
        case Caching::Off:
            return "the near cache is off";
        case Caching::Cluster:
            return "off: the upstream is a node of a cluster";
        case Caching::OffForClient:
            return "off for this client";
        case Caching::Monitored:
            return "a client runs MONITOR";
        case Caching::Database:
            return "the client's database is not known, or its number is too large";
        case Caching::NoCall:
            return "not a sound call";
        case Caching::Refused:
            return "refused by rule";
        case Caching::NoRead:
            return "not a read";
        case Caching::NotListed:
            return "not on the list of reads that may be stored";
        case Caching::UntoldKey:
            return "near_cache.prefixes leave this key out";
        case Caching::InTransaction:
            return "inside a transaction";
        case Caching::InTunnel:
            return "inside a tunnel";
    }
    return "";
}

std::string_view writes_in_words(const Plan& plan, WriteScope writes) {
    const bool is_exec = plan.spec != nullptr && plan.spec->special == Special::Exec;
    if (is_exec && plan.way == Way::Step) return "what was queued";
    switch (writes) {
        case WriteScope::Nothing:
            return "nothing";
        case WriteScope::Keys:
            return "its keys";
        case WriteScope::Told:
            return "what Valkey tells of";
        case WriteScope::Everything:
            return "anything";
    }
    return "";
}

}  // namespace nearkey
