// What the pool asks Valkey itself; and what the server's commands and parameters are: asked for
// with COMMAND and CONFIG GET over the primary connection.
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/pool.h"

#include <optional>
#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kCommandsAgainMs = 1000;
constexpr std::string_view kCommand = "*1\r\n$7\r\nCOMMAND\r\n";
constexpr std::string_view kParameters = "*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$1\r\n*\r\n";
}  // namespace

void ConnectionPool::refresh_commands() {
    if (loop_.now_ms() < commands_asked_ms_ + kCommandsAgainMs) return;
    ask_for_commands();
}

void ConnectionPool::ask_for_commands() {
    if (commands_question_.is_open()) return;
    commands_asked_ms_ = loop_.now_ms();
    commands_question_.ask(*primary_, kCommand, RequestKind::Read);
}

void ConnectionPool::Question::ask(Connection& connection, std::string_view command,
                                   RequestKind kind) {
    is_open_ = true;
    asked_ = &connection;
    connection.send({command, this, 0, kind});
}

void ConnectionPool::Question::drop() {
    if (is_open_) asked_->forget(*this);
    on_request_failed(0, {});
}

void ConnectionPool::Question::on_reply_bytes(uint32_t, std::string_view bytes) {
    if (reply_.size() + bytes.size() <= reply_max_) reply_ += bytes;
}

void ConnectionPool::Question::on_reply_end(uint32_t) {
    is_open_ = false;
    (pool_.*on_reply_)(std::exchange(reply_, {}));
}

bool ConnectionPool::Question::on_reply_void(uint32_t) {
    reply_.clear();
    return true;
}

void ConnectionPool::Question::on_request_failed(uint32_t, std::string_view) {
    is_open_ = false;
    reply_.clear();
}

void ConnectionPool::refuse_commands(const std::string& reason) {
    const std::string explained = with_advice(reason);
    why_unknown_ = redacted(target_->url) + ": " + explained;
    update_health();
    if (!is_news(explained)) return;
    log_.error("command_table_refused",
               {{"upstream", redacted(target_->url)}, {"reason", explained}});
}

void ConnectionPool::on_commands(std::string_view reply) {
    const std::optional<Value> value = parse_value(reply);
    if (!value || value->is_error() || value->elements.empty()) {
        refuse_commands(value ? value->text : "unreadable reply");
        return;
    }
    CommandTable table(*value);
    if (!table.is_complete()) {
        refuse_commands("the server is too old: Valkey, or Redis 7.0, is needed");
        return;
    }
    table.keep_names(command_names_);
    *commands_ = std::move(table);
    events_.on_commands_changed();
    if (!has_commands_) {
        log_.info("command_table", {{"commands", static_cast<int64_t>(commands_->size())}});
    }
    has_commands_ = true;
    if (!parameters_question_.is_open()) {
        parameters_question_.ask(*primary_, kParameters, RequestKind::Read);
    }
    if (cache() != nullptr) ask_for_swapdb();
    update_health();
}

// Whom the server does not tell, it does not tell our clients either, unless they are other users.
void ConnectionPool::on_parameters(std::string_view reply) {
    const std::optional<Value> value = parse_value(reply);
    parameters_.clear();
    if (!value) return;
    for (size_t i = 0; i + 1 < value->elements.size(); i += 2)
        parameters_.push_back(value->elements[i].text);
}

}  // namespace nearkey
