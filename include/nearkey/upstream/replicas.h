// The replicas of a cluster, for listeners that read from them: a node for each, and how far it is
// known to follow its primary.
//
//   a read ──▶ choose() ──▶ a replica ──reply──▶ its client
//                  │             └──error, lost, silent──▶ the owner of the slot ──▶ its client
//                  └──none is proven, or an own write is newer──▶ the owner of the slot
//
// While such reads come, each primary is asked again and again what it has done, and its replicas
// how far they are (replication.h). Each is asked for itself: one that is silent delays no other.
// The one rule: a read that is sent to a replica shows every write that the owner of its slot had
// acknowledged cluster.replica_lag_max_ms before, and every write whose end this nearkey has seen.
//
// Nothing of a replica is stored in the near cache, none counts as one of the cluster's nodes.
// Owned by Cluster, outlives its sessions.
#pragma once

#include "nearkey/upstream/cluster_seed.h"
#include "nearkey/upstream/own_writes.h"
#include "nearkey/upstream/replication.h"
#include "nearkey/upstream/slot_map.h"

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nearkey {

class Cluster;

// Why a replica does not answer for a slot now.
enum class ReplicaHindrance : uint8_t {
    None,
    NoReplica,
    Away,      // it can't be reached, is silent, or too old
    Unproven,  // within cluster.replica_lag_max_ms
    OwnWrite,  // is newer than what is known of it
};

class Replicas final : private NodeEvents, private RedirectEvents {
public:
    // All outlive it.
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        std::span<char> scratch;
        const UpstreamOptions& options;
        const ClusterOptions& cluster_options;
        ClusterSeed::MakeTarget make_target;
        const OwnWrites& own_writes;
        Cluster& cluster;
        // The request goes to the owner of the slot.
        std::function<void(UnsentRequest request, uint16_t slot)> send_to_owner;
        bool is_first;  // of those of all event loops
    };
    explicit Replicas(const Parts& parts);
    ~Replicas();

    static constexpr uint16_t kNone = UINT16_MAX;
    struct Wish {
        uint16_t primary;  // the number of the slot's owner
        uint16_t slot;
        Protocol protocol;
        uint64_t session;       // reads of one session go to the same, as long as that answers
        uint16_t only = kNone;  // to no other
    };
    struct Choice {
        ReplicaHindrance hindrance = ReplicaHindrance::NoReplica;
        uint16_t number = kNone;           // of the replica
        Node* node = nullptr;              // its node; null: the owner of the slot answers
        Connection* connection = nullptr;  // ready
        uint64_t proven_ms = 0;            // on boot_ms()
    };
    // Where a read goes now. Has replicas asked how far they are.
    Choice choose(const Wish& wish);
    // REQUIRES: a read, and a choice that was made in this turn.
    void send(const Choice& choice, const Request& request, uint16_t slot);
    // No reply will be delivered to `receiver` any more.
    void forget(const ReplyReceiver& receiver);

    // A new map; `numbers`: those of its servers, as primaries.
    void apply(const SlotMap& map, const std::vector<uint16_t>& numbers, Node& seed);
    // As in Cluster.
    void set_access(const UpstreamTarget& fresh);
    void apply_options();
    void stop();
    template <class Visit>
    void for_each(Visit visit) {
        for (const auto& replica : replicas_)
            if (replica != nullptr) visit(*replica->node);
    }
    void set_gauges() const;

    // What an operator sees of one.
    struct Facts {
        const std::string& id;
        const Endpoint& endpoint;
        Node& node;
        uint64_t lag_ms;  // since it is known to have been up to date; UINT64_MAX: it is not known
    };
    template <class Visit>
    void for_each_fact(Visit visit) const {
        const uint64_t now_ms = Loop::boot_ms();
        for (const auto& replica : replicas_) {
            if (replica == nullptr) continue;
            const uint64_t proven_ms = replica->proof.ms;
            visit(Facts{replica->id, replica->endpoint, *replica->node,
                        proven_ms == 0 ? UINT64_MAX : now_ms - std::min(now_ms, proven_ms)});
        }
    }

private:
    struct Replica;
    // A read that a replica has. It stands between its receiver and the connection, and keeps the
    // bytes: whatever goes wrong, the owner of the slot is asked.
    struct Read final : ReplyReceiver {
        explicit Read(Replicas& owner) : all(owner) {}
        void on_reply_bytes(uint32_t, std::string_view bytes) override;
        void on_reply_end(uint32_t) override;
        bool on_reply_void(uint32_t) override;
        void on_request_failed(uint32_t, std::string_view error) override;
        void on_slow_request(uint32_t, const RequestTiming& timing, SlowEnd end) override;

        Replicas& all;
        Replica* at = nullptr;
        std::list<Read>::iterator self{};
        Connection* connection = nullptr;
        ReplyReceiver* receiver = nullptr;  // null: nobody wants the reply any more
        uint32_t ticket = 0;
        uint16_t slot = 0;
        bool has_begun = false;  // a piece of its reply has come
        uint64_t sent_ms = 0;
        uint64_t deadline_ms = 0;
        RequestTiming timing{};
        std::string bytes;
    };
    // Asks a primary what it has done, and behind that whether it owns a slot: one that is cut off
    // does not know of what is acknowledged elsewhere.
    struct Primary final : WholeReplyReceiver {
        Primary(Replicas& owner, uint16_t own_number) : all(owner), number(own_number) {}
        void on_whole_reply(uint32_t ticket, const std::string& reply) override;
        void on_no_reply(uint32_t) override { connection = nullptr; }

        Replicas& all;
        const uint16_t number;
        std::vector<uint16_t> replicas;  // their numbers
        ReplicationMarks marks;
        std::string info;                  // its answer to the first half of the question
        Connection* connection = nullptr;  // null: it is not asked now
        uint64_t asked_ms = 0;             // last, on boot_ms()
        uint64_t wanted_ms = 0;            // when a read came last, on the loop's clock
        uint16_t slot = 0;                 // of that
    };
    struct Proof {
        uint64_t ms = 0;        // it has all from before then, on boot_ms(); 0: it is not known
        uint64_t asked_ms = 0;  // when the replica was asked for it, on the loop's clock
    };
    struct Replica {
        Replica(Loop& loop, Replicas& all);

        std::string id;
        Endpoint endpoint;
        uint16_t number = 0;
        uint16_t primary = 0;
        bool is_listed = true;  // by the last map
        bool is_fit = true;     // its server is new enough
        Proof proof;
        uint64_t asked_ms = 0;          // last, on the loop's clock
        uint64_t waiting_since_ms = 0;  // it has been asked then, and has not answered since; 0: no
        uint64_t pause_ms = 0;          // before it is asked anew, for it was behind
        std::list<Read> reads;
        Question question;
        Timer again;
        std::unique_ptr<Node> node;
    };

    // NodeEvents
    void on_health_changed(const UpstreamHealth&) override {}
    // Cluster's nodes tell of the same.
    void on_credentials_refused() override {}
    void on_commands_changed() override {}
    void on_demoted() override;
    // RedirectEvents
    int slot_of_command(std::string_view bytes) const override;
    void on_redirect(Connection& from, const Redirect& redirect, UnsentRequest request) override;

    ReplicaHindrance judge(Replica& replica, const Wish& wish, Choice& choice);
    bool is_silent(const Replica& replica, uint64_t patience_ms) const;
    bool is_within_bound(uint64_t proven_ms, uint64_t now_ms) const;
    uint64_t interval_ms() const;
    void want(Primary& primary, uint16_t slot);
    void tick();
    void ask(Primary& primary);
    void note_primary(Primary& primary, bool owns);
    void ask(Replica& replica);
    void note_replica(Replica& replica, std::string_view reply);
    void note_fitness(Replica& replica);
    void take_back_late(Replica& replica);
    void move(Read& read);
    void release(Read& read);
    Primary& primary_of(uint16_t number);
    uint16_t add(const SlotMap::Server& server, Node& seed);

    const Parts parts_;
    Timer timer_;
    std::unordered_map<uint16_t, Primary> primaries_;
    std::vector<std::unique_ptr<Replica>> replicas_;  // by their numbers; null: it is gone
    std::list<Read> spare_;
    bool is_full_ = false;
    bool is_age_told_ = false;
};

}  // namespace nearkey
