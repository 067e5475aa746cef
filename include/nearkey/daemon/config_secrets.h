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

// upstream.url with user and password from wherever they are. Throws ConfigError.
UpstreamUrl read_upstream(const Config& config, const Environment& environment);

// Throws ConfigError.
SentinelCredentials read_sentinel_credentials(const SentinelOptions& options);

// Warns of each secret that others can read: a line with the file or flag and the remedy.
std::vector<std::string> secret_warnings(const ConfigSources& sources, const Config& config);

// Overwrites the passwords of URLs in place: everybody can read the arguments of a process.
void hide_passwords(std::span<char* const> arguments);
// The same for the environment, which children would inherit. Copies are the caller's.
void hide_secrets_in_environment();

}  // namespace nearkey
