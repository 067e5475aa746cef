// Requests that no server of a cluster runs now, each of which is tried again some time later.
// Owned by Cluster. The one rule: those that are due together are tried in the order in which they
// came.
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/loop/loop.h"
#include "nearkey/upstream/request.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <utility>

namespace nearkey {

class DelayedRequests {
public:
    static constexpr uint64_t kTickMs = 10;
    using OnDue = std::function<void(UnsentRequest request)>;
    // `metrics` outlives it: what waits is counted there as memory.
    DelayedRequests(Loop& loop, Metrics& metrics, OnDue on_due)
        : loop_(loop),
          metrics_(metrics),
          on_due_(std::move(on_due)),
          timer_(loop, [this] { tick(); }) {}

    // How long until the request is tried again; nothing: it has waited long enough.
    static std::optional<uint64_t> wait_of(const PendingRequest& request, uint64_t now_ms,
                                           uint64_t patience_ms);
    void push(UnsentRequest request, uint64_t wait_ms);
    // `Matches`: bool(const UnsentRequest&).
    template <class Matches>
    void drop_if(Matches matches) {
        std::erase_if(waiting_, [&](const Waiting& each) {
            if (!matches(each.request)) return false;
            metrics_.upstream_retained_bytes -= each.request.bytes.size();
            return true;
        });
    }
    void stop() { timer_.stop(); }

private:
    struct Waiting {
        UnsentRequest request;
        uint64_t due_ms;
    };
    void tick();

    Loop& loop_;
    Metrics& metrics_;
    const OnDue on_due_;
    Timer timer_;
    std::deque<Waiting> waiting_;
};

}  // namespace nearkey
