#include "nearkey/server/admin_control.h"

#include "nearkey/server/admin_json.h"

#include <nlohmann/json.hpp>

namespace nearkey {

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
    // So that it is said at either level, whichever is the more talkative.
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

}  // namespace nearkey
