// The table of options: the only list of them. A new option is a member in config.h, a row here,
// its lines in config/nearkey.toml (`nearkey check --comments` prints them) and a test.
#include <algorithm>
#include <array>
#include <tuple>

#include "nearkey/base/plain_word.h"
#include "nearkey/daemon/config_option.h"
#include "nearkey/daemon/config_rows.h"
#include "nearkey/upstream/address_map.h"
#include "nearkey/upstream/url.h"

namespace nearkey {
namespace {

template <class Table, class Value>
Table class_of(Value Table::*field);

// The member of whichever of the configuration's tables has it.
template <auto Field>
auto& in(Config& config) {
    ClientLimits& client_limits = config.limits;
    PasswordCommandOptions& password_command = config.upstream.password_command;
    const auto tables = std::tie(config.upstream, password_command, config.cluster, config.sentinel,
                                 config.server, config.limits, client_limits, config.near_cache,
                                 config.managed, config.log, config.slow_log, config.hot_keys);
    return std::get<decltype(class_of(Field))&>(tables).*Field;
}

using Upstream = UpstreamOptions;
using Server = ServerOptions;
using Limits = LimitOptions;
using Near = NearCacheOptions;

constexpr Option url(std::string_view key, OptionField field, TextCheck check,
                     std::string_view help) {
    Option option = text(key, field, check, help);
    option.redact = [](const std::string& value) -> std::string {
        const auto result = parse_url(value);
        if (const auto* const parsed = std::get_if<UpstreamUrl>(&result)) return redacted(*parsed);
        return "***";  // The password of a broken URL may be anywhere.
    };
    return option;
}

// Text that is no path may be the password itself, and is not shown.
constexpr Option secret_file(std::string_view key, OptionField field, TextCheck check,
                             std::string_view help) {
    Option option = text(key, field, check, help);
    option.redact = [](const std::string& value) { return value; };
    return option;
}

std::string check_url(const std::string& value) {
    const auto result = parse_url(value);
    const auto* const error = std::get_if<UrlError>(&result);
    return error == nullptr ? "" : error->message;
}

// Checks a name as CLIENT SETNAME does.
std::string check_client_name(const std::string& value) {
    return is_plain_word(value) ? "" : "a client name holds no blank and only printable ASCII";
}

std::string check_admin(const std::string& value) {
    const AddressResult result = parse_admin_address(value);
    const auto* const error = std::get_if<AddressError>(&result);
    return error == nullptr || value.empty() ? "" : error->message;
}

std::string check_metrics(const std::string& value) {
    const AddressResult result = parse_metrics_address(value);
    const auto* const error = std::get_if<AddressError>(&result);
    return error == nullptr || value.empty() ? "" : error->message;
}

std::string check_address_pair(const std::string& value) {
    return AddressMap::problem_of(value);
}

std::string check_not_empty(const std::string& value) {
    return value.empty() ? "it must not be empty" : "";
}

// Checks the name of a file in $CREDENTIALS_DIRECTORY.
std::string check_credential(const std::string& value) {
    const bool is_path = value.find('/') != std::string::npos || value.starts_with('.');
    return is_path ? "allowed is the name of a credential, as in LoadCredential=NAME:FILE" : "";
}

std::string check_absolute(const std::string& value) {
    return value.empty() || value.starts_with('/') ? "" : "allowed is an absolute path";
}

std::string check_secret_file(const std::string& value) {
    const std::string problem = check_absolute(value);
    return problem.empty() ? "" : problem + " of a file that holds the password";
}

constexpr auto kOptions = std::to_array<Option>({
    url("upstream.url", in<&Upstream::url>, check_url,
        "Where Valkey is: valkey://, redis://, valkeys:// or rediss:// (TLS), each as\n"
        "[user[:password]@]host[:port][/db]; unix:///path[?db=N]; or managed: for a private one.\n"
        "Behind Sentinels: sentinel:// or sentinels:// (TLS), HOST[:PORT],HOST.../NAME[/db], "
        "where\n"
        "NAME is their name for the primary; user and password are Valkey's.\n"
        "A cluster: valkey+cluster:// or valkeys+cluster:// (TLS), HOST[:PORT],HOST..."),
    restart(choice("upstream.cluster", in<&Upstream::cluster>, "auto|off",
                   "Whether a server of a valkey:// or unix:// URL that says at the start that it "
                   "is a node of\n"
                   "a cluster makes it one, as with valkey+cluster://. off: it is asked alone, as "
                   "one server.")),
    text("upstream.username", in<&Upstream::username>, nullptr,
         "The user for Valkey, unless the URL names one. Empty: the user \"default\"."),
    secret_file(
        "upstream.password_file", in<&Upstream::password_file>, check_secret_file,
        "A file with the password, one line; or the environment's NEARKEY_UPSTREAM_PASSWORD holds\n"
        "it. Read again at each reload, and when Valkey refuses the password."),
    text("upstream.password_credential", in<&Upstream::password_credential>, check_credential,
         "The name of the systemd credential (LoadCredential=) that is the password."),
    restart(list("upstream.password_command", in<&PasswordCommandOptions::argv>, check_not_empty,
                 "A program and its arguments, whose output is the password, one line: for tokens "
                 "of a cloud.\n"
                 "Run at the start, at each reload, and when Valkey refuses the password.")),
    number("upstream.password_command_timeout_ms", in<&PasswordCommandOptions::timeout_ms>,
           {100, kHourMs}, "The longest it may take; then it is killed, and run again later."),
    number("upstream.password_lifetime_ms", in<&PasswordCommandOptions::lifetime_ms>,
           {0, 30 * 24 * kHourMs},
           "How long its password is valid: after four fifths of that it is run again, and live\n"
           "connections say the new one (AUTH). 0: it does not end."),
    number("upstream.connections", in<&Upstream::connections>, {1, 64},
           "Shared connections for each pair of protocol and database."),
    number("upstream.connections_max", in<&Upstream::connections_max>, {1, 10000},
           "All shared connections together."),
    number("upstream.dedicated_max", in<&Upstream::dedicated_max>, {0, 100000},
           "Connections leased to one client each (MULTI, SUBSCRIBE, blocking commands)."),
    number("upstream.dedicated_idle_max", in<&Upstream::dedicated_idle_max>, {0, 100000},
           "Dedicated connections that are kept open while nobody leases them."),
    number("upstream.connect_timeout_ms", in<&Upstream::connect_timeout_ms>, {1, kHourMs},
           "A connection must be set up (connect, TLS, HELLO) within this time."),
    number("upstream.request_timeout_ms", in<&Upstream::request_timeout_ms>, {1, kHourMs},
           "A command unanswered for so long fails with UPSTREAMTIMEOUT."),
    number("upstream.tombstone_timeout_ms", in<&Upstream::tombstone_timeout_ms>, {1, kHourMs},
           "A connection whose oldest timed-out request is older than this is closed."),
    number("upstream.queue_timeout_ms", in<&Upstream::queue_timeout_ms>, {0, kHourMs},
           "While Valkey is away, commands wait so long, then fail with UPSTREAMDOWN."),
    number("upstream.queue_commands_max", in<&Upstream::queue_commands_max>, {0, 10000000},
           "Commands that wait while Valkey is away; further ones fail at once."),
    bytes("upstream.queue_bytes_max", in<&Upstream::queue_bytes_max>, {0, kTiB},
          "The bytes of those commands together."),
    number("upstream.backoff_min_ms", in<&Upstream::backoff_min_ms>, {1, kHourMs},
           "The first pause before connecting anew; it doubles, with jitter."),
    number("upstream.backoff_max_ms", in<&Upstream::backoff_max_ms>, {1, kHourMs},
           "The longest pause before connecting anew."),
    number("upstream.heartbeat_interval_ms", in<&Upstream::heartbeat_interval_ms>, {10, kHourMs},
           "The interval of heartbeats (HELLO and PING)."),
    number("upstream.tcp_user_timeout_ms", in<&Upstream::tcp_user_timeout_ms>, {0, kHourMs},
           "TCP_USER_TIMEOUT: sent bytes unacknowledged for so long end it (0: the kernel's)."),
    number("upstream.unready_after_ms", in<&Upstream::unready_after_ms>, {10, kHourMs},
           "Not ready when no heartbeat was answered for so long."),
    number("upstream.suspect_after_ms", in<&Upstream::suspect_after_ms>, {0, kHourMs},
           "A server that was silent for so long may have been replaced: until it says that it is\n"
           "still the primary, commands wait and nothing of it is served. 0: never suspected."),
    number("upstream.idle_timeout_ms", in<&Upstream::idle_timeout_ms>, {10, 24 * kHourMs},
           "A shared connection that no client uses is closed after this."),
    number("upstream.drain_timeout_ms", in<&Upstream::drain_timeout_ms>, {0, 24 * kHourMs},
           "When a reload names another server, what can't move to it (transactions, blocking\n"
           "commands, subscriptions) keeps its connection to the former one for so long."),
    text("upstream.client_name", in<&Upstream::client_name>, check_client_name,
         "CLIENT SETNAME of our connections. Empty: none."),
    bytes("upstream.retry_bytes_max", in<&Upstream::retry_bytes_max>, {0, 1024 * kMiB},
          "A larger read in flight on a lost connection is not retried."),
    text("upstream.tls_ca_file", in<&Upstream::tls_ca_file>, nullptr,
         "TLS: the authorities that may sign Valkey's certificate. Empty: the system's."),
    text("upstream.tls_cert_file", in<&Upstream::tls_cert_file>, nullptr,
         "TLS: our certificate, if Valkey asks for one; needs tls_key_file."),
    text("upstream.tls_key_file", in<&Upstream::tls_key_file>, nullptr,
         "TLS: the key of tls_cert_file."),
    text("upstream.tls_server_name", in<&Upstream::tls_server_name>, nullptr,
         "TLS: the name that the certificate must carry. Empty: the host of the URL."),

    number("cluster.refresh_interval_ms", in<&ClusterOptions::refresh_interval_ms>,
           {100, 24 * kHourMs},
           "A cluster is asked who owns which slot at least so often; and at once where in doubt."),
    number("cluster.redirects_max", in<&ClusterOptions::redirects_max>, {1, 15},
           "A command that nodes have sent on so often fails (MOVED, ASK)."),
    number("cluster.nodes_max", in<&ClusterOptions::nodes_max>, {1, 10000},
           "Primaries that are known at a time; the slots of further ones are not served. As many\n"
           "replicas may be read from."),
    number(
        "cluster.replica_lag_max_ms", in<&ClusterOptions::replica_lag_max_ms>, {10, 60'000},
        "What was written so long before a read is seen in a replica that answers it (read_from\n"
        "of a [[listener]]); what was written through this nearkey always is."),
    row("cluster.split_mset", OptionType::Boolean, in<&ClusterOptions::split_mset>,
        "Whether an MSET whose keys are of several slots of a cluster runs in parts, one for each\n"
        "slot, so that others may see some of it before the rest. If not, Valkey refuses it\n"
        "(CROSSSLOT)."),
    bytes("cluster.scripts_bytes_max", in<&ClusterOptions::scripts_bytes_max>, {0, 1024 * kMiB},
          "Scripts that are kept (SCRIPT LOAD), for nodes that come later to be told; the oldest "
          "are\n"
          "forgotten first."),
    list("cluster.addresses", in<&ClusterOptions::addresses>, check_address_pair,
         "Nodes that are reached elsewhere than the cluster announces (NAT), each as\n"
         "ANNOUNCED=REACHABLE, both HOST:PORT, or both HOST for all ports of that host."),

    text("sentinel.username", in<&SentinelOptions::username>, nullptr,
         "The user for the Sentinels. Empty: the user \"default\"."),
    secret_file("sentinel.password_file", in<&SentinelOptions::password_file>, check_secret_file,
                "A file with the password for them, one line; read anew with each connection."),

    list("server.listen", in<&Server::listen>, check_listen,
         "Where clients connect: absolute paths, tcp:127.0.0.1:PORT, tcp:[::1]:PORT.\n"
         "Empty: nearkey.sock in systemd's runtime folder, /run/nearkey (root),\n"
         "$XDG_RUNTIME_DIR/nearkey or /tmp/nearkey-UID, the first that there is."),
    row("server.listen_mode", OptionType::FileMode, in<&Server::listen_mode>,
        "The file mode of the Unix sockets."),
    restart(text(
        "server.listen_owner", in<&Server::listen_owner>, check_account,
        "The owner of the clients' Unix sockets: a user's name or number. Empty: nearkey's own.")),
    restart(text("server.listen_group", in<&Server::listen_group>, check_account,
                 "Their group, by name or number. Empty: nearkey's own.")),
    text("server.commands", in<&Server::commands>, check_commands,
         "Which commands clients may run, in the words of Valkey's ACL rules, from left to right:\n"
         "+get -config|set +@read -@dangerous; +@all allows all that Valkey itself allows. The\n"
         "default refuses what would change or stop the server for everybody."),
    choice("server.when_down", in<&Server::when_down>, "error|close",
           "The answer to a command that Valkey does not answer, since it is away, lost or\n"
           "silent: an error (UPSTREAMDOWN, UPSTREAMLOST, UPSTREAMTIMEOUT), or the end of the\n"
           "client's connection, as without nearkey; new ones then end at once until Valkey is\n"
           "back."),
    number("server.backlog", in<&Server::backlog>, {1, 65535},
           "Connections that wait to be accepted."),
    restart(number("server.workers", in<&Server::workers>, {1, 64},
                   "Event loops that serve clients, each with connections to Valkey of its own:\n"
                   "limits under [upstream] hold for each loop. The near cache is one for all.")),
    restart(text("server.admin", in<&Server::admin>, check_admin,
                 "Probes and metrics: an absolute path, 127.0.0.1:PORT or [::1]:PORT.\n"
                 "Empty: admin.sock beside the first Unix listening socket or the default path.")),
    row("server.admin_mode", OptionType::FileMode, in<&Server::admin_mode>,
        "The file mode of its Unix socket: who may open it sees every client, may have this\n"
        "configuration read again, and may have the program on disk take over."),
    text("server.metrics", in<&Server::metrics>, check_metrics,
         "Where other hosts may read /metrics, /livez and /readyz, and do nothing else:\n"
         "0.0.0.0:9121, [::]:9121 (IPv4 too) or ADDRESS:PORT of one interface. Empty: nowhere."),
    number("server.drain_timeout_ms", in<&Server::drain_timeout_ms>, {0, kHourMs},
           "After SIGTERM, commands in flight may take so long."),
    number("server.upgrade_start_timeout_ms", in<&Server::upgrade_start_timeout_ms>, {1, kHourMs},
           "After SIGUSR2, the new nearkey is given up if it is not ready by then."),
    number("server.upgrade_drain_timeout_ms", in<&Server::upgrade_drain_timeout_ms>,
           {0, 24 * kHourMs},
           "After an upgrade, clients of the old nearkey are served for so long, then drained."),
    row("server.core_dumps", OptionType::Boolean, in<&Server::core_dumps>,
        "Whether a crash may leave a core: it holds clients' keys and values, and the password."),

    restart(row("near_cache.enabled", OptionType::Boolean, in<&Near::enabled>,
                "Whether repeated reads are answered here.")),
    bytes("near_cache.memory", in<&Near::memory>, {kMiB, kTiB},
          "The memory of the near cache, bookkeeping included."),
    bytes("near_cache.value_max", in<&Near::value_max>, {0, 256 * 1024},
          "A longer reply is not stored. (One above 256KiB leaves before its end is here.)"),
    number("near_cache.max_age_ms", in<&Near::max_age_ms>, {0, 24 * kHourMs},
           "A stored reply is read anew after this time."),
    number(
        "near_cache.max_staleness_ms", in<&Near::max_staleness_ms>, {0, kHourMs},
        "No reply is served later than this after a change elsewhere has made it untrue, even if\n"
        "the network is cut. 0: nothing is stored."),
    number(
        "near_cache.stale_if_unavailable_ms", in<&Near::stale_if_unavailable_ms>, {0, 24 * kHourMs},
        "While Valkey is away, reads are answered with what is stored, though it may be untrue by\n"
        "then, so long after Valkey's last word. 0: they are not."),
    number("near_cache.fills_max", in<&Near::fills_max>, {1, 1000000},
           "Reads in flight at a time whose replies may be stored."),
    list(
        "near_cache.keys", in<&Near::keys>, check_not_empty,
        "Glob patterns, as \"user:*\": only keys that one of them matches are stored. Empty: all."),
    list("near_cache.skip_keys", in<&Near::skip_keys>, check_not_empty,
         "Glob patterns: keys that one of them matches are not stored."),
    row("near_cache.thrash_guard", OptionType::Boolean, in<&Near::thrash_guard>,
        "Whether a family of keys (\"user:#:\") that is invalidated more often than it is hit is "
        "not\n"
        "stored for a while."),
    restart(choice(
        "near_cache.tracking", in<&Near::tracking>, "default|broadcast",
        "How Valkey tells of changes: of the keys that were read here (default), or of every key\n"
        "that begins with one of near_cache.prefixes, read here or not (broadcast).")),
    restart(list(
        "near_cache.prefixes", in<&Near::prefixes>, check_not_empty,
        "With broadcast, only keys that begin with one of these are stored; none may begin with\n"
        "another. Empty: every key is, and Valkey tells of every write that there is.")),
    row("near_cache.touch", OptionType::Boolean, in<&Near::touch>,
        "Whether hits are reported to Valkey (TOUCH), so that it evicts other keys; only where\n"
        "its maxmemory-policy goes by use (lru, lfu)."),
    number("near_cache.touch_keys_max", in<&Near::touch_keys_max>, {1, 10000},
           "The most keys of one report."),
    row("near_cache.audit_ratio", OptionType::Fraction, in<&Near::audit_ratio>,
        "The share of hits for which Valkey's own reply is read and compared, one at a time;\n"
        "metrics tell how many differed. 0: none."),
    bytes(
        "near_cache.shared_memory", in<&Near::shared_memory>, {kMiB, kTiB / 2},
        "The memory from which processes of this host read hits themselves, where a listener has\n"
        "shared_memory. It is used once one does."),

    number("limits.clients_max", in<&Limits::clients_max>, {1, 1000000},
           "Clients at a time; further ones are refused."),
    number("limits.in_flight_per_client_max", in<&Limits::in_flight_per_client_max>, {1, 1000000},
           "Commands of one client in flight; above, reading it pauses."),
    number("limits.commands_per_turn_max", in<&Limits::commands_per_turn_max>, {1, 1000000},
           "Commands of one client that one turn of the loop runs."),
    bytes("limits.output_per_client_high_water", in<&Limits::output_per_client_high_water>,
          {1, kTiB}, "With so many bytes of its replies unread, nothing more is run for a client."),
    bytes("limits.output_per_client_max", in<&Limits::output_per_client_max>, {1, kTiB},
          "A client that has not read so many bytes of its replies is closed."),
    bytes("limits.input_per_client_max", in<&Limits::input_per_client_max>, {1, kTiB},
          "Bytes that one client has sent and that are not run yet; above, it is closed."),
    bytes("limits.bulk_max", in<&Limits::bulk_max>, {1, kTiB},
          "One argument of a command, as Valkey's proto-max-bulk-len."),
    bytes(
        "limits.memory_max", in<&Limits::memory_max>, {64 * kKiB, kTiB},
        "Memory that all clients together make nearkey hold: near it reading pauses, above it the\n"
        "largest are closed."),

    restart(text("managed.server", in<&ManagedOptions::server>, check_not_empty,
                 "The server of managed:, a name or a path. If valkey-server is not\n"
                 "installed, redis-server is taken.")),
    restart(bytes("managed.memory", in<&ManagedOptions::memory>, {kMiB, kTiB},
                  "Its maxmemory, with allkeys-lru.")),
    restart(text("managed.directory", in<&ManagedOptions::directory>, check_absolute,
                 "The folder of its socket. Empty: beside the listening socket.")),

    choice("log.level", in<&LogOptions::level>, "debug|info|warning|error",
           "The least severity that is logged."),
    choice("log.format", in<&LogOptions::format>, "json|text",
           "How a line looks: a JSON object, or time, level, event and key=value."),

    restart(number("slowlog.threshold_ms", in<&SlowLogOptions::threshold_ms>, {0, kHourMs},
                   "Requests that took longer are kept, for /slowlog. 0: none are.")),
    restart(number("slowlog.entries_max", in<&SlowLogOptions::entries_max>, {0, 10000},
                   "The number of requests kept; the oldest go first.")),
    restart(row("slowlog.log", OptionType::Boolean, in<&SlowLogOptions::log>,
                "Whether each is logged, too.")),

    restart(number(
        "hotkeys.entries_max", in<&HotKeyOptions::entries_max>, {16, 10000},
        "Keys that are counted at a time, so that the most read of them are known (/hotkeys).")),
    restart(row("hotkeys.show_names", OptionType::Boolean, in<&HotKeyOptions::show_names>,
                "Whether they are shown by name, otherwise by a hash that differs from process to "
                "process.")),
});

std::uint64_t edit_distance(std::string_view a, std::string_view b) {
    // Row by row: distances[j] is that of a's first i and b's first j characters.
    std::vector<std::uint64_t> distances(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j)
        distances[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::uint64_t diagonal = distances[0];
        distances[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::uint64_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = distances[j];
            distances[j] = std::min({replaced, distances[j] + 1, distances[j - 1] + 1});
        }
    }
    return distances[b.size()];
}

std::string_view last_part(std::string_view key) {
    return key.substr(key.rfind('.') + 1);
}

// A right name in the wrong table is nearer than a wrong name in the right one.
std::uint64_t key_distance(std::string_view wrong, std::string_view known) {
    const std::uint64_t moved = 1 + edit_distance(last_part(wrong), last_part(known));
    return std::min(edit_distance(wrong, known), moved);
}

}  // namespace

std::span<const Option> options() {
    return kOptions;
}

const Option* find_option(std::string_view key) {
    const auto found = std::find_if(kOptions.begin(), kOptions.end(),
                                    [&](const Option& option) { return option.key == key; });
    return found == kOptions.end() ? nullptr : &*found;
}

std::string nearest_key(std::string_view key, std::span<const Option> rows) {
    // No known key is near to a very long one; do not spend time on it.
    const std::string_view start = key.substr(0, 128);
    const auto nearer = [&](const Option& a, const Option& b) {
        return key_distance(start, a.key) < key_distance(start, b.key);
    };
    return std::string(std::min_element(rows.begin(), rows.end(), nearer)->key);
}

}  // namespace nearkey
