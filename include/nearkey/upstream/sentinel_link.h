// One Sentinel: a connection that asks it, again and again, which server is the primary.
// Owned by SentinelWatch. It hears of a failover at once (SUBSCRIBE), but an event is only a reason
// to ask: the leader of a failover answers with the new primary a second before it publishes that
// (sentinelGetCurrentPrimaryAddress in sentinel.c). Nothing that a Sentinel says is believed here.
//
//   resolve ─▶ connect ─▶ HELLO 3 [AUTH] ─▶ SENTINEL MYID ─▶ SUBSCRIBE ─▶ each second: SENTINEL
//   MASTER, GET-MASTER-ADDR-BY-NAME, and at times SENTINELS. Any other answer, or none, ends the
//   connection.
#pragma once

#include "nearkey/loop/resolver.h"
#include "nearkey/resp/reply_scanner.h"
#include "nearkey/resp/value.h"
#include "nearkey/upstream/hiredis_adapter.h"
#include "nearkey/upstream/url.h"

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

struct SentinelCredentials {
    std::string username;
    std::string password;  // empty: there is none
};

// Shared by all links. All of it outlives them.
struct SentinelContext {
    Loop& loop;
    Metrics& metrics;
    std::span<char> scratch;
    SocketReaper& reaper;
    const UpstreamOptions& options;
    const UpstreamUrl& url;  // Kind::Sentinel
    // Read anew with each connection. Throws std::runtime_error.
    std::function<SentinelCredentials()> credentials;
    size_t& lookups;  // lookups in flight: others wait for DNS as well
};

// A Sentinel's word: the primary's address, and the epoch in which it became that.
struct SentinelWord {
    Endpoint primary;
    uint64_t epoch = 0;
    uint64_t asked_ms = 0;  // Loop::now_ms() when it was asked

    bool is_same(const SentinelWord& other) const {
        return primary == other.primary && epoch == other.epoch;
    }
};

class SentinelWatch;

class SentinelLink final : public SocketEvents {
public:
    SentinelLink(const SentinelContext& context, Endpoint where, SentinelWatch& watch);
    ~SentinelLink();

    // Connects, or asks at once, or as soon as the present question is answered.
    void ask();

    const Endpoint& where() const { return where_; }
    // Its own id; empty until it has said it.
    const std::string& id() const { return id_; }
    // Its last word; nothing while it can't be asked, or knows no primary of that name.
    const std::optional<SentinelWord>& word() const { return word_; }
    // The other Sentinels that it knows, with their ids.
    struct Peer {
        Endpoint where;
        std::string id;
    };
    const std::vector<Peer>& peers() const { return peers_; }
    // One line: why there is no word; empty while there is one.
    const std::string& problem() const { return problem_; }

private:
    enum class Ask { Hello, Id, Subscribe, Ping, Epoch, Address, Peers };

    // SocketEvents
    void on_connected() override;
    bool on_bytes(std::string_view bytes) override;
    bool is_reading_large() const override { return false; }
    void on_socket_lost(const std::string& reason) override { lose(reason); }

    void connect();
    void open_socket(const std::string& address);
    void say_hello();
    void send(Ask what, std::initializer_list<std::string_view> words);
    void ask_now();
    void on_reply(const Value& reply);
    void on_hello(const Value& reply);
    void on_address(const Value& reply);
    void on_peers(const Value& reply);
    void on_deadline();
    void lose(const std::string& reason);
    void report(const std::string& problem);

    const SentinelContext& context_;
    const Endpoint where_;
    SentinelWatch& watch_;
    std::unique_ptr<TlsContext> tls_;
    std::unique_ptr<Resolution> resolution_;
    bool is_lookup_ = false;                 // resolution_ asks DNS
    std::unique_ptr<HiredisSocket> socket_;  // null: not connected
    bool is_ready_ = false;                  // HELLO was answered
    bool asks_again_ = false;
    size_t asked_ = 0;  // rounds on this connection
    ReplyScanner scanner_;
    std::string reply_;
    std::deque<Ask> asks_;  // questions not answered yet
    Timer ask_timer_;
    Timer deadline_timer_;

    std::string id_;
    uint64_t epoch_ = 0;
    uint64_t asked_ms_ = 0;
    std::optional<SentinelWord> word_;
    std::vector<Peer> peers_;
    std::string problem_ = "not reached yet";
};

}  // namespace nearkey
