#include "nearkey/upstream/own_question.h"

#include "nearkey/upstream/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {

std::string_view name_of(OwnCommand command) {
    static constexpr std::string_view kNames[] = {
        "HELLO",   "AUTH",       "CLIENT TRACKING", "CLIENT CACHING", "INFO",
        "COMMAND", "CONFIG GET", "CLUSTER SLOTS",   "TOUCH"};
    return kNames[static_cast<size_t>(command)];
}

}  // namespace

bool is_answer(OwnCommand command, std::string_view reply) {
    if (reply.empty() || reply[0] == '-' || reply[0] == '!') return true;
    const std::string_view content = reply.substr(std::min(reply.find('\n'), reply.size() - 1) + 1);
    switch (command) {
        case OwnCommand::Hello:
        case OwnCommand::Config:
            return reply[0] == '%' || reply[0] == '*';
        case OwnCommand::Auth:
            // In a transaction it is queued.
            return reply[0] == '+';
        case OwnCommand::Tracking:
        case OwnCommand::Caching:
            return reply == "+OK\r\n";
        case OwnCommand::Info:
            // Of sections; there may be none.
            return (reply[0] == '$' || reply[0] == '=') &&
                   (content == "\r\n" || content == "txt:\r\n" ||
                    content.find('#') != std::string_view::npos);
        case OwnCommand::Command:
        case OwnCommand::Slots:
            // Of lists; there may be none.
            return reply == "*0\r\n" || (reply[0] == '*' && content.starts_with('*'));
        case OwnCommand::Touch:
            return reply[0] == ':';
    }
    return false;
}

bool has_answered(Connection& connection, OwnCommand command, std::string_view reply) {
    if (is_answer(command, reply)) return true;
    connection.lose(fmt::format("another reply than that to {}", name_of(command)),
                    ConnectionLoss::Malformed);
    return false;
}

std::string_view find_in_info(std::string_view info, std::string_view name) {
    const size_t at = info.find(name);
    if (at == std::string_view::npos) return {};
    info.remove_prefix(at + name.size());
    return info.substr(0, info.find('\r'));
}

void Question::ask(Connection& connection, std::string_view bytes, RequestKind kind) {
    asked_ = &connection;
    connection.send({bytes, this, 0, kind});
}

void Question::on_whole_reply(uint32_t, const std::string& reply) {
    Connection& asked = *std::exchange(asked_, nullptr);
    if (has_answered(asked, command_, reply)) on_reply_(reply);
}

void Question::drop() {
    if (is_open()) asked_->forget(*this);
    on_request_failed(0, {});
}

}  // namespace nearkey
