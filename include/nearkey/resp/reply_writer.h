// RESP replies that nearkey writes itself, each appended to `out`.
// Only for answers of our own: a reply of the server is passed on as it came.
#pragma once

#include "nearkey/resp/protocol.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

// `text` begins with the error's code: "ERR ...". Line ends inside it become blanks.
void append_error(std::string& out, std::string_view text);
void append_integer(std::string& out, int64_t value);
void append_bulk(std::string& out, std::string_view text);
void append_null(std::string& out, Protocol protocol);
void append_array_header(std::string& out, size_t elements);
// In RESP2 an array of `pairs` * 2 elements.
void append_map_header(std::string& out, size_t pairs, Protocol protocol);

}  // namespace nearkey
