// A scripted Valkey on a Unix socket, run on the test's own loop: no threads, no waiting.
// It answers the handshake and COMMAND like a server, and any other command with its own words
// ("+GET k"), unless `answers` says otherwise; kSilent keeps it from answering. Peers are numbered
// in the order of accepting and stay known after they are closed.
#pragma once

#include "nearkey/base/buffer.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/resp/command_parser.h"

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

class FakeValkey {
public:
    static constexpr std::string_view kSilent = "";

    FakeValkey(Loop& loop, const std::string& path);
    ~FakeValkey();
    FakeValkey(const FakeValkey&) = delete;
    FakeValkey& operator=(const FakeValkey&) = delete;

    void listen();
    // New connections are refused, those that are open stay.
    void stop_listening();
    // Nothing is read, as of a process that is stopped; what came meanwhile is answered by thaw().
    void freeze();
    void thaw();

    // The words of a command, joined by blanks -> what is sent for it.
    std::map<std::string, std::string> answers;
    // What is sent to a PING that asks whether a reply is left over; nothing: its own word.
    std::optional<std::string> challenge_answer;
    size_t challenges_asked = 0;
    // What a node of a cluster says of a slot that it should own.
    std::string ownership_answer = ":0\r\n";
    // Closes each new connection without a word.
    bool hangs_up = false;
    // As a server does: what comes behind a command that was not answered is answered behind it.
    // Then send() answers the first one.
    bool keeps_order = false;
    // Keeps a connection whose peer sends no more; otherwise it is closed then.
    bool stays_after_end = false;

    size_t peer_count() const { return peers_.size(); }
    size_t open_count() const;
    size_t open_count_max() const { return open_count_max_; }
    bool is_open(size_t peer) const { return peers_.at(peer)->watch != nullptr; }
    // What a peer has asked for, in order, without heartbeats and challenges.
    const std::vector<std::string>& asked(size_t peer) const { return peers_.at(peer)->asked; }
    // The same without its handshake.
    std::vector<std::string> asked_when_ready(size_t peer) const;
    // What was not answered, as `answers` or `ownership_answer` say, in order.
    const std::vector<std::string>& unanswered(size_t peer) const {
        return peers_.at(peer)->unanswered;
    }
    // What it has sent that is no whole command.
    std::string_view unparsed(size_t peer) const { return peers_.at(peer)->input.view(); }
    // Whether it sends no more; only with stays_after_end.
    bool has_ended(size_t peer) const { return peers_.at(peer)->has_ended; }
    size_t times_asked(std::string_view command) const;
    // The last peer that has asked for `command`.
    size_t peer_of(std::string_view command) const;

    void send(size_t peer, std::string_view bytes);
    // Bytes that were sent and not yet read.
    size_t unread(size_t peer) const;
    void close(size_t peer);
    void close_all();

private:
    struct Peer {
        int fd = -1;
        std::unique_ptr<FdWatch> watch;  // null: closed
        Buffer input;
        Buffer output;
        CommandParser parser{int64_t{1} << 30};
        std::vector<std::string> asked;
        std::vector<std::string> unanswered;
        std::deque<std::string> kept;  // answers; the first, and each that is empty, is to come
        bool is_set_up = false;
        bool has_ended = false;
        bool is_leaving = false;  // closed when all is sent
    };

    void accept_all();
    void on_events(size_t peer, FdEvents seen);
    void read(size_t peer);
    void flush(size_t peer);
    void answer(size_t peer, const std::string& command);
    void reply(size_t peer, const std::string& bytes);

    Loop& loop_;
    std::string path_;
    int listening_fd_ = -1;
    std::unique_ptr<FdWatch> listening_;
    std::vector<std::unique_ptr<Peer>> peers_;
    size_t open_count_max_ = 0;
};

// "GET k" -> "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
std::string encoded(std::string_view line);

}  // namespace nearkey
