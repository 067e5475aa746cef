// Commands in parts, and their replies put together again, against one server that is a map.
#include "nearkey/dispatch/parts.h"

#include "nearkey/resp/gather.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/slot.h"
#include "nearkey/resp/value.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace nearkey::parts_test {
namespace {

const CommandTable& table() {
    static const CommandTable made = [] {
        std::ifstream file("tests/unit/dispatch/command_reply.resp", std::ios::binary);
        const auto reply = parse_value(std::string{std::istreambuf_iterator<char>(file), {}});
        REQUIRE(reply.has_value());
        return CommandTable(*reply);
    }();
    return made;
}

std::string encoded(const std::vector<std::string>& words) {
    std::string bytes;
    append_array_header(bytes, words.size());
    for (const std::string& word : words)
        append_bulk(bytes, word);
    return bytes;
}

// A server of strings that are there or not.
struct Model {
    std::map<std::string, std::string> values;

    std::string run(const CommandView& command) {
        const std::string_view name = command[0];
        std::string reply;
        if (name == "MSET") {
            for (size_t i = 1; i < command.size(); i += 2)
                values[std::string(command[i])] = command[i + 1];
            return "+OK\r\n";
        }
        int64_t count = 0;
        if (name == "MGET") append_array_header(reply, command.size() - 1);
        for (size_t i = 1; i < command.size(); ++i) {
            const auto found = values.find(std::string(command[i]));
            if (name == "MGET") {
                found == values.end() ? append_null(reply, protocol)
                                      : append_bulk(reply, found->second);
                continue;
            }
            if (found == values.end()) continue;
            ++count;
            if (name == "DEL") values.erase(found);
        }
        if (name != "MGET") append_integer(reply, count);
        return reply;
    }
    Protocol protocol = Protocol::Resp2;
};

// Each part runs at a server of its slot.
std::string run_in_parts(std::map<uint16_t, Model>& servers, const CommandView& command,
                         Protocol protocol, std::mt19937& random) {
    const CommandSpec& spec = *table().find(command);
    const Parts parts(spec, command);
    REQUIRE(!parts.is_incomplete());
    if (parts.count() < 2) {
        Model& server = servers[slot_of(command[1])];
        server.protocol = protocol;
        return server.run(command);
    }
    std::vector<std::string> replies(parts.count());
    std::vector<size_t> order(parts.count());
    for (size_t i = 0; i < order.size(); ++i)
        order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    CommandParser parser(1 << 20);
    for (const size_t part : order) {
        std::string bytes;
        parts.encode(part, bytes);
        REQUIRE(parser.next(bytes) == ParseResult::Command);
        CHECK(parser.command().is_canonical());
        CHECK(parser.consumed() == bytes.size());
        const std::vector<size_t> places = parts.places(part);
        size_t place = 0;
        for (size_t i = 1; i < parser.command().size();
             i += static_cast<size_t>(spec.key_specs[0].step)) {
            CHECK(slot_of(parser.command()[i]) == parts.slot(part));
            CHECK(command[places[place++]] == parser.command()[i]);
        }
        Model& server = servers[parts.slot(part)];
        server.protocol = protocol;
        replies[part] = server.run(parser.command());
    }
    const std::vector<std::string_view> views(replies.begin(), replies.end());
    const auto gathered = gather({spec.gather, views, parts.part_of()});
    REQUIRE(gathered.has_value());
    std::string reply = gathered->head;
    for (const std::string_view piece : gathered->pieces)
        reply += piece;
    return reply;
}

std::optional<std::string> gathered(Gather how, const std::vector<std::string>& replies,
                                    uint64_t draw = 0) {
    const std::vector<std::string_view> views(replies.begin(), replies.end());
    const auto reply = gather({how, views, {}, draw});
    if (!reply) return std::nullopt;
    std::string text = reply->head;
    for (const std::string_view piece : reply->pieces)
        text += piece;
    return text;
}

}  // namespace

TEST_CASE("parts: a command in parts is answered as one server answers it") {
    for (uint32_t seed = 1; seed <= 200; ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        const Protocol protocol = seed % 2 == 0 ? Protocol::Resp2 : Protocol::Resp3;
        Model one;
        one.protocol = protocol;
        std::map<uint16_t, Model> servers;
        const size_t keys = 1 + random() % 60;
        for (int i = 0; i < 30; ++i) {
            const std::string name =
                std::vector<std::string>{"MGET", "MSET", "DEL", "EXISTS"}[random() % 4];
            std::vector<std::string> words{name};
            for (size_t count = 1 + random() % 40; count > 0; --count) {
                std::string key = "key" + std::to_string(random() % keys);
                if (random() % 3 == 0) key = "{tag" + std::to_string(random() % 3) + "}" + key;
                words.push_back(key);
                if (name == "MSET") words.push_back(std::string(random() % 50, 'v') + "\r\n$1\r\n");
            }
            const std::string bytes = encoded(words);
            CommandParser parser(1 << 20);
            REQUIRE(parser.next(bytes) == ParseResult::Command);
            const std::string expected = one.run(parser.command());
            CHECK(run_in_parts(servers, parser.command(), protocol, random) == expected);
        }
    }
}

