// What reaches a terminal: names that others chose, numbers, tables.
#include "nearkey/cli/text.h"

#include <doctest/doctest.h>

#include <clocale>
#include <string>

namespace nearkey::text_test {
namespace {

// The locale of a UTF-8 terminal, for one test.
class Utf8 {
public:
    Utf8() : before_(std::setlocale(LC_CTYPE, nullptr)) { std::setlocale(LC_CTYPE, "C.UTF-8"); }
    ~Utf8() { std::setlocale(LC_CTYPE, before_.c_str()); }
    Utf8(const Utf8&) = delete;
    Utf8& operator=(const Utf8&) = delete;

private:
    std::string before_;
};

TEST_CASE("text: nothing that a terminal would obey is shown") {
    const Utf8 locale;
    CHECK(shown("plain name-1") == "plain name-1");
    CHECK(shown("a\x1b[2J\x07\r\n\tb\x7f") == "a?[2J????b?");
    CHECK(shown("\xc2\x9b"
                "31m") == "?31m");  // CSI as one character
    CHECK(shown("a\xe2\x80\xae"
                "b") == "a?b");  // right to left from here
    CHECK(shown("a\xe2\x80\x8b"
                "b") == "a?b");        // of no width
    CHECK(shown("\xff\xfe") == "??");  // no UTF-8
    CHECK(shown("\xe2\x82") == "??");  // half a character
    CHECK(shown(std::string_view("a\0b", 3)) == "a?b");
    CHECK(shown("gr\xc3\xb6\xc3\x9f"
                "er") ==
          "gr\xc3\xb6\xc3\x9f"
          "er");
}

TEST_CASE("text: where the locale has no such characters there is a ? for each byte") {
    CHECK(std::string(std::setlocale(LC_CTYPE, nullptr)) == "C");
    CHECK(shown("\xc3\xb6") == "??");
}

TEST_CASE("text: places are counted as the terminal does, and a cut leaves whole characters") {
    const Utf8 locale;
    const std::string wide = "\xe6\x97\xa5\xe6\x9c\xac";  // two characters of two places each
    CHECK(columns_of(wide) == 4);
    CHECK(columns_of("abc") == 3);
    CHECK(cut("abc", 3) == "abc");
    CHECK(cut("abcd", 3) == "ab~");
    CHECK(cut("abcd", 1) == "~");
    CHECK(cut("abcd", 0) == "");
    CHECK(cut(wide, 4) == wide);
    CHECK(cut(wide, 3) == "\xe6\x97\xa5~");
    CHECK(cut(wide, 2) == "~");
}

TEST_CASE("text: counts and rates") {
    CHECK(count_text(0) == "0");
    CHECK(count_text(7) == "7");
    CHECK(count_text(0.5) == "0.5");
    CHECK(count_text(12.5) == "12");
    CHECK(count_text(999) == "999");
    CHECK(count_text(1000) == "1.0k");
    CHECK(count_text(1234) == "1.2k");
    CHECK(count_text(999'960) == "1.0M");
    CHECK(count_text(35'100'000) == "35.1M");
    CHECK(count_text(2e9) == "2.0G");
    CHECK(rate_text(1234) == "1.2k/s");
}

TEST_CASE("text: bytes, durations and shares") {
    CHECK(bytes_text(0) == "0 B");
    CHECK(bytes_text(512) == "512 B");
    CHECK(bytes_text(1024) == "1.0 KiB");
    CHECK(bytes_text(3.4 * 1024 * 1024) == "3.4 MiB");
    CHECK(bytes_text(64e15) == "58207.7 TiB");
    CHECK(duration_text(0) == "0 s");
    CHECK(duration_text(0.00085) == "850 us");
    CHECK(duration_text(0.0012) == "1.2 ms");
    CHECK(duration_text(0.9999) == "999.9 ms");
    CHECK(duration_text(3.4) == "3.4 s");
    CHECK(duration_text(59.96) == "1m 0s");
    CHECK(duration_text(312) == "5m 12s");
    CHECK(duration_text(3 * 3600 + 12 * 60) == "3h 12m");
    CHECK(duration_text(4 * 86'400 + 3 * 3600) == "4d 3h");
    CHECK(duration_text(-1) == "0 s");
    CHECK(share_text(832, 1000) == "83.2 %");
    CHECK(share_text(0, 0) == "-");
}

TEST_CASE("text: a table's columns are as wide as their widest cell, and long cells are cut") {
    Table table({{"NAME"}, {"N", Align::Right}, {"NOTE"}});
    CHECK(table.is_empty());
    table.add({"a", "1", ""});
    table.add({"long-name", "12345", "x"});
    const std::vector<std::string> expected = {"NAME           N  NOTE", "a              1",
                                               "long-name  12345  x"};
    CHECK(table.lines() == expected);
    table.add({std::string(100, 'n'), "1", ""});
    CHECK(table.lines().back() == std::string(Table::kCellMax - 1, 'n') + "~      1");
}

}  // namespace
}  // namespace nearkey::text_test
