// The file descriptors that the process may have: one for each client and each connection.
// Called once, before anything is opened.
#pragma once

namespace nearkey {

// Raises the soft limit to the hard one. Throws std::runtime_error if that is too few to work with.
void provide_descriptors();

}  // namespace nearkey
