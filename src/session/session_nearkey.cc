// NEARKEY HELP | STATS | CACHE ON|OFF|CLEAR | EXPLAIN command [argument ...] | TAG id: what nearkey
// tells of itself, how its near cache is used, and by which word a client's commands are known.
#include "nearkey/session/session.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"

#include <fmt/format.h>

#include <utility>

namespace nearkey {

namespace {

constexpr std::string_view kHelp[] = {
    "NEARKEY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHE (ON|OFF|CLEAR)",
    "    Answer this client's reads from the near cache, or not; drop all that is stored.",
    "EXPLAIN <command> [<arg> ...]",
    "    Tell which route a command takes, and why; of a read, what the near cache knows.",
    "STATS",
    "    Return nearkey's own counters and gauges.",
    "TAG <id>",
    "    Mark this client's commands in the slow log and in warnings, until the next TAG or RESET.",
    "HELP",
    "    Print this help.",
};

std::string_view name_of(Route route) {
    switch (route) {
        case Route::Shared:
            return "shared";
        case Route::Dedicated:
            return "dedicated";
        case Route::Unproven:
            return "dedicated, closed afterwards unless the server refused";
        case Route::Transaction:
            return "shared if the transaction arrives whole, else dedicated";
        case Route::Tunnel:
            return "tunnel";
        case Route::Local:
            return "local";
        case Route::Close:
            return "the client is closed";
    }
    return "";
}

std::string_view name_of(NearCache::Outcome outcome) {
    switch (outcome) {
        case NearCache::Outcome::Hit:
            return "hit";
        case NearCache::Outcome::Miss:
            return "miss";
        case NearCache::Outcome::Pending:
            return "pending";
        case NearCache::Outcome::Blocked:
            return "blocked";
        case NearCache::Outcome::Unproven:
            return "unproven";
    }
    return "";
}

std::string_view name_of(WriteScope scope) {
    switch (scope) {
        case WriteScope::Nothing:
            return "nothing";
        case WriteScope::Keys:
            return "its keys";
        case WriteScope::Told:
            return "what Valkey tells of";
        case WriteScope::Everything:
            return "anything";
    }
    return "";
}

std::string reason_of(const NearCache::Explanation& found) {
    if (found.outcome == NearCache::Outcome::Hit) return "stored, and known to be true";
    if (found.outcome == NearCache::Outcome::Unproven) {
        return "stored, but Valkey has proven nothing for near_cache.max_staleness_ms";
    }
    if (found.refusal == NearCache::Refusal::Keys) {
        return "near_cache.keys or skip_keys leave this key out";
    }
    if (found.refusal == NearCache::Refusal::Thrash) {
        return fmt::format("its key family was invalidated more often than hit: off for {} ms",
                           found.refused_ms);
    }
    if (found.outcome == NearCache::Outcome::Blocked) return "a write is in flight";
    if (found.outcome == NearCache::Outcome::Pending) return "another client is reading it";
    return "not stored";
}

struct Explanation {
    std::string_view route;
    std::string_view reason;
};

Explanation explain_route(const CommandSpec* spec, const CommandView& command) {
    if (spec == nullptr) return {name_of(Route::Unproven), "the server does not know it"};
    if (!spec->accepts(command.size())) {
        return {name_of(spec->route == Route::Shared ? Route::Shared : Route::Unproven),
                "wrong number of arguments: the server says so"};
    }
    if (spec->blocks_by_option) {
        return {name_of(has_block_option(command) ? Route::Dedicated : Route::Shared),
                spec->reason};
    }
    if (spec->special == Special::Exec || spec->special == Special::Discard ||
        spec->special == Special::Unwatch) {
        return {"that of its transaction", spec->reason};
    }
    return {name_of(spec->route),
            spec->reason.empty() ? "leaves nothing behind on its connection" : spec->reason};
}

// The way of Session::execute_in_transaction().
Explanation explain_in_transaction(const CommandSpec* spec, const Explanation& outside) {
    const Route route = spec == nullptr ? Route::Dedicated : spec->route;
    const Special special = spec == nullptr ? Special::None : spec->special;
    const bool is_answered_here =
        special == Special::Quit || special == Special::Reset || special == Special::Nearkey;
    if (is_answered_here || route == Route::Tunnel || route == Route::Close) return outside;
    if (route == Route::Local) {
        return {name_of(Route::Tunnel),
                "in a transaction the server keeps what belongs to the session"};
    }
    return {name_of(Route::Dedicated), "the session's transaction has a connection of its own"};
}

}  // namespace

// Names and values of a map, as they are added.
struct Session::Pairs {
    void add(std::string_view name, std::string_view value) {
        append_bulk(bytes, name);
        append_bulk(bytes, value);
        ++count;
    }
    void add(std::string_view name, uint64_t value) {
        append_bulk(bytes, name);
        append_integer(bytes, static_cast<int64_t>(value));
        ++count;
    }

