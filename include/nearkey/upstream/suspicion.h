// A server that was silent may have been frozen, or cut off, while another was made the primary:
// when it wakes up it answers what it finds in its sockets, and acknowledges writes that are lost
// (docs/failover.md).
//
//   nothing heard for upstream.suspect_after_ms ──▶ suspect: HELLO is asked over each shared
//     connection, requests are held back on all, nothing is served from the near cache
//   ──HELLO says that it is what it was──▶ behind Sentinels: one of them says so, too ──▶ trusted
//
// Behind Sentinels one that was lost is not trusted before, either. A server that is only slow is
// the usual case: held-back requests wait as long as they would have waited for their replies, and
// go as soon as the server answers. Those already in its sockets can't be called back.
// Owned by Node.
#pragma once

#include <cstdint>

namespace nearkey {

class Connection;
class Health;
class NodeConnections;
class NodeEvents;
struct ConnectionContext;

class Suspicion final {
public:
    // All outlive it.
    Suspicion(ConnectionContext& context, NodeConnections& connections, NodeEvents& events)
        : context_(context), connections_(connections), events_(events) {}

    bool is_suspect() const { return is_suspect_; }
    // True if no Sentinel has confirmed the primary for too long: until then all is held back.
    bool is_unconfirmed() const;

    // True: the server is suspect from now on, and its proofs count no more.
    [[nodiscard]] bool tick(const Health& health);
    // A connection has become ready, or has none left beside it.
    void note_ready();
    void note_lost();
    // The connection has answered the question of Probe::suspect().
    void note_trustworthy(Connection& connection);
    // Answers NodeEvents::on_confirmation_wanted(): the server is still the primary.
    void confirm();
    void end();

private:
    void ask_for_confirmation();
    void ask_again();

    ConnectionContext& context_;
    NodeConnections& connections_;
    NodeEvents& events_;
    bool is_suspect_ = false;
    bool is_confirmation_wanted_ = false;  // it has answered since
    uint64_t confirmation_wanted_ms_ = 0;  // since then
    uint64_t confirmation_asked_ms_ = 0;   // last
};

}  // namespace nearkey
