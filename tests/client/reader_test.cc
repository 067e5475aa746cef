// What the reader takes for a hit, on a segment that is made by hand: one cause after the other.
#include "segment_reader.h"

#include "nearkey/cache/segment.h"
#include "segment_host.h"
#include "segment_writer.h"

#include <doctest/doctest.h>

#include <sched.h>
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace nearkey::client {

namespace {

struct Found {
    segment_outcome outcome;
    std::string value;
    bool operator==(const Found&) const = default;
};

class Reader {
public:
    explicit Reader(SegmentMemory& memory) {
        REQUIRE(segment_view_init(&view, memory.bytes(), memory.size()) == 0);
    }
    Found get(const std::string& key, uint16_t database = 0) const {
        char buffer[NEARKEY_SEGMENT_VALUE_MAX];
        const segment_key name{key.data(), key.size(), database};
        const segment_found found = segment_get(&view, &name, buffer, sizeof buffer);
        return {found.outcome, found.outcome == SEGMENT_HIT ? std::string(buffer, found.size) : ""};
    }
    segment_outcome mget(const std::vector<std::string>& keys, std::vector<std::string>& values) {
        std::vector<segment_slice> slices(keys.size());
        std::vector<std::string> buffers(keys.size(), std::string(100, 0));
        for (size_t i = 0; i < keys.size(); ++i) {
            slices[i].key = keys[i].data();
            slices[i].key_size = keys[i].size();
            slices[i].buffer = buffers[i].data();
            slices[i].capacity = buffers[i].size();
        }
        const segment_outcome outcome = segment_mget(&view, 0, slices.data(), slices.size());
        values.clear();
        for (size_t i = 0; i < keys.size(); ++i)
            values.push_back(buffers[i].substr(0, slices[i].found.size));
        return outcome;
    }

    segment_view view{};
};

segment_reply reply_of(std::string_view key, std::string_view value) {
    return segment_reply_of(key.data(), key.size(), value.data(), value.size());
}

nearkey_segment_header& header_of(SegmentMemory& memory) {
    return *reinterpret_cast<nearkey_segment_header*>(memory.bytes());
}

// What the process may not do is left as it is.
void run_on(const cpu_set_t& set) {
    static_cast<void>(sched_setaffinity(0, sizeof set, &set));
}

void run_on_processor(unsigned number) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(number, &set);
    run_on(set);
}

const Found kMiss{SEGMENT_MISS, ""};
const Found kStale{SEGMENT_STALE, ""};
const Found kOff{SEGMENT_OFF, ""};

}  // namespace

TEST_CASE("segment reader: keys and values of every length are read as they were written") {
    SegmentMemory memory({.buckets = 1024, .item_bytes = 8 << 20});
    const Reader reader(memory);
    for (size_t size = 0; size <= 40; ++size) {
        const std::string key(size, static_cast<char>('a' + size % 26));
        std::string value;
        for (size_t i = 0; i < size * 7 % 61; ++i)
            value += static_cast<char>(i * 31 + size);
        memory.put(key, value);
        CHECK(reader.get(key) == Found{SEGMENT_HIT, value});
        if (size > 0) CHECK(reader.get(key.substr(1) + "\xff") == kMiss);
        CHECK(reader.get(key + std::string(1, 0)) == kMiss);
    }
    const std::string longest_key(NEARKEY_SEGMENT_KEY_MAX, 'k');
    const std::string longest_value(NEARKEY_SEGMENT_VALUE_MAX, 'v');
    memory.put(longest_key, longest_value);
    CHECK(reader.get(longest_key) == Found{SEGMENT_HIT, longest_value});
    CHECK(reader.get(longest_key + "k") == kMiss);
}

