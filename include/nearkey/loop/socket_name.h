// The address of a socket in text, and whether a descriptor is the file of a name.
// For logs, pages, and matching sockets that another process has opened.
#pragma once

#include <string>

namespace nearkey {

// "/path", "127.0.0.1:1234" or "[::1]:1234"; empty: it has none.
std::string local_name(int fd);
std::string peer_name(int fd);

// True if the path leads to the descriptor's file. False also if either is gone.
bool is_same_file(int fd, const std::string& path);

}  // namespace nearkey
