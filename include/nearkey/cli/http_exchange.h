// One HTTP request and its answer, over a Unix socket or loopback TCP.
// It blocks, has no loop, never takes longer than its timeout, and never holds more than
// kHttpAnswerMax bytes of the answer.
#pragma once

#include "nearkey/cli/http_answer.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace nearkey {

constexpr size_t kHttpAnswerMax = size_t{16} << 20;

struct HttpRequest {
    std::string_view method;  // "GET" or "POST", without a body
    std::string target;       // path and query
};

struct HttpOutcome {
    enum class Kind {
        Answered,  // `answer` is whole
        Nobody,    // no such socket, or nobody listens there
        Denied,    // the socket may not be opened
        Late,      // not within the timeout
        Lost,      // the connection ended before the answer did
        TooLong,   // than kHttpAnswerMax
        NotHttp,
    };

    Kind kind = Kind::Nobody;
    HttpAnswer answer;
    int error = 0;  // of Nobody and Denied: errno, 0 if it is no address
};

// `address` as parse_socket_address() takes it. REQUIRES: timeout_ms > 0.
HttpOutcome ask_http(const std::string& address, const HttpRequest& request, int timeout_ms);

}  // namespace nearkey
