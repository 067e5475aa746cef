#include "nearkey/upstream/error_reader.h"

#include "nearkey/upstream/connection.h"

#include <utility>

namespace nearkey {

namespace {
constexpr std::string_view kRedirect = "-REDIRECT ";
// Valkey's refusal of a write on a replica (shared.roreplicaerr in server.c).
constexpr std::string_view kReadonly = "READONLY You can't write against a read only replica.";
// No word of a cluster's is longer.
constexpr size_t kHeldMax = 1024;
// Nor is the code that an error begins with.
constexpr size_t kCodeMax = 32;

bool has_code(std::string_view error) {
    return error.size() >= kCodeMax || error.find_first_of(" \r") != std::string_view::npos;
}
}  // namespace

void ErrorReader::end() {
    is_shared_ = false;
    begin_.clear();
}

bool ErrorReader::take(std::string_view bytes, bool is_end) {
    InFlight& in_flight = pipeline_.in_flight();
    if (in_flight.is_in_reply()) {
        in_flight.deliver(bytes, is_end);
        return true;
    }
    std::string held;
    if (!begin_.empty()) {
        held = std::exchange(begin_, {}).append(bytes);
        bytes = held;
    }
    const bool is_of_cluster = is_shared_ && context_.redirects != nullptr;
    size_t held_max = 0;
    if (is_shared_) held_max = is_of_cluster ? kHeldMax : kRedirect.size();
    if (!is_end && (bytes.size() < held_max || !has_code(bytes))) {
        begin_ = bytes;
        return true;
    }
    if (is_of_cluster) {
        take_in_cluster(bytes, is_end);
        return true;
    }
    if (is_shared_ && bytes.starts_with(kRedirect)) {
        leave_replica();
        return false;
    }
    note(bytes);
    in_flight.count_error(bytes);
    in_flight.deliver(bytes, is_end);
    return true;
}

void ErrorReader::take_in_cluster(std::string_view bytes, bool is_end) {
    InFlight& in_flight = pipeline_.in_flight();
    auto redirect = is_end ? read_redirect(bytes) : std::nullopt;
    // What a replica refuses for a reason of its own its primary may run.
    if (!redirect && is_end && context_.reads_replica) {
        redirect = Redirect{.kind = Redirect::Kind::TryAgain, .host = {}, .words = bytes};
    }
    if (!redirect || !in_flight.may_be_redirected()) {
        in_flight.count_error(bytes);
        in_flight.deliver(bytes, is_end);
        return;
    }
    UnsentRequest request = in_flight.take_redirected();
    if (request.request.receiver == nullptr) return;
    context_.redirects->on_redirect(connection_, *redirect, std::move(request));
}

// In a tunnel one that is cut before its first word ends is not looked at: another will come whole.
void ErrorReader::note(std::string_view bytes) {
    if (connection_.is_retired()) return;
    if (bytes.starts_with("-READONLY") || bytes.starts_with("-UNBLOCKED")) {
        context_.events.on_role_doubted(connection_);
    }
}

// A command that it refuses was not run. Those behind it will not be, either, as far as is known:
// the server could be a primary again by then.
void ErrorReader::leave_replica() {
    connection_.probe().note_replica();
    pipeline_.in_flight().refuse_head(kReadonly);
    connection_.lose("the server has become a replica", ConnectionLoss::Demoted);
    context_.events.on_demoted(connection_);
}

}  // namespace nearkey
