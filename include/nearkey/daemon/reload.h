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

// Who can be asked to reload: the daemon, by the admin pages.
class Reloader {
public:
    // Begins anew if one is being proven. What is Proving is seen to end by last_reload().
    virtual const ReloadOutcome& reload() = 0;
    virtual const ReloadOutcome& last_reload() const = 0;

protected:
    ~Reloader() = default;
};

}  // namespace nearkey
