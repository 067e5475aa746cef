// One Connection, a FakeValkey behind it, and a test in the place of the node: it dials as soon as
// the connection wants to, and again after each loss while something waits.
#pragma once

#include "nearkey/upstream/connection.h"

#include "../run_until.h"
#include "fake_valkey.h"

#include "collector.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <unistd.h>
#include <memory>
#include <string>
#include <vector>

namespace nearkey {

struct ConnectionRig : ConnectionEvents {
    ConnectionRig() {
        url.kind = UpstreamUrl::Kind::Unix;
        url.path = directory / "valkey";
        make_connection(Protocol::Resp2, 0);
    }
    ~ConnectionRig() {
        redials = false;
        connection->close("the test is over");
        ::close(null_fd);
    }

    void make_connection(Protocol protocol, int database) {
        connection = std::make_unique<Connection>(context, protocol, database);
    }
    void make_ready() {
        connection->dial();
        REQUIRE(run_until(loop, [this] { return connection->is_ready(); }));
    }
    void send(Collector& receiver, uint32_t ticket, std::string_view line,
              RequestKind kind = RequestKind::Read) {
        connection->send({encoded(line), &receiver, ticket, kind});
    }
    bool run_until_told(const Collector& receiver, size_t count) {
        return run_until(loop, [&] { return receiver.told.size() >= count; });
    }
    bool run_until_asked(std::string_view command, size_t times) {
        return run_until(loop, [&] { return valkey.times_asked(command) >= times; });
    }

    // ConnectionEvents
    void on_watch_wanted() override {}
    void on_wants_dial(Connection&) override { dial_timer.start_once(0); }
    void on_ready(Connection&, const Value&) override { ++ready_count; }
    void on_dial_failed(Connection&, const std::string& reason) override { end(reason); }
    void on_lost(Connection&, const std::string& reason) override { end(reason); }
    void on_closed(Connection&, const std::string& reason) override { lost.push_back(reason); }
    void on_auth_refused(Connection&, const std::string& reason) override {
        auth_refused.push_back(reason);
        if (closes_when_refused) connection->close("another password");
    }
    void on_tracking(Connection&, std::string_view) override {}
    void on_database_refused(Connection&) override {}
    void on_role_doubted(Connection&) override {}
    void on_demoted(Connection&) override { ++demoted; }
    void on_trustworthy(Connection&) override { ++trustworthy; }
    void on_heartbeat(Connection& told) override {
        heartbeats.push_back(told.probe().pong().refusal.empty() ? "PONG"
                                                                 : told.probe().pong().refusal);
    }

    void end(const std::string& reason) {
        lost.push_back(reason);
        if (redials && connection->pipeline().has_waiting()) dial_timer.start_once(1);
    }

    TemporaryDirectory directory;
    Loop loop;
    FakeValkey valkey{loop, directory / "valkey"};
    Metrics metrics;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Log log{null_fd, LogLevel::Debug, metrics};
    std::vector<char> scratch = std::vector<char>(4096);
    UpstreamOptions options;
    UpstreamTarget target{{}, nullptr};
    UpstreamUrl& url = target.url;
    SocketReaper reaper{loop};
    ConnectionContext context{.loop = loop,
                              .options = options,
                              .target = &target,
                              .metrics = metrics,
                              .log = log,
                              .scratch = scratch,
                              .events = *this,
                              .reaper = reaper};
    Timer dial_timer{loop, [this] {
                         if (connection->state() == ConnectionState::Idle) connection->dial();
                     }};
    std::unique_ptr<Connection> connection;

    bool redials = true;
    bool closes_when_refused = false;
    int ready_count = 0;
    std::vector<std::string> lost;
    std::vector<std::string> auth_refused;
    std::vector<std::string> heartbeats;
    int demoted = 0;
    int trustworthy = 0;
};

}  // namespace nearkey
