// One event loop and all that serves clients on it: its connections to Valkey, its clients, and
// their metrics. Owned by Workers. Number 0 runs on the main thread, each other one on a thread of
// its own; what they tell Workers is told on the main thread.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/loop/mailbox.h"
#include "nearkey/server/client_server.h"
#include "nearkey/upstream/cluster_finder.h"
#include "nearkey/upstream/shared_proofs.h"

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace nearkey {

class Workers;

// Shared by all workers. All of it outlives them.
struct WorkerShared {
    MetricsGroup& all;  // each worker's are in it
    const Config& config;
    Log& log;
    NearCache* cache;       // null: there is none
    OwnWrites* own_writes;  // null: no listener reads from replicas
    const KeyHash& key_hash;
    SlowLog& slow_log;
    KnownScripts& scripts;
    SegmentSource* segment;  // null: there is no near cache
};

class Worker final : private NodeEvents,
                     private ClusterEvents,
                     private TargetEvents,
                     private ClientExchange,
                     private FillWaiterLoop {
public:
    // All but the numbers outlive it.
    struct Parts {
        size_t number;
        size_t count;  // of all workers
        Loop& loop;
        Mailbox& mailbox;       // the loop's
        Mailbox& main_mailbox;  // the main thread's
        Metrics& metrics;
        const WorkerShared& shared;
        Workers& workers;
    };
    Worker(const Parts& parts, std::unique_ptr<UpstreamTarget> target);
    ~Worker();

    // Before either runs: both store into the same near cache.
    void share_cache_with(Worker& other);

    // REQUIRES for these: on its thread, or while that waits (Workers::Pause).
    Node& node() { return *node_; }
    // Of the node, or of the cluster.
    const UpstreamHealth& health();
    // Null: the upstream is one server.
    Cluster* cluster() { return cluster_.get(); }
    // The node, and those of a cluster beside it, replicas that are read from among them.
    template <class Visit>
    void for_each_node(Visit visit) {
        visit(*node_);
        if (cluster_ == nullptr) return;
        cluster_->for_each(visit);
        if (cluster_->replicas != nullptr) cluster_->replicas->for_each(visit);
    }
    uint64_t now_ms() const { return loop_.now_ms(); }
    ClientServer& clients() { return *clients_; }
    const HotKeys& hot_keys() const { return hot_keys_; }
    void start();
    void turn_to(std::unique_ptr<UpstreamTarget> target);
    void adopt_target();
    void try_target(std::unique_ptr<UpstreamTarget> target, uint64_t trial);
    // Null: at the address of the former one.
    void seek_primary(std::unique_ptr<UpstreamTarget> target, uint64_t trial);
    // Once on its thread, before its loop runs; the first worker's is the one that made it.
    void settle_here() { thread_ = std::this_thread::get_id(); }

private:
    void share_proofs(bool is_alone);
    // NodeEvents
    void on_health_changed(const UpstreamHealth& health) override;
    void on_credentials_refused() override;
    void on_demoted() override;
    void on_confirmation_wanted() override;
    void on_confirmation_missing() override;
    void on_commands_changed() override { clients_->on_commands_changed(); }
    void on_beat() override;
    // ClusterEvents; on_credentials_refused() is of both
    void on_serving_changed() override { tell_health(); }
    // TargetEvents
    void on_target_proven() override;
    void on_target_refused(const std::string& reason) override;
    // ClientExchange
    bool hand_over(uint64_t listener, int fd, uint64_t id) override;
    void on_client_ended(uint64_t listener) override;
    // FillWaiterLoop
    bool is_here() const override { return thread_ == std::this_thread::get_id(); }
    void wake() override;

    std::span<char> reply_scratch();
    std::unique_ptr<Cluster> make_cluster();
    void on_mode_found(ClusterFinder::Finding finding, const std::string& reason);
    void note_late_cluster();
    void log_degraded();
    void tell_health();
    void tell(std::function<void()> what);

    const size_t number_;
    Mailbox& mailbox_;
    Mailbox& main_mailbox_;
    Loop& loop_;
    Metrics& metrics_;
    NearCache* const cache_;
    Workers& workers_;
    const WorkerShared& shared_;
    UpstreamHealth cluster_health_;
    bool was_cluster_ = false;   // the node, when it was looked at last
    bool was_degraded_ = false;  // as it was logged last
    HotKeys hot_keys_;
    std::vector<char> scratch_;         // read buffer of sockets; its bytes live for one callback
    std::unique_ptr<Cluster> cluster_;  // null: the upstream is one server
    std::unique_ptr<Node> node_;
    std::unique_ptr<ClusterFinder> finder_;  // null: the URL or an option says what it is
    std::unique_ptr<SharedProofs> proofs_;   // null: this is the only worker
    std::unique_ptr<ClientServer> clients_;
    std::thread::id thread_ = std::this_thread::get_id();
    uint64_t trial_ = 0;
};

}  // namespace nearkey
