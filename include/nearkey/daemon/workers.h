// All event loops that serve clients (server.workers), as if they were one.
// Owned by Daemon. The first runs on the main thread, which accepts all clients and hands each to
// the loop that has the fewest; the others run on threads of their own and share nothing but the
// near cache, the log and the slow log.
//
// The one rule: work on the other loops is done by the main thread, while they wait (Pause): a
// question to all is asked of each between two of its turns.
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
    // Access to Valkey was refused. An owner that knows better credentials or certificates calls
    // set_access().
    virtual void on_credentials_refused() = 0;
    // As in NodeEvents, from any worker.
    virtual void on_demoted() = 0;
    virtual void on_confirmation_wanted() = 0;
    virtual void on_confirmation_missing() = 0;

protected:
    ~WorkersEvents() = default;
};

class Workers {
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

    // While it lives, all other threads wait: their parts may be used.
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
    // The first worker's; the others' is the same.
    const UpstreamTarget& target() const { return first().node().target(); }
    // The first worker's; the others' is the same.
    ServerFacts server() const { return is_running_ ? first().node().server() : ServerFacts{}; }
    // True if every loop has turned since the last call.
    bool have_turned();

    // As in Node and ClientServer, for all workers.
    void try_target(Targets targets, TargetEvents& events);
    // All turn, or none: a reply stored by one is served by all. Empty: at their present address.
    void seek_primary(Targets targets, TargetEvents& events);
    // Either is under way.
    bool is_trying() const { return target_events_ != nullptr; }
    bool is_trying_for(const TargetEvents& events) const { return target_events_ == &events; }
    void forget_target();
    void confirm_primary();
    void adopt_target();
    void turn_to(Targets targets);
    void set_access(Targets targets);
    // Of a cluster: the nodes that the event loops ask now, in their order; the first that the URL
    // names may have gone. Empty: the upstream is none, or not used as one.
    std::vector<Endpoint> seeds();
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
    std::vector<NodeFacts> nodes();
    std::vector<HotKeys::Entry> hot_keys(size_t count, HotKeys::Outcome outcome, uint64_t now_ms);

    // For workers, which call these on the main thread.
    WorkersEvents& events() { return events_; }
    void on_worker_health(size_t worker, const UpstreamHealth& health);
    // The target of try_target() or seek_primary() with that number is proven.
    void on_worker_target_proven(uint64_t trial);
    void on_worker_target_refused(uint64_t trial, const std::string& reason);
    // As in ClientExchange; hand_over() is called for the main thread's worker alone.
    bool hand_over(uint64_t listener, int fd, uint64_t id);
    void on_client_ended(size_t worker, uint64_t listener);

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

    void begin_trial(TargetEvents& events);
    Worker::Parts parts_of(size_t number, Loop& loop, Mailbox& mailbox, Metrics& metrics);
    Worker& first() const { return *first_; }
    template <class Visit>
    void for_each(Visit visit);
    void start_thread(size_t number);
    void stop_others();
    void let_others_go();
    void park_others();
    void end_each(std::function<void()> ended,
                  const std::function<void(ClientServer&, std::function<void()>)>& end);

    const WorkerShared shared_;
    Metrics& metrics_;
    WorkersEvents& events_;
    std::unique_ptr<Mailbox> mailbox_;
    std::unique_ptr<Worker> first_;
    std::vector<std::unique_ptr<Thread>> others_;
    bool is_running_ = false;
    UpstreamHealth not_started_{.reason = "upstream.password_command has told no password yet"};
    bool is_closing_ = false;  // clients are handed over no more

    uint64_t trial_ = 0;  // counts try_target() and seek_primary()
    size_t unproven_ = 0;
    TargetEvents* target_events_ = nullptr;  // null: nothing is tried

    size_t pauses_ = 0;  // nested
    std::mutex mutex_;   // for what follows
    std::condition_variable parked_changed_;
    std::condition_variable paused_changed_;
    bool is_paused_ = false;
    uint64_t pause_number_ = 0;
    size_t parked_ = 0;  // in that pause
};

}  // namespace nearkey
