"""C8 and rows 1, 50, 51, 66: what is not proven to be true for max_staleness_ms is not served."""

import os
import re
import tempfile
import time
import unittest

from harness import SLOWNESS, Nearkey, SystemTest, proxy_only, wait_for
from near_cache import HITS, NearCacheTest, store
from relay import Relay
from resp import parse

BOUND_MS = 500


def wait_out_the_bound():
    """The time itself is what is waited for: nothing can be asked while all are frozen."""
    end = time.clock_gettime(time.CLOCK_BOOTTIME) + 1.2 * BOUND_MS / 1000
    wait_for(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > end, 10, "the bound is over")


@proxy_only
class LeaseTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.relay = Relay(os.path.join(self.directory, "relay.sock"), self.server.path)
        self.addCleanup(self.relay.close)
        self.nearkey = self.start_nearkey(f"unix://{self.relay.path}", settings={
            "near_cache.max_staleness_ms": BOUND_MS, "upstream.request_timeout_ms": 1000})
        self.server.run("SET", "k", "old")
        self.clients = [self.client(2), self.client(3)]
        for client in self.clients:
            store(self.nearkey, client, "GET", "k")

    def client(self, version):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        client.command("HELLO", str(version))
        return client

    def assert_not_served(self):
        before = self.nearkey.metric(HITS)
        for client in self.clients:
            self.assertTrue(client.command("GET", "k").startswith(b"-UPSTREAM"))
        self.assertEqual(before, self.nearkey.metric(HITS))

    def assert_recovers(self):
        for client in self.clients:
            wait_for(lambda c=client: parse(c.command("GET", "k")) == b"new", 10, "the new value")
            store(self.nearkey, client, "GET", "k")

    def test_c8_replies_that_no_longer_arrive_end_the_lease(self):
        self.relay.freeze_replies()
        self.server.run("SET", "k", "new")
        wait_out_the_bound()
        self.assert_not_served()
        self.relay.thaw()
        self.assert_recovers()

    def test_row_1_a_frozen_server_ends_the_lease(self):
        self.server.freeze()
        wait_out_the_bound()
        self.assert_not_served()
        self.server.thaw()
        self.server.run("SET", "k", "new")
        self.assert_recovers()

    def test_row_66_the_first_read_of_a_host_that_wakes_up_is_no_hit(self):
        hits = self.nearkey.metric(HITS)
        self.nearkey.freeze()
        self.server.run("SET", "k", "new")
        self.server.freeze()
        wait_out_the_bound()
        for client in self.clients:
            client.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
        self.nearkey.thaw()
        self.assertEqual(hits, self.nearkey.metric(HITS))
        self.server.thaw()
        for client in self.clients:
            self.assertIn(client.read_reply()[:9], (b"$3\r\nnew\r\n", b"-UPSTREAM"))
        self.assert_recovers()


