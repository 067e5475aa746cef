#include "nearkey/session/input.h"

#include <algorithm>

namespace nearkey {

namespace {
constexpr size_t kCopyMin = size_t{4} << 10;
}  // namespace

void Input::complete(std::string_view& bytes) {
    const size_t missing = parser.missing();
    const size_t count = missing >= kCopyMin ? std::min(missing, bytes.size()) : bytes.size();
    buffer.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
}

bool Input::can_give_away(const CommandView& command) const {
    const size_t size = command.raw().size();
    const bool is_first = buffer.view().data() == command.raw().data();
    return is_first && command.is_canonical() && buffer.size() - size <= size;
}

Buffer Input::give_away(size_t size) {
    Buffer rest;
    rest.append(buffer.view().substr(size));
    Buffer bytes = std::exchange(buffer, std::move(rest));
    bytes.truncate(size);
    is_given_ = true;
    return bytes;
}

}  // namespace nearkey
