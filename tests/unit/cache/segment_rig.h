// Memory for a segment, and a reader of it as in the client library.
// Made by tests, which keep it for as long as anything is shared there.
#pragma once

#include "nearkey/cache/segment.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>

extern "C" {
#include "../../../src/client/segment_reader.h"
}

#include <time.h>

namespace nearkey {

class SegmentRig {
public:
    explicit SegmentRig(size_t size) : lines_(new Line[size / sizeof(Line)]()), size_(size) {
        // There is no mutex: a thread of this number owns it.
        header().owner = 1;
    }
    std::span<char> memory() const { return {lines_[0].bytes, size_}; }
    nearkey_segment_header& header() const {
        return *reinterpret_cast<nearkey_segment_header*>(lines_[0].bytes);
    }
    static uint64_t boot_ms() {
        timespec now{};
        clock_gettime(CLOCK_BOOTTIME, &now);
        return static_cast<uint64_t>(now.tv_sec) * 1000 +
               static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
    }
    // The value as GET has it; "(nil)", "(miss)", "(stale)", "(off)" ...
    std::string get(std::string_view key, uint16_t database = 0) const {
        segment_view view{};
        if (segment_view_init(&view, lines_[0].bytes, size_) != 0) return "(no segment)";
        const segment_key asked{key.data(), key.size(), database};
        char value[NEARKEY_SEGMENT_VALUE_MAX];
        const segment_found found = segment_get(&view, &asked, value, sizeof value);
        return found.outcome == SEGMENT_HIT ? std::string(value, found.size) : name(found.outcome);
    }
    // The same of MGET with one key.
    std::string mget(std::string_view key, uint16_t database = 0) const {
        segment_view view{};
        if (segment_view_init(&view, lines_[0].bytes, size_) != 0) return "(no segment)";
        char value[NEARKEY_SEGMENT_VALUE_MAX];
        segment_slice slice{};
        slice.key = key.data();
        slice.key_size = key.size();
        slice.buffer = value;
        slice.capacity = sizeof value;
        const segment_outcome outcome = segment_mget(&view, database, &slice, 1);
        if (outcome != SEGMENT_HIT) return name(outcome);
        return slice.found.outcome == SEGMENT_HIT ? std::string(value, slice.found.size) : "(nil)";
    }

private:
    struct alignas(64) Line {
        char bytes[64];
    };
    static std::string name(segment_outcome outcome) {
        switch (outcome) {
            case SEGMENT_HIT:
                return "(hit)";
            case SEGMENT_NIL:
                return "(nil)";
            case SEGMENT_MISS:
                return "(miss)";
            case SEGMENT_BUSY:
                return "(busy)";
            case SEGMENT_STALE:
                return "(stale)";
            case SEGMENT_OFF:
                return "(off)";
        }
        return "";
    }

    std::unique_ptr<Line[]> lines_;
    size_t size_;
};

}  // namespace nearkey
