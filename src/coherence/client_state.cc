#include "nearkey/coherence/client_state.h"

#include "nearkey/base/heap_bytes.h"

#include <string>

namespace nearkey {

void ClientState::count_identity() {
    identity_bytes = 0;
    for (std::string* const name : {&identity.name, &identity.library, &identity.library_version}) {
        name->shrink_to_fit();
        identity_bytes += heap_bytes(*name);
    }
}

}  // namespace nearkey
