#include "nearkey/upstream/replication.h"

#include "nearkey/resp/number.h"
#include "nearkey/upstream/own_question.h"

#include <algorithm>

namespace nearkey {

std::optional<ReplicationState> read_replication(std::string_view info) {
    const std::string_view role = find_in_info(info, "\nrole:");
    const bool is_primary = role == "master";
    if (!is_primary && role != "slave") return std::nullopt;
    const auto offset = parse_integer(
        find_in_info(info, is_primary ? "\nmaster_repl_offset:" : "\nslave_repl_offset:"));
    const std::string_view history = find_in_info(info, "\nmaster_replid:");
    if (history.empty() || !offset || *offset < 0) return std::nullopt;
    return ReplicationState{.is_primary = is_primary,
                            .is_linked = find_in_info(info, "\nmaster_link_status:") == "up",
                            .history = history,
                            .offset = static_cast<uint64_t>(*offset)};
}

void ReplicationMarks::add(uint64_t asked_ms, const ReplicationState& primary) {
    if (primary.history != history_) {
        history_ = primary.history;
        marks_ = {};
    }
    marks_[next_++ % kKept] = {asked_ms, primary.offset};
    last_ms_ = asked_ms;
}

uint64_t ReplicationMarks::proven_ms(const ReplicationState& replica) const {
    if (replica.is_primary || !replica.is_linked || replica.history != history_) return 0;
    uint64_t proven_ms = 0;
    for (const Mark& mark : marks_) {
        if (mark.offset <= replica.offset) proven_ms = std::max(proven_ms, mark.asked_ms);
    }
    return proven_ms;
}

}  // namespace nearkey
