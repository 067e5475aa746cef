"""Many subscribers, slow ones, and the end of nearkey or of the server under them (faults.md,
rows 2, 22, 37, 59)."""

import time
import unittest

from harness import SLOW, SLOWNESS, SystemTest, proxy_only, wait_for
from leases import wait_leased
from procfs import rss_bytes
from resp import encode, parse

PONG = b"+PONG\r\n"
MEGABYTE = 1 << 20


def times_of_small_gets(client, count):
    times = []
    for _ in range(count):
        begin = time.monotonic()
        assert client.command("GET", "small") == b"$1\r\nv\r\n"
        times.append(time.monotonic() - begin)
    return times


def percentile_99(times):
    return sorted(times)[len(times) * 99 // 100]


@proxy_only
class SubscribersTest(SystemTest):
    def start(self, *server_args, **settings):
        self.server = self.start_server(*server_args)
        self.nearkey = self.start_nearkey(self.server.url, settings=settings)

    def client(self, **options):
        client = self.nearkey.client(**options)
        self.addCleanup(client.close)
        return client

    def subscribers(self, count, channel="c"):
        clients = [self.client() for _ in range(count)]
        for client in clients:
            client.send(encode("SUBSCRIBE", channel))
        for client in clients:
            self.assertEqual([b"subscribe", channel.encode(), 1], parse(client.read_reply()))
        return clients

    def test_three_hundred_subscribers_get_one_message_each(self):
        self.start(**{"upstream.dedicated_max": 400})
        clients = self.subscribers(300)
        self.assertEqual(300, self.nearkey.metric("nearkey_upstream_tunnels"))
        for turn in range(3):
            self.assertEqual(300, self.client().value("PUBLISH", "c", turn))
            for client in clients:
                self.assertEqual([b"message", b"c", b"%d" % turn], parse(client.read_reply()))
        for client in clients:
            self.assertEqual(b"", bytes(client.buffer), "a message came twice")
            client.close()
        wait_leased(self.nearkey, 0)
        wait_for(lambda: self.server.run("PUBSUB", "NUMSUB", "c") == [b"c", 0], 5, "all are gone")

    def test_row_37_a_slow_subscriber_is_closed_and_costs_the_others_nothing(self):
        self.start(**{"limits.output_per_client_high_water": MEGABYTE})
        limit = "client-output-buffer-limit", "pubsub 1mb 0 0"
        self.assertEqual(b"OK", self.server.run("CONFIG", "SET", *limit))
        self.server.run("SET", "small", "v")
        other, fast = self.client(), self.subscribers(1)[0]
        before = percentile_99(times_of_small_gets(other, 1000))
        slow = self.client(receive_buffer=4096)
        slow.command("SUBSCRIBE", "c")
        memory = rss_bytes(self.nearkey.pid)
        message, worst, sent, times = "x" * 100_000, 0, 0, []
        while self.server.run("PUBSUB", "NUMSUB", "c")[1] == 2:
            self.server.run("PUBLISH", "c", message)
            self.assertEqual(b"message", parse(fast.read_reply())[0])
            worst = max(worst, rss_bytes(self.nearkey.pid) - memory)
            sent += 1
            self.assertLess(sent, 1000, "the server never gives the slow one up")
            times += times_of_small_gets(other, 50)
        during = percentile_99(times)
        print(f"\nslow subscriber: closed after {sent} messages, {worst >> 20} MiB, GET p99 "
              f"{before * 1e6:.0f} us before, {during * 1e6:.0f} us during")  # fmt: skip
        if not SLOW:
            self.assertLess(worst, 32 * MEGABYTE)
        self.assertLess(during, 2 * before + 0.005 * SLOWNESS)
        data, _ = slow.read_to_end()
        self.assertLess(len(data), sent * len(message))
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == 2, 5, "it is closed")
        wait_leased(self.nearkey, 1)
        self.server.run("PUBLISH", "c", "after")
        self.assertEqual(b"after", parse(fast.read_reply())[2])

    def test_row_37_a_subscriber_that_is_slow_for_a_while_loses_nothing(self):
        self.start(**{"limits.output_per_client_high_water": MEGABYTE})
        (client,) = self.subscribers(1)
        self.server.run("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
        paused = "nearkey_clients_paused_output_total"
        sent = 0
        while self.nearkey.metric(paused) == 0 or sent < 300:
            self.server.run("PUBLISH", "c", f"{sent}:" + "x" * 50_000)
            sent += 1
            self.assertLess(sent, 2000, "it is never paused")
        for number in range(sent):
            text = parse(client.read_reply(60))[2]
            self.assertEqual(f"{number}:".encode(), text[: text.index(b"x")])
        self.assertEqual(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", client.command("PING"))

    def test_row_22_large_replies_in_a_tunnel_to_a_client_that_reads_slowly(self):
        self.start(**{"limits.output_per_client_high_water": MEGABYTE})
        client = self.client(receive_buffer=4096)
        client.command("CLIENT", "NO-TOUCH", "ON")
        client.command("SET", "k", "x" * MEGABYTE)
        memory = rss_bytes(self.nearkey.pid)
        client.send(encode("GET", "k") * 50)
        wait_for(
            lambda: self.nearkey.metric("nearkey_clients_paused_output_total") > 0, 10, "a pause"
        )
        if not SLOW:
            self.assertLess(rss_bytes(self.nearkey.pid) - memory, 32 * MEGABYTE)
        for _ in range(50):
            self.assertEqual(b"x" * MEGABYTE, parse(client.read_reply(60)))
        self.assertEqual(PONG, client.command("PING"))

    def test_row_59_sigterm_with_subscribers_ends_at_once(self):
        """They wait for nothing that could still come in time, so nobody waits for them."""
        self.start(**{"server.drain_timeout_ms": 3_600_000})
        clients = self.subscribers(50)
        blocked = self.client()
        blocked.send(encode("CLIENT", "ID") + encode("PING"))
        blocked.read_replies(2)
        monitor = self.client()
        monitor.command("MONITOR")
        self.nearkey.stop()
        for client in [*clients, blocked]:
            self.assertEqual((b"", "eof"), client.read_to_end())
        self.assertEqual("eof", monitor.read_to_end()[1])
        wait_for(lambda: self.server.clients() == [], 5, "nothing is left at the server")

    def test_row_59_sigterm_delivers_what_a_tunnel_owes(self):
        """Commands in a tunnel that are on their way are answered before the end."""
        self.start(**{"server.drain_timeout_ms": 3_600_000})
        client = self.client()
        client.command("CLIENT", "NO-TOUCH", "ON")
        self.server.freeze()
        forwarded = self.nearkey.metric("nearkey_commands_forwarded_total")
        client.send(encode("INCR", "n") * 100)
        wait_for(
            lambda: self.nearkey.metric("nearkey_commands_forwarded_total") == forwarded + 100,
            5,
            "they are on their way",
        )
        self.nearkey.signal(15)
        self.nearkey.wait_logged("draining")
        self.server.thaw()
        data, _ = client.read_to_end()
        self.assertEqual(b"".join(b":%d\r\n" % n for n in range(1, 101)), data)
        self.nearkey.stop()

    def test_row_2_subscribers_of_a_server_that_is_killed_are_closed(self):
        self.start()
        clients = self.subscribers(50)
        self.server.kill()
        for client in clients:
            self.assertEqual((b"", "eof"), client.read_to_end())
        wait_leased(self.nearkey, 0)
        self.server.start()
        self.nearkey.wait_ready()
        again = self.subscribers(50)
        self.assertEqual(50, self.server.run("PUBLISH", "c", "m"))
        for client in again:
            self.assertEqual(b"m", parse(client.read_reply())[2])

    def test_row_2_entering_a_tunnel_while_the_server_is_away_is_an_error_and_no_end(self):
        self.start(**{"upstream.queue_timeout_ms": 200 * SLOWNESS})
        client = self.client()
        client.command("PING")
        self.server.kill()
        self.nearkey.wait_unready()
        for command in (("SUBSCRIBE", "c"), ("AUTH", "a", "b"), ("MONITOR",), ("CLIENT", "ID")):
            self.assertTrue(client.command(*command).startswith(b"-UPSTREAMDOWN "), command)
            wait_leased(self.nearkey, 0)
        self.server.start()
        self.nearkey.wait_ready()
        self.assertEqual([b"subscribe", b"c", 1], client.value("SUBSCRIBE", "c"))

    def test_tunnels_come_and_go_and_nothing_is_left(self):
        """Descriptors, leases and the server's connections: as many as before."""
        self.start()
        self.client().command("PING")
        for _ in range(20):
            clients = self.subscribers(25)
            for number, client in enumerate(clients):
                if number % 3 == 0:
                    client.send(encode("RESET") + encode("PING"))
                    self.assertEqual([b"+RESET\r\n", PONG], client.read_replies(2))
                elif number % 3 == 1:
                    client.send(encode("SUBSCRIBE", "d") + b"*1\r\n$4\r\nPI")
                client.close()
            wait_leased(self.nearkey, 0)
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_tunnels"))
        wait_for(lambda: len(self.server.clients()) <= 1 + 8, 5, "the connections are closed")


if __name__ == "__main__":
    unittest.main()
