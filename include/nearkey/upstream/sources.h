// The sources by whose word replies may be stored: the connections that are told of changes (CLIENT
// TRACKING), and the time until which it is proven that they have been told of all.
//
// A RESP3 connection is told of changes to what it reads itself. A RESP2 one can't be: the
// receiver, a RESP3 connection of the node's own, is told in its place. Pushes and replies stand in
// order on a connection, so the reply to a PING proves that everything from before the PING has
// arrived. The receiver is told only while the server still has the RESP2 connection, whose loss
// may become known here much later: so that must have answered, too. SWAPDB is never told of; the
// server's own count of it is asked for with each heartbeat (ServerStats).
//
// With near_cache.tracking = "broadcast" the receiver alone is told, of all keys with one of the
// prefixes, for every connection. Replies and news then come over two connections, as with RESP2:
//   - A reply read before a change and handled after the news of it: its fill was voided by the
//     news.
//   - A reply read after a change and handled before the news: it shows the change; what else is
//     stored of the key is older, so the reply waits for a proof (NodeCoherence::may_overtake).
//   - Valkey sends this news when a turn of its loop ends, so a PING of the same turn is answered
//     before it. The next PING is sent once that answer has come, and so is read in a later turn:
//     it takes two, one after the other, to prove anything (SourceProofs, proven_before_ms).
//   - A read that is sent again may reach another server than the receiver has: the loss of any
//     shared connection voids everything, and a connection to another address stores nothing.
// Owned by NodeCoherence. Without a near cache there is no receiver and no source.
#pragma once

#include "nearkey/cache/near_cache.h"
#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/connection.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class NodeConnections;
class ServerStats;
class Suspicion;

class Sources final {
public:
    // All outlive it.
    Sources(ConnectionContext& context, NodeConnections& connections, const ServerStats& stats,
            const Suspicion& suspicion);

    // Sent before a command whose keys the server must not track, where are_reads_tracked().
    static constexpr std::string_view kUntracked =
        "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";
    static bool are_reads_tracked(const Connection& connection) {
        return connection.tracking().source() != NearCache::kNoSource;
    }
    // Sends a command of our own behind that, where it is needed: its reply has this ticket.
    static constexpr uint32_t kUntrackedTicket = 1;
    static void send_untracked(Connection& connection, std::string_view command,
                               ReplyReceiver& receiver);
    // The source by whose word replies over the connection may be stored. kNoSource: none.
    NearCache::SourceId source_of(const Connection& connection) const;
    // True if Valkey tells of changes of the key at all.
    bool is_told_of(std::string_view key) const {
        return is_told_of_all_ || is_told_of_prefix(key);
    }
    // The prefixes of the keys that Valkey tells of; null: it tells of every key.
    const std::vector<std::string>* told_prefixes() const {
        return is_told_of_all_ ? nullptr : &cache().options().prefixes;
    }
    bool is_broadcast() const { return is_broadcast_; }
    // The connection whose source it is, in words. Empty: none of ours.
    std::string describe(NearCache::SourceId source) const;
    // Valkey does not allow us to ask for a key's time to live.
    void note_pttl_refused();

    // A receiver is connected. A former one is closed: it was another server's.
    void start();
    // The server has told its mode at HELLO. Of a node of a cluster nothing is stored.
    void note_mode(bool is_cluster);
    bool is_off() const { return is_cluster_; }
    void warn_of_cluster();
    // The server is a cluster's seed from now on: replies of others are stored.
    void leave_to_members();
    // As NodeCoherence::leave_replica().
    void leave_replica();
    void note_ready(Connection& connection);
    void note_lost(const Connection& connection);
    // Valkey has answered CLIENT TRACKING; `error` says why it was refused.
    void note_tracking(Connection& connection, std::string_view error);
    void note_heartbeat();
    // A fact that proves stored replies is known up to a later time.
    void renew();
    // Serves nothing that the connection proves, until it has proven it anew.
    void suspend(const Connection& connection);
    void suspend_all();
    // Valkey tells of changes, by its last word.
    bool is_tracking() const { return is_tracking_; }
    // The age of the oldest proof of stored replies; longest before a heartbeat.
    uint64_t oldest_proof_ms() const;

private:
    NearCache& cache() const { return *context_.cache; }
    const Connection& receiver() const;
    bool is_told_of_prefix(std::string_view key) const;
    void stop_storing();
    void set_tracking(bool is_tracking);
    void warn_off(std::string_view reason, std::string_view what);
    void start_broadcast();
    void track(Connection& connection);
    void track_all(Protocol protocol);
    bool is_of_replica(const Connection& connection) const;
    void track_postponed();
    uint64_t proven_ms(const Connection& connection) const;
    void renew(const Connection& connection, uint64_t proven_ms);

    ConnectionContext& context_;
    NodeConnections& connections_;
    const ServerStats& stats_;
    const Suspicion& suspicion_;
    const bool is_broadcast_;  // near_cache.tracking
    bool is_cluster_ = false;
    bool is_told_of_all_;  // neither of both
    bool is_tracking_ = false;
    int64_t receiver_id_ = 0;       // its CLIENT ID; 0: it is not ready
    bool is_postponed_ = false;     // Valkey was BUSY when tracking was asked for, or a replica
    std::string refusal_;           // Valkey's last refusal; empty: it does not refuse
    uint64_t pttl_refused_ms_ = 0;  // last; 0: never
};

}  // namespace nearkey
