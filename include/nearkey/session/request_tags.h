// The words by which a client marks its commands (NEARKEY TAG), so that log lines about them can be
// found by a request id of the application.
// Owned by Desk, which makes one with the first tag. The one rule: a command has the tag that stood
// before it in the client's stream, also when its reply comes behind the next tag.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class RequestTags {
public:
    static constexpr size_t kLengthMax = 128;  // bytes of a tag; a W3C traceparent has 55
    static constexpr size_t kKeptMax = 64;     // tags of commands that are owed

    // Printable ASCII without spaces, not too long. An empty one ends the marking.
    static bool is_valid(std::string_view tag);

    // No ticket before that will be asked for.
    void keep_from(uint32_t ticket);
    bool is_full() const { return kept_.size() >= kKeptMax; }
    // Commands from ticket `from` on have it. REQUIRES: is_valid(tag), !is_full().
    void set(std::string_view tag, uint32_t from);
    // The tag of a command; empty: it has none.
    std::string_view of(uint32_t ticket) const;
    std::string_view last() const { return kept_.empty() ? std::string_view() : kept_.back().tag; }
    size_t memory_bytes() const;

private:
    struct Kept {
        uint32_t from;  // a ticket
        std::string tag;
    };

    std::vector<Kept>::const_iterator after(uint32_t ticket) const;

    std::vector<Kept> kept_;  // the oldest first
};

}  // namespace nearkey
