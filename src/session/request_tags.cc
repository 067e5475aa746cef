#include "nearkey/session/request_tags.h"

#include "nearkey/base/check.h"
#include "nearkey/base/plain_word.h"

#include <algorithm>

namespace nearkey {

namespace {
// Tickets count over the end of their type.
bool is_before(uint32_t ticket, uint32_t other) {
    return static_cast<int32_t>(ticket - other) < 0;
}
}  // namespace

bool RequestTags::is_valid(std::string_view tag) {
    return tag.size() <= kLengthMax && is_plain_word(tag);
}

std::vector<RequestTags::Kept>::const_iterator RequestTags::after(uint32_t ticket) const {
    return std::find_if(kept_.begin(), kept_.end(),
                        [&](const Kept& kept) { return is_before(ticket, kept.from); });
}

void RequestTags::keep_from(uint32_t ticket) {
    const auto later = after(ticket);
    if (later != kept_.begin()) kept_.erase(kept_.begin(), std::prev(later));
}

void RequestTags::set(std::string_view tag, uint32_t from) {
    NEARKEY_CHECK(is_valid(tag) && !is_full());
    kept_.push_back({from, std::string(tag)});
}

std::string_view RequestTags::of(uint32_t ticket) const {
    const auto later = after(ticket);
    return later == kept_.begin() ? std::string_view() : std::string_view(std::prev(later)->tag);
}

size_t RequestTags::memory_bytes() const {
    size_t bytes = sizeof *this + kept_.capacity() * sizeof(Kept);
    for (const Kept& kept : kept_)
        bytes += kept.tag.capacity();
    return bytes;
}

}  // namespace nearkey
