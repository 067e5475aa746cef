#include "nearkey/daemon/succession.h"

#include "nearkey/base/check.h"
#include "nearkey/daemon/notify.h"
#include "nearkey/loop/child_process.h"
#include "nearkey/loop/inherited_sockets.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace nearkey {

namespace {

// True for variables that our starter meant for us alone.
bool is_ours_alone(std::string_view name) {
    static constexpr std::array<std::string_view, 5> kNames = {
        "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_PID"};
    return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

void give(ProgramStart& command, const ListenSocket& socket, std::string_view foreign_name) {
    command.given.push_back(socket.fd());
    command.names.emplace_back(socket.is_ours() ? InheritedSockets::kOwn : foreign_name);
    if (socket.lock_fd() < 0) return;
    command.given.push_back(socket.lock_fd());
    command.names.emplace_back(InheritedSockets::kLock);
}

// The path of the program that runs now, by which the next one will be found. A link that is turned
// to the next release is followed then, not now.
std::string path_of_program(const std::vector<std::string>& arguments) {
    std::error_code error;
    if (!arguments.empty() && arguments.front().find('/') != std::string::npos) {
        return std::filesystem::absolute(arguments.front(), error);
    }
    return std::filesystem::read_symlink("/proc/self/exe", error);
}

constexpr char kReady = 'R';
constexpr char kGo = 'G';
// A process that ends closes the channel before it can be waited for, and may take its time.
constexpr uint64_t kLookEveryMs = 10;
constexpr int kLooks = 200;
constexpr int64_t kKilledMs = 1000;

std::string reason_of(int error) {
    return std::system_category().message(error);
}

// One byte fits always: nobody sends more than one.
void say(int channel, char word) {
    [[maybe_unused]] const ssize_t sent = send(channel, &word, 1, MSG_NOSIGNAL);
}

std::string describe_end(int status) {
    return WIFSIGNALED(status) ? "it ended by signal " + std::to_string(WTERMSIG(status))
                               : "it ended with status " + std::to_string(WEXITSTATUS(status));
}

enum class Heard { Word, Nothing, End };

Heard hear(int channel, char expected) {
    char word = 0;
    const ssize_t count = recv(channel, &word, 1, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return Heard::Nothing;
    return count == 1 && word == expected ? Heard::Word : Heard::End;
}

}  // namespace

// --- the old one ---

Successor::Successor(Loop& loop, ProgramStart command, uint64_t timeout_ms, Succession& succession)
    : succession_(succession),
      timer_(loop,
             [this, timeout_ms] {
                 end();
                 fail("it was not ready within " + std::to_string(timeout_ms) + " ms");
             }),
      end_timer_(loop, [this] { look_at_end(); }) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
        throw std::runtime_error(reason_of(errno));
    }
    channel_.reset(ends[0]);
    UniqueFd theirs(ends[1]);
    command.given.push_back(ends[1]);
    command.names.emplace_back(InheritedSockets::kChannel);
    const StartedProgram started = start_program(command);
    theirs.reset();
    if (started.pid < 0) {
        throw std::runtime_error("can't run " + command.program + ": " + reason_of(started.error));
    }
    pid_ = started.pid;
    watch_ = std::make_unique<FdWatch>(loop, channel_.get(), [this](FdEvents) { on_readable(); });
    watch_->want({true, false});
    timer_.start_once(timeout_ms);
}

Successor::~Successor() {
    watch_.reset();
    if (!is_let_go_ && !has_failed_) end();
}

void Successor::let_go() {
    NEARKEY_CHECK(!has_failed_ && !is_let_go_);
    is_let_go_ = true;
    timer_.stop();
    watch_->want({false, false});
    say(channel_.get(), kGo);
}

void Successor::on_readable() {
    switch (hear(channel_.get(), kReady)) {
        case Heard::Nothing:
            return;
        case Heard::Word:
            succession_.on_successor_ready();
            return;
        case Heard::End:
            watch_->want({false, false});
            timer_.stop();
            looks_left_ = kLooks;
            end_timer_.start_repeating(kLookEveryMs);
            return;
    }
}

void Successor::look_at_end() {
    const std::optional<int> status = reap_within(pid_, 0);
    if (!status && --looks_left_ > 0) return;
    if (!status) end();
    fail(status ? describe_end(*status) : "it closed the channel");
}

void Successor::fail(const std::string& reason) {
    watch_->want({false, false});
    timer_.stop();
    end_timer_.stop();
    has_failed_ = true;
    succession_.on_successor_failed(reason);
}

void Successor::end() {
    if (reap_within(pid_, 0)) return;
    kill(pid_, SIGKILL);
    // Only a process that hangs in the kernel is not gone by then; init will reap it.
    static_cast<void>(reap_within(pid_, kKilledMs));
}

// --- the new one ---

Predecessor::Predecessor(Loop& loop, int channel, Succession& succession)
    : succession_(succession),
      channel_(channel),
      watch_(loop, channel, [this](FdEvents) { on_readable(); }) {
    watch_.want({true, false});
}

Predecessor::~Predecessor() = default;

void Predecessor::say_ready() {
    if (!is_gone_) say(channel_.get(), kReady);
}

