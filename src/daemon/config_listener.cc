// The table of a [[listener]]'s options, and the defaults that it inherits.
#include <array>

#include "nearkey/daemon/config_option.h"
#include "nearkey/daemon/config_rows.h"
#include "nearkey/upstream/url.h"

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
