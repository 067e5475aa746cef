// The servers of a Valkey Cluster: who owns which slot, the connections to each, and what becomes
// of a command that one of them sends on.
//
//   CLUSTER SLOTS ──▶ MapUpdate ──▶ owners, a node for each primary
//   MOVED         ──▶ the owner is another; the command goes there at once, the map is asked for
//   ASK           ──▶ the command goes there behind ASKING; nothing is learned
//   TRYAGAIN, CLUSTERDOWN, READONLY ──▶ again some time later, if nothing of its client's is behind
//                     it; else the client reads the server's words
//
// A command that was sent on was not run, so a write may go again; one whose connection is lost may
// have run, so it never does.
// The one rule: commands of one client for one slot keep their order. Those that are sent on go in
// the order in which they come back, over one connection. A client sends nothing more while some of
// its commands are sent on, nor to a slot whose owner has changed since it was last owed nothing
// (changed()). What was in flight already when the first came back stays where it is: it overtakes
// only if the slot leaves the node and returns to it within that flight.
//
// Owned by Worker, outlives its sessions and the node that is asked for the commands.
#pragma once

#include "nearkey/upstream/cluster_coherence.h"
#include "nearkey/upstream/cluster_seed.h"
#include "nearkey/upstream/delayed_requests.h"
#include "nearkey/upstream/map_update.h"
#include "nearkey/upstream/node.h"
#include "nearkey/upstream/primaries.h"
#include "nearkey/upstream/replicas.h"
#include "nearkey/upstream/sent_on.h"
#include "nearkey/upstream/slot_map.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nearkey {

class ClusterEvents {
public:
    // serves() may say otherwise now.
    virtual void on_serving_changed() = 0;
    // As in NodeEvents, of any node but the seed.
    virtual void on_credentials_refused() = 0;

protected:
    ~ClusterEvents() = default;
};

class Cluster final : public RedirectEvents, private NodeEvents {
public:
    struct Member {
        std::string id;  // empty: only a redirect has named it yet
        Endpoint endpoint;
        std::unique_ptr<Node> node;
        size_t slots = 0;
        bool is_listed = true;        // by the last map
        bool has_lost_slots = false;  // since that
    };

    // All outlive it.
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        std::span<char> scratch;
        ClusterEvents& events;
        // The target of a node: the same user and certificates at another address. Null: they can't
        // be read now.
        ClusterSeed::MakeTarget make_target;
        const UpstreamOptions& options;
        const ClusterOptions& cluster_options;
        NearCache* cache = nullptr;       // null: there is none
        OwnWrites* own_writes = nullptr;  // null: no listener reads from replicas
        bool is_first = true;             // of those of all event loops
        uint64_t seed = 0;                // of its jitter; should be random
    };
    explicit Cluster(const Parts& parts);
    ~Cluster() { stop(); }

    // `seed` knows the commands, and is asked first. It outlives this, or stop() is called.
    void start(Node& seed);
    void stop();
    void apply_options();
    // As in Node, for all nodes but the seed.
    void set_access(const UpstreamTarget& fresh);

    // --- who is asked ---
    // The owner of a slot. If nobody is known to be, another node, which says so.
    Node& owner(uint16_t slot) {
        Node* const node = find(owners_[slot]);
        return node == nullptr ? *seed_ : *node;
    }
    // For commands without keys: the same as long as it serves.
    Node& home();
    // The node where this command, canonical RESP, runs.
    Node& node_for(std::string_view bytes);
    Primaries primaries;
    std::unique_ptr<Replicas> replicas;  // null: no listener reads from any
    // The map's version, and that in which a slot's owner changed last.
    uint32_t version() const { return version_; }
    uint32_t changed(uint16_t slot) const { return changed_[slot]; }
    // A server says that the map is not true any more; `slot`: of which, -1: it is not known.
    void doubt();
    // Some of the slots have an owner that serves.
    bool serves() const;
    // Why not; one line.
    std::string why_not() const;
    const SentOn& sent_on() const { return sent_on_; }
    // The node of a number (NodeCoherence::number()); null: it is gone, or nobody's.
    Node* find(uint16_t number) {
        if (number == kSeed) return seed_;
        return number < members_.size() && members_[number] != nullptr
                   ? members_[number]->node.get()
                   : nullptr;
    }
    const ClusterOptions& options() const { return parts_.cluster_options; }
    ClusterCoherence& coherence() { return coherence_; }
    static constexpr uint16_t kSeed = NodeCoherence::kSeedNumber;
    static constexpr uint16_t kNobody = MapUpdate::kNobody;
    // No reply will be delivered to `receiver` any more.
    void forget(const ReplyReceiver& receiver);

    // By their numbers; null: it is gone.
    const std::vector<std::unique_ptr<Member>>& members() const { return members_; }
    // Nodes beside the seed.
    template <class Visit>
    void for_each(Visit visit) {
        for (const auto& member : members_)
            if (member != nullptr) visit(*member->node);
    }

    // A node has refused a command of this slot, and is believed; -1: it is not known which, or
    // nothing of it may be stored. Returns the number of the one that is to run it, which may be
    // nobody's.
    uint16_t follow(const Connection& from, const Redirect& redirect, int slot);
    static constexpr std::string_view kAsking = "*1\r\n$6\r\nASKING\r\n";
    static constexpr std::string_view kCircle =
        "UPSTREAMDOWN the cluster's nodes send it from one to the other; not run";
    static constexpr std::string_view kFull =
        "UPSTREAMDOWN the node of its slot is one more than nearkey may know (cluster.nodes_max); "
        "not run";

    // RedirectEvents
    int slot_of_command(std::string_view bytes) const override;
    void on_redirect(Connection& from, const Redirect& redirect, UnsentRequest request) override;

