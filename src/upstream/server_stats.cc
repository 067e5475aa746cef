#include "nearkey/upstream/server_stats.h"

#include "nearkey/base/sabotage.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/advice.h"
#include "nearkey/upstream/connection.h"
#include "nearkey/upstream/server_catalog.h"

#include <string>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kStatsReplyMax = size_t{1} << 20;
constexpr std::string_view kStats = "*3\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n$8\r\nkeyspace\r\n";

// Valkey's name for it, and Redis'.
constexpr std::string_view kNames[] = {",keys_with_volatile_items=", ",subexpiry="};

bool has_expiring_fields_in(std::string_view line) {
    for (const std::string_view name : kNames) {
        const size_t at = line.find(name);
        if (at != std::string_view::npos) return !line.substr(at + name.size()).starts_with('0');
    }
    return true;
}
}  // namespace

bool has_expiring_fields(std::string_view info) {
    const size_t section = info.find("# Keyspace");
    if (section == std::string_view::npos) return true;
    info.remove_prefix(section);
    while (!info.empty()) {
        const size_t end = info.find('\n');
        const std::string_view line = info.substr(0, end);
        if (line.starts_with("db") && has_expiring_fields_in(line)) return true;
        if (end == std::string_view::npos) return false;
        info.remove_prefix(end + 1);
    }
    return false;
}

ServerStats::ServerStats(ConnectionContext& context, const ServerCatalog& catalog,
                         std::function<void()> on_known)
    : context_(context),
      catalog_(catalog),
      on_known_(std::move(on_known)),
      question_(kStatsReplyMax, OwnCommand::Info,
                [this](std::string_view reply) { on_stats(reply); }) {
}

void ServerStats::ask(Connection& primary) {
    if (question_.is_open() || !primary.is_ready()) return;
    if (is_hidden_ && Loop::boot_ms() < sent_ms_ + kRefusedAgainMs) return;
    sent_ms_ = Loop::boot_ms();
    question_.ask(primary, kStats, RequestKind::Write);
}

void ServerStats::forget() {
    question_.drop();
    swaps_ = {};
    swapdb_proven_ms_ = 0;
    is_hidden_ = false;
    fields_expire_ = true;
}

void ServerStats::on_stats(std::string_view reply) {
    if (reply.starts_with('-')) {
        on_refused(reply);
        return;
    }
    is_hidden_ = false;
    note_fields(reply);
    NearCache& cache = *context_.cache;
    switch (swaps_.note(reply)) {
        case SwapWatch::Verdict::Unchanged:
            break;
        case SwapWatch::Verdict::Swapped:
            cache.clear(InvalidationCause::SwapDb, Loop::boot_ms());
            break;
        case SwapWatch::Verdict::Resumed:
            cache.clear(InvalidationCause::Lost, Loop::boot_ms());
            cache.drop_lost();
            break;
    }
    swapdb_proven_ms_ = is_broken(Rule::SwapDbAsked) ? Loop::boot_ms() : sent_ms_;
    on_known_();
}

void ServerStats::on_refused(std::string_view reply) {
    fields_expire_ = true;
    // LOADING and the like pass.
    is_hidden_ = reply.starts_with("-NOPERM");
    if (is_hidden_) swaps_.forget();
    if (is_hidden_ && context_.failures.is_news("swapdb")) {
        const std::string words = parse_value(reply).value_or(Value{}).text;
        context_.log.warning("swapdb_hidden", {{"reason", words.substr(0, 200)}});
    }
}

// Replies that were stored while no field was known to expire are served no longer than until this
// is asked for again: between two answers a field may have begun to.
void ServerStats::note_fields(std::string_view info) {
    const bool may_expire =
        catalog_.commands().find_name("hpexpire") != nullptr && has_expiring_fields(info);
    if (may_expire && !fields_expire_) {
        context_.cache->clear(InvalidationCause::Fields, Loop::boot_ms());
    }
    fields_expire_ = may_expire;
}

}  // namespace nearkey
