// Texts for people: what may reach a terminal, readable numbers, and tables.
// The one rule: names given by others (clients, libraries, keys) pass through shown() before they
// are printed, so that no byte of theirs moves a cursor or changes a title.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// Each character that this locale prints in a place of its own, a "?" for every other byte or
// character. On one line.
std::string shown(std::string_view text);
// The number of places that a text of shown() takes.
size_t columns_of(std::string_view shown_text);
// Its first `columns` places; the last one is "~" where something is missing.
std::string cut(std::string_view shown_text, size_t columns);

// "7", "999", "1.2k", "35.1M", "2.0G"; below 10 with a decimal where there is one: "0.5".
std::string count_text(double count);
// count_text() and "/s".
std::string rate_text(double per_second);
// "512 B", "3.4 MiB".
std::string bytes_text(double bytes);
// The largest two units: "850 us", "1.2 ms", "3.4 s", "5m 12s", "3h 12m", "4d 3h".
std::string duration_text(double seconds);
// "83.2 %" of a whole; "-" of nothing.
std::string share_text(double part, double whole);

enum class Align { Left, Right };

struct Column {
    std::string heading;
    Align align = Align::Left;
};

// Rows of cells under headings, each column as wide as its widest cell, up to kCellMax.
class Table {
public:
    static constexpr size_t kCellMax = 40;

    explicit Table(std::vector<Column> columns);
    // REQUIRES: as many cells as columns, each without control characters.
    void add(std::vector<std::string> cells);
    bool is_empty() const { return rows_.empty(); }
    // Lines without blanks at their ends, the headings first.
    std::vector<std::string> lines() const;

private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace nearkey
