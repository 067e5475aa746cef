// NEARKEY HELP | STATS | EXPLAIN command [argument ...]: what nearkey tells of itself.
#include "nearkey/session/session.h"

#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"

#include <fmt/format.h>

namespace nearkey {

namespace {

constexpr std::string_view kHelp[] = {
    "NEARKEY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "EXPLAIN <command> [<arg> ...]",
    "    Tell which route a command takes, and why.",
    "STATS",
    "    Return nearkey's own counters and gauges.",
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

}  // namespace

void Session::nearkey(const CommandView& command) {
    std::string reply;
    const std::string_view what = command.size() > 1 ? command[1] : std::string_view{};
    if (equals_ignoring_case(what, "HELP") && command.size() == 2) {
        append_array_header(reply, std::size(kHelp));
        for (const std::string_view line : kHelp)
            append_bulk(reply, line);
    } else if (equals_ignoring_case(what, "STATS") && command.size() == 2) {
        const auto rows = metric_rows();
        append_map_header(reply, rows.size(), protocol_);
        for (const MetricRow& row : rows) {
            append_bulk(reply, row.name);
            append_integer(reply, static_cast<int64_t>(context_.metrics.*row.field));
        }
    } else if (equals_ignoring_case(what, "EXPLAIN") && command.size() > 2) {
        explain(command);
        return;
    } else if (command.size() == 1) {
        append_error(reply, "ERR wrong number of arguments for 'nearkey' command");
    } else {
        append_error(reply, fmt::format("ERR unknown subcommand or wrong number of arguments for "
                                        "'{}'. Try NEARKEY HELP.",
                                        what.substr(0, 128)));
    }
    answer(reply);
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
    const Explanation explanation = explain_route(spec, parser.command());
    std::string reply;
    append_map_header(reply, 3, protocol_);
    append_bulk(reply, "command");
    append_bulk(reply, spec == nullptr ? parser.command()[0].substr(0, 128) : spec->name);
    append_bulk(reply, "route");
    append_bulk(reply, explanation.route);
    append_bulk(reply, "reason");
    append_bulk(reply, explanation.reason);
    answer(reply);
}

}  // namespace nearkey
