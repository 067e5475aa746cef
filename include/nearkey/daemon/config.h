// All options of the operator: plain structs with their defaults, and how they are filled.
// Precedence: flags, environment (CACHE_URL, NEARKEY_CONFIG), the file, the defaults below.
// Owned by the daemon, which hands each part only the values that it needs. The one rule: an
// option is a member here and one row in src/daemon/config_table.cc; nothing else lists them.
#pragma once

#include "nearkey/cache/options.h"
#include "nearkey/resp/access_rules.h"
#include "nearkey/session/limits.h"
#include "nearkey/session/traffic_options.h"
#include "nearkey/upstream/options.h"

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace nearkey {

struct ServerOptions {
    std::vector<std::string> listen;  // See listeners().
    unsigned listen_mode = 0660;
    std::string listen_owner;  // Empty: as the file comes to be.
    std::string listen_group;
    std::string commands{kDefaultCommands};  // See resp/access_rules.h.
    std::string when_down = "error";         // error or close.
    std::uint64_t backlog = 511;
    std::uint64_t workers = 1;
    std::string admin;  // Empty: beside the listening socket. See admin_address().
    unsigned admin_mode = 0660;
    std::string metrics;  // Empty: nobody listens there. See metrics_address().
    std::uint64_t drain_timeout_ms = 5000;
    std::uint64_t upgrade_start_timeout_ms = 30'000;
    std::uint64_t upgrade_drain_timeout_ms = 600'000;
    bool core_dumps = false;
};

// One [[listener]] of the file, or an address of server.listen: who may connect, and what is
// granted to its clients. Options that it leaves out come from [server], [limits] and the
// upstream's URL.
struct ListenerOptions {
    std::string address;
    std::string face = "standalone";  // standalone or cluster.
    std::string announce;             // The face of a cluster: HOST:PORT of its one node.
    bool near_cache = true;
    bool shared_memory = false;
    std::string read_from = "primary";  // primary or replica.
    std::uint64_t database = 0;
    unsigned mode = 0660;
    std::string owner;  // A name or a number; empty: as the file comes to be.
    std::string group;
    std::vector<std::string> allow_users;  // Both lists empty: whoever can open the socket.
    std::vector<std::string> allow_groups;
    std::string commands{kDefaultCommands};
    std::string when_down = "error";
    ClientLimits limits;
};

struct ManagedOptions {
    std::string server = "valkey-server";
    std::uint64_t memory = std::uint64_t{256} << 20;
    std::string directory;  // Empty: beside the listening socket.
};

constexpr std::string_view kManagedUrl = "managed:";

struct LogOptions {
    std::string level = "info";   // debug, info, warning or error.
    std::string format = "json";  // json or text.
};

struct Config {
    UpstreamOptions upstream;
    ClusterOptions cluster;
    SentinelOptions sentinel;
    ServerOptions server;
    std::vector<ListenerOptions> listeners;  // besides server.listen
    NearCacheOptions near_cache;
    LimitOptions limits;
    ManagedOptions managed;
    LogOptions log;
    SlowLogOptions slow_log;
    HotKeyOptions hot_keys;
};

// The operator's mistake. what() is one line that names FILE:LINE, the flag or the environment
// variable, then the key and the value; it never shows a secret.
class ConfigError : public std::runtime_error {
public:
    explicit ConfigError(const std::string& message);
};

// Input from outside the arguments: injected, so that tests need no real environment.
struct Environment {
    std::map<std::string, std::string, std::less<>> variables;
    unsigned user_id = 0;

    // Null if it is not set or empty. Points into `variables`.
    const std::string* find(std::string_view name) const;
};

Environment system_environment();

// The sources named on the command line, and the environment.
struct ConfigSources {
    std::optional<std::string> config_file;  // --config
    std::optional<std::string> upstream;     // --upstream
    std::vector<std::string> listen;         // --listen, each
    std::optional<std::string> admin;        // --admin
    std::vector<std::string> set;            // --set, each as "table.key=value"
    std::vector<std::string> arguments;      // all of them, the program's name first
    Environment environment;
};

// A listener reads from the replicas of a cluster.
bool reads_replicas(const Config& config);

// Of the near cache's shared memory; 0: no listener hands it out.
std::uint64_t shared_memory_size(const Config& config);
// All that its readers are granted, in words.
std::string shared_memory_terms(const Config& config);

// True if a flag names the URL of Valkey, by --upstream or --set.
bool names_upstream(const ConfigSources& sources);

// Throws ConfigError. The result is valid in every option and across options.
Config load_config(const ConfigSources& sources);

// Every option in the order of the table, secrets redacted. It loads again to the same text.
std::string to_toml(const Config& config);
// The same with a comment for each option: its meaning, and the values allowed.
std::string to_commented_toml(const Config& config);

struct ListenAddress {
    enum class Kind { Unix, Tcp };

    Kind kind = Kind::Unix;
    std::string path;  // Kind::Unix: absolute, shorter than 108 bytes.
    std::string host;  // Kind::Tcp: 127.0.0.1 or ::1; of server.metrics any.
    std::uint16_t port = 0;

    bool operator==(const ListenAddress&) const = default;
};

struct AddressError {
    std::string message;
};

using AddressResult = std::variant<ListenAddress, AddressError>;

// "/absolute/path", "tcp:127.0.0.1:PORT" or "tcp:[::1]:PORT".
[[nodiscard]] AddressResult parse_listen_address(std::string_view text);
// "/absolute/path", "127.0.0.1:PORT" or "[::1]:PORT".
[[nodiscard]] AddressResult parse_admin_address(std::string_view text);
// "ADDRESS:PORT" or "[ADDRESS]:PORT" of any interface, in numbers.
[[nodiscard]] AddressResult parse_metrics_address(std::string_view text);
// The path, or "127.0.0.1:PORT".
std::string to_text(const ListenAddress& address);

// The default: in systemd's folder for us, /run/nearkey as root, $XDG_RUNTIME_DIR/nearkey, or
// /tmp/nearkey-UID. The listener creates the folder and checks that it is ours alone.
std::string default_listen_path(const Environment& environment);

struct Listener {
    ListenAddress address;
    ListenerOptions options;
};

// The options of a listener that sets none of its own. REQUIRES: `config` came from load_config()
// or is {}.
ListenerOptions listener_defaults(const Config& config);
// The listeners of server.listen, then those of [[listener]]; the default path if there is none.
// REQUIRES: the same.
std::vector<Listener> listeners(const Config& config, const Environment& environment);
// Their addresses. REQUIRES: the same.
std::vector<ListenAddress> listen_addresses(const Config& config, const Environment& environment);
// The path of the first that is a Unix socket, else the default. REQUIRES: the same.
std::string unix_listen_path(const Config& config, const Environment& environment);
ListenAddress admin_address(const Config& config, const Environment& environment);
// Of server.metrics. Nothing: it is off. REQUIRES: the same.
std::optional<ListenAddress> metrics_address(const Config& config);
// True if one socket of each can't listen at a time.
bool is_overlapping(const ListenAddress& one, const ListenAddress& other);

}  // namespace nearkey
