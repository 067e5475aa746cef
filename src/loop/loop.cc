#include "nearkey/loop/loop.h"

#include "nearkey/base/check.h"
#include "uv_close.h"

#include <algorithm>
#include <ctime>

namespace nearkey {

void UvClose::operator()(uv_timer_s* handle) const {
    close_handle(handle);
}
void UvClose::operator()(uv_poll_s* handle) const {
    close_handle(handle);
}
void UvClose::operator()(uv_prepare_s* handle) const {
    close_handle(handle);
}
void UvClose::operator()(uv_idle_s* handle) const {
    close_handle(handle);
}
void UvClose::operator()(uv_signal_s* handle) const {
    close_handle(handle);
}

Loop::Loop() : raw_(std::make_unique<uv_loop_t>()) {
    NEARKEY_CHECK(uv_loop_init(raw_.get()) == 0);
    raw_->data = this;
    prepare_.reset(new uv_prepare_t);
    uv_prepare_init(raw_.get(), prepare_.get());
    prepare_->data = this;
    uv_prepare_start(prepare_.get(), [](uv_prepare_t* handle) {
        if (handle->data != nullptr) static_cast<Loop*>(handle->data)->before_sleep();
    });
    uv_unref(reinterpret_cast<uv_handle_t*>(prepare_.get()));
    idle_.reset(new uv_idle_t);
    uv_idle_init(raw_.get(), idle_.get());
}

Loop::~Loop() {
    prepare_.reset();
    idle_.reset();
    uv_run(raw_.get(), UV_RUN_DEFAULT);
    NEARKEY_CHECK(uv_loop_close(raw_.get()) == 0);
}

void Loop::run() {
    uv_run(raw_.get(), UV_RUN_DEFAULT);
}

void Loop::stop() {
    uv_stop(raw_.get());
}

bool Loop::finish(uint64_t patience_ms) {
    const uint64_t end = uv_hrtime() + patience_ms * 1'000'000;
    while (uv_run(raw_.get(), UV_RUN_NOWAIT) != 0) {
        if (uv_hrtime() > end) return false;
        uv_sleep(1);
    }
    return true;
}

uint64_t Loop::now_ms() const {
    return uv_now(raw_.get());
}

uint64_t Loop::boot_ms() {
    return boot_ns() / 1'000'000;
}

uint64_t Loop::boot_ns() {
    timespec now{};
    NEARKEY_CHECK(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint32_t Loop::now_us() {
    timespec now{};
    NEARKEY_CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return static_cast<uint32_t>(static_cast<uint64_t>(now.tv_sec) * 1'000'000 +
                                 static_cast<uint64_t>(now.tv_nsec) / 1000);
}

void Loop::before_sleep() {
    run_phases();
    const bool more =
        std::any_of(listed_.begin(), listed_.end(), [](const auto& list) { return !list.empty(); });
    if (more) {
        uv_idle_start(idle_.get(), [](uv_idle_t*) {});
    } else {
        uv_idle_stop(idle_.get());
    }
}

Timer::Timer(Loop& loop, std::function<void()> callback) : callback_(std::move(callback)) {
    handle_.reset(new uv_timer_t);
    uv_timer_init(loop.raw(), handle_.get());
    handle_->data = &callback_;
}

Timer::~Timer() = default;

namespace {
void on_timer(uv_timer_t* handle) {
    if (handle->data == nullptr) return;
    static_cast<Loop*>(handle->loop->data)->begin_turn();
    static_cast<std::function<void()>*>(handle->data)->operator()();
}
}  // namespace

void Timer::start_once(uint64_t delay_ms) {
    // Never in the pass that runs now: libuv would go on calling it and nothing else.
    uv_timer_start(handle_.get(), on_timer, std::max<uint64_t>(delay_ms, 1), 0);
}

void Timer::start_repeating(uint64_t interval_ms) {
    uv_timer_start(handle_.get(), on_timer, interval_ms, interval_ms);
}

void Timer::stop() {
    uv_timer_stop(handle_.get());
}

bool Timer::is_active() const {
    return uv_is_active(reinterpret_cast<const uv_handle_t*>(handle_.get())) != 0;
}

SignalWatch::SignalWatch(Loop& loop, int signum, std::function<void()> callback)
    : callback_(std::move(callback)) {
    handle_.reset(new uv_signal_t);
    uv_signal_init(loop.raw(), handle_.get());
    handle_->data = &callback_;
    uv_signal_start(
        handle_.get(),
        [](uv_signal_t* handle, int) {
            if (handle->data == nullptr) return;
            static_cast<std::function<void()>*>(handle->data)->operator()();
        },
        signum);
    uv_unref(reinterpret_cast<uv_handle_t*>(handle_.get()));
}

SignalWatch::~SignalWatch() = default;

}  // namespace nearkey
