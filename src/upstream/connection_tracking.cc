// How a connection learns of changes to what was read over it (CLIENT TRACKING).
#include "nearkey/upstream/connection.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"
#include "nearkey/resp/reply_writer.h"

#include <string>
#include <utility>
#include <vector>

namespace nearkey {

namespace {
// A push that names more than this is taken as one of everything.
constexpr size_t kPushMax = size_t{1} << 20;
}  // namespace

// OPTOUT: what is not to be stored is read behind CLIENT CACHING NO, and so is not tracked.
void Connection::start_tracking(int64_t receiver) {
    std::vector<std::string> options{"OPTOUT"};
    if (receiver != 0) options.insert(options.end(), {"REDIRECT", std::to_string(receiver)});
    ask_for_tracking(options);
}

void Connection::start_broadcast(const std::vector<std::string>& prefixes) {
    std::vector<std::string> options{"BCAST"};
    for (const std::string& prefix : prefixes)
        options.insert(options.end(), {"PREFIX", prefix});
    ask_for_tracking(options);
}

void Connection::ask_for_tracking(const std::vector<std::string>& options) {
    CHECK(is_ready() && context_.cache != nullptr);
    std::vector<std::string> words{"CLIENT", "TRACKING", "ON"};
    words.insert(words.end(), options.begin(), options.end());
    std::string command;
    append_array_header(command, words.size());
    for (const std::string& word : words)
        append_bulk(command, word);
    ++tracking_asked_;
    tracking_sent_ms_ = Loop::boot_ms();
    send_own(Own::Tracking, command);
}

void Connection::stop_tracking() {
    tracking_void_ = tracking_asked_;
    if (is_broken(Rule::Generation)) return;
    if (source_ != NearCache::kNoSource) context_.cache->close_source(source_);
    source_ = NearCache::kNoSource;
}

void Connection::on_tracking_reply(const Value& reply) {
    --tracking_asked_;
    if (tracking_void_ > 0) {
        --tracking_void_;
        return;
    }
    // Asked again meanwhile: what counts is the last answer.
    if (tracking_asked_ > 0) return;
    if (reply.is_error() || reply.text != "OK") {
        context_.events.on_tracking(*this, reply.text);
        return;
    }
    stop_tracking();
    if (source_ == NearCache::kNoSource) {
        source_ = context_.cache->open_source(tracking_sent_ms_);
    }
    context_.events.on_tracking(*this, {});
}

void Connection::take_push(std::string_view bytes, bool is_end) {
    if (push_.size() <= kPushMax) push_ += bytes;
    if (!is_end) return;
    ++context_.metrics.upstream_pushes_total;
    const std::string push = std::exchange(push_, {});
    if (context_.cache == nullptr) return;
    const uint64_t now_ms = Loop::boot_ms();
    const auto value = push.size() <= kPushMax ? parse_value(push) : std::nullopt;
    const bool is_readable = value && value->elements.size() == 2;
    // What can't be read may have been one.
    if (is_readable && value->elements[0].text != "invalidate") return;
    if (!is_readable || value->elements[1].is_null()) {
        if (is_broken(Rule::NullPush)) return;
        context_.cache->clear(InvalidationCause::Flush, now_ms);
        return;
    }
    for (const Value& key : value->elements[1].elements) {
        if (is_broken(Rule::Push)) continue;
        context_.cache->invalidate(key.text, InvalidationCause::Push, now_ms);
    }
}

}  // namespace nearkey
