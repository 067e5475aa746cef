// What the verbs that ask a running nearkey have in common: their options, and what they are.
// Each is a function that prints for a person (or, with `json`, for a program) and returns the exit
// code: 0 done, 1 nearkey refused, 2 nobody answers. Mistakes go to `err`, one line each.
#pragma once

#include "nearkey/cli/admin_client.h"

#include <cstdint>
#include <iosfwd>
#include <string>

namespace nearkey {

struct AskOptions {
    AdminTarget target;
    bool json = false;            // what the admin server says, on one line
    uint64_t limit = 100;         // rows at most
    std::string level;            // log-level: empty asks for the present one
    bool once = false;            // top: one page, then the end
    uint64_t interval_ms = 1000;  // top: from one page to the next
};

using AskFunction = int (*)(const AskOptions& options, std::ostream& out, std::ostream& err);

// Says why there is no answer, or what nearkey refused: the exit code.
// REQUIRES: the reply is no answer, or a refusal.
int report(const AdminReply& reply, std::ostream& err);
// The exit code after all was printed: output that can't be written is a failure.
int finish(std::ostream& out, std::ostream& err);

}  // namespace nearkey
