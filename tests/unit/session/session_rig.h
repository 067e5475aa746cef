// One client without a socket: a FakeStream in front of a Session, a real Node behind it,
// and a FakeValkey behind that.
#pragma once

#include "nearkey/session/session.h"

#include "../run_until.h"
#include "../upstream/fake_valkey.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nearkey {

// A command that nearkey answers itself, and its answer: no two have the same.
inline std::string local(const std::string& word) {
    return "NEARKEY " + word;
}
inline std::string local_answer(const std::string& word) {
    return "-ERR unknown subcommand or wrong number of arguments for '" + word +
           "'. Try NEARKEY HELP.\r\n";
}

// Takes what the session writes, as long as there is room.
struct FakeSocket {
    std::string written;
    size_t room = SIZE_MAX;
    size_t writes = 0;
    bool is_lost = false;
    bool is_reading = true;
    bool can_refuse = false;
    bool is_refusing = false;
    UniqueFd passed;
};

class FakeStream final : public ByteStream {
public:
    explicit FakeStream(FakeSocket& socket) : socket_(socket) {}
    WriteResult write(std::string_view bytes, size_t& written) override {
        written = 0;
        if (socket_.is_lost) return WriteResult::Lost;
        ++socket_.writes;
        written = std::min(bytes.size(), socket_.room);
        socket_.written += bytes.substr(0, written);
        socket_.room -= written;
        return written == bytes.size() ? WriteResult::Ok : WriteResult::WouldBlock;
    }
    void pause_reading() override { socket_.is_reading = false; }
    void resume_reading() override { socket_.is_reading = true; }
    int fd() const override { return -1; }
    void pass(UniqueFd descriptor) override { socket_.passed = std::move(descriptor); }
    bool refuse_more() override { return socket_.can_refuse && (socket_.is_refusing = true); }

private:
    FakeSocket& socket_;
};

// One session and its client; what the client has sent arrives only while the session reads.
struct FakeClient {
    FakeClient(SessionContext& context, const ClientTerms& terms, uint64_t id)
        : session(context, terms, id) {
        session.attach(std::make_unique<FakeStream>(socket));
    }
    ~FakeClient() { session.abort(); }

    void send(std::string_view bytes) { session.on_bytes(bytes); }
    // Commands, each a line of words.
    void ask(const std::vector<std::string>& lines) {
        std::string bytes;
        for (const std::string& line : lines)
            bytes += encoded(line);
        send(bytes);
    }
    const std::string& output() const { return socket.written; }

    FakeSocket socket;
    Session session;
};

struct SessionRig : NodeEvents, SessionEvents {
    SessionRig() {
        url.kind = UpstreamUrl::Kind::Unix;
        url.path = directory / "valkey";
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 5;
        options.queue_timeout_ms = 10'000;
    }
    ~SessionRig() {
        clients.clear();
        node.reset();
        ::close(null_fd);
    }

    // Starts the node, with the options as they are now.
    FakeClient& make_ready() {
        node = std::make_unique<Node>(Node::Parts{loop, metrics, log, scratch, *this, cache.get()},
                                      options, std::make_unique<UpstreamTarget>(url, nullptr));
        node->bound_staleness(cache_options.max_staleness_ms);
        node->start();
        REQUIRE(run_until(loop, [this] { return node->health().is_ready; }));
        context = std::make_unique<SessionContext>(SessionContext{.loop = loop,
                                                                  .limits = limits,
                                                                  .metrics = metrics,
                                                                  .log = log,
                                                                  .node = *node,
                                                                  .events = *this,
                                                                  .encoded = {}});
        context->ledgers.cache = cache.get();
        context->expected_from_bytes = 0;
        return add_client();
    }
    FakeClient& add_client() {
        clients.push_back(std::make_unique<FakeClient>(*context, terms, clients.size() + 1));
        return *clients.back();
    }
    bool is_ended(const FakeClient& client) const {
        return std::find(ended.begin(), ended.end(), &client.session) != ended.end();
    }
    bool run_until_output(const FakeClient& client, const std::string& expected) {
        return run_until(loop, [&] { return client.output().size() >= expected.size(); }) &&
               client.output() == expected;
    }
    bool run_until_asked(std::string_view command, size_t times) {
        return run_until(loop, [&] { return valkey.times_asked(command) >= times; });
    }
    bool run_until_ended(const FakeClient& client) {
        return run_until(loop, [&] { return is_ended(client); });
    }
    bool run_until_closed(size_t peer) {
        return run_until(loop, [&] { return !valkey.is_open(peer); });
    }
    // Lets the loop turn until all work that is deferred is done.
    void settle() {
        int looks = 0;
        run_until(loop, [&] { return ++looks > 3; });
    }
    // Everything that was sent by the peer is read and passed on.
    void run_until_read(size_t peer) {
        REQUIRE(run_until(loop, [&] { return valkey.unread(peer) == 0; }));
        settle();
    }
    void silence(std::string_view command) { valkey.answers[std::string(command)] = ""; }

    void on_credentials_refused() override { ++credentials_refused; }
    void on_commands_changed() override {}
    void on_health_changed(const UpstreamHealth&) override {}
    void on_session_ended(Session& session) override { ended.push_back(&session); }
    void on_memory_exceeded() override {
        for (const auto& client : clients)
            client->session.pause_for_memory();
    }

    TemporaryDirectory directory;
    Loop loop;
    FakeValkey valkey{loop, directory / "valkey"};
    Metrics metrics;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Log log{null_fd, LogLevel::Debug, metrics};
    std::vector<char> scratch = std::vector<char>(65536);
    UpstreamOptions options;
    LimitOptions limits;
    ClientTerms terms;
    UpstreamUrl url;
    size_t credentials_refused = 0;
    NearCacheOptions cache_options;
    std::unique_ptr<NearCache> cache;  // null unless a test makes one
    std::unique_ptr<Node> node;
    std::unique_ptr<SessionContext> context;
    std::vector<std::unique_ptr<FakeClient>> clients;
    std::vector<const Session*> ended;
};

}  // namespace nearkey
