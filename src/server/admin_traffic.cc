#include "nearkey/server/admin_page_functions.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <utility>

namespace nearkey {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kCount = 20;
constexpr uint64_t kCountMax = 1000;

double rounded(double value) {
    return std::round(value * 10) / 10;
}

Json listed(const std::vector<HotKeys::Entry>& entries, const AdminSource& source) {
    Json list = Json::array();
    for (const HotKeys::Entry& entry : entries) {
        Json item = {{"key", source.slow_log().key_hash().shown(entry.hash)}};
        if (source.shows_key_names()) item["name"] = entry.name;
        item["per_second"] = rounded(entry.per_second);
        item["count"] = rounded(entry.count);
        item["error"] = rounded(entry.error);
        list.push_back(std::move(item));
    }
    return list;
}

}  // namespace

AdminAnswer hot_keys_page(AdminSource& source, const AdminRequest& request) {
    uint64_t count = kCount;
    if (!request.read_number("count", kCountMax, count)) {
        return admin_error(400, "count is a number from 0 to 1000");
    }
    using Outcome = HotKeys::Outcome;
    return json_answer(200, {{"names_shown", source.shows_key_names()},
                             {"window_seconds", HotKeys::kWindowMs / 1000},
                             {"hits", listed(source.hot_keys(count, Outcome::Hit), source)},
                             {"misses", listed(source.hot_keys(count, Outcome::Miss), source)}});
}

AdminAnswer slow_log_page(AdminSource& source, const AdminRequest& /*request*/) {
    const SlowLog& log = source.slow_log();
    const std::deque<SlowEntry> kept = log.entries();
    Json entries = Json::array();
    for (auto entry = kept.rbegin(); entry != kept.rend(); ++entry) {
        entries.push_back({{"id", entry->id},
                           {"time_ms", entry->time_ms},
                           {"session", entry->session},
                           {"request", entry->request},
                           {"tag", entry->tag},
                           {"command", entry->command},
                           {"key", log.key_hash().shown(entry->key_hash)},
                           {"route", name_of(entry->route)},
                           {"failed", entry->has_failed},
                           {"queue_us", entry->queue_us},
                           {"upstream_us", entry->upstream_us},
                           {"write_us", entry->write_us},
                           {"total_us", entry->total_us}});
    }
    return json_answer(200,
                       {{"threshold_us", log.threshold_us()}, {"entries", std::move(entries)}});
}

}  // namespace nearkey
