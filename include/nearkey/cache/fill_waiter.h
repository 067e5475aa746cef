// Clients that wait for another client's read of the same key, instead of reading it themselves.
// NearCache calls them under its lock: the callback must only schedule work.
#pragma once

#include <utility>
#include <vector>

namespace nearkey {

class FillWaiter {
public:
    // The reply is stored, or will not be: ask again.
    virtual void on_fill_closed() = 0;

protected:
    ~FillWaiter() = default;
};

// The event loop of waiters, where there are several: they are told on their own thread.
class FillWaiterLoop {
public:
    // True on its own thread.
    virtual bool is_here() const = 0;
    // On any thread: NearCache::tell_waiters() is to be called soon, on its own.
    virtual void wake() = 0;

    // The rest is NearCache's to call, under its lock.
    void tell_later(FillWaiter& waiter) {
        to_tell_.push_back(&waiter);
        wake();
    }
    void forget(const FillWaiter& waiter) { std::erase(to_tell_, &waiter); }
    void tell_all() {
        for (FillWaiter* waiter : std::exchange(to_tell_, {}))
            waiter->on_fill_closed();
    }

protected:
    ~FillWaiterLoop() = default;

private:
    std::vector<FillWaiter*> to_tell_;
};

}  // namespace nearkey
