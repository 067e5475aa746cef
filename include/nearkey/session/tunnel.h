// What a session in a tunnel knows of it. What passes belongs to the client and the server; the
// replies are followed only for the errors to stand-ins (session_access.cc), and for the end.
#pragma once

#include "nearkey/resp/reply_scanner.h"

#include <string>

namespace nearkey {

struct Tunnel {
    ReplyScanner scanner;
    std::string error;          // held until it is whole: it may be one to a stand-in
    std::string last_words;     // held until the end: the replies to what we sent behind RESET
    bool has_refused = false;   // errors may be those to stand-ins for refused commands
    bool is_inside = false;     // the end of a reply has not come yet
    bool is_unread = false;     // up to the next line end, what comes is not RESP
    bool is_replica = false;    // it never is any more
    bool is_monitor = false;    // it sees what every client runs
    bool is_resetting = false;  // what follows RESET was sent: the server ends it
    bool is_refused = false;    // the server was told what is wrong with the input
    bool is_finishing = false;  // the client sends no more, and the server knows
    bool is_paused = false;     // the client does not take what comes

    // The server ends it, once it is not blocked; the client may leave before.
    bool is_left_to_server() const { return is_refused || is_resetting; }
};

}  // namespace nearkey
