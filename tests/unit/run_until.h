// What several unit tests with a real loop or a real file system need: a loop that runs until
// something is true, and a directory that goes away with the test.
#pragma once

#include "nearkey/loop/loop.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

namespace nearkey {

// Runs the loop until the condition holds or the time is up; returns whether it held.
inline bool run_until(Loop& loop, const std::function<bool()>& condition,
                      std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    bool holds = condition();
    Timer look(loop, [&] {
        holds = condition();
        if (holds || std::chrono::steady_clock::now() > deadline) loop.stop();
    });
    look.start_repeating(1);
    if (!holds) loop.run();
    return holds;
}

class TemporaryDirectory {
public:
    TemporaryDirectory() {
        char name[] = "/tmp/nearkey-unit-XXXXXX";
        path_ = mkdtemp(name);
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    bool is_empty() const { return std::filesystem::is_empty(path_); }

private:
    std::string path_;
};

}  // namespace nearkey
