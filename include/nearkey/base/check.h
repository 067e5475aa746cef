// NEARKEY_CHECK states what must be true of our own code; a false one ends the process and says
// where.
// Never NEARKEY_CHECK what a peer or an operator sent: that is input, and gets an answer.
#pragma once

namespace nearkey {

[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace nearkey

#define NEARKEY_CHECK(condition)                                     \
    do {                                                             \
        if (!(condition)) [[unlikely]]                               \
            ::nearkey::check_failed(#condition, __FILE__, __LINE__); \
    } while (false)
