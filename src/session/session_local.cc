#include "nearkey/session/session.h"

#include "nearkey/base/check.h"
#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/plain_word.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/upstream/handshake.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace nearkey {

namespace {

// As the server prints and reads C strings.
std::string_view until_nul(std::string_view text) {
    return text.substr(0, text.find('\0'));
}

// Up to the first NUL; Redis 7.0 looks behind it, too.
bool is_client_name(std::string_view name, const Value& hello) {
    return is_plain_word(is_redis_7_0(hello) ? name : until_nul(name));
}

// Ids that nearkey gives are far from the server's own, so that CLIENT KILL ID meets nobody else.
constexpr int64_t kFirstId = int64_t{1} << 52;

constexpr std::string_view kNameRefused =
    "ERR Client names cannot contain spaces, newlines or special characters.";

}  // namespace

Session::Executed Session::execute_local(const CommandSpec& spec, const CommandView& command) {
    switch (spec.special) {
        case Special::Hello:
            return hello(spec, command);
        case Special::Select:
            return select(command);
        case Special::Reset:
            return reset();
        case Special::Quit:
            answer("+OK\r\n");
            stop_input();
            return Executed::Yes;
        case Special::ClientGetName: {
            std::string reply;
            if (identity_.name.empty()) {
                append_null(reply, protocol_);
            } else {
                append_bulk(reply, identity_.name);
            }
            answer(reply);
            return Executed::Yes;
        }
        case Special::ClientSetName:
            client_setname(command[2]);
            return Executed::Yes;
        case Special::ClientSetInfo:
            client_setinfo(command);
            return Executed::Yes;
        case Special::Nearkey:
            return nearkey(command);
        default:
            CHECK(false);
            return Executed::Yes;
    }
}

// HELLO [protover [AUTH username password] [SETNAME name]]; helloCommand in networking.c.
// With AUTH the server itself decides, on a connection of the session's own.
Session::Executed Session::hello(const CommandSpec& spec, const CommandView& command) {
    int protocol = protocol_;
    if (command.size() >= 2) {
        const auto version = parse_integer(command[1]);
        if (!version) {
            answer_error("ERR Protocol version is not an integer or out of range");
            return Executed::Yes;
        }
        if (*version < 2 || *version > 3) {
            answer_error("NOPROTO unsupported protocol version");
            return Executed::Yes;
        }
        protocol = static_cast<int>(*version);
    }
    std::string_view name;
    bool has_name = false;
    for (size_t i = 2; i < command.size(); ++i) {
        if (equals_ignoring_case(command[i], "AUTH") && i + 2 < command.size()) {
            return enter_tunnel(&spec, command);
        }
        if (!equals_ignoring_case(command[i], "SETNAME") || i + 1 >= command.size()) {
            answer_error(
                fmt::format("ERR Syntax error in HELLO option '{}'", until_nul(command[i])));
            return Executed::Yes;
        }
        name = command[++i];
        has_name = true;
        if (!is_client_name(name, context_.pool.hello())) {
            answer_error(kNameRefused);
            return Executed::Yes;
        }
    }
    if (protocol != protocol_) {
        if (owed() > 0) return wait_until_idle();
        leave_connection();
        leave_database_or_protocol();
        protocol_ = protocol;
    }
    if (has_name) {
        identity_.name = name;
        count_identity();
    }
    answer_hello();
    return Executed::Yes;
}

// The server's own answer, but for what belongs to this session.
void Session::answer_hello() {
    Value fields = context_.pool.hello();
    fields.type = '%';
    for (size_t i = 0; i + 1 < fields.elements.size(); i += 2) {
        Value& value = fields.elements[i + 1];
        if (fields.elements[i].text == "proto") value.integer = protocol_;
        // A RESP2 connection tells of each module in an array of names and values.
        if (fields.elements[i].text == "modules") {
            for (Value& module : value.elements)
                module.type = '%';
        }
        if (fields.elements[i].text == "id") value.integer = kFirstId + static_cast<int64_t>(id_);
    }
    std::string reply;
    append_value(reply, fields, protocol_);
    answer(reply);
}

