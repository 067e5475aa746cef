// Errors by which a server says that it did not run a command, because another should, or nobody
// can now. Anybody's script can say the same: who believes one must know that no script ran.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace nearkey {

// The longest name of a host (RFC 1035); servers keep no longer ones.
inline constexpr size_t kHostMax = 255;

struct Redirect {
    enum class Kind : uint8_t {
        Moved,        // the slot belongs to another: ask that one from now on
        Ask,          // this one command goes there, behind ASKING
        Replica,      // -REDIRECT: all go there
        ReadOnly,     // a replica, which does not say whose
        TryAgain,     // a slot that is moving: some keys are here, some there
        ClusterDown,  // nobody serves the slot
    };
    Kind kind;
    int slot = -1;  // -1: it says none
    // A view into the error; empty: the address that was asked; "?": a node without a name.
    std::string_view host;
    std::string_view words;  // all of the error
    uint16_t port = 0;       // 0: none, or no sound address, so whom to ask is not known
};

// Nothing: `error`, a reply's line with or without its '-' and line end, is no such word. The first
// word decides: what follows may be malformed, and is left out then.
std::optional<Redirect> read_redirect(std::string_view error);
// For people: moved, ask, replica, readonly, try_again, down. Ends with a NUL.
std::string_view name_of(Redirect::Kind kind);
// True if an error that begins so may become a word of a node of a cluster that does not run the
// command, or not now: MOVED, ASK, TRYAGAIN, CLUSTERDOWN. `begin` has the '-'.
bool may_be_elsewhere(std::string_view begin);
// True if either is the beginning of the other.
inline bool may_become(std::string_view begin, std::string_view expected) {
    const size_t size = begin.size() < expected.size() ? begin.size() : expected.size();
    return begin.substr(0, size) == expected.substr(0, size);
}

}  // namespace nearkey
