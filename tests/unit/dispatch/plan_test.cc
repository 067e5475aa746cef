// plan() for every command of a server, in every state of a session. command_reply.resp is what
// Valkey 8.0.1 says to COMMAND; tests/system/test_explain_walk.py compares with what is done.
#include "nearkey/dispatch/plan.h"

#include "nearkey/resp/value.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::plan_test {
namespace {

using Words = std::vector<std::string>;

const CommandTable& table() {
    static const CommandTable made = [] {
        std::ifstream file("tests/unit/dispatch/command_reply.resp", std::ios::binary);
        const auto reply = parse_value(std::string{std::istreambuf_iterator<char>(file), {}});
        REQUIRE(reply.has_value());
        return CommandTable(*reply);
    }();
    return made;
}

// A command as the parser gives it, for as long as this lives.
struct Call {
    explicit Call(const Words& words) {
        bytes = "*" + std::to_string(words.size()) + "\r\n";
        for (const std::string& word : words)
            bytes += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
        REQUIRE(parser.next(bytes) == ParseResult::Command);
        spec = table().find(parser.command());
    }
    const CommandView& view() const { return parser.command(); }
    bool is_sound() const { return spec == nullptr || spec->accepts(view().size()); }

    std::string bytes;
    CommandParser parser{int64_t{1} << 30};
    const CommandSpec* spec = nullptr;
};

CommandAccess access(std::string_view rules) {
    std::vector<AccessRule> parsed;
    REQUIRE(parse_access_rules(rules, parsed).empty());
    return {parsed, table()};
}

const CommandAccess kEverything;

PlanFacts plain() {
    return {.commands = table(), .access = kEverything, .caching = Caching::Whole};
}
PlanFacts watching() {
    PlanFacts facts = plain();
    facts.in_transaction = true;
    return facts;
}
PlanFacts in_multi() {
    PlanFacts facts = watching();
    facts.in_multi = true;
    return facts;
}
PlanFacts owing_multi() {
    PlanFacts facts = in_multi();
    facts.owes_multi = true;
    return facts;
}
PlanFacts in_tunnel() {
    PlanFacts facts = plain();
    facts.in_tunnel = true;
    return facts;
}

struct State {
    const char* name;
    PlanFacts facts;
};

std::vector<State> states() {
    return {{"plain", plain()},
            {"watching", watching()},
            {"in MULTI", in_multi()},
            {"owing MULTI", owing_multi()},
            {"in a tunnel", in_tunnel()}};
}

Plan plan_of(const Call& call, const PlanFacts& facts) {
    return plan(call.spec, call.view(), facts);
}

Plan plan_of(const Words& words, const PlanFacts& facts) {
    return plan_of(Call(words), facts);
}

// Calls of the command: as few words as it takes, some more, and too few or too many.
std::vector<Words> calls_of(const CommandSpec& spec) {
    Words words;
    const size_t bar = spec.name.find('|');
    words.push_back(spec.name.substr(0, bar));
    if (bar != std::string::npos) words.push_back(spec.name.substr(bar + 1));
    const size_t own = words.size();
    std::vector<Words> calls{words};
    for (size_t size = own + 1; size < own + 6; ++size) {
        words.resize(size, "1");
        calls.push_back(words);
    }
    words.resize(own);
    words.insert(words.end(), {"BLOCK", "0", "STREAMS", "s", "0"});
    calls.push_back(words);
    return calls;
}

void for_each_call(const std::function<void(const Call&)>& visit) {
    const auto visit_all = [&](const CommandSpec& spec) {
        for (const Words& words : calls_of(spec))
            visit(Call(words));
    };
    for (const CommandSpec& spec : table().specs()) {
        visit_all(spec);
        for (const CommandSpec& child : spec.subcommands)
            visit_all(child);
    }
    for (const Words& words : {Words{"NOSUCH"}, {"NOSUCH", "k"}, {"CLIENT", "NOSUCH"}, {""}})
        visit(Call(words));
}

// Every call in every state.
void for_each_plan(const std::function<void(const Call&, const PlanFacts&, const Plan&)>& visit) {
    for (const State& state : states()) {
        for_each_call([&](const Call& call) {
            CAPTURE(std::string(state.name));
            CAPTURE(call.bytes);
            visit(call, state.facts, plan_of(call, state.facts));
        });
    }
}

bool is_over_shared(const Plan& plan) {
    return plan.way == Way::Shared || plan.way == Way::Apart || plan.way == Way::Whole;
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::string name_of(const Call& call) {
    return call.spec == nullptr ? "" : call.spec->name;
}

TEST_CASE("plan: the walk meets every command of a server, sound and not") {
    size_t sound = 0;
    size_t unsound = 0;
    size_t unknown = 0;
    for_each_call([&](const Call& call) {
        ++(call.spec == nullptr ? unknown : call.is_sound() ? sound : unsound);
    });
    CHECK(table().id_count() > 370);
    CHECK(sound > 1000);
    CHECK(unsound > 500);
    CHECK(unknown > 4);
}

TEST_CASE("plan: what can change, silence or hold up a connection never goes over a shared one") {
    for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
        if (!is_over_shared(plan)) return;
        CHECK_FALSE(facts.in_transaction);
        CHECK_FALSE(facts.in_tunnel);
        REQUIRE(call.spec != nullptr);
        CHECK_FALSE(call.spec->may_say_anything());
        if (!call.is_sound()) {
            CHECK(call.spec->route == Route::Shared);
            return;
        }
        const bool is_end = is_one_of(name_of(call), {"exec", "discard", "unwatch"});
        const bool is_multi = plan.way == Way::Whole && name_of(call) == "multi";
        CHECK((call.spec->route == Route::Shared || is_end || is_multi));
        CHECK((!call.spec->is_blocking || !has_block_option(call.view())));
        CHECK((!call.spec->is_blocking || call.spec->blocks_by_option));
    });
}

