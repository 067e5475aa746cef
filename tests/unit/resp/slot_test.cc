// Slots as the specification of Valkey Cluster has them.
#include "nearkey/resp/slot.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <utility>

namespace nearkey::slot_test {
namespace {

// Bit by bit, as CRC-16/XMODEM is defined.
uint16_t crc16_by_bits(std::string_view bytes) {
    uint16_t crc = 0;
    for (const char byte : bytes) {
        crc = static_cast<uint16_t>(crc ^ (static_cast<uint8_t>(byte) << 8));
        for (int bit = 0; bit < 8; ++bit)
            crc = static_cast<uint16_t>((crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc;
}

TEST_CASE("slot: the values that the specification and the server give") {
    // CLUSTER KEYSLOT of valkey-server 8.0.1.
    CHECK(slot_of("123456789") == 12739);  // 0x31C3
    CHECK(slot_of("foo") == 12182);
    CHECK(slot_of("bar") == 5061);
    CHECK(slot_of("") == 0);
}

TEST_CASE("slot: a hash tag decides, if there is anything in it") {
    const std::pair<std::string_view, std::string_view> tags[] = {
        {"{user1000}.following", "user1000"},
        {"foo{}{bar}", "foo{}{bar}"},
        {"foo{{bar}}zap", "{bar"},
        {"foo{bar}{zap}", "bar"},
        {"{", "{"},
        {"{}", "{}"},
        {"}{", "}{"},
        {"}a{b}", "b"},
        {"a{b", "a{b"},
    };
    for (const auto& [key, tag] : tags) {
        const std::string_view shown = key;
        CAPTURE(shown);
        CHECK(hash_tag_of(key) == tag);
    }
    CHECK(slot_of("{user1000}.following") == slot_of("{user1000}.followers"));
}

TEST_CASE("slot: eight bytes at a time give what single bits do") {
    std::mt19937 random(20261129);
    for (size_t length = 0; length < 70; ++length) {
        for (int round = 0; round < 20; ++round) {
            std::string key;
            while (key.size() < length)
                key += static_cast<char>(random());
            std::erase(key, '{');
            CHECK(slot_of(key) == crc16_by_bits(key) % kSlots);
        }
    }
}

TEST_CASE("slot: each has a tag of its own") {
    for (uint16_t slot = 0; slot < kSlots; ++slot) {
        const std::string tag = tag_of(slot);
        CHECK(slot_of(tag) == slot);
        CHECK(slot_of("nearkey:{" + tag + "}x") == slot);
    }
}

}  // namespace
}  // namespace nearkey::slot_test
