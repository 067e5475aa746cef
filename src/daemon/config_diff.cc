#include "nearkey/daemon/config_diff.h"

#include <algorithm>

#include "nearkey/daemon/config_option.h"

namespace nearkey {
namespace {

// Two secrets that differ look the same.
std::string change_text(const std::string& key, const std::string& from, const std::string& to) {
    return key + ": " + (from == to ? "another secret" : from + " -> " + to);
}

void compare(const Option& option, const std::string& key, const Config& from, const Config& to,
             std::vector<ConfigChange>& changes) {
    if (is_same(option, from, to)) return;
    changes.push_back(
        {key, change_text(key, printed(option, from), printed(option, to)), option.needs_restart});
}

const ListenerOptions* find_listener(const Config& config, const std::string& address) {
    const auto found =
        std::find_if(config.listeners.begin(), config.listeners.end(),
                     [&](const ListenerOptions& listener) { return listener.address == address; });
    return found == config.listeners.end() ? nullptr : &*found;
}

}  // namespace

std::vector<ConfigChange> find_changes(const Config& from, const Config& to) {
    std::vector<ConfigChange> changes;
    for (const Option& option : options())
        compare(option, std::string(option.key), from, to, changes);
    for (const ListenerOptions& listener : from.listeners) {
        const std::string name = "listener " + listener.address;
        const ListenerOptions* const next = find_listener(to, listener.address);
        if (next == nullptr) {
            changes.push_back({name, name + ": removed", false});
            continue;
        }
        const Config before = with_listener(listener);
        const Config after = with_listener(*next);
        for (const Option& option : listener_options())
            compare(option, name + " " + std::string(option.key), before, after, changes);
    }
    for (const ListenerOptions& listener : to.listeners) {
        const std::string name = "listener " + listener.address;
        if (find_listener(from, listener.address) == nullptr)
            changes.push_back({name, name + ": added", false});
    }
    return changes;
}

}  // namespace nearkey
