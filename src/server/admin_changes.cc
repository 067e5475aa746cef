#include "nearkey/server/admin_changes.h"

#include "nearkey/server/admin_json.h"

#include <nlohmann/json.hpp>

#include <unistd.h>

namespace nearkey {

namespace {

using State = AdminChange::State;

std::string_view name_of(State state) {
    static constexpr std::string_view kNames[] = {"none", "under way", "done", "refused"};
    return kNames[static_cast<size_t>(state)];
}

// As every answer from 400 up, a refusal has its reason in "error" as well.
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