TEST_CASE("plan: in a tunnel all passes through") {
    for_each_call([&](const Call& call) {
        CAPTURE(call.bytes);
        const Plan plan = plan_of(call, in_tunnel());
        CHECK(plan.way == Way::PassThrough);
        CHECK(plan.before == Before::Nothing);
        CHECK_FALSE(plan.may_be_stored());
    });
}

TEST_CASE("plan: a transaction keeps its connection, but for what nearkey answers") {
    for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
        if (!facts.in_transaction) return;
        CHECK_FALSE(plan.may_be_stored());
        CHECK(plan.is_queued == facts.in_multi);
        const bool is_local =
            is_one_of(name_of(call), {"quit", "reset", "nearkey"}) && call.is_sound();
        CHECK((plan.way == Way::Local) == is_local);
        CHECK((plan.way == Way::Close) == is_one_of(name_of(call), {"post", "host:"}));
        CHECK(plan.way != Way::Refused);
        if (plan.way == Way::Wait) CHECK_FALSE(facts.in_multi);
        const bool begins = facts.owes_multi && !is_local && plan.way != Way::Close;
        CHECK((plan.before == Before::Multi) == begins);
    });
}

TEST_CASE("plan: an EXEC that the server will not run is a step all the same") {
    for (const PlanFacts& facts : {watching(), in_multi()}) {
        CHECK(plan_of(Words{"EXEC", "x"}, facts).way == Way::Step);
        CHECK(plan_of(Words{"DISCARD", "x"}, facts).way == Way::Lease);
        CHECK(plan_of(Words{"MULTI", "x"}, facts).way == Way::Lease);
    }
    CHECK(plan_of(Words{"EXEC", "x"}, plain()).way == Way::Unproven);
}

TEST_CASE("plan: what may say anything proves nothing of where its reply ends") {
    for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
        const bool is_script = call.spec != nullptr && call.is_sound() && !facts.in_tunnel &&
                               call.spec->may_say_anything();
        CHECK((plan.way == Way::Script) == is_script);
    });
}

