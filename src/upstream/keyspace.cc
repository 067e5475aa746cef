#include "nearkey/upstream/keyspace.h"

#include <cstddef>

namespace nearkey {

namespace {

// Valkey's name for it, and Redis'.
constexpr std::string_view kNames[] = {",keys_with_volatile_items=", ",subexpiry="};

bool has_expiring_fields_in(std::string_view line) {
    for (const std::string_view name : kNames) {
        const size_t at = line.find(name);
        if (at != std::string_view::npos) return !line.substr(at + name.size()).starts_with('0');
    }
    return true;
}

}  // namespace

bool has_expiring_fields(std::string_view info) {
    const size_t section = info.find("# Keyspace");
    if (section == std::string_view::npos) return true;
    info.remove_prefix(section);
    while (!info.empty()) {
        const size_t end = info.find('\n');
        const std::string_view line = info.substr(0, end);
        if (line.starts_with("db") && has_expiring_fields_in(line)) return true;
        if (end == std::string_view::npos) return false;
        info.remove_prefix(end + 1);
    }
    return false;
}

}  // namespace nearkey
