// Where Valkey is, as the operator writes it: one URL in, one plain value out.
//   valkey:// redis:// valkeys:// rediss://  [user[:password]@]host[:port][/db]      "s": TLS
//   unix://[user[:password]@]/path[?db=N]      managed:   (a private Valkey of our own)
// As in redis-py, ":password@" names a password without a user, and user, password, host and path
// are percent-decoded. The one rule: neither an error nor redacted() ever shows the password.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

namespace nearkey {

struct UpstreamUrl {
    enum class Kind { Tcp, Unix, Managed };

    Kind kind = Kind::Managed;
    bool tls = false;
    std::string host;  // Kind::Tcp; an IPv6 address stands here without its brackets.
    std::uint16_t port = 6379;
    std::string path;  // Kind::Unix
    std::string user;
    std::string password;  // May hold any byte, NUL included.
    int database = 0;

    bool operator==(const UpstreamUrl&) const = default;
};

struct UrlError {
    std::string message;
};

[[nodiscard]] std::variant<UpstreamUrl, UrlError> parse_url(std::string_view text);

// The URL in its canonical spelling, with "***" in place of a password. parse_url() accepts it.
std::string redacted(const UpstreamUrl& url);

}  // namespace nearkey
