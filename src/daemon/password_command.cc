#include "nearkey/daemon/password_command.h"

#include "nearkey/daemon/config_secrets.h"

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <exception>
#include <utility>

namespace nearkey {

namespace {

constexpr uint64_t kPauseMs = 1000;  // at least, between two runs
constexpr uint64_t kPauseMaxMs = 30'000;
constexpr uint64_t kDoublingsMax = 5;

}  // namespace

PasswordCommand::PasswordCommand(Loop& loop, Metrics& metrics, Log& log,
                                 const PasswordCommandOptions& options,
                                 PasswordCommandEvents& events)
    : loop_(loop),
      metrics_(metrics),
      log_(log),
      options_(options),
      events_(events),
      late_timer_(loop, [this] { on_late(); }),
      next_timer_(loop, [this] { run(); }) {
}

void PasswordCommand::ask() {
    if (!is_configured()) return;
    if (child_ != nullptr) {
        is_wanted_again_ = true;
    } else if (ended_ms_ == 0) {
        run();
    } else {
        run_after(kPauseMs);
    }
}

// Another password each time, none of which Valkey takes, would be a storm.
void PasswordCommand::ask_after_refusal() {
    if (!is_configured() || child_ != nullptr || is_refused_) return;
    const uint64_t now_ms = loop_.now_ms();
    if (now_ms > refused_ms_ + 2 * kPauseMaxMs) refusals_ = 0;
    refused_ms_ = now_ms;
    is_refused_ = true;
    run_after(std::min(kPauseMs << std::min(refusals_++, kDoublingsMax), kPauseMaxMs));
}

void PasswordCommand::apply_options() {
    const bool is_waiting = is_refused_ || failures_ > 0;
    if (child_ == nullptr && !is_waiting && !password_.empty()) run_before_end();
}

// At the end of a password's life; a fifth of that is for runs that fail.
void PasswordCommand::run_before_end() {
    const uint64_t lifetime_ms = options_.lifetime_ms;
    if (lifetime_ms > 0) {
        run_after(std::max(lifetime_ms - lifetime_ms / 5, kPauseMs));
    } else {
        next_timer_.stop();
    }
}

// So long after the end of the last run.
void PasswordCommand::run_after(uint64_t pause_ms) {
    const uint64_t age_ms = loop_.now_ms() - ended_ms_;
    next_timer_.start_once(pause_ms - std::min(age_ms, pause_ms));
}

void PasswordCommand::end() {
    late_timer_.stop();
    next_timer_.stop();
    watch_.reset();
    kill_all();
    child_.reset();
}

void PasswordCommand::run() {
    if (child_ != nullptr) return;
    next_timer_.stop();
    is_refused_ = is_wanted_again_ = false;
    ++metrics_.password_command_runs_total;
    output_.clear();
    is_late_ = false;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        on_exit(-1, 0);
        return;
    }
    pipe_ = UniqueFd(ends[0]);
    UniqueFd written(ends[1]);
    // The program expects an output that waits.
    fcntl(written.get(), F_SETFL, 0);
    child_ = std::make_unique<ChildProcess>(
        loop_, ChildCommand{.argv = options_.argv, .stdout_fd = written.get()},
        [this](int status, int signal) { on_exit(status, signal); });
    written.reset();
    if (!child_->is_running()) {
        on_exit(-1, 0);
        return;
    }
    watch_ = std::make_unique<FdWatch>(loop_, pipe_.get(), [this](FdEvents) { on_output(); });
    watch_->want({true, false});
    late_timer_.start_once(options_.timeout_ms);
}

// Reads what is there. Of more than a password can have the rest is left.
void PasswordCommand::on_output() {
    std::array<char, 4096> bytes;
    ssize_t size = 0;
    while (output_.size() <= kPasswordMax + 2 &&
           (size = read(pipe_.get(), bytes.data(), bytes.size())) > 0) {
        output_.append(bytes.data(), static_cast<size_t>(size));
    }
    std::fill(bytes.begin(), bytes.end(), '\0');
    const bool is_over = size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR);
    if (output_.size() > kPasswordMax + 2) {
        kill_all();
        watch_.reset();
    } else if (is_over) {
        watch_.reset();
    }
}

void PasswordCommand::on_late() {
    is_late_ = true;
    kill_all();
}

// It has a session of its own, in which its children are.
void PasswordCommand::kill_all() {
    if (child_ != nullptr && child_->pid() > 0) ::kill(-child_->pid(), SIGKILL);
}

void PasswordCommand::on_exit(int status, int signal) {
    late_timer_.stop();
    if (watch_ != nullptr) on_output();
    watch_.reset();
    pipe_.reset();
    ended_ms_ = std::max(loop_.now_ms(), uint64_t{1});
    const std::string former = password_;
    const std::string problem = take_password(status, signal);
    std::fill(output_.begin(), output_.end(), '\0');
    output_.clear();
    // It may be what calls.
    const std::unique_ptr<ChildProcess> ended = std::move(child_);
    if (problem.empty()) {
        failures_ = 0;
        problem_.clear();
        run_before_end();
        if (password_ != former) events_.on_password();
    } else {
        note_problem(problem);
        const uint64_t pause_ms = kPauseMs << std::min(failures_++, kDoublingsMax);
        run_after(std::min(pause_ms, kPauseMaxMs));
    }
    if (is_wanted_again_) {
        run_after(kPauseMs);
    } else {
        events_.on_run_ended(problem);
    }
}

void PasswordCommand::note_problem(const std::string& problem) {
    ++metrics_.password_command_failures_total;
    if (problem == problem_) return;
    problem_ = problem;
    log_.error("password_command_failed",
               {{"program", options_.argv.front()}, {"reason", problem}});
}

std::string PasswordCommand::take_password(int status, int signal) {
    if (child_ == nullptr) return "no pipe for its output could be made";
    if (!child_->failure().empty()) return "it can't be run: " + child_->failure();
    if (is_late_) {
        return "it took longer than " + std::to_string(options_.timeout_ms) +
               " ms (upstream.password_command_timeout_ms)";
    }
    if (output_.size() > kPasswordMax + 2) return "it said more than a password: over 4096 bytes";
    if (signal != 0) return "it was ended by signal " + std::to_string(signal);
    if (status != 0) return "it ended with exit status " + std::to_string(status);
    try {
        password_ = password_of(std::move(output_), "its output");
    } catch (const std::exception& error) {
        return error.what();
    }
    return "";
}

}  // namespace nearkey
