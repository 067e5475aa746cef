#include "nearkey/upstream/swap_watch.h"

#include "nearkey/resp/number.h"
#include "nearkey/upstream/own_question.h"

#include <utility>

namespace nearkey {

namespace {

constexpr std::string_view kSwaps = "\ncmdstat_swapdb:";
constexpr std::string_view kQuestions = "\ncmdstat_info:";
constexpr std::string_view kReset = "\ncmdstat_config|resetstat:";
constexpr std::string_view kCalls = "calls=";
// CONFIG RESETSTAT: calls=1,usec=31,usec_per_call=31.00,rejected_calls=0,failed_calls=0. A call
// that the server refuses resets nothing, and changes only what comes behind this.
constexpr std::string_view kRefusals = ",rejected_calls=";

uint64_t calls_of(std::string_view entry) {
    if (!entry.starts_with(kCalls)) return 0;
    entry.remove_prefix(kCalls.size());
    return static_cast<uint64_t>(parse_integer(entry.substr(0, entry.find(','))).value_or(0));
}

}  // namespace

SwapWatch::Verdict SwapWatch::note(std::string_view info) {
    const uint64_t swaps = calls_of(find_in_info(info, kSwaps));
    const std::string_view questions_entry = find_in_info(info, kQuestions);
    const uint64_t questions = calls_of(questions_entry);
    std::string_view reset = find_in_info(info, kReset);
    // Before the first one, refused calls alone may have made the entry.
    reset = calls_of(reset) == 0 ? std::string_view{} : reset.substr(0, reset.find(kRefusals));
    counts_questions_ = counts_questions_ || !questions_entry.empty() || !reset.empty();

    const bool is_reset = reset != reset_ || (counts_questions_ && questions <= questions_);
    const bool is_swapped = swaps != swaps_ || is_reset;
    swaps_ = swaps;
    questions_ = questions;
    reset_ = reset;
    if (!std::exchange(is_counting_, true)) {
        return has_forgotten_ ? Verdict::Resumed : Verdict::Unchanged;
    }
    return is_swapped ? Verdict::Swapped : Verdict::Unchanged;
}

void SwapWatch::forget() {
    is_counting_ = counts_questions_ = false;
    has_forgotten_ = true;
}

}  // namespace nearkey
