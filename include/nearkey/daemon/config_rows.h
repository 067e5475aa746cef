// Writes the rows of the option tables: one function for each type.
// Private to src/daemon/config.cc, config_table.cc and config_listener.cc.
#pragma once

#include "nearkey/daemon/config_option.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kTiB = 1024 * 1024 * kMiB;
constexpr std::uint64_t kHourMs = 3600 * 1000;

struct Range {
    std::uint64_t min;
    std::uint64_t max;
};

constexpr Option row(std::string_view key, OptionType type, OptionField field,
                     std::string_view help) {
    return {.key = key, .type = type, .field = field, .help = help};
}

constexpr Option number(std::string_view key, OptionField field, Range range,
                        std::string_view help) {
    Option option = row(key, OptionType::Integer, field, help);
    option.min = range.min;
    option.max = range.max;
    return option;
}

constexpr Option bytes(std::string_view key, OptionField field, Range range,
                       std::string_view help) {
    Option option = number(key, field, range, help);
    option.type = OptionType::Bytes;
    return option;
}

constexpr Option text(std::string_view key, OptionField field, TextCheck check,
                      std::string_view help) {
    return {.key = key, .type = OptionType::Text, .field = field, .check = check, .help = help};
}

constexpr Option list(std::string_view key, OptionField field, TextCheck check,
                      std::string_view help) {
    return {.key = key, .type = OptionType::List, .field = field, .check = check, .help = help};
}

constexpr Option choice(std::string_view key, OptionField field, std::string_view choices,
                        std::string_view help) {
    return {
        .key = key, .type = OptionType::Choice, .field = field, .choices = choices, .help = help};
}

// Checks that more than one table uses.
std::string check_listen(const std::string& value);
std::string check_account(const std::string& value);
std::string check_commands(const std::string& value);

constexpr Option restart(Option option) {
    option.needs_restart = true;
    return option;
}

}  // namespace nearkey
