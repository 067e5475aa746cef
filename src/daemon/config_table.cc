// The table of options: the only list of them. A new option is a member in config.h, a row here,
// its lines in config/nearkey.toml (`nearkey check --comments` prints them) and a test.
#include <algorithm>
#include <array>

#include "nearkey/daemon/config_option.h"
#include "nearkey/daemon/config_rows.h"
#include "nearkey/upstream/url.h"

namespace nearkey {
namespace {

template <auto Field>
auto& upstream(Config& config) {
    return config.upstream.*Field;
}
template <auto Field>
auto& server(Config& config) {
    return config.server.*Field;
}
template <auto Field>
auto& limits(Config& config) {
    return config.limits.*Field;
}
template <auto Field>
auto& near_cache(Config& config) {
    return config.near_cache.*Field;
}
template <auto Field>
auto& managed(Config& config) {
    return config.managed.*Field;
}
template <auto Field>
auto& logging(Config& config) {
    return config.log.*Field;
}
template <auto Field>
auto& slow_log(Config& config) {
    return config.slow_log.*Field;
}
template <auto Field>
auto& hot_keys(Config& config) {
    return config.hot_keys.*Field;
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
        return "***";  // Where a broken URL keeps its password, nobody can say.
    };
    return option;
}

// What is no path may be the password itself, and is not shown.
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

// As CLIENT SETNAME has it.
std::string check_client_name(const std::string& value) {
    const auto is_graphic = [](char c) { return c >= '!' && c <= '~'; };
    if (std::all_of(value.begin(), value.end(), is_graphic)) return "";
    return "a client name holds no blank and only printable ASCII";
}

std::string check_admin(const std::string& value) {
    const AddressResult result = parse_admin_address(value);
    const auto* const error = std::get_if<AddressError>(&result);
    return error == nullptr || value.empty() ? "" : error->message;
}

std::string check_not_empty(const std::string& value) {
    return value.empty() ? "it must not be empty" : "";
}

// As the name of a file in $CREDENTIALS_DIRECTORY.
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
    url("upstream.url", upstream<&Upstream::url>, check_url,
        "Where Valkey is: valkey://, redis://, valkeys:// or rediss:// (TLS), each as\n"
        "[user[:password]@]host[:port][/db]; unix:///path[?db=N]; or managed: for a private one."),
    text("upstream.username", upstream<&Upstream::username>, nullptr,
         "Who we are to Valkey, unless the URL says so. Empty: the user \"default\"."),
    secret_file(
        "upstream.password_file", upstream<&Upstream::password_file>, check_secret_file,
        "A file with the password, one line; or the environment's NEARKEY_UPSTREAM_PASSWORD holds\n"
        "it. Read again at each reload, and when Valkey refuses the password."),
    text("upstream.password_credential", upstream<&Upstream::password_credential>, check_credential,
         "The name of the systemd credential (LoadCredential=) that is the password."),
    number("upstream.connections", upstream<&Upstream::connections>, {1, 64},
           "Shared connections for each pair of protocol and database."),
    number("upstream.connections_max", upstream<&Upstream::connections_max>, {1, 10000},
           "All shared connections together."),
    number("upstream.dedicated_max", upstream<&Upstream::dedicated_max>, {0, 100000},
           "Connections leased to one client each (MULTI, SUBSCRIBE, blocking commands)."),
    number("upstream.dedicated_idle_max", upstream<&Upstream::dedicated_idle_max>, {0, 100000},
           "Dedicated connections that are kept open while nobody leases them."),
    number("upstream.connect_timeout_ms", upstream<&Upstream::connect_timeout_ms>, {1, kHourMs},
           "From the start of a connection to the end of its handshake."),
    number("upstream.request_timeout_ms", upstream<&Upstream::request_timeout_ms>, {1, kHourMs},
           "A command unanswered for so long fails with UPSTREAMTIMEOUT."),
    number("upstream.tombstone_timeout_ms", upstream<&Upstream::tombstone_timeout_ms>, {1, kHourMs},
           "A connection whose oldest timed-out request is older than this is closed."),
    number("upstream.queue_timeout_ms", upstream<&Upstream::queue_timeout_ms>, {0, kHourMs},
           "While Valkey is away, commands wait so long, then fail with UPSTREAMDOWN."),
    number("upstream.queue_commands_max", upstream<&Upstream::queue_commands_max>, {0, 10000000},
           "Commands that wait while Valkey is away; further ones fail at once."),
    bytes("upstream.queue_bytes_max", upstream<&Upstream::queue_bytes_max>, {0, kTiB},
          "The bytes of those commands together."),
    number("upstream.backoff_min_ms", upstream<&Upstream::backoff_min_ms>, {1, kHourMs},
           "The first pause before connecting anew; it doubles, with jitter."),
    number("upstream.backoff_max_ms", upstream<&Upstream::backoff_max_ms>, {1, kHourMs},
           "The longest pause before connecting anew."),
    number("upstream.heartbeat_interval_ms", upstream<&Upstream::heartbeat_interval_ms>,
           {10, kHourMs}, "From one PING of our own to the next."),
    number("upstream.tcp_user_timeout_ms", upstream<&Upstream::tcp_user_timeout_ms>, {0, kHourMs},
           "TCP_USER_TIMEOUT: sent bytes unacknowledged for so long end it (0: the kernel's)."),
    number("upstream.unready_after_ms", upstream<&Upstream::unready_after_ms>, {10, kHourMs},
           "Not ready when no heartbeat was answered for so long."),
    number("upstream.idle_timeout_ms", upstream<&Upstream::idle_timeout_ms>, {10, 24 * kHourMs},
           "A shared connection that no client uses is closed after this."),
    number("upstream.drain_timeout_ms", upstream<&Upstream::drain_timeout_ms>, {0, 24 * kHourMs},
           "When a reload names another server, what can't move to it (transactions, blocking\n"
           "commands, subscriptions) keeps its connection to the former one for so long."),
    text("upstream.client_name", upstream<&Upstream::client_name>, check_client_name,
         "CLIENT SETNAME of our connections. Empty: none."),
    bytes("upstream.retry_bytes_max", upstream<&Upstream::retry_bytes_max>, {0, 1024 * kMiB},
          "A larger read in flight on a lost connection is not retried."),
    text("upstream.tls_ca_file", upstream<&Upstream::tls_ca_file>, nullptr,
         "TLS: the authorities that may sign Valkey's certificate. Empty: the system's."),
    text("upstream.tls_cert_file", upstream<&Upstream::tls_cert_file>, nullptr,
         "TLS: our certificate, if Valkey asks for one; needs tls_key_file."),
    text("upstream.tls_key_file", upstream<&Upstream::tls_key_file>, nullptr,
         "TLS: the key of tls_cert_file."),
    text("upstream.tls_server_name", upstream<&Upstream::tls_server_name>, nullptr,
         "TLS: the name that the certificate must carry. Empty: the host of the URL."),

