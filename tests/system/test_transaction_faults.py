"""Transactions on a server that refuses, goes or stands still (faults.md, rows 1, 2, 4, 16): what
is lost is lost as a whole, and never does a command run outside of its transaction."""

import time
import unittest

from harness import SystemTest, proxy_only, wait_for
from leases import LeaseTest, client_row, wait_leased
from resp import Closed, encode, parse

OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
BLOCK = [("MULTI",), ("SET", "k", "inside"), ("INCR", "n"), ("EXEC",)]
CLOSED_STATE = "nearkey_clients_closed_state_total"


class OutOfMemoryTest(LeaseTest):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.server.run, "CONFIG", "SET", "maxmemory", "0")

    def test_row_16_out_of_memory_inside_a_transaction(self):
        self.server.run("CONFIG", "SET", "maxmemory", "1")
        begin = [("WATCH", "k"), ("UNWATCH",)]
        for commands in (
            [("MULTI",), ("SET", "k", "v"), ("EXEC",), ("GET", "k")],
            [("MULTI",), ("SET", "k", "v"), ("DISCARD",), ("SET", "k", "v")],
            [("MULTI",), ("GET", "k"), ("SET", "k", "v"), ("GET", "k"), ("EXEC",)],
            [("MULTI",), ("GET", "k"), ("EXEC",), ("SET", "k", "v")],
            [("WATCH", "k"), ("MULTI",), ("SET", "k", "v"), ("EXEC",), ("PING",)],
        ):
            with self.subTest(commands):
                replies = self.assert_same_replies(commands)
                self.assertTrue(any(reply.startswith(b"-OOM ") for reply in replies), replies)
                client, oracle = self.client(), self.client_of(self.server.path)
                for command in begin + commands:
                    self.assertEqual(oracle.command(*command), client.command(*command))
        replies = self.client().pipeline([("MULTI",), ("SET", "k", "v"), ("EXEC",)])
        self.assertTrue(replies[2].startswith(b"-EXECABORT "), replies)

    def test_row_16_out_of_memory_between_the_queue_and_exec(self):
        client, oracle = self.client(), self.client_of(self.server.path)
        for each in (client, oracle):
            each.command("MULTI")
            self.assertEqual(QUEUED, each.command("SET", "k", "v"))
        self.server.run("CONFIG", "SET", "maxmemory", "1")
        expected = oracle.command("EXEC")
        self.assertIn(b"OOM command not allowed", expected)
        self.assertEqual(expected, client.command("EXEC"))
        self.server.run("CONFIG", "SET", "maxmemory", "0")
        self.assertEqual(OK, client.command("SET", "k", "after"))
        self.wait_leased(0)


