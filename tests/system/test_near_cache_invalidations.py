"""Rows 46, 48, 49, 52, 54 and 57: whatever changes a key on the server, what is stored of it is
dropped. C3, row 55: what a client of nearkey changes is seen at once."""

import unittest

from harness import proxy_only, wait_for
from near_cache import NearCacheTest, explain

# name: (what prepares, the event, the read that is stored before it)
EVENTS = {
    "set": ([("SET", "k", "1")], ("SET", "k", "2"), ("GET", "k")),
    "set to the same": ([("SET", "k", "1")], ("SET", "k", "1"), ("GET", "k")),
    "created": ([], ("SET", "k", "2"), ("GET", "k")),
    "del": ([("SET", "k", "1")], ("DEL", "k"), ("GET", "k")),
    "unlink": ([("SET", "k", "1")], ("UNLINK", "k"), ("EXISTS", "k")),
    "append": ([("SET", "k", "1")], ("APPEND", "k", "2"), ("STRLEN", "k")),
    "expire": ([("SET", "k", "1")], ("EXPIRE", "k", "100"), ("GET", "k")),
    "expire in the past": ([("SET", "k", "1")], ("EXPIRE", "k", "-1"), ("GET", "k")),
    "persist": ([("SET", "k", "1", "EX", "100")], ("PERSIST", "k"), ("GET", "k")),
    "rename, old name": ([("SET", "k", "1")], ("RENAME", "k", "other"), ("GET", "k")),
    "rename, new name": ([("SET", "o", "2"), ("SET", "k", "1")],
        ("RENAME", "o", "k"), ("GET", "k")),
    "copy": ([("SET", "o", "2")], ("COPY", "o", "k"), ("GET", "k")),
    "move": ([("SET", "k", "1")], ("MOVE", "k", "1"), ("GET", "k")),
    "sort store": ([("RPUSH", "o", "2", "1")],
        ("SORT", "o", "STORE", "k"), ("LRANGE", "k", "0", "-1")),
    "lmove, source": ([("RPUSH", "k", "1", "2")],
        ("LMOVE", "k", "o", "LEFT", "LEFT"), ("LLEN", "k")),
    "lmove, target": ([("RPUSH", "o", "1", "2")],
        ("LMOVE", "o", "k", "LEFT", "LEFT"), ("LLEN", "k")),
    "hset": ([("HSET", "k", "f", "1")], ("HSET", "k", "f", "2"), ("HGET", "k", "f")),
    "hset to the same": ([("HSET", "k", "f", "1")], ("HSET", "k", "f", "1"), ("HGETALL", "k")),
    "zadd": ([("ZADD", "k", "1", "a")], ("ZADD", "k", "2", "a"), ("ZSCORE", "k", "a")),
    "sunionstore": ([("SADD", "o", "a")], ("SUNIONSTORE", "k", "o"), ("SMEMBERS", "k")),
    "getdel": ([("SET", "k", "1")], ("GETDEL", "k"), ("TYPE", "k")),
    "flushdb": ([("SET", "k", "1")], ("FLUSHDB",), ("GET", "k")),
    "flushall": ([("SET", "k", "1")], ("FLUSHALL",), ("GET", "k")),
}
FLUSHES = ("flushdb", "flushall")


