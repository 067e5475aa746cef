// After getKeysUsingKeySpecs in the server's db.c.
#include "nearkey/resp/key_specs.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/number.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

namespace nearkey {

namespace {

using Keys = std::vector<std::string_view>;

// How the number of keys is read.
enum class Counting : uint8_t {
    Strict,  // as the command itself does
    Loose,   // as atoi() does
};

// As atoi() of the server's libc (genericGetKeys in db.c).
int64_t parse_loosely(std::string_view text) {
    size_t begin = 0;
    while (begin < text.size() &&
           (text[begin] == ' ' || (text[begin] >= '\t' && text[begin] <= '\r')))
        ++begin;
    if (begin < text.size() && text[begin] == '+') ++begin;
    int64_t value = 0;
    const auto [end, error] =
        std::from_chars(text.data() + begin, text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range) {
        using Limits = std::numeric_limits<int64_t>;
        value = text[begin] == '-' ? Limits::min() : Limits::max();
    }
    return static_cast<int32_t>(value);
}

// Appends the keys of one specification, which begin at `begin`. False: they can't be told.
bool append_keys(const KeySpec& spec, const CommandView& command, int64_t begin, Counting counting,
                 Keys& keys) {
    const auto size = static_cast<int64_t>(command.size());
    int64_t first = begin;
    int64_t last = begin + spec.last;
    if (spec.is_counted) {
        const int64_t index = begin + spec.count_index;
        if (index >= size) return false;
        const std::string_view number = command[static_cast<size_t>(index)];
        const std::optional<int64_t> count =
            counting == Counting::Strict ? parse_integer(number) : parse_loosely(number);
        if (!count || *count < 0 || *count > size) return false;
        first = begin + spec.first;
        last = first + (*count - 1) * spec.step;
    } else if (spec.last < 0) {
        last = spec.limit <= 1 ? size + spec.last : begin + (size - begin) / spec.limit + spec.last;
    }
    if (first <= 0 || last >= size || spec.step < 1) return false;
    for (int64_t i = first; i <= last; i += spec.step)
        keys.push_back(command[static_cast<size_t>(i)]);
    return true;
}

// The place of STREAMS in XREAD and XREADGROUP, which may be the name of a group, a consumer or a
// stream as well. 0: there is a word that is no option known here. After xreadGetKeys in db.c.
int64_t find_streams(const CommandView& command) {
    for (size_t i = 1; i < command.size(); ++i) {
        const std::string_view word = command[i];
        if (equals_ignoring_case(word, "streams")) return static_cast<int64_t>(i);
        if (equals_ignoring_case(word, "block") || equals_ignoring_case(word, "count")) {
            ++i;
        } else if (equals_ignoring_case(word, "group")) {
            i += 2;
        } else if (!equals_ignoring_case(word, "noack")) {
            return 0;
        }
    }
    return 0;
}

// The same, behind the keyword. A command that is given an option twice obeys the last one
// (GEORADIUS ... STORE a STORE b writes b), and the keyword may be another option's value: every
// place counts. Where a place takes all the rest with it, only one can be meant, and which is not
// known.
bool append_behind_keyword(const KeySpec& spec, const CommandView& command, Counting counting,
                           Keys& keys) {
    if (spec.keyword == "STREAMS") {
        const int64_t place = find_streams(command);
        if (place > 0) return append_keys(spec, command, place + 1, counting, keys);
    }
    const auto size = static_cast<int64_t>(command.size());
    const bool is_forward = spec.begin > 0;
    const bool takes_rest = spec.is_counted || spec.last < 0;
    bool is_found = false;
    for (int64_t i = is_forward ? spec.begin : size + spec.begin; i > 0 && i < size;
         i += is_forward ? 1 : -1) {
        if (!equals_ignoring_case(command[static_cast<size_t>(i)], spec.keyword)) continue;
        if (is_found && takes_rest) return false;
        is_found = true;
        if (!append_keys(spec, command, i + 1, counting, keys)) return false;
    }
    return true;
}

bool append_keys_of(const KeySpec& spec, const CommandView& command, Counting counting,
                    Keys& keys) {
    return spec.keyword.empty() ? append_keys(spec, command, spec.begin, counting, keys)
                                : append_behind_keyword(spec, command, counting, keys);
}

}  // namespace

bool CommandKeys::find_keys(const CommandView& command, std::vector<std::string_view>& keys) const {
    if (!names_keys || command.size() > kKeysMax) return false;
    return std::all_of(key_specs.begin(), key_specs.end(), [&](const KeySpec& spec) {
        return append_keys_of(spec, command, Counting::Strict, keys);
    });
}

bool CommandKeys::find_first_key(const CommandView& command,
                                 std::vector<std::string_view>& keys) const {
    const size_t before = keys.size();
    return std::any_of(key_specs.begin(), key_specs.end(), [&](const KeySpec& spec) {
        return append_keys_of(spec, command, Counting::Loose, keys) && keys.size() > before;
    });
}

}  // namespace nearkey
