#include "nearkey/daemon/config_secrets.h"

#include "nearkey/base/os_error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace nearkey {
namespace {

constexpr std::string_view kUserKey = "upstream.username";
constexpr std::string_view kFileKey = "upstream.password_file";
constexpr std::string_view kSentinelFileKey = "sentinel.password_file";
constexpr std::string_view kCredentialKey = "upstream.password_credential";
constexpr std::string_view kCommandKey = "upstream.password_command";
constexpr std::string_view kVariable = "NEARKEY_UPSTREAM_PASSWORD";
constexpr std::string_view kUrlVariable = "CACHE_URL";

std::string named(std::string_view key, const std::string& value) {
    return std::string(key) + " = \"" + value + "\"";
}

// For a credential the message has the option's value and the path made of it.
[[noreturn]] void refuse(const std::string& what, const std::string& why) {
    throw ConfigError(what + ": " + why);
}

// A password that was written where its file's name belongs must not be shown. A name is shown if
// it is absolute and its folder is there.
std::string named_file(std::string_view key, const std::string& path) {
    struct stat status {};
    const std::size_t slash = path.rfind('/');
    const bool is_absolute = path.starts_with('/');
    const std::string folder = is_absolute ? path.substr(0, slash + 1) : "";
    const bool is_name =
        is_absolute && stat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
    if (is_name || stat(path.c_str(), &status) == 0) return named(key, path);
    return named(key, "***") + " (a name in no folder that is there; is it the password itself?)";
}

// One line, without its end. A file without an end, or one that makes us wait, is no trap.
std::string read_password(const std::string& path, const std::string& what) {
    const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) refuse(what, "cannot read it: " + os_error(errno));
    struct stat status {};
    std::array<char, kPasswordMax + 2> bytes{};
    const bool is_file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    std::size_t size = 0;
    ssize_t count = is_file ? 1 : 0;
    while (count > 0 && size < bytes.size()) {
        count = read(fd, bytes.data() + size, bytes.size() - size);
        if (count > 0) size += static_cast<std::size_t>(count);
    }
    const int error = errno;
    close(fd);
    if (!is_file) refuse(what, "it is not a regular file; name one that holds the password");
    if (count < 0) refuse(what, "cannot read it: " + os_error(error));

    return password_of(std::string(bytes.data(), size), what);
}

std::string read_credential(const std::string& name, const Environment& environment) {
    const std::string what = named(kCredentialKey, name);
    const std::string* const folder = environment.find("CREDENTIALS_DIRECTORY");
    if (folder == nullptr) {
        refuse(what,
               "CREDENTIALS_DIRECTORY is not set; systemd sets it for a unit with "
               "LoadCredential=" +
                   name + ":FILE");
    }
    return read_password(*folder + "/" + name, what);
}

void refuse_if_twice(const UpstreamUrl& url, const UpstreamOptions& options, bool has_variable) {
    std::vector<std::string_view> places;
    if (!url.password.empty()) places.push_back(kUrlKey);
    if (!options.password_file.empty()) places.push_back(kFileKey);
    if (!options.password_credential.empty()) places.push_back(kCredentialKey);
    if (!options.password_command.argv.empty()) places.push_back(kCommandKey);
    if (has_variable) places.push_back(kVariable);
    if (places.size() > 1) {
        throw ConfigError(std::string(places[1]) + ": " + std::string(places[0]) +
                          " gives a password, too; name it in one place");
    }
    if (!url.user.empty() && !options.username.empty()) {
        throw ConfigError(std::string(kUserKey) + ": " + std::string(kUrlKey) +
                          " names a user, too; name it in one place");
    }
    const bool is_managed = url.kind == UpstreamUrl::Kind::Managed;
    if (is_managed && !(places.empty() && options.username.empty())) {
        throw ConfigError(std::string(places.empty() ? kUserKey : places[0]) +
                          ": managed: takes no user and no password; take it out");
    }
}

