"""What a client, a connection and a burst cost in memory, and that nearkey gives it back.

What is measured is what is written by nobody else: its anonymous pages (smaps_rollup). The figures
are those of docs/performance.md; the bounds leave room for a machine with other pages.
"""

import resource
import time
import unittest

from harness import SLOW, SystemTest, proxy_only, show_figure, wait_for
from resp import encode

KIB = 1 << 10
MIB = 1 << 20
VALUE = b"x" * 100
PAGE = b"y" * (16 * KIB)
PAGE_REPLY = b"$%d\r\n%s\r\n" % (len(PAGE), PAGE)
GIVEN_BACK = "nearkey_memory_given_back_total"
# It looks once a second, and waits for five looks.
GIVE_BACK_S = 20
# Of a burst's memory: what may stay, for malloc's pages are not all empty.
REST_MAX = 5 * MIB
# So that nothing fails while Valkey is stopped.
PATIENT = {"upstream.request_timeout_ms": 120_000, "upstream.tombstone_timeout_ms": 120_000}


def anonymous_bytes(process):
    with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as rollup:
        line = next(line for line in rollup if line.startswith("Anonymous:"))
    return int(line.split()[1]) * KIB


def settled_bytes(process):
    """Its anonymous memory once that has not changed for half a second."""
    seen, since = anonymous_bytes(process), time.monotonic()
    deadline = since + 20
    while time.monotonic() < min(since + 0.5, deadline):
        time.sleep(0.05)
        now = anonymous_bytes(process)
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


