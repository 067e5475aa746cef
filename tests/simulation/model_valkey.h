// A Valkey of maps: values, times of expiry and the tracking table, as Valkey 8.0 has them
// (tracking.c, db.c). What differs from a real one on purpose: active expiry and the overflow of
// the tracking table come when the world says so.
//
//   a command ─▶ reply ─▶ invalidations that it caused for its own client      the same connection
//             └─▶ invalidations for others, at once, or over the client they redirect to
//
// A key's trackers are forgotten once they are told. Nobody is told of SWAPDB.
//
// One of a pair is the primary, the other follows it: every change comes in order, and late
// (model_roles.cc). A former primary lives on until it is demoted. Of a cluster it is a node, which
// sends on what is another's (model_nodes.cc).
#pragma once

#include "event_queue.h"
#include "model_slots.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/protocol.h"
#include "network.h"
#include "reign.h"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::simulation {

std::string joined(int database, const Words& words);

class ModelValkey final : public Server {
public:
    static constexpr int kDatabases = 2;

    struct Parts {
        EventQueue& events;
        Random& random;
        Network& network;
        const std::string& commands;                   // the reply to COMMAND
        std::function<void(const std::string&)> note;  // of what runs; empty: nobody reads it
    };
    ModelValkey(const Parts& parts, const std::string& name);

    // By somebody who is not behind any nearkey.
    std::string execute_directly(int database, const Words& words);
    // What is logically gone may still be stored: the history learns that it is gone.
    void note_expiry(const KeyName& key);
    void expire_some();
    void overflow_tracking(size_t keys);
    // The news for RESP2 connections come so late from now on.
    void slow_down_receivers(uint64_t delay_us);
    // All is lost.
    void restart();

    // --- a pair ---

    // From the start, while nothing is stored.
    void lead(ModelValkey& replica);
    // Of a replica: by plan, once it has all that the primary has, or with what has come.
    enum class Promotion { Planned, Unplanned };
    void promote(Promotion promotion);
    // Of a former primary: it knows, and stays as it is until it follows the next one.
    void demote();
    // It has lost what only it had, unless the promotion was planned.
    void follow(Promotion promotion);
    // What comes from the primary is so late from now on, or does not come until then.
    void lag_behind(uint64_t delay_us, uint64_t until_us);
    bool is_replica() const { return role_ != Role::Primary; }

    // --- a cluster

    // From the start: what is executed is known to all nodes, which outlive it.
    using Nodes = std::vector<std::unique_ptr<ModelValkey>>;
    void join(uint8_t number, const std::vector<std::string>& names, const Nodes& nodes);
    // Null: it is no node of a cluster.
    ModelSlots* slots() { return slots_.get(); }
    // Of a replica: its primary steps back at once, and follows it. Nothing is lost.
    void take_over();
    // The primary has the key from now on.
    void hand_over(const std::string& name, ModelValkey& to);
    std::vector<std::string> names_in(uint16_t slot) const;
    // It knows another owner of the slot: who waits for a key of it waits no more.
    void lose_slot(uint16_t slot, uint8_t owner);
    // Its process has ended.
    void forget_all();
    ModelValkey* other() const { return other_; }

    const std::string& name() const { return name_; }

    // What a command did when it was executed.
    struct Executed {
        uint64_t when_us;
        Reign* reign;
        std::vector<std::pair<KeyName, size_t>> steps;
        uint64_t number = 0;  // of all that was executed
    };
    // By the command's words. In a cluster all nodes share them.
    struct Executions {
        std::map<std::string, std::vector<Executed>> of;
        uint64_t count = 0;
        std::string twice{};  // a command that can't be the same one again, and was executed again
    };
    const Executions& executions() const { return *executions_; }
    // Of the command's first execution since then, or its last one. Null: there is none.
    const Executed* first_execution(const std::string& joined, uint64_t since_us) const;
    const Executed* last_execution(const std::string& joined) const;

    // Of which it is, or was, the primary.
    Reign* reign = nullptr;
    History& history() { return reign->history; }
    // Connections that tell of changes do it up to so late, or only those of whoever has this name;
    // who is asked for INFO answers so late.
    static constexpr const char* kFirstLoop = "first";
    bool do_loops_differ = false;
    uint64_t tracking_lag_us = 0;
    uint64_t info_lag_us = 0;

private:
    struct Stored {
        std::string value;        // of a list: with a comma between two
        char type = 's';          // or 'h', a hash with one field, or 'l', a list
        uint64_t expires_ms = 0;  // 0: never
        uint64_t since_us = 0;    // that is so
        uint64_t value_us = 0;    // since when it has the value
    };
    using Database = std::map<std::string, Stored>;
    struct Client {
        uint64_t id = 0;
        uint64_t link = 0;
        std::string name;
        Protocol protocol = Protocol::Resp2;
        int database = 0;
        bool is_tracking = false;
        uint64_t redirect = 0;
        bool is_untracked = false;   // the command that follows CLIENT CACHING NO
        bool is_redirected = false;  // CLIENT CAPA redirect
        bool in_multi = false;
        bool is_aborted = false;  // what was to be queued was refused
        std::vector<Words> queued;
        std::set<KeyName> watched;
        bool is_dirty = false;  // what is watched has changed
        bool is_leaving = false;
        bool is_asking = false;  // the command that follows ASKING
        Words blocked;           // the command that waits; empty: none does
        uint64_t block = 0;      // its number
        CommandParser parser{1 << 20};
        std::string input;
        std::string output;
    };
    struct Counted {
        uint64_t calls = 0;
        uint64_t usec = 0;
    };
    // A replica that is Alone has left its primary, or was told of another one.
    enum class Role { Primary, Replica, Alone };
    struct Change {
        enum class What { Keys, Swap, Flush };
        struct Part {
            KeyName key;
            std::optional<Stored> stored;  // of Keys
            size_t step;
        };
        What what;
        std::vector<Part> parts;
    };
    // What a replica has, and what is on its way to it.
    struct Stream {
        uint64_t number = 0;  // of those that there were
        uint64_t delay_us = 100;
        uint64_t stalled_until_us = 0;
        std::deque<std::pair<uint64_t, Change>> coming;  // and when
        std::map<KeyName, size_t> steps;                 // of the primary's history
    };

