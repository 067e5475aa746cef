// The daemon's side of an upgrade (upgrade.h): as the old one, and as the new one.
#include "nearkey/daemon/daemon.h"

#include "nearkey/base/check.h"
#include "nearkey/daemon/notify.h"

#include <unistd.h>
#include <algorithm>
#include <array>
#include <exception>
#include <utility>

namespace nearkey {

namespace {

// What our starter meant for us alone.
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

}  // namespace

// --- the old one ---

AdminChange Daemon::upgrade() {
    ++upgrade_.number;
    if (const std::string reason = why_no_upgrade(); !reason.empty()) return refuse_upgrade(reason);
    // It gets sockets that listen, or nothing.
    workers_->mend_sockets(true);
    for (const ListenSocket* socket : workers_->sockets()) {
        if (socket->is_refusing()) {
            return refuse_upgrade(socket->address() + " can't be bound anew (socket_lost)");
        }
    }
    try {
        successor_ = std::make_unique<Successor>(loop_, successor_command(),
                                                 config_.server.upgrade_start_timeout_ms, *this);
    } catch (const std::exception& error) {
        return refuse_upgrade(error.what());
    }
    upgrade_.state = AdminChange::State::UnderWay;
    upgrade_.reason = "process " + std::to_string(successor_->pid()) + " gets ready";
    log_.info("upgrade_started",
              {{"program", std::string_view(program_)}, {"pid", int64_t{successor_->pid()}}});
    notify_status("ready; a new nearkey is starting");
    return upgrade_;
}

AdminChange Daemon::refuse_upgrade(const std::string& reason) {
    ++metrics_.upgrade_failures_total;
    log_.warning("upgrade_refused", {{"reason", std::string_view(reason)}});
    AdminChange refused{AdminChange::State::Refused, upgrade_.number, reason, {}};
    // Of one that is under way its own end is still to be told.
    if (upgrade_.state != AdminChange::State::UnderWay) upgrade_ = refused;
    return refused;
}

std::string Daemon::why_no_upgrade() const {
    if (managed_ != nullptr) return "managed: its valkey-server is our child, and ends with us";
    if (successor_ != nullptr && !successor_->has_failed()) return "an upgrade is under way";
    if (predecessor_ != nullptr && !predecessor_->is_gone()) {
        return "clients of the nearkey before this one are still served";
    }
    if (stage_ == Stage::Draining) return "nearkey is stopping";
    if (stage_ != Stage::Serving) return "Valkey was not there yet, and no client is served";
    if (access(program_.c_str(), X_OK) != 0) return "there is no program " + program_;
    return "";
}

ProgramStart Daemon::successor_command() const {
    ProgramStart command{.program = program_,
                         .argv = sources_.arguments,
                         .environment = {},
                         .stdio = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO},
                         .given = {},
                         .ends = ProgramStart::Ends::ByItself};
    for (const auto& [name, value] : sources_.environment.variables) {
        if (!is_ours_alone(name)) command.environment.push_back(name + "=" + value);
    }
    for (const ListenSocket* socket : workers_->sockets())
        give(command, *socket, "client");
    give(command, admin_->socket(), InheritedSockets::kAdmin);
    return command;
}

void Daemon::on_successor_ready() {
    stage_ = Stage::Retiring;
    suspend_near_cache();
    workers_->leave_sockets([this] { loop_.stop(); });
    admin_->leave();
    watchdog_timer_.stop();
    notify_main_pid(successor_->pid());
    log_.info("upgraded",
              {{"pid", int64_t{successor_->pid()}},
               {"clients", static_cast<int64_t>(all_metrics_.total(&Metrics::clients))}});
    retire_timer_.start_once(config_.server.upgrade_drain_timeout_ms);
    successor_->let_go();
}

void Daemon::on_successor_failed(const std::string& reason) {
    ++metrics_.upgrade_failures_total;
    upgrade_.state = AdminChange::State::Refused;
    upgrade_.reason = reason;
    log_.error("upgrade_failed", {{"program", std::string_view(program_)},
                                  {"pid", int64_t{successor_->pid()}},
                                  {"reason", std::string_view(reason)}});
    notify_status("ready; an upgrade failed: " + reason);
}

// --- the new one ---

// It may have been ended by force before we were ready.
void Daemon::on_predecessor_left() {
    if (stage_ == Stage::Waiting) start_serving();
}

void Daemon::on_predecessor_gone() {
    log_.info("predecessor_gone", {});
    resume_near_cache();
    if (stage_ == Stage::Serving) notify_status("ready");
}

// --- either ---

void Daemon::suspend_near_cache() {
    if (cache_ != nullptr) cache_->suspend(Loop::boot_ms());
}

void Daemon::resume_near_cache() {
    if (cache_ != nullptr) cache_->resume();
}

}  // namespace nearkey
