// One command of a client, and its plan.
// Valid while the command is being executed.
#pragma once

#include "nearkey/dispatch/plan.h"

namespace nearkey {

// Says if a command was executed; NotYet: it must be tried again when the pause is over.
enum class Executed { Yes, NotYet };

struct Call {
    const Plan& plan;
    const CommandView& command;

    // Null: the server does not know it.
    const CommandSpec* spec() const { return plan.spec; }
    // True if the server would run it instead of answering with an error.
    bool is_sound() const { return plan.spec != nullptr && plan.is_call(); }
    Special special() const { return plan.spec == nullptr ? Special::None : plan.spec->special; }
};

}  // namespace nearkey
