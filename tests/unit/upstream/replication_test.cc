// How far a replica is known to follow its primary, by what both say.
#include "nearkey/upstream/replication.h"

#include "nearkey/upstream/own_writes.h"

#include <doctest/doctest.h>

#include <string>

namespace nearkey::replication_test {
namespace {

const std::string kPrimary =
    "$9\r\n# Replication\r\nrole:master\r\nconnected_slaves:1\r\n"
    "slave0:ip=127.0.0.1,port=1,state=online,offset=0,lag=0,type=replica\r\n"
    "master_replid:abc\r\nmaster_replid2:000\r\nmaster_repl_offset:52\r\n";
const std::string kReplica =
    "$9\r\n# Replication\r\nrole:slave\r\nmaster_link_status:up\r\n"
    "slave_read_repl_offset:60\r\nslave_repl_offset:51\r\nmaster_replid:abc\r\n"
    "master_replid2:000\r\nmaster_repl_offset:60\r\n";

ReplicationState primary_at(uint64_t offset, std::string_view history = "a") {
    return {.is_primary = true, .is_linked = false, .history = history, .offset = offset};
}
ReplicationState replica_at(uint64_t offset, std::string_view history = "a") {
    return {.is_primary = false, .is_linked = true, .history = history, .offset = offset};
}

}  // namespace

TEST_CASE("replication: a primary tells what it has done, a replica what it has applied") {
    const auto primary = read_replication(kPrimary);
    REQUIRE(primary);
    CHECK(primary->is_primary);
    CHECK(primary->history == "abc");
    CHECK(primary->offset == 52);
    const auto replica = read_replication(kReplica);
    REQUIRE(replica);
    CHECK_FALSE(replica->is_primary);
    CHECK(replica->is_linked);
    CHECK(replica->offset == 51);
}

TEST_CASE("replication: what is no such answer tells nothing") {
    CHECK_FALSE(read_replication(""));
    CHECK_FALSE(read_replication("-NOPERM no permissions\r\n"));
    CHECK_FALSE(read_replication("$9\r\n# Replication\r\nrole:master\r\nmaster_replid:abc\r\n"));
    CHECK_FALSE(read_replication("$9\r\n# Replication\r\nrole:sentinel\r\n"));
    for (size_t size = 0; size < kReplica.size(); ++size)
        static_cast<void>(read_replication(std::string_view(kReplica).substr(0, size)));
}

TEST_CASE("replication: a replica is proven at the newest time whose offset it has reached") {
    ReplicationMarks marks;
    CHECK(marks.proven_ms(replica_at(1000)) == 0);
    marks.add(10, primary_at(100));
    marks.add(20, primary_at(100));
    marks.add(30, primary_at(101));
    CHECK(marks.proven_ms(replica_at(99)) == 0);
    CHECK(marks.proven_ms(replica_at(100)) == 20);
    CHECK(marks.proven_ms(replica_at(101)) == 30);
    CHECK(marks.last_ms() == 30);
}

TEST_CASE("replication: offsets of different histories do not compare") {
    ReplicationMarks marks;
    marks.add(10, primary_at(100));
    CHECK(marks.proven_ms(replica_at(200, "b")) == 0);
    marks.add(20, primary_at(150, "b"));
    CHECK(marks.proven_ms(replica_at(200)) == 0);
    CHECK(marks.proven_ms(replica_at(149, "b")) == 0);
    CHECK(marks.proven_ms(replica_at(150, "b")) == 20);
}

TEST_CASE("replication: neither a promoted replica nor one without a link is proven") {
    ReplicationMarks marks;
    marks.add(10, primary_at(100));
    ReplicationState state = replica_at(100);
    state.is_linked = false;
    CHECK(marks.proven_ms(state) == 0);
    state = replica_at(100);
    state.is_primary = true;
    CHECK(marks.proven_ms(state) == 0);
}

TEST_CASE("replication: only the last marks are kept") {
    ReplicationMarks marks;
    for (uint64_t i = 1; i <= 100; ++i)
        marks.add(i, primary_at(i));
    CHECK(marks.proven_ms(replica_at(84)) == 0);
    CHECK(marks.proven_ms(replica_at(85)) == 85);
}

TEST_CASE("own writes: the last of a slot counts, or the last of which no slot is known") {
    OwnWrites writes(5);
    CHECK(writes.last(7) == 5);
    writes.note(7, 20);
    writes.note(7, 10);  // another loop that was slower
    CHECK(writes.last(7) == 20);
    CHECK(writes.last(8) == 5);
    writes.note(OwnWrites::kAnySlot, 30);
    CHECK(writes.last(7) == 30);
    CHECK(writes.last(8) == 30);
    writes.suspend();
    CHECK(writes.last(7) == UINT64_MAX);
    writes.resume(40);
    CHECK(writes.last(7) == 40);
}

}  // namespace nearkey::replication_test
