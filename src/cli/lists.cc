// The verbs that list what a running nearkey has: clients, connections, nodes, keys, requests.
#include "nearkey/base/wall_clock.h"
#include "nearkey/cli/ask.h"
#include "nearkey/cli/text.h"

#include <pwd.h>
#include <algorithm>
#include <ostream>
#include <span>
#include <utility>

namespace nearkey {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kClientsAtATime = 200;

enum class Show { Text, Number, Count, Rate, Bytes, Seconds, Microseconds, Own };

// A column of a table, and its text for each row of the page.
struct Field {
    const char* heading;
    Show show;
    const char* key;
    std::string (*own)(const Json& row) = nullptr;  // Show::Own
};

std::string process_of(const Json& row) {
    if (!row.contains("pid") || !row["pid"].is_number()) return text_of(row, "address");
    return text_of(row, "command") + "[" + row["pid"].dump() + "]";
}

std::string user_of(const Json& row) {
    if (!row.contains("uid") || !row["uid"].is_number_unsigned()) return "-";
    const passwd* const user = getpwuid(row["uid"].get<uid_t>());
    return user != nullptr ? shown(user->pw_name) : row["uid"].dump();
}

std::string library_of(const Json& row) {
    const std::string version = text_of(row, "library_version");
    return text_of(row, "library") + (version.empty() ? "" : " " + version);
}

std::string place_of(const Json& row) {
    const std::string address = text_of(row, "address");
    return address.empty() ? "Unix socket" : address;
}

std::string tracked_of(const Json& row) {
    return row.contains("tracked") && row["tracked"] == true ? "yes" : "no";
}

std::string time_of(const Json& row) {
    return utc_text(static_cast<int64_t>(number_of(row, "time_ms")));
}

std::string outcome_of(const Json& row) {
    return row.contains("failed") && row["failed"] == true ? "failed" : "";
}

// Where no replica is read from there is nothing to tell apart.
std::string role_of(const Json& row) {
    const std::string role = text_of(row, "role");
    return role == "replica" ? role : "";
}

constexpr Field kClientFields[] = {
    {"SESSION", Show::Number, "session"},
    {"PROCESS", Show::Own, "", process_of},
    {"USER", Show::Own, "", user_of},
    {"UNIT", Show::Text, "unit"},
    {"NAME", Show::Text, "name"},
    {"LIBRARY", Show::Own, "", library_of},
    {"DB", Show::Number, "database"},
    {"RESP", Show::Number, "protocol"},
    {"ROUTE", Show::Text, "route"},
    {"COMMANDS", Show::Count, "commands"},
    {"SHM HITS", Show::Count, "shared_hits"},
    {"IN", Show::Bytes, "bytes_in"},
    {"OUT", Show::Bytes, "bytes_out"},
    {"FLIGHT", Show::Number, "in_flight"},
    {"AGE", Show::Seconds, "age_seconds"},
    {"IDLE", Show::Seconds, "idle_seconds"},
};

constexpr Field kConnectionFields[] = {
    {"KIND", Show::Text, "kind"},
    {"STATE", Show::Text, "state"},
    {"RESP", Show::Number, "protocol"},
    {"DB", Show::Number, "database"},
    {"TO", Show::Own, "", place_of},
    {"CLIENT ID", Show::Number, "server_id"},
    {"TRACKED", Show::Own, "", tracked_of},
    {"SESSIONS", Show::Number, "sessions"},
    {"FLIGHT", Show::Number, "in_flight"},
    {"WAITING", Show::Number, "waiting"},
    {"TOMBSTONES", Show::Number, "tombstones"},
    {"SENT", Show::Bytes, "bytes_sent"},
    {"RECEIVED", Show::Bytes, "bytes_received"},
    {"READY", Show::Seconds, "ready_seconds"},
    {"PROVEN", Show::Seconds, "proven_seconds"},
};

constexpr Field kNodeFields[] = {
    {"NODE", Show::Text, "address"},
    {"STATE", Show::Text, "state"},
    {"FOR", Show::Seconds, "since_seconds"},
    {"ROLE", Show::Own, "", role_of},
    {"LAG", Show::Seconds, "lag_seconds"},
    {"SLOTS", Show::Number, "slots"},
    {"CONNECTIONS", Show::Number, "connections"},
    {"FLIGHT", Show::Number, "in_flight"},
    {"WAITING", Show::Number, "waiting"},
    {"ID", Show::Text, "id"},
};

constexpr Field kHotKeyFields[] = {
    {"KEY", Show::Text, "key"},         {"NAME", Show::Text, "name"},
    {"RATE", Show::Rate, "per_second"}, {"COUNT", Show::Count, "count"},
    {"ERROR", Show::Count, "error"},
};

constexpr Field kSlowFields[] = {
    {"TIME", Show::Own, "", time_of},
    {"SESSION", Show::Number, "session"},
    {"REQUEST", Show::Number, "request"},
    {"TAG", Show::Text, "tag"},
    {"COMMAND", Show::Text, "command"},
    {"KEY", Show::Text, "key"},
    {"ROUTE", Show::Text, "route"},
    {"TOTAL", Show::Microseconds, "total_us"},
    {"QUEUE", Show::Microseconds, "queue_us"},
    {"VALKEY", Show::Microseconds, "upstream_us"},
    {"WRITE", Show::Microseconds, "write_us"},
    {"OUTCOME", Show::Own, "", outcome_of},
};

Align align_of(Show show) {
    return show == Show::Text || show == Show::Own ? Align::Left : Align::Right;
}

std::string cell_of(const Field& field, const Json& row) {
    if (field.show == Show::Own) return field.own(row);
    if (field.show == Show::Text) return text_of(row, field.key);
    const auto found = row.find(field.key);
    if (found == row.end() || !found->is_number()) return "-";
    const auto number = found->get<double>();
    switch (field.show) {
        case Show::Count:
            return count_text(number);
        case Show::Rate:
            return rate_text(number);
        case Show::Bytes:
            return bytes_text(number);
        case Show::Seconds:
            return duration_text(number);
        case Show::Microseconds:
            return duration_text(number / 1e6);
        default:
            return found->dump();
    }
}

void print_table(const Json& rows, std::span<const Field> fields, uint64_t limit,
                 std::ostream& out) {
    // A column of which nothing is known is left out.
    std::vector<Field> used;
    const uint64_t count = std::min<uint64_t>(rows.size(), limit);
    for (const Field& field : fields) {
        const auto says = [&](const Json& row) { return !cell_of(field, row).empty(); };
        if (std::any_of(rows.begin(), rows.end(), says)) used.push_back(field);
    }
    std::vector<Column> columns;
    for (const Field& field : used)
        columns.push_back({field.heading, align_of(field.show)});
    Table table(columns);
    for (uint64_t i = 0; i < count; ++i) {
        std::vector<std::string> cells;
        for (const Field& field : used)
            cells.push_back(cell_of(field, rows[i]));
        table.add(std::move(cells));
    }
    for (const std::string& line : table.lines())
        out << line << '\n';
}

// "3 clients", "100 of 412 clients, more with --limit".
void print_total(uint64_t count, double total, const char* what, std::ostream& out) {
    const auto all = std::max(static_cast<uint64_t>(std::max(total, 0.0)), count);
    if (count == all) {
        out << all << ' ' << what << (all == 1 ? "" : "s") << '\n';
    } else {
        out << count << " of " << all << ' ' << what << "s, more with --limit\n";
    }
}

// The pages of /clients as one, up to the limit.
AdminReply ask_clients(const AskOptions& options) {
    AdminReply all;
    Json rows = Json::array();
    Json next = uint64_t{0};
    while (next.is_number_unsigned() && rows.size() < options.limit) {
        const uint64_t count = std::min<uint64_t>(kClientsAtATime, options.limit - rows.size());
        all =
            ask_admin(options.target,
                      {"GET", "/clients?limit=" + std::to_string(count) + "&after=" + next.dump()},
                      "clients");
        if (!all.is_good()) return all;
        const Json& page = rows_of(all.page, "clients");
        next = page.empty() || !all.page.contains("next") ? Json() : all.page["next"];
        rows.insert(rows.end(), page.begin(), page.end());
    }
    all.page["clients"] = std::move(rows);
    return all;
}

void print_hot(const Json& page, const char* what, uint64_t limit, std::ostream& out) {
    const Json& rows = rows_of(page, what);
    out << (rows.empty() ? "no " : "") << what << (rows.empty() ? "\n" : ":\n");
    if (!rows.empty()) print_table(rows, kHotKeyFields, limit, out);
}

// Prints a page that has rows and their total.
int print_list(const AdminReply& reply, const AskOptions& options, const char* what,
               std::span<const Field> fields, std::ostream& out, std::ostream& err) {
    if (!reply.is_good()) return report(reply, err);
    const Json& rows = rows_of(reply.page, (std::string(what) + "s").c_str());
    if (options.json) {
        out << json_line(reply.page);
    } else {
        if (!rows.empty()) print_table(rows, fields, options.limit, out);
        print_total(rows.size(), number_of(reply.page, "total"), what, out);
    }
    return finish(out, err);
}

}  // namespace

