// Begins a connection: resolves the name, connects the socket, holds the handshake.
// Owned by a Connection, which tells when the socket is connected, and may stop it.
//
//   begin() ─▶ name resolved ─▶ socket connected ─▶ begin_handshake() ─▶ become_ready()
//                 │                  │                  │
//                 └──────────────────┴──────────────────┴─▶ lose(), close(): refused, or too late
#pragma once

#include "nearkey/loop/resolver.h"
#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/handshake.h"
#include "nearkey/upstream/own_question.h"
#include "nearkey/upstream/pipeline.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace nearkey {

struct UpstreamCredentials {
    std::string_view user;
    std::string_view password;
};

class Dialer final : private WholeReplyReceiver {
public:
    // All outlive it. `connection` is the one that is set up.
    Dialer(ConnectionContext& context, Pipeline& pipeline, Connection& connection);

    // Dials another target from now on.
    void set_target(UpstreamTarget& target) { target_ = &target; }
    // REQUIRES: it is not dialled any more.
    void forget_target() { target_ = nullptr; }
    // Logs in as this user, not as that of the target's URL, until it is ready once.
    void use_credentials(const UpstreamCredentials& credentials);

    void begin();
    // REQUIRES: the socket is connected.
    void begin_handshake(const Handshake::Wish& wish);
    void stop();

    // `words`: the server's answer in place of a connection, or empty.
    void note_failure(const std::string& words);
    // Holds the handshake again, if it was refused for a reason that passes.
    void tick();

    // The last handshake was refused because of the credentials.
    bool is_unauthorized() const { return is_unauthorized_; }
    // The number of the last dial, in the order of all of its context.
    uint64_t number() const { return number_; }
    // The address dialled last; empty: a Unix socket.
    const std::string& address() const { return address_; }
    // The time that a request waits for this connection longer than for others.
    uint64_t patience_ms() const;
    // The server's answer in place of a connection; empty: there is none.
    std::string words() const;

private:
    void on_whole_reply(uint32_t ticket, const std::string& reply) override;
    void resolve();
    void on_timeout();
    std::string late_step() const;
    void open_socket(const std::string& address);
    void say_next();
    void on_complete();
    void on_refused();
    void give_up(const std::string& words);

    ConnectionContext& context_;
    Pipeline& pipeline_;
    Connection& connection_;
    UpstreamTarget* target_;                // null: it is not dialled any more
    std::unique_ptr<UpstreamUrl> own_url_;  // with other credentials than target_'s
    std::unique_ptr<Resolution> resolution_;
    std::string address_;
    Timer timer_;
    uint64_t begun_ms_ = 0;
    uint64_t number_ = 0;
    Handshake::Wish wish_{};
    std::optional<Handshake> handshake_;
    std::string busy_words_;  // not empty: why the handshake is held again
    bool is_unauthorized_ = false;
};

}  // namespace nearkey
