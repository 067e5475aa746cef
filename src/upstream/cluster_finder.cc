#include "nearkey/upstream/cluster_finder.h"

#include "nearkey/upstream/connection.h"
#include "nearkey/upstream/slot_map.h"

#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kAgainMs = 1000;
}  // namespace

ClusterFinder::ClusterFinder(Loop& loop, Node& node, OnFound on_found)
    : node_(node),
      on_found_(std::move(on_found)),
      question_(kClusterSlotsMax, OwnCommand::Slots,
                [this](std::string_view reply) { on_slots(reply); }),
      again_timer_(loop, [this] { look(); }),
      told_timer_(loop, [this] {
          finding_ = next_;
          on_found_(finding_, reason_);
      }) {
}

void ClusterFinder::look() {
    if (next_ != Finding::Undecided) return;
    Connection& primary = node_.shared().primary();
    if (!node_.health().is_ready || !primary.is_ready()) return;
    if (!node_.catalog().is_cluster()) return conclude(Finding::OneServer, {});
    // A question that is lost with its connection is asked again.
    again_timer_.start_once(kAgainMs);
    if (!question_.is_open()) question_.ask(primary, kClusterSlots, RequestKind::Read);
}

void ClusterFinder::on_slots(std::string_view reply) {
    // It is being set up, and will have slots.
    if (reply == "*0\r\n") return conclude(Finding::Cluster, {});
    SlotMapReader reader{std::string(reply), {}};
    SlotMapReader::Step step = SlotMapReader::Step::More;
    while (step == SlotMapReader::Step::More)
        step = reader.step(kSlots);
    if (step == SlotMapReader::Step::Refused) {
        conclude(Finding::OneServer, "CLUSTER SLOTS: " + reader.refusal());
    } else if (reader.take().has_reachable_owner()) {
        conclude(Finding::Cluster, {});
    } else {
        conclude(Finding::OneServer, "CLUSTER SLOTS tells no node's address");
    }
}

void ClusterFinder::conclude(Finding finding, std::string reason) {
    again_timer_.stop();
    next_ = finding;
    reason_ = std::move(reason);
    told_timer_.start_once(0);
}

}  // namespace nearkey
