"""near_cache.stale_if_unavailable_ms: what is served while a real server is away, and after."""

import os
import unittest

from harness import SystemTest, proxy_only, wait_for
from relay import Relay

LONG = 60_000


@proxy_only
class StaleTest(SystemTest):
    def world(self, limit_ms, **settings):
        self.server = self.start_server()
        self.direct = self.server.client()
        self.addCleanup(self.direct.close)
        self.relay = Relay(os.path.join(self.directory, "relay.sock"), self.server.path)
        self.addCleanup(self.relay.close)
        self.nearkey = self.start_nearkey(
            f"unix://{self.relay.path}",
            settings={
                "near_cache.stale_if_unavailable_ms": limit_ms,
                "upstream.request_timeout_ms": 1000,
                **settings,
            },
        )
        self.client = self.nearkey.client()
        self.addCleanup(self.client.close)

    def metric(self, name):
        return self.nearkey.metric(f"nearkey_near_cache_{name}")

    def store(self, *keys):
        for key in keys:
            self.direct.command("SET", key, "old")

            def is_hit():
                before = self.metric("hits_total")
                self.client.command("GET", key)
                return self.metric("hits_total") > before

            wait_for(is_hit, 5, f"{key} is stored")

    def stop_server(self):
        self.server.kill()
        wait_for(lambda: self.metric("stale") == 1, 5, "Valkey is away")

    def test_without_the_option_reads_fail_while_the_server_is_away(self):
        self.world(0)
        self.store("k")
        self.server.kill()
        self.nearkey.wait_unready()
        self.assertTrue(self.client.command("GET", "k").startswith(b"-UPSTREAM"))
        self.assertEqual(0, self.metric("stale_hits_total"))

    def test_a_killed_server(self):
        self.world(LONG)
        self.store("k", "written", "unknown")
        self.stop_server()
        self.assertEqual(b"$3\r\nold\r\n", self.client.command("GET", "k"))
        self.assertEqual(1, self.metric("stale_hits_total"))
        self.assertTrue(self.client.command("GET", "never").startswith(b"-UPSTREAM"))
        # A write whose outcome is an error: from then on nobody knows the value.
        self.assertTrue(self.client.command("SET", "written", "new").startswith(b"-UPSTREAM"))
        self.assertTrue(self.client.command("GET", "written").startswith(b"-UPSTREAM"))
        with self.nearkey.client() as other:
            self.assertTrue(other.command("GET", "written").startswith(b"-UPSTREAM"))
            self.assertEqual(b"$3\r\nold\r\n", other.command("GET", "k"))
        self.assertEqual(503, self.nearkey.ready_status())
        self.nearkey.wait_logged("near_cache_stale")
        # The new server has other data: nothing of the old is served once it has answered.
        self.server.start()
        self.nearkey.wait_ready()
        self.assertEqual(b"$-1\r\n", self.client.command("GET", "k"))
        wait_for(lambda: self.metric("stale") == 0, 5, "Valkey is back")
        self.nearkey.wait_logged("near_cache_fresh")

    def test_explain_says_so(self):
        self.world(LONG)
        self.store("k")
        explain = ("NEARKEY", "EXPLAIN", "GET", "k")
        self.assertIn(b"shared", self.client.command(*explain))
        self.stop_server()
        self.assertIn(b"stale_if_unavailable_ms", self.client.command(*explain))
        other = self.client.command("NEARKEY", "EXPLAIN", "GET", "never")
        self.assertNotIn(b"stale_if_unavailable_ms", other)

    def test_a_write_whose_outcome_is_unknown_is_not_followed_by_the_old_value(self):
        self.world(LONG)
        self.store("k", "j")
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        self.assertTrue(self.client.command("SET", "k", "new").startswith(b"-UPSTREAMTIMEOUT"))
        wait_for(lambda: self.metric("stale") == 1, 5, "Valkey is away")
        wait_for(lambda: self.client.command("GET", "j") == b"$3\r\nold\r\n", 5, "j, stale")
        self.assertTrue(self.client.command("GET", "k").startswith(b"-UPSTREAM"))
        self.server.thaw()
        wait_for(lambda: self.client.command("GET", "k") == b"$3\r\nnew\r\n", 5, "the outcome")

    def test_a_network_that_is_cut_without_a_word(self):
        self.world(LONG)
        self.store("k")
        self.relay.freeze_replies()
        wait_for(lambda: self.metric("stale") == 1, 5, "nothing is heard")
        self.direct.command("SET", "k", "new")

        def is_served_stale():
            before = self.metric("stale_hits_total")
            self.assertEqual(b"$3\r\nold\r\n", self.client.command("GET", "k"))
            return self.metric("stale_hits_total") > before

        wait_for(is_served_stale, 5, "it is served stale")
        self.relay.thaw()
        wait_for(lambda: self.client.command("GET", "k") == b"$3\r\nnew\r\n", 5, "the new value")
        # What has been seen once stays seen.
        for _ in range(50):
            self.assertEqual(b"$3\r\nnew\r\n", self.client.command("GET", "k"))

    def test_it_ends_after_the_limit(self):
        self.world(3000)
        self.store("k")
        self.stop_server()
        self.assertEqual(b"$3\r\nold\r\n", self.client.command("GET", "k"))
        wait_for(
            lambda: self.client.command("GET", "k").startswith(b"-UPSTREAM"), 10, "the limit"
        )

    def test_broadcast_keeps_it_as_well(self):
        self.world(LONG, **{"near_cache.tracking": "broadcast"})
        self.store("k")
        self.stop_server()
        self.assertEqual(b"$3\r\nold\r\n", self.client.command("GET", "k"))


if __name__ == "__main__":
    unittest.main()
