// A client's bytes, both ways: the narrow interface through which a session sees its socket.
// Owned by the session's owner; a test gives the session a stream of its own making.
#pragma once

#include "nearkey/base/unique_fd.h"

#include <cstddef>
#include <string_view>

namespace nearkey {

// Events of a stream; during these calls only its owner's reaping may destroy it.
class StreamEvents {
public:
    // `bytes` are valid during the call.
    virtual void on_bytes(std::string_view bytes) = 0;
    // The peer sends no more; it may still read.
    virtual void on_end() = 0;
    // The peer is gone, or the socket failed.
    virtual void on_stream_lost() = 0;
    // A write that was refused before can be tried again.
    virtual void on_writable() = 0;

protected:
    ~StreamEvents() = default;
};

enum class WriteResult { Ok, WouldBlock, Lost };

class ByteStream {
public:
    virtual ~ByteStream() = default;
    // Writes as much as fits, and sets `written`. After WouldBlock, on_writable() follows.
    [[nodiscard]] virtual WriteResult write(std::string_view bytes, size_t& written) = 0;
    virtual void pause_reading() = 0;
    virtual void resume_reading() = 0;
    // The peer can send nothing more, and knows it; bytes already sent still come, then on_end().
    // False: this can't be done, and nothing is.
    [[nodiscard]] virtual bool refuse_more() = 0;
    // The other process gets this descriptor with the first byte of the next write.
    virtual void pass(UniqueFd descriptor) = 0;
    // The descriptor, to ask the kernel who the peer is. -1: there is none.
    virtual int fd() const = 0;
};

}  // namespace nearkey
