#include "nearkey/resp/slot.h"

#include <array>
#include <cstddef>
#include <vector>

namespace nearkey {

namespace {
// Eight bytes at a time, as Kounavis and Berry have it ("Novel Table Lookup-Based Algorithms for
// High-Performance CRC Generation", 2008): row n is for a byte with n more behind it.
using Row = std::array<uint16_t, 256>;
constexpr size_t kRows = 8;

constexpr std::array<Row, kRows> make_rows() {
    constexpr uint16_t kPolynomial = 0x1021;
    std::array<Row, kRows> rows{};
    for (size_t byte = 0; byte < rows[0].size(); ++byte) {
        auto crc = static_cast<uint16_t>(byte << 8);
        for (int bit = 0; bit < 8; ++bit)
            crc = static_cast<uint16_t>((crc << 1) ^ ((crc & 0x8000) != 0 ? kPolynomial : 0));
        rows[0][byte] = crc;
    }
    for (size_t row = 1; row < kRows; ++row) {
        for (size_t byte = 0; byte < rows[0].size(); ++byte) {
            const uint16_t crc = rows[row - 1][byte];
            rows[row][byte] = static_cast<uint16_t>((crc << 8) ^ rows[0][crc >> 8]);
        }
    }
    return rows;
}
constexpr std::array<Row, kRows> kTable = make_rows();

uint16_t crc16(std::string_view bytes) {
    const auto byte = [&](size_t at) { return static_cast<uint8_t>(bytes[at]); };
    uint16_t crc = 0;
    while (bytes.size() >= kRows) {
        uint16_t next = kTable[7][byte(0) ^ (crc >> 8)] ^ kTable[6][byte(1) ^ (crc & 0xff)];
        for (size_t at = 2; at < kRows; ++at)
            next = static_cast<uint16_t>(next ^ kTable[kRows - 1 - at][byte(at)]);
        crc = next;
        bytes.remove_prefix(kRows);
    }
    for (size_t at = 0; at < bytes.size(); ++at)
        crc = static_cast<uint16_t>((crc << 8) ^ kTable[0][byte(at) ^ (crc >> 8)]);
    return crc;
}
}  // namespace

std::string_view hash_tag_of(std::string_view key) {
    const size_t open = key.find('{');
    if (open == std::string_view::npos) return key;
    const size_t close = key.find('}', open + 1);
    if (close == std::string_view::npos || close == open + 1) return key;
    return key.substr(open + 1, close - open - 1);
}

uint16_t slot_of(std::string_view key) {
    return crc16(hash_tag_of(key)) % kSlots;
}

// The first number of each slot, as a decimal text.
std::string tag_of(uint16_t slot) {
    static const std::vector<uint32_t> numbers = [] {
        std::vector<uint32_t> first(kSlots, UINT32_MAX);
        size_t missing = kSlots;
        for (uint32_t number = 0; missing > 0; ++number) {
            uint32_t& place = first[slot_of(std::to_string(number))];
            if (place != UINT32_MAX) continue;
            place = number;
            --missing;
        }
        return first;
    }();
    return std::to_string(numbers[slot]);
}

}  // namespace nearkey
