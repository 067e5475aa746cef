// A URL is cut from the outside in: scheme, query, authority, path. Each step either keeps what it
// found or returns what is wrong; no message quotes the authority, for a password may be in it.
#include "nearkey/upstream/url.h"

#include "nearkey/base/parse_number.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

namespace nearkey {
namespace {

constexpr std::size_t kSocketPathMax = 107;  // sizeof(sockaddr_un::sun_path), less its NUL.
constexpr std::size_t kHostMax = 255;
constexpr unsigned kDatabaseMax = 2147483647;
constexpr std::uint16_t kSentinelPort = 26379;
constexpr std::size_t kHostsMax = 16;

// The fault, or nothing.
using Problem = std::optional<std::string>;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool is_letter_or_digit(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::optional<unsigned> parse_up_to(std::string_view text, unsigned max) {
    const auto value = parse_number<unsigned>(text);
    return value && *value <= max ? value : std::nullopt;
}

std::optional<std::string> percent_decoded(std::string_view text) {
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            bytes += text[i];
            continue;
        }
        unsigned char byte = 0;
        if (text.size() - i < 3) return std::nullopt;
        const char* const digits = text.data() + i + 1;
        const auto result = std::from_chars(digits, digits + 2, byte, 16);
        if (result.ec != std::errc() || result.ptr != digits + 2) return std::nullopt;
        bytes += static_cast<char>(byte);
        i += 2;
    }
    return bytes;
}

std::string percent_encoded(std::string_view bytes, std::string_view kept) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    std::string text;
    for (const char c : bytes) {
        if (is_letter_or_digit(c) || kept.find(c) != std::string_view::npos) {
            text += c;
            continue;
        }
        const auto byte = static_cast<unsigned char>(c);
        text += {'%', kHex[byte >> 4U], kHex[byte & 15U]};
    }
    return text;
}

Problem read_userinfo(std::string_view userinfo, UpstreamUrl& url) {
    const std::size_t colon = userinfo.find(':');
    const auto user = percent_decoded(userinfo.substr(0, colon));
    const bool has_password = colon != std::string_view::npos;
    const auto password = percent_decoded(has_password ? userinfo.substr(colon + 1) : "");
    if (!user || !password) {
        return "a % in the user or password must be followed by two hex digits (% itself is %25)";
    }
    url.user = *user;
    url.password = *password;
    return std::nullopt;
}

// The address may carry a zone, as fe80::1%25eth0.
bool is_ipv6(const std::string& host) {
    const std::size_t percent = host.find('%');
    if (percent != std::string::npos) {
        const std::string_view zone = std::string_view(host).substr(percent + 1);
        if (zone.empty() || !std::all_of(zone.begin(), zone.end(), is_letter_or_digit))
            return false;
    }
    in6_addr address{};
    return inet_pton(AF_INET6, host.substr(0, percent).c_str(), &address) == 1;
}

bool is_plain(const std::string& name) {
    return std::all_of(name.begin(), name.end(), [](char c) {
        return is_letter_or_digit(c) || c == '.' || c == '-' || c == '_';
    });
}

bool is_host_name(const std::string& host) {
    return host.size() <= kHostMax && is_plain(host);
}

Problem read_host(std::string_view text, bool bracketed, Endpoint& endpoint) {
    if (text.empty()) return "the host is missing";
    const auto host = percent_decoded(text);
    if (!host) return "a % in the host must be followed by two hex digits";
    if (bracketed && !is_ipv6(*host)) return "the host in brackets is not an IPv6 address";
    if (!bracketed && !is_host_name(*host)) {
        return "the host is not a name or an address (IPv6 addresses stand in brackets; in a user "
               "or "
               "password, write @ as %40, : as %3A, / as %2F, ? as %3F and # as %23)";
    }
    endpoint.host = *host;
    return std::nullopt;
}