// A database that no connection has reached yet is asked for with a PING over the shared connection
// that is to serve it: the connection's own SELECT tells whether it exists.
Session::Executed Session::select(const CommandView& command) {
    const auto database = parse_integer(command[1]);
    if (!database || *database < 0 || *database > std::numeric_limits<int>::max()) {
        return forward_unproven(command);  // the server has the words for it
    }
    if (*database == database_) {
        database_unsure_ = false;
        answer("+OK\r\n");
        return Executed::Yes;
    }
    if (owed() > 0) return wait_until_idle();
    leave_connection();
    leave_database_or_protocol();
    selecting_ = static_cast<int>(*database);
    if (context_.pool.is_known_database(selecting_)) {
        on_selected();
        answer("+OK\r\n");
        return Executed::Yes;
    }
    connection_ = context_.pool.acquire(protocol_, selecting_);
    if (connection_ == nullptr) {
        on_select_failed(SelectFailure::OnTheWay);
        answer_error(kNoConnectionLeft);
        return Executed::Yes;
    }
    pause(kUntilIdle, nullptr);
    ++commands_;
    ++commands_unseen_;
    ++context_.metrics.commands_forwarded_total;
    connection_->send({"*1\r\n$4\r\nPING\r\n", this, next_ticket_++, RequestKind::Read});
    return Executed::Yes;
}

void Session::on_selected() {
    database_ = std::exchange(selecting_, -1);
    database_unsure_ = false;
}

// If the server refused, the session stays where it is. If nobody knows, nothing may run: a
// pipelined write must not land in the old database.
void Session::on_select_failed(SelectFailure failure) {
    selecting_ = -1;
    database_unsure_ |= failure == SelectFailure::OnTheWay;
    leave_connection();
}

Session::Executed Session::reset() {
    if (owed() > 0) return wait_until_idle();
    end_lease();
    leave_connection();
    leave_database_or_protocol();
    forget_state();
    answer("+RESET\r\n");
    return Executed::Yes;
}

// clearClientConnectionState in networking.c: what the client says of its library stays.
void Session::forget_state() {
    protocol_ = 2;
    database_ = terms_.database;
    database_unsure_ = false;
    identity_.name.clear();
    count_identity();
    cache_use_ = terms_.cache_use;
    tags_.reset();
    leave_transaction();
    forget_queued();
}

void Session::client_setname(std::string_view name) {
    if (!is_client_name(name, context_.pool.hello())) {
        answer_error(kNameRefused);
        return;
    }
    identity_.name = name;
    count_identity();
    answer("+OK\r\n");
}

// clientSetinfoCommand in networking.c.
void Session::client_setinfo(const CommandView& command) {
    const bool is_name = equals_ignoring_case(command[2], "lib-name");
    if (!is_name && !equals_ignoring_case(command[2], "lib-ver")) {
        answer_error(fmt::format("ERR Unrecognized option '{}'", until_nul(command[2])));
        return;
    }
    if (!is_plain_word(until_nul(command[3]))) {
        answer_error(fmt::format("ERR {} cannot contain spaces, newlines or special characters.",
                                 command[2]));
        return;
    }
    (is_name ? identity_.library : identity_.library_version) = command[3];
    count_identity();
    answer("+OK\r\n");
}

void Session::answer_error(std::string_view text) {
    const bool waits = spec_ != nullptr && spec_->is_blocking;
    if (is_cut_by(text, waits)) {
        hold(next_ticket_++, {});
        if (owed() == 1) settle();
        return;
    }
    std::string reply;
    append_error(reply, text);
    answer(reply);
}

// Nothing that anybody has written.
void Session::answer(std::string_view reply) {
    ++commands_unseen_;
    answer_as(RequestOutcome::Local, reply);
}

// With a ticket of its own in any case: it is the command's number in the session.
void Session::answer_as(RequestOutcome outcome, std::string_view reply) {
    ++commands_;
    ++context_.metrics.commands_answered_total;
    const uint8_t series = RequestTiming::series_of(family(), outcome);
    if (is_retried_) {
        context_.pool.latency().note_end({.start_us = command_us_, .series = series}, outcome);
    } else {
        context_.pool.latency().note_answer(series);
    }
    if (output_lost_) return;
    if (owed() > 0) {
        hold(next_ticket_++, std::string(reply));
        return;
    }
    ++first_ticket_;
    ++next_ticket_;
    output_.append(reply);
    committed_ = output_.size();
    flush_hook_.defer();
}

}  // namespace nearkey
