// The values of options: judging them, storing them, printing them. One small function a type.
#include "nearkey/daemon/config_option.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <iterator>
#include <limits>

#include "nearkey/base/parse_number.h"

namespace nearkey {
namespace {

struct Unit {
    std::string_view name;
    std::uint64_t bytes;
};
// The largest first.
constexpr auto kUnits = std::to_array<Unit>({{"TiB", std::uint64_t{1} << 40},
                                             {"GiB", std::uint64_t{1} << 30},
                                             {"MiB", std::uint64_t{1} << 20},
                                             {"KiB", std::uint64_t{1} << 10},
                                             {"B", 1}});

template <class Member>
Member& member(const Option& option, Config& config) {
    return std::get<Member& (*)(Config&)>(option.field)(config);
}

// The shortest text that reads as the same number.
std::string printed_fraction(double number) {
    char text[32];
    const auto result = std::to_chars(std::begin(text), std::end(text), number);
    return {std::begin(text), result.ptr};
}

bool is_control(char c) {
    return static_cast<unsigned char>(c) < ' ' || c == 127;
}

// Nothing if the option takes this text.
std::optional<std::string> text_problem(const Option& option, const std::string& value) {
    if (std::any_of(value.begin(), value.end(), is_control)) {
        return "it holds a control character";
    }
    if (utf8_prefix(value) != value.size()) return "it is not UTF-8";
    std::string problem = option.check == nullptr ? "" : option.check(value);
    if (problem.empty()) return std::nullopt;
    return problem;
}

bool is_choice(std::string_view choices, const std::string& value) {
    if (value.empty() || value.find('|') != std::string::npos) return false;
    const std::string fenced = "|" + std::string(choices) + "|";
    return fenced.find("|" + value + "|") != std::string::npos;
}

std::optional<std::uint64_t> in_range(const Option& option, std::optional<std::uint64_t> value) {
    if (!value || *value < option.min || *value > option.max) return std::nullopt;
    return value;
}

std::optional<std::uint64_t> as_integer(const RawValue& value) {
    const auto* const number = std::get_if<std::int64_t>(&value);
    if (number == nullptr || *number < 0) return std::nullopt;
    return static_cast<std::uint64_t>(*number);
}

std::optional<std::uint64_t> as_bytes(const RawValue& value) {
    const auto* const text = std::get_if<std::string>(&value);
    return text == nullptr ? as_integer(value) : parse_bytes(*text);
}

// A number from 0 to 1; TOML's inf and nan are none.
std::optional<double> as_fraction(const RawValue& value) {
    const auto* const integer = std::get_if<std::int64_t>(&value);
    const auto* const number = std::get_if<double>(&value);
    if (integer == nullptr && number == nullptr) return std::nullopt;
    const double fraction = number != nullptr ? *number : static_cast<double>(*integer);
    if (!(fraction >= 0 && fraction <= 1)) return std::nullopt;
    return fraction;
}

// Three or four octal digits. A bare integer is refused: 660 and 0o660 are too easily mixed up.
std::optional<unsigned> as_file_mode(const RawValue& value) {
    const auto* const text = std::get_if<std::string>(&value);
    if (text == nullptr || text->size() < 3 || text->size() > 4) return std::nullopt;
    unsigned mode = 0;
    const char* const end = text->data() + text->size();
    const auto result = std::from_chars(text->data(), end, mode, 8);
    if (result.ec != std::errc() || result.ptr != end || mode > 0777) return std::nullopt;
    return mode;
}

// Stores `value` if there is one; otherwise returns the allowed values.
template <class Member, class Value>
std::optional<std::string> keep(const Option& option, const std::optional<Value>& value,
                                Config& config) {
    if (!value) return "allowed is " + allowed_values(option);
    member<Member>(option, config) = *value;
    return std::nullopt;
}

template <class Member>
std::optional<Member> as(const RawValue& value) {
    const auto* const held = std::get_if<Member>(&value);
    return held == nullptr ? std::nullopt : std::optional(*held);
}

std::optional<std::string> as_choice(const Option& option, const RawValue& value) {
    const auto text = as<std::string>(value);
    return text && is_choice(option.choices, *text) ? text : std::nullopt;
}

// The first problem of these texts.
std::optional<std::string> texts_problem(const Option& option,
                                         const std::vector<std::string>& texts) {
    for (const std::string& text : texts) {
        if (auto problem = text_problem(option, text)) return problem;
    }
    return std::nullopt;
}

std::string in_quotes(const std::string& text) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    std::string result = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (is_control(c)) {
            result += "\\u00";
            result += {kHex[byte >> 4U], kHex[byte & 15U]};
            continue;
        }
        if (c == '"' || c == '\\') result += '\\';
        result += c;
    }
    return result + '"';
}

