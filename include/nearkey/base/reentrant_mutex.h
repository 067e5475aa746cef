// A mutex that its thread may take again while it has it, and that does nothing until share(). For
// data that one thread owns as a rule, and several as an exception: unshared it costs a branch.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

namespace nearkey {

class ReentrantMutex {
public:
    // Several threads use it from now on. REQUIRES: so far one did.
    void share() { is_shared_ = true; }

    void lock() {
        if (is_shared_) take();
    }
    void unlock() {
        if (is_shared_) release();
    }

private:
    void take() {
        const void* const self = this_thread();
        if (owner_.load(std::memory_order_relaxed) != self) {
            mutex_.lock();
            owner_.store(self, std::memory_order_relaxed);
        }
        ++depth_;
    }
    void release() {
        if (--depth_ > 0) return;
        owner_.store(nullptr, std::memory_order_relaxed);
        mutex_.unlock();
    }
    // Another address for each thread.
    static const void* this_thread() {
        static thread_local const char here = 0;
        return &here;
    }

    bool is_shared_ = false;
    std::mutex mutex_;
    std::atomic<const void*> owner_{nullptr};
    uint32_t depth_ = 0;  // of the owner
};

}  // namespace nearkey
