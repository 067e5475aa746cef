// An error of the operating system in words for an operator: what happened, and what to do.
// Used where nearkey starts and ends with one line; the caller says what it wanted and where.
#pragma once

#include <string>

namespace nearkey {

// "Permission denied; give nearkey's user the right to it". No advice where none is sure to help.
std::string os_error(int error);

}  // namespace nearkey
