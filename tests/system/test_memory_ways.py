"""What clients make nearkey hold is bounded by limits.memory_max, whatever it is.

Each way is a row: what clients do that costs them little and nearkey much. What is measured is the
peak of nearkey's resident memory (VmHWM) above what it has while idle.
"""

import time
import unittest
from collections import namedtuple

from harness import EVERY_COMMAND, SLOW, Nearkey, SystemTest, proxy_only, show_figure, wait_for
from resp import encode

MIB = 1 << 20
MEMORY_MAX = 64 * MIB
# docs/operations.md, Limits: code and pages that are used for the first time, malloc's remains, and
# what one turn of the event loop may read.
ALLOWANCE = 40 * MIB
SETTINGS = {
    "limits.memory_max": MEMORY_MAX,
    "near_cache.memory": "1MiB",
    # So that nothing fails while Valkey is stopped.
    "upstream.request_timeout_ms": 120_000,
    "upstream.tombstone_timeout_ms": 120_000,
}


def status_bytes(process, field):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) << 10


def forget_peak(process):
    with open(f"/proc/{process.pid}/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")


# `act` does it; `offered` bytes would be held if nothing were bounded. `frozen`: Valkey is stopped
# meanwhile. `settings` are more of nearkey's.
Way = namedtuple("Way", "name act frozen settings", defaults=(False, {}))
WAYS = []


def way(name, **options):
    def add(act):
        WAYS.append(Way(name, act, **options))
        return act

    return add


# --- replies ---


@way("replies of 1 MiB that nobody reads")
def unread_large_replies(test):
    test.server.run("SET", "large", b"x" * MIB)
    for client in test.clients(3, receive_buffer=4096):
        test.send(client, encode("GET", "large") * 250)


@way("replies of 200 KiB that nobody reads, over a connection that others share")
def unread_replies(test):
    test.server.run("SET", "large", b"x" * (200 << 10))
    for client in test.clients(5, receive_buffer=4096):
        test.send(client, encode("GET", "large") * 700)


@way("one reply of 256 MiB that nobody reads")
def unread_reply(test):
    with test.server.client() as direct:
        for _ in range(4):
            direct.command("APPEND", "huge", b"x" * (64 * MIB))
    test.send(test.client(receive_buffer=4096), encode("GET", "huge"))


@way("published messages that nobody reads")
def unread_messages(test):
    for client in test.clients(200, receive_buffer=4096):
        client.send(encode("SUBSCRIBE", "c"))
        client.read_reply()
    with test.server.client() as direct:
        for _ in range(40):
            direct.command("PUBLISH", "c", b"x" * (100 << 10))


@way("answers of nearkey's own behind a command that waits", frozen=True)
def held_answers(test):
    for client in test.clients(8):
        test.send(client, encode("CLIENT", "SETNAME", b"n" * (4 * MIB)))
        test.send(client, encode("GET", "k") + encode("CLIENT", "GETNAME") * 30)


# --- what is kept of a client ---


@way("names of idle clients")
def names(test):
    name = b"n" * (8 * MIB)
    for client in test.clients(24):
        test.send(client, encode("CLIENT", "SETNAME", name))
        test.send(client, encode("CLIENT", "SETINFO", "LIB-NAME", name))
        test.send(client, encode("CLIENT", "SETINFO", "LIB-VER", name))


@way("names that HELLO gives")
def hello_names(test):
    for client in test.clients(48):
        test.send(client, encode("HELLO", "3", "SETNAME", b"n" * (12 * MIB)))


@way("names that subscribers are subscribed to")
def subscriptions(test):
    for number, client in enumerate(test.clients(200)):
        names = (f"{number}:{i}:" + "n" * 100 for i in range(5000))
        test.send(client, encode("SUBSCRIBE", *names))


@way("keys that are queued in transactions")
def queued_keys(test):
    for client in test.clients(3):
        client.send(encode("MULTI"))
        client.read_reply()
        for number in range(24):
            test.send(client, encode("SET", b"%d" % number + b"k" * (8 * MIB), "v"))


@way("half a command")
def half_commands(test):
    for client in test.clients(8):
        test.send(client, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (100 * MIB) + b"x" * (60 * MIB))


@way("very many arguments of half a command")
def half_arguments(test):
    for client in test.clients(4):
        test.send(client, b"*4000000\r\n$3\r\nDEL\r\n" + b"$0\r\n\r\n" * 3_900_000)


# --- what Valkey is owed ---


@way("GETs of clients that have left", frozen=True)
def left_gets(test):
    for number in range(900):
        with test.client() as client:
            keys = (f"{number}:{i}" for i in range(1000))
            test.send(client, b"".join(encode("GET", key) for key in keys))