    void add(std::string_view name, const std::vector<std::string_view>& values) {
        append_bulk(bytes, name);
        append_array_header(bytes, values.size());
        for (const std::string_view value : values)
            append_bulk(bytes, value);
        ++count;
    }

    std::string bytes;
    size_t count = 0;
};

Session::Executed Session::nearkey(const CommandView& command) {
    std::string reply;
    const std::string_view what = command.size() > 1 ? command[1] : std::string_view{};
    if (equals_ignoring_case(what, "HELP") && command.size() == 2) {
        append_array_header(reply, std::size(kHelp));
        for (const std::string_view line : kHelp)
            append_bulk(reply, line);
    } else if (equals_ignoring_case(what, "STATS") && command.size() == 2) {
        Pairs pairs;
        const Metrics total = context_.all == nullptr ? context_.metrics : context_.all->total();
        for_each_stat(total, [&](std::string_view name, std::string_view value) {
            // A number of seconds is no integer.
            const auto number = parse_integer(value);
            number ? pairs.add(name, static_cast<uint64_t>(*number)) : pairs.add(name, value);
        });
        append_map_header(reply, pairs.count, protocol_);
        reply += pairs.bytes;
    } else if (equals_ignoring_case(what, "CACHE") && command.size() == 3) {
        nearkey_cache(command[2]);
        return Executed::Yes;
    } else if (equals_ignoring_case(what, "TAG") && command.size() == 3) {
        return nearkey_tag(command[2]);
    } else if (equals_ignoring_case(what, "EXPLAIN") && command.size() > 2) {
        explain(command);
        return Executed::Yes;
    } else if (command.size() == 1) {
        append_error(reply, "ERR wrong number of arguments for 'nearkey' command");
    } else {
        append_error(reply, fmt::format("ERR unknown subcommand or wrong number of arguments for "
                                        "'{}'. Try NEARKEY HELP.",
                                        what.substr(0, 128)));
    }
    answer(reply);
    return Executed::Yes;
}

Session::Executed Session::nearkey_tag(std::string_view tag) {
    if (!RequestTags::is_valid(tag)) {
        answer_error(fmt::format("ERR NEARKEY TAG takes up to {} printable characters, no spaces",
                                 RequestTags::kLengthMax));
        return Executed::Yes;
    }
    if (tags_ == nullptr) tags_ = std::make_unique<RequestTags>();
    tags_->keep_from(first_ticket_);
    if (tags_->is_full()) return wait_until_idle();
    tags_->set(tag, next_ticket_);
    answer("+OK\r\n");
    return Executed::Yes;
}

void Session::nearkey_cache(std::string_view what) {
    const bool is_on = equals_ignoring_case(what, "ON");
    const bool is_clear = equals_ignoring_case(what, "CLEAR");
    if (!is_on && !is_clear && !equals_ignoring_case(what, "OFF")) {
        answer_error("ERR NEARKEY CACHE is followed by ON, OFF or CLEAR");
        return;
    }
    if (context_.cache == nullptr) {
        if (is_on) {
            answer_error("ERR the near cache is off (near_cache.enabled, max_staleness_ms)");
        } else {
            answer("+OK\r\n");
        }
        return;
    }
    if (is_clear) {
        context_.cache->clear(InvalidationCause::Asked, context_.boot_ms);
    } else {
        cache_use_ = is_on ? CacheUse::On : CacheUse::Off;
    }
    answer("+OK\r\n");
}

// The same question as read() asks, of another command than the one being executed.
bool Session::is_served_stale(const CommandSpec* spec, const CommandView& command) {
    if (spec == nullptr || !spec->accepts(command.size())) return false;
    if (context_.cache == nullptr || !context_.pool.serves_stale()) return false;
    const CommandSpec* const own = std::exchange(spec_, spec);
    const bool is_stale = may_be_stored(command) && !spec->is_split(command) &&
                          !context_.cache->find_stale(query(command), context_.boot_ms).empty();
    spec_ = own;
    return is_stale;
}

void Session::explain(const CommandView& command) {
    // The command to explain, without the two words before it, as if a client had sent it.
    std::string& bytes = context_.encoded;
    bytes.clear();
    append_array_header(bytes, command.size() - 2);
    for (size_t i = 2; i < command.size(); ++i)
        append_bulk(bytes, command[i]);
    CommandParser& parser = context_.lookahead;
    parser.restart();
    if (parser.next(bytes) != ParseResult::Command) return;
    const CommandSpec* spec = context_.pool.commands().find(parser.command());
    Explanation explanation = explain_route(spec, parser.command());
    if (is_in_transaction()) explanation = explain_in_transaction(spec, explanation);
    if (is_refused(spec, parser.command())) {
        explanation = {"refused by rule", "the option commands of its listener leaves it out"};
    } else if (is_served_stale(spec, parser.command())) {
        explanation = {"near cache", "Valkey is away: near_cache.stale_if_unavailable_ms"};
    }
    Pairs pairs;
    pairs.add("command", spec == nullptr ? parser.command()[0].substr(0, 128) : spec->name);
    pairs.add("route", explanation.route);
    pairs.add("reason", explanation.reason);
    spec_ = spec;
    explain_keys(parser.command(), pairs);
    explain_cache(parser.command(), pairs);
    std::string reply;
    append_map_header(reply, pairs.count, protocol_);
    answer(reply + pairs.bytes);
}

// What the command may read and write, as far as the near cache knows: note() does by it.
void Session::explain_keys(const CommandView& command, Pairs& pairs) {
    const bool is_call = spec_ != nullptr && spec_->accepts(command.size());
    context_.keys.clear();
    const bool is_known = is_call && spec_->find_keys(command, context_.keys);
    WriteScope scope = spec_ == nullptr ? WriteScope::Everything
                       : is_call        ? spec_->writes
                                        : WriteScope::Nothing;
    if (scope == WriteScope::Keys && !is_known) scope = WriteScope::Everything;
    pairs.add("writes", name_of(scope));
    if (is_known) {
        pairs.add("keys", context_.keys);
    } else {
        pairs.add("keys", "not known");
    }
}

// What the near cache would do with the command now, and why.
void Session::explain_cache(const CommandView& command, Pairs& pairs) {
    const bool is_call = spec_ != nullptr && spec_->accepts(command.size());
    const std::string_view refusal =
        context_.cache == nullptr        ? "the near cache is off"
        : context_.pool.is_cluster()     ? "off: the upstream is a node of a cluster"
        : context_.cache->is_suspended() ? "suspended: another nearkey has clients here (upgrade)"
        : !is_call                       ? "not a sound call"
        : is_refused(spec_, command)     ? "refused by rule"
        : !spec_->is_readonly            ? "not a read"
        : !spec_->is_cacheable(command)  ? "not on the list of reads that may be stored"
        : cache_use_ == CacheUse::Off    ? "off for this client"
        : context_.cache->has_monitors() ? "a client runs MONITOR"
        : is_in_transaction()            ? "inside a transaction"
                                         : std::string_view{};
    if (!refusal.empty()) {
        pairs.add("cache", "bypassed");
        pairs.add("cache_reason", refusal);
        return;
    }
    if (!spec_->is_split(command)) {
        explain_key(query(command), pairs);
        return;
    }
    for (size_t i = 1; i < command.size(); ++i) {
        const auto found = context_.cache->explain(query_part(command[i]), context_.boot_ms);
        pairs.add(fmt::format("cache, key {}", i),
                  fmt::format("{}: {}", name_of(found.outcome), reason_of(found)));
    }
}

void Session::explain_key(const CacheQuery& query, Pairs& pairs) {
    using Outcome = NearCache::Outcome;
    const NearCache::Explanation found = context_.cache->explain(query, context_.boot_ms);
    const bool is_stored = found.outcome == Outcome::Hit || found.outcome == Outcome::Unproven;
    pairs.add("cache", name_of(found.outcome));
    pairs.add("cache_reason", reason_of(found));
    if (is_stored) {
        pairs.add("age_ms", found.age_ms);
        pairs.add("ttl_left_ms", found.left_ms);
        pairs.add("proven_ms_ago", found.proven_ms);
        pairs.add("connection", context_.pool.describe_source(found.source));
    }
    pairs.add("last_invalidation", name_of(found.cause));
    if (found.cause != InvalidationCause::None) {
        pairs.add("last_invalidation_ms_ago", found.invalidated_ms);
    }
}

}  // namespace nearkey
