"""Memory of 1,000,000 stored values of 100 bytes, beside what valkey-server needs for the same."""

import os
import unittest

from harness import SystemTest, proxy_only
from processes import wait_for
from resp import encode, parse

KEYS = 1_000_000
BATCH = 5000
VALUE = b"x" * 100


def resident(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def pipeline(client, make, expected):
    """One command for each key, in pieces of BATCH; every reply is `expected`."""
    for first in range(0, KEYS, BATCH):
        client.send(b"".join(make(b"key:%012d" % key) for key in range(first, first + BATCH)))
        want = expected * BATCH
        while len(client.buffer) < len(want):
            assert client.receive_some(), "closed"
        assert client.buffer == want, bytes(client.buffer[:80])
        client.buffer.clear()


@proxy_only
@unittest.skipIf(os.environ.get("NEARKEY_TEST_SLOW") == "1", "a sanitizer has its own allocator")
class NearCacheMemoryTest(SystemTest):
    def test_an_entry_needs_less_than_in_the_server_and_is_swept(self):
        server = self.start_server()
        direct = server.client()
        self.addCleanup(direct.close)
        server_before = resident(server)
        pipeline(direct, lambda key: encode("SET", key, VALUE), b"+OK\r\n")
        server_bytes = (resident(server) - server_before) / KEYS
        lines = dict(line.split(":") for line in parse(direct.command("INFO", "memory")).decode()
                     .split("\r\n") if ":" in line)
        dataset = int(lines["used_memory_dataset"]) / KEYS

        nearkey = self.start_nearkey(server.url, settings={"near_cache.memory": "1GiB",
                                                          "near_cache.max_age_ms": "3600000"})
        client = nearkey.client()
        self.addCleanup(client.close)
        before = resident(nearkey)
        wait_for(lambda: nearkey.metric("nearkey_near_cache_tracking") == 1, 5, "tracking")
        # Twice: what the first time came too early to be stored is stored the second time.
        for _ in range(2):
            pipeline(client, lambda key: encode("GET", key), b"$100\r\n%s\r\n" % VALUE)
        self.assertEqual(KEYS, nearkey.metric("nearkey_near_cache_entries"))
        ours = (resident(nearkey) - before) / KEYS
        accounted = nearkey.metric("nearkey_near_cache_bytes") / KEYS
        print(f"\nbytes per entry of {len(VALUE)}: nearkey {ours:.1f} resident, {accounted:.1f} "
              f"accounted; valkey-server {server_bytes:.1f} resident, {dataset:.1f} "
              "used_memory_dataset")
        self.assertLess(ours, server_bytes)
        self.assertLess(abs(ours - accounted), ours / 10)
        # A bounded number a beat, so that all of them take longer than a test should.
        direct.command("FLUSHALL")
        wait_for(lambda: nearkey.metric("nearkey_near_cache_entries") < KEYS * 0.97, 20, "a sweep")
        self.assertEqual(b"$-1\r\n", client.command("GET", "key:%012d" % (KEYS - 1)))
        self.assertLess(nearkey.metric("nearkey_near_cache_bytes"), accounted * KEYS * 0.98)


if __name__ == "__main__":
    unittest.main()
