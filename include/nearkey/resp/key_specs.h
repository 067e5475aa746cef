// Finds which arguments of a command are keys, by the server's own word (COMMAND's key
// specifications), and how much of the keyspace it may change. A part of CommandSpec.
#pragma once

#include "nearkey/resp/command_parser.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// The keys that a command may change, the least first.
enum class WriteScope : uint8_t {
    Nothing,
    Keys,        // the keys that its key specs name
    Told,        // unknown keys, but Valkey tells of all of them: scripts and functions
    Everything,  // all keys, or unknown ones
};

// The places of keys among a command's arguments.
struct KeySpec {
    bool is_written = false;  // the command may change them
    std::string keyword;      // empty: they begin at `begin`; else behind this word ...
    int64_t begin = 0;        // ... looked for from here; negative: backwards, from the end
    bool is_counted = false;  // the number of keys is an argument
    int64_t last = 0;         // from the first key; negative: from the end
    int64_t step = 1;
    int64_t limit = 0;        // keys are 1 / limit of the arguments left
    int64_t count_index = 0;  // if counted: from the beginning
    int64_t first = 0;        // if counted: from the beginning
};

// The keys of a command, and whether it reads or writes them.
struct CommandKeys {
    WriteScope writes = WriteScope::Nothing;
    std::vector<KeySpec> key_specs;
    bool names_keys = false;     // key_specs tell of every key that it reads or writes
    bool tells_of_keys = false;  // reads: its reply may show something of keys, named or not
    uint8_t first_key = 0;       // the place of its first key, if that is always the same; else 0

    // Appends all keys that the command may read or write, and perhaps some other arguments that
    // look like keys; views into it. False: they can't be told, or there are so many arguments that
    // it would take much memory. REQUIRES: accepts().
    static constexpr size_t kKeysMax = size_t{16} << 10;
    bool find_keys(const CommandView& command, std::vector<std::string_view>& keys) const;
    // Appends keys that the command names, the first of them at least; it may have others, as
    // scripts have. False: it names none. Their number is read as the server reads it where it
    // looks for the node of a command: by atoi(), so that "1.5" is 1. REQUIRES: accepts().
    bool find_first_key(const CommandView& command, std::vector<std::string_view>& keys) const;
};

}  // namespace nearkey
