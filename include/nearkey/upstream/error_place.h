// Tells of an error which node of a cluster it is about, and which slot: clients and their logs say
// then where to look. Made only when a request fails; of one server nothing changes.
#pragma once

#include "nearkey/upstream/connection_context.h"

#include <string>
#include <string_view>

namespace nearkey {

// "UPSTREAMLOST ... was lost; may have run" of a request, canonical RESP, becomes "UPSTREAMLOST ...
// was lost (slot 866, node 10.0.0.3:6379); may have run". Without its bytes, or without a key, it
// has no slot. Of one server, and if these are the server's words, the error stays as it is.
std::string with_place(std::string_view error, const ConnectionContext& context,
                       std::string_view request);
// The same, with a place in words; empty: the error stays as it is.
std::string with_place(std::string_view error, std::string_view place);
// "slot 866, node 10.0.0.3:6379"; a slot below 0 is left out.
std::string place_in_words(int slot, std::string_view node);

}  // namespace nearkey
