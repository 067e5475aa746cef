// How often a test repeats what is random: a sanitizer takes ten times as long for each round, and
// needs one to see what is wrong.
#pragma once

namespace nearkey {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kIsSanitized = true;
#else
inline constexpr bool kIsSanitized = false;
#endif
#else
inline constexpr bool kIsSanitized = false;
#endif

constexpr unsigned rounds(unsigned count) {
    return kIsSanitized ? count / 5 : count;
}

}  // namespace nearkey
