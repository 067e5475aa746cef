#include "nearkey/upstream/error_place.h"

#include <fmt/format.h>

namespace nearkey {

std::string place_in_words(int slot, std::string_view node) {
    return slot < 0 ? fmt::format("node {}", node) : fmt::format("slot {}, node {}", slot, node);
}

// In front of what became of the request, which stands behind the last semicolon.
std::string with_place(std::string_view error, std::string_view place) {
    if (place.empty()) return std::string(error);
    const size_t end = error.rfind("; ");
    const std::string_view what = error.substr(0, end);
    const std::string_view outcome =
        end == std::string_view::npos ? std::string_view() : error.substr(end);
    return fmt::format("{} ({}){}", what, place, outcome);
}

std::string with_place(std::string_view error, const ConnectionContext& context,
                       std::string_view request) {
    const bool is_ours = error.starts_with("UPSTREAM");
    if (context.redirects == nullptr || !is_ours) return std::string(error);
    const int slot = request.empty() ? -1 : context.redirects->slot_of_command(request);
    const UpstreamUrl& url = context.target->url;
    return with_place(error,
                      place_in_words(slot, url.is_tcp() ? to_text(url.endpoint()) : url.path));
}

}  // namespace nearkey
