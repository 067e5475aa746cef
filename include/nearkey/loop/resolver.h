// Host names -> numeric addresses, off the loop (uv_getaddrinfo).
// Nothing is remembered: a failover by name is found at the next attempt to connect.
#pragma once

#include "nearkey/loop/loop.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace nearkey {

// One question. Destroying it forgets the answer.
class Resolution {
public:
    struct Answer {
        std::vector<std::string> addresses;  // in the resolver's order; empty: see error
        std::string error;
    };
    // `callback` runs on the loop, later, once. A host that is an address is answered at once, a
    // name by one of libuv's threads, of which there are two for names: that may take long, also
    // when nobody waits any more.
    Resolution(Loop& loop, const std::string& host, std::function<void(const Answer&)> callback);
    ~Resolution();
    static bool is_address(const std::string& host);
    Resolution(const Resolution&) = delete;
    Resolution& operator=(const Resolution&) = delete;

private:
    struct Pending;
    Pending* pending_;  // frees itself when libuv has answered
    std::unique_ptr<Timer> late_answer_;
};

}  // namespace nearkey
