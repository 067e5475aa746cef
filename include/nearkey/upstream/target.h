// The address of connections and their user: one value of upstream.url with its credentials and TLS
// files.
// Owned by Node. Each connection that is not ready yet points to one; one that is ready
// needs it no more, so a node that turns to another target lets go of the former at once.
#pragma once

#include "nearkey/upstream/tls.h"
#include "nearkey/upstream/url.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace nearkey {

// Decides the fate of the replies that a former server owes.
enum class Former : uint8_t {
    Answers,
    IsNoPrimary,  // its replies are void
};

struct UpstreamTarget {
    // `context`: null unless the URL asks for TLS.
    UpstreamTarget(UpstreamUrl where, std::unique_ptr<TlsContext> context)
        : url(std::move(where)), tls(std::move(context)) {}

    // Sentinels name the primary, and another one soon after it is lost.
    bool has_sentinels() const { return url.kind == UpstreamUrl::Kind::Sentinel; }
    // The user of our connections, as ACL WHOAMI names it.
    std::string_view user() const {
        return url.user.empty() ? "default" : std::string_view(url.user);
    }

    UpstreamUrl url;  // with user and password, wherever they were written
    std::unique_ptr<TlsContext> tls;
    // Facts learned by dialling.
    size_t failed_dials = 0;
    std::string last_good_address{};  // of url.host, for when its name can't be resolved
    std::string refusal{};            // the server's answer in place of the last connection
};

}  // namespace nearkey
