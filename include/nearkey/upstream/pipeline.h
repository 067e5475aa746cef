// The way of requests over one connection: sent at once while the gate is open, kept otherwise.
// Owned by a Connection, which opens and ends the socket and sets the gate. The one rule: nothing
// overtakes. Waiting requests go before new ones, and replies come in the order of sending.
//
//   send() ──Open──▶ in_flight_ + socket_          ──reply──▶ receiver
//      │                ▲        │ lost: reads that may go again
//      └─Away, Held─▶ waiting_ ◀─┘
#pragma once

#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/in_flight.h"
#include "nearkey/upstream/waiting_requests.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class Pipeline {
public:
    enum class Gate : uint8_t {
        Closed,  // for good: requests fail
        Away,    // there is no connection: requests wait for one
        Held,    // there is one, and requests wait for let_go()
        Open,
    };

    // Both outlive it.
    Pipeline(ConnectionContext& context, SocketEvents& socket_events)
        : context_(context),
          socket_events_(socket_events),
          in_flight_(context),
          waiting_(context) {}

    // Sends now, or keeps it. True: it waits for a connection.
    bool send(const Request& request) {
        if (gate_ != Gate::Open) return keep(request);
        send_now(request);
        return false;
    }
    // The same for a request that another server did not run. Its time goes on.
    bool send_again(const UnsentRequest& request);
    // The same for a command so large that it is not copied: `bytes` is all of it. REQUIRES: ready.
    void send_owned(const Request& request, Buffer bytes);
    // Sends a question of the connection's own, whatever the gate is. REQUIRES: a socket.
    void ask(ReplyReceiver& receiver, uint32_t ticket, std::string_view bytes, uint32_t replies);
    // Bytes that are no request, and owe no reply. REQUIRES: ready.
    void send_raw(std::string_view bytes);
    // No reply will be delivered to `receiver` any more.
    void forget(const ReplyReceiver& receiver);
    // Sends the reads of a receiver that was told that it is held up over `to` instead, whose
    // replies come in the same order; replies here go to nobody. Only once: they are kept no
    // longer. REQUIRES: `to` is ready.
    void pass(const ReplyReceiver& receiver, Pipeline& to);

    // Takes the requests that were never sent and that another server may run, of receivers that
    // are owed nothing here: they would overtake that. Those for this server alone fail, as the
    // PTTL of a read that goes. `Matches`: bool(const UnsentRequest&).
    template <class Matches>
    std::vector<UnsentRequest> take_unsent(Matches matches) {
        if (waiting_.empty()) return {};
        const auto owed = in_flight_.receivers();
        std::vector<UnsentRequest> taken = waiting_.take_if([&](const UnsentRequest& each) {
            const PendingRequest& request = each.request;
            return request.receiver != nullptr && request.replies == 1 &&
                   request.kind != RequestKind::Own && request.kind != RequestKind::Blocking &&
                   (!request.receiver->follows_redirects() || !owed.contains(request.receiver)) &&
                   matches(each);
        });
        std::erase_if(taken, [this](const UnsentRequest& each) {
            if (each.request.receiver->follows_redirects()) return false;
            each.request.fail("UPSTREAMDOWN its slot has moved; not sent", context_.latency);
            return true;
        });
        return taken;
    }

    bool is_ready() const { return gate_ >= Gate::Held; }
    // Sets Held or Open. Waiting requests are sent if they may; of one without bytes the receiver
    // is told then that its reply has ended. REQUIRES: a socket whose server takes requests.
    void set_ready(Gate gate);
    bool is_held_back() const { return gate_ == Gate::Held; }
    // REQUIRES: ready.
    void hold_back() { gate_ = Gate::Held; }
    void let_go();

    // Starts connecting. Empty on success, else the reason.
    [[nodiscard]] std::string open_socket(const SocketOptions& options);
    // Null: there is none.
    HiredisSocket* socket() { return socket_.get(); }
    // Requests in flight wait again or fail (InFlight::end).
    void end(Gate gate, bool is_left);

    InFlight& in_flight() { return in_flight_; }
    const InFlight& in_flight() const { return in_flight_; }
    WaitingRequests& waiting() { return waiting_; }
    size_t owed() const { return in_flight_.size() + waiting_.size(); }
    bool is_idle() const { return owed() == 0; }
    bool has_waiting() const { return !waiting_.empty(); }
    uint64_t bytes_sent() const { return bytes_sent_; }

    void tell_held_up(uint64_t now_ms, uint64_t since_boot_ms) {
        if (waiting_.empty()) in_flight_.tell_held_up(now_ms, since_boot_ms);
    }
    bool wants_expiry() const { return in_flight_.wants_expiry() || !waiting_.empty(); }
    // Gives back memory kept for many requests in flight.
    void shrink();
    // Memory of requests that are not sent yet, or may be sent again.
    size_t memory_bytes() const;

private:
    PendingRequest pending(const Request& request) const;
    void send_now(const Request& request);
    bool keep(const Request& request);
    bool keep(std::string_view bytes, const PendingRequest& entry);
    void transmit(std::string_view bytes, const PendingRequest& request);

    ConnectionContext& context_;
    SocketEvents& socket_events_;
    Gate gate_ = Gate::Away;
    std::unique_ptr<HiredisSocket> socket_;
    uint64_t bytes_sent_ = 0;
    InFlight in_flight_;
    WaitingRequests waiting_;
};

}  // namespace nearkey
