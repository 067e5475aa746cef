// The admin server, and the one of server.metrics, which other hosts may read.
// Owned by Daemon. Both are bound when nearkey starts; in an upgrade they are taken from the old
// one, and answer when that has left. The admin server stays where it is until the end; the other
// one follows reloads.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/daemon/listen_plan.h"
#include "nearkey/daemon/upstream_maker.h"
#include "nearkey/loop/inherited_sockets.h"
#include "nearkey/server/admin_server.h"

#include <memory>

namespace nearkey {

class HttpServers {
public:
    // All outlive it.
    HttpServers(const DaemonParts& parts, InheritedSockets& inherited, AdminSource& source)
        : parts_(parts), inherited_(inherited), source_(source) {}

    // Listens at once, and answers nobody yet. Throws ListenError.
    void bind(const ListenPlan& plan);
    // Answers. Throws std::runtime_error. REQUIRES: bind().
    void start();
    bool has_started() const { return admin_ != nullptr; }

    // Throws ConfigError if a reload can't go from one plan to the other.
    static void check_next(const ListenPlan& now, const ListenPlan& next);
    // The server of `next` where it is another one; null: it is the same, or there is none. Throws
    // std::runtime_error. REQUIRES: has_started(), check_next().
    std::unique_ptr<AdminServer> open_next(const ListenPlan& next) const;
    // From here on it is that one. `opened`: by open_next(next).
    void turn_to(const ListenPlan& next, std::unique_ptr<AdminServer> opened);
    void apply_options();
    // As AdminServer::mend_socket().
    bool mend_sockets() { return admin_->mend_socket(parts_.metrics); }

    // REQUIRES: has_started().
    const ListenSocket& admin_socket() const { return admin_->socket(); }
    const ListenSocket* metrics_socket() const {
        return metrics_ == nullptr ? nullptr : &metrics_->socket();
    }
    // Leaves the sockets to another process. Only the destructor may follow.
    void leave();

private:
    std::unique_ptr<AdminServer> make_metrics(std::unique_ptr<ListenSocket> socket) const;
    bool is_there(const ListenPlan& plan) const;

    const DaemonParts parts_;
    InheritedSockets& inherited_;
    AdminSource& source_;
    std::unique_ptr<ListenSocket> admin_socket_;    // until admin_ has it
    std::unique_ptr<ListenSocket> metrics_socket_;  // the same; null: there is none
    std::unique_ptr<AdminServer> admin_;
    std::unique_ptr<AdminServer> metrics_;
};

}  // namespace nearkey
