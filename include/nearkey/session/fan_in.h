// A subscriber of a Valkey Cluster: it has a feed from each node that it needs, and reads one
// stream of whole messages, as one server would send it. Owned by Conversation, from the first
// SUBSCRIBE or MONITOR to RESET or the client's end; its ordinary commands go the ordinary ways.
//
// The one rule: the client is confirmed a name once all the nodes that should have it do, and reads
// nothing of the name before that or after it was told that it has it no more. Confirmations are
// written here, with the client's own counts.
#pragma once

#include "nearkey/session/desk.h"
#include "nearkey/session/feeds.h"
#include "nearkey/session/subscription_kind.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace nearkey {

class FanIn final : private FeedsEvents {
public:
    // REQUIRES: a cluster, which outlives it.
    explicit FanIn(Desk& desk);
    ~FanIn();

    // (P|S)SUBSCRIBE, (P|S)UNSUBSCRIBE, MONITOR, and a RESP2 subscriber's PING.
    Executed execute(const Call& call);
    // What the client hears decides about what it may run.
    Hearing hearing() const;
    // Messages that have waited for the end of a reply. REQUIRES: the output ends with a whole one.
    void show_held();
    // A client that does not read is left to the servers' own limits. While memory is short nothing
    // more is read for it.
    void update_reading();
    // Of names, and of messages that the client can't be given yet.
    size_t memory_bytes() const { return sizeof(*this) + waiting_bytes() + feeds_.memory_bytes(); }
    // RESET: the client leaves all that it has. Nothing: the nodes know.
    std::optional<Executed> leave_all();
    // The command that waited is over: the nodes are asked for nothing that the client has not.
    void forget_waiting();
    // The client is over.
    void close();

private:
    // FeedsEvents
    void on_message(const Subscription& subscription, std::string_view frame) override;
    void on_feed_read() override;
    void on_answered() override {
        if (feeds_.is_asking() || is_leaving_) desk_.pauses.unpause(PauseReason::kLease);
    }
    void on_feeds_lost(std::string_view why) override;

    Executed subscribe(const Call& call, SubscriptionKind kind);
    void confirm(const Call& call, SubscriptionKind kind);
    void drop_unshown();
    Executed unsubscribe(const Call& call, SubscriptionKind kind);
    // Nothing: a server would confirm it. Otherwise it has been answered, or is asked.
    std::optional<Executed> unsubscribe_from_nothing(const Call& call, SubscriptionKind kind);
    // The same for names that it leaves.
    std::optional<Executed> leave(const CommandView& command, SubscriptionKind kind);
    Executed pause_for_nodes();
    void answer_ping(const Call& call);
    void remove(SubscriptionKind kind, Feeds::Names::iterator found);
    // As the server counts in its confirmations.
    size_t count(SubscriptionKind kind) const;
    void append_confirmation(std::string& reply, std::string_view word, SubscriptionKind kind,
                             const std::string_view* name) const;
    size_t waiting_bytes() const { return held_.capacity() + early_.capacity(); }
    size_t unsent() const { return desk_.unsent() + held_.size() + early_.size(); }

    Desk& desk_;
    Feeds feeds_;
    std::array<size_t, kSubscriptionWords.size()> shown_{};  // names that the client has
    std::string early_;        // messages for names that are to be confirmed first
    std::string held_;         // messages that came in the middle of a reply
    bool is_leaving_ = false;  // the nodes were told of what the next command leaves
    bool is_monitor_ = false;
};

}  // namespace nearkey
