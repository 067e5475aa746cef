// The decision about one command: the way it goes, the keys it may change, whether its reply may be
// stored, and why. Session executes a command by its plan and books it for the near cache by it;
// NEARKEY EXPLAIN prints it.
// A value, made anew for each command. The one rule: plan() is pure. It knows the command, its spec
// and PlanFacts, and no other place decides about a command.
#pragma once

#include "nearkey/dispatch/request_kind.h"
#include "nearkey/resp/command_access.h"
#include "nearkey/resp/command_table.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// The way of one command. Route is the command table's word; this is the way that it takes now.
enum class Way : uint8_t {
    Shared,       // the connection that many clients share
    Apart,        // a connection of the session's own if one is free at once, else the shared one
    Lease,        // a connection of the session's own, until the reply is there
    Script,       // the same, and no text that it answers proves where its reply ends
    Unproven,     // the same, and the connection is closed after it unless the server refused it
    Wait,         // the same, once that connection counts the session's writes
    Whole,        // MULTI: the shared connection if all of the transaction has come, else a Step
    Step,         // a connection of the session's own, until the transaction is over
    Tunnel,       // a connection of the session's own, until the session's end or RESET
    PassThrough,  // the session's tunnel
    Local,        // nearkey answers
    Refused,      // nearkey answers that the listener's rules leave it out
    StandIn,      // the same, but the server must know: it gets another command in its place
    Close,        // the client is closed without an answer
};

// Says whether a reply may be stored, and answered from the near cache; if not, why.
enum class Caching : uint8_t {
    Whole,  // for its one key
    Split,  // key by key
    // This session's replies are not:
    Off,
    Cluster,
    OffForClient,
    Monitored,
    Database,
    // Nor is this one:
    NoCall,
    Refused,
    NoRead,
    NotListed,
    UntoldKey,
    InTransaction,
    InTunnel,
};

enum class Why : uint8_t {
    Table,  // the command table's reason
    Unknown,
    WrongArguments,
    Rule,
    Secrets,
    Large,
    AfterLarge,
    Credentials,
    NoDatabase,
    NoTransaction,
    InTransaction,
    KeptByServer,
    InTunnel,
    Subscriber,
    Monitor,
};

// The command that the session's connection must be sent before this one.
enum class Before : uint8_t {
    Nothing,
    Multi,  // the client was told that MULTI was taken, the server was not yet
    Mark,   // a propagated command: WAIT then counts writes over other connections, too
};

// What a client hears unasked without a tunnel (before a cluster), where a server runs less for it.
enum class Hearing : uint8_t {
    Nothing,   // or messages in RESP3, which has a place for them
    Messages,  // a subscriber in RESP2
    Commands,  // MONITOR
};

// The facts that a session knows and that decide about its next command.
struct PlanFacts {
    const CommandTable& commands;  // where the command's spec is from
    const CommandAccess& access;
    Caching caching = Caching::Off;  // Whole: replies may be stored
    // Valkey tells of changes to keys that begin so; null: of all keys.
    const std::vector<std::string>* told_prefixes = nullptr;
    bool in_tunnel = false;
    bool in_transaction = false;  // in MULTI, watching, or a reply that may say so is owed
    bool in_multi = false;        // the server may be in MULTI when this command arrives
    bool owes_multi = false;      // Before::Multi
    bool after_large = false;     // a large reply came lately
    bool has_written = false;     // anything at all
    bool input_over = false;      // the client sends no more, and may be gone
    bool is_let_in = false;       // the command has begun, and waits: rules that came since are not
                                  // about it
    Hearing hearing = Hearing::Nothing;
};

struct Plan {
    const CommandSpec* spec = nullptr;  // null: the server does not know the command
    Way way = Way::Unproven;
    RequestKind kind = RequestKind::Write;
    WriteScope writes = WriteScope::Nothing;  // of EXEC, Everything stands for the queued commands
    Caching caching = Caching::NoCall;
    Why why = Why::Table;
    Before before = Before::Nothing;
    bool is_queued = false;      // the server may take it for a part of a transaction
    bool hides_secrets = false;  // its reply may show passwords that are not for this client

    // True if the server runs it, unless it is refused.
    bool is_call() const { return why != Why::WrongArguments; }
    bool may_be_stored() const { return caching <= Caching::Split; }
    bool is_split() const { return caching == Caching::Split; }
    bool is_refused() const { return way == Way::Refused || way == Way::StandIn; }
    // Nothing of it reaches the server as the client sent it.
    void refuse(Why reason, const PlanFacts& facts);
    bool operator==(const Plan&) const = default;
};
static_assert(sizeof(Plan) == 16, "A plan travels in two registers.");

