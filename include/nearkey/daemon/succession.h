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
// know of its own clients' writes only, and a process of this host could be served a value that
// another one has overwritten.
// A successor that ends, or is not ready in time, changes nothing.
//
// Owned by Daemon, until everything else is gone: its end tells the other nearkey that we are gone.
// The near cache rests for as long as another nearkey has clients here.
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/base/unique_fd.h"
#include "nearkey/cache/near_cache.h"
#include "nearkey/daemon/config.h"
#include "nearkey/daemon/upstream_maker.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/listen_socket.h"
#include "nearkey/loop/program_start.h"
#include "nearkey/server/admin_pages.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace nearkey {

class Succession;

// The old one's view of the new one.
class Successor {
public:
    // Starts it, with the channel beside its other descriptors; it has `timeout_ms` to get ready.
    // Throws std::runtime_error if it can't be started.
    Successor(Loop& loop, ProgramStart command, uint64_t timeout_ms, Succession& succession);
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
    // It has closed the channel: it is about to end, or will be ended.
    void look_at_end();
    void fail(const std::string& reason);
    void end();

    Succession& succession_;
    pid_t pid_ = 0;
    UniqueFd channel_;
    bool has_failed_ = false;
    bool is_let_go_ = false;
    Timer timer_;
    int looks_left_ = 0;  // until it is ended
    Timer end_timer_;
    std::unique_ptr<FdWatch> watch_;
};

// The new one's view of the old one.
class Predecessor {
public:
    // Takes over the descriptor of the channel.
    Predecessor(Loop& loop, int channel, Succession& succession);
    ~Predecessor();
    Predecessor(const Predecessor&) = delete;
    Predecessor& operator=(const Predecessor&) = delete;

    void say_ready();
    bool has_left() const { return has_left_; }
    bool is_gone() const { return is_gone_; }

private:
    void on_readable();

    Succession& succession_;
    UniqueFd channel_;
    bool has_left_ = false;
    bool is_gone_ = false;
    FdWatch watch_;
};

class SuccessionEvents {
public:
    // Empty: nothing stands in its way.
    virtual std::string why_no_upgrade() const = 0;
    virtual const ListenSocket& admin_socket() const = 0;
    // Null: there is none.
    virtual const ListenSocket* metrics_socket() const = 0;
    // The successor is ready, and accepts once this returns.
    virtual void retire() = 0;
    // server.upgrade_drain_timeout_ms after that.
    virtual void on_retirement_over() = 0;
    // The predecessor accepts no more; it may have been ended by force before we were ready.
    virtual void on_predecessor_left() = 0;
    virtual void on_predecessor_gone() = 0;

protected:
    ~SuccessionEvents() = default;
};

class Succession {
public:
    // `channel`: to the predecessor; negative: there is none.
    Succession(const DaemonParts& parts, SuccessionEvents& events, int channel);

    // Starts the program that is on disk now, as our successor.
    AdminChange begin();
    const AdminChange& last() const { return change_; }
    bool has_successor() const { return successor_ != nullptr && !successor_->has_failed(); }
    void end_successor() { successor_.reset(); }
    // Both hear that we are gone.
    void end();

    bool had_predecessor() const { return predecessor_ != nullptr; }
    bool has_predecessor() const { return predecessor_ != nullptr && !predecessor_->is_gone(); }
    // The predecessor still accepts.
    bool awaits_predecessor() const { return predecessor_ != nullptr && !predecessor_->has_left(); }
    void say_ready() { predecessor_->say_ready(); }

    // For the two: the successor waits for let_go(), or is gone and destroyed later; the
    // predecessor.
    void on_successor_ready();
    void on_successor_failed(const std::string& reason);
    void on_predecessor_left() { events_.on_predecessor_left(); }
    void on_predecessor_gone();

private:
    AdminChange refuse(const std::string& reason);
    std::string why_not() const;
    ProgramStart successor_command() const;

    const DaemonParts parts_;
    SuccessionEvents& events_;
    const std::string program_;  // the path of the program that we run
    AdminChange change_;
    std::unique_ptr<Successor> successor_;      // null: there is none
    std::unique_ptr<Predecessor> predecessor_;  // null: there was none
    Timer retire_timer_;
};

}  // namespace nearkey
