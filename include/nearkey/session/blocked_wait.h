// A blocking command that waits on at another server when its own is the primary no more. It gets
// the replies first, and passes all on to the session but errors that say so.
// Owned by Conversation from the first such command on; kept, since connections may still name it.
//
//   in flight ──on_failover, or the server says so──▶ a new lease, and the time that is left
//
// Behind Sentinels it goes on as well when the connection itself was lost, as soon as there is a
// primary again, for up to upstream.drain_timeout_ms. A server that becomes a replica says
// -UNBLOCKED, or -REDIRECT, to whoever is blocked there: nothing was popped. Where nearkey does not
// know yet of another primary, the command is tried a few times at where its name leads.
#pragma once

#include "nearkey/session/blocked_command.h"
#include "nearkey/session/desk.h"
#include "nearkey/session/lease.h"
#include "nearkey/session/primary_wait.h"

#include <string>
#include <string_view>

namespace nearkey {

class BlockedWait final : public ReplyReceiver {
public:
    BlockedWait(Desk& desk, Lease& lease, const Transaction& transaction);

    // False: the command can't wait on elsewhere.
    bool keep(const Call& call);
    // REQUIRES: kept.
    void send(const Call& call);
    size_t memory_bytes() const { return command_.memory_bytes(); }

    // Another server is the primary.
    void on_failover();
    bool on_lease_settled(bool is_refused) { return wait_.on_lease_settled(is_refused); }

    // ReplyReceiver
    void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
    void on_reply_end(uint32_t ticket) override;
    bool on_reply_void(uint32_t ticket) override;
    void on_request_failed(uint32_t ticket, std::string_view error) override;
    bool counts_errors() const override { return true; }

private:
    void go_on();
    bool may_be_demotion(std::string_view words) const;
    bool may_go_on() const;
    bool repeat();
    void learn();
    void leave_lease();
    void send_again();
    void finish();

    Desk& desk_;
    Lease& lease_;
    const Transaction& transaction_;
    BlockedCommand command_;
    CommandCount* counts_ = nullptr;
    PrimaryWait wait_;
    bool is_open_ = false;  // it has not been answered
    bool is_moved_ = false;
    bool is_asking_ = false;            // it goes behind ASKING
    bool is_passing_ = false;           // its reply goes on to the session
    uint16_t next_ = Cluster::kNobody;  // the node that was named last
    uint64_t sent_ms_ = 0;
    uint32_t repeats_ = 0;  // tries since a server said that it is no primary
    std::string words_;     // the beginning of an error that may say so
};

}  // namespace nearkey
