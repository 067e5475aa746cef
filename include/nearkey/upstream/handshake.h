// What a new connection says before it carries traffic, in lock-step: each step waits for the reply
// to the one before, because a failing AUTH inside a pipeline can swallow its error.
//   HELLO n [AUTH user password]  ->  [SELECT db]  ->  [CLIENT SETNAME]  ->  PING
// A server that answers can be reached. Where it refuses PING (MISCONF, LOADING, BUSY, ...) the
// connection is usable all the same: each command that it carries reads the server's own words.
// Pure: replies in, next command out.
#pragma once

#include "nearkey/resp/value.h"
#include "nearkey/upstream/url.h"

#include <optional>
#include <string>
#include <string_view>

namespace nearkey {

// What a server says of itself in its reply to PING.
struct Pong {
    bool serves = false;  // reads are run: it said PONG, or refuses no more than PING or writes
    std::string refusal = {};  // its words, if it refused; empty: PONG
};
// Nothing if this is no reply to PING at all.
std::optional<Pong> read_pong(const Value& reply);

// Whether these words of the server refuse a connection or a login, and not the command.
bool is_refusal_of_connection(std::string_view words);

class Handshake {
public:
    enum class Failure {
        None,
        Auth,      // our own credentials were refused
        Database,  // SELECT was refused: this database will not do now, others may
        Other,
    };

    // `url` and `client_name` outlive the handshake.
    Handshake(const UpstreamUrl& url, const std::string& client_name, int protocol, int database);

    // The command to send now; empty when the handshake is complete or failed.
    const std::string& command() const { return command_; }
    // Takes the reply to command().
    void on_reply(const Value& reply);

    bool is_complete() const { return step_ == Step::Complete; }
    Failure failure() const { return failure_; }
    // Why it failed; empty if nothing did.
    const std::string& error() const { return error_; }
    // What a client's own command would have been answered with by a server that refuses this
    // handshake. Empty: nobody knows.
    const std::string& words() const { return words_; }
    // The reply to PING. REQUIRES: complete.
    const Pong& pong() const { return pong_; }
    // The reply to HELLO.
    const Value& hello() const { return hello_; }

private:
    // Words: the login was refused, and a PING asks what commands are answered with.
    enum class Step { Hello, Select, SetName, Ping, Words, Complete, Failed };

    void begin(Step step);
    void on_hello(const Value& reply);
    void on_pong(const Value& reply);
    void fail(Failure failure, const Value& reply);

    const UpstreamUrl& url_;
    const std::string& client_name_;
    int protocol_;
    int database_;
    Step step_ = Step::Hello;
    std::string command_;
    Failure failure_ = Failure::None;
    std::string error_;
    std::string words_;
    Pong pong_;
    Value hello_;
};

// Whether the server that answered HELLO so is Redis 7.0, which has other words for some errors.
bool is_redis_7_0(const Value& hello);

}  // namespace nearkey
