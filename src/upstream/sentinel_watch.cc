#include "nearkey/upstream/sentinel_watch.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kSentinelsMax = 64;
constexpr size_t kScratchSize = size_t{16} << 10;
// An older word counts once nobody has named the followed server for so long.
constexpr uint64_t kOverruledAfterMs = 3000;
constexpr uint64_t kRefusedForMs = 10'000;
}  // namespace

SentinelWatch::SentinelWatch(const Parts& parts, UpstreamUrl url)
    : parts_(parts),
      url_(std::move(url)),
      scratch_(kScratchSize),
      reaper_(parts.loop),
      context_{.loop = parts.loop,
               .metrics = parts.metrics,
               .scratch = scratch_,
               .reaper = reaper_,
               .options = parts_.options,
               .url = url_,
               .credentials = parts.credentials,
               .lookups = lookups_},
      peers_timer_(parts.loop, [this] { meet_peers(); }) {
    for (const Endpoint& sentinel : url_.sentinels) {
        known_.push_back({std::make_unique<SentinelLink>(context_, sentinel, *this), true, {}});
    }
    count();
}

SentinelWatch::~SentinelWatch() {
    parts_.metrics.sentinels_known = parts_.metrics.sentinels_reachable = 0;
}

void SentinelWatch::ask() {
    for (const Known& sentinel : known_)
        sentinel.link->ask();
}

std::optional<Endpoint> SentinelWatch::wanted() const {
    bool is_followed_named = false;
    uint64_t epoch = followed_epoch_;
    for (const Known& sentinel : known_) {
        const auto& word = sentinel.link->word();
        if (!word || word->primary != followed_) continue;
        is_followed_named = true;
        epoch = std::max(epoch, word->epoch);
    }
    const bool is_overruled =
        !is_followed_named && followed_named_ms_ + kOverruledAfterMs <= parts_.loop.now_ms();
    const bool does_any = followed_.host.empty() || is_overruled;
    const auto rank = [this](const SentinelWord& word) {
        return std::pair(!is_refused(word.primary), word.epoch);
    };
    const SentinelWord* best = nullptr;
    for (const Known& sentinel : known_) {
        const auto& word = sentinel.link->word();
        const bool counts = word && word->primary != followed_ && (does_any || word->epoch > epoch);
        if (counts && (best == nullptr || rank(*word) > rank(*best))) best = &*word;
    }
    return best == nullptr ? std::nullopt : std::optional(best->primary);
}

bool SentinelWatch::is_refused(const Endpoint& primary) const {
    const uint64_t now_ms = parts_.loop.now_ms();
    return std::any_of(refused_.begin(), refused_.end(), [&](const Refused& refused) {
        return refused.primary == primary && now_ms < refused.since_ms + kRefusedForMs;
    });
}

void SentinelWatch::refuse(const Endpoint& primary) {
    const uint64_t now_ms = parts_.loop.now_ms();
    std::erase_if(refused_, [&](const Refused& refused) {
        return refused.primary == primary || refused.since_ms + kRefusedForMs <= now_ms;
    });
    if (refused_.size() < kSentinelsMax) refused_.push_back({primary, now_ms});
}

void SentinelWatch::follow(const Endpoint& primary) {
    followed_ = primary;
    followed_epoch_ = 0;
    followed_named_ms_ = parts_.loop.now_ms();
    for (const Known& sentinel : known_) {
        const auto& word = sentinel.link->word();
        if (word && word->primary == followed_)
            followed_epoch_ = std::max(followed_epoch_, word->epoch);
    }
    count();
}

bool SentinelWatch::is_named_since(const Endpoint& primary, uint64_t since_ms) const {
    return std::any_of(known_.begin(), known_.end(), [&](const Known& sentinel) {
        const auto& word = sentinel.link->word();
        return word && word->primary == primary && word->asked_ms >= since_ms;
    });
}

bool SentinelWatch::has_reachable() const {
    return std::any_of(known_.begin(), known_.end(),
                       [](const Known& sentinel) { return sentinel.link->word().has_value(); });
}

