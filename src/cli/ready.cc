#include "nearkey/cli/ready.h"

#include "nearkey/base/exit_code.h"
#include "nearkey/cli/admin_client.h"

#include <ostream>

namespace nearkey {

int run_ready(const AskOptions& options, std::ostream& out, std::ostream& /*err*/) {
    const HttpOutcome heard =
        ask_http(options.target.address, {"GET", "/readyz"}, options.target.timeout_ms);
    int exit_code = kExitMistaken;
    std::string line = problem_of(heard, options.target.address);
    const auto page = nlohmann::ordered_json::parse(heard.answer.body, nullptr, false);
    const std::string state = page.is_object() ? text_of(page, "state") : "";
    const bool is_ready = state == "ready";
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
