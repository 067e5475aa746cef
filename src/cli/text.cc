#include "nearkey/cli/text.h"

#include "nearkey/base/check.h"

#include <wchar.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <utility>

namespace nearkey {

namespace {

constexpr char kUnprintable = '?';
constexpr char kMore = '~';

struct Glyph {
    size_t bytes = 1;
    size_t columns = 0;  // 0: nothing that may be printed
};

// The first character of a text that is not empty, as the locale of this program has it.
Glyph first_glyph(std::string_view text) {
    const auto byte = static_cast<unsigned char>(text.front());
    if (byte < 0x80) return {1, byte >= 0x20 && byte != 0x7f ? size_t{1} : size_t{0}};
    mbstate_t state{};
    wchar_t character = 0;
    const size_t bytes = mbrtowc(&character, text.data(), text.size(), &state);
    if (bytes == 0 || bytes > text.size()) return {};  // it is no character, or not a whole one
    const int columns = wcwidth(character);
    return {bytes, columns > 0 ? static_cast<size_t>(columns) : 0};
}

std::string with_decimals(double number, int decimals) {
    char text[40];
    std::snprintf(text, sizeof text, "%.*f", decimals, number);
    return text;
}

// The number in the largest unit in which it is at least 1, and that unit.
template <size_t Size>
std::pair<double, std::string_view> in_unit(double number, double step,
                                            const std::array<std::string_view, Size>& units) {
    size_t unit = 0;
    // 999.95 would be printed as 1000.0.
    while (unit + 1 < units.size() && number >= step - 0.05) {
        number /= step;
        ++unit;
    }
    return {number, units[unit]};
}

std::string of_two(uint64_t large, const char* large_unit, uint64_t small, const char* small_unit) {
    return std::to_string(large) + large_unit + " " + std::to_string(small) + small_unit;
}

}  // namespace

std::string shown(std::string_view text) {
    std::string safe;
    while (!text.empty()) {
        const Glyph glyph = first_glyph(text);
        if (glyph.columns == 0) {
            safe += kUnprintable;
        } else {
            safe.append(text.substr(0, glyph.bytes));
        }
        text.remove_prefix(glyph.bytes);
    }
    return safe;
}

size_t columns_of(std::string_view shown_text) {
    size_t columns = 0;
    while (!shown_text.empty()) {
        const Glyph glyph = first_glyph(shown_text);
        columns += glyph.columns;
        shown_text.remove_prefix(glyph.bytes);
    }
    return columns;
}

std::string cut(std::string_view shown_text, size_t columns) {
    if (columns_of(shown_text) <= columns) return std::string(shown_text);
    if (columns == 0) return "";
    std::string_view rest = shown_text;
    size_t left = columns - 1;  // one is for kMore
    while (!rest.empty()) {
        const Glyph glyph = first_glyph(rest);
        if (glyph.columns > left) break;
        left -= glyph.columns;
        rest.remove_prefix(glyph.bytes);
    }
    return std::string(shown_text.substr(0, shown_text.size() - rest.size())) + kMore;
}

std::string count_text(double count) {
    static constexpr std::array<std::string_view, 6> kUnits = {"", "k", "M", "G", "T", "P"};
    const auto [number, unit] = in_unit(count, 1000, kUnits);
    const bool is_plain = unit.empty() && (number >= 10 || number == std::floor(number));
    return with_decimals(number, is_plain ? 0 : 1) + std::string(unit);
}

std::string rate_text(double per_second) {
    return count_text(per_second) + "/s";
}

std::string bytes_text(double bytes) {
    static constexpr std::array<std::string_view, 5> kUnits = {" B", " KiB", " MiB", " GiB",
                                                               " TiB"};
    const auto [number, unit] = in_unit(bytes, 1024, kUnits);
    return with_decimals(number, unit == kUnits[0] ? 0 : 1) + std::string(unit);
}

std::string duration_text(double seconds) {
    if (seconds <= 0) return "0 s";
    if (seconds < 0.0009995) return with_decimals(seconds * 1e6, 0) + " us";
    if (seconds < 0.99995) return with_decimals(seconds * 1e3, 1) + " ms";
    if (seconds < 59.95) return with_decimals(seconds, 1) + " s";
    const auto whole = static_cast<uint64_t>(std::min(std::round(seconds), 1e15));
    if (whole < 3600) return of_two(whole / 60, "m", whole % 60, "s");
    if (whole < 86'400) return of_two(whole / 3600, "h", whole % 3600 / 60, "m");
    return of_two(whole / 86'400, "d", whole % 86'400 / 3600, "h");
}

std::string share_text(double part, double whole) {
    return whole > 0 ? with_decimals(100 * part / whole, 1) + " %" : "-";
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
}

void Table::add(std::vector<std::string> cells) {
    NEARKEY_CHECK(cells.size() == columns_.size());
    for (std::string& cell : cells)
        cell = cut(cell, kCellMax);
    rows_.push_back(std::move(cells));
}

std::vector<std::string> Table::lines() const {
    std::vector<std::vector<std::string>> all(1);
    for (const Column& column : columns_)
        all.front().push_back(column.heading);
    all.insert(all.end(), rows_.begin(), rows_.end());
    std::vector<std::string> lines(all.size());
    for (size_t at = 0; at < columns_.size(); ++at) {
        size_t width = 0;
        for (const auto& row : all)
            width = std::max(width, columns_of(row[at]));
        for (size_t i = 0; i < all.size(); ++i) {
            const std::string blanks(width - columns_of(all[i][at]), ' ');
            if (at > 0) lines[i] += "  ";
            lines[i] +=
                columns_[at].align == Align::Right ? blanks + all[i][at] : all[i][at] + blanks;
        }
    }
    for (std::string& line : lines)
        line.erase(line.find_last_not_of(' ') + 1);
    return lines;
}

}  // namespace nearkey
