// Sessions whose upstream has another primary from some moment on: a SessionRig with a second
// FakeValkey, where the node finds a master.
#pragma once

#include "session_rig.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace nearkey {

struct FailoverRig : SessionRig, private TargetEvents {
    static constexpr const char* kMaster =
        "*6\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";

    FailoverRig() { other.answers["HELLO 2"] = kMaster; }
    // The node knows where the new primary is, and has not turned to it yet.
    void find_primary(const std::string& name) {
        UpstreamUrl there = url;
        there.path = directory / name;
        proven = false;
        node->topology().seek_primary(std::make_unique<UpstreamTarget>(there, nullptr), *this);
        REQUIRE(run_until(loop, [this] { return proven; }));
    }
    void fail_over_to(const std::string& name) {
        find_primary(name);
        node->topology().adopt_target();
    }
    void fail_over() { fail_over_to("other"); }
    // Whether the other server is asked nothing of this, also a little later. (The node's own
    // connections come along when it turns.)
    bool is_other_spared(const std::vector<std::string>& commands) {
        int looks = 0;
        run_until(loop, [&] { return ++looks > 20; });
        return std::all_of(commands.begin(), commands.end(), [this](const std::string& command) {
            return other.times_asked(command) == 0;
        });
    }
    bool run_until_asked_other(std::string_view command, size_t times) {
        return run_until(loop, [&] { return other.times_asked(command) >= times; });
    }
    void on_target_proven() override { proven = true; }
    void on_target_refused(const std::string& reason) override { FAIL(reason); }

    FakeValkey other{loop, directory / "other"};
    bool proven = false;
};

}  // namespace nearkey
