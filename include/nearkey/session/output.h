// The output to a client: whole replies, and behind them the received part of the next one.
// Owned by Desk. Once its client can't be written to it keeps nothing.
//
//   [ whole replies ] [ the reply being received ]      a large one begins to leave before its end
#pragma once

#include "nearkey/base/buffer.h"
#include "nearkey/loop/byte_stream.h"

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

namespace nearkey {

class Output {
public:
    // The reply being received goes on.
    void receive(std::string_view bytes) {
        if (reply_type_ == 0) reply_type_ = bytes.front();
        reply_size_ += bytes.size();
        append(bytes);
    }
    // The same with bytes of our own.
    void append(std::string_view bytes) {
        if (!is_lost_) buffer_.append(bytes);
    }
    // The reply being received is whole.
    void commit() {
        committed_ = buffer_.size();
        reply_type_ = 0;
        reply_size_ = 0;
        is_partly_sent_ = false;
    }
    // Drops the received part of the reply. False: a part of it has left already.
    [[nodiscard]] bool take_back() {
        reply_type_ = 0;
        reply_size_ = 0;
        if (is_partly_sent_) return false;
        buffer_.truncate(committed_);
        return true;
    }
    // Another reply in place of the one being received, of which nothing has left.
    void replace(std::string_view reply) {
        buffer_.truncate(committed_);
        append(reply);
    }

    // The received part of the reply being received; empty once its client is lost.
    std::string_view reply() const {
        return is_lost_ ? std::string_view{} : buffer_.view().substr(committed_);
    }
    // All of the reply, which has come; empty: it is an error, or not here any more.
    std::string_view whole_reply() const {
        return is_partly_sent_ || is_error() ? std::string_view{} : reply();
    }
    size_t reply_size() const { return reply_size_; }
    bool is_error() const { return reply_type_ == '-'; }

    size_t size() const { return buffer_.size(); }
    size_t capacity() const { return buffer_.capacity(); }
    // True if the reply being received leaves in pieces.
    bool is_large() const { return buffer_.size() - committed_ >= kStreamedReplyMin; }
    bool is_streaming() const { return is_large() || is_partly_sent_; }
    // Nothing is left that could be written.
    bool is_done() const { return buffer_.empty() || is_lost_; }

    // Writes whole replies, and up to `piece_max` bytes of a large one. Returns the bytes taken.
    size_t write(ByteStream& stream, size_t piece_max);
    // More would leave at once if it was asked again.
    bool has_more() const {
        return is_streaming() && !buffer_.empty() && !is_blocked_ && !is_lost_;
    }
    bool has_whole_replies() const { return committed_ > 0; }
    void on_writable() { is_blocked_ = false; }
    void lose() { is_lost_ = true; }
    bool is_lost() const { return is_lost_; }

private:
    // A reply longer than this starts to leave before its end is there.
    static constexpr size_t kStreamedReplyMin = size_t{256} << 10;

    Buffer buffer_;
    size_t committed_ = 0;  // bytes of buffer_ that are whole replies
    size_t reply_size_ = 0;
    char reply_type_ = 0;  // its first byte
    bool is_partly_sent_ = false;
    bool is_lost_ = false;  // the client can't be written to any more
    bool is_blocked_ = false;
};

inline size_t Output::write(ByteStream& stream, size_t piece_max) {
    const size_t ready = is_streaming() ? std::min(buffer_.size(), piece_max) : committed_;
    size_t written = 0;
    if (ready > 0 && !is_blocked_ && !is_lost_) {
        const WriteResult result = stream.write(buffer_.view().substr(0, ready), written);
        is_blocked_ = result == WriteResult::WouldBlock;
        is_lost_ = result == WriteResult::Lost;
        if (written > committed_) is_partly_sent_ = true;
        committed_ -= std::min(written, committed_);
        buffer_.consume(written);
    }
    if (is_lost_) {
        buffer_.truncate(0);
        committed_ = 0;
    }
    return written;
}

}  // namespace nearkey