    list("server.listen", server<&Server::listen>, check_listen,
         "Where clients connect: absolute paths, tcp:127.0.0.1:PORT, tcp:[::1]:PORT.\n"
         "Empty: nearkey.sock in systemd's runtime folder, /run/nearkey (root),\n"
         "$XDG_RUNTIME_DIR/nearkey or /tmp/nearkey-UID, the first that there is."),
    row("server.listen_mode", OptionType::FileMode, server<&Server::listen_mode>,
        "The file mode of the Unix sockets."),
    restart(text("server.listen_owner", server<&Server::listen_owner>, check_account,
                 "Whose the Unix sockets of clients are: a user's name or number. Empty: ours.")),
    restart(text("server.listen_group", server<&Server::listen_group>, check_account,
                 "And which group's, by name or number. Empty: ours.")),
    text("server.commands", server<&Server::commands>, check_commands,
         "Which commands clients may run, in the words of Valkey's ACL rules, from left to right:\n"
         "+get -config|set +@read -@dangerous; +@all allows all that Valkey itself allows. The\n"
         "default refuses what would change or stop the server for everybody."),
    choice("server.when_down", server<&Server::when_down>, "error|close",
           "What a client sees of a command that Valkey does not answer, since it is away, lost\n"
           "or silent: an error (UPSTREAMDOWN, UPSTREAMLOST, UPSTREAMTIMEOUT), or, as without\n"
           "us, the end of its connection; new ones then end at once until Valkey is back."),
    number("server.backlog", server<&Server::backlog>, {1, 65535},
           "Connections that wait to be accepted."),
    restart(
        number("server.workers", server<&Server::workers>, {1, 64},
               "Event loops that serve clients, each with connections to Valkey of its own: what\n"
               "[upstream] limits holds for each. The near cache is one for all.")),
    restart(text("server.admin", server<&Server::admin>, check_admin,
                 "Probes and metrics: an absolute path, 127.0.0.1:PORT or [::1]:PORT.\n"
                 "Empty: admin.sock beside the first Unix listening socket or the default path.")),
    row("server.admin_mode", OptionType::FileMode, server<&Server::admin_mode>,
        "The file mode of its Unix socket: who may open it sees every client, may have this\n"
        "configuration read again, and may have the program on disk take over."),
    number("server.drain_timeout_ms", server<&Server::drain_timeout_ms>, {0, kHourMs},
           "After SIGTERM, what is in flight may take so long."),
    number("server.upgrade_start_timeout_ms", server<&Server::upgrade_start_timeout_ms>,
           {1, kHourMs}, "After SIGUSR2, the new nearkey is given up if it is not ready by then."),
    number("server.upgrade_drain_timeout_ms", server<&Server::upgrade_drain_timeout_ms>,
           {0, 24 * kHourMs},
           "After an upgrade, clients of the old nearkey are served for so long, then drained."),
    row("server.core_dumps", OptionType::Boolean, server<&Server::core_dumps>,
        "Whether a crash may leave a core: it holds clients' keys and values, and the password."),