// A command or a reply of this size must not hold up others on a shared connection.
inline constexpr size_t kLarge = size_t{1} << 20;

// Every other command, and every state.
Plan plan_rest(const CommandSpec* spec, const CommandView& command, const PlanFacts& facts);

bool begins_with_one_of(std::string_view key, const std::vector<std::string>& prefixes);
// False: Valkey tells of no change to the key. `prefixes` as in PlanFacts.
inline bool is_told_of(std::string_view key, const std::vector<std::string>* prefixes) {
    return prefixes == nullptr || begins_with_one_of(key, *prefixes);
}

// PlanFacts in the form in which the plan of the usual command reads them. A session has another
// class with these methods (SessionFacts), which looks at what is asked for alone.
struct KnownFacts {
    const PlanFacts& facts;

    bool is_plain() const { return !facts.in_tunnel && !facts.in_transaction; }
    const CommandAccess& access() const { return facts.access; }
    bool after_large() const { return facts.after_large; }
    Caching caching() const { return facts.caching; }
    const std::vector<std::string>* told_prefixes() const { return facts.told_prefixes; }
    Plan plan_rest(const CommandSpec* spec, const CommandView& command) const {
        return nearkey::plan_rest(spec, command, facts);
    }
};

// REQUIRES: spec->accepts().
template <class Facts>
[[gnu::always_inline]] inline Caching caching_of(const CommandSpec& spec,
                                                 const CommandView& command, const Facts& facts) {
    if (!spec.is_cacheable(command)) return spec.is_readonly ? Caching::NotListed : Caching::NoRead;
    if (const Caching off = facts.caching(); off != Caching::Whole) return off;
    if (spec.is_split(command)) return Caching::Split;
    return is_told_of(command[1], facts.told_prefixes()) ? Caching::Whole : Caching::UntoldKey;
}

// The same, on its own connection if one is free.
[[gnu::cold]] Plan apart(Plan plan, bool is_large);

// A sound call, allowed, that leaves nothing behind on its connection.
template <class Facts>
[[gnu::always_inline]] inline Plan plan_shared(const CommandSpec& spec, const CommandView& command,
                                               const Facts& facts) {
    const Plan plan{.spec = &spec,
                    .way = Way::Shared,
                    .kind = spec.may_repeat ? RequestKind::Read : RequestKind::Write,
                    .writes = spec.writes,
                    .caching = caching_of(spec, command, facts)};
    const bool is_large = command.raw().size() >= kLarge;
    return is_large || facts.after_large() ? apart(plan, is_large) : plan;
}

template <class Facts>
[[gnu::always_inline]] inline Plan plan_with(const CommandSpec* spec, const CommandView& command,
                                             const Facts& facts) {
    const bool is_usual = spec != nullptr && spec->route == Route::Shared &&
                          !spec->blocks_by_option && spec->accepts(command.size());
    if (is_usual && facts.is_plain() && facts.access().allows(*spec, command)) {
        return plan_shared(*spec, command, facts);
    }
    return facts.plan_rest(spec, command);
}

// `spec` is the command's own.
inline Plan plan(const CommandSpec* spec, const CommandView& command, const PlanFacts& facts) {
    return plan_with(spec, command, KnownFacts{facts});
}

// True if a command may stand between the MULTI and the EXEC or DISCARD of a transaction that goes
// over the shared connection as one piece, or is one of the latter.
bool may_go_whole(const CommandSpec* spec, const CommandView& command, const CommandAccess& access);

// Appends the keys that the command may write, and perhaps some that it only reads. Returns its
// scope: plan.writes, or Everything where its keys can't be told.
WriteScope find_writes(const Plan& plan, const CommandView& command,
                       std::vector<std::string_view>& keys);
// The same for a command that may_go_whole().
WriteScope find_writes(const CommandSpec& spec, const CommandView& command,
                       std::vector<std::string_view>& keys);

// The way in the words of NEARKEY EXPLAIN.
std::string_view way_in_words(const Plan& plan);
std::string_view why_in_words(const Plan& plan);
std::string_view caching_in_words(const Plan& plan);
std::string_view writes_in_words(const Plan& plan, WriteScope writes);

}  // namespace nearkey
