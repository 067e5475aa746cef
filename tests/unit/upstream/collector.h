// A receiver that notes, in order, all that it is told: "7 +OK" for a reply to ticket 7,
// "7 failed UPSTREAMLOST" for a failure, "7 void" for a reply that begins anew.
#pragma once

#include "nearkey/upstream/request.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace nearkey {

class Collector final : public ReplyReceiver {
public:
    void on_reply_bytes(uint32_t, std::string_view bytes) override { part += bytes; }
    void on_reply_end(uint32_t ticket) override {
        REQUIRE(part.ends_with("\r\n"));
        part.resize(part.size() - 2);
        note(ticket, part);
        part.clear();
    }
    bool on_reply_void(uint32_t ticket) override {
        part.clear();
        note(ticket, "void");
        return true;
    }
    void on_request_failed(uint32_t ticket, std::string_view error) override {
        part.clear();
        last_error = error;
        note(ticket, "failed " + last_error.substr(0, last_error.find(' ')));
    }

    std::vector<std::string> told;
    std::string part;  // of the reply that is coming
    std::string last_error;

private:
    void note(uint32_t ticket, const std::string& what) {
        told.push_back(std::to_string(ticket) + " " + what);
    }
};

using ToldWords = std::vector<std::string>;

}  // namespace nearkey
