#include "nearkey/daemon/listen_plan.h"

#include <algorithm>
#include <string>
#include <variant>

namespace nearkey {

namespace {

// The address of a listening socket in the configuration's form.
std::string option_text(const std::string& address) {
    return address.starts_with('/') ? address : "tcp:" + address;
}

}  // namespace

ForeignAddresses foreign_addresses(const InheritedSockets& inherited) {
    return {inherited.foreign_addresses(), inherited.address_of(InheritedSockets::kAdmin),
            inherited.address_of(InheritedSockets::kMetrics)};
}

ListenPlan listen_plan(const Config& config, const Environment& environment,
                       const ForeignAddresses& foreign) {
    Config whole = config;
    const bool is_default = config.server.listen.empty() && config.listeners.empty();
    const std::vector<ListenAddress> configured = listen_addresses(config, environment);
    for (const std::string& address : foreign.listeners) {
        const auto is_it = [&](const ListenAddress& known) { return to_text(known) == address; };
        if (is_default || std::none_of(configured.begin(), configured.end(), is_it)) {
            whole.server.listen.push_back(option_text(address));
        }
    }
    ListenPlan plan{listeners(whole, environment), admin_address(whole, environment),
                    metrics_address(config)};
    if (!foreign.metrics.empty()) {
        plan.metrics = std::get<ListenAddress>(parse_metrics_address(foreign.metrics));
    }
    if (!foreign.admin.empty()) {
        plan.admin = std::get<ListenAddress>(parse_listen_address(option_text(foreign.admin)));
    }
    std::erase_if(plan.listeners,
                  [&](const Listener& listener) { return listener.address == plan.admin; });
    if (plan.listeners.empty()) plan.listeners = listeners(config, environment);
    return plan;
}

ListenVariables listen_variables(const Environment& environment) {
    const auto value = [&](std::string_view name) {
        const std::string* const found = environment.find(name);
        return found == nullptr ? std::string() : *found;
    };
    return {
        .fds = value("LISTEN_FDS"), .pid = value("LISTEN_PID"), .names = value("LISTEN_FDNAMES")};
}

}  // namespace nearkey