TEST_CASE("plan: only what does nothing is sent twice, only what waits may wait") {
    for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
        if (plan.kind == RequestKind::Read) {
            REQUIRE(call.spec != nullptr);
            const bool is_config_get = name_of(call) == "config|get";
            CHECK((call.spec->may_repeat || !call.is_sound() || is_config_get));
        }
        if (plan.kind != RequestKind::Blocking) return;
        CHECK(call.spec->is_blocking);
        CHECK(call.is_sound());
        CHECK_FALSE(facts.in_multi);
        PlanFacts over = facts;
        over.input_over = true;
        CHECK(plan_of(call, over).kind == RequestKind::Write);
    });
    for (const Words& words : {Words{"BLPOP", "k", "0"},
                               {"WAIT", "1", "0"},
                               {"XREAD", "BLOCK", "0", "STREAMS", "s", "0"}}) {
        CHECK(plan_of(words, plain()).kind == RequestKind::Blocking);
        CHECK(plan_of(words, watching()).kind == RequestKind::Blocking);
        CHECK(plan_of(words, in_multi()).kind == RequestKind::Write);
    }
    CHECK(plan_of(Words{"XREAD", "STREAMS", "s", "0"}, plain()).kind == RequestKind::Read);
    CHECK(plan_of(Words{"GET", "k"}, plain()).kind == RequestKind::Read);
    CHECK(plan_of(Words{"SET", "k", "v"}, plain()).kind == RequestKind::Write);
    CHECK(plan_of(Words{"GET"}, plain()).kind == RequestKind::Read);
    for (const State& state : states()) {
        const Plan plan = plan_of(Words{"CONFIG", "GET", "x"}, state.facts);
        CHECK((plan.way == Way::PassThrough || plan.kind == RequestKind::Read));
    }
}

TEST_CASE("plan: what is stored is a listed read over a shared connection, and no more") {
    size_t stored = 0;
    for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
        const bool is_listed = call.spec != nullptr && call.is_sound() &&
                               call.spec->route == Route::Shared &&
                               call.spec->is_cacheable(call.view());
        const bool is_plain = !facts.in_transaction && !facts.in_tunnel;
        CHECK(plan.may_be_stored() == (is_listed && is_plain));
        if (!plan.may_be_stored()) return;
        ++stored;
        CHECK(plan.writes == WriteScope::Nothing);
        CHECK(plan.kind == RequestKind::Read);
        CHECK(plan.is_split() == call.spec->is_split(call.view()));
    });
    CHECK(stored > 50);
}

TEST_CASE("plan: a session whose replies are not stored says why, of each read that else is") {
    for (const Caching why : {Caching::Off, Caching::Cluster, Caching::OffForClient,
                              Caching::Monitored, Caching::Database}) {
        for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
            PlanFacts other = facts;
            other.caching = why;
            Plan expected = plan;
            switch (plan.caching) {
                case Caching::Whole:
                case Caching::Split:
                case Caching::InTransaction:
                case Caching::InTunnel:
                    expected.caching = why;
                    break;
                default:
                    break;
            }
            CHECK(expected == plan_of(call, other));
        });
    }
}

TEST_CASE("plan: keys that Valkey does not tell of are not stored") {
    const std::vector<std::string> prefixes{"user:", "page:"};
    PlanFacts facts = plain();
    facts.told_prefixes = &prefixes;
    CHECK(plan_of(Words{"GET", "user:1"}, facts).caching == Caching::Whole);
    CHECK(plan_of(Words{"GET", "page:1"}, facts).caching == Caching::Whole);
    CHECK(plan_of(Words{"GET", "k"}, facts).caching == Caching::UntoldKey);
    CHECK(plan_of(Words{"MGET", "k", "page:1"}, facts).caching == Caching::Split);
    const std::vector<std::string> none;
    facts.told_prefixes = &none;
    CHECK(plan_of(Words{"GET", "k"}, facts).caching == Caching::Whole);
}

