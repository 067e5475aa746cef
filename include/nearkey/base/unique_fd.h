// A file descriptor that one owner closes, when it ends or before. The one rule: nobody else closes
// the number, for by then it may be another's.
#pragma once

#include <unistd.h>
#include <utility>

namespace nearkey {

// Negative: none. A watch on the descriptor is declared after it, so that it ends before the close:
// another thread may be given the number the moment it is free.
class UniqueFd {
public:
    UniqueFd() = default;
    explicit UniqueFd(int fd) : fd_(fd) {}
    ~UniqueFd() { reset(); }
    UniqueFd(UniqueFd&& from) noexcept : fd_(from.release()) {}
    UniqueFd& operator=(UniqueFd&& from) noexcept {
        reset(from.release());
        return *this;
    }

    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    void reset(int fd = -1) {
        if (fd_ >= 0) close(fd_);
        fd_ = fd;
    }

private:
    int fd_ = -1;
};

}  // namespace nearkey