    void on_accepted(uint64_t link) override;
    void on_bytes(uint64_t link, std::string_view bytes) override;
    void on_closed(uint64_t link) override;

    void run_input(Client& client);
    void process(Client& client, const Words& words);
    bool refuses(Client& client, const Words& words);
    bool refuses_as_replica(Client& client, const Words& words);
    bool sends_on(Client& client, const Words& words);
    bool is_at_former_owner(uint16_t slot, const std::vector<std::string>& keys) const;
    void refuse(Client& client, const std::string& error, bool is_exec);
    bool process_transaction(Client& client, const Words& words);
    void exec(Client& client);
    void call(Client& client, const Words& words);
    std::string run(Client& client, const Words& words);
    std::string run_strings(Client& client, const Words& words);
    std::string run_keys(Client& client, const Words& words);
    std::string run_lists(Client& client, const Words& words);
    std::string run_keyspace(Client& client, const Words& words);
    std::string run_script(Client& client, const Words& words);
    bool blocks(Client& client, const Words& words);
    void end_block(uint64_t id, uint64_t block);
    void unblock(Client& client, const std::string& reply);
    void serve_blocked();
    void forget_state(Client& client);
    std::string run_cluster(Client& client, const Words& words);
    std::string run_connection(Client& client, const Words& words);
    std::string client_command(Client& client, const Words& words);
    std::string tracking_on(Client& client, const Words& words);
    void slow_down(const Client& client);
    std::string hello(Client& client, const Words& words);
    std::string rename_or_copy(Client& client, const Words& words);
    std::string role() const;
    std::string info();
    void count(const std::string& name, uint64_t usec);
    std::string swap();
    std::string flush();

    Stored* find(int database, const std::string& name);
    void put(int database, const std::string& name, const Stored& stored);
    void erase(int database, const std::string& name);
    void change(int database, const std::string& name);
    void note_change(const KeyName& key);
    void note_executed(int database, const Words& words);
    void tell_all_of_everything();
    void unblock_all();
    void learn_steps();
    size_t kept_of(const ModelValkey& former, const KeyName& key);
    void replicate(Change change);
    void hear(const Change& change);
    void take_changes(uint64_t stream);
    void apply(const Change& change);
    // What has expired is not there.
    State state_of(const KeyName& key) const;
    std::optional<Stored> stored_as(const KeyName& key) const;
    bool is_expired(const Stored& stored) const {
        return stored.expires_ms != 0 && stored.expires_ms < now_ms();
    }
    uint64_t now_ms() const { return events_.now_us / 1000; }

    void track(Client& client, const Words& words);
    void invalidate(const std::string& name);
    void tell(Client& tracked, const std::string* name);
    void tell_pending();
    void flush_outputs();

    EventQueue& events_;
    Random& random_;
    Network& network_;
    const std::string& commands_;
    const std::function<void(const std::string&)> note_;
    const std::string name_;
    std::vector<Database> databases_{kDatabases};
    std::map<uint64_t, std::unique_ptr<Client>> clients_;  // by ID
    std::map<uint64_t, uint64_t> by_link_;
    std::map<std::string, std::set<uint64_t>> tracking_;
    std::vector<std::string> pending_;  // invalidations for the client whose command is executed
    bool is_flush_pending_ = false;
    Client* current_ = nullptr;
    uint64_t last_id_ = 0;
    uint64_t blocks_ = 0;
    std::map<std::string, Counted> counted_;  // calls of some commands
    bool is_silent_ = false;                  // what is executed
    std::set<KeyName> touched_;
    Executions own_executions_;
    Executions* executions_ = &own_executions_;

    Role role_ = Role::Primary;
    ModelValkey* other_ = nullptr;  // of the pair; null: there is none
    Stream stream_;                 // while it follows
    std::vector<Change> backlog_;   // since it is the primary
    std::unique_ptr<ModelSlots> slots_;
    const Nodes* nodes_ = nullptr;  // of its cluster, by their numbers
};

}  // namespace nearkey::simulation
