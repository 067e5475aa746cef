#include "fake_valkey.h"

#include "nearkey/resp/inline_command.h"
#include "nearkey/resp/reply_writer.h"

#include <doctest/doctest.h>

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace nearkey {

namespace {

std::string table_entry(const std::string& name, int arity, const std::string& flag,
                        const std::string& subcommands = "*0\r\n") {
    // Keys, categories, tips and key specs are left empty.
    return "*10\r\n+" + name + "\r\n:" + std::to_string(arity) + "\r\n*1\r\n+" + flag +
           "\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n*0\r\n" + subcommands;
}

std::string array_of(const std::vector<std::string>& entries) {
    std::string reply = "*" + std::to_string(entries.size()) + "\r\n";
    for (const std::string& entry : entries)
        reply += entry;
    return reply;
}

std::string command_table() {
    const std::string client = array_of({
        table_entry("client|getname", 2, "fast"),
        table_entry("client|setname", 3, "fast"),
        table_entry("client|setinfo", 4, "fast"),
        table_entry("client|reply", 3, "fast"),
    });
    return array_of({
        table_entry("get", 2, "readonly"),         table_entry("set", -3, "write"),
        table_entry("incr", 2, "write"),           table_entry("echo", 2, "fast"),
        table_entry("hello", -1, "fast"),          table_entry("select", 2, "fast"),
        table_entry("quit", -1, "fast"),           table_entry("reset", 1, "fast"),
        table_entry("eval", -3, "noscript"),       table_entry("blpop", -3, "blocking"),
        table_entry("multi", 1, "fast"),           table_entry("ping", -1, "fast"),
        table_entry("exec", 1, "noscript"),        table_entry("discard", 1, "fast"),
        table_entry("watch", -2, "fast"),          table_entry("unwatch", 1, "fast"),
        table_entry("wait", 3, "blocking"),        table_entry("auth", -2, "fast"),
        table_entry("subscribe", -2, "pubsub"),    table_entry("unsubscribe", -1, "pubsub"),
        table_entry("sync", 1, "admin"),           table_entry("xread", -4, "readonly"),
        table_entry("psubscribe", -2, "pubsub"),   table_entry("ssubscribe", -2, "pubsub"),
        table_entry("punsubscribe", -1, "pubsub"), table_entry("blmpop", -5, "blocking"),
        table_entry("client", -2, "x", client),
    });
}

// That nothing is left over on a connection: its word is another each time.
bool is_challenge(const std::string& command) {
    return command.starts_with("PING nearkey:") && command.size() == 5 + 40;
}

std::string default_answer(const std::string& command) {
    const std::string fields = "$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n:";
    if (command == "HELLO") return "*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
    if (command.starts_with("HELLO 3")) return "%2\r\n" + fields + "3\r\n";
    if (command.starts_with("HELLO 2")) return "*4\r\n" + fields + "2\r\n";
    if (command.starts_with("SELECT ") || command.starts_with("CLIENT SETNAME ")) return "+OK\r\n";
    if (command == "PING") return "+PONG\r\n";
    if (command == "QUIT") return "+OK\r\n";
    if (is_challenge(command)) return "$40\r\n" + command.substr(5) + "\r\n";
    if (command == "COMMAND") return command_table();
    if (command.starts_with("CONFIG GET ")) return "*0\r\n";
    if (command.starts_with("INFO ")) return "$0\r\n\r\n";
    if (command.starts_with("CLIENT TRACKING ") || command.starts_with("CLIENT CACHING ")) {
        return "+OK\r\n";
    }
    if (command.starts_with("TOUCH ")) return ":1\r\n";
    return "+" + command + "\r\n";
}

std::string joined(const CommandView& command) {
    std::string line;
    for (size_t i = 0; i < command.size(); ++i) {
        if (i > 0) line += ' ';
        line += command[i];
    }
    return line;
}

}  // namespace

std::string encoded(std::string_view line) {
    const std::vector<std::string> words = split_inline(line).value();
    std::string out;
    append_array_header(out, words.size());
    for (const std::string& word : words)
        append_bulk(out, word);
    return out;
}

FakeValkey::FakeValkey(Loop& loop, const std::string& path) : loop_(loop), path_(path) {
    // As the daemon does: hiredis may write to a peer that has gone.
    std::signal(SIGPIPE, SIG_IGN);
    listen();
}

FakeValkey::~FakeValkey() {
    stop_listening();
    close_all();
}

void FakeValkey::listen() {
    listening_fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path_.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path_.data(), path_.size());
    REQUIRE(bind(listening_fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listening_fd_, 128) == 0);
    listening_ =
        std::make_unique<FdWatch>(loop_, listening_fd_, [this](FdEvents) { accept_all(); });
    listening_->want({true, false});
}

void FakeValkey::stop_listening() {
    if (listening_ == nullptr) return;
    listening_.reset();
    ::close(listening_fd_);
    unlink(path_.c_str());
}

size_t FakeValkey::open_count() const {
    return static_cast<size_t>(std::count_if(
        peers_.begin(), peers_.end(), [](const auto& peer) { return peer->watch != nullptr; }));
}

size_t FakeValkey::times_asked(std::string_view command) const {
    size_t count = 0;
    for (const auto& peer : peers_) {
        count += static_cast<size_t>(std::count(peer->asked.begin(), peer->asked.end(), command));
    }
    return count;
}

