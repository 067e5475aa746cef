#include "nearkey/base/sabotage.h"

#ifdef NEARKEY_SABOTAGE
#include <array>
#include <cstdlib>
#include <string_view>

namespace nearkey {

namespace {
constexpr std::array<std::string_view, 37> kNames = {"own_write",     "fill_ticket",
                                                     "lease",         "generation",
                                                     "push",          "null_push",
                                                     "database",      "queued_write",
                                                     "other_loops",   "other_connection",
                                                     "queued_read",   "whole_read",
                                                     "unfilled_part", "ttl_sent",
                                                     "swapdb_asked",  "lost_script",
                                                     "upstream",      "void_fill",
                                                     "way",           "ownership_beat",
                                                     "suspicion",     "failover_void",
                                                     "ownership",     "absence",
                                                     "redirect_void", "gate",
                                                     "early_reply",   "replica_own_write",
                                                     "replica_bound", "replica_asked",
                                                     "segment_void",  "segment_source",
                                                     "segment_epoch", "segment_off",
                                                     "segment_reuse", "segment_ahead",
                                                     "segment_opened"};
}

bool is_broken(Rule rule) {
    static const std::string_view broken = [] {
        const char* name = std::getenv("NEARKEY_SABOTAGE");
        return name == nullptr ? std::string_view() : std::string_view(name);
    }();
    if (kNames[static_cast<size_t>(rule)] != broken) return false;
    static unsigned count = 0;
    return rule != Rule::Push || ++count % 1000 == 0;
}

}  // namespace nearkey
#endif
