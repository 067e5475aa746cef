// Reads that the near cache may answer.
// Made for one command; it has no state of its own.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"

#include <optional>
#include <string_view>

namespace nearkey {

class CachedReads {
public:
    // REQUIRES: there is a near cache.
    // `lease`: the client's.
    CachedReads(Desk& desk, const Lease& lease)
        : desk_(desk), cache_(*desk.context.ledgers.cache), lease_(lease) {}

    // Nothing: it must go to Valkey. REQUIRES: its reply may be stored.
    std::optional<Executed> answer(const Call& call);
    // The reply, untrue perhaps by now, with which it is answered while Valkey is away; empty:
    // none.
    static std::string_view find_stale(const Desk& desk, const Call& call);

private:
    std::optional<Executed> answer_split(const Call& call);
    bool answer_stale(const Call& call);
    std::optional<Executed> give_up_late(const CommandSpec& spec);
    bool is_overtaken(std::string_view key) const;
    // `told`: hits in shared memory for which it stands as well.
    void sample_hit(std::string_view key, uint32_t told);

    Desk& desk_;
    NearCache& cache_;
    const Lease& lease_;
};

}  // namespace nearkey
