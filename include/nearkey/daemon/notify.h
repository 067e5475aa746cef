// Tells systemd (Type=notify) how far we are. Without systemd, and in a build without libsystemd
// (no NEARKEY_HAVE_SYSTEMD), these do nothing. They never fail: nobody depends on being heard.
#pragma once

#include <string_view>

namespace nearkey {

// READY=1 and the status line of `systemctl status`.
void notify_ready(std::string_view status);
void notify_status(std::string_view status);
void notify_stopping();

}  // namespace nearkey