@proxy_only
class KilledConnectionTest(LeaseTest):
    settings = {"upstream.connections": 1}

    def begin(self, *commands):
        """A client in the middle, and the id of its connection."""
        client = self.client()
        client.command("CLIENT", "SETNAME", "victim")
        for command in commands:
            self.assertFalse(client.command(*command).startswith(b"-"))
        return client, client_row(self.server, name="victim")["id"]

    def assert_closed(self, client):
        """Whatever is sent is not answered as if nothing had happened."""
        try:
            client.send(b"".join(encode(*c) for c in (("SET", "outside", "1"), ("EXEC",))))
            data, _ = client.read_to_end()
        except OSError:
            data = b""
        self.assertNotIn(OK, data)
        self.assertNotIn(QUEUED, data)

    def test_row_4_a_transaction_whose_connection_is_killed_closes_its_client(self):
        for number, commands in enumerate(
            (
                [("MULTI",)],
                [("MULTI",), ("SET", "k", "inside")],
                [("WATCH", "k")],
                [("WATCH", "k"), ("MULTI",), ("SET", "k", "inside")],
            )
        ):
            with self.subTest(commands):
                client, killed = self.begin(*commands)
                before = self.nearkey.metric(CLOSED_STATE)
                self.assertEqual(1, self.server.run("CLIENT", "KILL", "ID", killed))
                if number % 2:
                    wait_for(
                        lambda: self.nearkey.metric(CLOSED_STATE) == before + 1, 5, "it is closed"
                    )
                self.assert_closed(client)
                self.wait_leased(0)
                self.assertEqual(before + 1, self.nearkey.metric(CLOSED_STATE))
                self.assertIsNone(self.direct.value("GET", "outside"))
                self.assertIsNone(self.direct.value("GET", "k"))

    def test_row_4_the_end_of_one_transaction_is_not_felt_by_others(self):
        client, killed = self.begin(("MULTI",))
        others = [self.client() for _ in range(5)]
        for number, other in enumerate(others):
            other.pipeline([("WATCH", "w"), ("MULTI",), ("SET", f"k{number}", number)])
        plain = self.client()
        plain.command("PING")
        self.server.run("CLIENT", "KILL", "ID", killed)
        self.assert_closed(client)
        for other in others:
            self.assertEqual([b"OK"], other.value("EXEC"))
        self.assertEqual(b"+PONG\r\n", plain.command("PING"))

    def test_row_4_a_client_that_is_idle_between_transactions_keeps_its_connection(self):
        client = self.client()
        client.pipeline([("WATCH", "k"), ("MULTI",), ("EXEC",)])
        self.wait_leased(0)
        self.server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        def works():
            replies = client.pipeline([("WATCH", "k"), ("UNWATCH",), *BLOCK])
            return replies[-1].startswith(b"*2\r\n")

        wait_for(works, 5, "transactions work again")
        self.assertEqual(0, self.server.run("EXISTS", "outside"))


