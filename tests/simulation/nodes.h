// What happens to the nodes of a cluster: slots that move key by key, replicas that take over,
// nodes that are frozen, cut off from the others or dead meanwhile.
// Owned by the world. The one rule: a shard whose replica takes over without its primary has no
// slot on its way, and one such failover is over before the next begins (reign.h).
//
//   a slot  ─ imported ─ exported ─ its keys move, one by one ─ the new owner knows
//                                ─ the former one knows ─ the others know, one by one
//   a primary ─┬─ planned: steps back at once, and sends on ───────────────────────▶ follows
//              ├─ frozen: it wakes, and answers what is in its sockets, and more ┐
//              ├─ cut off: serves on for a while ─▶ CLUSTERDOWN ─────────────────┼▶ knows ▶ follows
//              └─ killed: comes back empty ──────────────────────────────────────┘
#pragma once

#include "world.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace nearkey::simulation {

class World::Nodes final {
public:
    // Makes the servers. `commands`: as for ModelValkey.
    Nodes(World& world, const std::string& commands);
    void start();

    // Those that own slots at first.
    size_t primaries() const { return primaries_; }
    const std::vector<std::string>& names() const { return names_; }
    ModelValkey& owner_of(const std::string& key) const { return node(owners_.at(slot_of(key))); }
    // The one that the last failover has deposed, if it does not know. Null: there is none.
    ModelValkey* unaware() const { return unaware_; }
    // Here it is imported now, if it is.
    ModelValkey* importer_of(const std::string& key) const;
    void note_expiry(const KeyName& key);
    bool has_returned(uint16_t slot, uint64_t since_us) const;
    bool has_moved(uint16_t slot, uint64_t since_us) const;
    // Of which a read that begins now may still show the key, which nothing is bound to be older
    // than. `knows_other`: whether its nearkey knows of another owner of its slot than this one.
    Reign& oldest_shown(const KeyName& key, uint64_t bound_us,
                        const std::function<bool(const std::string& owner)>& knows_other) const;

private:
    struct Move {
        uint16_t slot;
        ModelValkey* from;
        ModelValkey* to;
        uint64_t hold_until_us;
        uint64_t pause_us;
    };
    struct Return {
        uint16_t slot;
        uint64_t left_us;
        uint64_t when_us;
    };
    using Promotion = ModelValkey::Promotion;

    ModelValkey& node(uint8_t number) const { return *world_.valkeys_[number]; }
    static uint8_t number_of(ModelValkey& node) { return node.slots()->self(); }
    bool hears(const ModelValkey& node) const;
    void when_hearing(ModelValkey& node, std::function<void()> what);
    bool is_of_failover(const ModelValkey& node) const;

    // Slots.
    void move_some();
    void move_after_pause();
    void move_absent();
    void change(const std::string& name);
    bool begin_move(uint16_t of);
    void begin_export();
    void move_keys();
    bool may_go_on() const;
    void finish_move();
    void note_left(uint16_t slot, ModelValkey& node);
    void note_back(uint16_t slot, ModelValkey& node);

    // Failovers.
    void fail_over();
    void fail_over_any();
    void fail(ModelValkey& primary);
    ModelValkey* pick_failing() const;
    void plan(ModelValkey& primary);
    void freeze(ModelValkey& primary);
    void cut_off(ModelValkey& primary);
    void kill(ModelValkey& primary);
    void promote_at(uint64_t when_us, ModelValkey& primary, std::function<void()> then);
    void replace(ModelValkey& former, ModelValkey& next, uint64_t lag_us);
    void let_know(ModelValkey& former);
    void end_failover();

    World& world_;
    Random& random_;
    EventQueue& events_;
    std::vector<std::string> names_;
    size_t primaries_;
    std::map<uint16_t, uint8_t> owners_;  // of the slots with keys
    std::map<uint16_t, uint8_t> former_;  // the same, before the last move
    uint64_t move_pause_us_;
    uint64_t hold_us_;
    uint64_t gossip_us_;
    Move move_{};
    bool is_moving_ = false;
    ModelValkey* failing_ = nullptr;  // a primary whose replica takes over, or has
    ModelValkey* unaware_ = nullptr;
    bool is_cut_ = false;
    bool are_moves_at_rest_ = false;  // until the failover is over
    std::map<std::pair<uint16_t, uint8_t>, uint64_t> left_;
    std::vector<Return> returns_;
    std::map<uint16_t, uint64_t> moved_until_us_;
};

}  // namespace nearkey::simulation
