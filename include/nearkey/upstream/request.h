// A command on its way to Valkey, and whoever gets its reply.
// Each reply of a request ends in exactly one on_reply_end() or on_request_failed(), unless the
// request is forgotten.
#pragma once

#include "nearkey/upstream/latency.h"

#include <cstdint>
#include <string_view>

namespace nearkey {

// Receives the replies to what it sent. Replies to one receiver over one connection arrive in the
// order of sending; a reply arrives in pieces, then its end, then the next one's pieces.
class ReplyReceiver {
public:
    // A piece of the reply to the request `ticket`; `bytes` are valid during the call.
    virtual void on_reply_bytes(uint32_t ticket, std::string_view bytes) = 0;
    virtual void on_reply_end(uint32_t ticket) = 0;
    // What came of the reply in pieces is void; it will begin anew. False: nobody waits any more.
    virtual bool on_reply_void(uint32_t ticket) = 0;
    // There will be no (more) reply. `error` is a RESP error's text ("UPSTREAMDOWN ..."). What came
    // of the reply in pieces is void.
    virtual void on_request_failed(uint32_t ticket, std::string_view error) = 0;
    // What stands before its requests on their connection is kept waiting by a server that answers
    // others, and another connection is ready: Connection::pass() sends them there.
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

enum class RequestKind : uint8_t {
    Read,      // may be sent again if its connection is lost or held up
    Write,     // is never sent twice
    Blocking,  // never sent twice, and waits as long as the server lets it
};

struct Request {
    std::string_view bytes;   // canonical RESP; copied by whoever keeps it
    ReplyReceiver* receiver;  // outlives the request or calls Connection::forget
    uint32_t ticket;          // the receiver's name for it, and for its first reply
    RequestKind kind;
    // Several commands that travel as one: nothing comes between them, and they are sent, or fail,
    // all together. Their replies have the tickets ticket, ticket + 1, ... Never a Read.
    uint32_t replies = 1;
    uint64_t waited_ms = 0;  // before it was sent; its time to be answered is so much shorter
    RequestTiming timing = {};
};

}  // namespace nearkey
