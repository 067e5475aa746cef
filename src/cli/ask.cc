#include "nearkey/cli/ask.h"

#include "nearkey/base/check.h"
#include "nearkey/base/exit_code.h"

#include <ostream>

namespace nearkey {

int report(const AdminReply& reply, std::ostream& err) {
    NEARKEY_CHECK(!reply.is_good());
    err << "nearkey: " << reply.problem << '\n';
    return reply.is_answer() ? kExitFailed : kExitMistaken;
}

int finish(std::ostream& out, std::ostream& err) {
    if (out.flush()) return kExitOk;
    err << "nearkey: the answer could not be written\n";
    return kExitFailed;
}

int run_ready(const AskOptions& options, std::ostream& out, std::ostream& /*err*/) {
    const HttpOutcome heard =
        ask_http(options.target.address, {"GET", "/readyz"}, options.target.timeout_ms);
    int exit_code = kExitMistaken;
    std::string line = problem_of(heard, options.target.address);
    const auto page = nlohmann::ordered_json::parse(heard.answer.body, nullptr, false);
    const std::string state = page.is_object() ? text_of(page, "state") : "";
    const bool is_ready = state == "ready" || state == "degraded";
    const bool is_status_right = heard.answer.status == (is_ready ? 200u : 503u);
    if (heard.kind == HttpOutcome::Kind::Answered && is_status_right && !state.empty()) {
        exit_code = is_ready ? kExitOk : kExitFailed;
        line = state;
        const std::string why = text_of(page, "reason");
        if (!why.empty()) line.append(": ").append(why);
        const std::string since = text_of(page, "since");
        if (!since.empty()) line.append(" (since ").append(since).append(")");
    }
    out << line << '\n';
    return exit_code;
}

}  // namespace nearkey