TEST_CASE("plan: what the rules leave out is refused, if the server would run it") {
    for (const char* rules : {"nocommands", "+@all -@write -config", "+@read +nearkey +nosuch"}) {
        const CommandAccess limits = access(rules);
        for (const State& state : states()) {
            PlanFacts facts{.commands = state.facts.commands,
                            .access = limits,
                            .caching = Caching::Whole,
                            .in_tunnel = state.facts.in_tunnel,
                            .in_transaction = state.facts.in_transaction,
                            .in_multi = state.facts.in_multi,
                            .owes_multi = state.facts.owes_multi};
            for_each_call([&](const Call& call) {
                CAPTURE(std::string(rules));
                CAPTURE(std::string(state.name));
                CAPTURE(call.bytes);
                const CommandSpec* const container = table().find_name(call.view()[0]);
                const bool is_allowed = call.spec == nullptr
                                            ? limits.allows_unknown(container, call.view())
                                            : limits.allows(*call.spec, call.view());
                const Plan plan = plan_of(call, facts);
                CHECK(plan.is_refused() == (!is_allowed && call.is_sound()));
                if (!plan.is_refused()) {
                    CHECK(plan.way == plan_of(call, state.facts).way);
                    return;
                }
                const bool must_know = facts.in_tunnel || facts.in_transaction;
                CHECK((plan.way == Way::StandIn) == must_know);
                CHECK(plan.writes == WriteScope::Nothing);
                CHECK(plan.caching == Caching::Refused);
                CHECK_FALSE(plan.hides_secrets);
            });
        }
    }
}

TEST_CASE("plan: a password is hidden from who may not set parameters, whatever the way") {
    const CommandAccess limits = access("+@all -config|set");
    for (const State& state : states()) {
        CAPTURE(std::string(state.name));
        PlanFacts facts{.commands = table(),
                        .access = limits,
                        .in_tunnel = state.facts.in_tunnel,
                        .in_transaction = state.facts.in_transaction};
        CHECK(plan_of(Words{"CONFIG", "GET", "*"}, facts).hides_secrets);
        CHECK_FALSE(plan_of(Words{"CONFIG", "GET"}, facts).hides_secrets);
        CHECK_FALSE(plan_of(Words{"CONFIG", "HELP"}, facts).hides_secrets);
        CHECK_FALSE(plan_of(Words{"CONFIG", "GET", "*"}, state.facts).hides_secrets);
    }
}

TEST_CASE("plan: what a command writes, and the keys where they can be told") {
    for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
        std::vector<std::string_view> keys;
        const WriteScope scope = find_writes(plan, call.view(), keys);
        CHECK(scope >= plan.writes);
        if (call.spec == nullptr) CHECK(scope == WriteScope::Everything);
        if (!call.is_sound()) CHECK(scope == WriteScope::Nothing);
        const bool is_end = is_one_of(name_of(call), {"exec", "discard", "unwatch"});
        const bool is_plain = !facts.in_transaction && !facts.in_tunnel;
        if (is_end && is_plain) CHECK(scope == WriteScope::Nothing);
        if (call.spec == nullptr || !call.is_sound() || (is_end && is_plain)) return;
        CHECK(plan.writes == call.spec->writes);
        if (call.spec->first_key != 0) CHECK(keys.empty() == (scope != WriteScope::Keys));
    });
    std::vector<std::string_view> keys;
    const Call call({"MSET", "a", "1", "b", "2"});
    CHECK(find_writes(plan_of(call, plain()), call.view(), keys) == WriteScope::Keys);
    CHECK(keys == std::vector<std::string_view>{"a", "b"});
    const Call uncounted({"LMPOP", "x", "k", "LEFT"});
    CHECK(find_writes(plan_of(uncounted, plain()), uncounted.view(), keys) ==
          WriteScope::Everything);
}

TEST_CASE("plan: what went over other connections is marked for WAIT, and before a tunnel") {
    for_each_plan([&](const Call& call, const PlanFacts& facts, const Plan& plan) {
        PlanFacts written = facts;
        written.has_written = true;
        Plan expected = plan;
        const bool is_counted = plan.way == Way::Wait || plan.way == Way::Tunnel;
        if (is_counted && !facts.in_multi) expected.before = Before::Mark;
        CHECK(expected == plan_of(call, written));
    });
}

