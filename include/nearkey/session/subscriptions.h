// The subscriptions of a client in a tunnel, so that it can be subscribed anew at another server.
// Owned by Tunnel. It follows the client's commands, and counts the answers that are still to come:
// once none is, and none was a refusal, the server has the same names. A client that sends anything
// else than a subscriber does, or has too many names, spoils it for good.
#pragma once

#include "nearkey/resp/command_table.h"

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace nearkey {

class Subscriptions {
public:
    static constexpr size_t kNamesMax = 10'000;
    static constexpr size_t kBytesMax = size_t{1} << 20;

    // (P|S)SUBSCRIBE and (P|S)UNSUBSCRIBE.
    static bool is_about(const CommandSpec* spec);

    // The client sends this next.
    void follow(const CommandSpec* spec, const CommandView& command);
    // Takes a piece from the server; returns the part for the client. Valid until the next call.
    std::string_view pass(std::string_view piece, bool is_begin, bool is_end);
    // The input is not RESP: nothing is known from here on. Returns the bytes held back.
    std::string give_up();

    // Nothing that the client has sent is unanswered, and all of it is known.
    bool may_move() const { return !is_spoilt_ && owed_ == 0; }
    // The commands that subscribe to all of it. Their answers do not reach the client.
    std::string begin_anew();
    bool is_done() const { return unconfirmed_ == 0; }
    // True if one of these answers was an error.
    bool is_refused() const { return is_refused_; }

    size_t size() const;
    size_t memory_bytes() const { return sizeof(*this) + bytes_; }

private:
    enum class Reply { Unknown, Message, Answer, Ours };

    using Names = std::set<std::string, std::less<>>;

    Reply judge(bool is_end);
    void spoil();
    void add(Names& names, std::string_view name);
    void remove(Names& names, std::string_view name);

    std::array<Names, 3> names_;  // of channels, patterns, shard channels
    size_t bytes_ = 0;            // of names_
    uint64_t owed_ = 0;           // answers to the client's commands
    uint64_t unconfirmed_ = 0;    // before those, answers to begin_anew()
    bool is_spoilt_ = false;
    bool is_refused_ = false;
    Reply reply_ = Reply::Message;  // the one that is coming
    std::string head_;              // its beginning, until it is known what it is
};

}  // namespace nearkey
