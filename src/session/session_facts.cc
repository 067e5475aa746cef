#include "nearkey/session/session.h"

#include <string>

namespace nearkey {

namespace {
// Names can be as long as any argument; so much of them is shown.
std::string shown(const std::string& name) {
    return name.size() <= ClientFacts::kNameMax ? name
                                                : name.substr(0, ClientFacts::kNameMax) + "...";
}
}  // namespace

ClientFacts Session::facts() const {
    std::string_view route = "none";
    if (tunnel_ != nullptr) {
        route = "tunnel";
    } else if (is_in_transaction()) {
        route = "transaction";
    } else if (lease_ != nullptr) {
        route = "leased";
    } else if (connection_ != nullptr) {
        route = "shared";
    }
    return {.session = id_,
            .fd = stream_->fd(),
            .protocol = protocol_,
            .database = database_,
            .identity = {.name = shown(identity_.name),
                         .library = shown(identity_.library),
                         .library_version = shown(identity_.library_version)},
            .route = route,
            .commands = commands_,
            .bytes_in = bytes_in_,
            .bytes_out = bytes_out_,
            .buffered_bytes = memory_bytes(),
            .in_flight = owed(),
            .connected_ms = connected_ms_,
            .active_ms = active_ms_};
}

}  // namespace nearkey
