// NEARKEY HELP | STATS | CACHE ON|OFF|CLEAR | EXPLAIN command [argument ...] | TAG id | SHM |
// HITS number: facts about nearkey, the use of its near cache and of the shared memory, and the
// word that marks a client's commands.
// Made for one command; it has no state of its own.
#pragma once

#include "nearkey/session/desk.h"

#include <string_view>

namespace nearkey {

// Plans any command that the client might send now.
class Planner {
public:
    virtual Plan plan_for(const CommandView& command) const = 0;

protected:
    ~Planner() = default;
};

class NearkeyCommand {
public:
    NearkeyCommand(Desk& desk, const Planner& planner) : desk_(desk), planner_(planner) {}

    Executed execute(const Call& call);

private:
    struct Pairs;

    Executed set_tag(const CommandSpec* spec, std::string_view tag);
    void set_cache(const CommandSpec* spec, std::string_view what);
    Executed hand_out_memory(const Call& call);
    void count_hits(const CommandSpec* spec, std::string_view number);
    void explain(const Call& call);
    Node& node_of(const Call& explained, Pairs& pairs);
    ServerFacts server_of(const Call& explained, Pairs& pairs);
    void explain_keys(const Call& explained, Pairs& pairs);
    void explain_cache(const Call& explained, Pairs& pairs);
    void explain_key(const CacheQuery& query, Pairs& pairs);

    Desk& desk_;
    const Planner& planner_;
};

}  // namespace nearkey