TEST_CASE("segment reader: a value that does not fit is told by its size and not copied") {
    SegmentMemory memory({});
    const Reader reader(memory);
    memory.put("k", "12345");
    char buffer[5] = "....";
    const segment_key key{"k", 1, 0};
    const segment_found found = segment_get(&reader.view, &key, buffer, 4);
    CHECK(found.outcome == SEGMENT_HIT);
    CHECK(found.size == 5);
    CHECK(std::string(buffer) == "....");
}

TEST_CASE("segment reader: a key belongs to its database") {
    SegmentMemory memory({});
    const Reader reader(memory);
    segment_reply reply = reply_of("k", "two");
    reply.database = 2;
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(reader.get("k") == kMiss);
    CHECK(reader.get("k", 2) == Found{SEGMENT_HIT, "two"});
}

TEST_CASE("segment reader: nil is a hit; of MGET only for MGET") {
    SegmentMemory memory({});
    Reader reader(memory);
    segment_reply reply = reply_of("k", "");
    reply.flags = NEARKEY_SEGMENT_NIL;
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(reader.get("k").outcome == SEGMENT_NIL);
    reply.flags = NEARKEY_SEGMENT_NIL | NEARKEY_SEGMENT_NOT_GET;
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(reader.get("k") == kMiss);
    std::vector<std::string> values;
    CHECK(reader.mget({"k"}, values) == SEGMENT_HIT);
}

TEST_CASE("segment reader: what is void is a miss") {
    SegmentMemory memory({});
    const Reader reader(memory);
    memory.put("k", "1");
    memory.put("k", "2");
    CHECK(reader.get("k") == Found{SEGMENT_HIT, "2"});
    memory.remove("k");
    CHECK(reader.get("k") == kMiss);
    memory.put("k", "3");
    segment_writer_clear(&memory.writer());
    CHECK(reader.get("k") == kMiss);
}

TEST_CASE("segment reader: an item of another epoch is a miss") {
    SegmentMemory memory({});
    const Reader reader(memory);
    memory.put("k", "1");
    segment_writer_set_on(&memory.writer(), 0);
    CHECK(reader.get("k") == kOff);
    CHECK(segment_is_suspended(&reader.view) != 0);
    CHECK(segment_is_over(&reader.view) == 0);
    segment_writer_set_on(&memory.writer(), 1);
    CHECK(reader.get("k") == kMiss);
    memory.put("k", "1");
    CHECK(reader.get("k").outcome == SEGMENT_HIT);
}

