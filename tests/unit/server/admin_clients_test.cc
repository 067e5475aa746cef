// What the pages say of processes and sockets, and the refusals of the pages that change something.
#include "fake_source.h"

#include "nearkey/server/admin_page_functions.h"
#include "nearkey/server/process_facts.h"

#include <doctest/doctest.h>

#include <unistd.h>

namespace nearkey::admin_clients_test {
namespace {

TEST_CASE("process facts: our own process has a name, a program and the unit of its cgroup") {
    const ProcessFacts own = process_facts(getpid());
    CHECK_FALSE(own.command.empty());
    const std::string program = own.executable.substr(own.executable.rfind('/') + 1);
    CHECK(program.starts_with(own.command));  // which is cut after 15 bytes
    CHECK(own.executable.front() == '/');
    CHECK(own.unit == unit_of(own.cgroup));
}

TEST_CASE("process facts: a process that is not there has none") {
    for (const pid_t pid : {-1, 0, 0x7ffffff0}) {
        const ProcessFacts facts = process_facts(pid);
        CHECK(facts.command.empty());
        CHECK(facts.executable.empty());
        CHECK(facts.cgroup.empty());
        CHECK(facts.unit.empty());
    }
}

TEST_CASE("process facts: the unit is the innermost service or scope") {
    CHECK(unit_of("/system.slice/shop.service") == "shop.service");
    CHECK(unit_of("/user.slice/user-1.slice/user@1.service/app.slice/x-2.scope") == "x-2.scope");
    CHECK(unit_of("/system.slice/shop.service/worker") == "shop.service");
    CHECK(unit_of("shop.service") == "shop.service");
    CHECK(unit_of("/system.slice").empty());
    CHECK(unit_of("/").empty());
    CHECK(unit_of("").empty());
}

TEST_CASE("admin control: the level of the log is set, or refused") {
    FakeSource source;
    CHECK(set_log_level(source, {"POST", "/log-level", {{"level", "debug"}}, {}}).body ==
          "{\"level\":\"debug\"}\n");
    CHECK(source.log().level() == LogLevel::Debug);
    CHECK(set_log_level(source, {"POST", "/log-level", {{"level", "loud"}}, {}}).status == 400);
    CHECK(set_log_level(source, {"POST", "/log-level", {}, {}}).status == 400);
    CHECK(source.log().level() == LogLevel::Debug);
}

TEST_CASE("admin control: clearing says how much, and that there is nothing to clear") {
    FakeSource source;
    const AdminRequest request{"POST", "/cache/clear", {}, {}};
    CHECK(clear_cache(source, request).status == 409);
    source.cleared = 12;
    CHECK(clear_cache(source, request).body == "{\"dropped\":12}\n");
}

TEST_CASE("admin changes: the status says what came of it, a refusal says why") {
    using State = AdminChange::State;
    FakeSource source;
    const AdminRequest post{"POST", "/reload", {}, {}};
    const auto answer = [&](State state, AdminAnswer (*page)(AdminSource&, const AdminRequest&)) {
        source.change = {state, 3, "because", {"log.level: \"info\" -> \"debug\""}};
        return page(source, post);
    };
    const std::string pid = std::to_string(getpid());
    CHECK(answer(State::Done, ask_reload).status == 200);
    CHECK(answer(State::UnderWay, ask_reload).status == 202);
    const AdminAnswer refused = answer(State::Refused, ask_reload);
    CHECK(refused.status == 422);
    CHECK(refused.body == "{\"state\":\"refused\",\"number\":3,\"pid\":" + pid +
                              ",\"reason\":\"because\",\"changes\":[\"log.level: "
                              "\\\"info\\\" -> \\\"debug\\\"\"],\"error\":\"because\"}\n");
    CHECK(answer(State::UnderWay, ask_upgrade).status == 202);
    CHECK(answer(State::Refused, ask_upgrade).status == 409);
    // To ask what came of it is no refusal.
    CHECK(answer(State::Refused, reload_page).status == 200);
    CHECK(answer(State::None, upgrade_page).status == 200);
}

}  // namespace
}  // namespace nearkey::admin_clients_test