TEST_CASE("plan: what is large, or comes behind a large reply, goes apart from others") {
    PlanFacts after = plain();
    after.after_large = true;
    for_each_call([&](const Call& call) {
        CAPTURE(call.bytes);
        Plan expected = plan_of(call, plain());
        const Plan apart = plan_of(call, after);
        if (expected.way == Way::Shared && call.is_sound() && expected.why != Why::NoTransaction) {
            expected.way = Way::Apart;
            expected.why = Why::AfterLarge;
        }
        CHECK(expected == apart);
    });
    const std::string large(kLarge, 'x');
    CHECK(plan_of(Words{"SET", "k", large}, plain()).why == Why::Large);
    CHECK(plan_of(Words{"SET", "k", large}, plain()).way == Way::Apart);
    CHECK(plan_of(Words{"SET", "k", large}, in_multi()).way == Way::Lease);
    CHECK(plan_of(Words{"GET", large}, after).why == Why::Large);
    CHECK(plan_of(Words{"GET", large, "x"}, after).way == Way::Shared);
}

TEST_CASE("plan: what belongs to a session nearkey keeps, unless the server must") {
    const auto way = [](const Words& words, const PlanFacts& facts) {
        return plan_of(words, facts).way;
    };
    CHECK(way({"HELLO"}, plain()) == Way::Local);
    CHECK(way({"HELLO", "3", "SETNAME", "AUTH"}, plain()) == Way::Local);
    CHECK(way({"HELLO", "3", "AUTH", "u", "p"}, plain()) == Way::Tunnel);
    CHECK(way({"HELLO", "3", "SETNAME", "AUTH", "auth", "u", "p"}, plain()) == Way::Tunnel);
    CHECK(way({"HELLO", "3", "AUTH", "u"}, plain()) == Way::Local);
    CHECK(way({"HELLO", "4", "AUTH", "u", "p"}, plain()) == Way::Local);
    CHECK(way({"HELLO", "1", "AUTH", "u", "p"}, plain()) == Way::Local);
    CHECK(way({"HELLO", "x", "AUTH", "u", "p"}, plain()) == Way::Local);
    CHECK(way({"HELLO", "3", "NOSUCH", "AUTH", "u", "p"}, plain()) == Way::Local);
    CHECK(way({"HELLO", "3"}, watching()) == Way::Tunnel);
    CHECK(way({"SELECT", "1"}, plain()) == Way::Local);
    CHECK(way({"SELECT", "2147483647"}, plain()) == Way::Local);
    CHECK(way({"SELECT", "2147483648"}, plain()) == Way::Unproven);
    CHECK(way({"SELECT", "-1"}, plain()) == Way::Unproven);
    CHECK(way({"SELECT", "x"}, plain()) == Way::Unproven);
    CHECK(way({"SELECT", "1"}, in_multi()) == Way::Tunnel);
    CHECK(way({"CLIENT", "SETNAME", "x"}, in_multi()) == Way::Tunnel);
}

TEST_CASE("plan: what may go as one piece with its MULTI") {
    const CommandAccess limits = access("+@all -get");
    const auto may = [&](const Words& words, const CommandAccess& rules) {
        const Call call(words);
        return may_go_whole(call.spec, call.view(), rules);
    };
    CHECK(may({"GET", "k"}, kEverything));
    CHECK(may({"EXEC"}, kEverything));
    CHECK(may({"DISCARD"}, kEverything));
    CHECK_FALSE(may({"GET", "k"}, limits));
    for (const Words& words : {Words{"GET"},
                               {"NOSUCH"},
                               {"WATCH", "k"},
                               {"MULTI"},
                               {"UNWATCH"},
                               {"EVAL", "return", "0"},
                               {"BLPOP", "k", "0"},
                               {"SELECT", "1"},
                               {"SUBSCRIBE", "c"},
                               {"WAIT", "0", "0"}}) {
        CHECK_FALSE(may(words, kEverything));
    }
}

TEST_CASE("plan: every plan can be told in words") {
    for_each_plan([&](const Call&, const PlanFacts&, const Plan& plan) {
        CHECK_FALSE(way_in_words(plan).empty());
        CHECK_FALSE(why_in_words(plan).empty());
        CHECK_FALSE(caching_in_words(plan).empty());
        CHECK_FALSE(writes_in_words(plan, plan.writes).empty());
    });
    CHECK(writes_in_words(plan_of(Words{"EXEC"}, in_multi()), WriteScope::Everything) ==
          "what was queued");
}

}  // namespace
}  // namespace nearkey::plan_test
