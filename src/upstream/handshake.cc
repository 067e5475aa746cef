#include "nearkey/upstream/handshake.h"

#include "nearkey/upstream/own_question.h"

#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

namespace {

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> codes) {
    for (const std::string_view code : codes) {
        if (text.starts_with(code)) return true;
    }
    return false;
}

std::string error_of(const Value& reply) {
    return reply.is_error() ? reply.text : "unexpected answer: " + reply.text;
}

}  // namespace

bool is_refusal_of_connection(std::string_view words) {
    return starts_with_any(words, {"ERR max number of clients", "DENIED", "NOAUTH", "WRONGPASS"});
}

std::optional<Pong> read_pong(const Value& reply) {
    if (reply.text == "PONG" && !reply.is_error()) return Pong{.serves = true};
    if (!reply.is_error()) return std::nullopt;
    const bool serves =
        !starts_with_any(reply.text, {"LOADING", "MASTERDOWN", "BUSY", "NOAUTH", "CLUSTERDOWN"});
    return Pong{.serves = serves, .refusal = reply.text};
}

Handshake::Handshake(const UpstreamUrl& url, const std::string& client_name, const Wish& wish)
    : url_(url), client_name_(client_name), wish_(wish) {
    begin(Step::Hello);
}

void Handshake::on_reply(const Value& reply) {
    switch (step_) {
        case Step::Hello:
            on_hello(reply);
            return;
        case Step::Select:
            if (reply.is_error()) {
                fail(Failure::Database, error_of(reply));
                words_ = reply.text;
                return;
            }
            begin(Step::ReadOnly);
            return;
        case Step::ReadOnly:
            if (reply.is_error()) {
                fail(Failure::Other, error_of(reply));
                return;
            }
            begin(Step::SetName);
            return;
        case Step::SetName:
            // A server that refuses names (an ACL, a proxy) can still serve.
            begin(Step::Capability);
            return;
        case Step::Capability:
            // A server that refuses it gives its replies as before.
            begin(Step::Ping);
            return;
        case Step::Ping:
            on_pong(reply);
            return;
        case Step::Words:
            // If no login is needed, a client with our credentials would get this error.
            fail(Failure::Auth, words_);
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
        if (url_.kind == UpstreamUrl::Kind::Sentinel && reply.text_of("role") != "master") {
            fail(Failure::Replica, "no primary answers at " + to_text(url_.endpoint()));
            return;
        }
        begin(wish_.database != 0 ? Step::Select : Step::ReadOnly);
        return;
    }
    if (starts_with_any(reply.text, {"WRONGPASS", "NOAUTH", "NOPERM"})) {
        words_ = reply.text;
        begin(Step::Words);
        return;
    }
    fail(Failure::Other, error_of(reply));
    if (is_refusal_of_connection(reply.text)) words_ = reply.text;
}

void Handshake::on_pong(const Value& reply) {
    std::optional<Pong> pong = read_pong(reply);
    if (pong && !pong->refusal.starts_with("NOAUTH")) {
        pong_ = std::move(*pong);
        begin(Step::Complete);
        return;
    }
    fail(pong ? Failure::Auth : Failure::Other, error_of(reply));
    if (pong) words_ = reply.text;
}

void Handshake::begin(Step step) {
    step_ = step;
    command_.clear();
    switch (step) {
        case Step::Hello: {
            std::vector<std::string_view> words{"HELLO",
                                                wish_.protocol == Protocol::Resp3 ? "3" : "2"};
            if (!url_.password.empty() || !url_.user.empty()) {
                const std::string_view user = url_.user;
                words.insert(words.end(), {"AUTH", user.empty() ? "default" : user, url_.password});
            }
            append_command(command_, words);
            return;
        }
        case Step::Select:
            append_command(command_, {"SELECT", std::to_string(wish_.database)});
            return;
        case Step::ReadOnly:
            if (!wish_.reads_replica) {
                begin(Step::SetName);
            } else {
                append_command(command_, {"READONLY"});
            }
            return;
        case Step::SetName:
            if (client_name_.empty()) {
                begin(Step::Capability);
            } else {
                append_command(command_, {"CLIENT", "SETNAME", client_name_});
            }
            return;
        case Step::Capability:
            if (!wish_.is_redirect_understood || hello_.text_of("server") != "valkey" ||
                hello_.text_of("role") != "master") {
                begin(Step::Ping);
            } else {
                append_command(command_, {"CLIENT", "CAPA", "redirect"});
            }
            return;
        case Step::Ping:
        case Step::Words:
            append_command(command_, {"PING"});
            return;
        case Step::Complete:
        case Step::Failed:
            return;
    }
}

void Handshake::fail(Failure failure, std::string error) {
    step_ = Step::Failed;
    command_.clear();
    failure_ = failure;
    error_ = std::move(error);
}

bool is_replica(const Value& hello) {
    const std::string_view role = hello.text_of("role");
    return !role.empty() && role != "master";
}

bool is_redis_7_0(const Value& hello) {
    return hello.text_of("server") == "redis" && hello.text_of("version").starts_with("7.0.");
}

}  // namespace nearkey
