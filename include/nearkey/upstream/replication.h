// How far replicas follow their primary, by the offsets in INFO replication: each server counts the
// bytes of one stream of changes, the primary those that it has made, a replica those that it has
// applied.
// The one rule: a replica whose offset has reached what its primary said when it was asked at t has
// every change that the primary had acknowledged before t. Only offsets of one history compare: a
// replica that is promoted, or follows another, has another one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nearkey {

inline constexpr std::string_view kInfoReplication = "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";

struct ReplicationState {
    bool is_primary;
    bool is_linked;            // a replica: to its primary
    std::string_view history;  // master_replid
    uint64_t offset;
};
// Nothing: `info` tells none.
std::optional<ReplicationState> read_replication(std::string_view info);

// What one primary had done when it was asked, the last few times.
class ReplicationMarks {
public:
    void add(uint64_t asked_ms, const ReplicationState& primary);
    // A replica in this state has all that was acknowledged before that time; 0: nothing is known.
    uint64_t proven_ms(const ReplicationState& replica) const;
    // When it was asked last, and has answered; 0: never.
    uint64_t last_ms() const { return last_ms_; }

private:
    // A replica that is this many rounds behind is not proven any more.
    static constexpr size_t kKept = 16;

    struct Mark {
        uint64_t asked_ms = 0;
        uint64_t offset = 0;
    };
    std::string history_;  // of all marks
    std::array<Mark, kKept> marks_;
    size_t next_ = 0;
    uint64_t last_ms_ = 0;
};

}  // namespace nearkey
