// The feeds of one subscriber of a Valkey Cluster: what it is subscribed to, and at which nodes.
// Owned by FanIn, which adds and removes names and gets their messages.
//
//   a channel, a pattern    at one node, the home feed: PUBLISH reaches all
//   ... that may be about keyspace events (__keyspace@, __keyevent@), MONITOR
//                           at all nodes that own slots; what was published is the home feed's
//   a shard channel         at the owner of its slot, also after the slot has moved
//
// The one rule: names_ says what the client has, each name where the nodes have it, and work()
// makes the one like the other, whatever has happened: a feed lost, a slot moved, a node come or
// gone. Nothing else subscribes.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/feed.h"
#include "nearkey/session/subscription_kind.h"

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

// A feed where a name is subscribed to.
struct SubscriptionPlace {
    Feed* feed;
    uint64_t order;
    bool is_confirmed;
};

struct Subscription {
    std::vector<SubscriptionPlace> places;
    uint64_t missing_ms = 0;     // since when the nodes do not have it; 0: they do
    uint16_t slot = 0;           // of a shard channel
    bool is_everywhere = false;  // at all nodes that own slots
    bool is_shown = false;       // the client has been told that it has it
    bool is_leaving = false;     // announce_leaving() was called
};

// Events that feeds tell FanIn.
class FeedsEvents {
public:
    // A message for it, or a line of MONITOR.
    virtual void on_message(const Subscription& subscription, std::string_view frame) = 0;
    // What was read is told of.
    virtual void on_feed_read() = 0;
    // is_answered() is true by now.
    virtual void on_answered() = 0;
    // What the client has can't be had any more.
    virtual void on_feeds_lost(std::string_view why) = 0;

protected:
    ~FeedsEvents() = default;
};

class Feeds final : private FeedEvents, private PrimariesWatch {
public:
    using Names = std::map<std::string, Subscription, std::less<>>;

    // REQUIRES: a cluster, which outlives it.
    Feeds(Desk& desk, FeedsEvents& events);
    ~Feeds();
    Feeds(const Feeds&) = delete;
    Feeds& operator=(const Feeds&) = delete;
    void close();

    Names& names(SubscriptionKind kind) { return names_[static_cast<size_t>(kind)]; }
    // The nodes are asked by work().
    void add(SubscriptionKind kind, std::string_view name);
    // The nodes are told by leave().
    void remove(SubscriptionKind kind, Names::iterator found);
    // The same before it is removed: what the nodes have published until they know is the client's,
    // and what they count afterwards is without it.
    void announce_leaving(SubscriptionKind kind, Names::iterator found);
    void leave();
    // They know, or have had their time.
    bool has_left() const { return left_ms_ == 0; }
    void work();

    // --- the client's command, which waits for the nodes
    // Names that are not shown yet were added.
    void ask();
    // The client has nothing to unsubscribe from: a server's word about that is wanted.
    void probe(SubscriptionKind kind);
    bool is_asking() const { return is_asking_; }
    // All nodes have all of it, or it is refused.
    bool is_answered() const;
    // The reason why it is refused; empty: it is not. Nothing is asked any more.
    std::string end_asking();

    bool is_reading() const { return is_reading_; }
    void set_reading(bool is_reading);
    size_t memory_bytes() const { return bytes_ + partial_bytes(); }
    // Of messages that are not whole.
    size_t partial_bytes() const;

private:
    // A name by its kind; a view into names_.
    using Key = std::pair<SubscriptionKind, std::string_view>;
    using Place = SubscriptionPlace;
    // Names that can be ordered together at one feed: shard channels are of one slot.
    struct Batch {
        Feed* feed;
        SubscriptionKind kind;
        uint16_t slot;
        auto operator<=>(const Batch&) const = default;
    };
    using Batches = std::map<Batch, std::vector<std::string>>;
    enum class Probe : uint8_t { None, Wanted, Sent };

    // FeedEvents
    void on_message(Feed& feed, const FeedMessage& message) override;
    void on_line(Feed& feed, std::string_view line) override;
    void on_taken_away(Feed& feed, std::string_view channel) override;
    void on_order_done(Feed& feed, const FeedOrder& order) override;
    void on_feed_read() override { events_.on_feed_read(); }
    void on_feed_possible() override { wake(0); }
    void on_feed_over(Feed& feed, std::string_view why) override;
    // PrimariesWatch
    void on_primaries_changed() override { wake(0); }

    void wake(uint64_t delay_ms);
    void drop_feeds();
    void place(Key key, Subscription& subscription);
    void place_at(Feed* feed, Key key, Subscription& subscription);
    void send_batches();
    bool take_answer(Feed& feed, const FeedOrder& order);
    void judge(Key key, Subscription& subscription);
    void unsettle(Key key, Subscription& subscription);
    void lose_feed(Feed& feed);
    Feed* feed_of(Node& node);
    Feed* home();
    void place_all();
    void check_patience();
    bool is_late();
    void tell_moved();
    bool is_over() const { return is_closed_ || desk_.is_over(); }

    Desk& desk_;
    FeedsEvents& events_;
    Cluster& cluster_;
    Timer timer_;
    uint64_t due_ms_ = 0;  // of timer_
    std::array<Names, kSubscriptionWords.size()> names_;
    size_t bytes_ = 0;  // of names_
    // What the nodes do not have, or not all of them.
    std::map<Key, Subscription*> unsettled_;
    // Some of it may have no place yet, or must be looked at for another reason than the time.
    bool is_placing_due_ = false;
    uint32_t placed_version_ = 0;  // of the cluster's map, when places were looked for last
    uint64_t late_ms_ = 0;         // before that nothing has been missing for too long
    Batches joining_;
    Batches leaving_;
    std::vector<std::unique_ptr<Feed>> feeds_;
    std::vector<Node*> primaries_;
    Feed* home_ = nullptr;
    size_t moved_ = 0;  // names that were subscribed to anew, not told of yet

    uint64_t asked_ms_ = 0;
    std::string refusal_;
    std::string last_words_;  // of the last try that failed
    Probe probe_ = Probe::None;
    SubscriptionKind probe_kind_ = SubscriptionKind::Channel;
    uint64_t probe_order_ = 0;  // at the home feed

    uint64_t left_ms_ = 0;  // when some were told that have not answered; 0: none

    bool is_asking_ = false;
    bool is_reading_ = true;
    bool is_closed_ = false;
};

}  // namespace nearkey
