#include "nearkey/resp/cache_rules.h"

#include <algorithm>

namespace nearkey {

namespace {

constexpr std::string_view kValue = "the value, or a part of it";
constexpr std::string_view kSize = "changes only with the value";
constexpr std::string_view kMember = "a question about the value";

// Each has its one key first, or is split by its keys, is answered from them alone, and has the
// same reply until one is written, expires or is deleted. All of them are tracked by the server,
// for it flags them "readonly". The number of a rule is its place in the list, from 1; at most 127.
constexpr CacheRule kCacheRules[] = {
    // Strings and bitmaps
    {"get", kValue},
    {"mget", kValue, CacheSplit::Values},
    {"getrange", kValue},
    {"substr", kValue},
    {"strlen", kSize},
    {"getbit", kValue},
    {"bitcount", kSize},
    {"bitpos", kMember},
    {"bitfield_ro", kValue},
    // Hashes
    {"hget", kValue},
    {"hmget", kValue},
    {"hgetall", kValue},
    {"hkeys", kValue},
    {"hvals", kValue},
    {"hlen", kSize},
    {"hexists", kMember},
    {"hstrlen", kSize},
    // Lists
    {"lrange", kValue},
    {"lindex", kValue},
    {"llen", kSize},
    {"lpos", kMember},
    // Sets
    {"smembers", kValue},
    {"sismember", kMember},
    {"smismember", kMember},
    {"scard", kSize},
    // Sorted sets and places
    {"zrange", kValue},
    {"zrangebyscore", kValue},
    {"zrangebylex", kValue},
    {"zrevrange", kValue},
    {"zrevrangebyscore", kValue},
    {"zrevrangebylex", kValue},
    {"zscore", kMember},
    {"zmscore", kMember},
    {"zcard", kSize},
    {"zcount", kMember},
    {"zlexcount", kMember},
    {"zrank", kMember},
    {"zrevrank", kMember},
    {"geopos", kMember},
    {"geodist", kMember},
    {"geohash", kMember},
    {"geosearch", kMember},
    {"georadius_ro", kMember},
    {"georadiusbymember_ro", kMember},
    // Streams
    {"xlen", kSize},
    {"xrange", kValue},
    {"xrevrange", kValue},
    // Of any type
    {"type", kMember},
    {"exists", kMember, CacheSplit::Count},
};

// Change keys, though their flags do not say so.
constexpr std::string_view kUnflagged[] = {
    "debug", "exec", "replicaof", "slaveof", "failover", "cluster", "psync", "sync",
};

// Show keys, though their flags do not say so: their number, or the values written to them.
constexpr std::string_view kTelling[] = {
    "info",
    "slowlog|get",
    "commandlog|get",
    "memory|stats",
    "cluster|countkeysinslot",
    "cluster|getkeysinslot",
};

// True if a reply may show a newer state of keys than stored replies do.
bool tells_of_keys(const CommandSpec& spec) {
    const bool is_telling =
        std::find(std::begin(kTelling), std::end(kTelling), spec.name) != std::end(kTelling);
    const bool has_keys = !spec.key_specs.empty();
    return is_telling || (spec.is_readonly && spec.writes == WriteScope::Nothing &&
                          (has_keys || spec.is_module || spec.family == CommandFamily::Keyspace));
}

// Categories in which there is no such read; of others it is not known which commands they have.
constexpr std::string_view kWithoutReads[] = {"admin",     "blocking",    "dangerous", "pubsub",
                                              "scripting", "transaction", "write"};

// Of the three that this is asked about: reads, SELECT and NEARKEY.
std::string_view category_of(std::string_view name) {
    return name == "select" ? "connection" : name == "nearkey" ? "admin" : "read";
}

bool may_refuse(std::span<const AccessRule> rules, std::string_view name) {
    const std::string_view own = category_of(name);
    bool is_allowed = false;
    for (const AccessRule& rule : rules) {
        const bool is_apart =
            rule.name != own && std::find(std::begin(kWithoutReads), std::end(kWithoutReads),
                                          rule.name) != std::end(kWithoutReads);
        const bool is_all = rule.about == AccessRule::About::Everything;
        const bool is_it = rule.about == AccessRule::About::Command && rule.name == name;
        const bool is_category = rule.about == AccessRule::About::Category && !is_apart &&
                                 (!rule.allows || rule.name == own);
        if (is_all || is_it || is_category) is_allowed = rule.allows;
    }
    return !is_allowed;
}

}  // namespace

std::string find_refused_read(std::span<const AccessRule> rules) {
    for (const CacheRule& rule : kCacheRules) {
        if (may_refuse(rules, rule.name)) return std::string(rule.name);
    }
    for (const std::string_view name : {"select", "nearkey"}) {
        if (may_refuse(rules, name)) return std::string(name);
    }
    return "";
}

void apply_cache_rules(CommandSpec& spec, bool specs_known) {
    const bool is_unflagged =
        std::any_of(std::begin(kUnflagged), std::end(kUnflagged), [&](std::string_view name) {
            return spec.name == name ||
                   (spec.name.starts_with(name) && spec.name[name.size()] == '|');
        });
    // PFCOUNT is "readonly", and may write the count that it has found. The server says "RW" for a
    // module's keys if the module says nothing.
    const bool is_writing =
        !spec.is_module && std::any_of(spec.key_specs.begin(), spec.key_specs.end(),
                                       [](const KeySpec& keys) { return keys.is_written; });
    if (spec.is_readonly) {
        spec.writes = is_writing ? WriteScope::Keys : WriteScope::Nothing;
    } else if (spec.is_write && specs_known && !spec.key_specs.empty() && !spec.is_module) {
        spec.writes = WriteScope::Keys;
    } else if (spec.special == Special::Script) {
        spec.writes = spec.key_specs.empty() ? WriteScope::Nothing : WriteScope::Told;
    } else if (spec.is_write || is_unflagged || spec.is_module) {
        spec.writes = WriteScope::Everything;
    }
    // Scripts and modules may read and write keys that they do not name.
    spec.names_keys = specs_known && spec.special != Special::Script && !spec.is_module;
    spec.tells_of_keys = tells_of_keys(spec);
    const auto* const rule =
        std::find_if(std::begin(kCacheRules), std::end(kCacheRules),
                     [&](const CacheRule& candidate) { return candidate.name == spec.name; });
    const bool has_one_key = specs_known && spec.key_specs.size() == 1 &&
                             spec.key_specs[0].keyword.empty() && spec.key_specs[0].begin == 1;
    if (rule == std::end(kCacheRules) || !spec.is_readonly || !has_one_key) return;
    if (spec.route != Route::Shared || spec.blocks_by_option) return;
    spec.cache_number = static_cast<uint8_t>(rule - kCacheRules + 1);
    spec.cache_reason = rule->reason;
    spec.cache_split = rule->split;
    // HGET, HGETALL ...: the names of all hash commands begin so, and of none else.
    spec.reads_fields = spec.name[0] == 'h';
}

}  // namespace nearkey
