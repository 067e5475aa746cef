// What came of reading the configuration again (SIGHUP, POST /reload, `nearkey reload`).
// A reload is applied as a whole or not at all. Where it names another upstream, that must first
// answer a PING: until then the outcome is Proving, and the former configuration is in force.
//
//   reload() ──▶ Applied | Refused                            both are final
//            ──▶ Proving ──PING answered──▶ Applied
//                        ──no answer──────▶ Refused
#pragma once

#include <string>
#include <vector>

namespace nearkey {

enum class ReloadState { None, Proving, Applied, Refused };

struct ReloadOutcome {
    ReloadState state = ReloadState::None;  // None: nobody has asked yet
    std::string reason;                     // of a refusal, or what is awaited; one line, no secret
    std::vector<std::string> changes;       // each "key: old -> new", secrets redacted
};

}  // namespace nearkey
