// One option: its key, its type, where its value lives and what is allowed. From these rows come
// parsing, validation, --set, the printed TOML and the check of config/nearkey.toml.
// Private to daemon/config*.cc and their tests. Rows are constants; nothing is registered at run
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "nearkey/daemon/config.h"

namespace nearkey {

// A value as it was read, before its option judged it. Unfit is a TOML value that no option takes.
struct Unfit {
    std::string what;  // As "a table".
};
using RawValue =
    std::variant<std::int64_t, bool, std::string, std::vector<std::string>, Unfit, double>;

// One "key = value" from somewhere. `origin` names the place: FILE:LINE, a flag, a variable.
struct Setting {
    std::string key;
    RawValue value;
    std::string origin;
};

enum class OptionType { Integer, Bytes, Boolean, Text, List, Choice, FileMode, Fraction };

// Reaches the member; the alternative fits the type.
using OptionField = std::variant<std::uint64_t& (*)(Config&), bool& (*)(Config&),
                                 std::string& (*)(Config&), std::vector<std::string>& (*)(Config&),
                                 unsigned& (*)(Config&), double& (*)(Config&)>;

// Returns what is wrong with a text, or "" if nothing is. A null pointer allows every text.
using TextCheck = std::string (*)(const std::string& text);

struct Option {
    std::string_view key;  // As "upstream.url".
    OptionType type = OptionType::Text;
    OptionField field;
    std::uint64_t min = 0;  // Integer and Bytes.
    std::uint64_t max = 0;
    std::string_view choices = {};  // Choice: as "debug|info".
    TextCheck check = nullptr;      // Text: the value; List: each of its values.
    std::string_view help;          // One or more lines of at most 98 characters.
    // Others apply to a running nearkey when the configuration is read again.
    bool needs_restart = false;
    // Printed in place of a value that must not be shown, and of a refused one. Null: no secret.
    std::string (*redact)(const std::string& text) = nullptr;
    // A listener's option: the option whose value it has where the file sets none. Empty: none.
    std::string_view inherits = {};
};

// Every option, in the order in which it is printed; those of one table stand together.
std::span<const Option> options();
const Option* find_option(std::string_view key);
// "upstream" of "upstream.url".
std::string table_of(std::string_view key);
// The options of a [[listener]]: they reach the last of Config::listeners. REQUIRES: it has one.
std::span<const Option> listener_options();
// A configuration for those options to reach: with this one [[listener]] alone.
Config with_listener(const ListenerOptions& listener);
// True if the listener sets this option itself.
using ListenerSays = std::function<bool(std::string_view key)>;
// The listener, with the options that it does not set taken from the rest. REQUIRES:
// config.upstream.url is valid.
ListenerOptions completed(const Config& config, const ListenerOptions& listener,
                          const ListenerSays& says);
// Returns what is wrong with a completed listener, "" if nothing is.
std::string listener_problem(const ListenerOptions& listener);
// The key of these rows with the smallest edit distance.
std::string nearest_key(std::string_view key, std::span<const Option> rows);

// Stores the value, or returns what is wrong with it (and stores nothing).
[[nodiscard]] std::optional<std::string> assign(const Option& option, const RawValue& value,
                                                Config& config);
// Gives the option the value that `from`, an option of the same type, has.
void copy_value(const Option& from, const Option& option, Config& config);
// A value written without TOML's quotes, as after --set. A value that does not fit stays a text.
RawValue raw_from_text(const Option& option, std::string_view text);

// The values that assign() accepts, in words: "an integer from 1 to 64".
std::string allowed_values(const Option& option);
// True if the option has the same value in both, also if it is secret.
bool is_same(const Option& option, const Config& one, const Config& other);
// The value as written in TOML; a secret is redacted.
std::string printed(const Option& option, const Config& config);
std::string printed(const Option& option, const RawValue& value);

// "64KiB" to 65536 and back; the largest unit that divides it. Units: B, KiB, MiB, GiB, TiB.
std::optional<std::uint64_t> parse_bytes(std::string_view text);
std::string printed_bytes(std::uint64_t bytes);

// The number of bytes at the start of `text` that are sound UTF-8.
std::size_t utf8_prefix(std::string_view text);

}  // namespace nearkey
