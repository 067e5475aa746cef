// The end of libuv handles. Private to loop/: UvClose is the deleter of every UvHandle.
// libuv frees later, in a callback; the owner has let go by then.
#pragma once

#include <uv.h>

namespace nearkey {

// Callbacks return when `data` is null: the owner is gone, the handle is closing.
template <class Handle>
void close_handle(Handle* handle) {
    handle->data = nullptr;
    uv_close(reinterpret_cast<uv_handle_t*>(handle),
             [](uv_handle_t* closed) { delete reinterpret_cast<Handle*>(closed); });
}

}  // namespace nearkey
