#include "nearkey/base/os_error.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>

namespace nearkey {

namespace {

struct Advice {
    int error;
    std::string_view what_to_do;
};

constexpr auto kAdvice = std::to_array<Advice>({
    {EACCES, "give nearkey's user the right to it, or name another place"},
    {EPERM, "give nearkey's user the right to it, or name another place"},
    {ENOENT, "create what is missing, or correct the name"},
    {ENOTDIR, "correct the name: a file stands where a folder should"},
    {EISDIR, "correct the name: a folder stands where a file should"},
    {ELOOP, "name the file itself, not a symbolic link"},
    {EROFS, "name a place that can be written to (ReadWritePaths= in a unit)"},
    {ENOSPC, "make room on that file system, or name another place"},
    {EDQUOT, "make room for nearkey's user there, or name another place"},
    {EMFILE, "raise LimitNOFILE= of the unit (ulimit -n)"},
    {ENFILE, "raise fs.file-max of the kernel"},
    {EADDRINUSE, "stop the process that uses it (ss -ltnp shows it), or choose another port"},
    {EADDRNOTAVAIL, "this machine does not have that address: choose another"},
    {EAFNOSUPPORT, "this machine does not have that address: choose another"},
});

}  // namespace

std::string os_error(int error) {
    std::string text = std::system_category().message(error);
    const auto* const found = std::find_if(kAdvice.begin(), kAdvice.end(),
                                           [&](const Advice& row) { return row.error == error; });
    if (found != kAdvice.end()) text.append("; ").append(found->what_to_do);
    return text;
}

}  // namespace nearkey
