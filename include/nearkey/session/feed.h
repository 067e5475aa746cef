// What one node of a cluster publishes to one client: a lease in RESP3, whatever the client speaks,
// so that messages stand apart from replies. Owned by FanIn, which subscribes over it and merges
// the messages of several.
//
//   Waiting ──a lease──▶ Proving ──PONG──▶ Open
//      any ──lost, refused, close()──▶ Over: it is no more, and another must be made
//
// The one rule: behind each command to subscribe stands an UNWATCH, which a server answers in any
// state. What comes before that answer is of that command, and its errors are; so nothing has to be
// counted, and a channel that the server takes away by itself (its slot has moved) confuses nobody.
#pragma once

#include "nearkey/resp/reply_scanner.h"
#include "nearkey/session/desk.h"
#include "nearkey/session/subscription_kind.h"
#include "nearkey/upstream/connection_use.h"
#include "nearkey/upstream/leases.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class Feed;

// A message, valid during the call.
struct FeedMessage {
    SubscriptionKind kind;
    std::string_view name;     // what was subscribed to
    std::string_view channel;  // where it was published
    std::string_view frame;    // all of it, as it came
};

// Commands that subscribe, or the opposite, and their answer.
struct FeedOrder {
    uint64_t number;
    SubscriptionKind kind;
    bool subscribes;
    std::vector<std::string> names;
    uint64_t sent_ms = 0;    // 0: not sent yet
    std::string error = {};  // of the server, without "-" and line end
};

// Events that a feed tells FanIn. None may destroy a feed; close() is allowed.
class FeedEvents {
public:
    virtual void on_message(Feed& feed, const FeedMessage& message) = 0;
    // A line of MONITOR.
    virtual void on_line(Feed& feed, std::string_view line) = 0;
    // The server says that the shard channel is not subscribed to: asked, or by itself.
    virtual void on_taken_away(Feed& feed, std::string_view channel) = 0;
    // The server has answered it; everything before was of it.
    virtual void on_order_done(Feed& feed, const FeedOrder& order) = 0;
    // Some bytes were read, the messages in them told of.
    virtual void on_feed_read() = 0;
    // open() may succeed now. Only schedules.
    virtual void on_feed_possible() = 0;
    // It is Over. Only schedules.
    virtual void on_feed_over(Feed& feed, std::string_view why) = 0;

protected:
    ~FeedEvents() = default;
};

class Feed final : private ConnectionOwner, private LeaseWaiter, private ReplyReceiver {
public:
    // All outlive it; the node does while it is not Over.
    Feed(Desk& desk, Node& node, FeedEvents& events);
    ~Feed();
    Feed(const Feed&) = delete;
    Feed& operator=(const Feed&) = delete;

    // Takes a lease, once there is one; called again after on_feed_possible().
    void open();
    // Returns the order's number. It is sent once the feed is open. One to subscribe to nothing
    // only waits for the answers to all before it. REQUIRES: it is not over.
    uint64_t order(SubscriptionKind kind, bool subscribes, std::vector<std::string> names);
    // The order that is being answered, or the last one.
    uint64_t answering() const { return orders_.empty() ? last_order_ : orders_.front().number; }
    // Some have waited for an answer for so long.
    bool is_silent(uint64_t now_ms, uint64_t patience_ms) const {
        return !orders_.empty() && orders_.front().sent_ms != 0 &&
               orders_.front().sent_ms + patience_ms < now_ms;
    }
    // It has not said yet that it has left something.
    bool owes_leaving() const {
        return std::any_of(orders_.begin(), orders_.end(), [](const FeedOrder& order) {
            return !order.subscribes && !order.names.empty();
        });
    }
    void set_reading(bool is_reading);
    // It was not read for some time, and not all that the server had by then has come: if it is
    // lost, the server may have given up a client that is slow.
    bool is_behind() const { return behind_until_ != 0; }
    void close();

    bool is_of(const Node& node) const { return state_ != State::Over && node_ == &node; }
    const Node* node() const { return node_; }
    bool is_waiting() const { return state_ == State::Waiting; }
    bool is_open() const { return state_ == State::Open; }
    bool is_over() const { return state_ == State::Over; }
    // It has been open.
    bool has_served() const { return has_served_; }
    // REQUIRES: it is open.
    const Connection& connection() const { return *connection_; }
    // Of a message that is not whole.
    size_t memory_bytes() const { return sizeof(*this) + partial_.capacity(); }

    // How many subscriptions are at this feed.
    size_t places = 0;

private:
    enum class State : uint8_t { Waiting, Proving, Open, Over };

    // ConnectionOwner
    void on_tunnel_bytes(std::string_view bytes) override;
    void on_tunnel_room() override {}
    void on_connection_lost() override;
    // LeaseWaiter
    void on_lease_possible() override { events_.on_feed_possible(); }
    void on_lease_refused() override;
    // ReplyReceiver: of the PING that proves it
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t) override { return true; }
    void on_request_failed(uint32_t ticket, std::string_view error) override;

    void take(std::string_view frame);
    void take_push(std::string_view frame);
    void take_error(std::string_view line);
    void note_reply();
    void transmit(FeedOrder& order);
    void finish(std::string_view why);
    void give_back();

    Desk& desk_;
    Node* node_;
    FeedEvents& events_;
    State state_ = State::Waiting;
    bool is_reading_ = true;
    bool has_served_ = false;
    uint64_t behind_until_ = 0;  // the order behind all that waited; 0: nothing did
    Connection* connection_ = nullptr;
    std::string pong_;
    std::deque<FeedOrder> orders_;  // not answered yet
    uint64_t last_order_ = 0;
    ReplyScanner scanner_;
    std::string partial_;  // a frame that is not whole
};

}  // namespace nearkey