    restart(row("near_cache.enabled", OptionType::Boolean, near_cache<&Near::enabled>,
                "Whether repeated reads are answered here.")),
    bytes("near_cache.memory", near_cache<&Near::memory>, {kMiB, kTiB},
          "Of all that is stored, with what keeps it together."),
    bytes("near_cache.value_max", near_cache<&Near::value_max>, {0, 256 * 1024},
          "A longer reply is not stored. (One above 256KiB leaves before its end is here.)"),
    number("near_cache.max_age_ms", near_cache<&Near::max_age_ms>, {0, 24 * kHourMs},
           "So long after it was read, a reply is read anew."),
    number(
        "near_cache.max_staleness_ms", near_cache<&Near::max_staleness_ms>, {0, kHourMs},
        "Nothing is served that a change made elsewhere so long ago has made untrue, even if the\n"
        "network is cut. 0: nothing is stored."),
    number(
        "near_cache.stale_if_unavailable_ms", near_cache<&Near::stale_if_unavailable_ms>,
        {0, 24 * kHourMs},
        "While Valkey is away, reads are answered with what is stored, though it may be untrue by\n"
        "then, so long after Valkey's last word. 0: they are not."),
    number("near_cache.fills_max", near_cache<&Near::fills_max>, {1, 1000000},
           "Reads in flight at a time whose replies may be stored."),
    list(
        "near_cache.keys", near_cache<&Near::keys>, check_not_empty,
        "Glob patterns, as \"user:*\": only keys that one of them matches are stored. Empty: all."),
    list("near_cache.skip_keys", near_cache<&Near::skip_keys>, check_not_empty,
         "Glob patterns: keys that one of them matches are not stored."),
    row("near_cache.thrash_guard", OptionType::Boolean, near_cache<&Near::thrash_guard>,
        "Whether a family of keys (\"user:#:\") that is invalidated more often than it is hit is "
        "not\n"
        "stored for a while."),
    restart(choice(
        "near_cache.tracking", near_cache<&Near::tracking>, "default|broadcast",
        "How Valkey tells of changes: of the keys that were read here (default), or of every key\n"
        "that begins with one of near_cache.prefixes, read here or not (broadcast).")),
    restart(list(
        "near_cache.prefixes", near_cache<&Near::prefixes>, check_not_empty,
        "With broadcast, only keys that begin with one of these are stored; none may begin with\n"
        "another. Empty: every key is, and Valkey tells of every write that there is.")),
    row("near_cache.touch", OptionType::Boolean, near_cache<&Near::touch>,
        "Whether Valkey is told which keys are read here (TOUCH), so that it evicts others; only\n"
        "where its maxmemory-policy looks at what is used (lru, lfu)."),
    number("near_cache.touch_keys_max", near_cache<&Near::touch_keys_max>, {1, 10000},
           "Keys in what it is told with one heartbeat."),
    row("near_cache.audit_ratio", OptionType::Fraction, near_cache<&Near::audit_ratio>,
        "Of so large a part of the hits Valkey's own reply is read and compared, one at a time;\n"
        "metrics tell how many differed. 0: of none."),