// "host", "host:port", "[ipv6]" or "[ipv6]:port".
Problem read_host_and_port(std::string_view text, Endpoint& endpoint) {
    const bool bracketed = text.starts_with('[');
    std::size_t host_end = text.find(':');
    if (bracketed) {
        host_end = text.find(']');
        if (host_end == std::string_view::npos) return "the bracket of the host is not closed";
    }
    const std::size_t host_start = bracketed ? 1 : 0;
    const std::string_view host = text.substr(host_start, host_end - host_start);
    if (Problem problem = read_host(host, bracketed, endpoint)) return problem;

    std::string_view rest = host_end == std::string_view::npos ? "" : text.substr(host_end);
    if (bracketed) rest.remove_prefix(1);
    if (rest.empty()) return std::nullopt;
    const auto port = rest.starts_with(':') ? parse_up_to(rest.substr(1), 65535) : std::nullopt;
    if (!port || *port == 0) {
        return "the port must be a number from 1 to 65535 (in a user or password, write / as %2F, "
               "? as %3F and # as %23)";
    }
    endpoint.port = static_cast<std::uint16_t>(*port);
    return std::nullopt;
}

Problem read_database(std::string_view text, UpstreamUrl& url) {
    const auto database = parse_up_to(text, kDatabaseMax);
    if (!database) return "the database must be a number from 0 to 2147483647";
    url.database = static_cast<int>(*database);
    return std::nullopt;
}

// Only db=N is known, and only where the path cannot name the database.
Problem read_query(std::string_view query, UpstreamUrl& url) {
    const std::size_t equals = query.find('=');
    const std::string name(query.substr(0, equals));
    if (url.kind != UpstreamUrl::Kind::Unix) {
        return "no query parameter is known here; the database stands in the path, as in /3";
    }
    if (name != "db" || equals == std::string_view::npos) {
        return "the only known query parameter is db=N";
    }
    return read_database(query.substr(equals + 1), url);
}

// Takes user and password off the authority, if they stand there.
Problem take_userinfo(std::string_view& authority, UpstreamUrl& url) {
    const std::size_t at = authority.rfind('@');
    if (at == std::string_view::npos) return std::nullopt;
    Problem problem = read_userinfo(authority.substr(0, at), url);
    authority.remove_prefix(at + 1);
    return problem;
}

Problem read_unix(std::string_view authority, std::string_view path, UpstreamUrl& url) {
    if (!authority.empty() && !authority.ends_with('@')) {
        return "a Unix socket needs an absolute path, with three slashes: unix:///run/valkey.sock";
    }
    if (Problem problem = take_userinfo(authority, url)) return problem;
    const auto decoded = percent_decoded(path);
    if (!decoded) return "a % in the path must be followed by two hex digits (% itself is %25)";
    if (decoded->empty() || decoded->ends_with('/')) return "the path of the socket is missing";
    if (decoded->find('\0') != std::string::npos) return "the path holds a NUL";
    if (decoded->size() > kSocketPathMax) return "the path is longer than 107 bytes";
    url.path = *decoded;
    return std::nullopt;
}

Problem read_tcp(std::string_view authority, std::string_view path, UpstreamUrl& url) {
    if (Problem problem = take_userinfo(authority, url)) return problem;
    Endpoint endpoint = url.endpoint();
    if (Problem problem = read_host_and_port(authority, endpoint)) return problem;
    url.host = endpoint.host;
    url.port = endpoint.port;
    if (path.size() <= 1) return std::nullopt;
    return read_database(path.substr(1), url);
}

// `what` they are called, as in "Sentinel".
Problem read_hosts(std::string_view authority, std::uint16_t port, const std::string& what,
                   std::vector<Endpoint>& hosts) {
    while (true) {
        const std::size_t comma = authority.find(',');
        Endpoint host{{}, port};
        if (Problem problem = read_host_and_port(authority.substr(0, comma), host)) {
            return what + " number " + std::to_string(hosts.size() + 1) + ": " + *problem;
        }
        if (std::find(hosts.begin(), hosts.end(), host) != hosts.end()) {
            return "the " + what + " " + to_text(host) + " is given twice";
        }
        hosts.push_back(std::move(host));
        if (comma == std::string_view::npos) break;
        authority.remove_prefix(comma + 1);
    }
    if (hosts.size() > kHostsMax) {
        return "no more than " + std::to_string(kHostsMax) + " " + what + "s can be named";
    }
    return std::nullopt;
}

