// Order: the bytes are read and bounded, then checked (UTF-8, NUL, depth, number), then parsed by
// toml11, then flattened to "table.key" settings. Only this file includes toml11.
#include "nearkey/daemon/config_file.h"

#include "nearkey/base/os_error.h"
#include "nearkey/base/unique_fd.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <sstream>
#include <toml.hpp>
#include <utility>

namespace nearkey {
namespace {

constexpr std::size_t kFileBytesMax = 1024 * 1024;
constexpr int kNestingMax = 64;   // Brackets in brackets; also dots on one line, outside strings.
constexpr int kValuesMax = 4096;  // toml11 and its line numbers take quadratic time.

std::string at_line(const std::string& path, std::size_t line) {
    return path + ":" + std::to_string(line);
}

std::size_t line_at(std::string_view text, std::size_t position) {
    const std::string_view before = text.substr(0, position);
    return 1 + static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n'));
}

// Reads at most one byte more than allowed, so that a device without an end is no trap.
std::string read_bounded(const std::string& path, const std::string& named_by) {
    const auto fail = [&](const std::string& why) {
        throw ConfigError(path + ": cannot read this configuration file" + named_by + ": " + why);
    };
    if (path.empty()) throw ConfigError("the name of the configuration file is empty" + named_by);
    const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) fail(os_error(errno));
    struct stat status {};
    if (fstat(file.get(), &status) != 0) fail(os_error(errno));
    if (S_ISDIR(status.st_mode)) fail("it is a directory; name a file in it");

