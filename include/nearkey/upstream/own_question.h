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

enum class OwnCommand : uint8_t {
    Hello,
    Auth,
    Tracking,
    Caching,
    Info,
    Command,
    Config,
    Slots,
    Touch
};

// False: `reply` is of a form that none to `command` has, so the server has said something that
// nobody asked for, and each reply from there on is taken for that to another request. Any error
// may be one. Of a long `reply` the beginning is enough.
bool is_answer(OwnCommand command, std::string_view reply);
// The same; else the connection is lost.
bool has_answered(Connection& connection, OwnCommand command, std::string_view reply);

// The rest of the line of a reply to INFO that begins with `name`, as in "\nname:"; empty: there is
// none.
std::string_view find_in_info(std::string_view info, std::string_view name);

class WholeReplyReceiver : public ReplyReceiver {
public:
    // One that is longer than any awaited reply is kept in part.
    void on_reply_bytes(uint32_t, std::string_view bytes) final {
        reply_ += bytes.substr(0, reply_max_ - reply_.size());
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
    // No more than `reply_max` bytes of the reply are kept. What can't be one loses the connection.
    Question(size_t reply_max, OwnCommand command, OnReply on_reply)
        : WholeReplyReceiver(reply_max), command_(command), on_reply_(std::move(on_reply)) {}
    void ask(Connection& connection, std::string_view bytes, RequestKind kind);
    // Asked, and neither answered nor failed.
    bool is_open() const { return asked_ != nullptr; }
    // An answer that is still to come no longer counts.
    void drop();

private:
    void on_whole_reply(uint32_t, const std::string& reply) override;
    void on_no_reply(uint32_t) override { asked_ = nullptr; }

    const OwnCommand command_;
    const OnReply on_reply_;
    Connection* asked_ = nullptr;  // null: the question is not open
};

}  // namespace nearkey
