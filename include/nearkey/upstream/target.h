// Where connections go and as whom: one value of upstream.url with its credentials and TLS files.
// Owned by ConnectionPool. Each connection that is not ready yet points to one; one that is ready
// needs it no more, so a pool that turns to another target lets go of the former at once.
#pragma once

#include "nearkey/upstream/tls.h"
#include "nearkey/upstream/url.h"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace nearkey {

struct UpstreamTarget {
    // `context`: null unless the URL asks for TLS.
    UpstreamTarget(UpstreamUrl where, std::unique_ptr<TlsContext> context)
        : url(std::move(where)), tls(std::move(context)) {}

    UpstreamUrl url;  // with user and password, wherever they were written
    std::unique_ptr<TlsContext> tls;
    // What dialling has taught.
    size_t failed_dials = 0;
    std::string last_good_address{};  // of url.host, for when its name can't be resolved
    std::string refusal{};  // what the server answered instead of taking the last connection
};

}  // namespace nearkey
