// The requests that were sent over a connection, and the replies that it still owes.
// Owned by a Pipeline. Replies come in the order of add(); the head's is being read now. A request
// whose receiver is gone stays as a tombstone: its reply is dropped by position, so no late reply
// ever reaches someone else. The bytes of each read that may be sent again are retained until its
// reply has come.
#pragma once

#include "nearkey/base/buffer.h"
#include "nearkey/base/ring.h"
#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/request.h"

#include <deque>
#include <functional>
#include <string_view>
#include <unordered_set>

namespace nearkey {

class InFlight {
public:
    explicit InFlight(ConnectionContext& context) : context_(context) {}

    bool empty() const { return requests_.empty(); }
    size_t size() const { return requests_.size(); }
    size_t count_tombstones() const;

    // `bytes` are sent now. They are kept if it is a read, and not too long; in a cluster, if
    // another server may have to run it, however long.
    void add(const PendingRequest& request, std::string_view bytes) {
        PendingRequest& entry = requests_.push_back(request);
        entry.timing.sent_us = context_.latency.turn_us();
        const bool is_small_read =
            entry.kind == RequestKind::Read && bytes.size() <= context_.options.retry_bytes_max;
        if (is_small_read || (context_.redirects != nullptr && may_go_on(entry, bytes.size()))) {
            retained_.append(bytes);
            entry.retained = static_cast<uint32_t>(bytes.size());
            if (retained_.capacity() > kRetainedMin) count_retained();
        }
        ++context_.metrics.in_flight;
    }
    // A piece of the head's reply. REQUIRES: not empty. Its receiver may end the connection.
    void deliver(std::string_view bytes, bool is_end);
    // The head's reply is an error, which is delivered. REQUIRES: not empty.
    void count_error(std::string_view words) const { requests_[0].count_error(words); }
    // The head gets this error in place of a reply, unless it may be sent again.
    void refuse_head(std::string_view error);
    // The head, of whose reply nothing was delivered, was not run, and its bytes are kept.
    bool may_be_redirected() const {
        const PendingRequest& head = requests_[0];
        return head.retained > 0 && head.replies == 1 && reply_bytes_ == 0 &&
               (head.receiver == nullptr || head.receiver->follows_redirects());
    }
    // The same command, to be sent again. REQUIRES: its bytes are kept, no reply of it has ended.
    UnsentRequest copy_head() const;
    // Takes it off: its reply comes from elsewhere. REQUIRES: may_be_redirected().
    UnsentRequest take_redirected();
    void forget(const ReplyReceiver& receiver);
    // Who is owed something.
    std::unordered_set<const ReplyReceiver*> receivers() const;
    // The connection is lost. Returns the reads that may be sent again: once only, unless the
    // server is `left`. All others fail.
    std::deque<UnsentRequest> end(bool is_left);

    // Fails requests that are too old; they become tombstones.
    void expire(uint64_t now_ms);
    // True if expire() will have something to do after a call now, or a tombstone may become too
    // old.
    bool wants_expiry() const { return has_tombstone() || expired_ < requests_.size(); }
    // The reply to a tombstone should have come by now.
    bool is_overdue(uint64_t now_ms) const;

    // A part of the head's reply has come.
    bool is_in_reply() const { return reply_bytes_ > 0; }
    // A large reply is coming: a request sent now is answered behind it.
    bool is_congested() const { return reply_bytes_ > kCongestedBytes; }
    // A command waits at the server, as after CLIENT PAUSE WRITE, with the same consequence.
    bool is_held_up() const { return head_waits_; }
    // The server answers others while it keeps this connection's head waiting.
    bool is_passed() const { return head_waits_ && context_.heard_ms > head_waits_since_ms_; }
    void look_at_head(uint64_t now_ms);
    // Tells each receiver that is owed reads alone, none of which is the head (on_held_up), if the
    // head was waiting already at `since_boot_ms`: the server has answered two questions that were
    // asked after that, one after the other, so it is not busy, it keeps the head waiting on
    // purpose.
    void tell_held_up(uint64_t now_ms, uint64_t since_boot_ms);
    // Nothing that was sent can be kept waiting where reads are not.
    bool owes_reads_alone() const;
    // Visits the reads of a receiver that was told, as retries, and forgets the receiver.
    using Visit = std::function<void(const PendingRequest& again, std::string_view bytes)>;
    void take_reads(const ReplyReceiver& receiver, const Visit& visit);

    // A burst's room is kept for the next one, unless it is much.
    void shrink_if_sparse();
    void shrink() { requests_.shrink(); }
    // Memory of requests that may be sent again.
    size_t memory_bytes() const { return counted_retained_; }

private:
    static constexpr size_t kCongestedBytes = size_t{1} << 20;
    // A smaller buffer of retained requests is not counted: Metrics' in_flight stands for it.
    static constexpr size_t kRetainedMin = size_t{16} << 10;

    bool has_tombstone() const {
        return !requests_.empty() && requests_[0].receiver == nullptr &&
               requests_[0].deadline_ms != 0;
    }
    static bool may_go_on(const PendingRequest& entry, size_t size) {
        return entry.receiver != nullptr && entry.replies == 1 && entry.kind != RequestKind::Own &&
               size <= UINT32_MAX;
    }
    void note_latency(const PendingRequest& request);
    void take_head(const PendingRequest& head);
    void count_retained();

    ConnectionContext& context_;
    Ring<PendingRequest> requests_;
    size_t reply_bytes_ = 0;            // bytes so far of a reply whose end has not come yet
    bool head_waits_ = false;           // no reply has ended for kHeadWaitsUs, nor has one begun
    uint64_t head_waits_since_ms_ = 0;  // when that was first seen
    uint64_t head_waits_since_boot_ms_ = 0;
    uint32_t answered_us_ = 0;  // when the last reply ended
    uint64_t told_held_up_ms_ = 0;
    size_t expired_ = 0;  // this many at the front can't expire any more
    Buffer retained_;     // in the order of the requests
    size_t counted_retained_ = 0;
};

}  // namespace nearkey
