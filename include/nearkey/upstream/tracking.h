// Makes Valkey tell a connection of changes to the keys read over it (CLIENT TRACKING): it is a
// source of the near cache from when the server has agreed until it is told to stop, or the
// connection ends.
// Owned by a Connection, whose events it tells. The one rule: the answer to a question that was
// asked before stop() opens no source.
#pragma once

#include "nearkey/cache/near_cache.h"
#include "nearkey/upstream/connection_context.h"
#include "nearkey/upstream/own_question.h"
#include "nearkey/upstream/pipeline.h"

#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class Tracking final : private WholeReplyReceiver {
public:
    // All outlive it. `connection` is whose events are told.
    Tracking(ConnectionContext& context, Pipeline& pipeline, Connection& connection)
        : context_(context), pipeline_(pipeline), connection_(connection) {}

    // Asks Valkey to tell `receiver` (its CLIENT ID; 0: this one) of changes to the keys read here.
    // The outcome is on_tracking(). REQUIRES: ready, and a near cache.
    void start(int64_t receiver);
    // The same for every key that begins with one of the prefixes, or for every key.
    void start_broadcast(const std::vector<std::string>& prefixes);
    // Replies read here are no longer known to be true.
    void stop();
    // The connection is lost: no answer to a question will come.
    void end();

    // A piece of a push.
    void on_push(std::string_view bytes, bool is_end);

    // kNoSource: nobody is told of changes to the keys read here.
    NearCache::SourceId source() const { return source_; }
    bool is_on() const { return source_ != NearCache::kNoSource; }
    // The time when tracking was asked for: before, there was nothing to tell.
    uint64_t since_ms() const { return asked_ms_; }

private:
    void ask(const std::vector<std::string>& options);
    void on_whole_reply(uint32_t ticket, const std::string& reply) override;

    ConnectionContext& context_;
    Pipeline& pipeline_;
    Connection& connection_;
    NearCache::SourceId source_ = NearCache::kNoSource;
    uint32_t asked_ = 0;  // questions whose answer has not come
    uint32_t void_ = 0;   // the next answers that count no more
    uint64_t asked_ms_ = 0;
    std::string push_;  // the one being received
};

}  // namespace nearkey
