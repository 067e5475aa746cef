#include "nearkey/upstream/handshake.h"

#include "nearkey/resp/reply_writer.h"

#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

namespace {

std::string encode(const std::vector<std::string_view>& words) {
    std::string out;
    append_array_header(out, words.size());
    for (const std::string_view word : words)
        append_bulk(out, word);
    return out;
}

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> codes) {
    for (const std::string_view code : codes) {
        if (text.starts_with(code)) return true;
    }
    return false;
}

}  // namespace

bool is_refusal_of_connection(std::string_view words) {
    return starts_with_any(words, {"ERR max number of clients", "DENIED", "NOAUTH", "WRONGPASS"});
}

std::optional<Pong> read_pong(const Value& reply) {
    if (reply.text == "PONG" && !reply.is_error()) return Pong{.serves = true};
    if (!reply.is_error()) return std::nullopt;
    const bool serves = !starts_with_any(reply.text, {"LOADING", "MASTERDOWN", "BUSY", "NOAUTH"});
    return Pong{.serves = serves, .refusal = reply.text};
}

Handshake::Handshake(const UpstreamUrl& url, const std::string& client_name, int protocol,
                     int database)
    : url_(url), client_name_(client_name), protocol_(protocol), database_(database) {
    begin(Step::Hello);
}

void Handshake::on_reply(const Value& reply) {
    switch (step_) {
        case Step::Hello:
            on_hello(reply);
            return;
        case Step::Select:
            if (reply.is_error()) {
                fail(Failure::Database, reply);
                words_ = reply.text;
                return;
            }
            begin(Step::SetName);
            return;
        case Step::SetName:
            // A server that refuses names (an ACL, a proxy) can still serve.
            begin(Step::Ping);
            return;
        case Step::Ping:
            on_pong(reply);
            return;
        case Step::Words:
            // Where no login is needed, a client with our credentials would be told of those.
            begin(Step::Failed);
            failure_ = Failure::Auth;
            error_ = words_;
            if (reply.is_error() && reply.text.starts_with("NOAUTH")) words_ = reply.text;
            return;
        case Step::Complete:
        case Step::Failed:
            return;
    }
}

void Handshake::on_hello(const Value& reply) {
    if (!reply.is_error()) {
        hello_ = reply;
        begin(database_ != 0 ? Step::Select : Step::SetName);
        return;
    }
    if (starts_with_any(reply.text, {"WRONGPASS", "NOAUTH", "NOPERM"})) {
        words_ = reply.text;
        begin(Step::Words);
        return;
    }
    fail(Failure::Other, reply);
    if (is_refusal_of_connection(reply.text)) words_ = reply.text;
}

void Handshake::on_pong(const Value& reply) {
    std::optional<Pong> pong = read_pong(reply);
    if (pong && !pong->refusal.starts_with("NOAUTH")) {
        pong_ = std::move(*pong);
        begin(Step::Complete);
        return;
    }
    fail(pong ? Failure::Auth : Failure::Other, reply);
    if (pong) words_ = reply.text;
}

void Handshake::begin(Step step) {
    step_ = step;
    command_.clear();
    switch (step) {
        case Step::Hello: {
            std::vector<std::string_view> words{"HELLO", protocol_ == 3 ? "3" : "2"};
            if (!url_.password.empty() || !url_.user.empty()) {
                const std::string_view user = url_.user;
                words.insert(words.end(), {"AUTH", user.empty() ? "default" : user, url_.password});
            }
            command_ = encode(words);
            return;
        }
        case Step::Select:
            command_ = encode({"SELECT", std::to_string(database_)});
            return;
        case Step::SetName:
            if (client_name_.empty()) {
                begin(Step::Ping);
            } else {
                command_ = encode({"CLIENT", "SETNAME", client_name_});
            }
            return;
        case Step::Ping:
        case Step::Words:
            command_ = encode({"PING"});
            return;
        case Step::Complete:
        case Step::Failed:
            return;
    }
}

void Handshake::fail(Failure failure, const Value& reply) {
    step_ = Step::Failed;
    command_.clear();
    failure_ = failure;
    error_ = reply.is_error() ? reply.text : "unexpected answer: " + reply.text;
}

bool is_redis_7_0(const Value& hello) {
    return hello.text_of("server") == "redis" && hello.text_of("version").starts_with("7.0.");
}

}  // namespace nearkey
