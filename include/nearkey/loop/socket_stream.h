// A connected socket as a ByteStream. Reads at most one scratch buffer a turn, and writes a bounded
// number of bytes, so that no client keeps the loop to itself.
#pragma once

#include "nearkey/base/unique_fd.h"
#include "nearkey/loop/byte_stream.h"
#include "nearkey/loop/fd_watch.h"

#include <sys/types.h>
#include <span>
#include <utility>

namespace nearkey {

class SocketStream final : public ByteStream {
public:
    // Takes over `fd`, which is non-blocking. `scratch` is shared by all streams of the loop.
    // Reading starts at once.
    SocketStream(Loop& loop, int fd, std::span<char> scratch, StreamEvents& events);
    ~SocketStream() override;

    WriteResult write(std::string_view bytes, size_t& written) override;
    void pause_reading() override;
    void resume_reading() override;
    bool refuse_more() override;
    // REQUIRES: it is a Unix socket.
    void pass(UniqueFd descriptor) override { passed_ = std::move(descriptor); }
    int fd() const override { return fd_.get(); }

private:
    void on_events(FdEvents seen);
    void read_once();
    void watch();
    ssize_t send_some(std::string_view bytes);

    Loop& loop_;
    UniqueFd fd_;
    UniqueFd passed_;  // with the next write
    std::span<char> scratch_;
    StreamEvents& events_;
    size_t read_max_;
    bool reading_ = true;
    bool ended_ = false;
    bool blocked_ = false;
    FdWatch watch_;
};

}  // namespace nearkey
