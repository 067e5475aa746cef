// Where the password for Valkey stands: in the URL, a file, a systemd credential or the
// environment; in one place only. It is read anew at each reload, and when Valkey refuses it.
// The one rule: no message holds a secret.
#pragma once

#include "nearkey/daemon/config.h"
#include "nearkey/upstream/url.h"

#include <span>
#include <string>
#include <vector>

namespace nearkey {

// upstream.url with user and password from wherever they stand. Throws ConfigError.
UpstreamUrl read_upstream(const Config& config, const Environment& environment);

// Who else can read a secret; each one line that names the file or flag and what to do.
std::vector<std::string> secret_warnings(const ConfigSources& sources, const Config& config);

// Overwrites the passwords of URLs in place: everybody can read the arguments of a process.
void hide_passwords(std::span<char* const> arguments);
// The same for the environment, which children would inherit. Copies are the caller's.
void hide_secrets_in_environment();

}  // namespace nearkey
