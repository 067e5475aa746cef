// Asks a running nearkey for a page of its admin server, or to do something.
// The caller gets a page that is a JSON object, or one line for a person that says why not. A page
// holds what others sent: it goes to a terminal through cli/text.h alone.
#pragma once

#include "nearkey/cli/http_exchange.h"

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace nearkey {

struct AdminTarget {
    std::string address;  // as parse_socket_address() takes it
    int timeout_ms = 1000;
};

struct AdminReply {
    unsigned status = 0;          // 0: nearkey has not answered
    nlohmann::ordered_json page;  // an object, if it has
    std::string problem;          // one line, for status 0 and from 400 up

    bool is_answer() const { return status != 0; }
    bool is_refusal() const { return status >= 400; }
    bool is_good() const { return is_answer() && !is_refusal(); }
};

// `sign` is a member that tells nearkey's page from what another server says.
AdminReply ask_admin(const AdminTarget& target, const HttpRequest& request, std::string_view sign);
// Why an outcome has no answer; for one with an answer, that nearkey does not speak so.
std::string problem_of(const HttpOutcome& outcome, const std::string& address);

// The member as a text fit for a terminal, or as a number; what is missing or of another type is ""
// or 0. A number is one that an int64_t holds.
std::string text_of(const nlohmann::ordered_json& object, const char* key);
double number_of(const nlohmann::ordered_json& object, const char* key);
// The member that is a list of objects; else an empty list.
const nlohmann::ordered_json& rows_of(const nlohmann::ordered_json& page, const char* key);
// For other programs: one line of ASCII.
std::string json_line(const nlohmann::ordered_json& page);

}  // namespace nearkey