// A refused value in a message: enough of it to be recognised.
std::string shortened(const std::string& text) {
    constexpr std::size_t kShownMax = 100;
    if (text.size() <= kShownMax) return text;
    return text.substr(0, utf8_prefix(std::string_view(text).substr(0, kShownMax))) + "...";
}

std::string quoted_list(const std::vector<std::string>& texts) {
    std::string result;
    for (const std::string& text : texts)
        result += (result.empty() ? "" : ", ") + in_quotes(text);
    return "[" + result + "]";
}

std::string quoted_mode(unsigned mode) {
    std::string digits = "0";
    for (unsigned shift = 9; shift > 0; shift -= 3) {
        digits += static_cast<char>('0' + (mode >> (shift - 3) & 7U));
    }
    return in_quotes(digits);
}

// True if a broken URL may hold a password: before an @, or as all of the text. Text behind a
// scheme without an @ and without a colon but that of a port is none.
bool may_hold_password(std::string_view text) {
    const std::size_t scheme = text.find("://");
    if (scheme == std::string_view::npos || text.find('@') != std::string_view::npos) return true;
    const std::string_view rest = text.substr(scheme + 3);
    const std::string_view host = rest.substr(0, rest.find_first_of("/?"));
    const std::string_view port = host.substr(std::min(host.find(':'), host.size()));
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    return !port.empty() && !std::all_of(port.begin() + 1, port.end(), is_digit);
}

// The length of the UTF-8 character at the start of `text`, or 0 if there is none. Overlong forms,
// surrogates and numbers above U+10FFFF are none: RFC 3629, section 4.
std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
    };
    const auto is_between = [&](std::size_t i, unsigned low, unsigned high) {
        return byte(i) >= low && byte(i) <= high;
    };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    if (first >= 0xC2 && first <= 0xDF) return is_between(1, 0x80, 0xBF) ? 2 : 0;
    if (first >= 0xE0 && first <= 0xEF) {
        const unsigned low = first == 0xE0 ? 0xA0 : 0x80;
        const unsigned high = first == 0xED ? 0x9F : 0xBF;
        return is_between(1, low, high) && is_between(2, 0x80, 0xBF) ? 3 : 0;
    }
    if (first < 0xF0 || first > 0xF4) return 0;
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;
    return is_between(1, low, high) && is_between(2, 0x80, 0xBF) && is_between(3, 0x80, 0xBF) ? 4
                                                                                              : 0;
}

std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> parts;
    while (!text.empty()) {
        const std::size_t comma = text.find(',');
        parts.emplace_back(text.substr(0, comma));
        text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    }
    return parts;
}

}  // namespace

std::optional<std::string> assign(const Option& option, const RawValue& value, Config& config) {
    switch (option.type) {
        case OptionType::Integer:
            return keep<std::uint64_t>(option, in_range(option, as_integer(value)), config);
        case OptionType::Bytes:
            return keep<std::uint64_t>(option, in_range(option, as_bytes(value)), config);
        case OptionType::Boolean:
            return keep<bool>(option, as<bool>(value), config);
        case OptionType::FileMode:
            return keep<unsigned>(option, as_file_mode(value), config);
        case OptionType::Fraction:
            return keep<double>(option, as_fraction(value), config);
        case OptionType::Text: {
            const auto text = as<std::string>(value);
            const auto problem = text ? text_problem(option, *text) : std::nullopt;
            return problem ? problem : keep<std::string>(option, text, config);
        }
        case OptionType::Choice:
            return keep<std::string>(option, as_choice(option, value), config);
        case OptionType::List: {
            const auto texts = as<std::vector<std::string>>(value);
            const auto problem = texts ? texts_problem(option, *texts) : std::nullopt;
            return problem ? problem : keep<std::vector<std::string>>(option, texts, config);
        }
    }
    return "allowed is nothing";  // No such type: the switch is complete.
}

void copy_value(const Option& from, const Option& option, Config& config) {
    std::visit([&](auto to) { to(config) = std::get<decltype(to)>(from.field)(config); },
               option.field);
}

