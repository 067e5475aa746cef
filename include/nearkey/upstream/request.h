// A command on its way to Valkey, and the receiver of its reply.
// Each reply of a request ends in exactly one on_reply_end() or on_request_failed(), unless the
// request is forgotten.
#pragma once

#include "nearkey/dispatch/request_kind.h"
#include "nearkey/resp/protocol.h"
#include "nearkey/upstream/latency.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace nearkey {

// Receives the replies to its requests. Replies to one receiver over one connection arrive in the
// order of sending; a reply arrives in pieces, then its end, then the next one's pieces.
class ReplyReceiver {
public:
    // A piece of the reply to the request `ticket`; `bytes` are valid during the call.
    virtual void on_reply_bytes(uint32_t ticket, std::string_view bytes) = 0;
    virtual void on_reply_end(uint32_t ticket) = 0;
    // The request was not run, for its slot is moving or served by nobody: it could be sent again
    // later. False: something was sent behind it that it must not change places with.
    virtual bool on_request_delayed(uint32_t /*ticket*/) { return false; }
    // False: where a server of a cluster did not run the request, its words are the reply.
    virtual bool follows_redirects() const { return true; }
    // True: it goes on elsewhere after some errors, and counts those that it shows.
    virtual bool counts_errors() const { return false; }
    // Discard the bytes received so far: the request is being retried. Return false to cancel it.
    virtual bool on_reply_void(uint32_t ticket) = 0;
    // There will be no (more) reply. `error` is a RESP error's text ("UPSTREAMDOWN ..."). Bytes
    // received so far are void.
    virtual void on_request_failed(uint32_t ticket, std::string_view error) = 0;
    // The server keeps the head of its requests' connection waiting while it answers others, and
    // another connection is ready: Pipeline::pass() sends them there.
    virtual void on_held_up() {}
    // A request took longer than Latency allows. Its reply's end, or its failure, follows at once.
    enum class SlowEnd { Reply, Failure };
    virtual void on_slow_request(uint32_t /*ticket*/, const RequestTiming&, SlowEnd) {}

protected:
    ~ReplyReceiver() = default;
};

// Takes replies that nobody wants.
class DiscardReceiver final : public ReplyReceiver {
    void on_reply_bytes(uint32_t, std::string_view) override {}
    void on_reply_end(uint32_t) override {}
    bool on_reply_void(uint32_t) override { return false; }
    void on_request_failed(uint32_t, std::string_view) override {}
};

struct Request {
    std::string_view bytes;   // canonical RESP; copied if it is kept
    ReplyReceiver* receiver;  // outlives the request or calls Connection::forget
    uint32_t ticket;          // the receiver's name for it, and for its first reply
    RequestKind kind;
    // Several commands that travel as one: nothing comes between them, and they are sent, or fail,
    // all together. Their replies have the tickets ticket, ticket + 1, ... Never a Read.
    uint32_t replies = 1;
    uint64_t waited_ms = 0;  // before it was sent; its time to be answered is so much shorter
    RequestTiming timing = {};
};

// A request that a connection has taken and owes an end: in flight, or waiting to be sent.
struct PendingRequest {
    // Its reply, or what comes in its place, is this error.
    void count_error(std::string_view error) const {
        if (receiver == nullptr || timing.command == nullptr || receiver->counts_errors()) return;
        timing.command->count_error(error);
    }
    // Fails each reply that is still to come. REQUIRES: it has a receiver.
    void fail(std::string_view error, Latency& latency) const {
        count_error(error);
        if (timing.series != RequestTiming::kUncounted) {
            latency.note_end(timing, RequestOutcome::Failed);
            if (latency.is_slow(timing))
                receiver->on_slow_request(ticket, timing, ReplyReceiver::SlowEnd::Failure);
        }
        for (uint32_t i = 0; i < replies; ++i)
            receiver->on_request_failed(ticket + i, error);
    }

    // It is kept to be sent again, once, if its connection is lost. REQUIRES: it is in flight.
    bool may_be_retried() const { return retained > 0 && kind == RequestKind::Read; }

    ReplyReceiver* receiver;  // null: nobody wants the replies any more
    uint64_t deadline_ms;     // 0: none
    uint32_t ticket;
    uint32_t retained;  // bytes of it that are kept while it is in flight
    uint32_t replies;   // replies that are still to come
    RequestKind kind;
    bool is_retry;
    uint8_t redirects : 4 = 0;            // how often a server of a cluster has sent it on
    uint8_t delays : 4 = 0;               // how often it was to be tried again later
    Protocol protocol = Protocol::Resp2;  // of the connection that had it, once it was sent on
    RequestTiming timing;
};

struct UnsentRequest {
    std::string bytes;
    PendingRequest request;
    uint64_t deadline_ms;
    bool is_limited;  // by options.queue_*; held-back ones would be in the socket otherwise
};

inline constexpr std::string_view kUpstreamLost =
    "UPSTREAMLOST the connection to Valkey was lost; may have run";

}  // namespace nearkey
