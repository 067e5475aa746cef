// Valkey's address as the operator writes it: one URL in, one plain value out.
//   valkey:// redis:// valkeys:// rediss://  [user[:password]@]host[:port][/db]      "s": TLS
//   sentinel:// sentinels://      [user[:password]@]host[:port][,host[:port]...]/name[/db]
//   valkey+cluster:// valkeys+cluster://      [user[:password]@]host[:port][,host[:port]...][/db]
//   unix://[user[:password]@]/path[?db=N]      managed:   (a private Valkey of our own)
// As in redis-py, ":password@" names a password without a user, and user, password, host and path
// are percent-decoded. The one rule: neither an error nor redacted() ever shows the password.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace nearkey {

// The address of a server.
struct Endpoint {
    std::string host;  // a name or an address; IPv6 without brackets
    std::uint16_t port = 0;

    bool operator==(const Endpoint&) const = default;
};
// "host:port"; an IPv6 address stands in brackets.
std::string to_text(const Endpoint& endpoint);
// True if it may be a name or an address, by its characters.
bool is_host(const std::string& host);

struct UpstreamUrl {
    enum class Kind { Tcp, Unix, Managed, Sentinel, Cluster };

    Kind kind = Kind::Managed;
    bool tls = false;
    // Kind::Tcp; an IPv6 address stands here without its brackets. Kind::Sentinel: the primary's,
    // which no URL names; empty until a Sentinel has. Kind::Cluster: the node that is asked.
    std::string host;
    std::uint16_t port = 6379;
    std::vector<Endpoint> sentinels;  // Kind::Sentinel: those that are asked first
    std::vector<Endpoint> seeds;      // Kind::Cluster: nodes that are asked first
    std::string primary_name;         // Kind::Sentinel: their name for it
    std::string path;                 // Kind::Unix
    std::string user;
    std::string password;  // May hold any byte, NUL included.
    int database = 0;

    bool operator==(const UpstreamUrl&) const = default;
    bool is_tcp() const { return kind != Kind::Unix && kind != Kind::Managed; }
    Endpoint endpoint() const { return {host, port}; }
    // As if it had been written with +cluster. A Unix socket stays one.
    void make_seed() {
        if (kind != Kind::Tcp) return;
        kind = Kind::Cluster;
        seeds = {endpoint()};
    }
};

struct UrlError {
    std::string message;
};

[[nodiscard]] std::variant<UpstreamUrl, UrlError> parse_url(std::string_view text);
// "HOST:PORT" or "HOST", whose port is 0 then; an IPv6 address stands in brackets.
[[nodiscard]] std::variant<Endpoint, UrlError> parse_endpoint(std::string_view text);

// The URL in its canonical spelling, with "***" in place of a password. parse_url() accepts it.
std::string redacted(const UpstreamUrl& url);

}  // namespace nearkey
