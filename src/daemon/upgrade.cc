#include "nearkey/daemon/upgrade.h"

#include "nearkey/base/check.h"
#include "nearkey/loop/child_process.h"
#include "nearkey/loop/inherited_sockets.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace nearkey {

namespace {

constexpr char kReady = 'R';
constexpr char kGo = 'G';
// A process that ends closes the channel a little before it can be waited for.
constexpr int64_t kEndingMs = 100;
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

Successor::Successor(Loop& loop, ProgramStart command, uint64_t timeout_ms, UpgradeEvents& events)
    : events_(events), timer_(loop, [this, timeout_ms] {
          end(0);
          fail("it was not ready within " + std::to_string(timeout_ms) + " ms");
      }) {
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
    if (!is_let_go_ && !has_failed_) end(0);
}

void Successor::let_go() {
    CHECK(!has_failed_ && !is_let_go_);
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
            events_.on_successor_ready();
            return;
        case Heard::End:
            const std::optional<int> status = end(kEndingMs);
            fail(status ? describe_end(*status) : "it closed the channel");
            return;
    }
}

void Successor::fail(const std::string& reason) {
    watch_->want({false, false});
    timer_.stop();
    has_failed_ = true;
    events_.on_successor_failed(reason);
}

std::optional<int> Successor::end(int64_t grace_ms) {
    const std::optional<int> status = reap_within(pid_, grace_ms);
    if (status) return status;
    kill(pid_, SIGKILL);
    // Only a process that hangs in the kernel is not gone by then; init will reap it.
    static_cast<void>(reap_within(pid_, kKilledMs));
    return std::nullopt;
}

// --- the new one ---

Predecessor::Predecessor(Loop& loop, int channel, UpgradeEvents& events)
    : events_(events),
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
    if (!std::exchange(has_left_, true)) events_.on_predecessor_left();
    if (is_gone_) events_.on_predecessor_gone();
}

}  // namespace nearkey