    number("limits.clients_max", limits<&Limits::clients_max>, {1, 1000000},
           "Clients at a time; further ones are refused."),
    number("limits.in_flight_per_client_max", limits<&Limits::in_flight_per_client_max>,
           {1, 1000000}, "Commands of one client in flight; above, reading it pauses."),
    number("limits.commands_per_turn_max", limits<&Limits::commands_per_turn_max>, {1, 1000000},
           "Commands of one client that one turn of the loop runs."),
    bytes("limits.output_per_client_high_water", limits<&Limits::output_per_client_high_water>,
          {1, kTiB}, "With so many bytes of its replies unread, nothing more is run for a client."),
    bytes("limits.output_per_client_max", limits<&Limits::output_per_client_max>, {1, kTiB},
          "A client that has not read so many bytes of its replies is closed."),
    bytes("limits.input_per_client_max", limits<&Limits::input_per_client_max>, {1, kTiB},
          "What one client has sent and is not run yet; above, it is closed."),
    bytes("limits.bulk_max", limits<&Limits::bulk_max>, {1, kTiB},
          "One argument of a command, as Valkey's proto-max-bulk-len."),
    bytes("limits.memory_max", limits<&Limits::memory_max>, {64 * kKiB, kTiB},
          "What clients make nearkey hold: near it reading pauses, at it the largest go."),

    restart(text("managed.server", managed<&ManagedOptions::server>, check_not_empty,
                 "The server of managed:, a name or a path. Where valkey-server is not there, "
                 "redis-server will do.")),
    restart(bytes("managed.memory", managed<&ManagedOptions::memory>, {kMiB, kTiB},
                  "Its maxmemory, with allkeys-lru.")),
    restart(text("managed.directory", managed<&ManagedOptions::directory>, check_absolute,
                 "The folder of its socket. Empty: beside the listening socket.")),

    choice("log.level", logging<&LogOptions::level>, "debug|info|warning|error",
           "What is logged: this and what is graver."),
    choice("log.format", logging<&LogOptions::format>, "json|text",
           "How a line looks: a JSON object, or time, level, event and key=value."),

    restart(number("slowlog.threshold_ms", slow_log<&SlowLogOptions::threshold_ms>, {0, kHourMs},
                   "Requests that took longer are kept, for /slowlog. 0: none are.")),
    restart(number("slowlog.entries_max", slow_log<&SlowLogOptions::entries_max>, {0, 10000},
                   "So many of them; the oldest go first.")),
    restart(row("slowlog.log", OptionType::Boolean, slow_log<&SlowLogOptions::log>,
                "Whether each is logged, too.")),

    restart(number(
        "hotkeys.entries_max", hot_keys<&HotKeyOptions::entries_max>, {16, 10000},
        "Keys that are counted at a time, so that the most read of them are known (/hotkeys).")),
    restart(
        row("hotkeys.show_names", OptionType::Boolean, hot_keys<&HotKeyOptions::show_names>,
            "Whether they are shown by name. Else by a hash that another process has otherwise.")),
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
