"""The largest value that Valkey takes, both ways, and what others feel of it (traps.md, S5)."""

import os
import threading
import time
import unittest

from harness import SLOW, SLOWNESS, SystemTest, proxy_only, wait_for
from leases import wait_leased
from procfs import rss_bytes
from resp import encode

MEGABYTE = 1 << 20
PONG = b"+PONG\r\n"


def size_that_fits():
    """512 MiB where there is memory for it: the server, nearkey and both sockets hold copies."""
    with open("/proc/meminfo") as meminfo:
        fields = dict(line.split(":") for line in meminfo)
    available = int(fields["MemAvailable"].split()[0]) << 10
    return 512 * MEGABYTE if available > 8 << 30 and not SLOW else 128 * MEGABYTE


class Bystander(threading.Thread):
    """Asks for a small value, again and again, until it is stopped."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client = client
        self.times = []
        self.wrong = None
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set() and self.wrong is None:
            begin = time.monotonic()
            reply = self.client.command("GET", "small", timeout=60)
            self.times.append(time.monotonic() - begin)
            if reply != b"$5\r\nvalue\r\n":
                self.wrong = reply

    def percentile_99(self):
        self.over.set()
        self.join(60)
        assert self.wrong is None, self.wrong
        assert len(self.times) > 0, "nothing was answered"
        return sorted(self.times)[len(self.times) * 99 // 100]


@proxy_only
class BigValueTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.server.run("SET", "small", "value")
        self.nearkey = self.start_nearkey(
            self.server.url,
            settings={"upstream.connections": 1, "upstream.request_timeout_ms": 60_000},
        )
        self.size = size_that_fits()
        self.block = os.urandom(MEGABYTE)
        self.p99 = {}

    def client(self, address=None):
        client = self.nearkey.client() if address is None else self.server.client()
        self.addCleanup(client.close)
        return client

    def set_big(self, client, key="big"):
        self.send_set(client, key)
        self.assertEqual(b"+OK\r\n", client.read_reply(120))

    def send_set(self, client, key):
        header = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n"
        client.send(header % (len(key), key.encode(), self.size))
        for _ in range(self.size // MEGABYTE):
            client.send(self.block)
        client.send(b"\r\n")

    def get_big(self, client, key="big", begun=lambda: None):
        """Every byte is looked at, none is kept. Calls `begun` when some MiB are there."""
        client.send(encode("GET", key))
        client.socket.settimeout(120)
        stream = client.socket.makefile("rb", MEGABYTE)
        self.assertEqual(b"$%d\r\n" % self.size, stream.readline())
        for number in range(self.size // MEGABYTE):
            if number == 8:
                begun()
            self.assertTrue(self.block == stream.read(MEGABYTE), f"the {number}th MiB is wrong")
        self.assertEqual(b"\r\n", stream.read(2))

    def measure(self, name, bystander, work, *args):
        """How long the work takes, and the p99 of another client meanwhile."""
        watch = Bystander(bystander)
        watch.start()
        begin = time.monotonic()
        work(*args)
        took = time.monotonic() - begin
        self.p99[name] = watch.percentile_99()
        self.tell(name, took, watch)
        return took

    def tell(self, name, took, watch):
        print(
            f"\n{name} of {self.size >> 20} MiB: {took:.2f} s; {len(watch.times)} GETs of others: "
            f"p99 {self.p99[name] * 1e3:.2f} ms, worst {max(watch.times) * 1e3:.0f} ms",
            end="",
        )

    def test_trap_S5_the_largest_value_both_ways_beside_a_small_one(self):
        client, direct = self.client(), self.client(self.server.path)
        self.measure("direct SET", self.client(self.server.path), self.set_big, direct)
        self.measure("SET", self.client(), self.set_big, client)
        self.measure("direct GET", self.client(self.server.path), self.get_big, direct)
        took = self.measure("GET", self.client(), self.get_big, client)
        self.assertLess(self.p99["SET"], 4 * self.p99["direct SET"] + 0.1 * SLOWNESS)
        # Replies on a shared connection come one after the other: what was asked for behind a large
        # one waits for all of it, and for no more.
        self.assertLess(self.p99["GET"], took + 0.2 * SLOWNESS)
        self.assertEqual(PONG, client.command("PING"))
        wait_leased(self.nearkey, 0)

    def test_trap_S5_who_asks_while_a_large_reply_is_under_way_does_not_wait_for_it(self):
        self.set_big(self.client(self.server.path))
        client, other = self.client(), self.client()
        other.command("PING")
        watch = Bystander(other)
        begin = time.monotonic()
        self.get_big(client, begun=watch.start)
        self.p99["GET, asked later"] = watch.percentile_99()
        self.tell("GET, asked later", time.monotonic() - begin, watch)
        self.assertLess(self.p99["GET, asked later"], 0.1 * SLOWNESS)

    def test_a_large_value_keeps_its_place_in_a_pipeline(self):
        self.size = 32 * MEGABYTE
        client = self.client()
        client.send(encode("SET", "order", "before") + encode("GET", "order"))
        self.send_set(client, "order")
        client.send(encode("GET", "order") + encode("STRLEN", "order"))
        self.assertEqual(
            [b"+OK\r\n", b"$6\r\nbefore\r\n", b"+OK\r\n", b":%d\r\n" % self.size],
            [*client.read_replies(3, 60), *self.skip_value(client)],
        )
        self.assertEqual(PONG, client.command("PING"))

    def skip_value(self, client):
        value, length = client.read_replies(2, 60)
        head = b"$%d\r\n" % self.size
        self.assertTrue(value == head + self.block * (self.size // MEGABYTE) + b"\r\n")
        return [length]

    def test_memory_is_given_back_after_large_values(self):
        self.size = 64 * MEGABYTE
        client = self.client()
        client.command("PING")
        before = rss_bytes(self.nearkey.pid)
        for turn in range(3):
            self.set_big(client, f"big{turn}")
            self.get_big(self.client(), f"big{turn}")
        wait_for(
            lambda: self.nearkey.metric("nearkey_client_memory_bytes") < 4 * MEGABYTE,
            10,
            "the buffers of clients are small again",
        )
        if not SLOW:
            wait_for(
                lambda: rss_bytes(self.nearkey.pid) - before < 48 * MEGABYTE,
                10,
                "memory is given back",
            )

    def test_who_leaves_in_the_middle_of_a_large_value_leaves_nothing(self):
        self.size = 64 * MEGABYTE
        client = self.client()
        self.set_big(client)
        for _ in range(3):
            half = self.client()
            half.send(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$%d\r\n" % self.size)
            half.send(self.block * 20)
            half.close()
            reader = self.client()
            reader.send(encode("GET", "big"))
            self.assertTrue(reader.receive_some())
            reader.close()
            self.assertEqual(b"$5\r\nvalue\r\n", client.command("GET", "small", timeout=60))
        self.assertEqual(b":0\r\n", client.command("EXISTS", "half"))
        wait_for(
            lambda: self.nearkey.metric("nearkey_client_memory_bytes") < 4 * MEGABYTE, 10, "memory"
        )
        wait_leased(self.nearkey, 0)


if __name__ == "__main__":
    unittest.main()
