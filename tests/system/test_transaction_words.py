"""Every transaction command with every number of arguments, in and out of a transaction: what the
session believes of its connection is what the server says of it."""

import itertools
import random
import unittest

from harness import DIRECT, wait_for
from leases import LEASED, LeaseTest, client_row
from resp import encode

COMMANDS = [
    ("MULTI",),
    ("MULTI", "extra"),
    ("EXEC",),
    ("EXEC", "extra"),
    ("DISCARD",),
    ("DISCARD", "extra"),
    ("WATCH", "k"),
    ("WATCH",),
    ("UNWATCH",),
    ("UNWATCH", "extra"),
    ("SET", "k", "v"),
    ("SET", "k"),
    ("NOSUCH",),
]
BEGINNINGS = [
    [],
    [("MULTI",)],
    [("MULTI",), ("SET", "k", "v")],
    [("MULTI",), ("SET", "k")],
    [("WATCH", "k")],
    [("WATCH", "k"), ("SET", "k", "dirty")],
    [("WATCH", "k"), ("MULTI",)],
    [("WATCH", "k"), ("MULTI",), ("NOSUCH",)],
]
SEED = 20261128


class TransactionStateTest(LeaseTest):
    settings = {"upstream.request_timeout_ms": 500}

    def setUp(self):
        super().setUp()
        self.oracle = self.client_of(self.server.path)
        # In a database of its own: neither touches what the other watches.
        self.oracle.pipeline([("CLIENT", "SETNAME", "oracle"), ("SELECT", "1")])

    def holds_state(self):
        """Whether the server says that its client is in a transaction or watches."""
        row = client_row(self.server, name="oracle")
        # "x": MULTI ("multi" is 0 after it in Valkey 8.1); "d": a watched key has changed, and is not
        # watched any more.
        return "x" in row["flags"] or row["watch"] != "0" or "d" in row["flags"]

    def assert_same_state(self, commands):
        """The same replies one by one, and a connection of its own is held exactly as long as the
        server holds something for it."""
        self.oracle.command("DISCARD")
        self.oracle.command("UNWATCH")
        client = self.client()
        for number, command in enumerate(commands):
            expected = self.oracle.command(*command)
            said = f"{number} of {commands}".encode()
            self.assert_bytes(expected, client.command(*command), said)
        if not DIRECT:
            held = 1 if self.holds_state() else 0
            wait_for(lambda: self.nearkey.metric(LEASED) == held, 2, f"{held} leases: {commands}")
        return client

    def test_a_session_holds_its_connection_as_long_as_the_server_holds_state(self):
        for begin, command in itertools.product(BEGINNINGS, COMMANDS):
            with self.subTest(begin, command=command):
                self.assert_same_state([*begin, command]).close()
        for begin, two in itertools.product(
            BEGINNINGS[::3], itertools.permutations(COMMANDS[:10], 2)
        ):
            with self.subTest(begin, two=two):
                self.assert_same_state([*begin, *two]).close()

    def test_after_random_sequences_the_client_is_as_directly(self):
        choose = random.Random(SEED)
        for number in range(16):
            commands = choose.choices(COMMANDS, k=choose.randint(3, 9))
            with self.subTest(commands, seed=SEED, number=number):
                client = self.assert_same_state(commands)
                in_multi = "x" in client_row(self.server, name="oracle")["flags"]
                wait = ("BLPOP", "none", "0.01" if in_multi else "0.6")
                for last in (("GET", "k"), wait, ("DISCARD",), ("UNWATCH",)):
                    client.send(encode(*last))
                    expected = self.oracle.command(*last)
                    self.assert_bytes(expected, client.read_reply(), repr(last).encode())
                client.close()

    def test_an_exec_that_is_refused_ends_the_transaction(self):
        for begin in ([("MULTI",)], [("WATCH", "k"), ("MULTI",), ("SET", "k", "1")]):
            client = self.client()
            for command in begin:
                client.command(*command)
            self.assertTrue(client.command("EXEC", "extra").startswith(b"-EXECABORT "))
            self.wait_leased(0)
            # It waits longer than an ordinary request may.
            self.assertEqual(b"*-1\r\n", client.command("BLPOP", "none", "0.8"))
            self.server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            self.assertEqual(b"$-1\r\n", self.client_that_lost(client))

    @staticmethod
    def client_that_lost(client):
        """What a GET gets once a connection that the client has no state on was lost."""
        for _ in range(20):
            reply = client.command("GET", "k")
            if not reply.startswith(b"-UPSTREAM"):
                return reply
        return reply


if __name__ == "__main__":
    unittest.main()
