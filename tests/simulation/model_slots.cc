#include "model_slots.h"

#include "nearkey/resp/reply_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace nearkey::simulation {

void ModelSlots::set_owner(uint16_t slot, uint8_t owner) {
    owners_[slot] = owner;
    if (owner != self_) migrating.erase(slot);
    if (owner == self_) importing.erase(slot);
}

void ModelSlots::replace(uint8_t former, uint8_t next) {
    std::replace(owners_.begin(), owners_.end(), former, next);
}

std::string ModelSlots::refusal(const Asked& asked) const {
    const uint16_t slot = asked.slot;
    if (is_down) return "CLUSTERDOWN The cluster is down";
    const std::string again = "TRYAGAIN Multiple keys request during rehashing of slot";
    const uint8_t owner = owners_[slot];
    if (owner == kNobody) return "CLUSTERDOWN Hash slot not served";
    if (owner == self_ && !asked.is_replica) {
        const auto leaving = migrating.find(slot);
        if (leaving == migrating.end() || asked.missing == 0) return "";
        if (asked.missing < asked.keys) return again;
        return fmt::format("ASK {} {}", slot, address_of(leaving->second));
    }
    if (importing.contains(slot) && asked.is_asking)
        return asked.keys > 1 && asked.missing > 0 ? again : "";
    return fmt::format("MOVED {} {}", slot, address_of(owner));
}

std::string ModelSlots::reply() const {
    std::string ranges;
    size_t count = 0;
    for (size_t first = 0; first < kSlots;) {
        const uint8_t owner = owners_[first];
        size_t end = first;
        while (end < kSlots && owners_[end] == owner)
            ++end;
        if (owner != kNobody) {
            ++count;
            append_array_header(ranges, 3);
            append_integer(ranges, static_cast<int64_t>(first));
            append_integer(ranges, static_cast<int64_t>(end - 1));
            append_array_header(ranges, 4);
            append_bulk(ranges, names_[owner]);
            append_integer(ranges, 6379);
            append_bulk(ranges, fmt::format("{:040x}", owner + 1));
            append_array_header(ranges, 0);
        }
        first = end;
    }
    std::string reply;
    append_array_header(reply, count);
    return reply + ranges;
}

std::vector<std::string> keys_of(const Words& words) {
    static constexpr std::array<std::string_view, 14> kOne{
        "get",     "hget",  "getrange", "hgetall", "hscan", "set",   "hset",
        "pexpire", "lpush", "lrange",   "llen",    "pttl",  "blpop", "spublish"};
    static constexpr std::array<std::string_view, 6> kAll{"mget", "exists", "touch",
                                                          "del",  "watch",  "unlink"};
    std::string name = words[0];
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    const auto is_one_of = [&name](const auto& names) {
        return std::find(names.begin(), names.end(), name) != names.end();
    };
    if (words.size() < 2) return {};
    if (is_one_of(kOne)) return {words[1]};
    if (is_one_of(kAll)) return {words.begin() + 1, words.end()};
    if (name == "rename" || name == "copy") return {words[1], words[2]};
    if (name != "eval" && name != "eval_ro") return {};
    const auto keys = static_cast<ptrdiff_t>(std::stoul(words[2]));
    return {words.begin() + 3, words.begin() + 3 + keys};
}

}  // namespace nearkey::simulation
