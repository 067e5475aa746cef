#include "nearkey/upstream/tracking.h"

#include "nearkey/base/check.h"
#include "nearkey/base/sabotage.h"

#include <utility>

namespace nearkey {

namespace {
// A push that names more than this is taken as one of everything.
constexpr size_t kPushMax = size_t{1} << 20;
}  // namespace

// OPTOUT: reads that will not be stored come behind CLIENT CACHING NO, and so are not tracked.
void Tracking::start(int64_t receiver) {
    std::vector<std::string> options{"OPTOUT"};
    if (receiver != 0) options.insert(options.end(), {"REDIRECT", std::to_string(receiver)});
    ask(options);
}

void Tracking::start_broadcast(const std::vector<std::string>& prefixes) {
    std::vector<std::string> options{"BCAST"};
    for (const std::string& prefix : prefixes)
        options.insert(options.end(), {"PREFIX", prefix});
    ask(options);
}

void Tracking::ask(const std::vector<std::string>& options) {
    NEARKEY_CHECK(pipeline_.is_ready() && context_.cache != nullptr);
    std::vector<std::string> words{"CLIENT", "TRACKING", "ON"};
    words.insert(words.end(), options.begin(), options.end());
    std::string command;
    append_command(command, words);
    ++asked_;
    asked_ms_ = Loop::boot_ms();
    pipeline_.ask(*this, 0, command, 1);
}

void Tracking::stop() {
    void_ = asked_;
    if (is_broken(Rule::Generation)) return;
    if (is_on()) context_.cache->close_source(source_);
    source_ = NearCache::kNoSource;
}

void Tracking::end() {
    asked_ = void_ = 0;
    push_.clear();
}

void Tracking::on_whole_reply(uint32_t, const std::string& reply) {
    --asked_;
    if (!has_answered(connection_, OwnCommand::Tracking, reply)) return;
    if (void_ > 0) {
        --void_;
        return;
    }
    // Asked again meanwhile: only the last answer counts.
    if (asked_ > 0) return;
    const Value value = parse_value(reply).value_or(Value{});
    if (value.is_error()) {
        context_.events.on_tracking(connection_, value.text);
        return;
    }
    if (!is_broken(Rule::FailoverVoid)) stop();
    if (!is_on()) source_ = context_.cache->open_source(asked_ms_);
    context_.events.on_tracking(connection_, {});
}

void Tracking::on_push(std::string_view bytes, bool is_end) {
    if (push_.size() <= kPushMax) push_ += bytes;
    if (!is_end) return;
    ++context_.metrics.upstream_pushes_total;
    const std::string push = std::exchange(push_, {});
    if (context_.cache == nullptr) return;
    const uint64_t now_ms = Loop::boot_ms();
    const auto value = push.size() <= kPushMax ? parse_value(push) : std::nullopt;
    const bool is_readable = value && value->elements.size() == 2;
    // A push that can't be read may have been one.
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