@proxy_only
class SwapTest(NearCacheTest):
    settings = {"near_cache.max_staleness_ms": BOUND_MS, "near_cache.thrash_guard": "false"}

    def setUp(self):
        super().setUp()
        self.direct.pipeline([("SET", "k", "0"), ("SELECT", "1"), ("SET", "k", "1"),
                              ("SELECT", "0")])
        self.readers = [self.client_of(2), self.client_of(3)]
        for reader in self.readers:
            self.store(reader, "GET", "k")

    def test_row_50_swapdb_from_elsewhere_is_found_within_the_bound(self):
        for commands in ([("SWAPDB", "0", "1")],
                         [("MULTI",), ("SWAPDB", "0", "1"), ("EXEC",)],
                         [("EVAL", "return redis.call('SWAPDB', '0', '1')", "0")]):
            with self.subTest(commands[0][0]):
                for reader in self.readers:
                    self.store(reader, "GET", "k")
                self.direct.pipeline(commands)
                expected = self.direct.command("GET", "k")
                end = time.monotonic() + BOUND_MS / 1000 * SLOWNESS
                for reader in self.readers:
                    wait_for(lambda r=reader: r.command("GET", "k") == expected, 5, "the swap")
                self.assertLess(time.monotonic(), end)

    def test_row_50_swapdb_through_nearkey_is_seen_at_once(self):
        writer = self.client()
        for commands in ([("SWAPDB", "0", "1")],
                         [("MULTI",), ("SWAPDB", "0", "1"), ("EXEC",)]):
            for reader in self.readers:
                self.store(reader, "GET", "k")
            writer.pipeline(commands)
            for reader in self.readers:
                self.assertEqual(self.direct.command("GET", "k"), reader.command("GET", "k"))

    def heartbeats(self, count):
        """So many more times nearkey has asked what the server counts."""
        before = self.info_calls()
        wait_for(lambda: self.info_calls() >= before + count, 5, "heartbeats")

    def info_calls(self):
        stats = self.direct.value("INFO", "commandstats")
        # Each question of ours counts as well, but only for the next one.
        self.own_calls = getattr(self, "own_calls", 0) + 1
        found = re.search(rb"cmdstat_info:calls=(\d+)", stats)
        return int(found.group(1) if found else 0) - self.own_calls

    def test_a_swapdb_that_config_resetstat_hides_is_found_within_the_bound(self):
        for _ in range(3):
            # The count is 0 before and behind it.
            self.direct.command("CONFIG", "RESETSTAT")
            self.own_calls = 0
            self.heartbeats(2)
            for reader in self.readers:
                self.store(reader, "GET", "k")
            self.direct.pipeline([("MULTI",), ("SWAPDB", "0", "1"), ("CONFIG", "RESETSTAT"),
                                  ("EXEC",)])  # fmt: skip
            expected = self.direct.command("GET", "k")
            end = time.monotonic() + BOUND_MS / 1000 * SLOWNESS
            for reader in self.readers:
                wait_for(lambda r=reader: r.command("GET", "k") == expected, 3, "the swap")
            self.assertLess(time.monotonic(), end)

    def test_without_a_swapdb_none_is_counted(self):
        self.direct.command("SWAPDB", "2", "3")
        directory = tempfile.mkdtemp(dir=self.directory)
        nearkey = Nearkey(directory, self.server.url, settings=self.settings)
        self.addCleanup(nearkey.kill)
        nearkey.start()
        self.addCleanup(nearkey.stop)
        swaps = "nearkey_near_cache_clears_swapdb_total"
        reader = nearkey.client()
        self.addCleanup(reader.close)
        store(nearkey, reader, "GET", "k")
        self.heartbeats(4)
        self.assertEqual(0, nearkey.metric(swaps))
        self.direct.command("CLIENT", "KILL", "TYPE", "normal")
        wait_for(lambda: nearkey.metric("nearkey_near_cache_clears_lost_total") > 0, 5, "the loss")
        nearkey.wait_ready()
        store(nearkey, reader, "GET", "k")
        self.heartbeats(4)
        self.assertEqual(0, nearkey.metric(swaps))

    def test_row_51_what_has_expired_is_not_served_though_the_server_keeps_it(self):
        self.direct.command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        self.addCleanup(self.server.run, "DEBUG", "SET-ACTIVE-EXPIRE", "1")
        for reader in self.readers:
            self.direct.command("SET", "short", "1", "PX", str(400 * SLOWNESS))
            self.store(reader, "GET", "short")
            self.assertEqual(b"$1\r\n1\r\n", reader.command("GET", "short"))
            # Valkey serves a key through the whole millisecond that PEXPIRETIME names.
            end = (self.direct.value("PEXPIRETIME", "short") + 1) / 1000
            wait_for(lambda e=end: time.time() > e, 5, "its time is over")
            self.assertIn(reader.command("GET", "short"), (b"$-1\r\n", b"_\r\n"))


if __name__ == "__main__":
    unittest.main()