@proxy_only
class LostServerTest(SystemTest):
    def start(self, **settings):
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(
            self.server.url, settings={"upstream.connections": 1, **settings}
        )
        self.client = self.nearkey.client()
        self.addCleanup(self.client.close)

    def lose(self, *commands):
        """The commands are in flight when the server is killed; it is started again."""
        self.client.command("PING")
        self.server.freeze()
        forwarded = "nearkey_commands_forwarded_total"
        before = self.nearkey.metric(forwarded)
        self.client.send(b"".join(encode(*command) for command in commands))
        wait_for(
            lambda: self.nearkey.metric(forwarded) >= before + len(commands), 5, "they are sent"
        )
        self.server.kill()
        self.server.start()

    def test_row_2_a_whole_transaction_in_flight_is_lost_as_a_whole(self):
        self.start()
        self.lose(*BLOCK)
        for reply in self.client.read_replies(len(BLOCK)):
            self.assertTrue(reply.startswith(b"-UPSTREAMLOST "), reply)
        self.nearkey.wait_ready()
        replies = self.client.pipeline([("GET", "k"), *BLOCK])
        self.assertIsNone(parse(replies[0]), "it was not sent again")
        self.assertEqual([b"OK", 1], parse(replies[-1]))

    def test_row_2_a_transaction_that_began_is_lost_with_its_client(self):
        self.start()
        self.assertEqual(OK, self.client.command("MULTI"))
        self.lose(("SET", "k", "inside"), ("INCR", "n"), ("EXEC",), ("SET", "outside", "1"))
        data, _ = self.client.read_to_end()
        self.assertTrue(data.startswith(b"-UPSTREAMLOST ") or data == b"", data)
        self.assertNotIn(OK, data)
        self.nearkey.wait_ready()
        self.assertEqual(0, self.server.run("DBSIZE"))
        wait_leased(self.nearkey, 0)

    def test_row_2_a_whole_transaction_while_the_server_is_away_is_refused_as_a_whole(self):
        self.start(**{"upstream.queue_timeout_ms": 200})
        self.client.command("PING")
        self.server.kill()
        self.nearkey.wait_unready()
        for reply in self.client.pipeline(BLOCK):
            self.assertTrue(reply.startswith(b"-UPSTREAMDOWN "), reply)
        for reply in self.client.pipeline([("WATCH", "k")]):
            self.assertTrue(reply.startswith(b"-UPSTREAMDOWN "), reply)
        self.server.start()
        self.nearkey.wait_ready()
        with self.nearkey.client() as client:
            replies = client.pipeline([("EXISTS", "k"), *BLOCK])
            self.assertEqual([b":0\r\n", [b"OK", 1]], [replies[0], parse(replies[-1])])
        wait_leased(self.nearkey, 0)

    def test_row_2_a_whole_transaction_waits_for_the_server_and_runs_once(self):
        self.start(**{"upstream.queue_timeout_ms": 60_000})
        self.client.command("PING")
        self.server.kill()
        self.nearkey.wait_unready()
        self.client.send(b"".join(encode(*command) for command in BLOCK))
        wait_for(lambda: self.nearkey.metric("nearkey_queued") > 0, 5, "it waits")
        self.server.start()
        self.assertEqual([OK, QUEUED, QUEUED, b"*2\r\n+OK\r\n:1\r\n"], self.client.read_replies(4))

    def test_row_1_a_frozen_server_in_the_middle_of_a_transaction(self):
        """Nobody knows whether EXEC runs: the client is told so and closed, as nothing of it may
        run in another place."""
        self.start(**{"upstream.request_timeout_ms": 300})
        self.assertEqual(OK, self.client.command("MULTI"))
        self.assertEqual(QUEUED, self.client.command("INCR", "n"))
        self.server.freeze()
        self.client.send(encode("EXEC") + encode("SET", "outside", "1"))
        self.assertTrue(self.client.read_reply().startswith(b"-UPSTREAMTIMEOUT "))
        try:
            while True:
                reply = self.client.read_reply()
                self.assertTrue(reply.startswith(b"-UPSTREAM"), reply)
        except (Closed, OSError):
            pass
        wait_leased(self.nearkey, 0)
        self.server.thaw()
        self.nearkey.wait_ready()
        self.assertIn(self.server.run("GET", "n"), (None, b"1"))

    def test_row_1_what_enters_a_tunnel_while_a_silent_server_is_not_trusted(self):
        """EXEC answers the client's commands, and nothing of nearkey's own."""
        self.start(**{"upstream.suspect_after_ms": 300})
        suspects = "nearkey_upstream_suspects_total"
        for command in (
            ("SELECT", "1"),
            ("CLIENT", "SETNAME", "somebody"),
            ("HELLO", "2"),
            ("SUBSCRIBE", "news"),
        ):
            with self.subTest(command), self.nearkey.client() as client:
                seen = self.nearkey.metric(suspects)
                self.assertEqual(OK, client.command("MULTI"))
                self.server.freeze()
                wait_for(
                    lambda seen=seen: self.nearkey.metric(suspects) > seen, 10, "it is suspect"
                )
                client.send(encode(*command))
                time.sleep(0.1)  # It is taken up.
                self.server.thaw()
                self.assertEqual(QUEUED, client.read_reply())
                self.assertEqual(QUEUED, client.command("ECHO", "mine"))
                self.assertEqual([2, b"mine"], [len(r := parse(client.command("EXEC"))), r[-1]])

    def test_row_1_a_whole_transaction_that_times_out(self):
        self.start(**{"upstream.request_timeout_ms": 300})
        self.client.command("PING")
        self.server.freeze()
        for reply in self.client.pipeline(BLOCK):
            self.assertTrue(reply.startswith(b"-UPSTREAMTIMEOUT "), reply)
        self.server.thaw()
        self.nearkey.wait_ready()
        replies = self.client.pipeline([("ECHO", "mine"), *BLOCK])
        self.assertEqual(b"$4\r\nmine\r\n", replies[0])
        self.assertEqual([b"OK", 2], parse(replies[-1]), "the first one ran, once")


if __name__ == "__main__":
    unittest.main()
