// Keeps the facts about the server: its commands (COMMAND), the names of its configuration
// parameters (CONFIG GET), its reply to HELLO, and which of its databases can be selected.
// Owned by Node. Its commands are kept when the server is lost: the next one answers.
#pragma once

#include "nearkey/resp/command_table.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/node_events.h"
#include "nearkey/upstream/own_question.h"

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

struct ConnectionContext;

class ServerCatalog final {
public:
    // Told the outcome of each COMMAND. Empty: the commands are known.
    using OnAnswer = std::function<void(const std::string& refusal)>;
    // `asks`: false where another node's catalog has the commands.
    ServerCatalog(ConnectionContext& context, NodeEvents& events, bool asks, OnAnswer on_answer);

    const CommandTable& commands() const { return commands_; }
    bool knows_commands() const { return !asks_ || commands_.size() > 0; }
    // The names of the server's configuration parameters; empty while it does not tell us.
    const std::vector<std::string>& parameters() const { return parameters_; }
    // The server's reply to HELLO. REQUIRES: ready once.
    const Value& hello() const { return hello_; }
    // True if it is a node of a cluster. Then nothing is stored: Valkey does not tell of a key that
    // was not there when its slot moves to another node.
    bool is_cluster() const { return is_cluster_; }
    // True if a connection to this database was ready since any was lost: SELECT needs no proof.
    bool is_known_database(int database) const { return databases_.contains(database); }

    void ask(Connection& primary);
    // Asks for the table again, at most once a second.
    void refresh(Connection& primary);
    void note_hello(const Value& hello) {
        hello_ = hello;
        is_cluster_ = hello.text_of("mode") == "cluster";
    }
    void note_database(int database) { databases_.insert(database); }
    void forget_database(int database) { databases_.erase(database); }
    void forget_databases() { databases_.clear(); }
    // Another server is to be asked.
    void drop_questions();

private:
    void on_commands(std::string_view reply);
    void on_parameters(std::string_view reply);

    ConnectionContext& context_;
    NodeEvents& events_;
    const bool asks_;
    const OnAnswer on_answer_;
    Question commands_question_;
    Question parameters_question_;
    Connection* asked_ = nullptr;  // asked for the commands last
    uint64_t asked_ms_ = 0;
    CommandTable commands_;
    std::vector<std::string> parameters_;
    Value hello_;
    bool is_cluster_ = false;
    std::set<int> databases_;
};

}  // namespace nearkey
