#include "nearkey/session/tunnel_reader.h"

#include "nearkey/session/refusals.h"

namespace nearkey {

namespace {
// The error to a stand-in is shorter.
constexpr size_t kErrorMax = 256;

// To a user who may not run it, and to a subscriber of RESP2.
bool is_refusal_of_monitor(std::string_view error) {
    const bool is_one =
        error.starts_with("-NOPERM ") || error.starts_with("-ERR Can't execute 'monitor'");
    return is_one && error.find(" 'monitor'") != std::string_view::npos;
}
}  // namespace

void TunnelReader::pass(std::string_view bytes, Subscriptions* subscriptions, Output& output) {
    while (!is_stopped_ && !bytes.empty())
        bytes.remove_prefix(pass_reply(bytes, subscriptions, output));
    output.append(bytes);
}

// The number of `bytes` that belong to the reply that begins or goes on there.
size_t TunnelReader::pass_reply(std::string_view bytes, Subscriptions* subscriptions,
                                Output& output) {
    if (is_unread_) {
        const size_t line_end = bytes.find('\n');
        is_unread_ = line_end == std::string_view::npos;
        const std::string_view line = bytes.substr(0, is_unread_ ? line_end : line_end + 1);
        output.append(line);
        return line.size();
    }
    size_t taken = 0;
    const ScanResult result = scanner_.scan(bytes, taken);
    if (result == ScanResult::Malformed) {
        // A script's error may have raw line ends: a reply begins behind one of the next.
        scanner_ = ReplyScanner();
        is_unread_ = true;
        is_inside_ = false;
        if (subscriptions != nullptr) output.append(subscriptions->give_up());
        output.append(error_);
        error_.clear();
        return 0;
    }
    std::string_view piece = bytes.substr(0, taken);
    if (subscriptions != nullptr) {
        piece = subscriptions->pass(piece, !is_inside_, result == ScanResult::Complete);
    }
    const bool begins_error = !is_inside_ && piece.starts_with('-');
    const bool is_held = !error_.empty() || (has_refused_ && begins_error);
    is_inside_ = result == ScanResult::Incomplete;
    if (!is_held) {
        output.append(piece);
        return taken;
    }
    error_ += piece;
    const bool is_whole = result == ScanResult::Complete;
    if (is_whole || error_.size() > kErrorMax) {
        refuses_monitor_ = refuses_monitor_ || is_refusal_of_monitor(error_);
        output.append(is_whole ? in_words_of_refusal(node_, error_) : error_);
        error_.clear();
    }
    return taken;
}

}  // namespace nearkey
