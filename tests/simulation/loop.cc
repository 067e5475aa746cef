// The classes of loop/ on simulated time, in place of src/loop/*.cc: a link seam.
#include "nearkey/loop/loop.h"

#include "event_queue.h"
#include "nearkey/base/check.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/loop/mailbox.h"
#include "nearkey/loop/resolver.h"

#include <algorithm>

struct uv_timer_s {
    uv_loop_s* loop;
    std::function<void()>* callback;
    nearkey::simulation::EventQueue::Id event;
    bool is_active;
    uint64_t repeat_ms;
};
struct uv_poll_s {};
struct uv_prepare_s {};
struct uv_idle_s {};
struct uv_async_s {};

namespace nearkey {

namespace {
// The simulation's one loop: boot_ms() is asked for without one.
uv_loop_s* the_loop = nullptr;  // style-ok(globals): as the system's clock is
constexpr uint64_t kLateMax = 200;
constexpr uint64_t kBootMs = 1'000'000;

void plan(uv_timer_s& timer, uint64_t delay_ms) {
    const uint64_t due_us = (timer.loop->now_us / 1000 + delay_ms) * 1000;
    timer.is_active = true;
    timer.event = timer.loop->at(due_us, [&timer] {
        timer.is_active = false;
        if (timer.repeat_ms > 0) plan(timer, timer.repeat_ms);
        (*timer.callback)();
    });
}
}  // namespace

void UvClose::operator()(uv_timer_s* handle) const {
    if (handle->is_active) handle->loop->cancel(handle->event);
    delete handle;
}
void UvClose::operator()(uv_poll_s* handle) const {
    delete handle;
}
void UvClose::operator()(uv_prepare_s* handle) const {
    delete handle;
}
void UvClose::operator()(uv_idle_s* handle) const {
    delete handle;
}

Loop::Loop() : raw_(new uv_loop_s) {
    NEARKEY_CHECK(the_loop == nullptr);
    the_loop = raw_.get();
}

Loop::~Loop() {
    the_loop = nullptr;
}

void Loop::run() {
    raw_->is_stopped = false;
    bool more = false;
    while (!raw_->is_stopped && (more || !raw_->empty())) {
        if (more) {
            raw_->run_due();
        } else {
            raw_->run_turn(raw_->random->below(kLateMax));
        }
        before_sleep();
        more = std::any_of(listed_.begin(), listed_.end(),
                           [](const auto& list) { return !list.empty(); });
    }
}

void Loop::stop() {
    raw_->is_stopped = true;
}

uint64_t Loop::now_ms() const {
    return raw_->now_us / 1000;
}

uint64_t Loop::boot_ms() {
    return kBootMs + the_loop->now_us / 1000;
}

// The reader of shared memory asks this one (meson.build).
extern "C" int simulated_clock_gettime(clockid_t, timespec* now) {
    const uint64_t now_ms = Loop::boot_ms();
    now->tv_sec = static_cast<time_t>(now_ms / 1000);
    now->tv_nsec = static_cast<long>(now_ms % 1000 * 1'000'000);
    return 0;
}

uint64_t Loop::boot_ns() {
    return boot_ms() * 1'000'000;
}

uint32_t Loop::now_us() {
    return static_cast<uint32_t>(the_loop->now_us);
}

void Loop::before_sleep() {
    run_phases();
}

Timer::Timer(Loop& loop, std::function<void()> callback) : callback_(std::move(callback)) {
    handle_.reset(new uv_timer_s{loop.raw(), &callback_, {}, false, 0});
}

Timer::~Timer() = default;

void Timer::start_once(uint64_t delay_ms) {
    stop();
    plan(*handle_, std::max<uint64_t>(delay_ms, 1));
}

void Timer::start_repeating(uint64_t interval_ms) {
    stop();
    handle_->repeat_ms = interval_ms;
    plan(*handle_, interval_ms);
}

void Timer::stop() {
    handle_->repeat_ms = 0;
    if (handle_->is_active) handle_->loop->cancel(handle_->event);
    handle_->is_active = false;
}

bool Timer::is_active() const {
    return handle_->is_active;
}

// What is posted comes a moment later, in order, as from another thread.
void Mailbox::Close::operator()(uv_async_s* handle) const {
    delete handle;
}

Mailbox::Mailbox(Loop& loop) : loop_(loop), handle_(new uv_async_s) {
}

Mailbox::~Mailbox() = default;

void Mailbox::post(std::function<void()> work) {
    posted_.push_back(std::move(work));
    if (posted_.size() == 1)
        loop_.raw()->after(loop_.raw()->random->below(kLateMax), [this] { open(); });
}

void Mailbox::open() {
    for (const std::function<void()>& work : std::exchange(posted_, {}))
        work();
}

// Nothing here has a descriptor.
FdWatch::FdWatch(Loop&, int, std::function<void(FdEvents)>) {
    NEARKEY_CHECK(false);
}
FdWatch::~FdWatch() = default;

// A name is its address.
struct Resolution::Pending {
    uv_loop_s* loop;
    simulation::EventQueue::Id event;
};
Resolution::Resolution(Loop& loop, const std::string& host,
                       std::function<void(const Answer&)> callback)
    : pending_(new Pending{loop.raw(), {}}) {
    pending_->event = loop.raw()->after(0, [host, callback = std::move(callback)] {
        callback({.addresses = {host}, .error = {}});
    });
}
Resolution::~Resolution() {
    pending_->loop->cancel(pending_->event);
    delete pending_;
}

}  // namespace nearkey