int run_clients(const AskOptions& options, std::ostream& out, std::ostream& err) {
    return print_list(ask_clients(options), options, "client", kClientFields, out, err);
}

int run_connections(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const AdminReply reply =
        ask_admin(options.target, {"GET", "/connections?limit=" + std::to_string(options.limit)},
                  "connections");
    return print_list(reply, options, "connection", kConnectionFields, out, err);
}

int run_nodes(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const AdminReply reply = ask_admin(
        options.target, {"GET", "/nodes?limit=" + std::to_string(options.limit)}, "nodes");
    return print_list(reply, options, "node", kNodeFields, out, err);
}

int run_hot_keys(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const AdminReply reply = ask_admin(
        options.target, {"GET", "/hotkeys?count=" + std::to_string(options.limit)}, "hits");
    if (!reply.is_good()) return report(reply, err);
    if (options.json) {
        out << json_line(reply.page);
    } else {
        print_hot(reply.page, "hits", options.limit, out);
        out << '\n';
        print_hot(reply.page, "misses", options.limit, out);
        const auto names = reply.page.find("names_shown");
        if (names == reply.page.end() || *names != true) {
            out << "\na key is shown by a hash of this process's own; hotkeys.show_names shows "
                   "names\n";
        }
    }
    return finish(out, err);
}

int run_slow_log(const AskOptions& options, std::ostream& out, std::ostream& err) {
    AdminReply reply = ask_admin(options.target, {"GET", "/slowlog"}, "entries");
    if (!reply.is_good()) return report(reply, err);
    const Json& rows = rows_of(reply.page, "entries");
    if (options.json) {
        out << json_line(reply.page);
        return finish(out, err);
    }
    const uint64_t count = std::min<uint64_t>(rows.size(), options.limit);
    if (count > 0) print_table(rows, kSlowFields, options.limit, out);
    print_total(count, static_cast<double>(rows.size()), "request", out);
    const double threshold_us = number_of(reply.page, "threshold_us");
    out << (threshold_us > 0 ? "kept are those that took longer than " +
                                   duration_text(threshold_us / 1e6) + " (slowlog.threshold_ms)"
                             : std::string("none are kept: slowlog.threshold_ms is 0"))
        << '\n';
    return finish(out, err);
}

}  // namespace nearkey
