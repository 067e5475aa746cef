// The questions that a connection asks its server itself: whether it lives, what it is, what its
// answers prove, and whether its replies can be trusted.
// Owned by a Connection, whose events it tells. Each answer stands in the order of all replies, so
// it proves what came before.
#pragma once

#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/handshake.h"
#include "nearkey/upstream/own_question.h"
#include "nearkey/upstream/pipeline.h"

#include <string>

namespace nearkey {

class Probe final : private WholeReplyReceiver {
public:
    // All outlive it. The events are `connection`'s, which is lost for a wrong answer.
    Probe(ConnectionContext& context, Pipeline& pipeline, Connection& connection)
        : context_(context), pipeline_(pipeline), connection_(connection) {}

    void note_ready(const Value& hello, const Pong& pong);
    // The connection's CLIENT ID. REQUIRES: ready.
    int64_t server_id() const { return server_id_; }
    void end();

    // --- heartbeat: HELLO and PING ---
    // Sends one, unless an answer is outstanding, or the connection is not ready.
    void send_heartbeat();
    bool is_beating() const { return heartbeat_ms_ != 0; }
    // True if it has been owed the answer for too long.
    bool is_mute(uint64_t now_ms) const;
    // The last reply to a PING. REQUIRES: ready.
    const Pong& pong() const { return pong_; }
    // When the last PING was sent that was answered by a server that runs reads (Loop::boot_ms):
    // all news for this connection of changes made before has come.
    uint64_t proven_ms() const { return proven_ms_; }
    // When the PING before that one was sent.
    uint64_t proven_before_ms() const { return proven_before_ms_; }

    // --- access ---
    // Has the server know the target's user and password, behind what was sent. A refusal is
    // logged, and changes nothing. REQUIRES: ready, and no tunnel.
    void say_password(const UpstreamUrl& url);

    // --- role ---
    // The server's last word. REQUIRES: ready.
    bool is_replica() const { return is_replica_; }
    // And it was a primary when the connection became ready.
    bool is_demoted() const { return is_replica_ && !was_replica_; }
    void note_replica() { is_replica_ = true; }
    // It may be either: it is not demoted by what it is now.
    void accept_role() { was_replica_ = is_replica_; }

    // --- trust ---
    // The server was silent for long, and may be another's replica when it wakes up. Requests wait
    // from now on until Pipeline::let_go(); on_trustworthy() tells when it has said that its role
    // is unchanged. REQUIRES: ready, and no tunnel.
    void suspect();
    // It has said so, or was not asked.
    bool is_trustworthy() const { return is_trustworthy_; }
    // The bytes read may have been more replies than they seemed. Asks for a word that nobody could
    // know before: if it comes next, nothing is left over, and the connection can be trusted again;
    // else it is closed. REQUIRES: ready and idle.
    void challenge();
    // True until that answer.
    bool is_doubtful() const { return !expected_word_.empty(); }

private:
    // The reply to a heartbeat's PING follows that to its HELLO.
    enum Question : uint32_t { Role, Ping, Trust, Challenge, Access };

    void on_whole_reply(uint32_t ticket, const std::string& reply) override;
    void note_access(const Value& reply);
    void note_role(const Value& hello);
    void note_trust();
    void on_pong(const Value& reply);
    void note_ownership_hidden(const std::string& refusal);
    void on_challenge_reply(std::string_view reply);

    ConnectionContext& context_;
    Pipeline& pipeline_;
    Connection& connection_;

    uint64_t heartbeat_ms_ = 0;  // when one was sent that is not answered; 0: none is owed
    uint64_t heartbeat_boot_ms_ = 0;
    Pong pong_;
    uint64_t proven_ms_ = 0;
    uint64_t proven_before_ms_ = 0;
    int64_t server_id_ = 0;
    bool is_replica_ = false;
    bool was_replica_ = false;  // when it became ready
    bool is_trustworthy_ = false;
    std::string expected_word_;  // the reply that challenge() waits for; empty: none
};

}  // namespace nearkey