TEST_CASE("parts: keys of one slot stay one command; a value that is missing is seen") {
    const auto parse = [](CommandParser& parser, const std::string& bytes) {
        REQUIRE(parser.next(bytes) == ParseResult::Command);
    };
    CommandParser parser(1 << 20);
    const std::string one = encoded({"MGET", "{t}a", "{t}b", "{t}a"});
    parse(parser, one);
    CHECK(Parts(*table().find(parser.command()), parser.command()).count() < 2);
    const std::string single = encoded({"DEL", "a"});
    parse(parser, single);
    CHECK(Parts(*table().find(parser.command()), parser.command()).count() < 2);
    const std::string half = encoded({"MSET", "a", "1", "b"});
    parse(parser, half);
    CHECK(Parts(*table().find(parser.command()), parser.command()).is_incomplete());
    const std::string all = encoded({"MSET", "a", "1", "b", "2"});
    parse(parser, all);
    const Parts parts(*table().find(parser.command()), parser.command());
    CHECK(!parts.is_incomplete());
    CHECK(parts.count() == 2);
}

TEST_CASE("spread: the server's tips and the table say where a command runs") {
    const auto spread_of = [](const std::vector<std::string>& words) {
        const std::string bytes = encoded(words);
        CommandParser parser(1 << 20);
        REQUIRE(parser.next(bytes) == ParseResult::Command);
        const CommandSpec* const spec = table().find(parser.command());
        REQUIRE(spec != nullptr);
        return std::pair(spec->spread, spec->gather);
    };
    using S = Spread;
    using G = Gather;
    CHECK(spread_of({"MGET", "a"}) == std::pair(S::EachSlot, G::Values));
    CHECK(spread_of({"MSET", "a", "b"}) == std::pair(S::EachSlot, G::Same));
    for (const std::string name : {"DEL", "UNLINK", "EXISTS", "TOUCH"})
        CHECK(spread_of({name, "a"}) == std::pair(S::EachSlot, G::Sum));
    CHECK(spread_of({"DBSIZE"}) == std::pair(S::EachNode, G::Sum));
    CHECK(spread_of({"KEYS", "*"}) == std::pair(S::EachNode, G::Join));
    CHECK(spread_of({"RANDOMKEY"}) == std::pair(S::EachNode, G::Any));
    CHECK(spread_of({"WAIT", "0", "0"}) == std::pair(S::EachNode, G::Least));
    CHECK(spread_of({"WAITAOF", "0", "0", "0"}) == std::pair(S::EachNode, G::Least));
    CHECK(spread_of({"SCRIPT", "EXISTS", "x"}) == std::pair(S::EachNode, G::Every));
    CHECK(spread_of({"SCRIPT", "KILL"}) == std::pair(S::EachNode, G::One));
    CHECK(spread_of({"FUNCTION", "KILL"}) == std::pair(S::EachNode, G::One));
    CHECK(spread_of({"FUNCTION", "STATS"}) == std::pair(S::EachNode, G::Running));
    for (const std::string name : {"FLUSHALL", "FLUSHDB"})
        CHECK(spread_of({name}) == std::pair(S::EachNode, G::Same));
    for (const std::string name : {"LOAD", "DELETE", "FLUSH", "RESTORE"})
        CHECK(spread_of({"FUNCTION", name, "x"}) == std::pair(S::EachNode, G::Same));
    for (const std::string name : {"LOAD", "FLUSH"})
        CHECK(spread_of({"SCRIPT", name, "x"}) == std::pair(S::EachNode, G::Same));
    CHECK(spread_of({"PUBSUB", "CHANNELS"}) == std::pair(S::EachNode, G::Union));
    CHECK(spread_of({"PUBSUB", "SHARDCHANNELS"}) == std::pair(S::EachNode, G::Union));
    for (const std::string name : {"NUMSUB", "NUMPAT", "SHARDNUMSUB"})
        CHECK(spread_of({"PUBSUB", name}) == std::pair(S::EachNode, G::Sum));
    CHECK(spread_of({"SCAN", "0"}).first == S::Scan);
    CHECK(spread_of({"ACL", "SETUSER", "x"}).first == S::Nowhere);
    // What has no tip, and what is about one server.
    for (const std::vector<std::string>& words : {std::vector<std::string>{"MSETNX", "a", "b"},
                                                  {"SINTER", "a", "b"},
                                                  {"RENAME", "a", "b"},
                                                  {"GET", "a"},
                                                  {"PING"},
                                                  {"INFO"},
                                                  {"CONFIG", "SET", "a", "b"},
                                                  {"MEMORY", "STATS"},
                                                  {"FUNCTION", "LIST"},
                                                  {"FUNCTION", "DUMP"},
                                                  {"CLIENT", "LIST"},
                                                  {"SLOWLOG", "LEN"}})
        CHECK(spread_of(words).first == S::OneNode);
}

