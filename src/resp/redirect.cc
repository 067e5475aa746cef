#include "nearkey/resp/redirect.h"

#include "nearkey/resp/number.h"
#include "nearkey/resp/slot.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace nearkey {

namespace {
struct Word {
    std::string_view text;
    Redirect::Kind kind;
    bool has_slot;
    bool has_address;
};
using Kind = Redirect::Kind;
constexpr Word kWords[] = {
    {"MOVED", Kind::Moved, true, true},         {"ASK", Kind::Ask, true, true},
    {"REDIRECT", Kind::Replica, false, true},   {"READONLY", Kind::ReadOnly, false, false},
    {"TRYAGAIN", Kind::TryAgain, false, false}, {"CLUSTERDOWN", Kind::ClusterDown, false, false},
};

constexpr std::string_view kNames[] = {"moved", "ask", "replica", "readonly", "try_again", "down"};

constexpr std::string_view kElsewhere[] = {"-MOVED ", "-ASK ", "-TRYAGAIN ", "-CLUSTERDOWN "};

// Takes the first word off.
std::string_view take_word(std::string_view& text) {
    const size_t end = text.find(' ');
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    return word;
}

// An address may be a bare IPv6 one: its port is behind the last colon.
void read_address(std::string_view address, Redirect& redirect) {
    const size_t colon = address.rfind(':');
    if (colon == std::string_view::npos) return;
    const auto port = parse_integer(address.substr(colon + 1));
    const std::string_view host = address.substr(0, colon);
    if (!port || *port < 1 || *port > UINT16_MAX || host.size() > kHostMax) return;
    redirect.host = host;
    redirect.port = static_cast<uint16_t>(*port);
}
}  // namespace

bool may_be_elsewhere(std::string_view begin) {
    return std::any_of(std::begin(kElsewhere), std::end(kElsewhere),
                       [begin](std::string_view each) { return may_become(begin, each); });
}

std::string_view name_of(Redirect::Kind kind) {
    return kNames[static_cast<size_t>(kind)];
}

std::optional<Redirect> read_redirect(std::string_view error) {
    const std::string_view words = error;
    if (error.starts_with('-')) error.remove_prefix(1);
    if (error.ends_with("\r\n")) error.remove_suffix(2);
    const std::string_view name = take_word(error);
    for (const Word& word : kWords) {
        if (word.text != name) continue;
        Redirect redirect{.kind = word.kind, .slot = -1, .host = {}, .words = words, .port = 0};
        if (word.has_slot) {
            const auto slot = parse_integer(take_word(error));
            if (slot && *slot >= 0 && *slot < kSlots) redirect.slot = static_cast<int>(*slot);
        }
        if (word.has_address) read_address(take_word(error), redirect);
        return redirect;
    }
    return std::nullopt;
}

}  // namespace nearkey
