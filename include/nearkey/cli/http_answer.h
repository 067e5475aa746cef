// An HTTP/1.1 answer, from all the bytes that came until the connection's end.
// A value: it knows no socket. Bytes that are not whole, or no HTTP, are never taken for an answer.
#pragma once

#include <string>
#include <string_view>

namespace nearkey {

struct HttpAnswer {
    enum class State {
        Whole,
        CutShort,  // the connection ended before the answer did
        NotHttp,
    };

    State state = State::NotHttp;
    unsigned status = 0;  // 100 to 599 if it is whole
    std::string body;     // by Content-Length, in chunks, or up to the end
};

HttpAnswer parse_http_answer(std::string_view bytes);

}  // namespace nearkey
