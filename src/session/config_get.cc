#include "nearkey/session/config_get.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/cache/glob.h"
#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <array>
#include <set>

namespace nearkey {

namespace {

constexpr auto kSecretEndings =
    std::to_array<std::string_view>({"pass", "auth", "password", "secret", "token"});
// The secret parameters of Valkey itself: patterns are compared with them while the server's own
// names are not known.
constexpr auto kKnownSecrets = std::to_array<std::string_view>(
    {"requirepass", "masterauth", "primaryauth", "tls-key-file-pass", "tls-client-key-file-pass"});

std::string in_lower_case(std::string_view text) {
    std::string lower(text);
    std::transform(lower.begin(), lower.end(), lower.begin(), to_lower);
    return lower;
}

bool is_pattern(std::string_view word) {
    return word.find_first_of("*?[\\") != std::string_view::npos;
}

bool matches_secret(const std::string& pattern, std::span<const std::string> parameters) {
    const auto matches = [&](std::string_view name) { return matches_glob(pattern, name); };
    return std::any_of(kKnownSecrets.begin(), kKnownSecrets.end(), matches) ||
           std::any_of(parameters.begin(), parameters.end(), [&](const std::string& name) {
               return is_secret_parameter(name) && matches(name);
           });
}

}  // namespace

bool is_secret_parameter(std::string_view name) {
    const std::string lower = in_lower_case(name);
    return std::any_of(kSecretEndings.begin(), kSecretEndings.end(),
                       [&](std::string_view ending) { return lower.ends_with(ending); });
}

ConfigGetSecrets leave_out_secrets(const CommandView& command,
                                   std::span<const std::string> parameters, std::string& instead) {
    std::set<std::string> shown;
    bool shows_secrets = false;
    for (size_t i = 2; i < command.size(); ++i) {
        const std::string word = in_lower_case(command[i]);
        if (!is_pattern(word)) {
            if (is_secret_parameter(word)) {
                shows_secrets = true;
            } else {
                shown.emplace(command[i]);  // The server repeats a name as it is spelled.
            }
            continue;
        }
        if (!matches_secret(word, parameters)) {
            shown.emplace(command[i]);
            continue;
        }
        if (parameters.empty()) return ConfigGetSecrets::Unknown;
        shows_secrets = true;
        for (const std::string& name : parameters) {
            if (!is_secret_parameter(name) && matches_glob(word, name)) shown.insert(name);
        }
    }
    if (!shows_secrets) return ConfigGetSecrets::None;
    // The name of no parameter: the reply is empty, and as long as the protocol wants it.
    if (shown.empty()) shown.insert("");
    append_array_header(instead, 2 + shown.size());
    append_bulk(instead, "CONFIG");
    append_bulk(instead, "GET");
    for (const std::string& word : shown)
        append_bulk(instead, word);
    return ConfigGetSecrets::LeftOut;
}

}  // namespace nearkey
