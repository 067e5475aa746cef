// A URL is cut from the outside in: scheme, query, authority, path. Each step either keeps what it
// found or returns what is wrong; no message quotes the authority, for a password may be in it.
#include "nearkey/upstream/url.h"

#include "nearkey/base/parse_number.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <utility>

namespace nearkey {
namespace {

constexpr std::size_t kSocketPathMax = 107;  // sizeof(sockaddr_un::sun_path), less its NUL.
constexpr std::size_t kHostMax = 255;
constexpr unsigned kDatabaseMax = 2147483647;

// What is wrong, or nothing.
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

bool is_host_name(const std::string& host) {
    const auto is_allowed = [](char c) {
        return is_letter_or_digit(c) || c == '.' || c == '-' || c == '_';
    };
    return host.size() <= kHostMax && std::all_of(host.begin(), host.end(), is_allowed);
}

Problem read_host(std::string_view text, bool bracketed, UpstreamUrl& url) {
    if (text.empty()) return "the host is missing";
    const auto host = percent_decoded(text);
    if (!host) return "a % in the host must be followed by two hex digits";
    if (bracketed && !is_ipv6(*host)) return "the host in brackets is not an IPv6 address";
    if (!bracketed && !is_host_name(*host)) {
        return "the host is not a name or an address (IPv6 addresses stand in brackets; in a user "
               "or "
               "password, write @ as %40, : as %3A, / as %2F, ? as %3F and # as %23)";
    }
    url.host = *host;
    return std::nullopt;
}

// "host", "host:port", "[ipv6]" or "[ipv6]:port".
Problem read_host_and_port(std::string_view text, UpstreamUrl& url) {
    const bool bracketed = text.starts_with('[');
    std::size_t host_end = text.find(':');
    if (bracketed) {
        host_end = text.find(']');
        if (host_end == std::string_view::npos) return "the bracket of the host is not closed";
    }
    const std::size_t host_start = bracketed ? 1 : 0;
    const std::string_view host = text.substr(host_start, host_end - host_start);
    if (Problem problem = read_host(host, bracketed, url)) return problem;

    std::string_view rest = host_end == std::string_view::npos ? "" : text.substr(host_end);
    if (bracketed) rest.remove_prefix(1);
    if (rest.empty()) return std::nullopt;
    const auto port = rest.starts_with(':') ? parse_up_to(rest.substr(1), 65535) : std::nullopt;
    if (!port || *port == 0) {
        return "the port must be a number from 1 to 65535 (in a user or password, write / as %2F, "
               "? as %3F and # as %23)";
    }
    url.port = static_cast<std::uint16_t>(*port);
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

Problem read_unix(std::string_view authority, std::string_view path, UpstreamUrl& url) {
    if (!authority.empty() && !authority.ends_with('@')) {
        return "a Unix socket needs an absolute path, with three slashes: unix:///run/valkey.sock";
    }
    if (!authority.empty()) {
        authority.remove_suffix(1);
        if (Problem problem = read_userinfo(authority, url)) return problem;
    }
    const auto decoded = percent_decoded(path);
    if (!decoded) return "a % in the path must be followed by two hex digits (% itself is %25)";
    if (decoded->empty() || decoded->ends_with('/')) return "the path of the socket is missing";
    if (decoded->find('\0') != std::string::npos) return "the path holds a NUL";
    if (decoded->size() > kSocketPathMax) return "the path is longer than 107 bytes";
    url.path = *decoded;
    return std::nullopt;
}

Problem read_tcp(std::string_view authority, std::string_view path, UpstreamUrl& url) {
    const std::size_t at = authority.rfind('@');
    if (at != std::string_view::npos) {
        if (Problem problem = read_userinfo(authority.substr(0, at), url)) return problem;
        authority.remove_prefix(at + 1);
    }
    if (Problem problem = read_host_and_port(authority, url)) return problem;
    if (path.size() <= 1) return std::nullopt;
    return read_database(path.substr(1), url);
}

// Takes the scheme off `text`.
Problem read_scheme(std::string_view& text, UpstreamUrl& url) {
    const std::size_t end = text.find("://");
    const std::string_view scheme = text.substr(0, end);
    if (end != std::string_view::npos && scheme == "unix") {
        url.kind = UpstreamUrl::Kind::Unix;
    } else if (end != std::string_view::npos && (scheme == "valkey" || scheme == "redis")) {
        url.kind = UpstreamUrl::Kind::Tcp;
    } else if (end != std::string_view::npos && (scheme == "valkeys" || scheme == "rediss")) {
        url.kind = UpstreamUrl::Kind::Tcp;
        url.tls = true;
    } else if (end != std::string_view::npos && scheme.find("sentinel") != std::string_view::npos) {
        return "Sentinel is not supported yet: name the primary itself, as in valkey://HOST:PORT";
    } else if (end != std::string_view::npos && scheme.find("cluster") != std::string_view::npos) {
        return "Cluster is not supported yet: name one server, as in valkey://HOST:PORT";
    } else {
        return "a URL starts with valkey://, redis://, valkeys://, rediss:// or unix:///, "
               "or it is managed:";
    }
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
    if (text.find('#') != std::string_view::npos) return "a # must be written as %23";

    const std::size_t question = text.find('?');
    const std::string_view rest = text.substr(0, question);
    const std::size_t slash = rest.find('/');
    const std::string_view authority = rest.substr(0, slash);
    const std::string_view path = slash == std::string_view::npos ? "" : rest.substr(slash);
    const bool is_unix = url.kind == UpstreamUrl::Kind::Unix;
    Problem problem = is_unix ? read_unix(authority, path, url) : read_tcp(authority, path, url);
    if (problem || question == std::string_view::npos) return problem;
    return read_query(text.substr(question + 1), url);
}

}  // namespace

std::variant<UpstreamUrl, UrlError> parse_url(std::string_view text) {
    UpstreamUrl url;
    if (Problem problem = read_url(text, url)) return UrlError{std::move(*problem)};
    return url;
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
    std::string host = percent_encoded(url.host, "-._~:");
    if (url.host.find(':') != std::string::npos) host = "[" + host + "]";
    const std::string path = url.database == 0 ? "" : "/" + database;
    return (url.tls ? "valkeys://" : "valkey://") + userinfo + host + ":" +
           std::to_string(url.port) + path;
}

}  // namespace nearkey
