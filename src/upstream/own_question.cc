#include "nearkey/upstream/own_question.h"

#include "nearkey/upstream/connection.h"

namespace nearkey {

std::string_view find_in_info(std::string_view info, std::string_view name) {
    const size_t at = info.find(name);
    if (at == std::string_view::npos) return {};
    info.remove_prefix(at + name.size());
    return info.substr(0, info.find('\r'));
}

void Question::ask(Connection& connection, std::string_view command, RequestKind kind) {
    asked_ = &connection;
    connection.send({command, this, 0, kind});
}

void Question::drop() {
    if (is_open()) asked_->forget(*this);
    on_request_failed(0, {});
}

}  // namespace nearkey
