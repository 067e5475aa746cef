// Finds from the words of all Sentinels which server should be followed.
// Owned by Failover, or by a reload that tries other Sentinels. The configured ones are asked
// first, and those that they name as well.
//
// The one rule for words that differ: the word of a later epoch wins (config-epoch, which grows
// with each failover); one that is not later counts only once no Sentinel that answers has named
// the server that is followed for some seconds: Sentinels that were set up anew begin to count
// anew. Of several servers, one that was refused lately comes last: a Sentinel that names a wrong
// server hides no right one.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/upstream/facts.h"
#include "nearkey/upstream/sentinel_link.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nearkey {

class SentinelEvents {
public:
    // A Sentinel has answered: wanted() may be another server.
    virtual void on_sentinel_word(const SentinelWord& word) = 0;

protected:
    ~SentinelEvents() = default;
};

class SentinelWatch final {
public:
    struct Parts {
        Loop& loop;
        Metrics& metrics;
        Log& log;
        const UpstreamOptions options;
        std::function<SentinelCredentials()> credentials;
    };
    // `url` is of Kind::Sentinel.
    SentinelWatch(const Parts& parts, UpstreamUrl url);
    ~SentinelWatch();

    // Tells these events from now on; nobody before.
    void tell(SentinelEvents& events) { events_ = &events; }
    // Asks all of them now.
    void ask();
    // The server that should be followed. Nothing: none is named, or it is the one that is.
    std::optional<Endpoint> wanted() const;
    // The server was tried in vain.
    void refuse(const Endpoint& primary);
    // Follows this one from now on; its epoch is that of the best word that names it.
    void follow(const Endpoint& primary);
    // The followed server has become a replica: an older word will do.
    void doubt() { followed_epoch_ = followed_named_ms_ = 0; }
    // True if a Sentinel that was asked since then names it.
    bool is_named_since(const Endpoint& primary, uint64_t since_ms) const;
    bool has_reachable() const;
    std::vector<SentinelFacts> facts() const;

    // --- for the links ---
    // It has answered: its word(), and its peers() may be others.
    void on_answer(SentinelLink& link);
    // It can't be reached, refuses us, or does not know the primary: its problem().
    void on_problem(SentinelLink& link);

private:
    struct Known {
        std::unique_ptr<SentinelLink> link;
        bool is_given;
        std::string said;  // the last line logged of it
    };
    Known& known(const SentinelLink& link);
    void meet_peers();
    bool is_named_by_peers(const Known& sentinel) const;
    bool is_refused(const Endpoint& primary) const;
    void count();

    const Parts parts_;
    const UpstreamUrl url_;
    SentinelEvents* events_ = nullptr;
    std::vector<char> scratch_;
    SocketReaper reaper_;
    size_t lookups_ = 0;
    const SentinelContext context_;
    std::vector<Known> known_;
    Endpoint followed_;
    uint64_t followed_epoch_ = 0;
    uint64_t followed_named_ms_ = 0;  // when a Sentinel last named it
    struct Refused {
        Endpoint primary;
        uint64_t since_ms;
    };
    std::vector<Refused> refused_;
    Timer peers_timer_;  // links come and go outside of their own callbacks
};

}  // namespace nearkey
