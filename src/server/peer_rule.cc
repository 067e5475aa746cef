#include "nearkey/server/peer_rule.h"

#include "nearkey/loop/peer.h"

#include <algorithm>

namespace nearkey {

bool PeerRule::admits(int fd) const {
    if (admits_everybody()) return true;
    const auto peer = peer_of(fd);
    if (!peer) return false;
    if (std::find(users.begin(), users.end(), peer->user) != users.end()) return true;
    const auto is_allowed = [&](gid_t group) {
        return std::find(groups.begin(), groups.end(), group) != groups.end();
    };
    if (is_allowed(peer->group)) return true;
    if (groups.empty()) return false;
    const auto others = peer_groups(fd);
    return others && std::any_of(others->begin(), others->end(), is_allowed);
}

}  // namespace nearkey