// An end without a word: it was ended by force, and left everything.
void Predecessor::on_readable() {
    const Heard heard = hear(channel_.get(), kGo);
    if (heard == Heard::Nothing) return;
    is_gone_ = heard == Heard::End;
    if (is_gone_) watch_.want({false, false});
    if (!std::exchange(has_left_, true)) succession_.on_predecessor_left();
    if (is_gone_) succession_.on_predecessor_gone();
}

// --- the daemon's view of both ---

Succession::Succession(const DaemonParts& parts, SuccessionEvents& events, int channel)
    : parts_(parts),
      events_(events),
      program_(path_of_program(parts.sources.arguments)),
      retire_timer_(parts.loop, [this] { events_.on_retirement_over(); }) {
    if (channel < 0) return;
    predecessor_ = std::make_unique<Predecessor>(parts.loop, channel, *this);
    if (parts_.cache != nullptr) parts_.cache->suspend(Loop::boot_ms());
    if (parts_.own_writes != nullptr) parts_.own_writes->suspend();
}

AdminChange Succession::begin() {
    ++change_.number;
    if (const std::string reason = why_not(); !reason.empty()) return refuse(reason);
    // It gets sockets that listen, or nothing.
    parts_.workers.mend_sockets(true);
    for (const ListenSocket* socket : parts_.workers.sockets()) {
        if (socket->is_refusing()) {
            return refuse(socket->address() + " can't be bound anew (socket_lost)");
        }
    }
    try {
        successor_ = std::make_unique<Successor>(
            parts_.loop, successor_command(), parts_.config.server.upgrade_start_timeout_ms, *this);
    } catch (const std::exception& error) {
        return refuse(error.what());
    }
    change_.state = AdminChange::State::UnderWay;
    change_.reason = "process " + std::to_string(successor_->pid()) + " gets ready";
    parts_.log.info("upgrade_started",
                    {{"program", std::string_view(program_)}, {"pid", int64_t{successor_->pid()}}});
    notify_status("ready; a new nearkey is starting");
    return change_;
}

AdminChange Succession::refuse(const std::string& reason) {
    ++parts_.metrics.upgrade_failures_total;
    parts_.log.warning("upgrade_refused", {{"reason", std::string_view(reason)}});
    AdminChange refused{AdminChange::State::Refused, change_.number, reason, {}};
    // An upgrade that is under way will still tell its own end.
    if (change_.state != AdminChange::State::UnderWay) change_ = refused;
    return refused;
}

void Succession::end() {
    retire_timer_.stop();
    predecessor_.reset();
    successor_.reset();
}

std::string Succession::why_not() const {
    if (parts_.config.upstream.url == kManagedUrl) {
        return "managed: its valkey-server is nearkey's child, and ends with it";
    }
    if (getpid() == 1) {
        return "nearkey is the first process of its container, which would end with it: start a "
               "new container";
    }
    if (has_successor()) return "an upgrade is under way";
    if (has_predecessor()) return "clients of the nearkey before this one are still served";
    if (const std::string reason = events_.why_no_upgrade(); !reason.empty()) return reason;
    if (access(program_.c_str(), X_OK) != 0) return "there is no program " + program_;
    return "";
}

ProgramStart Succession::successor_command() const {
    ProgramStart command{.program = program_,
                         .argv = parts_.sources.arguments,
                         .environment = {},
                         .stdio = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO},
                         .given = {},
                         .ends = ProgramStart::Ends::ByItself};
    for (const auto& [name, value] : parts_.sources.environment.variables) {
        if (!is_ours_alone(name)) command.environment.push_back(name + "=" + value);
    }
    for (const ListenSocket* socket : parts_.workers.sockets())
        give(command, *socket, "client");
    give(command, events_.admin_socket(), InheritedSockets::kAdmin);
    const ListenSocket* const metrics = events_.metrics_socket();
    if (metrics != nullptr) give(command, *metrics, InheritedSockets::kMetrics);
    return command;
}

void Succession::on_successor_ready() {
    if (parts_.cache != nullptr) parts_.cache->suspend(Loop::boot_ms());
    if (parts_.own_writes != nullptr) parts_.own_writes->suspend();
    events_.retire();
    notify_main_pid(successor_->pid());
    parts_.log.info(
        "upgraded",
        {{"pid", int64_t{successor_->pid()}},
         {"clients", static_cast<int64_t>(parts_.all_metrics.total(&Metrics::clients))}});
    retire_timer_.start_once(parts_.config.server.upgrade_drain_timeout_ms);
    successor_->let_go();
}

void Succession::on_successor_failed(const std::string& reason) {
    ++parts_.metrics.upgrade_failures_total;
    change_.state = AdminChange::State::Refused;
    change_.reason = reason;
    parts_.log.error("upgrade_failed", {{"program", std::string_view(program_)},
                                        {"pid", int64_t{successor_->pid()}},
                                        {"reason", std::string_view(reason)}});
    notify_status("ready; an upgrade failed: " + reason);
}

void Succession::on_predecessor_gone() {
    parts_.log.info("predecessor_gone", {});
    if (parts_.cache != nullptr) parts_.cache->resume();
    if (parts_.own_writes != nullptr) parts_.own_writes->resume(Loop::boot_ms());
    events_.on_predecessor_gone();
}

}  // namespace nearkey