TEST_CASE("gather: numbers, at the same places of arrays too") {
    CHECK(gathered(Gather::Sum, {":1\r\n", ":20\r\n", ":0\r\n"}) == ":21\r\n");
    CHECK(gathered(Gather::Least, {":3\r\n", ":2\r\n", ":5\r\n"}) == ":2\r\n");
    CHECK(gathered(Gather::Least, {"*2\r\n:1\r\n:2\r\n", "*2\r\n:0\r\n:3\r\n"}) ==
          "*2\r\n:0\r\n:2\r\n");
    CHECK(gathered(Gather::Every, {"*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"}) ==
          "*2\r\n:0\r\n:1\r\n");
    CHECK(gathered(Gather::Sum, {"*2\r\n$1\r\na\r\n:1\r\n", "*2\r\n$1\r\na\r\n:2\r\n"}) ==
          "*2\r\n$1\r\na\r\n:3\r\n");
    CHECK(gathered(Gather::Sum, {":9223372036854775807\r\n", ":1\r\n"}).has_value());
}

TEST_CASE("gather: arrays are joined or united, and one reply is chosen") {
    CHECK(gathered(Gather::Join, {"*1\r\n$1\r\na\r\n", "*0\r\n", "*1\r\n$1\r\na\r\n"}) ==
          "*2\r\n$1\r\na\r\n$1\r\na\r\n");
    CHECK(gathered(Gather::Union, {"*1\r\n$1\r\na\r\n", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"}) ==
          "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    CHECK(gathered(Gather::Same, {"+OK\r\n", "+OK\r\n"}) == "+OK\r\n");
    for (uint64_t draw = 0; draw < 6; ++draw) {
        CHECK(gathered(Gather::Any, {"$-1\r\n", "$1\r\nk\r\n", "_\r\n"}, draw) == "$1\r\nk\r\n");
        CHECK(gathered(Gather::Any, {"_\r\n", "_\r\n"}, draw) == "_\r\n");
    }
    CHECK(gathered(Gather::Any, {"$1\r\na\r\n", "$1\r\nb\r\n"}, 1) == "$1\r\nb\r\n");
    const std::string idle = "%1\r\n$14\r\nrunning_script\r\n_\r\n";
    const std::string busy = "%1\r\n$14\r\nrunning_script\r\n*0\r\n";
    CHECK(gathered(Gather::Running, {idle, busy, idle}) == busy);
    CHECK(gathered(Gather::Running, {idle, idle}) == idle);
    CHECK(gathered(Gather::One, {"-NOTBUSY x\r\n", "+OK\r\n"}) == "+OK\r\n");
    CHECK(gathered(Gather::One, {"-NOTBUSY x\r\n", "-UNKILLABLE y\r\n", "-NOTBUSY x\r\n"}) ==
          "-UNKILLABLE y\r\n");
    CHECK(gathered(Gather::One, {"-NOTBUSY x\r\n", "-NOTBUSY x\r\n"}) == "-NOTBUSY x\r\n");
}

TEST_CASE("gather: a reply of another form is told, not believed") {
    const std::vector<std::string> odd = {"+OK\r\n", "$1\r\na\r\n", "_\r\n", "*-1\r\n", ":x\r\n"};
    for (const std::string& reply : odd) {
        CAPTURE(reply);
        CHECK(!gathered(Gather::Join, {"*0\r\n", reply}));
        CHECK(!gathered(Gather::Union, {"*0\r\n", reply}));
        CHECK(!gathered(Gather::Sum, {":1\r\n", reply}));
        CHECK(!gathered(Gather::Every, {"*1\r\n:1\r\n", reply}));
    }
    CHECK(!gathered(Gather::Sum, {"*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n"}));
    CHECK(!gathered(Gather::Sum, {"*1\r\n:1\r\n", "*1\r\n$1\r\na\r\n"}));
    const std::vector<uint16_t> part_of = {0, 1, 0};
    const auto values = [&](const std::string& first, const std::string& second) {
        const std::vector<std::string_view> views = {first, second};
        return gather({Gather::Values, views, part_of}).has_value();
    };
    CHECK(values("*2\r\n_\r\n_\r\n", "*1\r\n_\r\n"));
    CHECK(!values("*1\r\n_\r\n", "*2\r\n_\r\n_\r\n"));
    CHECK(!values("*2\r\n_\r\n_\r\n", "*2\r\n_\r\n_\r\n"));
    CHECK(!values("*3\r\n_\r\n_\r\n_\r\n", "+OK\r\n"));
}

}  // namespace nearkey::parts_test
