#include "nearkey/session/own_answers.h"

#include "nearkey/base/check.h"
#include "nearkey/base/ignoring_case.h"
#include "nearkey/base/plain_word.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/upstream/handshake.h"
#include "nearkey/upstream/own_question.h"

#include <fmt/format.h>

#include <limits>
#include <string>

namespace nearkey {

namespace {

// The text as a C string, which the server prints and reads.
std::string_view until_nul(std::string_view text) {
    return text.substr(0, text.find('\0'));
}

// Checks up to the first NUL; Redis 7.0 looks behind it, too.
bool is_client_name(std::string_view name, const Value& hello) {
    return is_plain_word(is_redis_7_0(hello) ? name : until_nul(name));
}

// Ids that nearkey gives are far from the server's own, so that CLIENT KILL ID meets nobody else.
constexpr int64_t kFirstId = int64_t{1} << 52;

constexpr std::string_view kNameRefused =
    "ERR Client names cannot contain spaces, newlines or special characters.";

}  // namespace

Executed OwnAnswers::execute(const Call& call) {
    const CommandSpec* const spec = call.spec();
    switch (call.special()) {
        case Special::Hello:
            return hello(call);
        case Special::Select:
            return select(call);
        case Special::Reset:
            return reset(spec);
        case Special::Quit:
            desk_.answer(spec, "+OK\r\n");
            desk_.stop_input();
            return Executed::Yes;
        case Special::ClientGetName:
            get_name(spec);
            return Executed::Yes;
        case Special::ClientSetName:
            set_name(spec, call.command[2]);
            return Executed::Yes;
        case Special::ClientSetInfo:
            set_info(call);
            return Executed::Yes;
        default:
            NEARKEY_CHECK(false);
            return Executed::Yes;
    }
}

// HELLO [protover [AUTH username password] [SETNAME name]]; helloCommand in networking.c.
// A HELLO with AUTH goes through a tunnel.
Executed OwnAnswers::hello(const Call& call) {
    const CommandView& command = call.command;
    const auto refuse = [&](std::string_view error) {
        desk_.answer_error(call.spec(), error);
        return Executed::Yes;
    };
    Protocol protocol = desk_.client.protocol;
    if (command.size() >= 2) {
        const auto version = parse_integer(command[1]);
        if (!version) return refuse("ERR Protocol version is not an integer or out of range");
        if (*version < 2 || *version > 3) return refuse("NOPROTO unsupported protocol version");
        protocol = *version == 3 ? Protocol::Resp3 : Protocol::Resp2;
    }
    std::string_view name;
    bool has_name = false;
    for (size_t i = 2; i < command.size(); ++i) {
        if (equals_ignoring_case(command[i], "AUTH") && i + 2 < command.size()) {
            i += 2;
            continue;
        }
        if (!equals_ignoring_case(command[i], "SETNAME") || i + 1 >= command.size()) {
            return refuse(
                fmt::format("ERR Syntax error in HELLO option '{}'", until_nul(command[i])));
        }
        name = command[++i];
        has_name = true;
        if (!is_client_name(name, desk_.context.node.catalog().hello()))
            return refuse(kNameRefused);
    }
    if (protocol != desk_.client.protocol) {
        if (desk_.owed() > 0) return desk_.wait_until_idle();
        shared_.leave(desk_.receiver());
        desk_.ledger.leave_database_or_protocol();
        desk_.client.protocol = protocol;
    }
    if (has_name) {
        desk_.client.identity.name = name;
        desk_.client.count_identity();
    }
    answer_hello(call.spec());
    return Executed::Yes;
}

int64_t OwnAnswers::id_of(const Desk& desk) {
    return kFirstId + static_cast<int64_t>(desk.id);
}

// The server's own answer, but for what belongs to this session.
void OwnAnswers::answer_hello(const CommandSpec* spec) {
    const Protocol protocol = desk_.client.protocol;
    Value fields = desk_.context.node.catalog().hello();
    fields.type = '%';
    for (size_t i = 0; i + 1 < fields.elements.size(); i += 2) {
        Value& value = fields.elements[i + 1];
        const std::string& field = fields.elements[i].text;
        if (field == "proto") value.integer = number_of(protocol);
        // A RESP2 connection tells of each module in an array of names and values.
        if (field == "modules") {
            for (Value& module : value.elements)
                module.type = '%';
        }
        // A client sees one server, and need not know of slots, unless it insists on them.
        if (field == "mode" && desk_.is_placed) {
            value.text = desk_.terms.face == Face::Cluster ? "cluster" : "standalone";
        }
        if (field == "id") value.integer = id_of(desk_);
    }
    std::string reply;
    append_value(reply, fields, protocol);
    desk_.answer(spec, reply);
}

// A database that no connection has reached yet is asked for with a PING over the shared connection
// that is to serve it: the connection's own SELECT tells whether it exists.
Executed OwnAnswers::select(const Call& call) {
    ClientState& client = desk_.client;
    const auto database = parse_integer(call.command[1]);
    NEARKEY_CHECK(database && *database >= 0 && *database <= std::numeric_limits<int>::max());
    if (*database == client.database) {
        client.is_database_unsure = false;
        desk_.answer(call.spec(), "+OK\r\n");
        return Executed::Yes;
    }
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    shared_.leave(desk_.receiver());
    desk_.ledger.leave_database_or_protocol();
    const int selected = static_cast<int>(*database);
    if (desk_.context.node.catalog().is_known_database(selected)) {
        client.database = selected;
        client.is_database_unsure = false;
        desk_.answer(call.spec(), "+OK\r\n");
        return Executed::Yes;
    }
    Connection* const connection = shared_.begin_selecting(selected);
    if (connection == nullptr) {
        client.is_database_unsure = true;
        desk_.answer_error(call.spec(), SharedRoute::kNoConnectionLeft);
        return Executed::Yes;
    }
    desk_.pauses.pause(PauseReason::kUntilIdle, nullptr);
    desk_.tally.count_forwarded(*call.spec()->counts);
    connection->send({kPing,
                      &desk_.receiver(),
                      desk_.replies.open(1),
                      RequestKind::Read,
                      1,
                      0,
                      {.command = call.spec()->counts}});
    return Executed::Yes;
}

// Whatever the reply to PING is, the connection that brought it is in that database.
void OwnAnswers::on_selected() {
    desk_.client.database = shared_.end_selecting();
    desk_.client.is_database_unsure = false;
    desk_.output.replace("+OK\r\n");
}

// If the server refused, the session stays where it is. If that is not known, nothing may run: a
// pipelined write must not land in the old database.
void OwnAnswers::on_select_failed(std::string_view error) {
    const bool is_refusal = !error.starts_with("UPSTREAM") && !is_refusal_of_connection(error);
    desk_.client.is_database_unsure |= !is_refusal;
    static_cast<void>(shared_.end_selecting());
    shared_.leave(desk_.receiver());
}

Executed OwnAnswers::reset(const CommandSpec* spec) {
    if (desk_.owed() > 0) return desk_.wait_until_idle();
    lease_.end();
    shared_.leave(desk_.receiver());
    desk_.ledger.leave_database_or_protocol();
    forget_state();
    desk_.answer(spec, "+RESET\r\n");
    return Executed::Yes;
}

// clearClientConnectionState in networking.c: the client's library name stays.
void OwnAnswers::forget_state() {
    ClientState& client = desk_.client;
    client.protocol = Protocol::Resp2;
    client.database = desk_.terms.database;
    client.is_database_unsure = false;
    client.identity.name.clear();
    client.count_identity();
    client.cache_use = desk_.terms.cache_use;
    desk_.tags.reset();
    transaction_.leave();
    desk_.ledger.forget_queued();
}

void OwnAnswers::get_name(const CommandSpec* spec) {
    const std::string& name = desk_.client.identity.name;
    std::string reply;
    if (name.empty()) {
        append_null(reply, desk_.client.protocol);
    } else {
        append_bulk(reply, name);
    }
    desk_.answer(spec, reply);
}

void OwnAnswers::set_name(const CommandSpec* spec, std::string_view name) {
    if (!is_client_name(name, desk_.context.node.catalog().hello())) {
        desk_.answer_error(spec, kNameRefused);
        return;
    }
    desk_.client.identity.name = name;
    desk_.client.count_identity();
    desk_.answer(spec, "+OK\r\n");
}

// clientSetinfoCommand in networking.c.
void OwnAnswers::set_info(const Call& call) {
    const CommandView& command = call.command;
    const bool is_name = equals_ignoring_case(command[2], "lib-name");
    if (!is_name && !equals_ignoring_case(command[2], "lib-ver")) {
        desk_.answer_error(call.spec(),
                           fmt::format("ERR Unrecognized option '{}'", until_nul(command[2])));
        return;
    }
    if (!is_plain_word(until_nul(command[3]))) {
        desk_.answer_error(
            call.spec(),
            fmt::format("ERR {} cannot contain spaces, newlines or special characters.",
                        command[2]));
        return;
    }
    ClientIdentity& identity = desk_.client.identity;
    (is_name ? identity.library : identity.library_version) = command[3];
    desk_.client.count_identity();
    desk_.answer(call.spec(), "+OK\r\n");
}

}  // namespace nearkey
