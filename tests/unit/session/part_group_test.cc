// The replies to the parts of a command: kept, gathered, and given at the command's turn.
#include "nearkey/session/part_group.h"

#include "nearkey/session/reply_queue.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

namespace nearkey::part_group_test {
namespace {

PartPlan plan_of(size_t parts, Gather how) {
    PartPlan plan;
    plan.how = how;
    for (size_t i = 0; i < parts; ++i) {
        plan.node_of.push_back(static_cast<uint16_t>(i));
        plan.nodes.push_back("10.0.0." + std::to_string(i + 1) + ":6379");
    }
    return plan;
}

std::string text_of(const PartGroup::Outcome& outcome) {
    if (!outcome.failure.empty()) return "-" + outcome.failure + "\r\n";
    std::string text = outcome.reply.head;
    for (const std::string_view piece : outcome.reply.pieces)
        text += piece;
    return text;
}

// What a session does: takes out all that has its turn.
void take_out(ReplyQueue& queue, std::string& output) {
    while (queue.has_early()) {
        if (const PartGroup* const group = queue.whole_group()) {
            output += text_of(group->outcome());
            queue.close_group();
            continue;
        }
        const auto early = queue.early_first();
        if (!early) return;
        output += early->bytes;
        const bool is_part = early->what == EarlyReply::What::Part;
        queue.drop_kept(queue.first());
        if (is_part) return;
        queue.close_first();
    }
}

}  // namespace

// Commands with parts and without, whose replies come over several connections, cut anywhere.
TEST_CASE("part group: one reply takes the place of all parts, in the order of the commands") {
    for (uint32_t seed = 1; seed <= 500; ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        ReplyQueue queue;
        std::string expected;
        std::string output;
        std::vector<std::string> replies;  // by ticket
        std::vector<std::vector<uint32_t>> connections(1 + random() % 4);
        for (size_t command = 1 + random() % 8; command > 0; --command) {
            const size_t parts = random() % 3 == 0 ? 1 : 2 + random() % 5;
            uint32_t ticket = 0;
            if (parts == 1) {
                ticket = queue.open(1);
                replies.push_back("$3\r\nabc\r\n");
                expected += replies.back();
            } else {
                ticket = queue.open_group(plan_of(parts, Gather::Sum));
                int sum = 0;
                for (size_t i = 0; i < parts; ++i) {
                    const int number = static_cast<int>(random() % 1000);
                    sum += number;
                    replies.push_back(":" + std::to_string(number) + "\r\n");
                }
                expected += ":" + std::to_string(sum) + "\r\n";
            }
            for (uint32_t i = 0; i < parts; ++i)
                connections[random() % connections.size()].push_back(ticket + i);
        }
        std::vector<size_t> taken(replies.size(), 0);
        for (size_t left = replies.size(); left > 0;) {
            auto& tickets = connections[random() % connections.size()];
            if (tickets.empty()) continue;
            const uint32_t ticket = tickets.front();
            const std::string piece = replies[ticket].substr(taken[ticket], 1 + random() % 3);
            taken[ticket] += piece.size();
            const bool is_end = taken[ticket] == replies[ticket].size();
            if (queue.is_first(ticket)) {
                output += piece;
                if (is_end) queue.close_first();
            } else {
                queue.keep(ticket, piece);
                if (random() % 10 == 0) {
                    queue.drop_kept(ticket);
                    taken[ticket] = 0;
                    continue;
                }
                if (is_end) queue.keep_end(ticket);
            }
            if (!is_end) continue;
            tickets.erase(tickets.begin());
            --left;
            take_out(queue, output);
        }
        CHECK(output == expected);
        CHECK(queue.owed() == 0);
        CHECK(queue.bytes() == 0);
    }
}

TEST_CASE("part group: the error says how much has run") {
    const std::string down = "UPSTREAMDOWN Valkey is away";
    const std::string lost = "UPSTREAMLOST the connection to Valkey was lost; may have run";
    const std::string late = "UPSTREAMTIMEOUT Valkey did not answer in time; may have run";
    struct Case {
        std::vector<std::string> parts;  // a reply, or why there is none
        std::string outcome;
    };
    const std::vector<Case> cases = {
        {{"+OK\r\n", "+OK\r\n", "+OK\r\n"}, "+OK\r\n"},
        {{"+OK\r\n", "-OOM x\r\n", "-NOPERM y\r\n"}, "-OOM x\r\n"},
        {{down, down, down}, "-" + down + "\r\n"},
        {{"+OK\r\n", "+OK\r\n", lost},
         "-UPSTREAMLOST 2 of 3 parts were answered, node 10.0.0.3:6379 was lost; may have run in "
         "part\r\n"},
        {{"+OK\r\n", down, "-OOM x\r\n"},
         "-UPSTREAMLOST 2 of 3 parts were answered, node 10.0.0.2:6379 was not reached; has run in "
         "part\r\n"},
        {{down, lost, down},
         "-UPSTREAMLOST 0 of 3 parts were answered, node 10.0.0.2:6379 was lost; may have run in "
         "part\r\n"},
        {{late, "+OK\r\n", "+OK\r\n"},
         "-UPSTREAMTIMEOUT 2 of 3 parts were answered, node 10.0.0.1:6379 did not answer in time; "
         "may have run in part\r\n"},
        {{late, "+OK\r\n", lost},
         "-UPSTREAMLOST 1 of 3 parts were answered, node 10.0.0.3:6379 was lost; may have run in "
         "part\r\n"},
        {{"+OK\r\n", ":1\r\n", "+OK\r\n"}, "+OK\r\n"},
    };
    for (const Case& each : cases) {
        CAPTURE(each.outcome);
        PartGroup group(7, plan_of(3, Gather::Same));
        for (uint32_t i = 0; i < 3; ++i) {
            CHECK(!group.is_whole());
            if (each.parts[i].starts_with("UPSTREAM")) {
                group.keep(7 + i, "+O");
                group.fail(7 + i, each.parts[i]);
                CHECK(group.has_failed(7 + i));
                CHECK(group.reply(7 + i).empty());
            } else {
                group.keep(7 + i, each.parts[i]);
                group.keep_end(7 + i);
                CHECK(!group.has_failed(7 + i));
            }
        }
        CHECK(group.is_whole());
        CHECK(text_of(group.outcome()) == each.outcome);
    }
    // One that could is enough.
    PartGroup group(0, plan_of(3, Gather::One));
    group.fail(0, lost);
    group.keep(1, "-NOTBUSY x\r\n");
    group.keep_end(1);
    group.keep(2, "+OK\r\n");
    group.keep_end(2);
    CHECK(text_of(group.outcome()) == "+OK\r\n");
}

TEST_CASE("part group: more than may be kept is dropped, and told") {
    PartPlan plan = plan_of(2, Gather::Join);
    plan.bytes_max = 2000;
    PartGroup group(0, plan);
    const size_t empty = group.bytes();
    group.keep(0, std::string(1000, 'x'));
    CHECK(group.bytes() == empty + 1000);
    group.keep(1, std::string(1000, 'x'));
    CHECK(group.bytes() == empty);
    group.keep(1, std::string(10, 'x'));
    CHECK(group.bytes() == empty);
    group.keep_end(0);
    group.keep_end(1);
    CHECK(group.reply(0).empty());
    CHECK(text_of(group.outcome()).starts_with("-ERR the replies of all parts are larger than"));
}

TEST_CASE("reply queue: a part may be tried again later if nothing is behind its command") {
    ReplyQueue queue;
    queue.open(1);
    PartPlan plan = plan_of(3, Gather::Sum);
    plan.may_be_delayed = true;
    const uint32_t first = queue.open_group(plan);
    for (uint32_t i = 0; i < 3; ++i)
        CHECK(queue.last_if_delayed(first + i) == first + 2);
    CHECK(queue.last_if_delayed(0) == 0U);
    const uint32_t second = queue.open_group(plan_of(2, Gather::Same));
    CHECK(!queue.last_if_delayed(second));
    CHECK(queue.last_if_delayed(first) == first + 2);
    CHECK(queue.fail_part(second + 1, "UPSTREAMDOWN x"));
    CHECK(!queue.fail_part(0, "UPSTREAMDOWN x"));
}

}  // namespace nearkey::part_group_test
