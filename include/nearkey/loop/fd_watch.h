// Watches one descriptor for reading and writing. The descriptor stays the caller's, who destroys
// the watch before closing it.
#pragma once

#include "nearkey/loop/loop.h"

#include <functional>

namespace nearkey {

struct FdEvents {
    bool readable = false;
    bool writable = false;
};

class FdWatch {
public:
    // `callback` runs on the loop and may destroy the watch. An error on the descriptor is told as
    // the events that were asked for, so that read() or write() finds the error.
    FdWatch(Loop& loop, int fd, std::function<void(FdEvents)> callback);
    ~FdWatch();
    FdWatch(const FdWatch&) = delete;
    FdWatch& operator=(const FdWatch&) = delete;

    // Costs a system call only when the wish changes.
    void want(FdEvents events);
    FdEvents wanted() const { return wanted_; }

private:
    void on_events(int status, int events);

    std::function<void(FdEvents)> callback_;
    FdEvents wanted_;
    UvHandle<uv_poll_s> handle_;
};

}  // namespace nearkey
