// What a new connection says before it carries traffic, in lock-step: each step waits for the reply
// to the one before, because a failing AUTH inside a pipeline can swallow its error.
//   HELLO n [AUTH user password]  ->  [SELECT db]  ->  [CLIENT SETNAME]  ->  PING
// Pure: replies in, next command out.
#pragma once

#include "nearkey/resp/value.h"
#include "nearkey/upstream/url.h"

#include <optional>
#include <string>

namespace nearkey {

class Handshake {
public:
    enum class Failure {
        None,
        Loading,   // the server is up and says why it can't serve yet: clients may be told
        Auth,      // our own credentials were refused
        Database,  // SELECT was refused: this database will not do, others may
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
    // The server's words; empty if nothing failed.
    const std::string& error() const { return error_; }
    // The reply to HELLO.
    const Value& hello() const { return hello_; }

private:
    enum class Step { Hello, Select, SetName, Ping, Complete, Failed };

    void begin(Step step);
    void fail(Failure failure, const Value& reply);

    const UpstreamUrl& url_;
    const std::string& client_name_;
    int protocol_;
    int database_;
    Step step_ = Step::Hello;
    std::string command_;
    Failure failure_ = Failure::None;
    std::string error_;
    Value hello_;
};

}  // namespace nearkey
