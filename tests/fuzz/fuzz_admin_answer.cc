// What the verbs for people take from whoever answers: HTTP, texts for a terminal, histograms.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/cli/http_answer.h"
#include "nearkey/cli/latency.h"
#include "nearkey/cli/text.h"

#include <clocale>

using nearkey::Buckets;
using nearkey::HttpAnswer;

namespace {

// A prefix of what is cut short is cut short as well, and the body was sent.
void check_answer(std::string_view bytes) {
    const nearkey::fuzz::ExactCopy copy{std::string(bytes)};
    const HttpAnswer answer = nearkey::parse_http_answer(copy.view());
    if (answer.state == HttpAnswer::State::Whole) {
        NEARKEY_CHECK(answer.status >= 100);
        NEARKEY_CHECK(answer.status <= 599);
        NEARKEY_CHECK(answer.body.size() < bytes.size());
    }
    if (answer.state != HttpAnswer::State::CutShort || bytes.empty()) return;
    const nearkey::fuzz::ExactCopy shorter{std::string(bytes.substr(0, bytes.size() - 1))};
    NEARKEY_CHECK(nearkey::parse_http_answer(shorter.view()).state == HttpAnswer::State::CutShort);
}

void check_text(std::string_view bytes) {
    const nearkey::fuzz::ExactCopy copy{std::string(bytes)};
    const std::string text = nearkey::shown(copy.view());
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        NEARKEY_CHECK(byte >= 0x20);
        NEARKEY_CHECK(byte != 0x7f);
    }
    NEARKEY_CHECK(text.find("\xc2\x9b") == std::string::npos);
    NEARKEY_CHECK(nearkey::shown(text) == text);
    const size_t width = nearkey::columns_of(text);
    NEARKEY_CHECK(nearkey::cut(text, width) == text);
    for (size_t columns = 0; columns < width; columns += 1 + width / 8)
        NEARKEY_CHECK(nearkey::columns_of(nearkey::cut(text, columns)) <= columns);
}

void check_histogram(std::string_view bytes) {
    const nearkey::fuzz::ExactCopy copy{std::string(bytes)};
    const Buckets buckets = Buckets::of_metrics(copy.view(), "d", "");
    for (const double part : {0.0, 0.5, 0.99, 1.0}) {
        NEARKEY_CHECK(buckets.quantile(part).has_value() == (buckets.count() > 0));
        NEARKEY_CHECK(!buckets.since(buckets).quantile(part));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const char* const locale = std::setlocale(LC_CTYPE, "C.UTF-8");
    NEARKEY_CHECK(locale != nullptr);
    const std::string bytes(nearkey::fuzz::as_text(data, size));
    check_answer(bytes);
    check_text(bytes);
    check_histogram(bytes);
    return 0;
}
