// The handshake of a new connection before it carries traffic, in lock-step: each step waits for
// the reply to the one before, because a failing AUTH inside a pipeline can swallow its error.
//   HELLO n [AUTH user password] -> [SELECT db] -> [READONLY] -> [CLIENT SETNAME]
//   -> [CLIENT CAPA redirect] -> PING
// With that capability a Valkey that has become a replica refuses reads as well (-REDIRECT). A
// server that is a replica from the start is a wanted one, and is not told.
// A server that answers can be reached. Where it refuses PING (MISCONF, LOADING, BUSY, ...) the
// connection is usable all the same: each command that it carries reads the server's own words.
// Pure: replies in, next command out.
#pragma once

#include "nearkey/resp/protocol.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/url.h"

#include <optional>
#include <string>
#include <string_view>

namespace nearkey {

// A server's word on itself in its reply to PING.
struct Pong {
    bool serves = false;  // reads are run: it said PONG, or refuses no more than PING or writes
    std::string refusal = {};  // its words, if it refused; empty: PONG
};
// Nothing if this is no reply to PING at all.
std::optional<Pong> read_pong(const Value& reply);

// True if these words of the server refuse a connection or a login, and not the command.
bool is_refusal_of_connection(std::string_view words);

class Handshake {
public:
    enum class Failure {
        None,
        Auth,      // our own credentials were refused
        Database,  // SELECT was refused: this database will not do now, others may
        Replica,   // a primary was wanted
        Other,
    };

    struct Wish {
        Protocol protocol;
        int database;
        bool is_redirect_understood;  // -REDIRECT, where the server knows it
        bool reads_replica = false;   // of a cluster, which answers reads behind READONLY alone
    };
    // `url` and `client_name` outlive the handshake.
    Handshake(const UpstreamUrl& url, const std::string& client_name, const Wish& wish);

    // The command to send now; empty when the handshake is complete or failed.
    const std::string& command() const { return command_; }
    // Takes the reply to command().
    void on_reply(const Value& reply);

    bool is_complete() const { return step_ == Step::Complete; }
    Failure failure() const { return failure_; }
    // Why it failed; empty if nothing did.
    const std::string& error() const { return error_; }
    // The answer that a client's own command would have got from a server that refuses this
    // handshake. Empty: not known.
    const std::string& words() const { return words_; }
    // The reply to PING. REQUIRES: complete.
    const Pong& pong() const { return pong_; }
    // The reply to HELLO.
    const Value& hello() const { return hello_; }

private:
    // Words: the login was refused, and a PING shows how commands are answered.
    enum class Step { Hello, Select, ReadOnly, SetName, Capability, Ping, Words, Complete, Failed };

    void begin(Step step);
    void on_hello(const Value& reply);
    void on_pong(const Value& reply);
    void fail(Failure failure, std::string error);

    const UpstreamUrl& url_;
    const std::string& client_name_;
    const Wish wish_;
    Step step_ = Step::Hello;
    std::string command_;
    Failure failure_ = Failure::None;
    std::string error_;
    std::string words_;
    Pong pong_;
    Value hello_;
};

// True if the server that answered HELLO so is a replica of another.
bool is_replica(const Value& hello);
// True if the server that answered HELLO so is Redis 7.0, which words some errors differently.
bool is_redis_7_0(const Value& hello);

}  // namespace nearkey
