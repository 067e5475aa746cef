#include "nearkey/daemon/http_servers.h"

#include <utility>

namespace nearkey {

namespace {
constexpr int kBacklog = 64;
}  // namespace

void HttpServers::bind(const ListenPlan& plan) {
    const std::string address = to_text(plan.admin);
    const auto mode = static_cast<mode_t>(parts_.config.server.admin_mode);
    admin_socket_ = inherited_.take(address);
    if (admin_socket_ == nullptr) {
        admin_socket_ = std::make_unique<ListenSocket>(address, kBacklog, SocketFile{mode});
    }
    if (!plan.metrics) return;
    metrics_socket_ = inherited_.take(to_text(*plan.metrics));
    if (metrics_socket_ == nullptr) {
        metrics_socket_ = ListenSocket::for_network(to_text(*plan.metrics), kBacklog);
    }
}

void HttpServers::start() {
    admin_ = std::make_unique<AdminServer>(parts_.loop, parts_.log, std::move(admin_socket_),
                                           source_, AdminReach::Host);
    // A socket that an earlier nearkey has left to us may have another mode.
    apply_options();
    if (metrics_socket_ != nullptr) metrics_ = make_metrics(std::move(metrics_socket_));
}

void HttpServers::apply_options() {
    if (admin_ != nullptr) {
        admin_->set_mode(static_cast<mode_t>(parts_.config.server.admin_mode));
    }
}

std::unique_ptr<AdminServer> HttpServers::make_metrics(std::unique_ptr<ListenSocket> socket) const {
    return std::make_unique<AdminServer>(parts_.loop, parts_.log, std::move(socket), source_,
                                         AdminReach::Network);
}

void HttpServers::check_next(const ListenPlan& now, const ListenPlan& next) {
    if (!(next.admin == now.admin)) {
        throw ConfigError("server.listen: the admin socket would move to " + to_text(next.admin) +
                          ", which needs a restart; or name its present place in server.admin");
    }
    if (!now.metrics || !next.metrics || *now.metrics == *next.metrics) return;
    // The new one is bound before the former is given up.
    if (is_overlapping(*now.metrics, *next.metrics)) {
        throw ConfigError("server.metrics: from " + to_text(*now.metrics) + " to " +
                          to_text(*next.metrics) +
                          " needs a restart, for the port is the same; or choose another port");
    }
}

bool HttpServers::is_there(const ListenPlan& plan) const {
    return plan.metrics && metrics_ != nullptr && metrics_->address() == to_text(*plan.metrics);
}

std::unique_ptr<AdminServer> HttpServers::open_next(const ListenPlan& next) const {
    if (!next.metrics || is_there(next)) return nullptr;
    return make_metrics(ListenSocket::for_network(to_text(*next.metrics), kBacklog));
}

void HttpServers::turn_to(const ListenPlan& next, std::unique_ptr<AdminServer> opened) {
    if (is_there(next)) return;
    if (metrics_ != nullptr) {
        parts_.log.info("not_listening_any_more",
                        {{"address", std::string_view(metrics_->address())}});
    }
    metrics_ = std::move(opened);
}

void HttpServers::leave() {
    admin_->leave();
    if (metrics_ != nullptr) metrics_->leave();
}

}  // namespace nearkey
