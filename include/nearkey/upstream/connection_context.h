// State that all connections of a node share, and the events that they tell it.
// Owned by the node, outlives them; their parts know it as well.
#pragma once

#include "nearkey/base/log.h"
#include "nearkey/base/metrics.h"
#include "nearkey/resp/redirect.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/hiredis_adapter.h"
#include "nearkey/upstream/latency.h"
#include "nearkey/upstream/options.h"
#include "nearkey/upstream/target.h"

#include <set>
#include <span>
#include <string>
#include <string_view>

namespace nearkey {

class Connection;
class NearCache;
struct UnsentRequest;

// Why a connection that was ready is lost, or one that was dialled did not become ready.
enum class ConnectionLoss {
    Socket,
    Mute,
    Auth,
    Malformed,  // the server says something that is not RESP, or that nobody asked for
    Demoted,    // its server is no primary any more
};

// Events that a connection tells the node.
class ConnectionEvents {
public:
    // It has something to expire, and nobody looks (ConnectionContext::is_watched).
    virtual void on_watch_wanted() = 0;
    // It has something to carry and is not connected; the node calls dial() when it may.
    virtual void on_wants_dial(Connection& connection) = 0;
    virtual void on_ready(Connection& connection, const Value& hello) = 0;
    virtual void on_dial_failed(Connection& connection, const std::string& reason) = 0;
    // It was ready.
    virtual void on_lost(Connection& connection, const std::string& reason) = 0;
    virtual void on_closed(Connection& connection, const std::string& reason) = 0;
    virtual void on_auth_refused(Connection& connection, const std::string& reason) = 0;
    // The server has told of itself: Probe::pong(), Probe::is_replica().
    virtual void on_heartbeat(Connection& connection) = 0;
    // A write was refused with READONLY, or a blocked client was sent away with UNBLOCKED: the
    // server has become a replica, or somebody's script says so.
    virtual void on_role_doubted(Connection& connection) = 0;
    // It was a primary, and is a replica now: it must not be believed.
    virtual void on_demoted(Connection& connection) = 0;
    // It has answered the question of Probe::suspect().
    virtual void on_trustworthy(Connection& connection) = 0;
    // A database that the server no longer has, or does not give us now.
    virtual void on_database_refused(Connection& connection) = 0;
    // Valkey will tell of changes, or `error` says why not.
    virtual void on_tracking(Connection& connection, std::string_view error) = 0;

protected:
    ~ConnectionEvents() = default;
};

// Told of commands that a server of a cluster did not run.
class RedirectEvents {
public:
    // Another server should run it, or it is to be tried again; its receiver waits.
    virtual void on_redirect(Connection& from, const Redirect& redirect, UnsentRequest request) = 0;
    // The slot of a command, canonical RESP; -1: it has no key.
    virtual int slot_of_command(std::string_view bytes) const = 0;

protected:
    ~RedirectEvents() = default;
};

// Says each failure once, until the server has served again, for each retry fails in the same way.
// Bounded.
class FailureLog {
public:
    // True if it is to be logged.
    [[nodiscard]] bool is_news(const std::string& failure) {
        return said_.size() < kSaidMax && said_.insert(failure).second;
    }
    void clear() { said_.clear(); }

private:
    static constexpr size_t kSaidMax = 16;
    std::set<std::string> said_;
};

struct ConnectionContext {
    void watch() {
        if (!is_watched) events.on_watch_wanted();
    }
    // Of several nodes the first end counts.
    Count& certificate_end_s() {
        return redirects == nullptr ? metrics.tls_server_certificate_expires_seconds
                                    : node_certificate_end_s;
    }

    Loop& loop;
    const UpstreamOptions& options;
    UpstreamTarget* target;  // where new connections go
    Metrics& metrics;
    Log& log;
    std::span<char> scratch;
    ConnectionEvents& events;
    SocketReaper& reaper;
    size_t queued_commands = 0;  // in all WaitingRequests, bounded by options.queue_*
    size_t queued_bytes = 0;
    size_t ready = 0;            // connections that are ready, and not retired
    size_t retired = 0;          // connections that only answer what they owe
    NearCache* cache = nullptr;  // null: there is none
    bool is_first = true;        // of those of all event loops: it says what all of them see
    bool reads_replica = false;  // the server is read from as a replica of a cluster
    RedirectEvents* redirects = nullptr;  // null: the server is no node of a cluster
    Count node_certificate_end_s{};       // as the metric, of this node of a cluster; 0: no TLS
    // Asked with each heartbeat in place of PING: a number says that the server owns slots of a
    // cluster. Empty: PING.
    std::string ownership_question{};
    uint64_t dials = 0;         // begun so far
    uint64_t heard_ms = 0;      // when anything came from Valkey last
    bool is_watched = false;    // expire() is called again and again, and soon
    bool is_held_back = false;  // requests wait, also on new connections
    FailureLog failures{};
    Latency latency{loop, metrics.histograms};
};

}  // namespace nearkey
