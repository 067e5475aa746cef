// Two nearkeys that change places without a client noticing: the running one starts the program
// that is on disk now, with its sockets, and a channel between the two.
//
//   old                                           new
//   start ──sockets, channel──▶                   proves Valkey, accepts nobody yet
//                              ◀──── 'R'eady ────  (its near cache is off)
//   near cache off, accepts no more
//   leaves the sockets ────────── 'G'o ─────────▶ accepts
//   serves its clients until they leave           forwards everything
//   ends ──────────────────────── EOF ──────────▶ near cache on
//
// The one rule: from Go until the old one is gone neither of them answers a read itself. Each would
// know of its own clients' writes only, and a process of this host could be served what another one
// has overwritten.
// A successor that ends, or is not ready in time, changes nothing. Both parts are owned by Daemon.
#pragma once

#include "nearkey/base/unique_fd.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/program_start.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace nearkey {

class UpgradeEvents {
public:
    // The successor waits for let_go().
    virtual void on_successor_ready() = 0;
    // It is gone, and destroyed later.
    virtual void on_successor_failed(const std::string& reason) = 0;
    // The predecessor accepts no more.
    virtual void on_predecessor_left() = 0;
    virtual void on_predecessor_gone() = 0;

protected:
    ~UpgradeEvents() = default;
};

// The old one's view of the new one.
class Successor {
public:
    // Starts it, with the channel beside what it is given; `timeout_ms` to get ready. Throws
    // std::runtime_error if it can't be started.
    Successor(Loop& loop, ProgramStart command, uint64_t timeout_ms, UpgradeEvents& events);
    // Ends it, unless it was let go.
    ~Successor();
    Successor(const Successor&) = delete;
    Successor& operator=(const Successor&) = delete;

    pid_t pid() const { return pid_; }
    bool has_failed() const { return has_failed_; }
    // It accepts from here on. The channel stays open for as long as we live.
    void let_go();

private:
    void on_readable();
    void fail(const std::string& reason);
    // Ends it if it does not end by itself within that time; its status, if it did.
    std::optional<int> end(int64_t grace_ms);

    UpgradeEvents& events_;
    pid_t pid_ = 0;
    UniqueFd channel_;
    bool has_failed_ = false;
    bool is_let_go_ = false;
    Timer timer_;
    std::unique_ptr<FdWatch> watch_;
};

// The new one's view of the old one.
class Predecessor {
public:
    // Takes over the descriptor of the channel.
    Predecessor(Loop& loop, int channel, UpgradeEvents& events);
    ~Predecessor();
    Predecessor(const Predecessor&) = delete;
    Predecessor& operator=(const Predecessor&) = delete;

    void say_ready();
    bool has_left() const { return has_left_; }
    bool is_gone() const { return is_gone_; }

private:
    void on_readable();

    UpgradeEvents& events_;
    UniqueFd channel_;
    bool has_left_ = false;
    bool is_gone_ = false;
    FdWatch watch_;
};

}  // namespace nearkey
