// nearkey_simulation: runs seeds, prints those that fail, and ends with one line about all of them.
#include "world.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::simulation {

namespace {

struct Arguments {
    uint64_t seeds = 1000;
    uint64_t first = 1;
    bool is_single = false;  // one seed, with its trace if it fails
    bool is_verbose = false;
    bool expects_violations = false;
    Kinds kinds;
};

struct Totals {
    uint64_t seeds = 0;
    uint64_t operations = 0;
    uint64_t hits = 0;
    uint64_t segment_hits = 0;
    uint64_t violations = 0;
};

std::string contents(const std::string& name) {
    std::ifstream file(std::string(NEARKEY_SIMULATION_DIRECTORY "/") + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

bool leave_out(Kinds& kinds, std::string_view name) {
    const auto found = std::find(kKindNames.begin(), kKindNames.end(), name);
    if (found == kKindNames.end()) return false;
    kinds.leave_out(static_cast<Kind>(found - kKindNames.begin()));
    return true;
}

bool parse(const std::vector<std::string_view>& words, Arguments& arguments) {
    for (size_t i = 1; i < words.size(); ++i) {
        const std::string_view word = words[i];
        if (word == "--verbose") {
            arguments.is_verbose = true;
        } else if (word == "--expect-violations") {
            arguments.expects_violations = true;
        } else if (i + 1 < words.size() && (word == "--seeds" || word == "--first")) {
            (word == "--seeds" ? arguments.seeds : arguments.first) =
                std::strtoull(words[++i].data(), nullptr, 10);
        } else if (i + 1 < words.size() && word == "--without") {
            if (!leave_out(arguments.kinds, words[++i])) return false;
        } else if (i + 1 < words.size() && word == "--seed") {
            arguments.first = std::strtoull(words[++i].data(), nullptr, 10);
            arguments.seeds = 1;
            arguments.is_single = true;
        } else {
            return false;
        }
    }
    return true;
}

// The run's digest.
uint64_t run_seed(uint64_t seed, const Arguments& arguments, Totals& totals) {
    static const std::string commands = contents("command_reply.resp");
    World world(seed, {commands, arguments.kinds, arguments.is_single});
    world.run();
    ++totals.seeds;
    totals.operations += world.operations();
    totals.hits += world.hits();
    totals.segment_hits += world.segment_hits();
    totals.violations += world.violations.size();
    if (arguments.is_single && (arguments.is_verbose || !world.violations.empty())) {
        fmt::print("{}", world.trace);
    }
    if (!world.violations.empty()) {
        fmt::print("simulation/seed {}: {} FAIL\n", seed, world.violations[0]);
    } else if (arguments.is_verbose || arguments.is_single) {
        fmt::print("simulation/seed {}: {} operations, {} hits, digest {:016x} ok\n", seed,
                   world.operations(), world.hits(), world.digest());
    }
    return world.digest();
}

int run(const Arguments& arguments) {
    Totals totals;
    bool is_repeatable = true;
    for (uint64_t seed = arguments.first; seed < arguments.first + arguments.seeds; ++seed) {
        const uint64_t digest = run_seed(seed, arguments, totals);
        // The same seed is the same run.
        if (totals.seeds == 1 && !arguments.is_single && !arguments.expects_violations) {
            Totals again;
            is_repeatable = run_seed(seed, arguments, again) == digest;
            fmt::print("simulation/one seed is one run: digest {:016x} {}\n", digest,
                       is_repeatable ? "ok" : "FAIL");
        }
        if (arguments.expects_violations && totals.violations > 0) break;
    }
    const bool is_fine = is_repeatable && (totals.violations > 0) == arguments.expects_violations;
    const char* rule = std::getenv("NEARKEY_SABOTAGE");
    const std::string name = arguments.expects_violations && rule != nullptr
                                 ? std::string("simulation/without ") + rule
                                 : "simulation";
    fmt::print("{}: {} seeds, {} operations, {} hits, {} in segments, {} violations  {}\n", name,
               totals.seeds, totals.operations, totals.hits, totals.segment_hits, totals.violations,
               is_fine ? "ok" : "FAIL");
    return is_fine ? 0 : 1;
}

}  // namespace

}  // namespace nearkey::simulation

int main(int argc, char** argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
    nearkey::simulation::Arguments arguments;
    if (!nearkey::simulation::parse({argv, argv + argc}, arguments)) {
        fmt::print(stderr,
                   "nearkey_simulation [--seeds N] [--first S] [--seed S] [--verbose] "
                   "[--expect-violations] [--without KIND]...\n");
        return 2;
    }
    return nearkey::simulation::run(arguments);
}
