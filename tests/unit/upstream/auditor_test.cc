// What comes of a hit that is compared with Valkey's own reply.
#include "nearkey/upstream/auditor.h"

#include "node_rig.h"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

namespace nearkey::auditor_test {
namespace {

constexpr std::string_view kGet = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
constexpr std::string_view kServed = "$3\r\nold\r\n";

struct AuditRig {
    explicit AuditRig(double ratio) {
        rig.near.audit_ratio = ratio;
        rig.near.max_staleness_ms = 60'000;
        rig.make_ready_with_cache();
        connection = &rig.tracked(0);
        // From then on what is read is proven.
        REQUIRE(run_until(rig.loop, [&] { return rig.node->coherence().swapdb_known_ms() > 0; }));
    }
    CacheQuery query() const { return {.key = "k", .arguments = {}, .command = 1, .database = 0}; }
    void store(std::string_view reply) {
        const auto ticket = cache->begin_fill(query(), connection->tracking().source());
        REQUIRE(ticket != 0);
        cache->commit(ticket, reply, UINT64_MAX, Loop::boot_ms());
        REQUIRE(cache->explain(query(), Loop::boot_ms()).outcome == NearCache::Outcome::Hit);
    }
    // A hit of `bytes` (a command for the key "k"), which is audited.
    void hit(std::string_view bytes = kGet, bool reads_fields = false) {
        const auto found = cache->find(query(), Loop::boot_ms());
        REQUIRE(found.outcome == NearCache::Outcome::Hit);
        CommandParser parser(int64_t{1} << 20);
        REQUIRE(parser.next(bytes) == ParseResult::Command);
        REQUIRE(node->coherence().auditor().is_due(0));
        node->coherence().auditor().schedule();
        node->coherence().auditor().note(
            {Protocol::Resp3, query(), parser.command(), found.reply, reads_fields});
    }
    bool run_until_audited(uint64_t count) {
        return run_until(loop, [&] { return metrics.near_cache_audits_total == count; });
    }
    // So long that whatever there is to find has been found.
    void run_beats() {
        const uint64_t beats = metrics.heartbeats_total;
        REQUIRE(run_until(loop, [&] { return metrics.heartbeats_total > beats + 20; }));
    }

    NodeRig rig;
    Connection* connection;
    Loop& loop = rig.loop;
    FakeValkey& valkey = rig.valkey;
    Metrics& metrics = rig.metrics;
    std::unique_ptr<NearCache>& cache = rig.cache;
    std::unique_ptr<Node>& node = rig.node;
};

}  // namespace

TEST_CASE("audit: so many hits are due, evenly") {
    for (const auto& [ratio, expected] : {std::pair{1.0, 1000}, {0.3, 300}, {0.001, 1}, {0.0, 0}}) {
        const double shown = ratio;
        CAPTURE(shown);
        AuditRig rig(ratio);
        rig.store(kServed);
        CommandParser parser(int64_t{1} << 20);
        REQUIRE(parser.next(kGet) == ParseResult::Command);
        int due = 0;
        for (int i = 0; i < 1000; ++i) {
            if (!rig.node->coherence().auditor().is_due(0)) continue;
            ++due;
            rig.node->coherence().auditor().schedule();
            rig.node->coherence().auditor().note(
                {Protocol::Resp3, rig.query(), parser.command(), kServed, false});
        }
        CHECK(due == expected);
        // One at a time.
        const size_t sent = expected > 0 ? 1 : 0;
        REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("GET k") >= sent; }));
        rig.run_beats();
        CHECK(rig.valkey.times_asked("GET k") == sent);
    }
}

TEST_CASE("audit: the same reply is counted, and read so that nothing is tracked") {
    AuditRig rig(1);
    rig.valkey.answers["GET k"] = kServed;
    rig.store(kServed);
    rig.hit();
    REQUIRE(rig.run_until_audited(1));
    rig.hit();
    REQUIRE(rig.run_until_audited(2));
    rig.run_beats();
    CHECK(rig.metrics.near_cache_audit_late_total == 0);
    CHECK(rig.metrics.near_cache_audit_violations_total == 0);
    const auto& asked = rig.valkey.asked(rig.valkey.peer_of("GET k"));
    const auto read = std::find(asked.begin(), asked.end(), "GET k");
    REQUIRE(read != asked.begin());
    CHECK(*(read - 1) == "CLIENT CACHING NO");
}

TEST_CASE("audit: what differs, and is dropped by news that was under way, is late") {
    AuditRig rig(1);
    rig.valkey.answers["GET k"] = "$3\r\nnew\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
    rig.store(kServed);
    rig.hit();
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.near_cache_audit_late_total == 1; }));
    CHECK(rig.metrics.near_cache_audits_total == 1);
    rig.run_beats();
    CHECK(rig.metrics.near_cache_audit_violations_total == 0);
}

