"""What Valkey is asked to track and what it is not (C12, C13, C18), reads that share one (C5), and
the limits of what is stored."""

import re
import unittest

from harness import SystemTest, proxy_only, wait_for
from near_cache import HITS, NearCacheTest, explain, is_hit, store
from resp import parse

FORWARDED = "nearkey_commands_forwarded_total"


def calls(server, command):
    """How often the server has executed it."""
    stats = server.run("INFO", "commandstats").decode()
    match = re.search(rf"cmdstat_{re.escape(command)}:calls=(\d+)", stats)
    return int(match.group(1)) if match else 0


def info(server, name):
    return int(re.search(rf"{name}:(\d+)", server.run("INFO").decode()).group(1))


@proxy_only
class FirstMomentTest(SystemTest):
    def test_what_is_stored_is_served_before_the_first_beat(self):
        server = self.start_server()
        nearkey = self.start_nearkey(
            server.url,
            settings={
                "upstream.heartbeat_interval_ms": 50000,
                "upstream.unready_after_ms": 60000,
                "near_cache.max_staleness_ms": 200000,
            },
        )
        for version in (2, 3):
            with nearkey.client() as client:
                client.command("HELLO", str(version))
                client.command("SET", "k", version)
                store(nearkey, client, "GET", "k")


@proxy_only
class TrackedTest(NearCacheTest):
    def test_c13_a_read_that_is_not_stored_is_not_tracked(self):
        for version in (2, 3):
            client = self.client_of(version)
            self.direct.command("FLUSHALL")
            client.command("SET", "k", "1")
            for command in (("TTL", "k"), ("DUMP", "k"), ("OBJECT", "ENCODING", "k"),
                            ("LCS", "k", "other")):
                client.command(*command)
            self.assertEqual(0, info(self.server, "tracking_total_keys"))
            client.command("GET", "k")
            self.assertEqual(1, info(self.server, "tracking_total_keys"))

    def test_c18_reads_of_a_transaction_are_asked_of_the_server(self):
        for version in (2, 3):
            client = self.client_of(version)
            self.direct.command("SET", "k", "1")
            self.store(client, "GET", "k")
            hits, gets = self.nearkey.metric(HITS), calls(self.server, "get")
            client.pipeline([("MULTI",), ("GET", "k"), ("EXEC",)])
            self.assertEqual(hits, self.nearkey.metric(HITS))
            self.assertEqual(gets + 1, calls(self.server, "get"))

    def test_c12_a_client_with_a_user_of_its_own_bypasses_the_cache(self):
        self.direct.command("ACL", "SETUSER", "limited", "on", ">secret", "~open", "+@all")
        self.direct.command("MSET", "k", "1", "open", "2")
        limited = self.client()
        for key in ("k", "open"):
            self.store(self.client(), "GET", key)
        self.assertEqual(b"+OK\r\n", limited.command("AUTH", "limited", "secret"))
        hits = self.nearkey.metric(HITS)
        self.assertTrue(limited.command("GET", "k").startswith(b"-NOPERM"))
        self.assertEqual(b"$1\r\n2\r\n", limited.command("GET", "open"))
        self.assertEqual(hits, self.nearkey.metric(HITS))