@proxy_only
class InvalidationTest(NearCacheTest):
    # These keys are invalidated more often than they are hit: C21 is not what is tested here.
    settings = {"near_cache.thrash_guard": "false"}

    def setUp(self):
        super().setUp()
        self.readers = [self.client_of(2), self.client_of(3)]
        self.oracles = [self.direct_of(2), self.direct_of(3)]
        for reader in self.readers:
            wait_for(lambda r=reader: self.has_heard(r), 5, "of the FLUSHALL before this test")

    def has_heard(self, reader):
        """Whether a write is told of as one: what the server told before has arrived then."""
        self.store(reader, "GET", "heard")
        self.direct.command("SET", "heard", "1")
        wait_for(lambda: explain(reader, "GET", "heard")["cache"] == b"miss", 5, "it is dropped")
        return explain(reader, "GET", "heard")["last_invalidation"] == b"push"

    def prepare(self, steps, read):
        self.direct.command("DEL", "k", "o", "other", "x")
        for step in steps:
            self.assertNotIn(b"-", self.direct.command(*step)[:1], step)
        for reader in self.readers:
            self.store(reader, *read)

    def assert_dropped(self, read, cause):
        """Of both protocols: EXPLAIN says so, and the next read shows the server's state."""
        for reader, oracle in zip(self.readers, self.oracles):
            wait_for(lambda r=reader: explain(r, *read)["cache"] == b"miss", 5, "it is dropped")
            self.assertEqual(cause, explain(reader, *read)["last_invalidation"])
            self.assertEqual(oracle.command(*read), reader.command(*read))

    def test_row_46_and_48_an_event_on_the_server_drops_what_is_stored(self):
        for name, (steps, event, read) in EVENTS.items():
            with self.subTest(name):
                self.prepare(steps, read)
                self.assertNotIn(b"-", self.direct.command(*event)[:1])
                self.assert_dropped(read, b"flush" if name in FLUSHES else b"push")

    def test_c3_an_event_through_nearkey_is_seen_at_once(self):
        writer = self.client()
        for name, (steps, event, read) in EVENTS.items():
            with self.subTest(name):
                self.prepare(steps, read)
                self.assertNotIn(b"-", writer.command(*event)[:1])
                replies = [reader.command(*read) for reader in self.readers]
                expected = [oracle.command(*read) for oracle in self.oracles]
                self.assertEqual(expected, replies)

    def test_row_46_a_write_in_a_transaction(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        self.direct.pipeline([("MULTI",), ("SET", "k", "2"), ("EXEC",)])
        self.assert_dropped(("GET", "k"), b"push")

    def test_c3_a_write_in_a_transaction_through_nearkey(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        self.client().pipeline([("MULTI",), ("SET", "k", "2"), ("EXEC",)])
        for reader in self.readers:
            self.assertEqual(b"$1\r\n2\r\n", reader.command("GET", "k"))

    def test_row_46_restore(self):
        self.direct.command("SET", "o", "2")
        dump = self.direct.value("DUMP", "o")
        for writer in (self.direct, self.client()):
            self.prepare([("SET", "k", "1")], ("GET", "k"))
            self.assertEqual(b"+OK\r\n", writer.command("RESTORE", "k", "0", dump, "REPLACE"))
            if writer is self.direct:
                self.assert_dropped(("GET", "k"), b"push")
            for reader in self.readers:
                self.assertEqual(b"$1\r\n2\r\n", reader.command("GET", "k"))

    def test_row_48_debug_reload(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        self.assertEqual(b"+OK\r\n", self.direct.command("DEBUG", "RELOAD"))
        self.assert_dropped(("GET", "k"), b"flush")

    def test_row_48_a_flush_of_another_database(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        self.direct.pipeline([("SELECT", "1"), ("SET", "x", "1"), ("FLUSHDB",), ("SELECT", "0")])
        self.assert_dropped(("GET", "k"), b"flush")

    def test_row_49_a_write_of_the_same_name_in_another_database(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        self.direct.pipeline([("SELECT", "1"), ("SET", "k", "2"), ("SELECT", "0")])
        self.assert_dropped(("GET", "k"), b"push")

    def test_row_52_an_overflow_of_the_tracking_table(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        self.direct.command("CONFIG", "SET", "tracking-table-max-keys", "1")
        self.addCleanup(self.server.run, "CONFIG", "SET", "tracking-table-max-keys", "1000000")
        # Each key that is tracked besides makes the server forget one, and say so.
        self.readers[0].command("MGET", *[f"x{i}" for i in range(20)])
        self.assert_dropped(("GET", "k"), b"push")

    def test_row_52_an_eviction(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        self.addCleanup(self.server.run, "CONFIG", "SET", "maxmemory", "0",
                        "maxmemory-policy", "noeviction")
        self.direct.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        self.direct.command("CONFIG", "SET", "maxmemory", "1")
        # Every write evicts what there is.
        wait_for(lambda: self.direct.command("SET", "x", "1") and
                 self.direct.command("EXISTS", "k") == b":0\r\n", 5, "k is evicted")
        self.assert_dropped(("GET", "k"), b"push")

    def test_row_54_a_killed_connection_takes_its_entries_along(self):
        for reader in self.readers:
            self.prepare([("SET", "k", "1")], ("GET", "k"))
            tracking = [row for row in self.server.clients() if "t" in row["flags"]]
            self.assertGreaterEqual(len(tracking), 2)
            for row in tracking:
                self.assertEqual(1, self.server.run("CLIENT", "KILL", "ID", row["id"]))
            self.direct.command("CONFIG", "SET", "appendonly", "no")
            wait_for(lambda r=reader: explain(r, "GET", "k")["cache"] != b"hit", 5, "the loss")
            self.direct.command("SET", "k", "2")
            self.nearkey.wait_ready()
            wait_for(lambda r=reader: r.command("GET", "k") == b"$1\r\n2\r\n", 5, "the new value")
            self.assertEqual(b"$1\r\n2\r\n", reader.command("GET", "k"))

    def test_row_57_what_changes_no_key_drops_nothing(self):
        self.prepare([("SET", "k", "1")], ("GET", "k"))
        for command in (("FUNCTION", "FLUSH"), ("SCRIPT", "FLUSH"),
                        ("CONFIG", "SET", "slowlog-max-len", "128")):
            self.assertEqual(b"+OK\r\n", self.direct.command(*command))
            for reader in self.readers:
                self.assertTrue(self.is_hit(reader, "GET", "k"))


if __name__ == "__main__":
    unittest.main()
