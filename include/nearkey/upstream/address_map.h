// Where nodes of a cluster are reached that are announced elsewhere (NAT, containers): the option
// cluster.addresses, each as ANNOUNCED=REACHABLE.
// Owned by Cluster. The one rule: every address that a node tells passes through it, those of
// CLUSTER SLOTS and of redirects alike; else a redirect would lead where nobody can go.
#pragma once

#include "nearkey/upstream/url.h"

#include <string>
#include <unordered_map>
#include <vector>

namespace nearkey {

class AddressMap {
public:
    AddressMap() = default;
    // Of two rows for the same address the last counts.
    explicit AddressMap(const std::vector<std::string>& rows);
    // What is wrong with a row; empty: nothing.
    static std::string problem_of(const std::string& row);

    // An address with its port comes before its host alone.
    Endpoint reachable(const Endpoint& announced) const;

private:
    std::unordered_map<std::string, Endpoint> rows_;  // a host alone has port 0
};

}  // namespace nearkey
