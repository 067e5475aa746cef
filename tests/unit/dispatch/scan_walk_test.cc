// SCAN over a model of a cluster: tables with cursors as the server has them, each node with a hash
// of its own, slots that move key by key between any two questions, and a map that is late.
#include "nearkey/dispatch/scan_walk.h"

#include "../rounds.h"
#include "nearkey/resp/elements.h"
#include "nearkey/resp/slot.h"
#include "nearkey/resp/value.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace nearkey::scan_walk_test {
namespace {

constexpr uint64_t kSlotMask = kSlots - 1;

std::string bulk(const std::string& text) {
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

// The server's table of a slot.
class Table {
public:
    explicit Table(uint32_t seed) : seed_(seed) {}
    std::set<std::string> keys;

    uint64_t scan(uint64_t cursor, std::vector<std::string>& found) const {
        const uint64_t mask = size() - 1;
        for (const std::string& key : keys)
            if ((hash(key) & mask) == (cursor & mask)) found.push_back(key);
        // Counts in the reversed bits, as dictScan does.
        cursor |= ~mask;
        cursor = reversed(cursor);
        ++cursor;
        return reversed(cursor);
    }

private:
    uint64_t size() const {
        uint64_t size = 4;
        while (size < keys.size())
            size *= 2;
        return size;
    }
    uint64_t hash(const std::string& key) const {
        uint64_t hash = seed_;
        for (const char c : key)
            hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
        return hash ^ hash >> 31;
    }
    static uint64_t reversed(uint64_t bits) {
        uint64_t result = 0;
        for (int i = 0; i < 64; ++i)
            result |= (bits >> i & 1) << (63 - i);
        return result;
    }
    uint32_t seed_;
};

struct ModelNode {
    uint32_t seed;
    std::map<uint16_t, Table> tables;

    Table& table(uint16_t slot) { return tables.try_emplace(slot, seed).first->second; }
    // kvstoreScan() in a loop, as SCAN does.
    std::string scan(uint64_t cursor, size_t count) {
        std::vector<std::string> found;
        size_t turns = 10 * count;
        do {
            const auto slot = static_cast<uint16_t>(cursor & kSlotMask);
            auto at = tables.find(slot);
            uint64_t place = 0;
            if (at != tables.end() && !at->second.keys.empty()) {
                place = at->second.scan(cursor >> 14, found);
            }
            if (place != 0) {
                cursor = place << 14 | slot;
                continue;
            }
            auto next = tables.upper_bound(slot);
            while (next != tables.end() && next->second.keys.empty())
                ++next;
            cursor = next == tables.end() ? 0 : next->first;
        } while (cursor != 0 && --turns > 0 && found.size() < count);
        std::string reply =
            "*2\r\n" + bulk(std::to_string(cursor)) + "*" + std::to_string(found.size()) + "\r\n";
        for (const std::string& key : found)
            reply += bulk(key);
        return reply;
    }
};

class ModelCluster {
public:
    ModelCluster(std::mt19937& random, size_t nodes) : random_(random) {
        for (size_t i = 0; i < nodes; ++i)
            nodes_.push_back({static_cast<uint32_t>(random_() | 1U), {}});
        // In a few rows.
        for (size_t slot = 0; slot < kSlots;) {
            const size_t end = std::min<size_t>(kSlots, slot + 1 + below(9000));
            const auto owner = static_cast<uint16_t>(below(nodes));
            for (; slot < end; ++slot)
                owners_[slot] = known_[slot] = owner;
        }
        targets_.fill(kNone);
    }

    size_t below(size_t bound) { return random_() % bound; }
    void add(const std::string& key) {
        const uint16_t slot = slot_of(key);
        // As a write does it: to where ASK leads, if it is moving.
        const bool is_moving =
            targets_[slot] != kNone && !node_of(slot).table(slot).keys.contains(key);
        nodes_[is_moving ? targets_[slot] : owners_[slot]].table(slot).keys.insert(key);
        used_.insert(slot);
    }
    void remove(const std::string& key) {
        for (ModelNode& node : nodes_)
            node.table(slot_of(key)).keys.erase(key);
    }
    size_t moves() const { return moves_; }
    // Longer rows are not told of: no more slots are asked about at a time.
    size_t row_max = kSlots;
    size_t moves_max = SIZE_MAX;
    size_t pieces_max = 0;  // 0: what is sent in one piece is run as one

    // A step of some migration.
    void move() {
        if (moves_ >= moves_max) return;
        const auto at = std::next(used_.begin(), static_cast<ptrdiff_t>(below(used_.size())));
        const uint16_t slot = *at;
        if (targets_[slot] == kNone) {
            // None comes back within a few questions.
            if (rests_until_[slot] > ++steps_) return;
            const auto target = static_cast<uint16_t>(below(nodes_.size()));
            if (target != owners_[slot]) targets_[slot] = target;
            return;
        }
        Table& from = node_of(slot).table(slot);
        Table& to = nodes_[targets_[slot]].table(slot);
        for (size_t i = below(20) + 1; i > 0 && !from.keys.empty(); --i) {
            const auto key =
                std::next(from.keys.begin(), static_cast<ptrdiff_t>(below(from.keys.size())));
            to.keys.insert(*key);
            from.keys.erase(key);
        }
        if (!from.keys.empty()) return;
        owners_[slot] = std::exchange(targets_[slot], kNone);
        rests_until_[slot] = steps_ + 2;
        ++moves_;
    }
    void learn_all() { known_ = owners_; }

    uint16_t known_owner(uint16_t slot) const { return known_[slot]; }
    uint16_t last_of_row(uint16_t slot) const {
        uint16_t last = slot;
        while (last + 1 < kSlots && last < slot + row_max && known_[last + 1U] == known_[slot])
            ++last;
        return last;
    }
    uint16_t follow(const Redirect& redirect) {
        const auto node = static_cast<uint16_t>(redirect.port - 1);
        if (redirect.kind == Redirect::Kind::Moved)
            known_[static_cast<size_t>(redirect.slot)] = node;
        return node;
    }

    // The replies of one node to what was sent in one piece.
    std::vector<std::string> answer(uint16_t number, const std::string& bytes) {
        std::vector<std::string> replies;
        CommandParser parser(1 << 20);
        std::string_view rest = bytes;
        while (!rest.empty()) {
            if (parser.next(rest) != ParseResult::Command) FAIL("not a command");
            replies.push_back(answer_one(number, parser.command()));
            // The server may have read the piece in two.
            if (pieces_max > 0 && below(pieces_max) == 0) move();
            rest.remove_prefix(parser.consumed());
        }
        return replies;
    }

private:
    static constexpr uint16_t kNone = UINT16_MAX;
    ModelNode& node_of(uint16_t slot) { return nodes_[owners_[slot]]; }
    std::string answer_one(uint16_t number, const CommandView& command) {
        const auto at = [](const char* word, uint16_t slot, uint16_t node) {
            return "-" + std::string(word) + " " + std::to_string(slot) +
                   " 10.0.0.1:" + std::to_string(node + 1) + "\r\n";
        };
        if (command[0] == "SCAN") {
            const size_t count = command.size() > 3 ? std::stoul(std::string(command[3])) : 10;
            return nodes_[number].scan(std::stoull(std::string(command[1])), count);
        }
        const uint16_t slot = slot_of(command[1]);
        if (owners_[slot] != number) return at("MOVED", slot, owners_[slot]);
        return targets_[slot] != kNone ? at("ASK", slot, targets_[slot]) : ":0\r\n";
    }

    std::mt19937& random_;
    std::vector<ModelNode> nodes_;
    std::array<uint16_t, kSlots> owners_{};
    std::array<uint16_t, kSlots> targets_{};
    std::array<uint16_t, kSlots> known_{};
    std::set<uint16_t> used_;
    std::map<uint16_t, size_t> rests_until_;
    size_t steps_ = 0;
    size_t moves_ = 0;
};

std::string encoded(const std::vector<std::string>& words) {
    std::string bytes = "*" + std::to_string(words.size()) + "\r\n";
    for (const std::string& word : words)
        bytes += bulk(word);
    return bytes;
}

// One command of a client. `between` runs before each question.
template <class Between>
std::string run(ScanWalk& walk, ModelCluster& cluster, const std::vector<std::string>& words,
                Between between) {
    const std::string bytes = encoded(words);
    CommandParser parser(1 << 20);
    REQUIRE(parser.next(bytes) == ParseResult::Command);
    if (!walk.begin(parser.command())) return "-ERR invalid cursor\r\n";
    std::optional<uint16_t> target;
    for (size_t tries = 0; tries < 1000; ++tries) {
        between();
        const uint16_t node = target ? *target : cluster.known_owner(walk.slot());
        target.reset();
        std::string asked;
        const uint32_t count =
            walk.ask({static_cast<uint16_t>(node + 1), cluster.last_of_row(walk.slot())}, asked);
        const std::vector<std::string> replies = cluster.answer(node, asked);
        REQUIRE(replies.size() == count);
        ScanWalk::Step step = walk.take(replies);
        if (step == ScanWalk::Step::Moved) cluster.follow(walk.redirect());
        if (step == ScanWalk::Step::Target) {
            const uint16_t named = cluster.follow(walk.redirect());
            bool is_asked = false;
            step = walk.note_target(static_cast<uint16_t>(named + 1), is_asked);
            if (is_asked) target = named;
        }
        if (step == ScanWalk::Step::Done) return walk.reply();
    }
    FAIL("it does not come to an end");
    return {};
}

// All pages, until the cursor is 0.
template <class Between>
std::vector<std::string> scan_all(ModelCluster& cluster, size_t count, Between between) {
    ScanWalk walk;
    std::vector<std::string> keys;
    std::string cursor = "0";
    for (size_t pages = 0; pages < 10'000; ++pages) {
        const std::string reply =
            run(walk, cluster, {"SCAN", cursor, "COUNT", std::to_string(count)}, between);
        const auto page = parse_value(reply);
        REQUIRE(page.has_value());
        REQUIRE_MESSAGE(page->elements.size() == 2, reply);
        for (const Value& key : page->elements[1].elements)
            keys.push_back(key.text);
        cursor = page->elements[0].text;
        CHECK(std::stoull(cursor) < uint64_t{1} << 53);
        if (cursor == "0") return keys;
    }
    FAIL("the cursor never comes back to 0");
    return keys;
}

}  // namespace

TEST_CASE("scan cursor: comes back as it was, and a server's is one of the cluster's") {
    std::mt19937_64 random(1);
    for (int i = 0; i < 10'000; ++i) {
        const uint64_t number = random() >> (random() % 64);
        if (number >> 53 != 0) continue;
        CHECK(ScanCursor::read(number).number() == number);
        const ScanCursor cursor{.slot = static_cast<uint16_t>(random() % kSlots),
                                .tag = static_cast<uint16_t>(random() % ScanWalk::kTags),
                                .is_moving = random() % 2 == 0,
                                .is_target = random() % 2 == 0,
                                .place = random() >> (37 + random() % 27)};
        CHECK(ScanCursor::read(cursor.number()) == cursor);
        const ScanCursor large{.slot = cursor.slot, .place = random() >> 20 | uint64_t{1} << 27};
        CHECK(ScanCursor::read(large.number()) == large);
    }
    CHECK(ScanCursor::read(0).number() == 0);
}

TEST_CASE("scan walk: each key once while nothing moves, in few pages") {
    for (uint32_t seed = 1; seed <= 30; ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        ModelCluster cluster(random, 1 + random() % 5);
        std::vector<std::string> keys(random() % 300);
        for (size_t i = 0; i < keys.size(); ++i)
            cluster.add(keys[i] = "k" + std::to_string(i * seed));
        size_t questions = 0;
        auto found = scan_all(cluster, 1 + random() % 50, [&] { ++questions; });
        std::sort(found.begin(), found.end());
        std::sort(keys.begin(), keys.end());
        CHECK(found == keys);
        CHECK(questions < 3 * keys.size() + 100);
    }
}

// All keys are of eight slots that are close together, and only these are read: so there are many
// moves for each question.
TEST_CASE("scan walk: each key that stays is found, whatever moves meanwhile") {
    constexpr uint16_t kFirst = 100;
    constexpr uint16_t kLast = 140;
    std::vector<std::string> tags;
    for (unsigned i = 0; tags.size() < 8; ++i) {
        const std::string tag = std::to_string(i);
        if (slot_of(tag) >= kFirst && slot_of(tag) < kLast) tags.push_back("{" + tag + "}");
    }
    size_t moves = 0;
    size_t again = 0;
    for (uint32_t seed = 1; seed <= rounds(1000); ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        ModelCluster cluster(random, 2 + random() % 3);
        cluster.row_max = 40;
        cluster.pieces_max = random() % 4 == 0 ? 0 : 20 + random() % 100;
        std::set<std::string> keys;
        const size_t used = 1 + random() % tags.size();
        for (size_t i = 0; i < 20 + random() % 80; ++i) {
            keys.insert(tags[random() % used] + std::to_string(i));
            cluster.add(*keys.rbegin());
        }
        for (const std::string& key : keys)
            cluster.add(key);
        const size_t pace = 1 + random() % 3;
        // A slot that moves all the time is read from its beginning all the time.
        cluster.moves_max = 1 + random() % 60;
        const auto between = [&] {
            for (size_t i = random() % 4; i > 0; --i)
                if (random() % pace == 0) cluster.move();
            if (random() % 20 == 0) cluster.learn_all();
            const std::string passing = tags[random() % used] + "new";
            if (random() % 4 == 0) cluster.add(passing);
            if (random() % 4 == 0) cluster.remove(passing);
        };
        std::set<std::string> found;
        ScanWalk walk;
        std::string cursor = std::to_string(kFirst);
        for (size_t pages = 0; cursor != "0" && ScanCursor::read(std::stoull(cursor)).slot < kLast;
             ++pages) {
            if (pages > 3000) FAIL("it does not come to an end");
            const std::string count = std::to_string(1 + random() % 12);
            const auto page =
                parse_value(run(walk, cluster, {"SCAN", cursor, "COUNT", count}, between));
            if (!page || page->elements.size() != 2) FAIL("no page");
            for (const Value& key : page->elements[1].elements)
                again += found.insert(key.text).second ? 0 : 1;
            cursor = page->elements[0].text;
        }
        size_t lost = 0;
        for (const std::string& key : keys)
            lost += found.contains(key) ? 0 : 1;
        CHECK(lost == 0);
        for (const std::string& key : found)
            CHECK((key.ends_with("new") || keys.contains(key)));
        moves += cluster.moves();
    }
    CHECK(moves > 2000);
    CHECK(again > 100);
}

namespace {

// By hand: what is asked, and what is said.
class HandWalk {
public:
    explicit HandWalk(const ScanCursor& cursor) {
        const std::string bytes = encoded({"SCAN", std::to_string(cursor.number())});
        CommandParser parser(1 << 20);
        REQUIRE(parser.next(bytes) == ParseResult::Command);
        REQUIRE(walk.begin(parser.command()));
    }
    // The commands that a node is asked now.
    std::vector<std::string> ask(uint16_t tag) {
        std::string bytes;
        const uint32_t count = walk.ask({tag, walk.slot()}, bytes);
        std::vector<std::string> lines;
        CommandParser parser(1 << 20);
        for (std::string_view rest = bytes; !rest.empty(); rest.remove_prefix(parser.consumed())) {
            REQUIRE(parser.next(rest) == ParseResult::Command);
            const CommandView& command = parser.command();
            lines.push_back(command[0] == "SCAN" ? "SCAN " + std::string(command[1]) : "EXISTS");
        }
        REQUIRE(lines.size() == count);
        return lines;
    }
    ScanWalk walk;
};

const std::string kAsk = "-ASK 15495 10.0.0.2:1\r\n";
const std::string kPageOfA = "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n";
constexpr uint16_t kSlotOfA = 15495;

std::string scan_of(uint64_t place) {
    return "SCAN " + std::to_string(place << 14 | kSlotOfA);
}

}  // namespace

TEST_CASE("scan walk: a slot that was half read while it moved, and stayed, is read anew") {
    for (const bool is_moving : {false, true}) {
        HandWalk hand(
            {.slot = kSlotOfA, .tag = 1, .is_moving = is_moving, .is_target = false, .place = 5});
        REQUIRE(hand.ask(1) == std::vector<std::string>{"EXISTS", scan_of(5), "EXISTS"});
        const std::vector<std::string> replies = {":0\r\n", kPageOfA, ":0\r\n"};
        const ScanWalk::Step step = hand.walk.take(replies);
        if (is_moving) {
            CHECK(step == ScanWalk::Step::Again);
            CHECK(hand.ask(1)[1] == scan_of(0));
        } else {
            CHECK(step == ScanWalk::Step::Done);
            CHECK(hand.walk.reply() == "*2\r\n$5\r\n15496\r\n*1\r\n$1\r\na\r\n");
        }
    }
}

TEST_CASE("scan walk: a slot is read on at its target only while it is moving there") {
    const ScanCursor cursor{
        .slot = kSlotOfA, .tag = 2, .is_moving = false, .is_target = true, .place = 5};
    using Step = ScanWalk::Step;
    bool is_asked = false;
    const auto begin = [&](HandWalk& hand, const std::string& said) {
        REQUIRE(hand.ask(1) == std::vector<std::string>{"EXISTS"});
        return hand.walk.take(std::vector<std::string>{said});
    };
    const auto is_read_anew = [](HandWalk& hand) { return hand.ask(1)[1] == scan_of(0); };

    HandWalk stays(cursor);
    CHECK(begin(stays, ":0\r\n") == Step::Again);
    CHECK(is_read_anew(stays));

    HandWalk elsewhere(cursor);
    CHECK(begin(elsewhere, kAsk) == Step::Target);
    CHECK(elsewhere.walk.note_target(3, is_asked) == Step::Again);
    CHECK(!is_asked);
    CHECK(is_read_anew(elsewhere));

    HandWalk arrived(cursor);
    CHECK(arrived.ask(2)[1] == scan_of(5));

    for (const uint16_t confirmed : {uint16_t{2}, uint16_t{3}, uint16_t{0}}) {
        CAPTURE(confirmed);
        HandWalk there(cursor);
        CHECK(begin(there, kAsk) == Step::Target);
        CHECK(there.walk.note_target(2, is_asked) == Step::Again);
        REQUIRE(is_asked);
        REQUIRE(there.ask(2) == std::vector<std::string>{scan_of(5)});
        REQUIRE(there.walk.take(std::vector<std::string>{kPageOfA}) == Step::Again);
        REQUIRE(there.ask(1) == std::vector<std::string>{"EXISTS"});
        if (confirmed == 0) {
            CHECK(there.walk.take(std::vector<std::string>{":0\r\n"}) == Step::Again);
            CHECK(is_read_anew(there));
            continue;
        }
        CHECK(there.walk.take(std::vector<std::string>{kAsk}) == Step::Target);
        const Step step = there.walk.note_target(confirmed, is_asked);
        CHECK(!is_asked);
        CHECK((step == Step::Done) == (confirmed == 2));
        if (confirmed == 2) {
            CHECK(there.walk.reply() == "*2\r\n$5\r\n15496\r\n*1\r\n$1\r\na\r\n");
        } else {
            CHECK(is_read_anew(there));
        }
    }
}

TEST_CASE("scan walk: the server's errors are the client's, and strange cursors are told") {
    std::mt19937 random(1);
    ModelCluster cluster(random, 1);
    ScanWalk walk;
    for (const std::string cursor : {"x", "", "-1", "1x", "18446744073709551616"})
        CHECK(run(walk, cluster, {"SCAN", cursor}, [] {}) == "-ERR invalid cursor\r\n");
    for (const std::string cursor : {"01", " 1", "+1", "18446744073709551615", "9007199254740991"})
        CHECK(run(walk, cluster, {"SCAN", cursor}, [] {}) == "*2\r\n$1\r\n0\r\n*0\r\n");

    const auto reply_to = [&](const std::string& said) {
        const std::string bytes = encoded({"SCAN", "0"});
        CommandParser parser(1 << 20);
        REQUIRE(parser.next(bytes) == ParseResult::Command);
        REQUIRE(walk.begin(parser.command()));
        std::string asked;
        std::vector<std::string> replies(walk.ask({1, kSlots - 1}, asked), ":0\r\n");
        replies[replies.size() / 2] = said;
        REQUIRE(walk.take(replies) == ScanWalk::Step::Done);
        return walk.reply();
    };
    CHECK(reply_to("-ERR syntax error\r\n") == "-ERR syntax error\r\n");
    // SCAN names no key: a node that says so lies, and its words are nobody's.
    for (const std::string word : {"-MOVED 5 10.0.0.1:6379\r\n", "-ASK x y\r\n"})
        CHECK(reply_to(word) == "-TRYAGAIN the slots that are scanned are moving\r\n");
    // Keys of slots that such a cursor can't have passed.
    const std::string strange = "*2\r\n$1\r\n1\r\n*1\r\n$1\r\na\r\n";
    REQUIRE(slot_of("a") > 1);
    CHECK(reply_to(strange).starts_with("-ERR SCAN over a cluster needs a server"));
    CHECK(reply_to("+OK\r\n").starts_with("-ERR SCAN over a cluster needs a server"));
}

}  // namespace nearkey::scan_walk_test
