// Bodies of scripts that clients have loaded at all nodes of a cluster (SCRIPT LOAD), so that a
// node which came later knows them, too: a replica that takes over has none.
// Owned by Daemon; all event loops share it. The one rule: a node is told once. One that has lost a
// script since says NOSCRIPT, as a server does that was started anew.
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/upstream/options.h"

#include <cstddef>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class KnownScripts {
public:
    // Both outlive it.
    KnownScripts(const ClusterOptions& options, Metrics& metrics)
        : options_(options), metrics_(metrics) {}

    // These nodes have it; the ids of a cluster's. `sha`: 40 hexadecimal digits, in any case.
    void note(std::string_view sha, std::string_view body, std::vector<std::string> nodes);
    // All are forgotten: SCRIPT FLUSH.
    void clear();
    // The body of a script that the node was not told. Empty: it was, or none is known.
    std::string body_for(std::string_view sha, std::string_view node);
    void note_told(std::string_view sha, std::string_view node);

private:
    struct Script {
        std::string sha;
        std::string body;
        std::vector<std::string> nodes;
    };
    // With what it costs to keep it.
    static size_t bytes_of(const Script& script) { return script.body.size() + 128; }
    Script* find(std::string_view sha);

    const ClusterOptions& options_;
    Metrics& metrics_;
    std::mutex mutex_;            // held for what follows
    std::deque<Script> scripts_;  // the one noted last is the last
    size_t bytes_ = 0;
};

}  // namespace nearkey