TEST_CASE("audit: an equal reply that was stored anew is not what was served") {
    AuditRig rig(1);
    rig.valkey.answers["GET k"] = "$3\r\nnew\r\n";
    rig.store(kServed);
    rig.hit();
    rig.cache->invalidate("k", InvalidationCause::Push, Loop::boot_ms());
    rig.store(kServed);
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.near_cache_audit_late_total == 1; }));
    rig.run_beats();
    CHECK(rig.metrics.near_cache_audit_violations_total == 0);
}

TEST_CASE("audit: what differs and is served on is a violation, with one line in the log") {
    AuditRig rig(1);
    const int log = memfd_create("log", MFD_CLOEXEC);
    REQUIRE(log >= 0);
    REQUIRE(dup3(log, rig.rig.null_fd, O_CLOEXEC) == rig.rig.null_fd);
    rig.valkey.answers["GET k"] = "$3\r\nnew\r\n";
    rig.store(kServed);
    for (uint64_t count = 1; count <= 2; ++count) {
        rig.hit();
        REQUIRE(run_until(rig.loop,
                          [&] { return rig.metrics.near_cache_audit_violations_total == count; }));
    }
    CHECK(rig.metrics.near_cache_audits_total == 2);
    CHECK(rig.metrics.near_cache_audit_late_total == 0);
    std::string lines(65536, '\0');
    const ssize_t size = pread(log, lines.data(), lines.size(), 0);
    REQUIRE(size > 0);
    lines.resize(static_cast<size_t>(size));
    const size_t first = lines.find("near_cache_violation");
    REQUIRE(first != std::string::npos);
    CHECK(lines.find("near_cache_violation", first + 1) == std::string::npos);
    CHECK(lines.find("\"command\":\"GET\"") != std::string::npos);
    close(log);
}

TEST_CASE("audit: when all was void meanwhile, nothing is said to be a violation") {
    AuditRig rig(1);
    rig.valkey.answers["GET k"] = "$3\r\nnew\r\n";
    rig.store(kServed);
    rig.hit();
    rig.cache->clear(InvalidationCause::SwapDb, Loop::boot_ms());
    REQUIRE(run_until(rig.loop, [&] { return rig.metrics.near_cache_audit_late_total == 1; }));
    CHECK(rig.metrics.near_cache_audit_violations_total == 0);
}

TEST_CASE("audit: elements that come in no order may come in another one") {
    AuditRig rig(1);
    rig.valkey.answers["SMEMBERS k"] = "~2\r\n$1\r\nb\r\n$1\r\na\r\n";
    rig.valkey.answers["LRANGE k"] = "*2\r\n$1\r\nb\r\n$1\r\na\r\n";
    rig.store("~2\r\n$1\r\na\r\n$1\r\nb\r\n");
    rig.hit("*2\r\n$8\r\nSMEMBERS\r\n$1\r\nk\r\n");
    REQUIRE(rig.run_until_audited(1));
    rig.store("*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    rig.hit("*2\r\n$6\r\nLRANGE\r\n$1\r\nk\r\n");
    REQUIRE(
        run_until(rig.loop, [&] { return rig.metrics.near_cache_audit_violations_total == 1; }));
    CHECK(rig.metrics.near_cache_audits_total == 2);
}

TEST_CASE("audit: an error says nothing of the key, but WRONGTYPE does") {
    AuditRig rig(1);
    rig.valkey.answers["GET k"] = "-LOADING later\r\n";
    rig.store(kServed);
    rig.hit();
    rig.run_beats();
    CHECK(rig.metrics.near_cache_audits_total == 0);
    rig.valkey.answers["GET k"] = "-WRONGTYPE it is a list\r\n";
    rig.hit();
    REQUIRE(
        run_until(rig.loop, [&] { return rig.metrics.near_cache_audit_violations_total == 1; }));
    CHECK(rig.metrics.near_cache_audits_total == 1);
}

TEST_CASE("audit: a read that is lost is no result, and the next hit is compared") {
    AuditRig rig(1);
    // A heartbeat's answer would be that of the read.
    rig.valkey.answers["PING"] = FakeValkey::kSilent;
    rig.valkey.answers["HELLO"] = FakeValkey::kSilent;
    rig.valkey.answers["GET k"] = FakeValkey::kSilent;
    rig.store(kServed);
    rig.hit();
    REQUIRE(run_until(rig.loop, [&] { return rig.valkey.times_asked("GET k") == 1; }));
    rig.valkey.close(rig.valkey.peer_of("GET k"));
    rig.valkey.answers.erase("PING");
    rig.valkey.answers.erase("HELLO");
    rig.valkey.answers["GET k"] = kServed;
    REQUIRE(run_until(rig.loop, [&] { return !rig.connection->is_ready(); }));
    REQUIRE(run_until(rig.loop, [&] {
        return rig.connection->is_ready() && rig.connection->tracking().is_on();
    }));
    rig.run_beats();
    CHECK(rig.metrics.near_cache_audits_total == 0);
    rig.store(kServed);
    rig.hit();
    REQUIRE(rig.run_until_audited(1));
    CHECK(rig.metrics.near_cache_audit_violations_total == 0);
}

}  // namespace nearkey::auditor_test
