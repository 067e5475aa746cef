// The verbs that change a running nearkey: reload, upgrade, log-level and cache-clear.
#include "nearkey/base/exit_code.h"
#include "nearkey/cli/ask.h"
#include "nearkey/cli/text.h"

#include <algorithm>
#include <chrono>
#include <ostream>
#include <thread>

namespace nearkey {

namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::chrono::milliseconds kPause{50};  // between two questions
constexpr const char* kUnderWay = "under way";

// The time that a verb has for all its questions.
class Patience {
public:
    explicit Patience(const AdminTarget& target)
        : target_(target), end_(Clock::now() + std::chrono::milliseconds(target.timeout_ms)) {}

    bool is_over() const { return Clock::now() >= end_; }
    AdminReply ask(const HttpRequest& request) const {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(end_ - Clock::now()).count();
        AdminTarget target = target_;
        target.timeout_ms = std::max(static_cast<int>(left), 1);
        return ask_admin(target, request, "state");
    }
    // Asks again and again until `is_end` of the page; the last answer, or none.
    template <class IsEnd>
    AdminReply ask_until(const HttpRequest& request, IsEnd is_end) const {
        AdminReply last;
        do {
            std::this_thread::sleep_for(kPause);
            AdminReply reply = ask(request);
            if (!reply.is_answer()) continue;
            last = std::move(reply);
            if (is_end(last.page)) return last;
        } while (!is_over());
        return last;
    }

private:
    const AdminTarget& target_;
    const Clock::time_point end_;
};

int not_yet(const AdminReply& reply, const char* what, std::ostream& err) {
    err << "nearkey: the " << what << " has not ended by now ("
        << (reply.is_answer() ? text_of(reply.page, "reason") : "nobody answers")
        << "); the log will say what comes of it\n";
    return kExitFailed;
}

int print_changes(const Json& page, std::ostream& out, std::ostream& err) {
    const auto changes = page.find("changes");
    if (changes == page.end() || changes->empty()) {
        out << "reloaded; nothing is different from before\n";
        return finish(out, err);
    }
    out << "reloaded:\n";
    for (const Json& change : *changes) {
        if (change.is_string()) out << "  " << shown(change.get_ref<const std::string&>()) << '\n';
    }
    return finish(out, err);
}

int refused(const std::string& reason, std::ostream& err) {
    err << "nearkey: refused, and nothing was changed: " << reason << '\n';
    return kExitFailed;
}

}  // namespace

int run_reload(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const Patience patience(options.target);
    AdminReply reply = patience.ask({"POST", "/reload"});
    if (!reply.is_answer()) return report(reply, err);
    if (reply.is_refusal()) return refused(reply.problem, err);
    const double number = number_of(reply.page, "number");
    if (text_of(reply.page, "state") == kUnderWay) {
        reply = patience.ask_until({"GET", "/reload"}, [&](const Json& page) {
            return text_of(page, "state") != kUnderWay || number_of(page, "number") != number;
        });
    }
    if (reply.is_refusal()) return report(reply, err);
    const std::string state = reply.is_answer() ? text_of(reply.page, "state") : kUnderWay;
    if (state == kUnderWay) return not_yet(reply, "reload", err);
    if (number_of(reply.page, "number") != number) {
        err << "nearkey: somebody else has asked for a reload since; the log says what came of "
               "it\n";
        return kExitFailed;
    }
    if (state != "done") return refused(text_of(reply.page, "reason"), err);
    return print_changes(reply.page, out, err);
}

int run_upgrade(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const Patience patience(options.target);
    AdminReply reply = patience.ask({"POST", "/upgrade"});
    if (!reply.is_answer()) return report(reply, err);
    if (reply.is_refusal()) return refused(reply.problem, err);
    const double old_pid = number_of(reply.page, "pid");
    // The new one answers at the same address as soon as it serves.
    const auto is_end = [&](const Json& page) {
        return number_of(page, "pid") != old_pid || text_of(page, "state") == "refused";
    };
    reply = patience.ask_until({"GET", "/upgrade"}, is_end);
    if (reply.is_refusal()) return report(reply, err);
    if (!reply.is_answer() || !is_end(reply.page)) return not_yet(reply, "upgrade", err);
    if (number_of(reply.page, "pid") == old_pid) {
        err << "nearkey: the upgrade failed, and the old nearkey goes on: "
            << text_of(reply.page, "reason") << '\n';
        return kExitFailed;
    }
    out << "upgraded: process " << static_cast<int64_t>(number_of(reply.page, "pid"))
        << " serves; process " << static_cast<int64_t>(old_pid)
        << " serves its clients until they leave\n";
    return finish(out, err);
}

int run_log_level(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const HttpRequest request = options.level.empty()
                                    ? HttpRequest{"GET", "/log-level"}
                                    : HttpRequest{"POST", "/log-level?level=" + options.level};
    const AdminReply reply = ask_admin(options.target, request, "level");
    if (!reply.is_good()) return report(reply, err);
    out << "log level: " << text_of(reply.page, "level") << '\n';
    return finish(out, err);
}

int run_cache_clear(const AskOptions& options, std::ostream& out, std::ostream& err) {
    const AdminReply reply = ask_admin(options.target, {"POST", "/cache/clear"}, "dropped");
    if (!reply.is_good()) return report(reply, err);
    out << "the near cache is empty; it had " << count_text(number_of(reply.page, "dropped"))
        << " replies\n";
    return finish(out, err);
}

}  // namespace nearkey
