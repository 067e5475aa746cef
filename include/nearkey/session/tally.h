// Counts a client's commands, and errors that it reads: for itself, and by command.
// Owned by Desk. A spec is that of the command being executed, of the server's table; null: the
// server does not know it.
#pragma once

#include "nearkey/base/command_counts.h"
#include "nearkey/resp/command_table.h"

#include <cstdint>
#include <string_view>

namespace nearkey {

class Tally {
public:
    // Of the event loop; outlives it.
    explicit Tally(CommandCounts& counts) : counts_(counts) {}

    CommandCount& row(const CommandSpec* spec) const {
        return spec == nullptr ? counts_.unknown() : *spec->counts;
    }
    // It goes to Valkey.
    void count_forwarded(CommandCount& row) {
        ++commands_;
        ++row.forwarded;
    }
    // It is answered here.
    void count_answered(const CommandSpec* spec) {
        ++commands_;
        ++row(spec).answered;
    }
    // The error has not come as the whole reply to a request of the command: that is counted there.
    void count_error(const CommandSpec* spec, std::string_view error) {
        row(spec).count_error(error);
    }
    // Of the client's whole life.
    uint64_t commands() const { return commands_; }

private:
    CommandCounts& counts_;
    uint64_t commands_ = 0;
};

}  // namespace nearkey