@proxy_only
class ConfiguredTest(SystemTest):
    def start(self, **settings):
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(
            self.server.url, settings={f"near_cache.{k}": v for k, v in settings.items()})
        return self.client()

    def client(self, version=2):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        client.command("HELLO", str(version))
        return client

    def test_without_a_near_cache_nothing_is_tracked(self):
        self.start(enabled="false")
        for version in (2, 3):
            client = self.client(version)
            client.command("SET", "k", "1")
            for _ in range(3):
                self.assertEqual(b"$1\r\n1\r\n", client.command("GET", "k"))
        self.assertEqual(6, calls(self.server, "get"))
        self.assertEqual(0, calls(self.server, "pttl"))
        self.assertEqual(0, info(self.server, "tracking_clients"))
        self.assertEqual(0, info(self.server, "tracking_total_keys"))

    def test_tracking_that_is_refused_ends_the_cache_and_nothing_else(self):
        self.server = self.start_server()
        self.server.run("ACL", "SETUSER", "default", "-client|tracking")
        self.nearkey = self.start_nearkey(self.server.url)
        for version in (2, 3):
            client = self.client(version)
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "1"))
            for _ in range(3):
                self.assertEqual(b"$1\r\n1\r\n", client.command("GET", "k"))
        self.assertEqual(6, calls(self.server, "get"))
        self.assertEqual(0, self.nearkey.metric(HITS))
        self.assertEqual(0, self.nearkey.metric("nearkey_near_cache_tracking"))
        self.nearkey.wait_logged("near_cache_off")
        told = [entry for entry in self.nearkey.logs() if entry.get("event") == "near_cache_off"]
        self.assertEqual(1, len(told), told)

    def test_c5_equal_reads_share_one_and_a_write_closes_it(self):
        for version in (2, 3):
            with self.subTest(version):
                self.setUp()
                self.start()
                clients = [self.client(version) for _ in range(20)]
                writer = self.client()
                store(self.nearkey, clients[0], "GET", "other")
                self.server.freeze()
                for client in clients:
                    client.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
                joins = "nearkey_near_cache_joins_total"
                wait_for(lambda: self.nearkey.metric(joins) == 19, 5, "19 wait for the first")
                writer.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n")
                wait_for(lambda: explain(self.client(), "GET", "k")["last_invalidation"]
                         == b"write", 5, "the write is sent")
                forwarded = self.nearkey.metric(FORWARDED)
                late = self.client(version)
                late.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
                # The write is not answered yet: either reply is right, but it is one of its own.
                wait_for(lambda: self.nearkey.metric(FORWARDED) > forwarded, 5, "it is sent")
                self.server.thaw()
                self.assertEqual(b"+OK\r\n", writer.read_reply())
                self.assertEqual(b"1", parse(self.client(version).command("GET", "k")))
                for client in [late, *clients]:
                    self.assertIn(parse(client.read_reply()), (None, b"1"))

    def test_c5_twenty_equal_reads_are_one_upstream(self):
        self.start()
        clients = [self.client() for _ in range(20)]
        store(self.nearkey, clients[0], "GET", "other")
        before = calls(self.server, "get")
        self.server.freeze()
        for client in clients:
            client.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
        wait_for(lambda: self.nearkey.metric("nearkey_near_cache_joins_total") == 19, 5, "joined")
        self.server.thaw()
        for client in clients:
            self.assertEqual(b"$-1\r\n", client.read_reply())
        self.assertEqual(before + 1, calls(self.server, "get"))

    def test_a_value_above_value_max_is_not_stored(self):
        client = self.start(value_max="1KiB")
        client.command("SET", "long", "x" * 2000)
        client.command("SET", "short", "x" * 500)
        store(self.nearkey, client, "GET", "short")
        for _ in range(3):
            self.assertFalse(is_hit(self.nearkey, client, "GET", "long"))

    def test_an_entry_ends_after_max_age_ms(self):
        client = self.start(max_age_ms=1000)
        client.command("SET", "k", "1")
        store(self.nearkey, client, "GET", "k")
        wait_for(lambda: explain(client, "GET", "k")["cache"] == b"miss", 5, "it is too old")
        self.assertFalse(is_hit(self.nearkey, client, "GET", "k"))

    def test_memory_is_bounded_and_evictions_are_counted(self):
        client = self.start(memory="1MiB")
        for i in range(3000):
            client.command("SET", f"k{i}", "x" * 1000)
            client.command("GET", f"k{i}")
        self.assertLessEqual(self.nearkey.metric("nearkey_near_cache_bytes"), 1 << 20)
        self.assertGreater(self.nearkey.metric("nearkey_near_cache_entries"), 0)
        self.assertGreater(self.nearkey.metric("nearkey_near_cache_evictions_total"), 1000)


if __name__ == "__main__":
    unittest.main()