size_t FakeValkey::peer_of(std::string_view command) const {
    for (size_t i = peers_.size(); i-- > 0;) {
        const std::vector<std::string>& asked = peers_[i]->asked;
        if (std::find(asked.begin(), asked.end(), command) != asked.end()) return i;
    }
    FAIL("nobody has asked for ", std::string(command));
    return 0;
}

void FakeValkey::send(size_t id, std::string_view bytes) {
    Peer& peer = *peers_.at(id);
    peer.output.append(bytes);
    if (!peer.kept.empty()) peer.kept.pop_front();
    for (; !peer.kept.empty() && !peer.kept.front().empty(); peer.kept.pop_front())
        peer.output.append(peer.kept.front());
    flush(id);
}

void FakeValkey::reply(size_t id, const std::string& bytes) {
    Peer& peer = *peers_[id];
    if (keeps_order && (bytes.empty() || !peer.kept.empty())) {
        peer.kept.push_back(bytes);
        return;
    }
    send(id, bytes);
}

size_t FakeValkey::unread(size_t peer) const {
    int in_socket = 0;
    if (is_open(peer)) REQUIRE(ioctl(peers_[peer]->fd, TIOCOUTQ, &in_socket) == 0);
    return static_cast<size_t>(in_socket) + peers_[peer]->output.size();
}

std::vector<std::string> FakeValkey::asked_when_ready(size_t peer) const {
    std::vector<std::string> commands = asked(peer);
    const auto ping = std::find(commands.begin(), commands.end(), "PING");
    if (ping != commands.end()) commands.erase(commands.begin(), ping + 1);
    return commands;
}

void FakeValkey::close(size_t peer) {
    if (!is_open(peer)) return;
    peers_[peer]->watch.reset();
    ::close(peers_[peer]->fd);
}

void FakeValkey::close_all() {
    for (size_t i = 0; i < peers_.size(); ++i)
        close(i);
}

void FakeValkey::freeze() {
    listening_->want({false, false});
    for (size_t i = 0; i < peers_.size(); ++i) {
        if (is_open(i)) peers_[i]->watch->want({false, false});
    }
}

void FakeValkey::thaw() {
    listening_->want({true, false});
    for (size_t i = 0; i < peers_.size(); ++i) {
        if (is_open(i)) peers_[i]->watch->want({true, !peers_[i]->output.empty()});
    }
}

void FakeValkey::accept_all() {
    // Those that have gone do not count as open.
    for (size_t i = 0; i < peers_.size(); ++i) {
        if (is_open(i)) read(i);
    }
    for (;;) {
        const int fd = accept4(listening_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        const size_t id = peers_.size();
        peers_.push_back(std::make_unique<Peer>());
        Peer& peer = *peers_.back();
        peer.fd = fd;
        peer.watch = std::make_unique<FdWatch>(loop_, fd,
                                               [this, id](FdEvents seen) { on_events(id, seen); });
        peer.watch->want({true, false});
        open_count_max_ = std::max(open_count_max_, open_count());
        if (hangs_up) close(id);
    }
}

void FakeValkey::on_events(size_t peer, FdEvents seen) {
    if (seen.writable) flush(peer);
    if (seen.readable && is_open(peer)) read(peer);
}

void FakeValkey::read(size_t id) {
    Peer& peer = *peers_[id];
    char bytes[65536];
    for (;;) {
        const ssize_t count = recv(peer.fd, bytes, sizeof bytes, 0);
        if (count < 0 && errno == EAGAIN) break;
        if (count == 0 && stays_after_end) {
            peer.has_ended = true;
            peer.watch->want({false, peer.watch->wanted().writable});
            break;
        }
        if (count <= 0) {
            close(id);
            return;
        }
        peer.input.append({bytes, static_cast<size_t>(count)});
    }
    while (is_open(id) && !peer.input.empty() &&
           peer.parser.next(peer.input.view()) == ParseResult::Command) {
        const std::string command = joined(peer.parser.command());
        peer.input.consume(peer.parser.consumed());
        answer(id, command);
    }
}

void FakeValkey::answer(size_t id, const std::string& command) {
    Peer& peer = *peers_[id];
    if (command.starts_with("EXISTS nearkey:")) {
        if (ownership_answer.empty()) peer.unanswered.push_back(command);
        reply(id, ownership_answer);
        return;
    }
    const bool is_heartbeat = peer.is_set_up && (command == "PING" || command == "HELLO");
    if (is_challenge(command)) {
        ++challenges_asked;
        reply(id, challenge_answer.value_or(default_answer(command)));
        return;
    }
    if (!is_heartbeat) peer.asked.push_back(command);
    if (command == "PING") peer.is_set_up = true;
    const auto found = answers.find(command);
    if (found != answers.end() && found->second.empty()) peer.unanswered.push_back(command);
    reply(id, found != answers.end() ? found->second : default_answer(command));
    if (command != "QUIT" || found != answers.end()) return;
    peer.is_leaving = true;
    flush(id);
}

void FakeValkey::flush(size_t id) {
    Peer& peer = *peers_[id];
    if (!is_open(id)) return;
    while (!peer.output.empty()) {
        const std::string_view bytes = peer.output.view();
        const ssize_t count = ::send(peer.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count < 0) break;  // Full, or gone: then read() finds it.
        peer.output.consume(static_cast<size_t>(count));
    }
    if (peer.is_leaving && peer.output.empty()) {
        close(id);
        return;
    }
    peer.watch->want({!peer.has_ended, !peer.output.empty()});
}

}  // namespace nearkey