bool is_readable_by_all(const std::string& path) {
    struct stat status {};
    return stat(path.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0;
}

bool has_password(const std::string& url) {
    const auto result = parse_url(url);
    const auto* const parsed = std::get_if<UpstreamUrl>(&result);
    return parsed != nullptr && !parsed->password.empty();
}

// Finds where the password of a URL begins and ends, if `text` holds one. Rather too much than too
// little: it may be malformed.
std::pair<std::size_t, std::size_t> find_password(std::string_view text) {
    const std::size_t scheme = text.find("://");
    const std::size_t at = text.rfind('@');
    if (scheme == std::string_view::npos || at == std::string_view::npos) return {0, 0};
    const std::size_t colon = text.find(':', scheme + 3);
    if (colon == std::string_view::npos || colon > at) return {0, 0};
    return {colon + 1, at};
}

void hide_password(char* text) {
    const auto [begin, end] = find_password(text);
    std::fill(text + begin, text + end, '*');
}

}  // namespace

std::string password_of(std::string text, const std::string& what) {
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
    if (text.empty()) refuse(what, "it is empty; it must hold the password, on one line");
    if (text.size() > kPasswordMax)
        refuse(what, "it is larger than 4096 bytes; is it the right file?");
    if (text.find('\n') != std::string::npos)
        refuse(what, "it holds more than one line; it must hold the password alone");
    return text;
}

UpstreamUrl read_upstream(const Config& config, const Environment& environment,
                          const std::string& told) {
    const UpstreamOptions& options = config.upstream;
    UpstreamUrl url = std::get<UpstreamUrl>(parse_url(options.url));
    const std::string* const variable = environment.find(kVariable);
    refuse_if_twice(url, options, variable != nullptr);
    if (!options.username.empty()) url.user = options.username;
    if (!options.password_file.empty()) {
        url.password =
            read_password(options.password_file, named_file(kFileKey, options.password_file));
    } else if (!options.password_credential.empty()) {
        url.password = read_credential(options.password_credential, environment);
    } else if (!options.password_command.argv.empty()) {
        url.password = told;
    } else if (variable != nullptr) {
        url.password = *variable;
    }
    return url;
}

SentinelCredentials read_sentinel_credentials(const SentinelOptions& options) {
    const std::string& path = options.password_file;
    if (path.empty()) return {options.username, {}};
    return {options.username, read_password(path, named_file(kSentinelFileKey, path))};
}

std::string certificates_seen(const Config& config) {
    const UpstreamOptions& options = config.upstream;
    std::string seen;
    for (const std::string& path :
         {options.tls_ca_file, options.tls_cert_file, options.tls_key_file}) {
        struct stat status {};
        if (path.empty() || stat(path.c_str(), &status) != 0) continue;
        seen += std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) + ":" +
                std::to_string(status.st_size) + ":" + std::to_string(status.st_mtim.tv_sec) + "." +
                std::to_string(status.st_mtim.tv_nsec) + " ";
    }
    return seen;
}

std::vector<std::string> secret_warnings(const ConfigSources& sources, const Config& config) {
    std::vector<std::string> warnings;
    const bool is_flag = names_upstream(sources);
    const bool has_secret = has_password(config.upstream.url);
    if (has_secret && is_flag) {
        warnings.push_back(
            "the command line holds the password of upstream.url, and everybody could read it "
            "while nearkey started: use upstream.password_file");
    }
    const std::string* const variable = sources.environment.find("NEARKEY_CONFIG");
    const std::string file = sources.config_file.value_or(variable == nullptr ? "" : *variable);
    const bool is_from_file =
        has_secret && !is_flag && sources.environment.find(kUrlVariable) == nullptr;
    if (is_from_file && is_readable_by_all(file)) {
        warnings.push_back(file +
                           " holds the password of upstream.url, and everybody can read it: "
                           "chmod o= it, or use upstream.password_file");
    }
    const auto warn_of = [&warnings](std::string_view key, const std::string& password_file) {
        if (password_file.empty() || !is_readable_by_all(password_file)) return;
        warnings.push_back(password_file + " (" + std::string(key) +
                           ") can be read by everybody: chmod o= it");
    };
    warn_of(kFileKey, config.upstream.password_file);
    warn_of(kSentinelFileKey, config.sentinel.password_file);
    return warnings;
}

void hide_passwords(std::span<char* const> arguments) {
    for (char* const argument : arguments)
        hide_password(argument);
}

void hide_secrets_in_environment() {
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        const std::size_t equals = text.find('=');
        const std::string_view name = text.substr(0, equals);
        if (name == kUrlVariable) hide_password(*entry);
        if (name == kVariable) std::fill(*entry + equals + 1, *entry + text.size(), '*');
    }
}

}  // namespace nearkey