private:
    // The last question.
    struct Asked {
        std::string host;
        Endpoint endpoint{};  // where it was dialled
        uint32_t version = 0;
        uint64_t ms = 0;            // 0: never
        Endpoint disbelieved{};     // it has claimed slots of others: not asked next
        bool is_seed_mute = false;  // it has not answered that

        // It may have been dialled by a name.
        bool is_of(const Endpoint& server) const {
            return server.port == endpoint.port &&
                   (server.host == endpoint.host || server.host == host);
        }
    };

    // NodeEvents of the members
    void on_health_changed(const UpstreamHealth& health) override;
    void on_credentials_refused() override { parts_.events.on_credentials_refused(); }
    void on_commands_changed() override {}
    void on_demoted() override { doubt(); }

    // The map.
    void schedule();
    void ask();
    Node* pick_asked();
    // The next piece of the update.
    void update();
    void begin_update();
    void compare_slots();
    bool may_believe(const SlotMap& map);
    void refuse(const std::string& reason);

    // Members.
    uint16_t member_at(const std::string& id, const Endpoint& endpoint);
    uint16_t add_member(const std::string& id, const Endpoint& endpoint);
    uint16_t find_member(const Endpoint& endpoint) const;
    // In this version of the map. True: a node owns its first, or has lost its last.
    bool set_owner(uint16_t slot, uint16_t number);
    void drop_unlisted();
    void note_owners();

    // Requests that were sent on.
    void take_along();
    void send_on(uint16_t number, const UnsentRequest& request, bool is_asking);
    void delay(UnsentRequest request, std::string_view words);
    const Parts parts_;
    AddressMap addresses_;
    Node* seed_ = nullptr;
    ClusterSeed seed_choice_;
    Question question_;
    Timer ask_timer_;
    Timer update_timer_;
    std::minstd_rand random_;
    std::unique_ptr<MapUpdate> update_;  // null: there is none
    SlotMap map_;                        // the last one
    Asked asked_;
    uint16_t hint_ = kNobody;  // who knows of what is in doubt
    Absence absence_;          // of all owners
    size_t next_asked_ = 0;
    bool is_doubted_ = false;
    std::string refusal_;  // the reason why the last answer could not be used

    std::vector<std::unique_ptr<Member>> members_;       // null: it is gone
    std::unordered_map<std::string, uint16_t> numbers_;  // by their ids
    size_t unnamed_ = 0;                                 // how many have none yet
    bool is_full_ = false;  // one could not be added, for there are cluster.nodes_max
    std::array<uint16_t, kSlots> owners_;
    std::array<uint32_t, kSlots> changed_{};
    uint32_t version_ = 0;
    bool knows_slots_ = false;  // a map was read
    uint16_t home_ = kNobody;
    ClusterCoherence coherence_;
    SentOn sent_on_;
    DelayedRequests delayed_;
};

// The cluster's own id of it; empty: it is not known.
inline std::string_view id_of(const Cluster& cluster, Node& node) {
    const size_t number = node.coherence().number();
    const auto& members = cluster.members();
    const bool is_there = number < members.size() && members[number] != nullptr;
    return is_there ? std::string_view(members[number]->id) : std::string_view();
}

}  // namespace nearkey
