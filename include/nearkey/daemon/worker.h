// One event loop and all that serves clients on it: its connections to Valkey, its clients, and
// what they count. Owned by Workers. Number 0 runs on the main thread, each other one on a thread
// of its own; what they tell (WorkerEvents) is told on the main thread.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/loop/mailbox.h"
#include "nearkey/server/client_server.h"
#include "nearkey/upstream/shared_proofs.h"

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace nearkey {

class WorkerEvents {
public:
    virtual void on_worker_health(size_t worker, const UpstreamHealth& health) = 0;
    virtual void on_credentials_refused() = 0;
    virtual void on_worker_demoted() = 0;
    // Of try_target() or seek_primary() with that number.
    virtual void on_worker_target_proven(uint64_t trial) = 0;
    virtual void on_worker_target_refused(uint64_t trial, const std::string& reason) = 0;
    // As ClientExchange has it; asked of the main thread's worker alone.
    virtual bool hand_over(uint64_t listener, int fd, uint64_t id) = 0;
    virtual void on_client_ended(size_t worker, uint64_t listener) = 0;

protected:
    ~WorkerEvents() = default;
};

// What all workers have in common. All of it outlives them.
struct WorkerShared {
    MetricsGroup& all;  // each worker's are in it
    const Config& config;
    Log& log;
    NearCache* cache;  // null: there is none
    const KeyHash& key_hash;
    SlowLog& slow_log;
};

class Worker final : private PoolEvents,
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
        WorkerEvents& events;
    };
    Worker(const Parts& parts, std::unique_ptr<UpstreamTarget> target);
    ~Worker();

    // Before either runs: both store into the same near cache.
    void share_cache_with(Worker& other);

    // REQUIRES, of these: on its thread, or while that waits (Workers::Pause).
    ConnectionPool& pool() { return *pool_; }
    ClientServer& clients() { return *clients_; }
    const HotKeys& hot_keys() const { return hot_keys_; }
    void try_target(std::unique_ptr<UpstreamTarget> target, uint64_t trial);
    void seek_primary(uint64_t trial);
    // Once on its thread, before its loop runs; the first worker's is the one that made it.
    void settle_here() { thread_ = std::this_thread::get_id(); }

private:
    // PoolEvents
    void on_health_changed(const UpstreamHealth& health) override;
    void on_credentials_refused() override;
    void on_demoted() override;
    void on_commands_changed() override { clients_->on_commands_changed(); }
    // TargetEvents
    void on_target_proven() override;
    void on_target_refused(const std::string& reason) override;
    // ClientExchange
    bool hand_over(uint64_t listener, int fd, uint64_t id) override;
    void on_client_ended(uint64_t listener) override;
    // FillWaiterLoop
    bool is_here() const override { return thread_ == std::this_thread::get_id(); }
    void wake() override;

    void tell(std::function<void()> what);

    const size_t number_;
    Mailbox& mailbox_;
    Mailbox& main_mailbox_;
    NearCache* const cache_;
    WorkerEvents& events_;
    HotKeys hot_keys_;
    std::vector<char> scratch_;  // what sockets are read into; its bytes live for one callback
    std::unique_ptr<ConnectionPool> pool_;
    std::unique_ptr<SharedProofs> proofs_;  // null: this is the only worker
    std::unique_ptr<ClientServer> clients_;
    std::thread::id thread_ = std::this_thread::get_id();
    uint64_t trial_ = 0;
};

}  // namespace nearkey
