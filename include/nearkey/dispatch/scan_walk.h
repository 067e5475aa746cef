// One SCAN over all nodes of a cluster, by one cursor that nobody has to remember. It asks nobody
// itself: it says what to ask of which node, and reads the replies.
//
// The server's own cursor has the slot in its low bits: it says whose node is next, and at the end
// of a node's slots the next one is that of the slot behind them. What it can't say is whether the
// node still has the slots that it passed over: SCAN names no key, so no node sends it on. Hence
// each page stands between questions for a key of each of these slots, all in one piece:
//
//   EXISTS x{s} ... EXISTS x{e}   SCAN s   EXISTS x{s} ... EXISTS x{e}
//
//   all 0    the node has all of the slot
//   ASK      the slot is moving: once it is read here, it is read where it goes
//   MOVED    the page says nothing of the slot
//
// A place in a slot's table is good at one node alone. So the cursor names that, by a few bits: in
// a slot that has come to another the walk begins anew.
// The one rule: a slot is passed only when all of its keys were read, where they were then.
#pragma once

#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/redirect.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace nearkey {

// A cursor of the cluster's. Read from any number; a client's own comes back as it was.
//   bits 0 .. 13 slot   14 .. 40 place in its table   41 .. 50 node   51 is_moving   52 is_target
// It fits into the 53 bits that every client can count with, for slots of up to 2^27 keys.
struct ScanCursor {
    uint16_t slot = 0;
    uint16_t tag = 0;        // of the node whose place it is; 0: of the owner, from the beginning
    bool is_moving = false;  // a part of the slot was read while it was moving
    bool is_target = false;  // it is read where it is moving to: where it was, all was read
    uint64_t place = 0;

    static ScanCursor read(uint64_t number);
    uint64_t number() const;
    bool operator==(const ScanCursor&) const = default;
};

class ScanWalk {
public:
    static constexpr uint16_t kTags = 1024;
    // A node that is asked.
    struct Asked {
        uint16_t tag;        // not 0, below kTags: the same for the same node, whoever asks
        uint16_t last_slot;  // of those from slot() on that it owns, in one row
    };
    enum class Step : uint8_t {
        Done,    // reply() is the client's
        Again,   // the owner of slot() is asked
        Moved,   // the same, once redirect() is followed
        Target,  // redirect() is to be followed, and note_target() called
        Later,   // the owner of slot() is asked, some time later
    };

    // False: the server says what is wrong with the cursor. REQUIRES: a sound call of SCAN.
    bool begin(const CommandView& command);
    uint16_t slot() const { return cursor_.slot; }
    // Appends what to ask of the owner of slot(), or after note_target() of the target; returns how
    // many replies will come.
    uint32_t ask(const Asked& node, std::string& out);
    // The replies to that.
    Step take(std::span<const std::string> replies);
    const Redirect& redirect() const { return *redirect_; }
    // Who it is: Done, or Again. True: the target is asked, and not the owner.
    Step note_target(uint16_t tag, bool& is_asked);
    // The target can't be asked now.
    void drop_target() {
        if (phase_ == Phase::TargetPage) phase_ = Phase::Page;
    }
    const std::string& reply() const { return reply_; }

private:
    enum class State : uint8_t { Owned, Moving, Gone, Unserved, Refused };
    enum class Phase : uint8_t { Page, Probe, TargetPage, Confirm };
    struct Page {
        uint64_t cursor;
        std::string_view keys;  // an array
    };

    Step take_page(std::span<const std::string> replies);
    Step take_probe(const std::string& reply);
    Step take_target_page(const std::string& reply);
    Step take_confirmation(uint16_t tag);
    Step read_anew();
    State state_of(const std::string& reply);
    static bool is_mostly_behind(const Page& page, uint16_t last);
    std::optional<Page> read_page(const std::string& reply);
    Step finish(const Page& page, uint16_t last, const ScanCursor& next);
    Step refuse(std::string_view reply);

    std::string options_;  // the words behind the cursor, encoded
    size_t words_ = 0;
    ScanCursor cursor_;
    Phase phase_ = Phase::Page;
    Asked asked_{};
    uint16_t probed_ = 0;  // so many slots from cursor_.slot on
    size_t window_ = kWindowMin;
    size_t pages_ = 0;
    std::optional<Redirect> redirect_;
    std::string redirect_words_;
    std::string kept_page_;  // read, while the next cursor is not known yet
    std::string reply_;

    static constexpr size_t kWindowMin = 4;
    static constexpr size_t kWindowMax = 4096;
    static constexpr size_t kPagesMax = 64;  // of nothing, for one command
};

}  // namespace nearkey
