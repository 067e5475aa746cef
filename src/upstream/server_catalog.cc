#include "nearkey/upstream/server_catalog.h"

#include "nearkey/upstream/connection.h"

#include <optional>
#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kCommandsAgainMs = 1000;
constexpr size_t kTableReplyMax = size_t{32} << 20;
constexpr size_t kParametersReplyMax = size_t{1} << 20;
constexpr std::string_view kCommand = "*1\r\n$7\r\nCOMMAND\r\n";
constexpr std::string_view kParameters = "*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$1\r\n*\r\n";
}  // namespace

ServerCatalog::ServerCatalog(ConnectionContext& context, NodeEvents& events, bool asks,
                             OnAnswer on_answer)
    : context_(context),
      events_(events),
      asks_(asks),
      on_answer_(std::move(on_answer)),
      commands_question_(kTableReplyMax, OwnCommand::Command,
                         [this](std::string_view reply) { on_commands(reply); }),
      parameters_question_(kParametersReplyMax, OwnCommand::Config,
                           [this](std::string_view reply) { on_parameters(reply); }) {
}

void ServerCatalog::refresh(Connection& primary) {
    if (context_.loop.now_ms() < asked_ms_ + kCommandsAgainMs) return;
    ask(primary);
}

void ServerCatalog::ask(Connection& primary) {
    if (!asks_ || commands_question_.is_open()) return;
    asked_ms_ = context_.loop.now_ms();
    asked_ = &primary;
    commands_question_.ask(primary, kCommand, RequestKind::Read);
}

void ServerCatalog::drop_questions() {
    commands_question_.drop();
    parameters_question_.drop();
}

void ServerCatalog::on_commands(std::string_view reply) {
    const std::optional<Value> value = parse_value(reply);
    if (!value || value->is_error() || value->elements.empty()) {
        on_answer_(value ? value->text : "unreadable reply");
        return;
    }
    CommandTable table(*value);
    if (!table.is_complete()) {
        on_answer_("the server is too old: Valkey, or Redis 7.0, is needed");
        return;
    }
    table.count_in(context_.metrics.commands);
    const bool is_first = !knows_commands();
    commands_ = std::move(table);
    events_.on_commands_changed();
    if (is_first) {
        context_.log.info("command_table", {{"commands", static_cast<int64_t>(commands_.size())}});
    }
    if (!parameters_question_.is_open()) {
        parameters_question_.ask(*asked_, kParameters, RequestKind::Read);
    }
    on_answer_({});
}

// Parameters that the server hides from nearkey it hides from our clients as well, unless they are
// other users.
void ServerCatalog::on_parameters(std::string_view reply) {
    const std::optional<Value> value = parse_value(reply);
    parameters_.clear();
    if (!value) return;
    for (size_t i = 0; i + 1 < value->elements.size(); i += 2)
        parameters_.push_back(value->elements[i].text);
}

}  // namespace nearkey
