#include "nearkey/dispatch/scan_walk.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/elements.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/slot.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

namespace nearkey {

namespace {

constexpr unsigned kSlotBits = 14;
constexpr unsigned kPlaceBits = 27;
constexpr unsigned kTagBits = 10;
static_assert(ScanWalk::kTags == 1U << kTagBits);
constexpr unsigned kTagShift = kSlotBits + kPlaceBits;
constexpr unsigned kMovingShift = kTagShift + kTagBits;
constexpr unsigned kTargetShift = kMovingShift + 1;
// The place is too large for a tag: all other bits are the place's.
constexpr unsigned kLargeShift = 62;

constexpr uint64_t bits(uint64_t number, unsigned shift, unsigned count) {
    return number >> shift & ((uint64_t{1} << count) - 1);
}

// A short key of each slot. No client's: "nearkey" stands before the tag.
const std::string& key_of(uint16_t slot) {
    static const std::vector<std::string> keys = [] {
        std::vector<std::string> all(kSlots);
        size_t found = 0;
        for (unsigned number = 0; found < kSlots; ++number) {
            const std::string tag = std::to_string(number);
            std::string& key = all[slot_of(tag)];
            if (!key.empty()) continue;
            key = "nearkey{" + tag + "}";
            ++found;
        }
        return all;
    }();
    return keys[slot];
}

void append_probe(std::string& out, uint16_t slot) {
    append_array_header(out, 2);
    append_bulk(out, "EXISTS");
    append_bulk(out, key_of(slot));
}

void append_scan(std::string& out, uint64_t cursor, size_t words, std::string_view options) {
    append_array_header(out, words);
    append_bulk(out, "SCAN");
    append_bulk(out, std::to_string(cursor));
    out += options;
}

// As strtoull() does, by which the server reads it: blanks and a plus may stand before it.
std::optional<uint64_t> read_number(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\n\v\f\r"), text.size()));
    if (text.starts_with('+')) text.remove_prefix(1);
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const bool is_number = error == std::errc() && end == text.data() + text.size();
    return is_number ? std::optional(number) : std::nullopt;
}

constexpr std::string_view kMoving = "-TRYAGAIN the slots that are scanned are moving\r\n";
constexpr std::string_view kStrangeCursors =
    "ERR SCAN over a cluster needs a server whose cursors carry the slot, as Valkey 8 and Redis "
    "7.4 "
    "have them";

}  // namespace

ScanCursor ScanCursor::read(uint64_t number) {
    ScanCursor cursor;
    cursor.slot = static_cast<uint16_t>(bits(number, 0, kSlotBits));
    if (bits(number, kLargeShift, 1) != 0) {
        cursor.place = bits(number, kSlotBits, kLargeShift - kSlotBits);
        return cursor;
    }
    cursor.place = bits(number, kSlotBits, kPlaceBits);
    cursor.tag = static_cast<uint16_t>(bits(number, kTagShift, kTagBits));
    cursor.is_moving = bits(number, kMovingShift, 1) != 0;
    cursor.is_target = bits(number, kTargetShift, 1) != 0;
    return cursor;
}

uint64_t ScanCursor::number() const {
    const uint64_t server = place << kSlotBits | slot;
    if (place >> kPlaceBits != 0) return server | uint64_t{1} << kLargeShift;
    return server | uint64_t{tag} << kTagShift | uint64_t{is_moving} << kMovingShift |
           uint64_t{is_target} << kTargetShift;
}

bool ScanWalk::begin(const CommandView& command) {
    const auto number = read_number(command[1]);
    if (!number) return false;
    cursor_ = ScanCursor::read(*number);
    words_ = command.size();
    options_.clear();
    for (size_t i = 2; i < words_; ++i)
        append_bulk(options_, command[i]);
    phase_ = Phase::Page;
    pages_ = 0;
    kept_page_.clear();
    reply_.clear();
    return true;
}

uint32_t ScanWalk::ask(const Asked& node, std::string& out) {
    asked_ = node;
    if (phase_ == Phase::TargetPage) {
        append_scan(out, cursor_.place << kSlotBits | cursor_.slot, words_, options_);
        return 1;
    }
    if (phase_ == Phase::Confirm) {
        append_probe(out, cursor_.slot);
        return 1;
    }
    const bool is_at_owner = cursor_.tag == 0 || cursor_.tag == node.tag;
    if (!is_at_owner && cursor_.is_target) {
        phase_ = Phase::Probe;
        append_probe(out, cursor_.slot);
        return 1;
    }
    // It has come to another node since.
    if (!is_at_owner) cursor_ = {.slot = cursor_.slot};
    cursor_.is_target = false;
    phase_ = Phase::Page;
    const size_t row = size_t{node.last_slot} - cursor_.slot + 1;
    probed_ = static_cast<uint16_t>(std::min(row, window_));
    for (uint16_t i = 0; i < probed_; ++i)
        append_probe(out, static_cast<uint16_t>(cursor_.slot + i));
    append_scan(out, cursor_.place << kSlotBits | cursor_.slot, words_, options_);
    for (uint16_t i = 0; i < probed_; ++i)
        append_probe(out, static_cast<uint16_t>(cursor_.slot + i));
    return 2U * probed_ + 1;
}

ScanWalk::Step ScanWalk::take(std::span<const std::string> replies) {
    ++pages_;
    switch (phase_) {
        case Phase::Page:
            return take_page(replies);
        case Phase::Probe:
        case Phase::Confirm:
            return take_probe(replies[0]);
        case Phase::TargetPage:
            return take_target_page(replies[0]);
    }
    return Step::Later;
}

// Without the right to read the key nothing is known of its slot.
ScanWalk::State ScanWalk::state_of(const std::string& reply) {
    if (!reply.starts_with('-') || reply.starts_with("-NOPERM")) return State::Owned;
    redirect_words_ = reply;
    redirect_ = read_redirect(redirect_words_);
    if (!redirect_) return State::Refused;
    switch (redirect_->kind) {
        case Redirect::Kind::Moved:
            return State::Gone;
        case Redirect::Kind::Ask:
            return State::Moving;
        case Redirect::Kind::ClusterDown:
            return reply.find("not served") == std::string::npos ? State::Refused : State::Unserved;
        default:
            return State::Refused;
    }
}

std::optional<ScanWalk::Page> ScanWalk::read_page(const std::string& reply) {
    Elements page(reply);
    if (page.count() != 2) return std::nullopt;
    const auto number = read_number(bulk_text(page.next()));
    const std::string_view keys = page.next();
    if (!number || !Elements(keys).is_array()) return std::nullopt;
    // Where the cursor has the slot, the keys are of no other slots than those passed over.
    const uint16_t last =
        *number == 0 ? kSlots - 1 : static_cast<uint16_t>(bits(*number, 0, kSlotBits));
    Elements each(keys);
    for (std::string_view key = each.next(); !key.empty(); key = each.next()) {
        const uint16_t slot = slot_of(bulk_text(key));
        if (slot < cursor_.slot || slot > last) return std::nullopt;
    }
    return Page{*number, keys};
}

ScanWalk::Step ScanWalk::refuse(std::string_view reply) {
    const auto redirect = read_redirect(reply);
    const bool names_node = redirect && (redirect->kind == Redirect::Kind::Moved ||
                                         redirect->kind == Redirect::Kind::Ask);
    // No client reads of another server; none says that of SCAN, which names no key.
    reply_ = names_node ? kMoving : reply;
    return Step::Done;
}

ScanWalk::Step ScanWalk::take_page(std::span<const std::string> replies) {
    const std::string& said = replies[probed_];
    const auto both = [&](size_t i) {
        const State before = state_of(replies[i]);
        const State after = state_of(replies[probed_ + 1U + i]);
        return std::max(before, after);
    };
    const State first = both(0);
    if (first == State::Gone) {
        // state_of() has read the later one last, which may be good again.
        if (state_of(replies[probed_ + 1U]) != State::Gone) state_of(replies[0]);
        return Step::Moved;
    }
    if (first == State::Refused) return refuse(redirect_words_);
    if (said.starts_with('-')) return refuse(said);
    if (first == State::Unserved) {
        size_t last = 0;
        while (last + 1 < probed_ && both(last + 1) == State::Unserved)
            ++last;
        const auto next = static_cast<uint16_t>(cursor_.slot + last + 1);
        return finish({0, "*0\r\n"}, 0, {.slot = static_cast<uint16_t>(next % kSlots)});
    }
    if (first == State::Owned && cursor_.is_moving) {
        // It moves no more: some keys may have come back to places that were read before.
        return read_anew();
    }
    const auto page = read_page(said);
    if (!page) return refuse(std::string("-").append(kStrangeCursors).append("\r\n"));
    const uint16_t slot = cursor_.slot;
    const auto next_slot = static_cast<uint16_t>(bits(page->cursor, 0, kSlotBits));
    const uint64_t next_place = page->cursor >> kSlotBits;
    const bool is_moving = first == State::Moving;
    if (page->cursor != 0 && next_slot == slot && next_place != 0) {
        return finish(*page, slot, {slot, asked_.tag, is_moving, false, next_place});
    }
    if (is_moving) {
        // All that is left of it here was read; the rest is where it goes.
        if (state_of(replies[probed_ + 1U]) != State::Moving) return read_anew();
        kept_page_ = said;
        return Step::Target;
    }
    const uint16_t passed =
        page->cursor == 0 ? asked_.last_slot : std::min(next_slot, asked_.last_slot);
    window_ = std::clamp<size_t>(2U * (passed - slot + 1U), kWindowMin, kWindowMax);
    uint16_t last = slot;
    while (last + 1 < slot + probed_ && both(last + 1U - slot) == State::Owned)
        ++last;
    // Most of it is of slots that were not asked about.
    const bool is_cut = last + 1 == slot + probed_ && last < passed && probed_ < window_;
    if (is_cut && pages_ < kPagesMax && is_mostly_behind(*page, last)) return Step::Again;
    if (page->cursor != 0 && next_slot <= last) {
        const uint16_t tag = next_place == 0 ? uint16_t{0} : asked_.tag;
        return finish(*page, next_slot, {next_slot, tag, false, false, next_place});
    }
    return finish(*page, last, {.slot = static_cast<uint16_t>((last + 1) % kSlots)});
}

bool ScanWalk::is_mostly_behind(const Page& page, uint16_t last) {
    size_t count = 0;
    size_t behind = 0;
    Elements each(page.keys);
    for (std::string_view key = each.next(); !key.empty(); key = each.next()) {
        ++count;
        behind += slot_of(bulk_text(key)) > last ? 1 : 0;
    }
    return 2 * behind > count;
}

// The slot from its beginning, at its owner.
ScanWalk::Step ScanWalk::read_anew() {
    cursor_ = {.slot = cursor_.slot};
    phase_ = Phase::Page;
    kept_page_.clear();
    return Step::Again;
}

// The slot's owner tells where it is moving to.
ScanWalk::Step ScanWalk::take_probe(const std::string& reply) {
    switch (state_of(reply)) {
        case State::Gone:
            phase_ = Phase::Page;
            kept_page_.clear();
            return Step::Moved;
        case State::Moving:
            return Step::Target;
        case State::Refused:
            return refuse(redirect_words_);
        case State::Owned:
        case State::Unserved:
            break;
    }
    return read_anew();
}

ScanWalk::Step ScanWalk::note_target(uint16_t tag, bool& is_asked) {
    is_asked = false;
    if (phase_ == Phase::Confirm) return take_confirmation(tag);
    if (phase_ == Phase::Page) {
        const std::string said = std::exchange(kept_page_, {});
        const auto page = read_page(said);
        NEARKEY_CHECK(page.has_value());
        return finish(*page, cursor_.slot, {cursor_.slot, tag, false, true, 0});
    }
    if (tag != cursor_.tag) return read_anew();
    is_asked = true;
    phase_ = Phase::TargetPage;
    return Step::Again;
}

// What was read there counts if the slot was moving there all the time.
ScanWalk::Step ScanWalk::take_target_page(const std::string& reply) {
    if (reply.starts_with('-')) return refuse(reply);
    if (!read_page(reply)) return refuse(std::string("-").append(kStrangeCursors).append("\r\n"));
    kept_page_ = reply;
    phase_ = Phase::Confirm;
    return Step::Again;
}

ScanWalk::Step ScanWalk::take_confirmation(uint16_t tag) {
    phase_ = Phase::Page;
    if (tag != cursor_.tag) return read_anew();
    const std::string said = std::exchange(kept_page_, {});
    const auto page = read_page(said);
    NEARKEY_CHECK(page.has_value());
    const uint16_t slot = cursor_.slot;
    const uint64_t place = page->cursor >> kSlotBits;
    if (bits(page->cursor, 0, kSlotBits) == slot && place != 0) {
        return finish(*page, slot, {slot, tag, false, true, place});
    }
    return finish(*page, slot, {.slot = static_cast<uint16_t>((slot + 1) % kSlots)});
}

// The page's keys of slots up to `last` are the client's. A page without any is not shown, unless
// there were many.
ScanWalk::Step ScanWalk::finish(const Page& page, uint16_t last, const ScanCursor& next) {
    std::string keys;
    size_t count = 0;
    Elements each(page.keys);
    for (std::string_view key = each.next(); !key.empty(); key = each.next()) {
        if (slot_of(bulk_text(key)) > last) continue;
        keys += key;
        ++count;
    }
    const uint64_t number = next.number();
    if (count == 0 && number != 0 && pages_ < kPagesMax) {
        cursor_ = next;
        return Step::Again;
    }
    reply_.clear();
    append_array_header(reply_, 2);
    append_bulk(reply_, std::to_string(number));
    append_array_header(reply_, count);
    reply_ += keys;
    return Step::Done;
}

}  // namespace nearkey
