"""Keys that are read here only must not look idle to a server that evicts what is idle."""

import unittest

from harness import SystemTest, proxy_only, wait_for

HOT = [f"hot:{i}" for i in range(20)]
OTHERS = 2000
MORE = 500
SIZE = 1000


@proxy_only
class TouchTest(SystemTest):
    def world(self, touch):
        self.server = self.start_server(
            "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--maxmemory-samples", "64"
        )
        self.direct = self.server.client()
        self.addCleanup(self.direct.close)
        self.nearkey = self.start_nearkey(self.server.url, settings={"near_cache.touch": touch})
        self.client = self.nearkey.client()
        self.addCleanup(self.client.close)
        if touch == "true":
            wait_for(lambda: self.nearkey.metric("nearkey_near_cache_touching"), 5, "the policy")

    def read_hot(self):
        """Whether all of them were answered from here."""
        before = self.nearkey.metric("nearkey_near_cache_hits_total")
        self.client.pipeline([("GET", key) for key in HOT])
        return self.nearkey.metric("nearkey_near_cache_hits_total") >= before + len(HOT)

    def put(self, prefix, count):
        replies = self.direct.pipeline(
            [("SET", f"{prefix}:{i}", "x" * SIZE) for i in range(count)]
        )
        self.assertEqual({b"+OK\r\n"}, set(replies))

    def idle(self, key):
        return self.direct.value("OBJECT", "IDLETIME", key)

    def read_until_idle(self, key, seconds):
        """Reads what is hot until `key`, which nobody reads, has been idle for so long."""

        def is_idle():
            self.read_hot()
            return self.idle(key) >= seconds

        wait_for(is_idle, 10, f"{key} is idle")

    def survivors(self):
        """First the hot keys are written, then others, which fill the memory and are read by
        nobody; then more: what is evicted for them is what the server holds for idle longest."""
        self.put("hot", len(HOT))
        wait_for(self.read_hot, 5, "the hot keys are stored")
        self.direct.command("SET", "cold", "1")
        self.read_until_idle("cold", 2)
        self.put("other", OTHERS)
        self.read_until_idle("other:0", 3)
        self.hot_idle = max(self.idle(key) for key in HOT)
        used = int(self.direct.value("INFO", "memory").split(b"used_memory:")[1].split()[0])
        self.assertEqual(
            b"+OK\r\n", self.direct.command("CONFIG", "SET", "maxmemory", str(used))
        )
        self.put("more", MORE)
        evicted = self.direct.value("INFO", "stats").split(b"evicted_keys:")[1].split()[0]
        self.assertGreaterEqual(int(evicted), MORE // 2)
        return self.direct.value("EXISTS", *HOT)

    def test_what_is_read_here_is_not_evicted(self):
        self.world("true")
        survivors = self.survivors()
        self.assertLessEqual(self.hot_idle, 1)
        self.assertEqual(len(HOT), survivors)
        self.assertGreater(self.nearkey.metric("nearkey_near_cache_touched_total"), len(HOT))

    def test_without_touch_it_is_the_first_to_be_evicted(self):
        self.world("false")
        survivors = self.survivors()
        self.assertGreaterEqual(self.hot_idle, 4)
        self.assertEqual(0, survivors)
        self.assertEqual(0, self.nearkey.metric("nearkey_near_cache_touched_total"))

    def test_touching_does_not_make_the_server_track(self):
        self.world("true")
        self.put("hot", len(HOT))
        wait_for(self.read_hot, 5, "the hot keys are stored")
        before = self.nearkey.metric("nearkey_near_cache_touched_total")
        wait_for(
            lambda: self.read_hot()
            and self.nearkey.metric("nearkey_near_cache_touched_total") > before + 3 * len(HOT),
            10,
            "several batches",
        )
        stats = self.direct.value("INFO", "stats")
        tracked = int(stats.split(b"tracking_total_keys:")[1].split()[0])
        self.assertEqual(len(HOT), tracked)

    def test_a_refusal_ends_it_with_one_line(self):
        self.world("true")
        self.put("hot", len(HOT))
        self.assertEqual(
            b"+OK\r\n", self.direct.command("ACL", "SETUSER", "default", "-touch")
        )
        wait_for(
            lambda: self.read_hot()
            and self.nearkey.metric("nearkey_near_cache_touching") == 0,
            10,
            "it is off",
        )
        self.nearkey.wait_logged("near_cache_touch_off")
        wait_for(self.read_hot, 5, "all hits")
        lines = [line for line in self.nearkey.lines if "near_cache_touch_off" in line]
        self.assertEqual(1, len(lines))


if __name__ == "__main__":
    unittest.main()
