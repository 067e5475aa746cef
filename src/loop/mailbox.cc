#include "nearkey/loop/mailbox.h"

#include "nearkey/base/check.h"
#include "uv_close.h"

#include <uv.h>

#include <utility>

namespace nearkey {

void Mailbox::Close::operator()(uv_async_s* handle) const {
    close_handle(handle);
}

Mailbox::Mailbox(Loop& loop) : loop_(loop), handle_(new uv_async_t) {
    NEARKEY_CHECK(uv_async_init(loop.raw(), handle_.get(), [](uv_async_t* handle) {
                      if (handle->data != nullptr) static_cast<Mailbox*>(handle->data)->open();
                  }) == 0);
    handle_->data = this;
}

Mailbox::~Mailbox() = default;

void Mailbox::post(std::function<void()> work) {
    {
        const std::lock_guard lock(mutex_);
        posted_.push_back(std::move(work));
    }
    NEARKEY_CHECK(uv_async_send(handle_.get()) == 0);
}

void Mailbox::open() {
    loop_.begin_turn();
    std::unique_lock lock(mutex_);
    const std::vector<std::function<void()>> all = std::exchange(posted_, {});
    lock.unlock();
    for (const std::function<void()>& work : all)
        work();
}

}  // namespace nearkey
