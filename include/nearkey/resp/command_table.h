// What each command is: learned from the server's COMMAND, with one small table of our own on top,
// which says only what the server can't (command_rules.h).
// Owned by the pool, replaced as a whole when the server is asked again. Specs live as long
// as their table.
#pragma once

#include "nearkey/base/histogram.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/value.h"

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// Where a command goes.
enum class Route : uint8_t {
    Shared,       // a connection that many clients share
    Dedicated,    // a connection of its own, until the reply is there
    Unproven,     // the same, and the connection is closed after it unless the server refused it
    Transaction,  // a connection of its own, until the transaction is over
    Tunnel,       // a connection of its own, until the session's end
    Local,        // nearkey answers
    Close,        // not RESP at all: the client is closed without an answer
};

// Commands that need more than their route says.
enum class Special : uint8_t {
    None,
    // Local
    Hello,
    Select,
    Quit,
    Reset,
    ClientSetName,
    ClientGetName,
    ClientSetInfo,
    Nearkey,
    // Transaction
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Refused,      // no command: a stand-in for one that the listener's rules refuse
    RefusedExec,  // the same: DISCARD for EXEC
    // Dedicated
    Wait,
    ConfigGet,
    Script,  // the server compiles or runs a client's text, and repeats of it what it likes
    // Tunnel
    Sync,     // what follows is not RESP
    Monitor,  // is to see every command
};

// What a command may change, the least first.
enum class WriteScope : uint8_t {
    Nothing,
    Keys,        // those that its key specs name
    Told,        // nobody knows what, but Valkey tells of all of it: scripts and functions
    Everything,  // or nobody knows what
};

// How the reply of a command with several keys is made of what each key alone would give.
enum class CacheSplit : uint8_t {
    None,
    Values,  // an array with one for each key
    Count,   // how many of them there are
};

// Where keys stand among a command's arguments (COMMAND's key specifications).
struct KeySpec {
    bool is_written = false;  // the command may change them
    std::string keyword;      // empty: they begin at `begin`; else behind this word ...
    int64_t begin = 0;        // ... looked for from here; negative: backwards, from the end
    bool is_counted = false;  // the number of keys is an argument
    int64_t last = 0;         // from the first key; negative: from the end
    int64_t step = 1;
    int64_t limit = 0;        // of what is left, the part that is keys: 1 / limit
    int64_t count_index = 0;  // if counted: from the beginning
    int64_t first = 0;        // if counted: from the beginning
};

struct CommandSpec {
    std::string name;             // lower case; "client|setname" for a sub-command
    int64_t arity = 0;            // as COMMAND says: negative is "at least"
    uint16_t id = 0;              // its place in the table, sub-commands included
    uint64_t categories = 0;      // of the table's, a bit each
    bool is_servers_own = false;  // COMMAND tells of it
    bool needs_no_auth = false;   // no rule refuses it
    bool is_noscript = false;     // scripts can't run it
    bool is_taken_busy = false;   // also while a script runs past busy-reply-threshold
    bool is_readonly = false;
    bool may_repeat = false;      // run twice it does what it does once: nothing
    bool is_write = false;
    bool waits_in_pause = false;  // CLIENT PAUSE WRITE holds it back: it writes, or may replicate
    bool is_module = false;
    bool is_blocking = false;       // may wait for other clients
    bool blocks_by_option = false;  // waits only when a BLOCK option is given
    Route route = Route::Shared;
    Special special = Special::None;
    std::string_view reason;  // why it goes there, where our own table says so; static
    WriteScope writes = WriteScope::Nothing;
    std::vector<KeySpec> key_specs;
    bool names_keys = false;     // key_specs tell of every key that it reads or writes
    bool tells_of_keys = false;  // reads: its reply may show something of keys, named or not
    uint8_t first_key = 0;       // the place of its first key, if that is always the same; else 0
    CommandFamily family = CommandFamily::Other;
    const std::string* shown_name = nullptr;  // `name`, for longer than the table lives
    // Not 0: replies may be stored, under this number.
    uint8_t cache_number = 0;
    CacheSplit cache_split = CacheSplit::None;
    bool reads_fields = false;      // of a hash: they may expire while the key stays
    std::string_view cache_reason;  // why they may; static
    std::vector<CommandSpec> subcommands;

    // Whether a line of text in its reply may be a client's own, line ends and all.
    bool may_say_anything() const { return special == Special::Script || is_module; }
    bool accepts(size_t arguments) const;
    // Whether this call's reply may be stored: its first argument is its only key, or it is split.
    // REQUIRES: accepts().
    bool is_cacheable(const CommandView& command) const;
    // Whether it is stored key by key: all its arguments are keys. REQUIRES: is_cacheable().
    bool is_split(const CommandView& command) const {
        return cache_split == CacheSplit::Values ||
               (cache_split == CacheSplit::Count && command.size() > 2);
    }
    // Appends all keys that the command may read or write, and perhaps some other arguments that
    // look like keys; views into it. False: they can't be told, or there are so many arguments that
    // it would take much memory. REQUIRES: accepts().
    static constexpr size_t kKeysMax = size_t{16} << 10;
    bool find_keys(const CommandView& command, std::vector<std::string_view>& keys) const;
};

class CommandTable {
public:
    // Empty: finds nothing.
    CommandTable() = default;
    // From a reply to COMMAND; entries that can't be read are left out.
    explicit CommandTable(const Value& reply);

    // The spec of the command, of its sub-command where the first argument names one; null if the
    // server doesn't know it.
    const CommandSpec* find(const CommandView& command) const;
    // Not of a sub-command.
    const CommandSpec* find_name(std::string_view name) const;
    size_t size() const { return specs_.size(); }
    // Keeps every name in `names`, which outlives what is made of the specs. A server that tells of
    // ever new names has the rest of them shown as "other".
    void keep_names(std::set<std::string>& names);
    std::span<const CommandSpec> specs() const { return specs_; }
    // Ids are less than this.
    size_t id_count() const { return id_count_; }
    // Of an ACL category, without "@"; 0 if no command has it.
    uint64_t category_bit(std::string_view name) const;
    // Whether the server told of flags and sub-commands as Redis 7.0 and every Valkey do. Without
    // them nothing keeps a dangerous command from a shared connection.
    bool is_complete() const { return is_complete_; }

private:
    void number_specs();

    bool is_complete_ = false;
    std::vector<CommandSpec> specs_;
    size_t id_count_ = 0;
    std::vector<std::string> categories_;  // a name for each bit
    std::vector<uint16_t> slots_;          // open addressing: index into specs_ + 1, 0 is free
};

// Whether this call of a command whose spec says blocks_by_option asks to wait.
bool has_block_option(const CommandView& command);

}  // namespace nearkey
