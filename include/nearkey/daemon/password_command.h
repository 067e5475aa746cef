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
#include <memory>
#include <string>

namespace nearkey {

class PasswordCommandEvents {
public:
    // It has told a password that is not the last one.
    virtual void on_password() = 0;
    // Behind that, and where a run told none: for `problem`, else empty.
    virtual void on_run_ended(const std::string& problem) = 0;

protected:
    ~PasswordCommandEvents() = default;
};

class PasswordCommand {
public:
    // All outlive it. `options` may change at any time, but for the command itself.
    PasswordCommand(Loop& loop, Metrics& metrics, Log& log, const PasswordCommandOptions& options,
                    PasswordCommandEvents& events);

    // Of the run that is under way; else 0.
    pid_t pid() const { return child_ == nullptr ? 0 : child_->pid(); }
    bool is_configured() const { return !options_.argv.empty(); }
    // Empty until the first run has told one.
    const std::string& password() const { return password_; }
    // Has it run now, at least a second after the last run; where one is under way, once more
    // behind that. on_run_ended() is about the last of them.
    void ask();
    // Valkey has refused what it told: later and later.
    void ask_after_refusal();
    // The options have changed.
    void apply_options();
    // Ends a run that is under way; nothing is run any more.
    void end();

private:
    void run();
    void run_before_end();
    void run_after(uint64_t pause_ms);
    void on_output();
    void on_exit(int status, int signal);
    void on_late();
    void note_problem(const std::string& problem);
    // Why the run told no password; empty: it did.
    std::string take_password(int status, int signal);
    void kill_all();

    Loop& loop_;
    Metrics& metrics_;
    Log& log_;
    const PasswordCommandOptions& options_;
    PasswordCommandEvents& events_;

    std::string password_;
    std::string problem_;  // of the last run
    uint64_t ended_ms_ = 0;
    uint64_t failures_ = 0;  // since the last success
    uint64_t refusals_ = 0;  // not long one after the other
    uint64_t refused_ms_ = 0;
    bool is_refused_ = false;       // the next run is for that
    bool is_wanted_again_ = false;  // behind the run that is under way
    bool is_late_ = false;          // the run that is under way
    std::string output_;
    UniqueFd pipe_;
    std::unique_ptr<FdWatch> watch_;
    std::unique_ptr<ChildProcess> child_;
    Timer late_timer_;
    Timer next_timer_;
};

}  // namespace nearkey
