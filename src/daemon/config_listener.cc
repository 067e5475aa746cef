// The table of a [[listener]]'s options, and the defaults that it inherits.
#include <array>

#include "nearkey/daemon/config_option.h"
#include "nearkey/daemon/config_rows.h"
#include "nearkey/resp/cache_rules.h"
#include "nearkey/upstream/url.h"

#include <algorithm>

namespace nearkey {
namespace {

std::string check_account_listed(const std::string& value) {
    return value.empty() ? "a name must not be empty" : check_account(value);
}

std::string check_announce(const std::string& value) {
    if (value.empty()) return "";
    const auto result = parse_endpoint(value);
    const auto* const endpoint = std::get_if<Endpoint>(&result);
    if (endpoint == nullptr) return std::get<UrlError>(result).message;
    return endpoint->port == 0 ? "allowed is HOST:PORT, with the port" : "";
}

template <auto Field>
auto& listener(Config& config) {
    return config.listeners.back().*Field;
}

template <auto Field>
auto& listener_limits(Config& config) {
    return config.listeners.back().limits.*Field;
}

constexpr Option inherited(Option option, std::string_view key) {
    option.inherits = key;
    return option;
}

using Door = ListenerOptions;

constexpr auto kListenerOptions = std::to_array<Option>({
    text("address", listener<&Door::address>, check_listen,
         "Where its clients connect, as in server.listen."),
    choice("face", listener<&Door::face>, "standalone|cluster",
           "What the upstream looks like to its clients: one server, or a cluster whose one node\n"
           "is this listener, for clients that insist on a cluster. cluster needs TCP."),
    text("announce", listener<&Door::announce>, check_announce,
         "With face = \"cluster\": HOST:PORT at which its clients reach it. Empty: its address."),
    row("near_cache", OptionType::Boolean, listener<&Door::near_cache>,
        "Whether its clients' reads are answered from the near cache."),
    row("shared_memory", OptionType::Boolean, listener<&Door::shared_memory>,
        "Whether its clients may read hits from shared memory (NEARKEY SHM), which shows them "
        "what\n"
        "is stored of every database. It needs a Unix socket, and commands that refuse no read."),
    choice(
        "read_from", listener<&Door::read_from>, "primary|replica",
        "Where its clients' reads go that the near cache can't answer, before a cluster: to the\n"
        "owner of the slot, or to a replica that is known to be up to date\n"
        "(cluster.replica_lag_max_ms)."),
    number("database", listener<&Door::database>, {0, INT32_MAX},
           "The database in which its clients begin."),
    inherited(row("mode", OptionType::FileMode, listener<&Door::mode>,
                  "The file mode of its Unix socket."),
              "server.listen_mode"),
    inherited(restart(text("owner", listener<&Door::owner>, check_account,
                           "The owner of the socket file: a user's name or number.")),
              "server.listen_owner"),
    inherited(restart(text("group", listener<&Door::group>, check_account,
                           "Its group, by name or number.")),
              "server.listen_group"),
    list("allow_users", listener<&Door::allow_users>, check_account_listed,
         "Users, by name or number, who may connect to it."),
    list("allow_groups", listener<&Door::allow_groups>, check_account_listed,
         "Groups whose members may connect to it."),
    inherited(text("commands", listener<&Door::commands>, check_commands,
                   "Which commands its clients may run, as server.commands."),
              "server.commands"),
    inherited(choice("when_down", listener<&Door::when_down>, "error|close",
                     "The answer to its clients while Valkey is away, as server.when_down."),
              "server.when_down"),
    inherited(number("clients_max", listener_limits<&ClientLimits::clients_max>, {1, 1000000},
                     "Its clients at a time."),
              "limits.clients_max"),
    inherited(
        number("in_flight_per_client_max", listener_limits<&ClientLimits::in_flight_per_client_max>,
               {1, 1000000}, "As in [limits], of each of its clients."),
        "limits.in_flight_per_client_max"),
    inherited(number("commands_per_turn_max", listener_limits<&ClientLimits::commands_per_turn_max>,
                     {1, 1000000}, "As in [limits], of each of its clients."),
              "limits.commands_per_turn_max"),
    inherited(bytes("output_per_client_high_water",
                    listener_limits<&ClientLimits::output_per_client_high_water>, {1, kTiB},
                    "As in [limits], of each of its clients."),
              "limits.output_per_client_high_water"),
    inherited(bytes("output_per_client_max", listener_limits<&ClientLimits::output_per_client_max>,
                    {1, kTiB}, "As in [limits], of each of its clients."),
              "limits.output_per_client_max"),
    inherited(bytes("input_per_client_max", listener_limits<&ClientLimits::input_per_client_max>,
                    {1, kTiB}, "As in [limits], of each of its clients."),
              "limits.input_per_client_max"),
});

// What shared memory shows can't be refused to anybody who has it.
std::string shared_memory_problem(const ListenerOptions& listener) {
    if (!listener.shared_memory) return "";
    if (listener.address.starts_with("tcp:")) {
        return "shared_memory needs a Unix socket: memory is shared within a host";
    }
    if (!listener.near_cache) return "shared_memory is the near cache's: near_cache is false";
    std::vector<AccessRule> rules;
    const std::string problem = parse_access_rules(listener.commands, rules);
    const std::string refused = problem.empty() ? find_refused_read(rules) : "";
    if (refused.empty()) return "";
    return "shared_memory shows all that is stored, of every database, to clients that may run "
           "NEARKEY; but commands may refuse \"" +
           refused + "\"";
}

void inherit(Config& config, const ListenerSays& says) {
    for (const Option& option : listener_options()) {
        if (option.inherits.empty() || says(option.key)) continue;
        copy_value(*find_option(option.inherits), option, config);
    }
    if (says("database")) return;
    const auto url = std::get<UpstreamUrl>(parse_url(config.upstream.url));
    config.listeners.back().database = static_cast<std::uint64_t>(url.database);
}

}  // namespace

std::string check_listen(const std::string& value) {
    const AddressResult result = parse_listen_address(value);
    const auto* const error = std::get_if<AddressError>(&result);
    return error == nullptr ? "" : error->message;
}

// A user or a group; whether the name exists is asked when it is needed.
std::string check_account(const std::string& value) {
    const bool is_word = value.size() <= 64 && value.find_first_of(" :/") == std::string::npos;
    return is_word ? "" : "allowed is a name of at most 64 characters, or a number";
}

std::string check_commands(const std::string& value) {
    std::vector<AccessRule> rules;
    return parse_access_rules(value, rules);
}

std::span<const Option> listener_options() {
    return kListenerOptions;
}

std::uint64_t shared_memory_size(const Config& config) {
    const bool is_shared =
        std::any_of(config.listeners.begin(), config.listeners.end(),
                    [](const ListenerOptions& listener) { return listener.shared_memory; });
    return is_shared ? config.near_cache.shared_memory : 0;
}

std::string shared_memory_terms(const Config& config) {
    std::string terms;
    for (const ListenerOptions& listener : config.listeners) {
        if (!listener.shared_memory) continue;
        const Config one = with_listener(listener);
        for (const Option& option : listener_options())
            terms += std::string(option.key) + "=" + printed(option, one) + "\n";
    }
    return terms;
}

Config with_listener(const ListenerOptions& listener) {
    Config config;
    config.listeners = {listener};
    return config;
}

ListenerOptions listener_defaults(const Config& config) {
    return completed(config, {}, [](std::string_view) { return false; });
}

ListenerOptions completed(const Config& config, const ListenerOptions& listener,
                          const ListenerSays& says) {
    Config filled = config;
    filled.listeners = {listener};
    inherit(filled, says);
    return filled.listeners.back();
}

std::string listener_problem(const ListenerOptions& listener) {
    const bool asks_who = !listener.allow_users.empty() || !listener.allow_groups.empty();
    if (listener.address.starts_with("tcp:") && asks_who) {
        return "allow_users and allow_groups need a Unix socket: TCP does not tell who connects";
    }
    if (const std::string problem = shared_memory_problem(listener); !problem.empty())
        return problem;
    const bool is_cluster = listener.face == "cluster";
    if (is_cluster && !listener.address.starts_with("tcp:")) {
        return "face = \"cluster\" needs an address tcp:127.0.0.1:PORT or tcp:[::1]:PORT: clients "
               "of a cluster dial the host and port that a node tells";
    }
    if (!is_cluster && !listener.announce.empty()) {
        return "announce goes only together with face = \"cluster\"";
    }
    const ClientLimits& limits = listener.limits;
    if (limits.output_per_client_high_water <= limits.output_per_client_max) return "";
    return "output_per_client_high_water = " + printed_bytes(limits.output_per_client_high_water) +
           ": must not be above output_per_client_max = " +
           printed_bytes(limits.output_per_client_max);
}

}  // namespace nearkey
