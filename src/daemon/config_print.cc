// A configuration as TOML: it loads again to the same text, but for the secrets.
#include <algorithm>
#include <cstddef>

#include "nearkey/daemon/config.h"
#include "nearkey/daemon/config_option.h"

namespace nearkey {
namespace {

constexpr std::string_view kListenerExample =
    "\n# Further addresses, whose clients are treated in a way of their own:\n"
    "# [[listener]]\n"
    "# address = \"/run/nearkey/reports.sock\"  # as in server.listen\n"
    "# near_cache = false                     # their reads are always forwarded\n"
    "# shared_memory = true                   # they may read hits without a system call\n"
    "# database = 3                           # in which they begin\n"
    "# mode = \"0666\"                          # who may open the file: owner and group, too\n"
    "# allow_users = [\"reports\"]              # who may connect, whoever may open it\n"
    "# clients_max = 20                       # and what each may take, as in [limits]\n";

template <class Before>
std::string print_listeners(const Config& config, Before before) {
    std::string text;
    for (const ListenerOptions& listener : config.listeners) {
        const Config one = with_listener(listener);
        text += "\n[[listener]]\n";
        for (const Option& option : listener_options()) {
            before(option, text);
            text += std::string(option.key) + " = " + printed(option, one) + "\n";
        }
    }
    return text;
}

// Prints every option; `before` writes the text above each.
template <class Before>
std::string print_options(const Config& config, Before before) {
    std::string text;
    std::string table;
    for (const Option& option : options()) {
        if (table_of(option.key) != table) {
            if (!table.empty()) text += "\n";
            table = table_of(option.key);
            text += "[" + table + "]\n";
        }
        before(option, text);
        const std::string name(option.key.substr(table.size() + 1));
        text += name + " = " + printed(option, config) + "\n";
    }
    return text + print_listeners(config, before);
}

// The help, line by line, and the allowed values of types whose limits the help does not say.
void print_comment(const Option& option, std::string& text) {
    std::string_view help = option.help;
    while (!help.empty()) {
        const std::size_t end = std::min(help.find('\n'), help.size());
        text += "# " + std::string(help.substr(0, end)) + "\n";
        help.remove_prefix(std::min(end + 1, help.size()));
    }
    const bool is_plain = option.type == OptionType::Text || option.type == OptionType::List;
    if (!is_plain) text += "# Allowed: " + allowed_values(option) + ".\n";
    if (option.needs_restart) text += "# (restart): a change takes effect at the next start.\n";
}

}  // namespace

std::string table_of(std::string_view key) {
    return std::string(key.substr(0, key.find('.')));
}

std::string to_toml(const Config& config) {
    return print_options(config, [](const Option&, std::string&) {});
}

std::string to_commented_toml(const Config& config) {
    return "# The configuration of nearkey, every option. Copy what you change; options that are "
           "not\n"
           "# named keep their defaults. `nearkey check --config FILE` says whether a file is "
           "sound.\n\n" +
           print_options(config, print_comment) + std::string(kListenerExample);
}

}  // namespace nearkey