@proxy_only
@unittest.skipIf(SLOW, "a sanitizer has its own allocator")
class MemoryTest(SystemTest):
    def start(self, settings=None, server_args=(), **server_options):
        self.server = self.start_server(*server_args, **server_options)
        with self.server.client() as client:
            client.command("SET", "k", VALUE)
            client.command("SET", "page", PAGE)
        self.nearkey = self.start_nearkey(self.server.url, settings={**PATIENT, **(settings or {})})
        # Buffers that all clients share, and code that runs for the first time.
        for client in self.idle_clients(20):
            client.pipeline([("GET", "k"), ("SET", "w", PAGE), ("GET", "page")])
            client.close()
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == 0, 5, "nobody is there")

    def idle_clients(self, count):
        clients = [self.nearkey.client() for _ in range(count)]
        for client in clients:
            self.addCleanup(client.close)
            client.send(encode("PING"))
        for client in clients:
            self.assertEqual(b"+PONG\r\n", client.read_reply())
        return clients

    def receive(self, client, expected):
        received = 0
        while received < expected:
            received += len(client.socket.recv(min(expected - received, MIB)))

    def check_each(self, what, count, before, bytes_max):
        """What each of `count` has cost since `before`."""
        each = (settled_bytes(self.nearkey) - before) / count
        show_figure(f"{what}: {each:.0f} bytes")
        self.assertLess(each, bytes_max, what)
        self.assertGreater(each, 0, what)

    def wait_given_back(self, base, what):
        wait_for(lambda: anonymous_bytes(self.nearkey) < base + REST_MAX, GIVE_BACK_S,
                 f"{what}: {(anonymous_bytes(self.nearkey) - base) / MIB:.1f} MiB stay")
        rest = anonymous_bytes(self.nearkey) - base
        show_figure(f"left after {what}: {rest / KIB:.0f} KiB")

    def wait_without_buffers(self, count):
        """Of its last command a client keeps where the arguments were: some 50 bytes."""
        wait_for(lambda: self.nearkey.metric("nearkey_client_memory_bytes") < count * 100, 10,
                 "no client holds a buffer")

    # --- what each costs ---

    def test_a_client_costs_little_while_idle_and_while_it_waits_for_replies(self):
        for name, is_cached in (("without near cache", "false"), ("with near cache", "true")):
            with self.subTest(name):
                self.start({"near_cache.enabled": is_cached})
                # The first ones take what malloc has left of the start.
                self.idle_clients(300)
                before = settled_bytes(self.nearkey)
                clients = self.idle_clients(1000)
                self.check_each(f"an idle client, {name}", 1000, before, 2.5 * KIB)
                before = settled_bytes(self.nearkey)
                self.server.freeze()
                for number, client in enumerate(clients):
                    keys = (f"{number}:{i}" for i in range(16))
                    client.send(b"".join(encode("GET", key) for key in keys))
                wait_for(lambda: self.nearkey.metric("nearkey_in_flight") >= 16_000, 10, "GETs")
                self.check_each(f"16 GETs in flight, {name}", 1000, before, 10 * KIB)
                self.server.thaw()
                for client in clients:
                    self.receive(client, 16 * len(b"$-1\r\n"))
                    client.close()
                self.nearkey.stop()
                self.server.stop()

    def test_a_client_that_sends_a_large_value_costs_what_it_has_sent(self):
        self.start()
        clients = self.idle_clients(500)
        before = settled_bytes(self.nearkey)
        command = encode("SET", "w", PAGE)
        for client in clients:
            client.send(command[:-1])
        wait_for(lambda: self.nearkey.metric("nearkey_client_memory_bytes") > 500 * len(PAGE), 10,
                 "all but a byte of each value is there")
        self.check_each("16 KiB of a SET, but for its last byte", 500, before, 34 * KIB)
        for client in clients:
            client.send(command[-1:])
        for client in clients:
            self.assertEqual(b"+OK\r\n", client.read_reply())
        self.wait_without_buffers(500)

    def test_a_client_that_takes_no_replies_costs_what_it_has_not_taken(self):
        self.start({"near_cache.enabled": "false"})
        clients = self.idle_clients(200)
        before = settled_bytes(self.nearkey)
        for client in clients:
            client.send(encode("GET", "page") * 30)
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") == 0, 10, "all replies came")
        held = self.nearkey.metric("nearkey_client_memory_bytes") / 200
        self.assertGreater(held, 200 * KIB)  # The kernel has the rest.
        self.check_each(f"replies that are not taken, accounted as {held:.0f}", 200, before,
                        held * 1.1 + 2 * KIB)
        for client in clients:
            self.receive(client, 30 * len(PAGE_REPLY))
        self.wait_without_buffers(200)

    def test_a_connection_to_valkey_costs_little(self):
        for name, tcp in (("Unix", False), ("TCP", True)):
            with self.subTest(name):
                self.start(
                    {"upstream.connections_max": 500, "upstream.dedicated_max": 500},
                    ("--databases", "500"),
                    tcp=tcp,
                )
                clients = self.idle_clients(380)

                def check(kind, *commands):
                    # The first ones take what malloc has left of what was before.
                    for number, client in enumerate(clients):
                        if number == 80:
                            before = settled_bytes(self.nearkey)
                        for command in commands:
                            client.command(*(word.format(number + 1) for word in command))
                    self.check_each(f"a {kind} connection, {name}", 300, before, 6 * KIB)

                check("shared", ("SELECT", "{}"), ("GET", "k"))
                check("dedicated", ("WATCH", "k"))
                self.nearkey.stop()
                self.server.stop()

    # --- what is given back ---

    def burst(self, requests, reply_bytes, clients_count=300):
        """All clients' requests wait at once, then all are answered. How much that took."""
        base = settled_bytes(self.nearkey)
        clients = self.idle_clients(clients_count)
        self.server.freeze()
        for number, client in enumerate(clients):
            client.send(requests(number))
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") > clients_count, 10, "a burst")
        peak = settled_bytes(self.nearkey)
        self.server.thaw()
        for client in clients:
            self.receive(client, reply_bytes)
        self.assertGreater(peak, base + 3 * REST_MAX)
        return base, clients

    def test_who_comes_first_and_leaves_at_once_leaves_nothing(self):
        count = 6000
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most < 2 * count + 100:
            self.skipTest("too few file descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        server = self.start_server()
        self.nearkey = self.start_nearkey(server.url)
        base = anonymous_bytes(self.nearkey)
        clients = [self.nearkey.client() for _ in range(count)]
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == count, 5, "all are there")
        self.assertGreater(anonymous_bytes(self.nearkey), base + REST_MAX)
        for client in clients:
            client.close()
        self.wait_given_back(base, f"{count} clients that came at once")

    def test_large_pipelines_leave_nothing(self):
        self.start()
        kinds = {
            "1,000 SETs each": (lambda number: encode("SET", f"w{number}", VALUE) * 1000, 5 * 1000),
            "1,000 GETs each": (
                lambda number: b"".join(encode("GET", f"{number}:{i}") for i in range(1000)),
                5 * 1000,
            ),
        }
        for name, (requests, reply_bytes) in kinds.items():
            with self.subTest(name):
                base, clients = self.burst(requests, reply_bytes)
                self.wait_given_back(base, f"{name}, clients idle")
                self.assertGreater(self.nearkey.metric(GIVEN_BACK), 0)
                for client in clients:
                    client.close()
                self.wait_given_back(base, f"{name}, clients gone")

    def test_large_values_and_replies_leave_nothing(self):
        self.start()
        base, clients = self.burst(lambda _: encode("SET", "w", PAGE * 2) * 10, 10 * 5)
        self.wait_given_back(base, "10 SETs of 32 KiB each")
        for client in clients:
            client.send(encode("GET", "page") * 40)
        wait_for(lambda: anonymous_bytes(self.nearkey) > base + 3 * REST_MAX, 10, "unread replies")
        for client in clients:
            self.receive(client, 40 * len(PAGE_REPLY))
        self.wait_given_back(base, "40 replies of 16 KiB each, unread for a while")

    def test_leases_and_tunnels_leave_nothing(self):
        self.start({"upstream.dedicated_max": 1000})
        base = settled_bytes(self.nearkey)
        clients = self.idle_clients(400)
        for number, client in enumerate(clients):
            client.command("SUBSCRIBE", "c") if number % 2 else client.command("WATCH", "k")
            client.send(b"".join(encode("PUBLISH", "other", PAGE[:1000]) for _ in range(50))
                        if number % 2 == 0 else b"")
        for client in clients:
            client.close()
        wait_for(lambda: self.nearkey.metric("nearkey_upstream_dedicated_leased") == 0, 10,
                 "no lease is out")
        self.wait_given_back(base, "400 leases and tunnels")

    def test_a_cleared_near_cache_leaves_nothing(self):
        self.start({"near_cache.memory": "256MiB"})
        keys, batch = 60_000, 5000
        client = self.idle_clients(1)[0]
        wait_for(lambda: self.nearkey.metric("nearkey_near_cache_tracking") == 1, 5, "tracking")
        for clear in (("FLUSHALL",), ("NEARKEY", "CACHE", "CLEAR")):
            with self.subTest(" ".join(clear)):
                base = settled_bytes(self.nearkey)
                with self.server.client() as direct:
                    for first in range(0, keys, batch):
                        direct.pipeline([("SET", f"key:{key}", VALUE * 3)
                                         for key in range(first, first + batch)])

                def fill():
                    for first in range(0, keys, batch):
                        client.pipeline([("GET", f"key:{key}")
                                         for key in range(first, first + batch)])
                    return self.nearkey.metric("nearkey_near_cache_entries") >= keys

                wait_for(fill, 20, "all are stored")
                full = settled_bytes(self.nearkey) - base
                self.assertGreater(full, keys * 300)
                client.command(*clear)
                wait_for(lambda: self.nearkey.metric("nearkey_near_cache_entries") == 0, 40,
                         "the sweep has been everywhere")
                self.wait_given_back(base, f"{' '.join(clear)} of {full / MIB:.0f} MiB")


if __name__ == "__main__":
    unittest.main()
