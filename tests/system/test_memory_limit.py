"""faults.md row 64: near the end of the memory that nearkey may use the near cache goes first, then new
clients are refused; nobody who is connected is lost."""

import os
import resource
import subprocess
import time
import unittest

from harness import SLOW, Nearkey, SystemTest, proxy_only, wait_for
from near_cache import store
from resp import encode

PONG = b"+PONG\r\n"
SHEDS = "nearkey_memory_sheds_total"
SHORT = "nearkey_memory_short"
ENTRIES = "nearkey_near_cache_entries"


def address_space(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def settled_address_space(pid):
    seen = []

    def same():
        seen.append(address_space(pid))
        time.sleep(0.1)
        return len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

    wait_for(same, 10, "memory is given back")
    return seen[-1]


@proxy_only
@unittest.skipIf(SLOW, "a sanitizer takes all of the address space")
class MemoryLimitTest(SystemTest):
    def limit(self, nearkey, count):
        resource.prlimit(nearkey.pid, resource.RLIMIT_AS, (count, resource.RLIM_INFINITY))

    def test_row_64_the_near_cache_goes_first_then_new_clients_are_refused(self):
        """faults.md row 64, with RLIMIT_AS (`prlimit --as`)."""
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"near_cache.memory": "256MiB"})
        client = nearkey.client()
        self.addCleanup(client.close)
        before = address_space(nearkey.pid)
        store(nearkey, client, "GET", "k")
        for number in range(2000):
            server.run("SET", f"k{number}", b"v" * 60000)
        client.pipeline([("GET", f"k{number}") for number in range(2000)])
        wait_for(lambda: nearkey.metric(ENTRIES) >= 1000, 10, "the near cache is filled")
        # What the replies took on their way is given back.
        wait_for(lambda: nearkey.metric("nearkey_client_memory_bytes") < 1 << 20, 10, "all is sent")
        full = settled_address_space(nearkey.pid)
        self.assertGreater(full, before + (50 << 20))
        # The near cache is what makes it too much.
        self.limit(nearkey, full)
        wait_for(lambda: nearkey.metric(SHEDS) > 0, 10, "the near cache was given up")
        self.assertEqual(0, nearkey.metric(ENTRIES))
        nearkey.wait_logged("memory_shed")
        freed = address_space(nearkey.pid)
        self.assertLess(freed, full - (50 << 20))
        # Now it is too much without it.
        self.limit(nearkey, freed + (1 << 20))
        wait_for(lambda: nearkey.metric(SHORT) == 1, 10, "memory is short")
        with nearkey.client() as refused:
            self.assertIn(b"-ERR nearkey has no memory left", refused.read_to_end()[0])
        self.assertGreater(nearkey.metric("nearkey_clients_refused_memory_total"), 0)
        self.assertEqual(PONG, client.command("PING"))
        self.assertEqual(b"v" * 60000, client.value("GET", "k7"))
        # It is over when there is room again.
        self.limit(nearkey, resource.RLIM_INFINITY)
        wait_for(lambda: nearkey.metric(SHORT) == 0, 10, "memory is enough")
        with nearkey.client() as welcome:
            self.assertEqual(PONG, welcome.command("PING"))
        store(nearkey, client, "GET", "k1")

    def test_row_64_an_allocation_that_fails_is_said(self):
        """faults.md row 64: what can't be had at once ends nearkey with a line, not in silence."""
        server = self.start_server()
        nearkey = Nearkey(self.directory, server.url)
        self.addCleanup(nearkey.kill)
        nearkey.start()
        client = nearkey.client()
        self.addCleanup(client.close)
        self.assertEqual(PONG, client.command("PING"))
        self.limit(nearkey, address_space(nearkey.pid))
        try:
            for _ in range(64):
                client.send(encode("SET", "k", b"x" * (8 << 20)))
        except OSError:
            pass
        nearkey.process.wait(30)
        wait_for(
            lambda: any("nearkey:" in line for line in list(nearkey.lines)), 5, "it says why"
        )


@proxy_only
class FullDiskTest(SystemTest):
    def test_row_63_a_full_tmpfs_under_the_log(self):
        """faults.md row 63: lines that do not fit are dropped and counted."""
        server = self.start_server()
        folder = os.path.join(self.directory, "log")
        os.mkdir(folder)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True
        )
        if mounted.returncode != 0:
            self.skipTest("may not mount here")
        self.addCleanup(subprocess.run, ["umount", "-l", folder])
        with open(os.path.join(folder, "filler"), "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        with open(os.path.join(folder, "nearkey.log"), "wb") as log:
            nearkey = Nearkey(self.directory, server.url)
            self.addCleanup(nearkey.kill)
            nearkey.start(stderr=log)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        self.assertGreater(nearkey.metric("nearkey_log_dropped_total"), 0)
        nearkey.stop()


if __name__ == "__main__":
    unittest.main()
