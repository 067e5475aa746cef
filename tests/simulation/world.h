// One seed: two nearkeys, their clients, a model server, and everything that goes wrong between.
// Owns all of them. The one rule: every choice comes from the seed's random_, in one thread.
#pragma once

#include "client.h"
#include "model_valkey.h"
#include "nearkey/loop/loop.h"
#include "network.h"

#include <memory>
#include <string>
#include <vector>

namespace nearkey::simulation {

class World final : private Judge {
public:
    struct Options {
        const std::string& commands;  // the reply to COMMAND
        Kinds kinds;
        bool is_traced;
    };
    World(uint64_t seed, const Options& options);
    ~World();

    // Until its time is over, or something was wrong.
    void run();

    uint64_t operations() const;
    uint64_t hits() const;
    uint64_t segment_hits() const;
    // Of all that clients were answered, and when.
    uint64_t digest() const { return digest_; }
    std::vector<std::string> violations;
    // If it is traced: what was answered, and the steps of the keys that were wrong.
    std::string trace;

private:
    class Worker;
    class Instance;
    class Failovers;
    class Nodes;

    void on_violation(const std::string& what, const std::string& told) override;
    void on_answer(const std::string& line) override;
    uint64_t next_session() override { return ++sessions_; }
    void start_clients(int channel, SessionContext& context);
    void add_server(const std::string& name, const std::string& commands);
    void choose_lags();
    void choose_rates_of_cluster();
    void write_directly();
    int random_database();
    void change_directly(int database, uint64_t number);
    // Where the key is.
    void execute_directly(const KeyName& key, const Words& words);
    ModelValkey& server_to_change(const std::string& key);
    void maintain();
    void do_harm();
    void read_segments();
    void harm();
    void restart_server();
    void on_turned(int channel);
    void note(const std::string& what);

    Random random_;
    Loop loop_;
    EventQueue& events_;
    Network network_;
    // The second one is only turned to, or follows the first: then there are failovers.
    std::vector<std::unique_ptr<ModelValkey>> valkeys_;
    std::vector<std::unique_ptr<Reign>> reigns_;  // the first ones
    std::unique_ptr<Failovers> failovers_;        // null: there are none
    std::unique_ptr<Nodes> nodes_;                // null: they are no cluster
    Kinds kinds_;
    const bool is_traced_;
    const bool is_calm_;  // much is served from what is stored, little changes
    uint64_t client_pause_us_;
    uint64_t writes_one_in_;
    uint64_t ways_one_in_;
    uint64_t owed_max_;
    bool disturbs_;  // changes do not wait until the one before has been looked at
    bool likes_mget_;
    uint64_t hot_names_;
    bool are_alike_;       // clients are mostly of one kind, in one database
    uint64_t alike_kind_;  // of two bits: the database, and RESP3
    uint64_t swaps_one_in_;
    uint64_t expiring_one_in_;
    uint64_t write_pause_us_;
    uint64_t harm_pause_us_;
    uint64_t harm_us_;
    Random segment_random_;  // so that other choices are the same with and without
    const bool has_segments_;
    uint64_t tags_ = 0;              // of keys, in a cluster
    uint64_t deletes_one_in_ = 0;    // of direct changes, in one that is quiet
    uint64_t odd_reads_one_in_ = 0;  // the same, of reads: ClientPlan
    bool is_quiet_ = false;          // nobody but who changes directly is told what the server is
    bool is_settling_ = false;
    uint64_t sessions_ = 0;
    uint64_t digest_ = 14695981039346656037ULL;
    std::vector<std::unique_ptr<Instance>> instances_;
    std::vector<std::unique_ptr<SimulatedClient>> clients_;
};

}  // namespace nearkey::simulation
