// Follows the server's bytes in a tunnel, which belong to the client: only for the errors to
// stand-ins (refusals.h), and for a subscriber's subscriptions. Owned by Tunnel.
#pragma once

#include "nearkey/resp/reply_scanner.h"
#include "nearkey/session/output.h"
#include "nearkey/session/subscriptions.h"
#include "nearkey/upstream/node.h"

#include <string>
#include <string_view>
#include <utility>

namespace nearkey {

class TunnelReader {
public:
    explicit TunnelReader(const Node& node) : node_(node) {}

    // Passes the bytes on, with the words of a refusal where one is to a stand-in.
    void pass(std::string_view bytes, Subscriptions* subscriptions, Output& output);
    // Errors may be those to stand-ins from now on.
    void expect_refusals() { has_refused_ = true; }
    bool has_refused() const { return has_refused_; }
    // True once after the server has refused MONITOR. REQUIRES: expect_refusals() before that.
    bool take_monitor_refusal() { return std::exchange(refuses_monitor_, false); }
    // The bytes to come are not RESP.
    void stop() { is_stopped_ = true; }
    // True if the bytes passed on end with a whole reply.
    bool is_between_replies() const { return !is_inside_ && !is_unread_; }
    // Another connection begins.
    void restart() { scanner_ = ReplyScanner(); }

private:
    size_t pass_reply(std::string_view bytes, Subscriptions* subscriptions, Output& output);

    const Node& node_;
    ReplyScanner scanner_;
    std::string error_;  // held until it is whole: it may be one to a stand-in
    bool has_refused_ = false;
    bool refuses_monitor_ = false;
    bool is_inside_ = false;  // the end of a reply has not come yet
    bool is_unread_ = false;  // the bytes up to the next line end are not RESP
    bool is_stopped_ = false;
};

}  // namespace nearkey
