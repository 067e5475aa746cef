#include "nearkey/upstream/address_map.h"

#include <string_view>
#include <variant>

namespace nearkey {

namespace {
struct Row {
    Endpoint announced;
    Endpoint reachable;
};

std::variant<Row, std::string> parse_row(std::string_view text) {
    const std::string_view::size_type equals = text.find('=');
    if (equals == std::string_view::npos) return "it must be ANNOUNCED=REACHABLE";
    const auto announced = parse_endpoint(text.substr(0, equals));
    const auto reachable = parse_endpoint(text.substr(equals + 1));
    for (const auto* side : {&announced, &reachable}) {
        if (const auto* const error = std::get_if<UrlError>(side)) return error->message;
    }
    Row row{std::get<Endpoint>(announced), std::get<Endpoint>(reachable)};
    if ((row.announced.port == 0) != (row.reachable.port == 0)) {
        return "both sides need a port, or neither";
    }
    return row;
}
}  // namespace

std::string AddressMap::problem_of(const std::string& row) {
    const auto result = parse_row(row);
    const auto* const problem = std::get_if<std::string>(&result);
    return problem == nullptr ? "" : *problem;
}

AddressMap::AddressMap(const std::vector<std::string>& rows) {
    for (const std::string& text : rows) {
        const auto result = parse_row(text);
        if (const auto* const row = std::get_if<Row>(&result)) {
            rows_.insert_or_assign(to_text(row->announced), row->reachable);
        }
    }
}

Endpoint AddressMap::reachable(const Endpoint& announced) const {
    if (rows_.empty() || announced.port == 0) return announced;
    if (const auto found = rows_.find(to_text(announced)); found != rows_.end()) {
        return found->second;
    }
    const auto found = rows_.find(to_text({announced.host, 0}));
    if (found == rows_.end()) return announced;
    return {found->second.host, announced.port};
}

}  // namespace nearkey