@way("SETs of clients that have left", frozen=True)
def left_sets(test):
    for number in range(200):
        with test.client() as client:
            test.send(client, encode("SET", f"k{number}", b"x" * (400 << 10)) * 10)


@way("large keys of reads of clients that have left", frozen=True)
def left_keys(test):
    for number in range(200):
        with test.client() as client:
            for part in range(40):
                test.send(client, encode("GET", f"{number}:{part}" + "k" * (60 << 10)))


@way("GETs in flight", frozen=True, settings={"limits.in_flight_per_client_max": 100_000})
def gets_in_flight(test):
    for number, client in enumerate(test.clients(30)):
        for part in range(30):
            keys = (f"{number}:{part}:{i}" for i in range(1000))
            test.send(client, b"".join(encode("GET", key) for key in keys))


@way("MGETs of many keys in flight", frozen=True)
def mgets_in_flight(test):
    for number, client in enumerate(test.clients(30)):
        keys = [f"{number}:{i}" for i in range(1000)]
        test.send(client, encode("MGET", *keys) * 40)


@way("DELs of very many keys in flight", frozen=True)
def dels_in_flight(test):
    for number, client in enumerate(test.clients(8)):
        for part in range(30):
            keys = b"".join(b"$9\r\n%02d%02d%05d\r\n" % (number, part, i) for i in range(10_000))
            test.send(client, b"*10001\r\n$3\r\nDEL\r\n" + keys)


@way("one DEL of very many keys in flight", frozen=True)
def huge_dels_in_flight(test):
    for number, client in enumerate(test.clients(4)):
        keys = b"".join(b"$9\r\n%02d%07d\r\n" % (number, i) for i in range(700_000))
        test.send(client, b"*700001\r\n$3\r\nDEL\r\n" + keys)


@way("SETs with keys of 60 KiB in flight", frozen=True)
def long_keys_in_flight(test):
    for number, client in enumerate(test.clients(8)):
        for part in range(400):
            test.send(client, encode("SET", f"{number}:{part}:" + "k" * (60 << 10), "v"))


@way("SETs of 8 MiB in flight", frozen=True)
def large_sets_in_flight(test):
    for client in test.clients(20):
        test.send(client, encode("SET", "k", b"x" * (8 * MIB)) * 3)


@way("SETs of 36 MiB in transactions")
def large_sets_in_transactions(test):
    clients = test.clients(3)
    for client in clients:
        client.command("MULTI")
    test.server.freeze()
    for client in clients:
        test.send(client, encode("SET", "k", b"x" * (36 * MIB)))


@way("what tunnels send", frozen=True)
def tunnels_send(test):
    for client in test.tunnels:
        for _ in range(60):
            test.send(client, encode("PUBLISH", "c", b"x" * MIB))


@way("SETs while Valkey is away", settings={"upstream.queue_timeout_ms": 60_000})
def sets_while_away(test):
    test.server.stop()
    for client in test.clients(10):
        test.send(client, encode("SET", "k", b"x" * 100_000) * 100)


