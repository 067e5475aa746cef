"""near_cache.audit_ratio: hits are compared with a real server's replies while others write."""

import os
import random
import threading
import unittest

from harness import SystemTest, proxy_only, wait_for
from processes import BINARY, Nearkey

SABOTAGED = os.path.join(os.path.dirname(os.path.dirname(BINARY)), "build", "nearkey_sabotaged")
KEYS = [f"audit:{i}" for i in range(50)]
READS = 5000


@proxy_only
class AuditTest(SystemTest):
    def world(self, ratio=1, binary=BINARY, environment=None):
        self.server = self.start_server()
        self.direct = self.server.client()
        self.addCleanup(self.direct.close)
        self.nearkey = Nearkey(
            self.directory,
            self.server.url,
            settings={"near_cache.audit_ratio": ratio, "near_cache.thrash_guard": "false"},
            environment=environment,
        )
        self.nearkey.command[0] = binary
        self.addCleanup(self.nearkey.kill)
        self.nearkey.start()
        self.addCleanup(self.nearkey.stop)
        self.client = self.nearkey.client()
        self.addCleanup(self.client.close)

    def metric(self, name):
        return self.nearkey.metric(f"nearkey_near_cache_{name}")

    def write_until(self, stop, client, seed):
        """Now strings, now sets, so that what is stored may be of the wrong type, too."""
        choices = random.Random(seed)
        while not stop.is_set():
            key = choices.choice(KEYS)
            if choices.random() < 0.2:
                client.pipeline([("DEL", key), ("SADD", key, *(str(i) for i in range(20)))])
            else:
                client.command("SET", key, str(choices.random()))

    def read_beside_writers(self, count):
        """So many reads while one writes directly and one through nearkey."""
        stop = threading.Event()
        writers = []
        for seed, process in enumerate((self.server, self.nearkey)):
            client = process.client()
            self.addCleanup(client.close)
            writers.append(
                threading.Thread(target=self.write_until, args=(stop, client, seed), daemon=True)
            )
        for writer in writers:
            writer.start()
        try:
            choices = random.Random(7)
            for _ in range(count):
                key = choices.choice(KEYS)
                for _ in range(3):
                    self.client.command("GET", key)
                    self.client.command("SMEMBERS", key)
        finally:
            stop.set()
            for writer in writers:
                writer.join()

    def test_beside_writers_nothing_is_a_violation(self):
        self.world()
        self.read_beside_writers(READS)
        self.assertGreater(self.metric("hits_total"), 1000)
        self.assertGreater(self.metric("audits_total"), 100)
        self.assertEqual(0, self.metric("audit_violations_total"))
        self.assertFalse([line for line in self.nearkey.lines if "near_cache_violation" in line])

    def test_by_default_nothing_is_audited(self):
        self.world(ratio=0)
        self.direct.command("SET", "k", "1")

        def has_hits():
            self.client.command("GET", "k")
            return self.metric("hits_total") > 100

        wait_for(has_hits, 10, "hits")
        self.assertEqual(0, self.metric("audits_total"))

    @unittest.skipUnless(os.path.exists(SABOTAGED), "nearkey_sabotaged is not built")
    def test_lost_news_is_found(self):
        self.world(binary=SABOTAGED, environment={"NEARKEY_SABOTAGE": "push"})

        def is_found():
            self.direct.pipeline([("INCR", key) for key in KEYS])
            # One read stores what is missing, the others hit.
            for key in 3 * KEYS:
                self.client.command("GET", key)
            return self.metric("audit_violations_total") > 0

        wait_for(is_found, 60, "a violation")
        self.nearkey.wait_logged("near_cache_violation")


if __name__ == "__main__":
    unittest.main()