    std::string text;
    std::array<char, 65536> block;
    while (text.size() <= kFileBytesMax) {
        const ssize_t count = read(file.get(), block.data(), block.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail(os_error(errno));
        if (count == 0) return text;
        text.append(block.data(), static_cast<std::size_t>(count));
    }
    fail("it is larger than 1MiB; is it the right file?");
    return text;
}

// The position after the string or the comment that begins at `start`.
std::size_t skip_quoted(std::string_view text, std::size_t start) {
    const char quote = text[start];
    const std::string fence(3, quote);
    const bool has_fence = text.substr(start, 3) == fence;
    const std::string_view end = has_fence ? std::string_view(fence) : text.substr(start, 1);
    for (std::size_t i = start + end.size(); i < text.size(); ++i) {
        if (text[i] == '\\' && quote == '"') {
            ++i;
        } else if (text[i] == '\n' && !has_fence) {
            return i;
        } else if (text.substr(i, end.size()) == end) {
            i += end.size();
            // A fence may follow upon one or two quotes that belong to the string.
            const std::size_t limit = std::min(text.size(), has_fence ? i + 2 : i);
            while (i < limit && text[i] == quote)
                ++i;
            return i;
        }
    }
    return text.size();
}

// Brackets and dotted keys make toml11 recurse. Where this scan and toml11 could disagree about
// strings, toml11 has found an error and stopped.
void check_shape(std::string_view text, const std::string& path) {
    int depth = 0;
    int dots = 0;
    int values = 0;
    for (std::size_t i = 0; i < text.size();) {
        const char c = text[i];
        if (c == '"' || c == '\'') {
            i = skip_quoted(text, i);
            continue;
        }
        if (c == '#') {
            i = std::min(text.find('\n', i), text.size());
            continue;
        }
        if (c == '[' || c == '{') ++depth;
        if ((c == ']' || c == '}') && depth > 0) --depth;
        if (c == '\n') dots = 0;
        if (c == '.') ++dots;
        if (c == '=' || c == ',' || c == '[') ++values;
        if (values > kValuesMax) {
            throw ConfigError(at_line(path, line_at(text, i)) +
                              ": more than 4096 values and tables");
        }
        if (depth > kNestingMax || dots > kNestingMax) {
            throw ConfigError(at_line(path, line_at(text, i)) +
                              ": nested more than 64 levels deep");
        }
        ++i;
    }
}

void check_bytes(std::string_view text, const std::string& path) {
    const std::size_t nul = text.find('\0');
    if (nul != std::string_view::npos) {
        throw ConfigError(at_line(path, line_at(text, nul)) +
                          ": holds a NUL byte; is it the right file?");
    }
    const std::size_t valid = utf8_prefix(text);
    if (valid != text.size()) {
        throw ConfigError(at_line(path, line_at(text, valid)) +
                          ": is not UTF-8; save the file as UTF-8");
    }
}

// toml11 4.x and 3.7 name lines differently.
template <class Location>
std::size_t line_of(const Location& location) {
    if constexpr (requires { location.first_line_number(); }) {
        return location.first_line_number();
    } else {
        return location.line();
    }
}

// FILE:LINE, or FILE where toml11 does not know the line.
template <class Error>
std::string place_of(const Error& error, const std::string& path) {
    if constexpr (requires { error.location(); }) {
        return at_line(path, line_of(error.location()));
    } else {
        for (const auto& info : error.errors()) {
            for (const auto& [location, words] : info.locations()) {
                if (location.file_name() == path) return at_line(path, line_of(location));
            }
        }
        return path;
    }
}

// The first line of toml11's message, without the name of its function; the others quote the file,
// and a password may be there.
std::string first_line(std::string_view message) {
    message = message.substr(0, message.find('\n'));
    for (const std::string_view prefix : {"[error] ", "toml::"}) {
        if (message.starts_with(prefix)) message.remove_prefix(prefix.size());
    }
    const std::string_view function = message.substr(0, message.find(": "));
    if (function.size() < message.size() && function.find(' ') == std::string_view::npos) {
        message.remove_prefix(function.size() + 2);
    }
    if (message.ends_with('.')) message.remove_suffix(1);
    const bool is_twice = message.find("already ") != std::string_view::npos;
    return std::string(message) +
           (is_twice ? "; name it once" : "; write key = \"text\", key = 5 or key = true");
}

toml::value parse_toml(const std::string& text, const std::string& path) {
    std::istringstream stream(text);
    try {
        return toml::parse(stream, path);
    } catch (const toml::syntax_error& error) {
        throw ConfigError(place_of(error, path) + ": not TOML: " + first_line(error.what()));
    } catch (const std::exception& error) {
        throw ConfigError(path + ": not TOML: " + first_line(error.what()));
    }
}

RawValue raw_list(const toml::value& value) {
    std::vector<std::string> texts;
    for (const toml::value& element : value.as_array()) {
        if (!element.is_string()) return Unfit{"a list that holds something other than strings"};
        texts.push_back(toml::get<std::string>(element));
    }
    return texts;
}

RawValue raw_value(const toml::value& value) {
    if (value.is_integer()) return toml::get<std::int64_t>(value);
    if (value.is_boolean()) return toml::get<bool>(value);
    if (value.is_string()) return toml::get<std::string>(value);
    if (value.is_array()) return raw_list(value);
    if (value.is_floating()) return toml::get<double>(value);
    if (value.is_table()) return Unfit{"a table"};
    return Unfit{"a date or time"};
}

// A dot inside a quoted key is no separator: "upstream.url" = 1 is not upstream.url.
std::string joined(const std::string& prefix, const std::string& name) {
    const bool is_plain = !name.empty() && name.find('.') == std::string::npos;
    const std::string part = is_plain ? name : "\"" + name + "\"";
    return prefix.empty() ? part : prefix + "." + part;
}

// The one key that may be written as [[key]].
constexpr std::string_view kListOfTables = "listener";

bool is_list_of_tables(const toml::value& value) {
    if (!value.is_array() || value.as_array().empty()) return false;
    const auto& elements = value.as_array();
    return std::all_of(elements.begin(), elements.end(),
                       [](const toml::value& element) { return element.is_table(); });
}

struct LinedSetting {
    std::size_t line;
    Setting setting;
};

// Recursion is bounded by check_shape().
void flatten(const toml::value& table, const std::string& prefix,
             std::vector<LinedSetting>& settings) {
    for (const auto& [name, value] : table.as_table()) {
        const std::string key = joined(prefix, name);
        if (key == kListOfTables && is_list_of_tables(value)) {
            for (std::size_t i = 0; i < value.as_array().size(); ++i)
                flatten(value.as_array()[i], key + "[" + std::to_string(i) + "]", settings);
            continue;
        }
        if (value.is_table() && !value.as_table().empty()) {
            flatten(value, key, settings);
            continue;
        }
        settings.push_back({line_of(value.location()), {key, raw_value(value), ""}});
    }
}

}  // namespace

std::vector<Setting> read_config_file(const std::string& path, std::string_view named_by) {
    const std::string source = " (named by " + std::string(named_by) + ")";
    return parse_config_text(read_bounded(path, source), path);
}

std::vector<Setting> parse_config_text(const std::string& text, const std::string& path) {
    check_bytes(text, path);
    check_shape(text, path);
    std::vector<LinedSetting> lined;
    flatten(parse_toml(text, path), "", lined);
    // toml11 keeps tables in hash order; the first error should be the topmost.
    std::stable_sort(lined.begin(), lined.end(),
                     [](const LinedSetting& a, const LinedSetting& b) { return a.line < b.line; });
    std::vector<Setting> settings;
    for (LinedSetting& each : lined) {
        each.setting.origin = at_line(path, each.line);
        settings.push_back(std::move(each.setting));
    }
    return settings;
}

}  // namespace nearkey
