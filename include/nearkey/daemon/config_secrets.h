// Reads the password for Valkey: from the URL, a file, a systemd credential or the environment;
// from one place only. It is read anew at each reload, and when Valkey refuses it.
// The one rule: no message holds a secret.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/upstream/sentinel_link.h"
#include "nearkey/upstream/url.h"

#include <span>
#include <string>
#include <vector>

namespace nearkey {

inline constexpr std::string_view kUrlKey = "upstream.url";

constexpr std::size_t kPasswordMax = 4096;

// upstream.url with user and password from wherever they are; `told`: what the command for the
// password has said last. Throws ConfigError.
UpstreamUrl read_upstream(const Config& config, const Environment& environment,
                          const std::string& told);

// One line without its end. Throws ConfigError, whose text begins with `what` and has nothing of
// the password.
std::string password_of(std::string text, const std::string& what);

// Throws ConfigError.
SentinelCredentials read_sentinel_credentials(const SentinelOptions& options);

// Which files the certificates for Valkey are in, and when they were changed last: another text
// once one is replaced. Empty: there are none.
std::string certificates_seen(const Config& config);

// Warns of each secret that others can read: a line with the file or flag and the remedy.
std::vector<std::string> secret_warnings(const ConfigSources& sources, const Config& config);

// Overwrites the passwords of URLs in place: everybody can read the arguments of a process.
void hide_passwords(std::span<char* const> arguments);
// The same for the environment, which children would inherit. Copies are the caller's.
void hide_secrets_in_environment();

}  // namespace nearkey
