// Tells Valkey which keys are read here. A key whose reads are all answered by the near cache looks
// idle to the server, and allkeys-lru or allkeys-lfu would evict what is read most.
// Owned by ConnectionPool. The one rule: it is nobody's burden. A hit costs one counter, a
// heartbeat at most near_cache.touch_keys_max keys, a refusal ends it.
//
//   hit ─is_due()─▶ note() ─▶ keys of a database ─beat()─▶ CLIENT CACHING NO, TOUCH key ...
//
// How many hits are passed over follows from how many there were between the last two heartbeats,
// so that the sample is spread over the whole time, whatever the load is.
#pragma once

#include "nearkey/cache/options.h"
#include "nearkey/upstream/request.h"

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <unordered_set>

namespace nearkey {

class Connection;
class ConnectionPool;
class Log;
struct Metrics;

class TouchReporter final : private ReplyReceiver {
public:
    // Outlived by all references.
    TouchReporter(ConnectionPool& pool, const NearCacheOptions& options, Metrics& metrics,
                  Log& log);

    // With each hit: whether this one is to be noted.
    bool is_due() { return --hits_left_ == 0; }
    void note(int database, std::string_view key);
    // With each heartbeat. `primary` is asked for the server's policy now and then.
    void beat(Connection& primary, uint64_t now_ms);
    // Another upstream is to be asked anew.
    void forget_policy() {
        is_refused_ = false;
        policy_asked_ms_ = 0;
    }

private:
    static constexpr uint64_t kNever = UINT64_MAX;
    // The keys of one database, and the receiver of the replies to their TOUCH.
    class Batch final : public ReplyReceiver {
    public:
        explicit Batch(TouchReporter& reporter) : reporter_(reporter) {}
        void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
        void on_reply_end(uint32_t ticket) override;
        bool on_reply_void(uint32_t) override { return false; }
        void on_request_failed(uint32_t ticket, std::string_view error) override;

        void send(Connection& connection, bool is_tracked);

        std::unordered_set<std::string> keys;
        bool is_in_flight = false;

    private:
        TouchReporter& reporter_;
        std::string reply_;
    };

    // ReplyReceiver: of INFO memory
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t) override { return false; }
    void on_request_failed(uint32_t ticket, std::string_view error) override;

    void ask_for_policy(Connection& primary, uint64_t now_ms);
    void set_evicts(bool evicts_by_use);
    void on_touch_reply(std::string_view reply);
    void send_batches();
    void schedule();

    ConnectionPool& pool_;
    const NearCacheOptions& options_;
    Metrics& metrics_;
    Log& log_;

    std::map<int, Batch> batches_;    // by database
    size_t keys_ = 0;                 // in all of them
    uint64_t hits_left_ = kNever;     // until the next one that is noted
    uint64_t hits_planned_ = kNever;  // what that was when it was chosen
    uint64_t hits_ = 0;               // since the last heartbeat, up to when it was chosen
    uint64_t gap_ = 1;                // from one to the next, on average
    std::minstd_rand random_{std::random_device{}()};

    bool is_refused_ = false;
    bool is_policy_refused_ = false;  // INFO is
    bool evicts_by_use_ = false;  // so far as we know
    bool asking_for_policy_ = false;
    uint64_t policy_asked_ms_ = 0;  // 0: never
    std::string reply_;
};

}  // namespace nearkey
