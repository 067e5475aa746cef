// The server over which a cluster is asked for its commands and its slots: any node will do, so it
// is another one while this one is away.
// Owned by Cluster. The one rule: it turns only to a node that serves, or to one that the URL
// names.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/upstream/node.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace nearkey {

// For how long something has been away.
class Absence {
public:
    void note(bool is_there, uint64_t now_ms) {
        if (is_there) {
            since_ms_ = 0;
        } else if (since_ms_ == 0) {
            since_ms_ = now_ms;
        }
    }
    bool lasts(uint64_t duration_ms, uint64_t now_ms) const {
        return since_ms_ != 0 && since_ms_ + duration_ms <= now_ms;
    }
    void begin_anew() { since_ms_ = 0; }

private:
    uint64_t since_ms_ = 0;  // 0: it is there
};

class ClusterSeed {
public:
    using MakeTarget =
        std::function<std::unique_ptr<UpstreamTarget>(const UpstreamTarget&, const Endpoint&)>;
    ClusterSeed(Loop& loop, Log& log, MakeTarget make_target)
        : loop_(loop), log_(log), make_target_(std::move(make_target)) {}

    // `node` outlives this.
    void start(Node& node);
    // Its connection may be ready or not. `serving`: nodes that serve.
    void watch(const std::vector<Endpoint>& serving);
    // To another one at once.
    void turn(std::vector<Endpoint> serving);

private:
    Loop& loop_;
    Log& log_;
    const MakeTarget make_target_;
    Node* node_ = nullptr;
    bool has_socket_ = false;  // the URL names a node's Unix socket
    Absence absence_;
    size_t next_ = 0;
};

}  // namespace nearkey
