// The addresses of nearkey itself: as written, and the defaults that the environment gives.
#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "nearkey/base/parse_number.h"
#include "nearkey/daemon/config.h"

namespace nearkey {
namespace {

constexpr std::size_t kSocketPathMax = 107;  // sizeof(sockaddr_un::sun_path), less its NUL.
constexpr std::string_view kSocketName = "nearkey.sock";
constexpr std::string_view kAdminName = "admin.sock";

AddressResult parse_path(std::string_view text) {
    if (text.size() > kSocketPathMax) {
        return AddressError{"the path of a Unix socket has at most 107 bytes, this one has " +
                            std::to_string(text.size()) + "; choose a shorter one"};
    }
    if (text.ends_with('/')) return AddressError{"this is a directory: name a file in it"};
    if (text.find('\0') != std::string_view::npos) return AddressError{"the path holds a NUL"};
    ListenAddress address;
    address.path = text;
    return address;
}

// Null if `text` is not "127.0.0.1:PORT" or "[::1]:PORT".
std::optional<ListenAddress> parse_loopback(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const std::string_view host = text.substr(0, colon);
    if (host != "127.0.0.1" && host != "[::1]") return std::nullopt;
    const auto port = parse_number<std::uint16_t>(text.substr(colon + 1)).value_or(0);
    if (port == 0) return std::nullopt;

    ListenAddress address;
    address.kind = ListenAddress::Kind::Tcp;
    address.host = host == "[::1]" ? "::1" : host;
    address.port = port;
    return address;
}

// The address in the one form that the kernel prints; empty: it is none.
std::string normal_host(int family, const std::string& text) {
    std::array<unsigned char, sizeof(in6_addr)> bytes{};
    std::array<char, INET6_ADDRSTRLEN> shown{};
    if (inet_pton(family, text.c_str(), bytes.data()) != 1) return "";
    return inet_ntop(family, bytes.data(), shown.data(), shown.size());
}

std::string folder_of(const std::string& path) {
    return path.substr(0, path.rfind('/') + 1);
}

std::string default_folder(const Environment& environment) {
    const std::string* const runtime = environment.find("RUNTIME_DIRECTORY");
    if (runtime != nullptr && runtime->starts_with('/')) {
        // systemd names several folders with colons between them; ours is the first.
        return runtime->substr(0, runtime->find(':'));
    }
    if (environment.user_id == 0) return "/run/nearkey";
    const std::string* const user_runtime = environment.find("XDG_RUNTIME_DIR");
    if (user_runtime != nullptr && user_runtime->starts_with('/'))
        return *user_runtime + "/nearkey";
    return "/tmp/nearkey-" + std::to_string(environment.user_id);
}

}  // namespace

Environment system_environment() {
    Environment environment;
    environment.user_id = geteuid();
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        const std::size_t equals = text.find('=');
        if (equals == std::string_view::npos) continue;
        environment.variables.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
    return environment;
}

AddressResult parse_listen_address(std::string_view text) {
    if (text.starts_with('/')) return parse_path(text);
    if (text.starts_with("tcp:")) {
        if (const auto address = parse_loopback(text.substr(4))) return *address;
    }
    return AddressError{
        "allowed is an absolute path, tcp:127.0.0.1:PORT or tcp:[::1]:PORT (loopback only)"};
}

AddressResult parse_admin_address(std::string_view text) {
    if (text.starts_with('/')) return parse_path(text);
    if (const auto address = parse_loopback(text)) return *address;
    return AddressError{
        "allowed is an absolute path, 127.0.0.1:PORT or [::1]:PORT (loopback only)"};
}

AddressResult parse_metrics_address(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    const std::string host(text.substr(0, colon));
    const bool has_brackets = host.starts_with('[') && host.ends_with(']');
    ListenAddress address;
    address.kind = ListenAddress::Kind::Tcp;
    address.host = has_brackets ? normal_host(AF_INET6, host.substr(1, host.size() - 2))
                                : normal_host(AF_INET, host);
    if (colon != std::string_view::npos)
        address.port = parse_number<std::uint16_t>(text.substr(colon + 1)).value_or(0);
    if (!address.host.empty() && address.port != 0) return address;
    return AddressError{
        "allowed is the address of an interface and a port: 0.0.0.0:9121, [::]:9121 (all) or "
        "ADDRESS:PORT, in numbers"};
}

std::string to_text(const ListenAddress& address) {
    if (address.kind == ListenAddress::Kind::Unix) return address.path;
    const bool has_colons = address.host.find(':') != std::string::npos;
    const std::string host = has_colons ? "[" + address.host + "]" : address.host;
    return host + ":" + std::to_string(address.port);
}

bool is_overlapping(const ListenAddress& one, const ListenAddress& other) {
    if (one.kind != ListenAddress::Kind::Tcp || other.kind != ListenAddress::Kind::Tcp)
        return one == other;
    const auto is_any = [](const std::string& host) { return host == "0.0.0.0" || host == "::"; };
    return one.port == other.port &&
           (one.host == other.host || is_any(one.host) || is_any(other.host));
}

std::string default_listen_path(const Environment& environment) {
    return default_folder(environment) + "/" + std::string(kSocketName);
}

std::vector<Listener> listeners(const Config& config, const Environment& environment) {
    std::vector<ListenerOptions> options;
    for (const std::string& text : config.server.listen)
        options.emplace_back(listener_defaults(config)).address = text;
    options.insert(options.end(), config.listeners.begin(), config.listeners.end());
    std::vector<Listener> all;
    for (const ListenerOptions& each : options)
        all.push_back({std::get<ListenAddress>(parse_listen_address(each.address)), each});
    if (!all.empty()) return all;
    all.push_back({{}, listener_defaults(config)});
    all.back().address.path = default_listen_path(environment);
    return all;
}

std::vector<ListenAddress> listen_addresses(const Config& config, const Environment& environment) {
    std::vector<ListenAddress> addresses;
    for (const Listener& listener : listeners(config, environment))
        addresses.push_back(listener.address);
    return addresses;
}

std::string unix_listen_path(const Config& config, const Environment& environment) {
    const std::vector<ListenAddress> addresses = listen_addresses(config, environment);
    const auto is_unix = [](const ListenAddress& a) { return a.kind == ListenAddress::Kind::Unix; };
    const auto socket = std::find_if(addresses.begin(), addresses.end(), is_unix);
    return socket == addresses.end() ? default_listen_path(environment) : socket->path;
}

ListenAddress admin_address(const Config& config, const Environment& environment) {
    if (!config.server.admin.empty()) {
        return std::get<ListenAddress>(parse_admin_address(config.server.admin));
    }
    ListenAddress address;
    address.path = folder_of(unix_listen_path(config, environment)) + std::string(kAdminName);
    return address;
}

std::optional<ListenAddress> metrics_address(const Config& config) {
    if (config.server.metrics.empty()) return std::nullopt;
    return std::get<ListenAddress>(parse_metrics_address(config.server.metrics));
}

}  // namespace nearkey
