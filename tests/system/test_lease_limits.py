"""How many dedicated connections there may be, who waits for one, and which are kept
(upstream.dedicated_max, dedicated_idle_max; traps.md, S11)."""

import unittest

from harness import SystemTest, proxy_only, wait_for
from leases import wait_blocked, wait_leased
from resp import encode, parse

PONG = b"+PONG\r\n"


@proxy_only
class LimitsTest(SystemTest):
    def start(self, **settings):
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(self.server.url, settings=settings)

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def block(self, count):
        clients = [self.client() for _ in range(count)]
        for number, client in enumerate(clients):
            client.send(encode("BLPOP", f"l{number}", "0"))
        wait_blocked(self.server, count)
        return clients

    def test_trap_S11_above_dedicated_max_a_clear_error(self):
        self.start(**{"upstream.dedicated_max": 2, "upstream.queue_timeout_ms": 200})
        blocked, client = self.block(2), self.client()
        for command in (
            ("BLPOP", "m", "0"),
            ("WATCH", "k"),
            ("MULTI",),
            ("SUBSCRIBE", "c"),
            ("EVAL", "return 1", "0"),
            ("WAIT", "0", "0"),
            ("NOSUCH",),
        ):
            replies = client.pipeline([("PING",), command, ("PING",)])
            self.assertEqual([PONG, PONG], replies[::2], command)
            self.assertTrue(replies[1].startswith(b"-ERR nearkey "), replies)
            self.assertIn(b"upstream.dedicated_max", replies[1])
        self.assertEqual(7, self.nearkey.metric("nearkey_upstream_dedicated_refused_total"))
        self.assertEqual(7, self.nearkey.metric("nearkey_upstream_dedicated_waits_total"))
        whole = client.pipeline([("MULTI",), ("SET", "k", "v"), ("EXEC",)])
        self.assertEqual(b"*1\r\n+OK\r\n", whole[2], "this needs none")
        self.server.run("RPUSH", "l0", "v")
        self.assertEqual([b"l0", b"v"], parse(blocked[0].read_reply()))
        self.assertEqual(b":1\r\n", client.command("EVAL", "return 1", "0"))

    def test_trap_S11_without_any_dedicated_connection(self):
        self.start(**{"upstream.dedicated_max": 0, "upstream.queue_timeout_ms": 50})
        client = self.client()
        replies = client.pipeline([("SET", "k", "v"), ("BLPOP", "l", "0"), ("GET", "k")])
        self.assertEqual([b"+OK\r\n", b"$1\r\nv\r\n"], replies[::2])
        self.assertIn(b"upstream.dedicated_max", replies[1])

    def test_trap_S11_one_that_becomes_free_in_time_is_taken(self):
        self.start(**{"upstream.dedicated_max": 2, "upstream.queue_timeout_ms": 60_000})
        blocked = self.block(2)
        waiting = [self.client() for _ in range(3)]
        for number, client in enumerate(waiting):
            client.send(encode("BLPOP", f"w{number}", "0") + encode("ECHO", number))
            waits = number + 1
            wait_for(
                lambda: self.nearkey.metric("nearkey_upstream_dedicated_waits_total") == waits,
                5,
                "it waits for a connection",
            )
        self.server.run("RPUSH", "l0", "v")  # One is given back by an answer,
        blocked[0].read_reply()
        for number in range(3):
            self.server.run("RPUSH", f"w{number}", "v")
        blocked[1].close()  # one by a client that goes.
        for number, client in enumerate(waiting):
            self.assertEqual([b"w%d" % number, b"v"], parse(client.read_reply()))
            self.assertEqual(b"%d" % number, parse(client.read_reply()))
        wait_leased(self.nearkey, 0)
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_dedicated_refused_total"))

    def test_trap_S11_who_leaves_while_waiting_for_a_connection_leaves_the_queue(self):
        self.start(**{"upstream.dedicated_max": 1, "upstream.queue_timeout_ms": 60_000})
        blocked = self.block(1)
        gone = [self.client() for _ in range(5)]
        for number, client in enumerate(gone):
            client.send(encode("BLPOP", "gone", "0"))
            waits = number + 1
            wait_for(
                lambda: self.nearkey.metric("nearkey_upstream_dedicated_waits_total") == waits,
                5,
                "it waits for a connection",
            )
        for client in gone:
            client.close()
        self.server.run("RPUSH", "l0", "v")
        blocked[0].read_reply()
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == 1, 5, "they are gone")
        self.assertEqual(b":7\r\n", self.client().command("EVAL", "return 7", "0"))
        wait_leased(self.nearkey, 0)
        wait_blocked(self.server, 0)
        self.assertEqual(1, self.server.run("RPUSH", "gone", "v"))
        self.assertEqual(1, self.server.run("LLEN", "gone"))

    def test_trap_S11_idle_leases_are_bounded_and_used_again(self):
        self.start(**{"upstream.dedicated_idle_max": 3, "upstream.connections": 1})
        self.client().command("PING")
        shared = 2  # With the one that hears of changes, which may be ready later.
        wait_for(
            lambda: self.nearkey.metric("nearkey_upstream_connections") == shared, 5, "they are ready"
        )
        blocked = self.block(20)
        for number, client in enumerate(blocked):
            self.server.run("RPUSH", f"l{number}", "v")
            client.read_reply()
        wait_leased(self.nearkey, 0)
        wait_for(
            lambda: self.nearkey.metric("nearkey_upstream_connections") == shared + 3,
            5,
            "three are kept",
        )
        wait_for(lambda: len(self.server.clients()) == shared + 3, 5, "the others are closed")
        connects = self.nearkey.metric("nearkey_upstream_connects_total")
        for client in blocked:
            self.assertEqual(b":1\r\n", client.command("EVAL", "return 1", "0"))
        self.assertEqual(connects, self.nearkey.metric("nearkey_upstream_connects_total"))


if __name__ == "__main__":
    unittest.main()
