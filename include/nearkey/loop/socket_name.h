// What the two ends of a socket are called, and whether a descriptor is the file of a name.
// For logs, pages, and matching what another process has opened.
#pragma once

#include <string>

namespace nearkey {

// "/path", "127.0.0.1:1234" or "[::1]:1234"; empty: it has none.
std::string local_name(int fd);
std::string peer_name(int fd);

// False also if either is gone.
bool is_same_file(int fd, const std::string& path);

}  // namespace nearkey
