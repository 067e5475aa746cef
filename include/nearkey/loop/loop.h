// The event loop: libuv with owners, and the work that is done once a turn, before the loop sleeps.
// Owned by Daemon, outlives everything that borrows it. One thread.
//
//   events (sockets, timers) ─▶ deferred work, phase by phase ─▶ sleep
//     Resume    sessions that have more input to run
//     Upstream  one write for each connection with unsent commands
//     Client    one write for each client with unsent replies
//     Reap      owners destroy what ended in a callback
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

struct uv_loop_s;
struct uv_timer_s;
struct uv_poll_s;
struct uv_prepare_s;
struct uv_idle_s;
struct uv_signal_s;

namespace nearkey {

enum class Phase { Resume, Upstream, Client, Reap };
constexpr size_t kPhases = 4;

// libuv frees later: the owner lets go at once, the memory follows in the close callback.
struct UvClose {
    void operator()(uv_timer_s* handle) const;
    void operator()(uv_poll_s* handle) const;
    void operator()(uv_prepare_s* handle) const;
    void operator()(uv_idle_s* handle) const;
    void operator()(uv_signal_s* handle) const;
};
template <class Handle>
using UvHandle = std::unique_ptr<Handle, UvClose>;

class Loop;

// The times when a turn of the loop had its first event, had written to Valkey, and had ended:
// microseconds on a monotonic clock. They wrap after 71 minutes; only differences mean something.
struct Turn {
    uint32_t began_us;
    uint32_t sent_us;
    uint32_t ended_us;
};

class TurnWatch {
public:
    virtual void on_turn(const Turn& turn) = 0;

protected:
    ~TurnWatch() = default;
};

// Something with work to do before the loop sleeps. Asking twice in a turn is asking once.
class Deferred {
public:
    Deferred(Loop& loop, Phase phase) : loop_(loop), phase_(phase) {}
    Deferred(const Deferred&) = delete;
    Deferred& operator=(const Deferred&) = delete;

    void defer();

protected:
    // Leaves the list: destroying a deferred object is always safe.
    ~Deferred();

private:
    friend class Loop;
    virtual void before_sleep() = 0;

    static constexpr size_t kNotListed = SIZE_MAX;
    Loop& loop_;
    Phase phase_;
    size_t position_ = kNotListed;
};

class Loop {
public:
    Loop();
    // REQUIRES: everything that borrowed the loop is gone. Runs the close callbacks and checks that
    // no handle is left.
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // Runs until stop() is called.
    void run();
    void stop();

    // Runs close callbacks; false if after that time something still runs in libuv's threads (a
    // question to a mute DNS server): then the loop can't be destroyed yet.
    bool finish(uint64_t patience_ms);

    // Milliseconds on a monotonic clock, taken once a turn.
    uint64_t now_ms() const;
    // Milliseconds on a clock that counts the time that the host was suspended; read anew each
    // time.
    static uint64_t boot_ms();
    // The same in nanoseconds.
    static uint64_t boot_ns();
    // The time when this turn began, as in Turn.
    uint32_t turn_us() const { return turn_us_; }
    // The same clock, read anew.
    static uint32_t now_us();
    // Null: nobody.
    void set_turn_watch(TurnWatch* watch) { turn_watch_ = watch; }
    // Called before the first event of a turn is handled, by every libuv callback.
    void begin_turn() {
        if (is_turning_) return;
        is_turning_ = true;
        turn_us_ = now_us();
    }
    // A socket has something to do.
    void count_socket() { ++sockets_; }
    // How much of a large value one socket moves in a turn: little while others are served too.
    size_t large_piece() const { return shared_turns_ > 0 ? kSharedPiece : kWholePiece; }
    static constexpr size_t kSharedPiece = size_t{32} << 10;
    static constexpr size_t kWholePiece = size_t{256} << 10;
    // The loop of libuv, for loop/ and for adapters that use libuv themselves.
    uv_loop_s* raw() { return raw_.get(); }

private:
    friend class Deferred;
    void before_sleep();
    void run_phase(Phase phase);
    void run_phases();
    std::vector<Deferred*>& listed(Phase phase) { return listed_[static_cast<size_t>(phase)]; }

    std::unique_ptr<uv_loop_s> raw_;
    std::array<std::vector<Deferred*>, kPhases> listed_;
    std::vector<Deferred*> running_;
    bool is_turning_ = false;
    uint32_t turn_us_ = 0;
    // A large value moves over two sockets: it comes from one and goes to the other.
    static constexpr uint32_t kSocketsOfTransfer = 2;
    uint32_t sockets_ = 0;  // sockets that had something to do in this turn
    static constexpr uint32_t kSharedTurns = 64;
    uint32_t shared_turns_ = 0;  // so many more turns count as shared
    TurnWatch* turn_watch_ = nullptr;
    UvHandle<uv_prepare_s> prepare_;
    UvHandle<uv_idle_s> idle_;  // active while work is deferred to the next turn: no sleep then
};

class Timer {
public:
    // `callback` runs on the loop; it may restart or destroy the timer.
    Timer(Loop& loop, std::function<void()> callback);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    void start_once(uint64_t delay_ms);
    void start_repeating(uint64_t interval_ms);
    void stop();
    bool is_active() const;

private:
    std::function<void()> callback_;
    UvHandle<uv_timer_s> handle_;
};

// Calls back when `signum` arrives.
class SignalWatch {
public:
    SignalWatch(Loop& loop, int signum, std::function<void()> callback);
    ~SignalWatch();
    SignalWatch(const SignalWatch&) = delete;
    SignalWatch& operator=(const SignalWatch&) = delete;

private:
    std::function<void()> callback_;
    UvHandle<uv_signal_s> handle_;
};

}  // namespace nearkey
