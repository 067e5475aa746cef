// A Valkey of maps: values, times of expiry and the tracking table, as Valkey 8.0 has them
// (tracking.c, db.c). What differs from a real one on purpose: active expiry and the overflow of
// the tracking table come when the world says so.
//
//   a command ─▶ reply ─▶ invalidations that it caused for its own client      the same connection
//             └─▶ invalidations for others, at once, or over the client they redirect to
//
// A key's trackers are forgotten once they are told. Nobody is told of SWAPDB.
#pragma once

#include "event_queue.h"
#include "history.h"
#include "nearkey/resp/command_parser.h"
#include "network.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey::simulation {

using Words = std::vector<std::string>;

std::string joined(int database, const Words& words);

class ModelValkey final : public Server {
public:
    static constexpr int kDatabases = 2;

    struct Parts {
        EventQueue& events;
        Random& random;
        Network& network;
        const std::string& commands;  // the reply to COMMAND
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

    // The oldest step that a key was at after this command, executed since then, was executed.
    std::map<KeyName, size_t> steps_of(const std::string& joined, uint64_t since_us) const;
    // Of the command's last execution.
    std::map<KeyName, size_t> last_steps_of(const std::string& joined) const;

    History history;
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
        int protocol = 2;
        int database = 0;
        bool is_tracking = false;
        uint64_t redirect = 0;
        bool is_untracked = false;  // the command that follows CLIENT CACHING NO
        bool in_multi = false;
        std::vector<Words> queued;
        std::set<KeyName> watched;
        bool is_dirty = false;  // what is watched has changed
        bool is_leaving = false;
        Words blocked;       // the command that waits; empty: none does
        uint64_t block = 0;  // its number
        CommandParser parser{1 << 20};
        std::string input;
        std::string output;
    };
    struct Counted {
        uint64_t calls = 0;
        uint64_t usec = 0;
    };
    struct Executed {
        uint64_t when_us;
        std::vector<std::pair<KeyName, size_t>> steps;
    };

    void on_accepted(uint64_t link) override;
    void on_bytes(uint64_t link, std::string_view bytes) override;
    void on_closed(uint64_t link) override;

    void run_input(Client& client);
    void process(Client& client, const Words& words);
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
    void unblock(Client& client, const std::string& reply);
    void serve_blocked();
    void forget_state(Client& client);
    std::string run_connection(Client& client, const Words& words);
    std::string client_command(Client& client, const Words& words);
    std::string tracking_on(Client& client, const Words& words);
    void slow_down(const Client& client);
    std::string hello(Client& client, const Words& words);
    std::string rename_or_copy(Client& client, const Words& words);
    std::string info();
    void count(const std::string& name, uint64_t usec);
    std::string swap();
    std::string flush();

    Stored* find(int database, const std::string& name);
    void put(int database, const std::string& name, const Stored& stored);
    void erase(int database, const std::string& name);
    void change(int database, const std::string& name);
    void note_change(const KeyName& key);
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
    std::map<std::string, std::vector<Executed>> executed_;
};

}  // namespace nearkey::simulation
