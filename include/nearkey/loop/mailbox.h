// Work for an event loop, from any thread: it is done on the loop's thread, in the order in which
// it came.
// Owned by the loop's owner. Work that is not done when it ends is dropped.
#pragma once

#include "nearkey/loop/loop.h"

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

struct uv_async_s;

namespace nearkey {

class Mailbox {
public:
    explicit Mailbox(Loop& loop);
    ~Mailbox();
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    // Any thread.
    void post(std::function<void()> work);

private:
    struct Close {
        void operator()(uv_async_s* handle) const;
    };
    void open();

    Loop& loop_;
    std::mutex mutex_;
    std::vector<std::function<void()>> posted_;
    std::unique_ptr<uv_async_s, Close> handle_;
};

}  // namespace nearkey
