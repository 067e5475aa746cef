// What the server's commands are: asked for with COMMAND over the primary connection.
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/pool.h"

#include <optional>
#include <utility>

namespace nearkey {

namespace {
constexpr uint64_t kCommandsAgainMs = 1000;
constexpr size_t kTableReplyMax = size_t{32} << 20;
constexpr std::string_view kCommand = "*1\r\n$7\r\nCOMMAND\r\n";
}  // namespace

void ConnectionPool::refresh_commands() {
    if (loop_.now_ms() < commands_asked_ms_ + kCommandsAgainMs) return;
    ask_for_commands();
}

void ConnectionPool::ask_for_commands() {
    if (asking_for_commands_) return;
    asking_for_commands_ = true;
    commands_asked_ms_ = loop_.now_ms();
    primary_->send({kCommand, &table_receiver_, 0, RequestKind::Read});
}

void ConnectionPool::TableReceiver::on_reply_bytes(uint32_t, std::string_view bytes) {
    if (reply_.size() + bytes.size() <= kTableReplyMax) reply_ += bytes;
}

void ConnectionPool::TableReceiver::on_reply_end(uint32_t) {
    pool_.on_commands(std::exchange(reply_, {}));
}

bool ConnectionPool::TableReceiver::on_reply_void(uint32_t) {
    reply_.clear();
    return true;
}

void ConnectionPool::TableReceiver::on_request_failed(uint32_t, std::string_view) {
    reply_.clear();
    pool_.asking_for_commands_ = false;
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
    asking_for_commands_ = false;
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
    if (!has_commands_) {
        log_.info("command_table", {{"commands", static_cast<int64_t>(commands_->size())}});
    }
    has_commands_ = true;
    update_health();
}

}  // namespace nearkey
