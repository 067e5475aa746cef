// The specs of all commands: learned from the server's COMMAND, with one small table of our own on
// top, for facts that the server can't tell (command_rules.h).
// Owned by ServerCatalog, replaced as a whole when the server is asked again. Specs live as long
// as their table.
#pragma once

#include "nearkey/base/command_counts.h"
#include "nearkey/base/histogram.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/key_specs.h"
#include "nearkey/resp/spread_rules.h"
#include "nearkey/resp/value.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// The route of a command.
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
    Script,  // the server compiles or runs a client's text, and may repeat any of it
    // Tunnel
    Sync,     // no RESP follows
    Monitor,  // sees every command
};

// Says how the reply of a command with several keys is made of the replies for each key alone.
enum class CacheSplit : uint8_t {
    None,
    Values,  // an array with one for each key
    Count,   // the number of keys that exist
};

// The flags that COMMAND tells of it.
struct CommandFlags {
    bool is_servers_own = false;  // COMMAND tells of it
    bool needs_no_auth = false;   // no rule refuses it
    bool is_noscript = false;     // scripts can't run it
    bool is_taken_busy = false;   // also while a script runs past busy-reply-threshold
    bool is_readonly = false;
    bool is_write = false;
    bool is_module = false;
    bool is_blocking = false;  // may wait for other clients
};

// Says whether its replies may be stored, and how.
struct CommandCaching {
    // Not 0: replies may be stored, under this number.
    uint8_t cache_number = 0;
    CacheSplit cache_split = CacheSplit::None;
    bool names_one_key = false;     // however many arguments it has
    bool reads_fields = false;      // of a hash: they may expire while the key stays
    std::string_view cache_reason;  // why replies may be stored or not; static

    // True if a reply is stored key by key: all its arguments are keys. REQUIRES: is_cacheable().
    bool is_split(const CommandView& command) const {
        return cache_split == CacheSplit::Values ||
               (cache_split == CacheSplit::Count && command.size() > 2);
    }
};

struct CommandSpec : CommandFlags, CommandKeys, CommandCaching, CommandSpread {
    std::string name;               // lower case; "client|setname" for a sub-command
    int64_t arity = 0;              // as COMMAND says: negative is "at least"
    uint16_t id = 0;                // its place in the table, sub-commands included
    uint64_t categories = 0;        // of the table's, a bit each
    bool may_repeat = false;        // running it twice is running it once: it changes nothing
    bool waits_in_pause = false;    // CLIENT PAUSE WRITE holds it back: it writes, or may replicate
    bool blocks_by_option = false;  // waits only when a BLOCK option is given
    bool may_ask_replica = false;   // a replica that is up to date answers as its primary would
    Route route = Route::Shared;
    Special special = Special::None;
    std::string_view reason;  // why it goes there, where our own table says so; static
    CommandFamily family = CommandFamily::Other;
    CommandCount* counts = nullptr;  // of the event loop, for longer than the table lives
    std::vector<CommandSpec> subcommands;

    // (P|S)SUBSCRIBE and (P|S)UNSUBSCRIBE.
    bool is_about_subscriptions() const { return !is_module && name.ends_with("subscribe"); }
    // True if a line of text in its reply may be a client's own, line ends and all.
    bool may_say_anything() const { return special == Special::Script || is_module; }
    bool accepts(size_t arguments) const {
        const auto count = static_cast<int64_t>(arguments);
        return arity >= 0 ? count == arity : count + arity >= 0;
    }
    // True if this call's reply may be stored: its first argument is its only key, or it is split.
    // REQUIRES: accepts().
    bool is_cacheable(const CommandView& command) const {
        return cache_number != 0 && (names_one_key || is_cacheable_with(command.size()));
    }

private:
    bool is_cacheable_with(size_t words) const;
};

class CommandTable {
public:
    // Empty: finds nothing.
    CommandTable() = default;
    // Reads a reply to COMMAND; entries that can't be read are left out.
    explicit CommandTable(const Value& reply);

    // The spec of the command, of its sub-command where the first argument names one; null if the
    // server doesn't know it.
    const CommandSpec* find(const CommandView& command) const;
    // Finds a command by name, but no sub-command.
    const CommandSpec* find_name(std::string_view name) const;
    size_t size() const { return specs_.size(); }
    // Each command is counted in its row, whichever table it is found in.
    void count_in(CommandCounts& counts);
    std::span<const CommandSpec> specs() const { return specs_; }
    // Ids are less than this.
    size_t id_count() const { return id_count_; }
    // The bit of an ACL category, named without "@"; 0 if no command has it.
    uint64_t category_bit(std::string_view name) const;
    // True if the server told of flags and sub-commands as Redis 7.0 and every Valkey do. Without
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

// True if this call of a command whose spec says blocks_by_option asks to wait.
bool has_block_option(const CommandView& command);

}  // namespace nearkey
