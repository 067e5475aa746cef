// All event loops that serve clients (server.workers), as if they were one.
// Owned by Daemon. The first runs on the main thread, which accepts all clients and hands each to
// the loop that has the fewest; the others run on threads of their own and share nothing but the
// near cache, the log and the slow log.
//
// The one rule: whatever the main thread wants of the others it does itself, while they wait
// (Pause): what is asked of all, is asked of all between two turns of each.
#pragma once

#include "nearkey/daemon/worker.h"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace nearkey {

// Told on the main thread.
class WorkersEvents {
public:
    virtual void on_health_changed(const UpstreamHealth& health) = 0;
    // Access to Valkey was refused. Whoever knows better credentials or certificates says so:
    // set_access().
    virtual void on_credentials_refused() = 0;

protected:
    ~WorkersEvents() = default;
};

class Workers final : private WorkerEvents, private TargetEvents {
public:
    // The same upstream, once for each worker.
    using Targets = std::vector<std::unique_ptr<UpstreamTarget>>;
    // The main thread's. All outlive it.
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        WorkersEvents& events;
    };
    Workers(const Parts& parts, const WorkerShared& shared, Targets targets);
    // REQUIRES: end().
    ~Workers();

    void start();
    // Ends all threads, clients and connections. False if something still runs in libuv's threads:
    // then this can't be destroyed.
    bool end(uint64_t patience_ms);

    // While it lives, all other threads wait: what is theirs may be used.
    class Pause {
    public:
        explicit Pause(Workers& workers) : workers_(workers) { workers_.stop_others(); }
        ~Pause() { workers_.let_others_go(); }
        Pause(const Pause&) = delete;
        Pause& operator=(const Pause&) = delete;

    private:
        Workers& workers_;
    };

    // Ready once all are.
    const UpstreamHealth& health() const;
    // Of the first; the others' is the same.
    const UpstreamTarget& target() const { return first().pool().target(); }
    // Whether every loop has turned since this was asked last.
    bool have_turned();

    // As those of ConnectionPool and ClientServer, of all of them.
    void try_target(Targets targets, TargetEvents& events);
    void forget_target();
    void adopt_target();
    void turn_to(Targets targets);
    void set_access(Targets targets);
    void apply_options();
    void shrink();
    // `make_doors` gives the same doors each time.
    void open_doors(std::vector<ClientServer::Door> doors,
                    const std::function<std::vector<ClientServer::Door>()>& make_doors);
    void start_accepting() { first().clients().start_accepting(); }
    std::vector<const ListenSocket*> sockets() { return first().clients().sockets(); }
    uint64_t mend_sockets(bool is_upstream_ready) {
        return first().clients().mend_sockets(is_upstream_ready);
    }
    void leave_sockets(std::function<void()> left);
    void drain(std::function<void()> drained);
    ClientList clients(uint64_t after, size_t limit);
    ConnectionList connections(size_t limit);
    std::vector<HotKeys::Entry> hot_keys(size_t count, HotKeys::Outcome outcome, uint64_t now_ms);

private:
    // A worker with a thread of its own, and its loop.
    struct Thread {
        Metrics metrics;
        Loop loop;
        std::unique_ptr<Mailbox> mailbox = std::make_unique<Mailbox>(loop);
        std::unique_ptr<Worker> worker;
        UpstreamHealth health;  // as the main thread knows it
        uint64_t clients = 0;   // that were handed over, and have not left
        std::atomic<bool> has_turned{true};
        std::thread thread;
    };

    // WorkerEvents
    void on_worker_health(size_t worker, const UpstreamHealth& health) override;
    void on_credentials_refused() override { events_.on_credentials_refused(); }
    void on_worker_demoted() override;
    void on_worker_target_proven(uint64_t trial) override;
    void on_worker_target_refused(uint64_t trial, const std::string& reason) override;
    bool hand_over(uint64_t listener, int fd, uint64_t id) override;
    void on_client_ended(size_t worker, uint64_t listener) override;
    // TargetEvents: all have found a primary, or one has not.
    void on_target_proven() override;
    void on_target_refused(const std::string&) override {}

    void begin_trial(TargetEvents& events);
    Worker::Parts parts_of(size_t number, Loop& loop, Mailbox& mailbox, Metrics& metrics);
    Worker& first() const { return *first_; }
    template <class Visit>
    void for_each(Visit visit);
    void start_thread(size_t number);
    void stop_others();
    void let_others_go();
    void park();
    void end_each(std::function<void()> ended,
                  const std::function<void(ClientServer&, std::function<void()>)>& end);

    const WorkerShared shared_;
    Metrics& metrics_;
    WorkersEvents& events_;
    std::unique_ptr<Mailbox> mailbox_;
    std::unique_ptr<Worker> first_;
    std::vector<std::unique_ptr<Thread>> others_;
    bool is_running_ = false;
    bool is_closing_ = false;  // clients are handed over no more

    uint64_t trial_ = 0;  // counts try_target() and seek_primary()
    size_t unproven_ = 0;
    TargetEvents* target_events_ = nullptr;  // null: nothing is tried

    size_t pauses_ = 0;  // nested
    std::mutex mutex_;   // for what follows
    std::condition_variable parked_changed_;
    std::condition_variable paused_changed_;
    bool is_paused_ = false;
    size_t parked_ = 0;
};

}  // namespace nearkey