TEST_CASE("segment reader: nothing is served longer than its source is proven") {
    SegmentMemory memory({});
    Reader reader(memory);
    memory.put("k", "1");
    std::vector<std::string> values;
    const auto with_proof = [&](uint64_t proven_ms, uint64_t bound_ms) {
        segment_writer_set_staleness(&memory.writer(), bound_ms);
        segment_writer_set_source(&memory.writer(), 0, proven_ms);
        const Found found = reader.get("k");
        CHECK(reader.mget({"k"}, values) ==
              (found.outcome == SEGMENT_STALE && proven_ms == 0 ? SEGMENT_BUSY : found.outcome));
        return found;
    };
    const uint64_t now = now_ms();
    CHECK(with_proof(now, 60'000).outcome == SEGMENT_HIT);
    CHECK(with_proof(now - 1000, 1000) == kStale);
    CHECK(with_proof(now + 60'000, 1000).outcome == SEGMENT_HIT);
    CHECK(with_proof(now, 0) == kStale);
    CHECK(with_proof(0, UINT64_MAX) == kStale);  // closed
}

TEST_CASE("segment reader: an item has its own source") {
    SegmentMemory memory({});
    const Reader reader(memory);
    segment_reply reply = reply_of("k", "1");
    reply.source = NEARKEY_SEGMENT_SOURCES - 1;
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(reader.get("k") == kStale);
    segment_writer_set_source(&memory.writer(), NEARKEY_SEGMENT_SOURCES - 1, now_ms());
    CHECK(reader.get("k").outcome == SEGMENT_HIT);
}

TEST_CASE("segment reader: nothing is served from its deadline on") {
    SegmentMemory memory({});
    const Reader reader(memory);
    segment_reply reply = reply_of("k", "1");
    reply.deadline_ms = now_ms() + 600'000;
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(reader.get("k").outcome == SEGMENT_HIT);
    reply.deadline_ms = now_ms();
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(reader.get("k") == kStale);
}

TEST_CASE("segment reader: nothing is served once the daemon is gone, or has said so") {
    SegmentMemory memory({});
    Reader reader(memory);
    memory.put("k", "1");
    std::vector<std::string> values;
    for (const uint32_t owner :
         {0U, NEARKEY_SEGMENT_OWNER_DIED, NEARKEY_SEGMENT_OWNER_DIED | 7U, 0x80000000U}) {
        segment_writer_set_owner(&memory.writer(), owner);
        CHECK(reader.get("k") == kOff);
        CHECK(reader.mget({"k"}, values) == SEGMENT_OFF);
        CHECK(segment_is_over(&reader.view) != 0);
    }
    segment_writer_set_owner(&memory.writer(), 0x80000000U | 7U);  // somebody waits for it
    CHECK(reader.get("k").outcome == SEGMENT_HIT);
    segment_writer_set_over(&memory.writer());
    CHECK(reader.get("k") == kOff);
    CHECK(segment_is_over(&reader.view) != 0);
}

TEST_CASE("segment reader: a bucket that is being changed is a miss, and harmless") {
    SegmentMemory memory({.buckets = 1, .item_bytes = 4096});
    const Reader reader(memory);
    memory.put("k", "1");
    uint64_t& version = *reinterpret_cast<uint64_t*>(memory.bytes() + memory.writer().buckets_at);
    ++version;
    CHECK(reader.get("k").outcome == SEGMENT_BUSY);
    ++version;
    CHECK(reader.get("k").outcome == SEGMENT_HIT);
}

TEST_CASE("segment reader: a bucket of version 0 serves nothing, whatever is in it") {
    SegmentMemory memory({.buckets = 1, .item_bytes = 4096});
    Reader reader(memory);
    memory.put("k", "1");
    *reinterpret_cast<uint64_t*>(memory.bytes() + memory.writer().buckets_at) = 0;
    CHECK(reader.get("k") == kMiss);
    std::vector<std::string> values;
    CHECK(reader.mget({"k"}, values) == SEGMENT_MISS);
}

// On whichever processor: a counter that runs ahead on one of them would show.
TEST_CASE("segment reader: its clock is never behind, nor more than a millisecond ahead") {
    segment_clock_init();
    cpu_set_t all;
    REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
    const unsigned processors = std::max(1U, std::thread::hardware_concurrency());
    uint64_t wrong = 0;
    for (int i = 0; i < 400'000; ++i) {
        if (i % 1000 == 0) run_on_processor(static_cast<unsigned>(i / 1000) % processors);
        const uint64_t before = now_ms();
        const uint64_t now = segment_now_ms();
        const uint64_t after = now_ms();
        wrong += now < before || now > after + 1 ? 1 : 0;
        // So that some readings are far apart: beyond what the counter is taken for.
        if (i % 5000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
    run_on(all);
    CHECK(wrong == 0);
}

TEST_CASE("segment reader: MGET is a hit if all of it is") {
    SegmentMemory memory({});
    Reader reader(memory);
    std::vector<std::string> values;
    memory.put("a", "1");
    memory.put("b", "22");
    CHECK(reader.mget({"a", "b", "a"}, values) == SEGMENT_HIT);
    CHECK(values == std::vector<std::string>{"1", "22", "1"});
    CHECK(reader.mget({"a", "c"}, values) == SEGMENT_MISS);
    segment_reply reply = reply_of("c", "3");
    reply.source = 1;
    REQUIRE(segment_writer_put(&memory.writer(), &reply) == 0);
    CHECK(reader.mget({"a", "c"}, values) != SEGMENT_HIT);  // its source has proven nothing
}

TEST_CASE("segment reader: a full bucket gives up an entry, the others are found") {
    SegmentMemory memory({.buckets = 1, .item_bytes = 65536});
    const Reader reader(memory);
    int hits = 0;
    for (int i = 0; i < 20; ++i)
        memory.put("key" + std::to_string(i), std::to_string(i));
    for (int i = 0; i < 20; ++i)
        hits += reader.get("key" + std::to_string(i)) == Found{SEGMENT_HIT, std::to_string(i)};
    CHECK(hits == NEARKEY_SEGMENT_ENTRIES);
    CHECK(reader.get("key19").outcome == SEGMENT_HIT);
}

TEST_CASE("segment view: a header of another kind, version or size is refused") {
    using Change = std::function<void(nearkey_segment_header&)>;
    const std::vector<Change> changes = {
        [](auto& header) { header.magic ^= 1; },
        [](auto& header) { ++header.layout; },
        [](auto& header) { header.size += 8; },
        [](auto& header) { header.bucket_count = 0; },
        [](auto& header) { header.bucket_count = 3; },
        [](auto& header) { header.bucket_count = 1U << 31; },
        [](auto& header) { header.buckets_at += 8; },
        [](auto& header) { header.buckets_at = UINT64_MAX - 63; },
        [](auto& header) { header.buckets_at = 0; },
        [](auto& header) { header.buckets_at = header.size; },
        [](auto& header) { header.sources_at = header.size - 64; },
        [](auto& header) { header.sources_at += 4; },
        [](auto& header) { header.items_at = header.size + 8; },
        [](auto& header) { header.items_at = 8; },
        [](auto& header) { header.items_at += 1; },
    };
    segment_view view;
    for (size_t i = 0; i < changes.size(); ++i) {
        CAPTURE(i);
        SegmentMemory memory({});
        CHECK(segment_view_init(&view, memory.bytes(), memory.size()) == 0);
        changes[i](header_of(memory));
        CHECK(segment_view_init(&view, memory.bytes(), memory.size()) != 0);
    }
    SegmentMemory memory({});
    CHECK(segment_view_init(&view, memory.bytes(), memory.size() - 8) != 0);
    CHECK(segment_view_init(&view, memory.bytes(), 64) != 0);
    CHECK(segment_view_init(&view, memory.bytes(), 0) != 0);
}

TEST_CASE("segment reader: an entry that leads out of the items is a miss") {
    SegmentMemory memory({.buckets = 1, .item_bytes = 4096});
    const Reader reader(memory);
    memory.put("first", std::string(4000, 'f'));  // behind it are less than 4,096 bytes
    memory.put("k", "1");
    uint64_t* const bucket =
        reinterpret_cast<uint64_t*>(memory.bytes() + memory.writer().buckets_at);
    const uint64_t entry = bucket[2];
    const uint64_t tag = entry & ~uint64_t{0xffffffffff};
    const uint64_t item_at = entry & 0xffffffffff;
    for (const uint64_t at : {uint64_t{0}, uint64_t{8}, item_at + 1, item_at - 8, memory.size(),
                              memory.size() - 8, uint64_t{0xffffffffff}, uint64_t{0xfffffffff8}}) {
        CAPTURE(at);
        bucket[2] = tag | at;
        CHECK(reader.get("k") == kMiss);
    }
    bucket[2] = entry;
    auto& item = *reinterpret_cast<nearkey_segment_item*>(memory.bytes() + item_at);
    for (const uint32_t size : {UINT32_MAX, uint32_t{NEARKEY_SEGMENT_VALUE_MAX + 1},
                                uint32_t{NEARKEY_SEGMENT_VALUE_MAX}}) {
        item.value_size = size;
        CHECK(reader.get("k") == kMiss);
    }
}

}  // namespace nearkey::client
