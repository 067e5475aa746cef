#include "nearkey/daemon/notify.h"

#ifdef NEARKEY_HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#include <algorithm>
#include <string>
#endif

namespace nearkey {

#ifdef NEARKEY_HAVE_SYSTEMD

namespace {

// A line break would begin another field of the message.
std::string status_field(std::string_view status) {
    std::string field = "STATUS=" + std::string(status);
    std::replace(field.begin(), field.end(), '\n', ' ');
    return field;
}

// Keeps NOTIFY_SOCKET: there is more to say later.
void notify(const std::string& message) {
    static_cast<void>(sd_notify(0, message.c_str()));
}

}  // namespace

void notify_ready(std::string_view status) {
    notify("READY=1\n" + status_field(status));
}
void notify_status(std::string_view status) {
    notify(status_field(status));
}
void notify_stopping() {
    notify("STOPPING=1");
}

#else

void notify_ready(std::string_view) {
}
void notify_status(std::string_view) {
}
void notify_stopping() {
}

#endif

}  // namespace nearkey
