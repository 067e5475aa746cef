// The requests that a connection has taken and not sent, in order.
// Owned by a Pipeline. While there is no connection they wait for one, no longer than
// options.queue_timeout_ms, and no more of them than options.queue_* allow in all. Those that are
// held back on a connection that is ready wait as long as they would for their replies.
#pragma once

#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/request.h"

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

class WaitingRequests {
public:
    explicit WaitingRequests(ConnectionContext& context) : context_(context) {}

    bool empty() const { return requests_.empty(); }
    size_t size() const { return requests_.size(); }

    bool has_room(size_t bytes) const;
    void queue(std::string_view bytes, const PendingRequest& request);
    void hold_back(std::string_view bytes, const PendingRequest& request);
    // Puts back requests that were sent already, and go again before all others.
    void put_back(std::deque<UnsentRequest> sent);
    // The connection is lost: requests that were sent, or held back, wait for another one as new
    // ones do.
    void shorten_patience();
    // Takes the first one. REQUIRES: not empty.
    UnsentRequest take();
    void forget(const ReplyReceiver& receiver);
    // Takes those of which it is true, in order. `Matches`: bool(const UnsentRequest&).
    template <class Matches>
    std::vector<UnsentRequest> take_if(Matches matches) {
        std::vector<UnsentRequest> taken;
        std::erase_if(requests_, [&](UnsentRequest& entry) {
            if (!matches(entry)) return false;
            uncount(entry);
            taken.push_back(std::move(entry));
            return true;
        });
        return taken;
    }

    // `error` is for requests never sent; a read that was sent once may have run.
    void fail_all(std::string_view error);
    // Expires requests on a connection that is ready.
    void expire_held_back(uint64_t now_ms);
    // `patience_ms`: how much longer unsent requests may wait. `words`: the server's, in place of a
    // connection, or empty.
    void expire_queued(uint64_t now_ms, uint64_t patience_ms, const std::string& words);

private:
    void add(UnsentRequest request);
    void count(const UnsentRequest& request);
    void uncount(const UnsentRequest& request);
    void fail_first(std::string_view error);

    ConnectionContext& context_;
    std::deque<UnsentRequest> requests_;
};

}  // namespace nearkey
