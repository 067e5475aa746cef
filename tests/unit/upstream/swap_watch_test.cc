#include "nearkey/upstream/swap_watch.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::swap_watch_test {
namespace {

using enum SwapWatch::Verdict;

struct Counts {
    int swaps = 0;
    int questions = 0;
    int reset_usec = 0;  // 0: nothing was ever reset
    int refused_resets = 0;
};

std::string entry(const std::string& name, int calls, const std::string& more) {
    return "cmdstat_" + name + ":calls=" + std::to_string(calls) + more + "\r\n";
}

// As Valkey 8.0 says it: what was never called has no entry.
std::string info_of(const Counts& counts) {
    std::string info = "$999\r\n# Commandstats\r\n";
    if (counts.swaps > 0) info += entry("swapdb", counts.swaps, ",usec=7,usec_per_call=7.00");
    if (counts.questions > 0) info += entry("info", counts.questions, ",usec=9,usec_per_call=9.00");
    const int resets = counts.reset_usec > 0 ? 1 : 0;
    if (resets > 0 || counts.refused_resets > 0) {
        info += entry("config|resetstat", resets,
                      ",usec=" + std::to_string(counts.reset_usec) + ",usec_per_call=1.00" +
                          ",rejected_calls=" + std::to_string(counts.refused_resets) +
                          ",failed_calls=0");
    }
    return info + "\r\n# Keyspace\r\n";
}

TEST_CASE("swap watch: what a server has counted before it was asked first is no news") {
    SwapWatch watch;
    CHECK_FALSE(watch.is_counting());
    CHECK(watch.note(info_of({.swaps = 3, .questions = 9, .reset_usec = 30})) == Unchanged);
    CHECK(watch.is_counting());
    CHECK(watch.note(info_of({.swaps = 3, .questions = 10, .reset_usec = 30})) == Unchanged);
    CHECK(watch.note(info_of({.swaps = 3, .questions = 99, .reset_usec = 30})) == Unchanged);
}

TEST_CASE("swap watch: each SWAPDB is seen, once") {
    SwapWatch watch;
    CHECK(watch.note(info_of({})) == Unchanged);
    CHECK(watch.note(info_of({.swaps = 1, .questions = 1})) == Swapped);
    CHECK(watch.note(info_of({.swaps = 1, .questions = 2})) == Unchanged);
    CHECK(watch.note(info_of({.swaps = 5, .questions = 3})) == Swapped);
}

TEST_CASE("swap watch: a reset that hides a SWAPDB is seen") {
    SwapWatch watch;
    SUBCASE("the first one, by its entry") {
        CHECK(watch.note(info_of({.questions = 1})) == Unchanged);
        CHECK(watch.note(info_of({.questions = 7, .reset_usec = 30})) == Swapped);
    }
    SUBCASE("a later one, by its entry") {
        CHECK(watch.note(info_of({.swaps = 1, .questions = 1, .reset_usec = 30})) == Unchanged);
        CHECK(watch.note(info_of({.swaps = 1, .questions = 7, .reset_usec = 31})) == Swapped);
    }
    SUBCASE("one that took as long as the one before, by our own questions") {
        CHECK(watch.note(info_of({.questions = 4, .reset_usec = 30})) == Unchanged);
        CHECK(watch.note(info_of({.questions = 4, .reset_usec = 30})) == Swapped);
        CHECK(watch.note(info_of({.questions = 0, .reset_usec = 30})) == Swapped);
        CHECK(watch.note(info_of({.questions = 0, .reset_usec = 30})) == Swapped);
    }
    SUBCASE("a refused one has hidden nothing") {
        CHECK(watch.note(info_of({})) == Unchanged);
        CHECK(watch.note(info_of({.questions = 1, .refused_resets = 1})) == Unchanged);
    }
    SUBCASE("a refused one behind another has hidden nothing") {
        CHECK(watch.note(info_of({.questions = 1, .reset_usec = 30})) == Unchanged);
        CHECK(watch.note(info_of({.questions = 2, .reset_usec = 30, .refused_resets = 1})) ==
              Unchanged);
    }
}

TEST_CASE("swap watch: a server that does not count INFO resets nothing by that") {
    SwapWatch watch;
    for (int i = 0; i < 3; ++i)
        CHECK(watch.note(info_of({.swaps = 1})) == Unchanged);
}

TEST_CASE("swap watch: what was swapped while nobody asked is not known") {
    SwapWatch watch;
    CHECK(watch.note(info_of({.questions = 5})) == Unchanged);
    watch.forget();
    CHECK_FALSE(watch.is_counting());
    CHECK(watch.note(info_of({.questions = 2})) == Resumed);
    CHECK(watch.is_counting());
    CHECK(watch.note(info_of({.questions = 3})) == Unchanged);
}

}  // namespace
}  // namespace nearkey::swap_watch_test
