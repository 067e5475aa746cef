// A connection as a tunnel: bytes pass in both directions until its end, and nothing is counted.
// Owned by a Connection; bytes sent to a tunnel that has ended are lost with it.
#pragma once

#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/pipeline.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace nearkey {

class UpstreamTunnel {
public:
    // Both outlive it.
    UpstreamTunnel(ConnectionContext& context, Pipeline& pipeline)
        : context_(context), pipeline_(pipeline) {}

    // REQUIRES: ready. Requests in flight are answered before the tunnel begins.
    void begin() { is_open_ = true; }
    bool is_open() const { return is_open_; }
    void end() {
        is_open_ = is_end_expected_ = is_finishing_ = is_paused_ = false;
        finished_ms_ = 0;
    }

    void send(std::string_view bytes) {
        if (is_open_) pipeline_.send_raw(bytes);
    }
    // Bytes that the server has not taken yet; on_tunnel_room() says once that they are few.
    size_t unsent_bytes() const { return is_open_ ? pipeline_.socket()->unsent() : 0; }
    void tell_of_room() {
        if (is_open_) pipeline_.socket()->tell_of_room();
    }
    // Tells the server that nothing more will come; its last bytes still arrive, and its end.
    void finish_sending() {
        if (!is_open_) return;
        pipeline_.socket()->finish_sending();
        finished_ms_ = context_.loop.now_ms();
        context_.watch();
    }
    // The same once it has been silent for a moment: a reply that it is sending still arrives.
    void finish_when_silent() {
        is_finishing_ = is_open_;
        silent_bytes_ = UINT64_MAX;
        if (is_open_) context_.watch();
    }
    // The server was asked to end it: that is no loss.
    void expect_end() { is_end_expected_ = is_open_; }
    bool is_end_expected() const { return is_end_expected_; }
    void pause_reading() {
        is_paused_ = is_open_;
        if (is_open_) pipeline_.socket()->pause_reading();
    }
    void resume_reading() {
        is_paused_ = false;
        if (is_open_) pipeline_.socket()->resume_reading();
    }

    // `bytes_received`: in all. What the server takes is a sign of life as well.
    void expire(uint64_t now_ms, uint64_t bytes_received) {
        if (!wants_expiry()) return;
        const uint64_t moved = bytes_received - unsent_bytes();
        if (std::exchange(silent_bytes_, moved) != moved || is_paused_) {
            silent_since_ms_ = now_ms;
        } else if (is_finishing_ && silent_since_ms_ + kSilentMs <= now_ms) {
            is_finishing_ = false;
            finish_sending();
        }
    }
    // A server that is not busy ends it at once; true if nothing has moved for longer than a
    // request may take.
    bool is_mute(uint64_t now_ms) const {
        const UpstreamOptions& options = context_.options;
        return finished_ms_ != 0 && std::max(finished_ms_, silent_since_ms_) +
                                            options.request_timeout_ms +
                                            options.tombstone_timeout_ms <
                                        now_ms;
    }
    bool wants_expiry() const { return is_finishing_ || finished_ms_ != 0; }

private:
    static constexpr uint64_t kSilentMs = 100;

    ConnectionContext& context_;
    Pipeline& pipeline_;
    bool is_open_ = false;
    bool is_end_expected_ = false;
    bool is_finishing_ = false;  // wanted once it is silent
    bool is_paused_ = false;     // nothing is read, so that silence says nothing
    uint64_t finished_ms_ = 0;   // when the server was told; 0: it was not
    uint64_t silent_since_ms_ = 0;
    uint64_t silent_bytes_ = 0;  // bytes received at that time
};

}  // namespace nearkey