RawValue raw_from_text(const Option& option, std::string_view text) {
    const bool takes_number =
        option.type == OptionType::Integer || option.type == OptionType::Bytes;
    if (takes_number) {
        if (const auto number = parse_number<std::int64_t>(text)) return *number;
    }
    if (option.type == OptionType::Fraction) {
        if (const auto fraction = parse_number<double>(text)) return *fraction;
    }
    if (option.type == OptionType::Boolean && text == "true") return true;
    if (option.type == OptionType::Boolean && text == "false") return false;
    if (option.type == OptionType::List) return split(text);
    return std::string(text);
}

std::string allowed_values(const Option& option) {
    switch (option.type) {
        case OptionType::Integer:
            return "an integer from " + std::to_string(option.min) + " to " +
                   std::to_string(option.max);
        case OptionType::Bytes:
            return printed_bytes(option.min) + " to " + printed_bytes(option.max) +
                   ", as 65536, \"64KiB\", \"16MiB\" or \"1GiB\"";
        case OptionType::Boolean:
            return "true or false";
        case OptionType::Fraction:
            return "a number from 0 to 1";
        case OptionType::Text:
            return "a string";
        case OptionType::List:
            return "a list of strings";
        case OptionType::FileMode:
            return "a string of octal digits, \"0000\" to \"0777\"";
        case OptionType::Choice:
            break;
    }
    std::string names = "one of ";
    for (const char c : option.choices)
        names += c == '|' ? ", " : std::string(1, c);
    return names;
}

bool is_same(const Option& option, const Config& one, const Config& other) {
    Config left = one;  // The rows reach members of a Config that is not const.
    Config right = other;
    return std::visit([&](const auto& field) { return field(left) == field(right); }, option.field);
}

std::string printed(const Option& option, const Config& config) {
    Config copy = config;  // The rows reach members of a Config that is not const.
    switch (option.type) {
        case OptionType::Integer:
            return std::to_string(member<std::uint64_t>(option, copy));
        case OptionType::Bytes:
            return in_quotes(printed_bytes(member<std::uint64_t>(option, copy)));
        case OptionType::Boolean:
            return member<bool>(option, copy) ? "true" : "false";
        case OptionType::FileMode:
            return quoted_mode(member<unsigned>(option, copy));
        case OptionType::Fraction:
            return printed_fraction(member<double>(option, copy));
        case OptionType::List:
            return quoted_list(member<std::vector<std::string>>(option, copy));
        case OptionType::Text:
        case OptionType::Choice:
            break;
    }
    const std::string& text = member<std::string>(option, copy);
    return in_quotes(option.redact == nullptr ? text : option.redact(text));
}

std::string printed(const Option& option, const RawValue& value) {
    if (const auto* const number = std::get_if<std::int64_t>(&value))
        return std::to_string(*number);
    if (const auto* const number = std::get_if<double>(&value)) return printed_fraction(*number);
    if (const auto* const fact = std::get_if<bool>(&value)) return *fact ? "true" : "false";
    if (const auto* const unfit = std::get_if<Unfit>(&value)) return "(" + unfit->what + ")";
    const auto* const text = std::get_if<std::string>(&value);
    if (option.redact != nullptr && (text == nullptr || may_hold_password(*text)))
        return in_quotes("***");
    if (text != nullptr) return shortened(in_quotes(*text));
    return shortened(quoted_list(std::get<std::vector<std::string>>(value)));
}

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
    std::uint64_t factor = 1;
    const auto ends_with = [&](const Unit& unit) { return text.ends_with(unit.name); };
    const auto* const unit = std::find_if(kUnits.begin(), kUnits.end(), ends_with);
    if (unit != kUnits.end()) {
        factor = unit->bytes;
        text.remove_suffix(unit->name.size());
    }
    const auto count = parse_number<std::uint64_t>(text);
    if (!count || *count > std::numeric_limits<std::uint64_t>::max() / factor) return std::nullopt;
    return *count * factor;
}

std::string printed_bytes(std::uint64_t bytes) {
    const auto divides = [&](const Unit& unit) { return bytes != 0 && bytes % unit.bytes == 0; };
    const auto* const found = std::find_if(kUnits.begin(), kUnits.end(), divides);
    const Unit& unit = found == kUnits.end() ? kUnits.back() : *found;
    return std::to_string(bytes / unit.bytes) + std::string(unit.name);
}

std::size_t utf8_prefix(std::string_view text) {
    std::size_t position = 0;
    while (position < text.size()) {
        const std::size_t length = utf8_length(text.substr(position));
        if (length == 0) break;
        position += length;
    }
    return position;
}

}  // namespace nearkey
