// Proofs that one node's connections have told of all changes: each round is a PING over every
// connection that is told of them. One that has not answered within a beat holds up nobody any
// longer: its source is suspended instead, in this round and in those that follow until it answers.
// Owned by NodeCoherence.
#pragma once

#include "nearkey/upstream/proof_rounds.h"
#include "nearkey/upstream/request.h"

#include <cstdint>
#include <vector>

namespace nearkey {

class Connection;
class NodeConnections;
class Sources;
struct ConnectionContext;

class SourceProofs final : public ProofRounds, private ReplyReceiver {
public:
    // All outlive it.
    SourceProofs(ConnectionContext& context, NodeConnections& connections, Sources& sources)
        : context_(context), connections_(connections), sources_(sources) {}
    void set_patience_ms(uint64_t patience_ms) { patience_ms_ = patience_ms; }
    // Called with each tick, while a round is under way.
    void end_late();
    // Its node ends: whoever waits is told as its connections close, and nobody is asked any more.
    void stop() { is_over_ = true; }
    void shrink();

private:
    struct Asked {
        Connection* connection;  // lives until it has answered or failed
        uint32_t ticket;
        bool is_late;
    };

    // ReplyReceiver
    void on_reply_bytes(uint32_t, std::string_view) override {}
    void on_reply_end(uint32_t ticket) override { note_answer(ticket); }
    bool on_reply_void(uint32_t) override { return true; }
    void on_request_failed(uint32_t ticket, std::string_view) override { note_answer(ticket); }
    // ProofRounds
    void ask() override;
    bool ask_again() override;

    void ask(Connection& connection);
    void note_answer(uint32_t ticket);

    ConnectionContext& context_;
    NodeConnections& connections_;
    Sources& sources_;
    uint64_t patience_ms_ = 0;
    std::vector<Asked> asked_;
    uint32_t last_ticket_ = 0;
    bool is_asked_again_ = false;
    bool is_over_ = false;
    uint64_t started_ms_ = 0;
};

}  // namespace nearkey