std::vector<SentinelFacts> SentinelWatch::facts() const {
    std::vector<SentinelFacts> all;
    for (const Known& sentinel : known_) {
        const SentinelLink& link = *sentinel.link;
        const bool has_word = link.word().has_value();
        all.push_back({to_text(link.where()), has_word,
                       has_word ? "names " + to_text(link.word()->primary) : link.problem()});
    }
    return all;
}

// --- what they say ---

void SentinelWatch::on_answer(SentinelLink& link) {
    const SentinelWord& word = *link.word();
    if (word.primary == followed_) {
        followed_named_ms_ = parts_.loop.now_ms();
        followed_epoch_ = std::max(followed_epoch_, word.epoch);
    }
    on_problem(link);
    peers_timer_.start_once(0);
    if (events_ != nullptr) events_->on_sentinel_word(word);
}

// Logs each state once, not each second.
void SentinelWatch::on_problem(SentinelLink& link) {
    count();
    Known& sentinel = known(link);
    const std::string said = link.word() ? to_text(link.word()->primary) : link.problem();
    if (std::exchange(sentinel.said, said) == said) return;
    const std::string where = to_text(link.where());
    if (link.word()) {
        parts_.log.info("sentinel_answers", {{"sentinel", where}, {"primary", said}});
    } else {
        parts_.log.warning("sentinel_problem", {{"sentinel", where}, {"reason", said}});
    }
}

SentinelWatch::Known& SentinelWatch::known(const SentinelLink& link) {
    return *std::find_if(known_.begin(), known_.end(),
                         [&](const Known& sentinel) { return sentinel.link.get() == &link; });
}

// --- those that others name ---

// Finds one that is named by two addresses by its own id.
void SentinelWatch::meet_peers() {
    std::erase_if(known_, [this](const Known& sentinel) {
        if (sentinel.is_given) return false;
        const std::string& id = sentinel.link->id();
        const bool is_twice =
            !id.empty() && std::any_of(known_.begin(), known_.end(), [&](const Known& other) {
                return &other != &sentinel && other.link != nullptr && other.is_given &&
                       other.link->id() == id;
            });
        return is_twice || (!sentinel.link->word() && !is_named_by_peers(sentinel));
    });
    std::vector<SentinelLink::Peer> strangers;
    for (const Known& sentinel : known_) {
        for (const SentinelLink::Peer& peer : sentinel.link->peers()) {
            const auto is_it = [&](const Known& each) {
                return each.link->where() == peer.where ||
                       (!peer.id.empty() && each.link->id() == peer.id);
            };
            if (std::none_of(known_.begin(), known_.end(), is_it)) strangers.push_back(peer);
        }
    }
    for (const SentinelLink::Peer& peer : strangers) {
        const bool is_known = std::any_of(known_.begin(), known_.end(), [&](const Known& each) {
            return each.link->where() == peer.where;
        });
        if (is_known || known_.size() >= kSentinelsMax) continue;
        parts_.log.info("sentinel_found", {{"sentinel", to_text(peer.where)}});
        known_.push_back({std::make_unique<SentinelLink>(context_, peer.where, *this), false, {}});
        known_.back().link->ask();
    }
    count();
}

bool SentinelWatch::is_named_by_peers(const Known& sentinel) const {
    return std::any_of(known_.begin(), known_.end(), [&](const Known& other) {
        if (other.link == nullptr || !other.link->word()) return false;
        const auto& peers = other.link->peers();
        return std::any_of(peers.begin(), peers.end(), [&](const SentinelLink::Peer& peer) {
            return peer.where == sentinel.link->where();
        });
    });
}

void SentinelWatch::count() {
    parts_.metrics.sentinels_known = known_.size();
    parts_.metrics.sentinels_reachable = static_cast<uint64_t>(
        std::count_if(known_.begin(), known_.end(),
                      [](const Known& sentinel) { return sentinel.link->word().has_value(); }));
}

}  // namespace nearkey
