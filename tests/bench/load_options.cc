#include "load_options.h"

#include <charconv>
#include <optional>
#include <utility>

namespace nearkey::bench {
namespace {

constexpr size_t kClientsMax = 20'000;
constexpr size_t kPipelineMax = 256;  // Two pieces of each request fit into one sendmsg().
constexpr size_t kThreadsMax = 64;
constexpr double kSecondsMax = 3600;
constexpr uint64_t kKeysMax = 100'000'000;
constexpr size_t kValueBytesMax = size_t{512} << 20;

template <class T>
bool parse_number(std::string_view text, T min, T max, T& value) {
    T found{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), found);
    if (error != std::errc() || end != text.data() + text.size()) return false;
    if (!(found >= min && found <= max)) return false;  // Not a number compares with nothing.
    value = found;
    return true;
}

template <class T, size_t N>
bool parse_name(std::string_view text, const std::pair<std::string_view, T> (&names)[N], T& value) {
    for (const auto& [name, meaning] : names) {
        if (name != text) continue;
        value = meaning;
        return true;
    }
    return false;
}

bool parse_command(std::string_view text, LoadCommand& value) {
    using enum LoadCommand;
    constexpr std::pair<std::string_view, LoadCommand> kNames[] = {
        {"get", Get},   {"set", Set},   {"mixed", Mixed},
        {"mget", Mget}, {"incr", Incr}, {"alternate", Alternate},
    };
    return parse_name(text, kNames, value);
}

bool parse_draw(std::string_view text, LoadDraw& value) {
    using enum LoadDraw;
    constexpr std::pair<std::string_view, LoadDraw> kNames[] = {
        {"uniform", Uniform}, {"zipf", Zipf}, {"sequence", Sequence}};
    return parse_name(text, kNames, value);
}

bool parse_processes(std::string_view text, std::vector<int>& value) {
    while (true) {
        const size_t comma = text.find(',');
        int process = 0;
        if (!parse_number(text.substr(0, comma), 1, 1 << 30, process)) return false;
        value.push_back(process);
        if (comma == std::string_view::npos) return true;
        text.remove_prefix(comma + 1);
    }
}

// Nothing: there is no such option.
std::optional<bool> take(std::string_view name, std::string_view text, LoadOptions& options) {
    const auto text_into = [text](std::string& value) {
        value = text;
        return !text.empty();
    };
    if (name == "--unix") return text_into(options.unix_path);
    if (name == "--port") return parse_number<uint16_t>(text, 1, 65535, options.tcp_port);
    if (name == "--command") return parse_command(text, options.command);
    if (name == "--draw") return parse_draw(text, options.draw);
    if (name == "--zipf") return parse_number(text, 0.1, 5.0, options.zipf_exponent);
    if (name == "--clients") return parse_number<size_t>(text, 1, kClientsMax, options.clients);
    if (name == "--pipeline") return parse_number<size_t>(text, 1, kPipelineMax, options.pipeline);
    if (name == "--threads") return parse_number<size_t>(text, 1, kThreadsMax, options.threads);
    if (name == "--warm-up") return parse_number(text, 0.0, kSecondsMax, options.warm_up_s);
    if (name == "--seconds") return parse_number(text, 0.001, kSecondsMax, options.seconds);
    if (name == "--requests") {
        return parse_number<uint64_t>(text, 1, uint64_t{1} << 40, options.requests);
    }
    if (name == "--keys") return parse_number<uint64_t>(text, 1, kKeysMax, options.keys);
    if (name == "--prefix") return text_into(options.prefix);
    if (name == "--value-bytes") {
        return parse_number<size_t>(text, 1, kValueBytesMax, options.value_bytes);
    }
    if (name == "--segment") return text_into(options.segment);
    if (name == "--watch") return parse_processes(text, options.watched);
    return std::nullopt;
}

// What the options say only together; empty when that is sound.
std::string contradiction(const LoadOptions& options) {
    if (options.unix_path.empty() == (options.tcp_port == 0)) return "one of --unix and --port";
    if ((options.seconds > 0) == (options.requests > 0)) return "one of --seconds and --requests";
    if (options.draw == LoadDraw::Sequence && options.requests == 0) {
        return "--draw sequence needs --requests";
    }
    const bool is_one_get = options.command == LoadCommand::Get && options.pipeline == 1;
    const bool is_drawn = options.draw != LoadDraw::Sequence && options.requests == 0;
    if (!options.segment.empty() && !(is_one_get && is_drawn)) {
        return "--segment goes with --command get, --pipeline 1, --seconds and keys that are drawn";
    }
    if (options.requests > 0 && options.warm_up_s > 0) return "--warm-up goes with --seconds";
    return "";
}

}  // namespace

std::variant<LoadOptions, std::string> parse_load_options(std::span<const char* const> arguments) {
    LoadOptions options;
    for (size_t i = 0; i < arguments.size(); i += 2) {
        const std::string name = arguments[i];
        const std::string_view text = i + 1 < arguments.size() ? arguments[i + 1] : "";
        const std::optional<bool> is_sound = take(name, text, options);
        if (!is_sound) return "no such option: " + name;
        if (!*is_sound) return name + ": not '" + std::string(text) + "'";
    }
    if (std::string wrong = contradiction(options); !wrong.empty()) return wrong;
    if (options.threads > options.clients) options.threads = options.clients;
    return options;
}

}  // namespace nearkey::bench
