#include "nearkey/session/feeds.h"

#include "nearkey/resp/glob.h"
#include "nearkey/resp/redirect.h"
#include "nearkey/resp/slot.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>

namespace nearkey {

namespace {
using Kind = SubscriptionKind;

constexpr uint64_t kRetryMs = 100;
constexpr uint64_t kMovedMs = 10;
// Memory of a name beside its bytes.
constexpr size_t kChannelNameBytes = 160;

constexpr std::string_view kEventPrefixes[] = {"__keyspace@", "__keyevent@"};

// What a node tells its own clients alone.
bool is_event_channel(std::string_view channel) {
    return std::any_of(std::begin(kEventPrefixes), std::end(kEventPrefixes),
                       [channel](std::string_view prefix) { return channel.starts_with(prefix); });
}

bool is_everywhere(SubscriptionKind kind, std::string_view name) {
    if (kind == Kind::Channel) return is_event_channel(name);
    if (kind != Kind::Pattern) return kind == Kind::Monitor;
    return std::any_of(std::begin(kEventPrefixes), std::end(kEventPrefixes),
                       [name](std::string_view prefix) { return may_match_behind(name, prefix); });
}

// No client reads of another server.
std::string words_for_client(const FeedOrder& order, const std::optional<Redirect>& redirect) {
    const bool names_node = redirect && (redirect->kind == Redirect::Kind::Moved ||
                                         redirect->kind == Redirect::Kind::Ask);
    return names_node ? "TRYAGAIN its slot moved, where to is not known yet; not subscribed"
                      : order.error;
}
}  // namespace

Feeds::Feeds(Desk& desk, FeedsEvents& events)
    : desk_(desk),
      events_(events),
      cluster_(*desk.context.cluster),
      timer_(desk.context.loop, [this] { work(); }),
      primaries_(cluster_.primaries.nodes()) {
    cluster_.primaries.watch(*this);
}

Feeds::~Feeds() {
    close();
}

void Feeds::close() {
    if (std::exchange(is_closed_, true)) return;
    cluster_.primaries.unwatch(*this);
    timer_.stop();
    for (const auto& feed : feeds_)
        feed->close();
}

// --- names ---

void Feeds::add(SubscriptionKind kind, std::string_view name) {
    const auto [found, is_new] = names(kind).try_emplace(std::string(name));
    if (!is_new) return;
    Subscription& subscription = found->second;
    bytes_ += name.size() + kChannelNameBytes;
    if (kind == Kind::Shard) subscription.slot = slot_of(name);
    subscription.is_everywhere = is_everywhere(kind, name);
    unsettle({kind, found->first}, subscription);
}

void Feeds::remove(SubscriptionKind kind, Names::iterator found) {
    Subscription& subscription = found->second;
    for (const Place& place : subscription.places) {
        --place.feed->places;
        leaving_[{place.feed, kind, subscription.slot}].push_back(found->first);
    }
    bytes_ -= found->first.size() + kChannelNameBytes;
    unsettled_.erase(Key{kind, found->first});
    names(kind).erase(found);
}

void Feeds::announce_leaving(SubscriptionKind kind, Names::iterator found) {
    Subscription& subscription = found->second;
    if (std::exchange(subscription.is_leaving, true)) return;
    for (const Place& place : subscription.places)
        leaving_[{place.feed, kind, subscription.slot}].push_back(found->first);
}

void Feeds::leave() {
    for (auto& [batch, names] : std::exchange(leaving_, {})) {
        // MONITOR ends with its connection.
        if (batch.kind == Kind::Monitor || batch.feed->is_over()) continue;
        batch.feed->order(batch.kind, false, names);
        left_ms_ = std::max<uint64_t>(desk_.context.loop.now_ms(), 1);
    }
    wake(0);
}

// --- the client's command ---

void Feeds::ask() {
    is_asking_ = true;
    asked_ms_ = desk_.context.loop.now_ms();
    last_words_.clear();
    work();
}

void Feeds::probe(SubscriptionKind kind) {
    probe_ = Probe::Wanted;
    probe_kind_ = kind;
    ask();
}

bool Feeds::is_answered() const {
    if (!refusal_.empty()) return true;
    return probe_ == Probe::None &&
           std::all_of(unsettled_.begin(), unsettled_.end(),
                       [](const auto& each) { return each.second->is_shown; });
}

std::string Feeds::end_asking() {
    is_asking_ = false;
    probe_ = Probe::None;
    return std::exchange(refusal_, {});
}

void Feeds::check_patience() {
    // A feed that is to answer something of it has not given up.
    const auto is_asked_for = [this] {
        return probe_ == Probe::Sent ||
               std::any_of(unsettled_.begin(), unsettled_.end(), [](const auto& each) {
                   const Subscription& subscription = *each.second;
                   return !subscription.is_shown &&
                          std::any_of(subscription.places.begin(), subscription.places.end(),
                                      [](const Place& at) { return !at.is_confirmed; });
               });
    };
    const uint64_t now_ms = desk_.context.loop.now_ms();
    const UpstreamOptions& options = desk_.context.node.options();
    // The answers are not read.
    if (!is_reading_) asked_ms_ = now_ms;
    if (is_asking_ && !is_answered()) {
        const uint64_t waited_ms = now_ms - asked_ms_;
        if (waited_ms >= options.request_timeout_ms) {
            refusal_ = "UPSTREAMTIMEOUT Valkey did not answer in time; not subscribed";
        } else if (waited_ms >= options.queue_timeout_ms && !is_asked_for()) {
            refusal_ = !last_words_.empty() ? last_words_
                       : cluster_.serves()
                           ? "CLUSTERDOWN Hash slot not served"
                           : fmt::format("UPSTREAMDOWN {}; not subscribed", cluster_.why_not());
        }
    }
    if (is_asking_ && is_answered()) events_.on_answered();
    const bool owes_leaving = is_reading_ && left_ms_ + options.request_timeout_ms > now_ms &&
                              std::any_of(feeds_.begin(), feeds_.end(), [](const auto& feed) {
                                  return !feed->is_over() && feed->owes_leaving();
                              });
    if (left_ms_ != 0 && !owes_leaving) {
        left_ms_ = 0;
        events_.on_answered();
    }
    if (is_late()) events_.on_feeds_lost(last_words_.empty() ? "no node has it" : last_words_);
}

// Something that the client has is missing for too long. What is missing later is too late later:
// a hundred thousand names are not looked at each time.
bool Feeds::is_late() {
    const uint64_t now_ms = desk_.context.loop.now_ms();
    if (now_ms < late_ms_) return false;
    const uint64_t patience_ms = desk_.context.node.options().drain_timeout_ms;
    uint64_t oldest_ms = now_ms;
    for (const auto& [key, subscription] : unsettled_) {
        if (subscription->is_shown) oldest_ms = std::min(oldest_ms, subscription->missing_ms);
    }
    late_ms_ = oldest_ms + patience_ms + 1;
    return now_ms >= late_ms_;
}

// --- the nodes ---

void Feeds::wake(uint64_t delay_ms) {
    if (is_closed_) return;
    const uint64_t due_ms = desk_.context.loop.now_ms() + delay_ms;
    if (timer_.is_active() && due_ms_ <= due_ms) return;
    due_ms_ = due_ms;
    timer_.start_once(delay_ms);
}

void Feeds::work() {
    if (is_over()) return;
    drop_feeds();
    check_patience();
    if (is_over()) return;
    for (const auto& feed : feeds_)
        feed->open();
    place_all();
    if (probe_ == Probe::Wanted && home() != nullptr) {
        probe_ = Probe::Sent;
        probe_order_ = home_->order(probe_kind_, false, {});
    }
    for (const auto& feed : feeds_)
        if (feed->places == 0 && feed.get() != home_ && !feed->owes_leaving()) feed->close();
    if (!unsettled_.empty() || is_asking_ || left_ms_ != 0) wake(kRetryMs);
    tell_moved();
}

// Those that are over, of nodes that own nothing any more, or silent.
void Feeds::drop_feeds() {
    const bool is_changed = primaries_ != cluster_.primaries.nodes();
    primaries_ = cluster_.primaries.nodes();
    const uint64_t now_ms = desk_.context.loop.now_ms();
    const UpstreamOptions& options = desk_.context.node.options();
    const uint64_t patience_ms = options.request_timeout_ms + options.tombstone_timeout_ms;
    for (const auto& feed : feeds_) {
        if (feed->is_over()) continue;
        const bool owns = std::any_of(primaries_.begin(), primaries_.end(),
                                      [&feed](const Node* node) { return feed->is_of(*node); });
        if (owns && !(is_reading_ && feed->is_silent(now_ms, patience_ms))) continue;
        lose_feed(*feed);
        feed->close();
    }
    std::erase_if(feeds_, [](const auto& feed) { return feed->is_over(); });
    if (!is_changed) return;
    is_placing_due_ = true;
    for (size_t i = 0; i < names_.size(); ++i) {
        for (auto& [name, subscription] : names_[i]) {
            if (subscription.is_everywhere) judge({static_cast<Kind>(i), name}, subscription);
        }
    }
}

void Feeds::place_all() {
    const uint32_t version = cluster_.version();
    const bool is_moved = std::exchange(placed_version_, version) != version;
    if (!std::exchange(is_placing_due_, false) && !is_moved) return;
    for (const auto& [key, subscription] : unsettled_)
        place(key, *subscription);
    send_batches();
}

void Feeds::place(Key key, Subscription& subscription) {
    if (subscription.is_everywhere) {
        static_cast<void>(home());
        for (Node* const node : primaries_)
            place_at(feed_of(*node), key, subscription);
        return;
    }
    if (!subscription.places.empty()) return;
    if (key.first != Kind::Shard) {
        place_at(home(), key, subscription);
        return;
    }
    Node& owner = cluster_.owner(subscription.slot);
    const bool is_known =
        std::find(primaries_.begin(), primaries_.end(), &owner) != primaries_.end();
    if (is_known) place_at(feed_of(owner), key, subscription);
}

void Feeds::place_at(Feed* feed, Key key, Subscription& subscription) {
    if (feed == nullptr) {
        is_placing_due_ = true;
        return;
    }
    std::vector<Place>& places = subscription.places;
    const bool is_there = std::any_of(places.begin(), places.end(),
                                      [feed](const Place& place) { return place.feed == feed; });
    if (is_there) return;
    places.push_back({feed, 0, false});
    ++feed->places;
    joining_[{feed, key.first, subscription.slot}].emplace_back(key.second);
}

void Feeds::send_batches() {
    for (auto& [batch, joining] : std::exchange(joining_, {})) {
        const uint64_t order = batch.feed->order(batch.kind, true, joining);
        for (const std::string& name : joining) {
            for (Place& place : names(batch.kind).find(name)->second.places)
                if (place.feed == batch.feed) place.order = order;
        }
    }
}

// The feed from the node; null: it can't be had now.
Feed* Feeds::feed_of(Node& node) {
    for (const auto& feed : feeds_)
        if (feed->is_of(node)) return feed.get();
    FeedEvents& events = *this;
    feeds_.push_back(std::make_unique<Feed>(desk_, node, events));
    Feed& feed = *feeds_.back();
    feed.set_reading(is_reading_);
    feed.open();
    return feed.is_over() ? nullptr : &feed;
}

// The feed from the node for what is published at all; null: there is none now.
Feed* Feeds::home() {
    if (home_ != nullptr) return home_;
    if (primaries_.empty()) return nullptr;
    // Where PUBLISH goes, whose reply counts the subscribers of its node.
    Node* const node = &cluster_.home();
    const bool owns_slots =
        std::find(primaries_.begin(), primaries_.end(), node) != primaries_.end();
    return home_ = feed_of(owns_slots ? *node : *primaries_.front());
}

// Whether all nodes that should have the name do.
void Feeds::judge(Key key, Subscription& subscription) {
    const std::vector<Place>& places = subscription.places;
    const size_t wanted = subscription.is_everywhere ? primaries_.size() : 1;
    const bool is_there =
        wanted > 0 && places.size() == wanted &&
        std::all_of(places.begin(), places.end(), [](const Place& at) { return at.is_confirmed; });
    if (!is_there) {
        unsettle(key, subscription);
    } else if (std::exchange(subscription.missing_ms, 0) != 0) {
        unsettled_.erase(key);
        if (subscription.is_shown) ++moved_;
    }
}

void Feeds::unsettle(Key key, Subscription& subscription) {
    is_placing_due_ = true;
    if (subscription.missing_ms != 0) return;
    subscription.missing_ms = std::max<uint64_t>(desk_.context.loop.now_ms(), 1);
    unsettled_.emplace(key, &subscription);
}

void Feeds::lose_feed(Feed& feed) {
    if (home_ == &feed) {
        home_ = nullptr;
        if (probe_ == Probe::Sent) probe_ = Probe::Wanted;
    }
    feed.places = 0;
    for (size_t i = 0; i < names_.size(); ++i) {
        for (auto& [name, subscription] : names_[i]) {
            const size_t left = std::erase_if(
                subscription.places, [&feed](const Place& place) { return place.feed == &feed; });
            if (left > 0) unsettle({static_cast<Kind>(i), name}, subscription);
        }
    }
}

// --- what feeds tell ---

void Feeds::on_feed_over(Feed& feed, std::string_view why) {
    if (is_over()) return;
    last_words_ = why;
    lose_feed(feed);
    if (feed.is_behind()) {
        // The server has given up a client that takes too little, and so does nearkey.
        events_.on_feeds_lost("it was slow to read when its node was lost");
        return;
    }
    wake(feed.has_served() ? 0 : kRetryMs);
}

void Feeds::on_order_done(Feed& feed, const FeedOrder& order) {
    if (is_over()) return;
    const bool is_refused = !order.error.empty();
    if (!order.subscribes) {
        if (left_ms_ != 0 || feed.places == 0) wake(0);
        if (probe_ != Probe::Sent || &feed != home_ || order.number != probe_order_) return;
        probe_ = Probe::None;
        refusal_ = order.error;
        events_.on_answered();
        return;
    }
    const bool is_of_client = take_answer(feed, order);
    if (is_refused) {
        const auto redirect = read_redirect(order.error);
        last_words_ = words_for_client(order, redirect);
        if (redirect) {
            cluster_.follow(feed.connection(), *redirect, -1);
        } else if (is_of_client && order.error.starts_with("NOPERM")) {
            events_.on_feeds_lost("a subscription was refused");
            return;
        }
        const bool has_moved = redirect && redirect->kind == Redirect::Kind::Moved;
        wake(has_moved ? kMovedMs : kRetryMs);
    }
    if (is_asking_ && is_answered()) events_.on_answered();
    tell_moved();
}

// True if some of it is what the client has.
bool Feeds::take_answer(Feed& feed, const FeedOrder& order) {
    const bool is_refused = !order.error.empty();
    const bool is_final = is_refused && !read_redirect(order.error);
    bool is_shown = false;
    for (const std::string& name : order.names) {
        const auto found = names(order.kind).find(name);
        if (found == names(order.kind).end()) continue;
        Subscription& subscription = found->second;
        std::vector<Place>& places = subscription.places;
        const auto place = std::find_if(places.begin(), places.end(), [&](const Place& candidate) {
            return candidate.feed == &feed && candidate.order == order.number;
        });
        if (place == places.end()) continue;
        is_shown |= subscription.is_shown;
        place->is_confirmed = !is_refused;
        if (is_refused) {
            places.erase(place);
            --feed.places;
            if (is_final && !subscription.is_shown) refusal_ = order.error;
        }
        judge({order.kind, found->first}, subscription);
    }
    return is_shown;
}

void Feeds::on_taken_away(Feed& feed, std::string_view channel) {
    const auto found = names(Kind::Shard).find(channel);
    if (found == names(Kind::Shard).end() || found->second.is_leaving) return;
    // A place that was ordered behind what is being answered is not meant.
    const size_t left = std::erase_if(found->second.places, [&feed](const Place& place) {
        return place.feed == &feed && place.order <= feed.answering();
    });
    if (left == 0) return;
    --feed.places;
    cluster_.doubt();
    unsettle({Kind::Shard, found->first}, found->second);
    wake(0);
}

// Once what the client has is complete again.
void Feeds::tell_moved() {
    if (moved_ == 0 || !unsettled_.empty()) return;
    ++desk_.context.metrics.clients_moved_subscriber_total;
    desk_.context.metrics.cluster_subscriptions_moved_total += moved_;
    desk_.context.log.warning("subscriber_moved",
                              {{"what", "what was published meanwhile may be missing"},
                               {"session", static_cast<int64_t>(desk_.id)},
                               {"subscriptions", static_cast<int64_t>(moved_)},
                               {"tag", desk_.tag()}});
    moved_ = 0;
}

void Feeds::on_message(Feed& feed, const FeedMessage& message) {
    const auto found = names(message.kind).find(message.name);
    if (found == names(message.kind).end()) return;
    const Subscription& subscription = found->second;
    const auto place =
        std::find_if(subscription.places.begin(), subscription.places.end(),
                     [&feed](const Place& candidate) { return candidate.feed == &feed; });
    // One that was ordered behind what is being answered is not heard yet: this is the former's.
    if (place == subscription.places.end() || place->order > feed.answering()) return;
    // All nodes have what is published.
    if (subscription.is_everywhere && &feed != home_ && !is_event_channel(message.channel)) return;
    events_.on_message(subscription, message.frame);
}

void Feeds::on_line(Feed&, std::string_view line) {
    const auto found = names(Kind::Monitor).begin();
    if (found != names(Kind::Monitor).end()) events_.on_message(found->second, line);
}

void Feeds::set_reading(bool is_reading) {
    is_reading_ = is_reading;
    for (const auto& feed : feeds_)
        feed->set_reading(is_reading);
}

size_t Feeds::partial_bytes() const {
    size_t bytes = 0;
    for (const auto& feed : feeds_)
        bytes += feed->memory_bytes();
    return bytes;
}

}  // namespace nearkey
