#include "nearkey/loop/fd_watch.h"

#include "nearkey/base/check.h"
#include "uv_close.h"

#include <utility>

namespace nearkey {

FdWatch::FdWatch(Loop& loop, int fd, std::function<void(FdEvents)> callback)
    : callback_(std::move(callback)) {
    auto* handle = new uv_poll_t;
    NEARKEY_CHECK(uv_poll_init(loop.raw(), handle, fd) == 0);
    handle_.reset(handle);
    handle_->data = this;
}

FdWatch::~FdWatch() = default;

void FdWatch::want(FdEvents events) {
    if (events.readable == wanted_.readable && events.writable == wanted_.writable) return;
    wanted_ = events;
    const int mask = (events.readable ? UV_READABLE : 0) | (events.writable ? UV_WRITABLE : 0);
    if (mask == 0) {
        uv_poll_stop(handle_.get());
        return;
    }
    uv_poll_start(handle_.get(), mask, [](uv_poll_t* handle, int status, int seen) {
        if (handle->data != nullptr) static_cast<FdWatch*>(handle->data)->on_events(status, seen);
    });
}

void FdWatch::on_events(int status, int events) {
    FdEvents seen{(events & UV_READABLE) != 0, (events & UV_WRITABLE) != 0};
    if (status < 0) {
        // libuv has stopped watching. Everything that was asked for will find the error; if it is
        // gone by then, watching goes on.
        seen = std::exchange(wanted_, FdEvents{});
        want(seen);
    }
    auto& loop = *static_cast<Loop*>(handle_->loop->data);
    loop.begin_turn();
    loop.count_socket();
    callback_(seen);
}

}  // namespace nearkey
