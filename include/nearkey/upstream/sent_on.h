// Requests that a node of a cluster did not run and that another one has now: each stands between
// its receiver and the node until its reply is there.
//
// The one rule: requests of one receiver for one slot keep their order. One that is sent on goes
// only once all that were sent on before it are answered, or under way to the same node; until then
// it is held.
// Owned by Cluster, outlives all connections that a request was sent over.
#pragma once

#include "nearkey/base/metrics.h"
#include "nearkey/upstream/request.h"

#include <cstdint>
#include <functional>
#include <list>
#include <unordered_map>
#include <utility>

namespace nearkey {

class SentOn {
public:
    // Sends a request to a node, behind ASKING or not.
    using Send = std::function<void(uint16_t node, const UnsentRequest& request, bool is_asking)>;
    // `metrics` outlives it: what is held is counted there as memory.
    SentOn(Send send, Metrics& metrics) : send_(std::move(send)), metrics_(metrics) {}
    SentOn(const SentOn&) = delete;
    SentOn& operator=(const SentOn&) = delete;

    // Takes the place of its receiver from now on, unless it has that already. REQUIRES: there is
    // one.
    void take(UnsentRequest& request, int slot);
    // Sends a request that was taken to this node, now or behind others.
    void send(UnsentRequest request, uint16_t node, bool is_asking);
    // It will be sent later: what comes behind it is held.
    void delay(const UnsentRequest& request);
    // The slot with which it was taken, and whose request it is. REQUIRES: it was taken.
    static int slot_of(const UnsentRequest& request) { return hop_of(request).slot; }
    static bool is_of(const UnsentRequest& request, const ReplyReceiver& receiver);
    // No reply will be delivered to `receiver` any more. REQUIRES: its requests that were delayed
    // are dropped.
    void forget(const ReplyReceiver& receiver);
    // Some requests of this receiver are not answered yet.
    bool has_of(const ReplyReceiver& receiver) const { return lines_.contains(&receiver); }
    // It stands in a receiver's place.
    bool has(const ReplyReceiver& hop) const { return known_.contains(&hop); }
    // How many are not answered yet.
    size_t size() const { return known_.size(); }

private:
    enum class State : uint8_t {
        Taken,     // nobody has it: it is to be sent, or sent later
        Held,      // the same, until those before it in its line let it go
        UnderWay,  // a node has it, and its reply will end it
    };
    struct Hop final : ReplyReceiver {
        Hop(SentOn& owner, ReplyReceiver* to, uint32_t number, int of_slot)
            : all(owner), receiver(to), ticket(number), slot(of_slot) {}
        void on_reply_bytes(uint32_t, std::string_view bytes) override;
        void on_reply_end(uint32_t) override;
        bool on_reply_void(uint32_t) override;
        void on_request_failed(uint32_t, std::string_view error) override;
        bool on_request_delayed(uint32_t) override;
        void on_slow_request(uint32_t, const RequestTiming& timing, SlowEnd end) override;

        SentOn& all;
        ReplyReceiver* receiver;  // null: it has gone
        const ReplyReceiver* key = receiver;
        const uint32_t ticket;
        const int slot;
        State state = State::Taken;
        uint16_t node = 0;  // that has it, or will have it
        bool is_asking = false;
        UnsentRequest request{};  // while it is held
    };
    using Hops = std::list<Hop>;
    // Those of one receiver for one slot, in the order in which they were sent on first. Mostly all
    // are under way to one node: a thousand that a node has sent on must not be walked over for
    // each of them.
    struct Line {
        static bool is_at(const Hop& hop, uint16_t node) {
            return hop.state == State::UnderWay && hop.node == node;
        }
        void put(Hop& hop, State state, uint16_t node);
        void take_out(const Hop& hop);
        bool must_wait(const Hop& hop, uint16_t node) const;

        Hops hops;
        uint16_t common = 0;  // a node
        size_t there = 0;     // how many are under way to that
        size_t held = 0;
    };
    using Lines = std::unordered_map<int, Line>;  // by their slots

    static Hop& hop_of(const UnsentRequest& request) {
        return *static_cast<Hop*>(request.request.receiver);
    }
    Line& line_of(const Hop& hop) { return lines_.at(hop.key).at(hop.slot); }
    void send_held(const ReplyReceiver* key, int slot);
    void end(Hop& hop);
    void take_out(Hop& hop);
    UnsentRequest take_held(Hop& hop);

    const Send send_;
    Metrics& metrics_;
    std::unordered_map<const ReplyReceiver*, Lines> lines_;
    // All hops.
    std::unordered_map<const ReplyReceiver*, Hops::iterator> known_;
    Hops over_;  // ended in their own call
};

}  // namespace nearkey
