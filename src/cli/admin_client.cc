#include "nearkey/cli/admin_client.h"

#include "nearkey/cli/text.h"

#include <algorithm>
#include <system_error>

namespace nearkey {

namespace {

using Json = nlohmann::ordered_json;
using Kind = HttpOutcome::Kind;

constexpr double kNumberMax = 9e18;

std::string nobody(const std::string& address, const std::string& why) {
    return "nobody answers at " + address + ": " + why +
           "; is nearkey running, and is --admin its address?";
}

std::string foreign(const std::string& address) {
    return "something that is not nearkey answers at " + address +
           "; name nearkey's own admin address with --admin";
}

}  // namespace

std::string problem_of(const HttpOutcome& outcome, const std::string& address) {
    const auto error = [&] { return std::system_category().message(outcome.error); };
    switch (outcome.kind) {
        case Kind::Nobody:
            return nobody(address, outcome.error == 0 ? "this is no address" : error());
        case Kind::Denied:
            return address + " may not be opened: " + error() +
                   "; ask as a member of the socket's group, or as root";
        case Kind::Late:
            return nobody(address, "no answer in time");
        case Kind::Lost:
            return "the answer from " + address +
                   " ended too early; ask again, and look into nearkey's log if it happens again";
        case Kind::TooLong:
            return "the answer from " + address + " is longer than " +
                   bytes_text(static_cast<double>(kHttpAnswerMax)) + "; ask for less with --limit";
        case Kind::Answered:
        case Kind::NotHttp:
            break;
    }
    return foreign(address);
}

AdminReply ask_admin(const AdminTarget& target, const HttpRequest& request, std::string_view sign) {
    const HttpOutcome outcome = ask_http(target.address, request, target.timeout_ms);
    AdminReply reply;
    if (outcome.kind != Kind::Answered) {
        reply.problem = problem_of(outcome, target.address);
        return reply;
    }
    reply.page = Json::parse(outcome.answer.body, nullptr, false);
    const bool is_refusal = outcome.answer.status >= 400;
    const bool has_sign = reply.page.is_object() && reply.page.contains(sign);
    if (!has_sign && !(is_refusal && reply.page.is_object() && reply.page.contains("error"))) {
        reply.problem = foreign(target.address);
        return reply;
    }
    reply.status = outcome.answer.status;
    if (is_refusal) reply.problem = text_of(reply.page, "error");
    return reply;
}

std::string text_of(const Json& object, const char* key) {
    constexpr size_t kTextMax = 500;
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string()) return "";
    return shown(found->get_ref<const std::string&>().substr(0, kTextMax));
}

double number_of(const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number()) return 0;
    return std::clamp(found->get<double>(), -kNumberMax, kNumberMax);
}

const Json& rows_of(const Json& page, const char* key) {
    static const Json kNone = Json::array();
    const auto found = page.find(key);
    const auto is_object = [](const Json& row) { return row.is_object(); };
    const bool is_list = found != page.end() && found->is_array() &&
                         std::all_of(found->begin(), found->end(), is_object);
    return is_list ? *found : kNone;
}

std::string json_line(const Json& page) {
    return page.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
}

}  // namespace nearkey
