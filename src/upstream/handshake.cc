#include "nearkey/upstream/handshake.h"

#include "nearkey/resp/reply_writer.h"

#include <initializer_list>
#include <string_view>
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

Handshake::Handshake(const UpstreamUrl& url, const std::string& client_name, int protocol,
                     int database)
    : url_(url), client_name_(client_name), protocol_(protocol), database_(database) {
    begin(Step::Hello);
}

void Handshake::on_reply(const Value& reply) {
    switch (step_) {
        case Step::Hello:
            if (reply.is_error()) {
                const bool auth = starts_with_any(reply.text, {"WRONGPASS", "NOAUTH", "NOPERM"});
                fail(auth ? Failure::Auth : Failure::Other, reply);
                return;
            }
            hello_ = reply;
            begin(database_ != 0 ? Step::Select : Step::SetName);
            return;
        case Step::Select:
            if (reply.is_error()) {
                const bool loading = reply.text.starts_with("LOADING");
                fail(loading ? Failure::Loading : Failure::Database, reply);
                return;
            }
            begin(Step::SetName);
            return;
        case Step::SetName:
            // A server that refuses names (an ACL, a proxy) can still serve.
            begin(Step::Ping);
            return;
        case Step::Ping:
            // A server that is BUSY with a script still takes SCRIPT KILL.
            if (reply.is_error() ? reply.text.starts_with("BUSY") : reply.text == "PONG") {
                begin(Step::Complete);
            } else if (starts_with_any(reply.text, {"LOADING", "MASTERDOWN"})) {
                fail(Failure::Loading, reply);
            } else {
                fail(starts_with_any(reply.text, {"NOAUTH"}) ? Failure::Auth : Failure::Other,
                     reply);
            }
            return;
        case Step::Complete:
        case Step::Failed:
            return;
    }
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

}  // namespace nearkey
