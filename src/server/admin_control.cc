// /config, and the pages that change something. Each change is logged, with the request.
#include "nearkey/server/admin_page_functions.h"

#include <nlohmann/json.hpp>

#include <unistd.h>

namespace nearkey {

namespace {

using State = AdminChange::State;

std::string_view name_of(State state) {
    static constexpr std::string_view kNames[] = {"none", "under way", "done", "refused"};
    return kNames[static_cast<size_t>(state)];
}

// A refusal has its reason in "error" as well, like every answer from 400 up.
AdminAnswer told(const AdminChange& change, unsigned status) {
    nlohmann::ordered_json json = {{"state", name_of(change.state)},
                                   {"number", change.number},
                                   {"pid", getpid()},
                                   {"reason", change.reason},
                                   {"changes", change.changes}};
    if (status >= 400) json["error"] = change.reason;
    return json_answer(status, json);
}

AdminAnswer told_asker(const AdminChange& change, unsigned refused_status) {
    if (change.state == State::Refused) return told(change, refused_status);
    return told(change, change.state == State::UnderWay ? 202 : 200);
}

}  // namespace

AdminAnswer config_page(AdminSource& source, const AdminRequest& /*request*/) {
    return {200, "text/plain; charset=utf-8", source.config_text()};
}

AdminAnswer log_level_page(AdminSource& source, const AdminRequest& /*request*/) {
    return json_answer(200, {{"level", to_text(source.log().level())}});
}

AdminAnswer set_log_level(AdminSource& source, const AdminRequest& request) {
    LogLevel level = LogLevel::Info;
    if (!parse_log_level(request.parameter("level").value_or(""), level)) {
        return admin_error(400,
                           "level is one of debug, info, warning, error: /log-level?level=info");
    }
    Log& log = source.log();
    // Logged at the old level or at the new one, so that one of them shows it.
    if (level > log.level()) log.info("log_level", {{"now", to_text(level)}});
    if (level < log.level()) {
        log.set_level(level);
        log.info("log_level", {{"now", to_text(level)}});
    }
    log.set_level(level);
    return log_level_page(source, request);
}

AdminAnswer clear_cache(AdminSource& source, const AdminRequest& /*request*/) {
    const std::optional<uint64_t> dropped = source.clear_near_cache();
    if (!dropped) return admin_error(409, "the near cache is switched off");
    source.log().info("near_cache_cleared", {{"entries", static_cast<int64_t>(*dropped)}});
    return json_answer(200, {{"dropped", *dropped}});
}

AdminAnswer reload_page(AdminSource& source, const AdminRequest& /*request*/) {
    return told(source.last_reload(), 200);
}

AdminAnswer ask_reload(AdminSource& source, const AdminRequest& /*request*/) {
    return told_asker(source.reload(), 422);
}

AdminAnswer upgrade_page(AdminSource& source, const AdminRequest& /*request*/) {
    return told(source.last_upgrade(), 200);
}

AdminAnswer ask_upgrade(AdminSource& source, const AdminRequest& /*request*/) {
    return told_asker(source.upgrade(), 409);
}

}  // namespace nearkey
