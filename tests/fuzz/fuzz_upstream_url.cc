// Any text as the upstream's URL: what is accepted prints, without the password, as a URL that
// means the same; and no message shows a password.
#include "fuzz_input.h"

#include "nearkey/base/check.h"
#include "nearkey/upstream/url.h"

#include <algorithm>
#include <variant>

using nearkey::parse_url;
using nearkey::UpstreamUrl;
using nearkey::UrlError;

namespace {

constexpr std::string_view kSecret = "Zq7xK9wV";

bool is_one_line(const std::string& text) {
    return !text.empty() && std::none_of(text.begin(), text.end(), [](char c) {
        return static_cast<unsigned char>(c) < ' ' || c == 127;
    });
}

// What may be shown of this URL, checked.
std::string shown(std::string_view text) {
    const nearkey::fuzz::ExactCopy copy(text);
    const auto parsed = parse_url(copy.view());
    if (const auto* const error = std::get_if<UrlError>(&parsed)) {
        NEARKEY_CHECK(is_one_line(error->message));
        return error->message;
    }
    const auto& url = std::get<UpstreamUrl>(parsed);
    const bool has_host =
        url.kind == UpstreamUrl::Kind::Tcp || url.kind == UpstreamUrl::Kind::Cluster;
    NEARKEY_CHECK(url.host.empty() != has_host);
    NEARKEY_CHECK(url.kind == UpstreamUrl::Kind::Unix ? url.path.starts_with('/')
                                                      : url.path.empty());
    NEARKEY_CHECK(url.database >= 0 && url.port > 0);
    const std::string printed = redacted(url);
    NEARKEY_CHECK(is_one_line(printed));
    UpstreamUrl expected = url;
    if (!url.password.empty()) expected.password = "***";
    const auto again = parse_url(printed);
    NEARKEY_CHECK(std::holds_alternative<UpstreamUrl>(again));
    NEARKEY_CHECK(std::get<UpstreamUrl>(again) == expected);
    NEARKEY_CHECK(redacted(expected) == printed);
    return printed;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string text(nearkey::fuzz::as_text(data, size));
    shown(text);
    // The same with a password where one may stand.
    const size_t authority = text.find("://");
    if (authority == std::string::npos || text.find(kSecret) != std::string::npos) return 0;
    std::string with_secret = text;
    with_secret.insert(authority + 3, "u:" + std::string(kSecret) + "@");
    NEARKEY_CHECK(shown(with_secret).find(kSecret) == std::string::npos);
    return 0;
}
