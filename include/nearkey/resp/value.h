// A reply as a tree, for the few replies that nearkey itself must read: handshake, COMMAND, pushes.
// Bounded in depth and in elements, whatever the peer declares.
#pragma once

#include "nearkey/resp/protocol.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

struct Value {
    char type = '_';              // the RESP type byte; a null of any spelling is '_'
    std::string text;             // strings, errors, simple strings, doubles, big numbers, booleans
    int64_t integer = 0;          // of ':'
    std::vector<Value> elements;  // of aggregates; a map's keys and values alternate

    bool is_error() const { return type == '-' || type == '!'; }
    bool is_null() const { return type == '_'; }
    // The value of `key` in a map, or in an array of alternating keys and values.
    const Value* find(std::string_view key) const;
    // Its text; empty if there is none.
    std::string_view text_of(std::string_view key) const;
};

// Returns nothing if `reply` is not exactly one reply, or is deeper than 16 or larger than
// 1,000,000 values.
std::optional<Value> parse_value(std::string_view reply);

// Appends `value` in RESP2 or RESP3: maps and sets become arrays in RESP2.
void append_value(std::string& out, const Value& value, Protocol protocol);

}  // namespace nearkey
