// Finds out whether the server of a valkey:// or unix:// URL is a node of a cluster that can be
// used as one (upstream.cluster = "auto"): it must say so in HELLO, and tell in CLUSTER SLOTS where
// an owner is.
//
//   Undecided ──HELLO: another mode──▶ OneServer
//             ──HELLO: mode cluster──▶ asks ──an address, or nobody owns a slot yet──▶ Cluster
//                                           ──refused, or no address──▶ OneServer
//
// Owned by Worker. The one rule: it decides once, before any client is served; sessions would have
// to change their ways otherwise.
#pragma once

#include "nearkey/loop/loop.h"
#include "nearkey/upstream/node.h"
#include "nearkey/upstream/own_question.h"

#include <functional>
#include <string>
#include <string_view>

namespace nearkey {

class ClusterFinder {
public:
    enum class Finding : uint8_t { Undecided, OneServer, Cluster };
    // Told of the decision, outside of a connection's callbacks. `reason`: why the node of a
    // cluster is used as one server; empty: it is no such node.
    using OnFound = std::function<void(Finding finding, const std::string& reason)>;
    // All outlive it.
    ClusterFinder(Loop& loop, Node& node, OnFound on_found);
    ~ClusterFinder() { question_.drop(); }

    Finding finding() const { return finding_; }
    // The node may serve by now.
    void look();
    // The node turns to another server.
    void begin_anew() { question_.drop(); }

private:
    void on_slots(std::string_view reply);
    void conclude(Finding finding, std::string reason);

    Node& node_;
    const OnFound on_found_;
    Question question_;
    Timer again_timer_;
    Timer told_timer_;
    Finding finding_ = Finding::Undecided;
    Finding next_ = Finding::Undecided;  // to be told
    std::string reason_;
};

}  // namespace nearkey
