// What sessions keep for the next commands, given back.
#include "nearkey/session/session.h"

namespace nearkey {

void SessionContext::shrink() {
    encoded = {};
    keys = {};
    missing = {};
    arguments = {};
    pttl = {};
}

void Session::shrink() {
    fills_.shrink();
    writes_.shrink();
    unstored_reads_.shrink();
    steps_.shrink();
    late_fills_.shrink_to_fit();
    slow_.shrink_to_fit();
}

}  // namespace nearkey
