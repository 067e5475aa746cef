// Questions of nearkey's own: writes them, and receives their replies, each looked at when all of
// it is there.
#pragma once

#include "nearkey/resp/reply_writer.h"
#include "nearkey/upstream/request.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace nearkey {

class Connection;

inline constexpr std::string_view kPing = "*1\r\n$4\r\nPING\r\n";
inline constexpr std::string_view kUnwatchCommand = "*1\r\n$7\r\nUNWATCH\r\n";

// The command of these words, at the end of `out`.
template <class Words = std::initializer_list<std::string_view>>
void append_command(std::string& out, const Words& words) {
    append_array_header(out, words.size());
    for (const std::string_view word : words)
        append_bulk(out, word);
}

// The rest of the line of a reply to INFO that begins with `name`, as in "\nname:"; empty: there is
// none.
std::string_view find_in_info(std::string_view info, std::string_view name);

class WholeReplyReceiver : public ReplyReceiver {
public:
    // A piece that makes it longer than any awaited reply is left out.
    void on_reply_bytes(uint32_t, std::string_view bytes) final {
        if (reply_.size() + bytes.size() <= reply_max_) reply_ += bytes;
    }
    void on_reply_end(uint32_t ticket) final { on_whole_reply(ticket, std::exchange(reply_, {})); }
    bool on_reply_void(uint32_t) final {
        reply_.clear();
        return true;
    }
    // It is asked of this server.
    bool follows_redirects() const final { return false; }
    void on_request_failed(uint32_t ticket, std::string_view) final {
        reply_.clear();
        on_no_reply(ticket);
    }

protected:
    WholeReplyReceiver() = default;
    explicit WholeReplyReceiver(size_t reply_max) : reply_max_(reply_max) {}
    ~WholeReplyReceiver() = default;

private:
    virtual void on_whole_reply(uint32_t ticket, const std::string& reply) = 0;
    virtual void on_no_reply(uint32_t /*ticket*/) {}

    const size_t reply_max_ = size_t{64} << 10;
    std::string reply_;
};

// A question that is asked one at a time.
// The asker owns it, and it must outlive the connection or be dropped.
class Question final : public WholeReplyReceiver {
public:
    using OnReply = std::function<void(std::string_view reply)>;
    // No more than `reply_max` bytes of the reply are kept.
    Question(size_t reply_max, OnReply on_reply)
        : WholeReplyReceiver(reply_max), on_reply_(std::move(on_reply)) {}
    void ask(Connection& connection, std::string_view command, RequestKind kind);
    // Asked, and neither answered nor failed.
    bool is_open() const { return asked_ != nullptr; }
    // An answer that is still to come no longer counts.
    void drop();

private:
    void on_whole_reply(uint32_t, const std::string& reply) override {
        asked_ = nullptr;
        on_reply_(reply);
    }
    void on_no_reply(uint32_t) override { asked_ = nullptr; }

    const OnReply on_reply_;
    Connection* asked_ = nullptr;  // null: the question is not open
};

}  // namespace nearkey
