#include "nearkey/session/early_replies.h"
#include "../rounds.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>
#include <utility>

namespace nearkey::early_replies_test {
namespace {

using What = EarlyReply::What;
constexpr size_t kEntry = 64;
// So much that is nobody's is not worth moving the rest.
constexpr size_t kDeadMin = size_t{16} << 10;

// The same by a map.
struct Model {
    std::map<uint32_t, std::pair<What, std::string>> entries;  // by distance from `origin`

    size_t bytes() const {
        size_t sum = 0;
        for (const auto& [ticket, entry] : entries)
            sum += kEntry + entry.second.size();
        return sum;
    }
};

}  // namespace

TEST_CASE("early replies: what is kept is found, in any order, of any size, past the last number") {
    for (uint32_t seed = 1; seed <= rounds(60); ++seed) {
        CAPTURE(seed);
        std::mt19937 random(seed);
        const auto below = [&](size_t bound) { return static_cast<uint32_t>(random() % bound); };
        const uint32_t origin = 0xffffff00;
        const size_t window = size_t{1} << below(8);
        const size_t piece_max = size_t{1} << below(14);
        EarlyReplies early;
        Model model;
        for (uint32_t first = 0; first < 600;) {
            const uint32_t at = first + below(window);
            const uint32_t ticket = origin + at;
            const uint32_t deed = below(8);
            if (deed < 5) {
                const std::string piece(below(piece_max), static_cast<char>('a' + below(26)));
                const What what = deed == 0 ? What::Whole : What::Part;
                early.add(origin + first, ticket, what, piece);
                auto& entry = model.entries[at];
                entry.first = what;
                entry.second += piece;
            } else if (deed == 5) {
                early.drop(ticket);
                model.entries.erase(at);
            } else {
                // The first one goes, and with it its entry.
                const auto known = early.find(origin + first);
                const auto expected = model.entries.find(first);
                REQUIRE(known.has_value() == (expected != model.entries.end()));
                if (known) {
                    REQUIRE(known->what == expected->second.first);
                    REQUIRE(known->bytes == expected->second.second);
                    early.drop(origin + first);
                    model.entries.erase(expected);
                }
                ++first;
            }
            REQUIRE(early.bytes() == model.bytes());
            REQUIRE(early.shared_bytes() <= 2 * model.bytes() + kDeadMin);
            REQUIRE(early.empty() == model.entries.empty());
        }
        for (const auto& [at, entry] : model.entries) {
            const auto known = early.find(origin + at);
            REQUIRE(known);
            CHECK(known->what == entry.first);
            CHECK(known->bytes == entry.second);
        }
    }
}

}  // namespace nearkey::early_replies_test
