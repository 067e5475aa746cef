// Tells Valkey which keys are read here. A key whose reads are all answered by the near cache looks
// idle to the server, and allkeys-lru or allkeys-lfu would evict the keys that are read most.
// Owned by NodeCoherence. The one rule: it burdens nobody. A hit costs one counter, a
// heartbeat at most near_cache.touch_keys_max keys, a refusal ends it.
//
//   hit ─is_due()─▶ note() ─▶ keys of a database ─beat()─▶ CLIENT CACHING NO, TOUCH key ...
//
// The gap between two samples follows from the number of hits between the last two heartbeats, so
// that the sample is spread over the whole time, whatever the load is.
#pragma once

#include "nearkey/cache/options.h"
#include "nearkey/upstream/own_question.h"

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <unordered_set>

namespace nearkey {

class Connection;
class SharedConnections;
struct ConnectionContext;

class TouchReporter final : private WholeReplyReceiver {
public:
    // Outlived by all references.
    // REQUIRES: there is a near cache.
    TouchReporter(ConnectionContext& context, SharedConnections& connections);

    // The keys that one TOUCH may name.
    struct Group {
        int database;
        int slot = -1;  // in a cluster
        auto operator<=>(const Group&) const = default;
    };
    // Called with each hit: true if this one is to be noted, and the next one to be chosen. In a
    // cluster the seed's reporter chooses, and that of the key's node notes.
    // A hit that stands for others, of which only the client knows, is due if any is.
    bool is_due(uint32_t others) {
        const bool is_next = --hits_left_ == 0;
        return is_next || (others > 0 && hits_left_ < kNever / 2);
    }
    void schedule();
    // The server, which evicts by use, is told of hits.
    bool is_touching() const { return evicts_by_use_ && !is_refused_; }
    void note(const Group& group, std::string_view key);
    // Called with each heartbeat. `primary` is asked for the server's policy now and then.
    void beat(Connection& primary, uint64_t now_ms);
    // Another upstream must be asked anew.
    void forget_policy() {
        is_refused_ = false;
        policy_asked_ms_ = 0;
    }

private:
    static constexpr uint64_t kNever = UINT64_MAX;
    // The keys of one group, and the receiver of the replies to their TOUCH.
    class Batch final : public WholeReplyReceiver {
    public:
        explicit Batch(TouchReporter& reporter) : reporter_(reporter) {}
        void send(Connection& connection);

        std::unordered_set<std::string> keys;
        Connection* asked = nullptr;  // whose reply is still to come; null: none is

    private:
        void on_whole_reply(uint32_t ticket, const std::string& reply) override;
        void on_no_reply(uint32_t ticket) override;

        TouchReporter& reporter_;
    };

    // WholeReplyReceiver: for INFO memory
    void on_whole_reply(uint32_t ticket, const std::string& reply) override;
    void on_no_reply(uint32_t ticket) override;

    void ask_for_policy(Connection& primary, uint64_t now_ms);
    void set_evicts(bool evicts_by_use);
    void on_touch_reply(std::string_view reply);
    void send_batches();

    ConnectionContext& context_;
    SharedConnections& connections_;
    const NearCacheOptions& options_;

    std::map<Group, Batch> batches_;
    size_t keys_ = 0;                 // in all of them
    uint64_t hits_left_ = kNever;     // until the next one that is noted
    uint64_t hits_planned_ = kNever;  // its value when it was chosen
    uint64_t hits_ = 0;               // hits since the last heartbeat, up to that choice
    uint64_t gap_ = 1;                // from one to the next, on average
    std::minstd_rand random_{std::random_device{}()};

    bool is_refused_ = false;
    bool is_policy_refused_ = false;  // INFO is refused
    bool evicts_by_use_ = false;      // so far as we know
    Connection* asked_ = nullptr;     // for it, and has not answered
    uint64_t policy_asked_ms_ = 0;    // 0: never
};

}  // namespace nearkey
