// Runs upstream.password_command, whose output is the password for Valkey: at the start, again
// before upstream.password_lifetime_ms is over, when Valkey refuses the password, and at a reload.
// Owned by Daemon. A run blocks nothing but its own start; one that fails is tried again, later and
// later. The one rule: nothing of the output is logged, nor of what it says on stderr.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/base/unique_fd.h"
#include "nearkey/loop/child_process.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/loop.h"
#include "nearkey/upstream/options.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace nearkey {

class PasswordCommand {
public:
    // All outlive it. `options` may change at any time, but for the command itself. `on_password`
    // is called for each password that is not the last one.
    PasswordCommand(Loop& loop, Metrics& metrics, Log& log, const PasswordCommandOptions& options,
                    std::function<void()> on_password);

    bool is_configured() const { return !options_.argv.empty(); }
    // Empty until the first run has told one.
    const std::string& password() const { return password_; }
    // Runs it now, unless it is running; within a second of the last run, once that is over.
    void ask();
    // Ends a run that is under way; nothing is run any more.
    void end();

private:
    void run();
    void on_output();
    void on_exit(int status, int signal);
    void on_late();
    // Why the run told no password; empty: it did.
    std::string take_password(int status, int signal);
    void kill_all();

    Loop& loop_;
    Metrics& metrics_;
    Log& log_;
    const PasswordCommandOptions& options_;
    const std::function<void()> on_password_;

    std::string password_;
    std::string problem_;  // of the last run
    uint64_t ended_ms_ = 0;
    uint64_t failures_ = 0;  // since the last success
    bool is_late_ = false;   // the run that is under way
    std::string output_;
    UniqueFd pipe_;
    std::unique_ptr<FdWatch> watch_;
    std::unique_ptr<ChildProcess> child_;
    Timer late_timer_;
    Timer next_timer_;
};

}  // namespace nearkey
