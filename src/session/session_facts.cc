#include "nearkey/session/session.h"

namespace nearkey {

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
            .identity = identity_,
            .route = route,
            .commands = commands_,
            .bytes_in = bytes_in_,
            .bytes_out = bytes_out_,
            .buffered_bytes = accounted_,
            .in_flight = owed(),
            .connected_ms = connected_ms_,
            .active_ms = active_ms_};
}

}  // namespace nearkey