@proxy_only
@unittest.skipIf(SLOW, "a sanitizer has its own allocator")
class MemoryWaysTest(SystemTest):
    def client(self, **options):
        client = self.nearkey.client(**options)
        self.addCleanup(client.close)
        return client

    def clients(self, count, **options):
        return [self.client(**options) for _ in range(count)]

    def send(self, client, data):
        """All of it, or as much as nearkey takes within a moment: it may pause or end the client."""
        client.socket.settimeout(0.2 if self.refusals < 5 else 0.005)
        try:
            client.socket.sendall(data)
        except OSError:
            self.refusals += 1

    def start(self, settings):
        self.refusals = 0
        self.server = self.start_server()
        self.nearkey = Nearkey(
            self.directory, self.server.url, settings={**SETTINGS, **EVERY_COMMAND, **settings}
        )
        self.addCleanup(self.nearkey.kill)
        self.nearkey.start()
        # Buffers that all clients share, and code that runs for the first time.
        for client in self.clients(20):
            client.pipeline([("GET", "k"), ("SET", "w", b"x" * 100_000), ("GET", "w")])
            client.close()
        self.tunnels = self.clients(3)
        for client in self.tunnels:
            client.command("HELLO", "3")
            client.command("SUBSCRIBE", "unused")

    def check(self, one):
        self.start(one.settings)
        forget_peak(self.nearkey)
        idle = status_bytes(self.nearkey, "VmRSS")
        if one.frozen:
            self.server.freeze()
        one.act(self)
        time.sleep(1.5)
        peak = status_bytes(self.nearkey, "VmHWM") - idle
        show_figure(f"{one.name}: {peak / MIB:.0f} MiB")
        self.assertLess(peak, MEMORY_MAX + ALLOWANCE)


    def test_a_value_that_fits_goes_through(self):
        self.start({})
        value = b"x" * (36 * MIB)
        client = self.client(timeout=30)
        reader = self.client(timeout=30)
        for commands in ([("SET", "k", value)], [("MULTI",), ("SET", "k", value), ("EXEC",)]):
            for command in commands:
                self.assertNotIn(client.command(*command)[:1], b"-")
            self.assertEqual(value, reader.value("GET", "k"))
        self.assertEqual(0, self.nearkey.metric("nearkey_clients_closed_memory_total"))

    def test_nobody_is_closed_for_what_others_hold(self):
        """The largest go first, and who holds little goes on, also while memory is short."""
        self.start({})
        self.server.run("SET", "large", b"x" * MIB)
        small = self.client()
        for client in self.clients(4, receive_buffer=4096):
            self.send(client, encode("GET", "large") * 200)
        for _ in range(20):
            self.assertEqual(b"+PONG\r\n", small.command("PING"))
            time.sleep(0.05)
        self.assertGreater(self.nearkey.metric("nearkey_clients_closed_memory_total"), 0)
        self.nearkey.wait_logged("client_closed_for_memory")

    def test_a_pause_for_memory_ends_without_those_who_are_paused(self):
        """Idle clients hold nearly all of it, and never move: the largest of them is closed."""
        self.start({})
        small = self.client()
        holders = self.clients(6)
        for client, size in zip(holders, (20, 9, 9, 9, 9, 9)):
            name = b"n" * (size * MIB)
            self.assertEqual(b"+OK\r\n", client.command("CLIENT", "SETNAME", name))
        for _ in range(10):
            self.assertEqual(b"+PONG\r\n", small.command("PING"))
        self.assertEqual(1, self.nearkey.metric("nearkey_clients_closed_memory_total"))
        self.assertNotEqual("", holders[0].read_to_end()[1])
        for client in holders[1:]:
            self.assertEqual(b"+PONG\r\n", client.command("PING"))

    def test_event_loops_share_the_limit(self):
        self.start({"server.workers": 2})
        forget_peak(self.nearkey)
        idle = status_bytes(self.nearkey, "VmRSS")
        names(self)
        self.assertLess(status_bytes(self.nearkey, "VmHWM") - idle, MEMORY_MAX + ALLOWANCE)
        self.assertGreater(self.nearkey.metric("nearkey_clients_closed_memory_total"), 0)


def test_of(one):
    def test(self):
        self.check(one)

    return test


for _way in WAYS:
    setattr(MemoryWaysTest, f"test_memory_max_bounds_{_way.act.__name__}", test_of(_way))


@proxy_only
class LongNamesTest(SystemTest):
    def test_long_names_are_counted_and_cut_where_they_are_shown(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        name = b"n" * (16 * MIB)
        clients = []
        for _ in range(8):
            client = nearkey.client()
            self.addCleanup(client.close)
            self.assertEqual(b"+OK\r\n", client.command("CLIENT", "SETNAME", name))
            clients.append(client)
        self.assertGreater(nearkey.metric("nearkey_client_memory_bytes"), 8 * len(name))
        began = time.monotonic()
        status, page = nearkey.get("/clients")
        if not SLOW:
            self.assertLess(time.monotonic() - began, 0.3)
        self.assertEqual(200, status)
        self.assertEqual(["n" * 256 + "..."] * 8, [client["name"] for client in page["clients"]])
        # The client itself gets all of it.
        self.assertEqual(name, clients[0].value("CLIENT", "GETNAME"))
        for client in clients:
            self.assertEqual(b"+RESET\r\n", client.command("RESET"))
        wait_for(
            lambda: nearkey.metric("nearkey_client_memory_bytes") < MIB, 5, "names are given back"
        )

    def test_a_connection_that_was_told_a_long_name_is_not_kept(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        for name, kept in ((b"n" * 8192, 0), (b"short", 1)):
            with nearkey.client() as client:
                client.command("CLIENT", "SETNAME", name)
                client.command("BLPOP", "none", "0.01")
            wait_for(
                lambda: nearkey.metric("nearkey_upstream_dedicated_leased") == 0, 5, "it has left"
            )
            names = [row["name"] for row in server.clients()]
            self.assertEqual(kept, names.count(name.decode()), name[:10])


if __name__ == "__main__":
    unittest.main()
