// Sources are applied from the weakest to the strongest, each value judged as it comes; rules
// across options are checked at the end, with the place where each was set.
#include "nearkey/daemon/config.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <utility>

#include "nearkey/base/parse_number.h"
#include "nearkey/daemon/config_file.h"
#include "nearkey/daemon/config_option.h"
#include "nearkey/daemon/config_rows.h"
#include "nearkey/daemon/config_secrets.h"
#include "nearkey/upstream/url.h"

namespace nearkey {
namespace {

constexpr std::string_view kListenKey = "server.listen";
constexpr std::string_view kAdminKey = "server.admin";
constexpr std::string_view kMetricsKey = "server.metrics";
constexpr std::string_view kListenerPrefix = "listener[";
constexpr std::size_t kListenersMax = 256;

// The configuration so far, and the place where each key was last set.
struct Loading {
    Config config;
    std::map<std::string, std::string, std::less<>> origins;
};

std::string one_line(std::string text) {
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 127; };
    std::replace_if(text.begin(), text.end(), is_control, '?');
    return text;
}

bool is_table(std::string_view key) {
    const auto stands_in = [&](const Option& option) { return table_of(option.key) == key; };
    return std::any_of(options().begin(), options().end(), stands_in);
}

// An empty table that is known sets nothing; every other unknown key is an error.
void refuse_unknown(const Setting& setting) {
    const auto* const unfit = std::get_if<Unfit>(&setting.value);
    const bool has_table = unfit != nullptr && unfit->what == "a table";
    if (is_table(setting.key)) {
        if (has_table) return;
        throw ConfigError(setting.origin + ": " + setting.key +
                          " is a table of options, not a value; set " + setting.key + ".KEY");
    }
    if (setting.key == "listener" || setting.key.starts_with("listener.")) {
        throw ConfigError(setting.origin +
                          ": a listener is written [[listener]], with two brackets: there may be "
                          "several of them");
    }
    const std::string nearest = nearest_key(setting.key, options());
    const bool is_top = setting.key.find('.') == std::string::npos;
    if (has_table && is_top) {
        throw ConfigError(setting.origin + ": unknown table " + setting.key +
                          "; the nearest known key is " + nearest);
    }
    throw ConfigError(setting.origin + ": unknown key " + setting.key +
                      "; the nearest known one is " + nearest);
}

// The index in "listener[2].address".
std::optional<std::size_t> listener_index(const std::string& key) {
    const std::size_t end = key.find("].");
    if (!key.starts_with(kListenerPrefix) || end == std::string::npos) return std::nullopt;
    const std::string_view digits = std::string_view(key).substr(0, end);
    const auto index = parse_number<std::size_t>(digits.substr(kListenerPrefix.size()));
    return index && *index < kListenersMax ? index : std::nullopt;
}

// `name`: the key as messages have it.
void store(const Option& option, const std::string& name, const Setting& setting,
           Loading& loading) {
    if (const auto problem = assign(option, setting.value, loading.config)) {
        throw ConfigError(setting.origin + ": " + name + " = " + printed(option, setting.value) +
                          ": " + *problem);
    }
    loading.origins[setting.key] = setting.origin;
}

// Settings come in the order of their lines, so those of one listener stand together.
void apply_to_listener(const Setting& setting, std::size_t index, Loading& loading) {
    const std::string name = setting.key.substr(setting.key.find("].") + 2);
    const auto rows = listener_options();
    const auto option = std::find_if(rows.begin(), rows.end(),
                                     [&](const Option& each) { return each.key == name; });
    if (option == rows.end()) {
        throw ConfigError(setting.origin + ": unknown key " + name +
                          " in [[listener]]; the nearest known one is " + nearest_key(name, rows));
    }
    if (index >= loading.config.listeners.size()) loading.config.listeners.resize(index + 1);
    store(*option, name, setting, loading);
}

void apply(const Setting& setting, Loading& loading) {
    if (const auto index = listener_index(setting.key)) {
        apply_to_listener(setting, *index, loading);
    } else if (const Option* const option = find_option(setting.key); option != nullptr) {
        store(*option, setting.key, setting, loading);
    } else {
        refuse_unknown(setting);
    }
}

// "table.key=value"; no message quotes text that is no key, for it may be a URL with a password.
Setting parse_set(const std::string& text) {
    constexpr std::string_view kKeyCharacters = "abcdefghijklmnopqrstuvwxyz0123456789_.";
    const std::size_t equals = text.find('=');
    const std::string key = text.substr(0, equals);
    const bool is_key = !key.empty() && key.find_first_not_of(kKeyCharacters) == std::string::npos;
    if (equals == std::string::npos || !is_key) {
        throw ConfigError("--set: write it as --set table.key=value");
    }
    const std::string value = text.substr(equals + 1);
    const Option* const option = find_option(key);
    return {key, option == nullptr ? RawValue(value) : raw_from_text(*option, value), "--set"};
}

void apply_file(const ConfigSources& sources, Loading& loading) {
    const std::string* const variable = sources.environment.find("NEARKEY_CONFIG");
    std::vector<Setting> settings;
    if (sources.config_file) {
        settings = read_config_file(*sources.config_file, "--config");
    } else if (variable != nullptr) {
        settings = read_config_file(*variable, "NEARKEY_CONFIG");
    }
    for (const Setting& setting : settings)
        apply(setting, loading);
}

// CACHE_URL is looked at only where no flag names the upstream: on an application's host it may
// well be the application's own, and name us.
void apply_environment(const ConfigSources& sources, Loading& loading) {
    if (names_upstream(sources)) return;
    const std::string* const url = sources.environment.find("CACHE_URL");
    if (url != nullptr) apply({std::string(kUrlKey), *url, "CACHE_URL"}, loading);
}

// --set in its order; then the flags of their own, which are the stronger.
void apply_flags(const ConfigSources& sources, Loading& loading) {
    for (const std::string& text : sources.set)
        apply(parse_set(text), loading);
    if (sources.upstream) apply({std::string(kUrlKey), *sources.upstream, "--upstream"}, loading);
    if (!sources.listen.empty()) {
        loading.config.listeners.clear();
        apply({std::string(kListenKey), sources.listen, "--listen"}, loading);
    }
    if (sources.admin) apply({std::string(kAdminKey), *sources.admin, "--admin"}, loading);
}

// "FILE:LINE: " or "--set: ", for the first of the keys that was set; "" if none was.
std::string place(const Loading& loading, std::string_view key, std::string_view other_key) {
    for (const std::string_view each : {key, other_key}) {
        const auto found = loading.origins.find(each);
        if (found != loading.origins.end()) return found->second + ": ";
    }
    return "";
}

std::string assignment(const Loading& loading, std::string_view key) {
    return std::string(key) + " = " + printed(*find_option(key), loading.config);
}

struct OrderedPair {
    std::string_view low_key;
    std::string_view high_key;
};
constexpr auto kOrderedPairs = std::to_array<OrderedPair>({
    {"upstream.backoff_min_ms", "upstream.backoff_max_ms"},
    {"upstream.connections", "upstream.connections_max"},
    {"upstream.heartbeat_interval_ms", "upstream.unready_after_ms"},
    {"limits.output_per_client_high_water", "limits.output_per_client_max"},
});

std::uint64_t number_at(std::string_view key, Config& config) {
    return std::get<std::uint64_t& (*)(Config&)>(find_option(key)->field)(config);
}

const std::string& text_at(std::string_view key, Config& config) {
    return std::get<std::string& (*)(Config&)>(find_option(key)->field)(config);
}

void check_order(Loading& loading) {
    for (const OrderedPair& pair : kOrderedPairs) {
        const std::uint64_t low = number_at(pair.low_key, loading.config);
        if (low <= number_at(pair.high_key, loading.config)) continue;
        throw ConfigError(place(loading, pair.low_key, pair.high_key) +
                          assignment(loading, pair.low_key) + ": must not be above " +
                          assignment(loading, pair.high_key));
    }
}

// The URL gives these options no effect, for the reason that follows its name.
void refuse_set(std::initializer_list<std::string_view> keys, const char* reason,
                Loading& loading) {
    for (const std::string_view key : keys) {
        if (text_at(key, loading.config).empty()) continue;
        throw ConfigError(place(loading, key, kUrlKey) + assignment(loading, key) +
                          ": has no effect, for " + assignment(loading, kUrlKey) + reason);
    }
}

void check_tls(Loading& loading) {
    constexpr std::string_view kCert = "upstream.tls_cert_file";
    constexpr std::string_view kKey = "upstream.tls_key_file";
    const UpstreamOptions& upstream = loading.config.upstream;
    if (upstream.tls_cert_file.empty() != upstream.tls_key_file.empty()) {
        throw ConfigError(place(loading, kCert, kKey) + assignment(loading, kCert) +
                          ": goes together with " + assignment(loading, kKey) +
                          "; name both or neither");
    }
    // A user who asks for TLS must not get a connection that anybody can read.
    if (std::get<UpstreamUrl>(parse_url(upstream.url)).tls) return;
    refuse_set({"upstream.tls_ca_file", "upstream.tls_cert_file", "upstream.tls_key_file",
                "upstream.tls_server_name"},
               " is without TLS; write valkeys:// or sentinels:// there, or take this out",
               loading);
}

void check_sentinel(Loading& loading) {
    const UpstreamUrl url = std::get<UpstreamUrl>(parse_url(loading.config.upstream.url));
    if (url.kind == UpstreamUrl::Kind::Sentinel) return;
    refuse_set({"sentinel.username", "sentinel.password_file"},
               " names no Sentinel; write sentinel://HOST/NAME there, or take this out", loading);
}

// Refuses what is known to have no effect. Whether a server of a valkey:// URL is a cluster's is
// known when it answers.
void check_read_from(const Loading& loading) {
    if (!reads_replicas(loading.config)) return;
    const UpstreamOptions& upstream = loading.config.upstream;
    const UpstreamUrl::Kind kind = std::get<UpstreamUrl>(parse_url(upstream.url)).kind;
    if (kind == UpstreamUrl::Kind::Cluster) return;
    const bool is_server = kind == UpstreamUrl::Kind::Tcp || kind == UpstreamUrl::Kind::Unix;
    const std::string_view key =
        is_server && upstream.cluster == "off" ? std::string_view("upstream.cluster") : kUrlKey;
    if (is_server && upstream.cluster != "off") return;
    throw ConfigError(place(loading, key, kUrlKey) + assignment(loading, key) +
                      ": no cluster is used with it, so that read_from = \"replica\" of a "
                      "[[listener]] has no effect; take that out, or write valkey+cluster://");
}

// The secret itself is read again when it is needed, and may be another by then.
void check_secrets(const Loading& loading, const Environment& environment) {
    try {
        static_cast<void>(read_upstream(loading.config, environment, ""));
        static_cast<void>(read_sentinel_credentials(loading.config.sentinel));
    } catch (const ConfigError& error) {
        const std::string text = error.what();
        const auto origin = loading.origins.find(text.substr(0, text.find_first_of(" :")));
        throw ConfigError(origin == loading.origins.end() ? text : origin->second + ": " + text);
    }
}

// Refuses prefixes that CLIENT TRACKING would refuse, and those that would have no effect.
void check_prefixes(const Loading& loading) {
    constexpr std::string_view kPrefixes = "near_cache.prefixes";
    constexpr std::string_view kTracking = "near_cache.tracking";
    const std::vector<std::string>& prefixes = loading.config.near_cache.prefixes;
    const std::string start =
        place(loading, kPrefixes, kTracking) + assignment(loading, kPrefixes) + ": ";
    if (!prefixes.empty() && loading.config.near_cache.tracking != "broadcast") {
        throw ConfigError(start + "goes only together with near_cache.tracking = \"broadcast\"");
    }
    for (std::size_t i = 0; i < prefixes.size(); ++i) {
        for (std::size_t j = 0; j < prefixes.size(); ++j) {
            if (i == j || !prefixes[i].starts_with(prefixes[j])) continue;
            throw ConfigError(start + "they must not overlap, and \"" + prefixes[i] +
                              "\" begins with \"" + prefixes[j] + "\"");
        }
    }
}

// One spelling for one socket, as far as the text shows it.
ListenAddress normal(ListenAddress address) {
    address.path = std::filesystem::path(address.path).lexically_normal().string();
    return address;
}

// The addresses that do not fit a socket because of where their defaults come from.
void check_default_paths(const Loading& loading, const Environment& environment) {
    if (loading.config.server.listen.empty() && loading.config.listeners.empty()) {
        const std::string path = default_listen_path(environment);
        const std::string problem = check_listen(path);
        if (!problem.empty())
            throw ConfigError("server.listen: its default is " + path + ": " + problem);
    }
    const ListenAddress admin = admin_address(loading.config, environment);
    if (admin.kind == ListenAddress::Kind::Tcp) return;
    const std::string problem = check_listen(admin.path);
    if (!problem.empty())
        throw ConfigError("server.admin: its default is " + admin.path + ": " + problem);
}

// True if the upstream is the socket that we are about to listen on.
bool is_self(const UpstreamUrl& url, const ListenAddress& address) {
    ListenAddress target;
    if (url.kind == UpstreamUrl::Kind::Unix) {
        target.path = url.path;
    } else if (url.kind == UpstreamUrl::Kind::Tcp || url.kind == UpstreamUrl::Kind::Cluster) {
        target.kind = ListenAddress::Kind::Tcp;
        target.host = url.host == "localhost" ? address.host : url.host;
        target.port = url.port;
    }
    return normal(target) == normal(address);
}

// The place of the listener's first option: "FILE:LINE: ".
std::string listener_place(const Loading& loading, const std::string& prefix) {
    const auto first = loading.origins.lower_bound(prefix);
    return first == loading.origins.end() ? "" : first->second + ": ";
}

void complete_listeners(Loading& loading) {
    for (std::size_t i = 0; i < loading.config.listeners.size(); ++i) {
        ListenerOptions& listener = loading.config.listeners[i];
        const std::string prefix = std::string(kListenerPrefix) + std::to_string(i) + "].";
        const auto says = [&](std::string_view key) {
            return loading.origins.contains(prefix + std::string(key));
        };
        const std::string start =
            listener_place(loading, prefix) + "[[listener]] number " + std::to_string(i + 1);
        if (listener.address.empty()) {
            throw ConfigError(start + " has no address; give it one, as in server.listen");
        }
        listener = completed(loading.config, listener, says);
        const std::string problem = listener_problem(listener);
        if (!problem.empty()) throw ConfigError(start + ", " + listener.address + ": " + problem);
    }
}

// A socket of all interfaces takes the port from those of one.
void check_metrics_address(const Loading& loading, const std::vector<ListenAddress>& others) {
    const auto metrics = metrics_address(loading.config);
    if (!metrics) return;
    for (const ListenAddress& other : others) {
        if (!is_overlapping(*metrics, other)) continue;
        throw ConfigError(place(loading, kMetricsKey, "") + assignment(loading, kMetricsKey) +
                          ": " + to_text(other) + " listens on that port; it needs one of its own");
    }
}

void check_addresses(const Loading& loading, const Environment& environment) {
    check_default_paths(loading, environment);
    const auto url = std::get<UpstreamUrl>(parse_url(loading.config.upstream.url));
    std::vector<ListenAddress> seen;
    for (const ListenAddress& address : listen_addresses(loading.config, environment)) {
        if (is_self(url, address)) {
            throw ConfigError(place(loading, kUrlKey, kListenKey) + assignment(loading, kUrlKey) +
                              ": this is nearkey's own listening address; upstream.url must be "
                              "Valkey's own URL (applications are the ones that name nearkey)");
        }
        if (std::find(seen.begin(), seen.end(), normal(address)) != seen.end()) {
            throw ConfigError(place(loading, kListenKey, "") + "server.listen: " +
                              to_text(address) + " is given twice; name it once");
        }
        seen.push_back(normal(address));
    }
    const ListenAddress admin = admin_address(loading.config, environment);
    if (is_self(url, admin) || std::find(seen.begin(), seen.end(), normal(admin)) != seen.end()) {
        throw ConfigError(place(loading, kAdminKey, kListenKey) +
                          "server.admin: " + to_text(admin) +
                          " is also a listening address or the upstream; it needs one of its own");
    }
    seen.push_back(admin);
    check_metrics_address(loading, seen);
}

}  // namespace

const std::string* Environment::find(std::string_view name) const {
    const auto found = variables.find(name);
    return found == variables.end() || found->second.empty() ? nullptr : &found->second;
}

ConfigError::ConfigError(const std::string& message) : std::runtime_error(one_line(message)) {
}

bool reads_replicas(const Config& config) {
    return std::any_of(config.listeners.begin(), config.listeners.end(),
                       [](const auto& listener) { return listener.read_from == "replica"; });
}

bool names_upstream(const ConfigSources& sources) {
    const std::string prefix = std::string(kUrlKey) + "=";
    return sources.upstream ||
           std::any_of(sources.set.begin(), sources.set.end(),
                       [&](const std::string& text) { return text.starts_with(prefix); });
}

Config load_config(const ConfigSources& sources) {
    Loading loading;
    apply_file(sources, loading);
    apply_environment(sources, loading);
    apply_flags(sources, loading);
    check_order(loading);
    check_tls(loading);
    check_sentinel(loading);
    complete_listeners(loading);
    check_read_from(loading);
    check_prefixes(loading);
    check_addresses(loading, sources.environment);
    check_secrets(loading, sources.environment);
    return std::move(loading.config);
}

}  // namespace nearkey
