// A segment whose bytes are changed at will, before it is opened and between any two steps of its
// reader -> reads that stay within it, whatever they find: AddressSanitizer sees the end of it and
// of the buffers. A size that is told is never above the largest value. The bytes are pairs of a
// place and what is stored there; a URL for nearkey_open is parsed from them as well.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/cache/segment.h"
#include "segment_writer.h"

extern "C" {
#include "client_url.h"
}
#include "segment_reader.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using nearkey::fuzz::Choices;

namespace {

constexpr uint64_t kBuckets = 4;
constexpr uint64_t kItemBytes = 7900;
constexpr size_t kPiecesMax = 64;

uint64_t now_ms() {
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000;
}

// A sound segment, in memory with nothing behind it. What is changed is put back.
class Segment {
public:
    Segment()
        : size_(segment_writer_size(kBuckets, kItemBytes)),
          memory_(static_cast<unsigned char*>(std::aligned_alloc(NEARKEY_SEGMENT_PAGE, size_))) {
        std::fill_n(memory_, size_, 0);
        segment_writer writer{};
        segment_writer_init(&writer, memory_, size_, kBuckets);
        segment_writer_set_source(&writer, 0, now_ms());
        segment_writer_set_staleness(&writer, UINT64_MAX);
        for (const std::string& key : keys()) {
            const std::string value(key.size() * 37, 'v');
            const segment_reply reply =
                segment_reply_of(key.data(), key.size(), value.data(), value.size());
            segment_writer_put(&writer, &reply);
        }
        buckets_at_ = writer.buckets_at;
    }

    static const std::vector<std::string>& keys() {
        // The last stand at the end: a size that is a little larger leads out of the segment.
        static const std::vector<std::string> all = {
            std::string(90, 'x'), std::string(40, 'k'), "user:0000007", "session", "", "a"};
        return all;
    }
    const unsigned char* memory() const { return memory_; }
    uint64_t size() const { return size_; }

    // A word of the header, of the first sources, of the buckets or of the items.
    void change(Choices& choices) {
        constexpr uint64_t kItemsOfNote = 7168;
        const std::pair<uint64_t, uint64_t> parts[] = {
            {0, sizeof(nearkey_segment_header)},
            {NEARKEY_SEGMENT_PAGE, 64},
            {buckets_at_, kBuckets * sizeof(nearkey_segment_bucket)},
            {buckets_at_ + kBuckets * sizeof(nearkey_segment_bucket), kItemsOfNote}};
        const auto& [at, length] = parts[choices.below(std::size(parts))];
        const size_t place = choices.below(256) * 256 + choices.below(256);
        uint64_t word = load(at + place % (length / 8) * 8);
        const size_t kind = choices.below(4);
        if (kind == 0) {
            word = UINT64_MAX;
        } else if (kind == 1) {
            word += 1 + choices.below(255);
        } else {
            const size_t shift = choices.below(8) * 8;
            word ^= static_cast<uint64_t>(choices.below(256)) << shift;
            if (kind == 3) word ^= static_cast<uint64_t>(choices.below(256)) << ((shift + 8) % 64);
        }
        store(at + place % (length / 8) * 8, word);
    }

    void restore() {
        for (; !changed_.empty(); changed_.pop_back())
            *word_at(changed_.back().first) = changed_.back().second;
    }

private:
    uint64_t* word_at(uint64_t at) { return reinterpret_cast<uint64_t*>(memory_ + at); }
    uint64_t load(uint64_t at) { return *word_at(at); }
    void store(uint64_t at, uint64_t word) {
        changed_.emplace_back(at, load(at));
        *word_at(at) = word;
    }

    uint64_t size_;
    unsigned char* memory_;
    uint64_t buckets_at_ = 0;
    std::vector<std::pair<uint64_t, uint64_t>> changed_;
};

Segment& segment() {
    static Segment one;
    return one;
}

// What is changed while it is read; null: nothing.
Choices* later = nullptr;

void read_key(const segment_view& view, const std::string& key, size_t capacity) {
    const std::unique_ptr<char[]> buffer(new char[capacity]);
    const segment_key name{key.data(), key.size(), 0};
    const segment_found found = segment_get(&view, &name, buffer.get(), capacity);
    if (found.outcome == SEGMENT_HIT) NEARKEY_CHECK(found.size <= NEARKEY_SEGMENT_VALUE_MAX);
}

void read_all(const segment_view& view, const std::vector<std::string>& keys, size_t capacity) {
    std::vector<std::unique_ptr<char[]>> buffers;
    std::vector<segment_slice> slices(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
        buffers.emplace_back(new char[capacity]);
        slices[i].key = keys[i].data();
        slices[i].key_size = keys[i].size();
        slices[i].buffer = buffers[i].get();
        slices[i].capacity = capacity;
    }
    if (segment_mget(&view, 0, slices.data(), slices.size()) != SEGMENT_HIT) return;
    for (const segment_slice& slice : slices)
        NEARKEY_CHECK(slice.found.size <= NEARKEY_SEGMENT_VALUE_MAX);
}

void parse_url(const std::string& text) {
    client_url url{};
    if (client_url_parse(text.c_str(), &url) != 0) return;
    NEARKEY_CHECK(url.path[0] == '/' &&
                  std::find(url.path, std::end(url.path), 0) != std::end(url.path));
}

// A header at the end of memory, or less than one.
void open_short(std::string_view bytes) {
    const nearkey::fuzz::ExactCopy copy(bytes);
    segment_view view{};
    NEARKEY_CHECK(segment_view_init(&view, copy.view().data(), copy.view().size()) != 0);
}

}  // namespace

extern "C" void fuzz_segment_pause(void) {
    if (later != nullptr && !later->is_used_up() && later->below(4) == 0) segment().change(*later);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes = nearkey::fuzz::as_text(data, size);
    open_short(bytes.substr(0, 1000));
    parse_url("unix:///" + std::string(bytes));
    parse_url(std::string(bytes));
    Choices choices(bytes);
    for (size_t left = choices.below(kPiecesMax); left > 0; --left)
        segment().change(choices);
    segment_view view{};
    if (segment_view_init(&view, segment().memory(), segment().size()) == 0) {
        const size_t capacity = choices.below(3) * 2000 + choices.below(256);
        later = &choices;
        for (const std::string& key : Segment::keys())
            read_key(view, key, capacity);
        read_all(view, Segment::keys(), capacity);
        read_all(view, {Segment::keys()[2], Segment::keys()[5]}, capacity);
        later = nullptr;
    }
    segment().restore();
    return 0;
}