Problem read_cluster(std::string_view authority, std::string_view path, UpstreamUrl& url) {
    if (Problem problem = take_userinfo(authority, url)) return problem;
    if (Problem problem = read_hosts(authority, url.port, "node", url.seeds)) return problem;
    url.host = url.seeds.front().host;
    url.port = url.seeds.front().port;
    if (path.size() <= 1) return std::nullopt;
    return read_database(path.substr(1), url);
}

Problem read_sentinel(std::string_view authority, std::string_view path, UpstreamUrl& url) {
    if (Problem problem = take_userinfo(authority, url)) return problem;
    if (Problem problem = read_hosts(authority, kSentinelPort, "Sentinel", url.sentinels)) {
        return problem;
    }
    if (!path.empty()) path.remove_prefix(1);
    const std::size_t slash = path.find('/');
    const auto name = percent_decoded(path.substr(0, slash));
    // By Sentinel's own rule (sentinel.c, "sentinel monitor").
    if (!name || name->empty() || !is_plain(*name)) {
        return "the primary's name must follow the Sentinels, as in "
               "sentinel://HOST:26379/mymaster (letters, digits, dot, dash and underscore)";
    }
    url.primary_name = *name;
    if (slash == std::string_view::npos || slash + 1 == path.size()) return std::nullopt;
    return read_database(path.substr(slash + 1), url);
}

struct Scheme {
    std::string_view name;
    UpstreamUrl::Kind kind;
    bool tls;
};

constexpr Scheme kSchemes[] = {
    {"unix", UpstreamUrl::Kind::Unix, false},
    {"valkey", UpstreamUrl::Kind::Tcp, false},
    {"redis", UpstreamUrl::Kind::Tcp, false},
    {"valkeys", UpstreamUrl::Kind::Tcp, true},
    {"rediss", UpstreamUrl::Kind::Tcp, true},
    {"sentinel", UpstreamUrl::Kind::Sentinel, false},
    {"sentinels", UpstreamUrl::Kind::Sentinel, true},
    {"valkey+cluster", UpstreamUrl::Kind::Cluster, false},
    {"valkeys+cluster", UpstreamUrl::Kind::Cluster, true},
    // Another spelling, of other clients.
    {"redis+cluster", UpstreamUrl::Kind::Cluster, false},
    {"rediss+cluster", UpstreamUrl::Kind::Cluster, true},
    {"redis-cluster", UpstreamUrl::Kind::Cluster, false},
    {"rediss-cluster", UpstreamUrl::Kind::Cluster, true},
    {"redis+sentinel", UpstreamUrl::Kind::Sentinel, false},
    {"rediss+sentinel", UpstreamUrl::Kind::Sentinel, true},
    {"valkey+sentinel", UpstreamUrl::Kind::Sentinel, false},
    {"valkeys+sentinel", UpstreamUrl::Kind::Sentinel, true},
    {"redis-sentinel", UpstreamUrl::Kind::Sentinel, false},
    {"rediss-sentinel", UpstreamUrl::Kind::Sentinel, true},
};

// Takes the scheme off `text`.
Problem read_scheme(std::string_view& text, UpstreamUrl& url) {
    const std::size_t end = text.find("://");
    const std::string_view name = text.substr(0, end);
    const auto* const scheme =
        std::find_if(std::begin(kSchemes), std::end(kSchemes),
                     [&](const Scheme& known) { return known.name == name; });
    if (end == std::string_view::npos || scheme == std::end(kSchemes)) {
        if (end != std::string_view::npos && name.find("cluster") != std::string_view::npos) {
            return "the URL of a cluster starts with valkey+cluster:// or valkeys+cluster://";
        }
        return "a URL starts with valkey://, redis://, valkeys://, rediss://, valkey+cluster://, "
               "valkeys+cluster://, sentinel://, sentinels:// or unix:///, or it is managed:";
    }
    url.kind = scheme->kind;
    url.tls = scheme->tls;
    text.remove_prefix(end + 3);
    return std::nullopt;
}

