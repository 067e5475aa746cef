// Tells systemd (Type=notify) how far we are, as sd_notify(3) and sd_watchdog_enabled(3) have it:
// lines in a datagram to $NOTIFY_SOCKET. Without that variable nothing is sent. Nothing here fails,
// or blocks for longer than a tenth of a second: nobody depends on being heard.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <string_view>

namespace nearkey {

// READY=1 and the status line of `systemctl status`.
void notify_ready(std::string_view status);
void notify_status(std::string_view status);
// RELOADING=1; notify_ready() ends it.
void notify_reloading();
void notify_stopping(std::string_view status);
// The service is `pid` from here on, and our own messages count no more.
void notify_main_pid(pid_t pid);
void notify_watchdog();

// WatchdogSec=, within which notify_watchdog() is expected; 0: it is not.
uint64_t watchdog_ms();

}  // namespace nearkey
