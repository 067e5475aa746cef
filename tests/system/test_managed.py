"""`managed:`: a private valkey-server as a child, watched, restarted, and never orphaned."""

import os
import signal
import time
import unittest

from harness import SLOWNESS, Nearkey, SystemTest, proxy_only, wait_for
from procfs import children, fds, is_alive

PONG = b"+PONG\r\n"


def tcp_listeners():
    """The inodes of all listening TCP sockets."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as rows:
            inodes |= {row.split()[9] for row in list(rows)[1:] if row.split()[3] == "0A"}
    return inodes


@proxy_only
class ManagedTest(SystemTest):
    def start(self, **settings):
        self.nearkey = self.start_nearkey("managed:", settings=settings)
        self.client = self.nearkey.client()
        self.addCleanup(self.client.close)

    def child(self):
        pids = children(self.nearkey.pid)
        self.assertEqual(1, len(pids), pids)
        return pids[0]

    def test_a_private_server_on_a_unix_socket_only(self):
        self.start(**{"managed.memory": "64MiB"})
        self.assertEqual(b"+OK\r\n", self.client.command("SET", "k", "v"))
        with open(f"/proc/{self.child()}/comm") as comm:
            self.assertRegex(comm.read(), "^(valkey|redis)-server")
        sockets = set()
        for fd in fds(self.child()):
            link = os.readlink(f"/proc/{self.child()}/fd/{fd}")
            sockets |= {link[len("socket:[") : -1]} if link.startswith("socket:[") else set()
        self.assertTrue(sockets)
        self.assertEqual(set(), sockets & tcp_listeners(), "the private server listens on TCP")
        settings = {
            name: self.client.value("CONFIG", "GET", name)[1]
            for name in ("save", "appendonly", "maxmemory-policy", "maxmemory", "port")
        }
        self.assertEqual(
            {
                "save": b"",
                "appendonly": b"no",
                "maxmemory-policy": b"allkeys-lru",
                "maxmemory": b"%d" % (64 << 20),
                "port": b"0",
            },
            settings,
        )

    def test_it_is_the_default_where_nothing_is_named(self):
        nearkey = self.start_nearkey(None)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        self.assertEqual(1, len(children(nearkey.pid)))

    def test_it_ends_with_us(self):
        self.start()
        child = self.child()
        self.client.command("SET", "k", "v")
        self.nearkey.stop()
        self.assertFalse(is_alive(child))
        left = [name for name in os.listdir(self.directory) if name != "nearkey"]
        self.assertEqual([], [name for name in left if name.endswith((".sock", ".rdb", ".aof"))])

    def test_it_ends_with_us_even_on_sigkill(self):
        nearkey = Nearkey(self.directory, "managed:")
        self.addCleanup(nearkey.kill)
        nearkey.start()
        pids = children(nearkey.pid)
        self.assertEqual(1, len(pids))
        nearkey.kill()
        wait_for(lambda: not is_alive(pids[0]), 2, "the private server is gone")
        again = self.start_nearkey(
            "managed:"
        )  # What the first one left in the way must not stop the second.
        with again.client() as client:
            self.assertEqual(PONG, client.command("PING"))

    def test_it_is_restarted_when_it_dies(self):
        self.start()
        for _ in range(2):
            child = self.child()
            os.kill(child, signal.SIGKILL)
            wait_for(
                lambda: children(self.nearkey.pid) not in ([], [child]),
                5,
                "a new server was started",
            )
            self.nearkey.wait_ready(5)
            wait_for(lambda: self.client.command("PING") == PONG, 3, "it is answered again")

    def test_a_server_that_can_not_be_started_is_retried_with_backoff(self):
        nearkey = self.start_nearkey(
            "managed:", ready=False, settings={"managed.server": "/bin/false"}
        )
        nearkey.wait_unready()
        time.sleep(1)  # Backoff shows only over time.
        self.assertEqual(200, nearkey.get("/livez")[0])
        self.assertFalse(os.path.exists(nearkey.path))
        self.assertLess(len(nearkey.logs()), 15, nearkey.lines)
        nearkey.stop(3)

    def test_a_frozen_private_server_does_not_keep_us_from_ending(self):
        self.start()
        child = self.child()
        os.kill(child, signal.SIGSTOP)
        begin = time.monotonic()
        self.nearkey.stop(8)
        self.assertLess(time.monotonic() - begin, 7 * SLOWNESS)
        wait_for(lambda: not is_alive(child), 2, "the private server is gone")


if __name__ == "__main__":
    unittest.main()