Problem read_url(std::string_view text, UpstreamUrl& url) {
    const auto is_unprintable = [](char c) {
        return static_cast<unsigned char>(c) <= ' ' || c == 127;
    };
    if (text.empty()) return "the URL is empty";
    if (std::any_of(text.begin(), text.end(), is_unprintable)) {
        return "a URL holds no blank and no control character (a blank is %20)";
    }
    if (text.starts_with("managed:")) {
        if (text != "managed:") return "nothing follows after managed:";
        return std::nullopt;
    }
    if (Problem problem = read_scheme(text, url)) return problem;
    if (text.find('#') != std::string_view::npos) {
        if (url.kind == UpstreamUrl::Kind::Sentinel) {
            return "the primary's name stands in the path, as in sentinel://HOST:26379/mymaster";
        }
        return "a # must be written as %23";
    }

    const std::size_t question = text.find('?');
    const std::string_view rest = text.substr(0, question);
    const std::size_t slash = rest.find('/');
    const std::string_view authority = rest.substr(0, slash);
    const std::string_view path = slash == std::string_view::npos ? "" : rest.substr(slash);
    Problem problem = url.kind == UpstreamUrl::Kind::Unix  ? read_unix(authority, path, url)
                      : url.kind == UpstreamUrl::Kind::Tcp ? read_tcp(authority, path, url)
                      : url.kind == UpstreamUrl::Kind::Cluster
                          ? read_cluster(authority, path, url)
                          : read_sentinel(authority, path, url);
    if (problem || question == std::string_view::npos) return problem;
    return read_query(text.substr(question + 1), url);
}

std::string with_port(const std::string& host, std::uint16_t port) {
    const bool is_bracketed = host.find(':') != std::string::npos;
    return (is_bracketed ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string encoded(const Endpoint& endpoint) {
    return with_port(percent_encoded(endpoint.host, "-._~:"), endpoint.port);
}

std::string encoded(const std::vector<Endpoint>& hosts) {
    std::string text;
    for (const Endpoint& host : hosts)
        text += (text.empty() ? "" : ",") + encoded(host);
    return text;
}

}  // namespace

std::string to_text(const Endpoint& endpoint) {
    return with_port(endpoint.host, endpoint.port);
}

bool is_host(const std::string& host) {
    return !host.empty() && (is_host_name(host) || is_ipv6(host));
}

std::variant<UpstreamUrl, UrlError> parse_url(std::string_view text) {
    UpstreamUrl url;
    if (Problem problem = read_url(text, url)) return UrlError{std::move(*problem)};
    return url;
}

std::variant<Endpoint, UrlError> parse_endpoint(std::string_view text) {
    Endpoint endpoint;
    if (Problem problem = read_host_and_port(text, endpoint)) return UrlError{std::move(*problem)};
    return endpoint;
}

std::string redacted(const UpstreamUrl& url) {
    if (url.kind == UpstreamUrl::Kind::Managed) return "managed:";
    std::string userinfo = percent_encoded(url.user, "-._~");
    if (!url.password.empty()) userinfo += ":***";
    if (!userinfo.empty()) userinfo += '@';

    const std::string database = std::to_string(url.database);
    if (url.kind == UpstreamUrl::Kind::Unix) {
        const std::string query = url.database == 0 ? "" : "?db=" + database;
        return "unix://" + userinfo + percent_encoded(url.path, "-._~/") + query;
    }
    const std::string path = url.database == 0 ? "" : "/" + database;
    if (url.kind == UpstreamUrl::Kind::Sentinel) {
        return (url.tls ? "sentinels://" : "sentinel://") + userinfo + encoded(url.sentinels) +
               "/" + url.primary_name + path;
    }
    if (url.kind == UpstreamUrl::Kind::Cluster) {
        return (url.tls ? "valkeys+cluster://" : "valkey+cluster://") + userinfo +
               encoded(url.seeds) + path;
    }
    return (url.tls ? "valkeys://" : "valkey://") + userinfo + encoded(url.endpoint()) + path;
}

}  // namespace nearkey
