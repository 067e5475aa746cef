"""Blocking commands and others that need a connection of their own for their time (traps.md, S4,
P8; faults.md, rows 2, 14)."""

import signal
import unittest

from harness import DIRECT, SystemTest, free_port, proxy_only, wait_for
from leases import LeaseTest, wait_blocked, wait_leased
from resp import encode, parse

PONG = b"+PONG\r\n"
# What waits, and what ends the wait.
BLOCKING = [
    (("BLPOP", "l", "m", "0"), ("RPUSH", "m", "v")),
    (("BRPOP", "l", "0"), ("RPUSH", "l", "v", "w")),
    (("BLMOVE", "l", "m", "LEFT", "RIGHT", "0"), ("RPUSH", "l", "v")),
    (("BRPOPLPUSH", "l", "m", "0"), ("RPUSH", "l", "v")),
    (("BLMPOP", "0", "2", "l", "m", "LEFT", "COUNT", "3"), ("RPUSH", "m", "v", "w")),
    (("BZPOPMIN", "z", "0"), ("ZADD", "z", "1.5", "m")),
    (("BZPOPMAX", "y", "z", "0"), ("ZADD", "z", "1.5", "m")),
    (("BZMPOP", "0", "1", "z", "MAX"), ("ZADD", "z", "1.5", "m", "2", "n")),
    (("XREAD", "BLOCK", "0", "STREAMS", "x", "$"), ("XADD", "x", "1-1", "f", "v")),
    (("xread", "count", "2", "block", "0", "streams", "x", "0"), ("XADD", "x", "1-1", "f", "v")),
    (
        ("XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "x", ">"),
        ("XADD", "x", "1-1", "f", "v"),
    ),
]


class BlockingTest(LeaseTest):
    settings = {"upstream.request_timeout_ms": 300}

    def pop(self, address, protocol, command, release):
        if command[0] == "XREADGROUP":
            self.direct.command("XGROUP", "CREATE", "x", "g", "0", "MKSTREAM")
        client, other = self.resp_client(protocol, address), self.client()
        client.send(encode(*command) + encode("ECHO", "behind"))
        self.wait_blocked(1)
        other.command(*release)
        replies = client.read_replies(2)
        return [*replies, client.command("GET", "none"), other.command("KEYS", "*")]

    def test_trap_S4_blocking_commands_get_what_they_wait_for(self):
        for protocol in (2, 3):
            for command, release in BLOCKING:
                with self.subTest(command, protocol=protocol):
                    replies = self.assert_same_talk(self.pop, protocol, command, release)
                    self.assertIn(replies[0][:1], b"*%$", replies)
                    self.assertEqual(b"$6\r\nbehind\r\n", replies[1])

    def test_trap_S4_what_is_there_already_is_not_waited_for(self):
        for protocol in ("2", "3"):
            commands = [("HELLO", protocol), ("RPUSH", "l", "v", "w"), ("BLPOP", "l", "0")]
            commands += [("BRPOPLPUSH", "l", "m", "0"), ("BZPOPMIN", "z", "0.01"), ("PING",)]
            commands += [("XREAD", "BLOCK", "10", "STREAMS", "x", "0"), ("DEL", "l", "m")]
            self.assert_same_replies(commands)

    def test_trap_S4_their_own_timeout_counts_and_not_ours(self):
        """Longer than upstream.request_timeout_ms, and null when it is over."""
        for protocol, null in ((2, b"*-1\r\n"), (3, b"_\r\n")):
            client = self.resp_client(protocol)
            for command in (
                ("BLPOP", "l", "1"),
                ("XREAD", "BLOCK", "900", "STREAMS", "x", "$"),
                ("BLMOVE", "l", "m", "LEFT", "LEFT", "0.9"),
            ):
                client.send(encode(*command))
                self.assertTrue(client.is_silent(0.6), command)
                self.assertEqual(null, client.read_reply(), command)
        errors = [("BLPOP", "l", "x"), ("BLPOP", "l", "-1"), ("XREAD", "BLOCK", "x", "STREAMS")]
        errors += [("BLPOP",), ("XREAD", "BLOCK", "-5", "STREAMS", "x", "0"), ("PING",)]
        self.assert_same_replies(errors)

    def test_trap_S4_what_is_behind_a_blocking_command_keeps_its_place(self):
        client, other = self.client(), self.client()
        client.send(
            b"".join(
                encode(*command)
                for command in [
                    ("SET", "k", "1"),
                    ("BLPOP", "a", "0"),
                    ("INCR", "k"),
                    ("HELLO", "3"),
                    ("BLPOP", "b", "0"),
                    ("GET", "none"),
                    ("SELECT", "2"),
                    ("BLPOP", "c", "0.05"),
                    ("GET", "k"),
                ]
            )
        )
        self.assertEqual(b"+OK\r\n", client.read_reply())
        self.wait_blocked(1)
        self.assertEqual(b"1", other.value("GET", "k"))
        other.command("RPUSH", "a", "x")
        self.assertEqual([b"a", b"x"], parse(client.read_reply()))
        self.assertEqual(b":2\r\n", client.read_reply())
        self.assertEqual(3, parse(client.read_reply())[b"proto"])
        self.wait_blocked(1)
        self.assertTrue(client.is_silent(0.05))
        other.command("RPUSH", "b", "y")
        self.assertEqual(b"*2\r\n$1\r\nb\r\n$1\r\ny\r\n_\r\n", b"".join(client.read_replies(2)))
        self.assertEqual([b"+OK\r\n", b"_\r\n", b"_\r\n"], client.read_replies(3))

    def test_row_14_a_role_change_frees_the_blocked(self):
        client, oracle = self.client(), self.client_of(self.server.path)
        self.addCleanup(self.server.run, "REPLICAOF", "NO", "ONE")
        for each in (client, oracle):
            each.send(encode("BLPOP", "l", "0"))
        self.wait_blocked(2)
        self.server.run("REPLICAOF", "127.0.0.1", free_port())
        expected = oracle.read_reply()
        self.assertTrue(expected.startswith(b"-UNBLOCKED "), expected)
        # Through nearkey it is tried again before, for another may be the primary.
        words = b"-UNBLOCKED " if DIRECT else b"-READONLY "
        self.assertTrue(client.read_reply().startswith(words))
        self.server.run("REPLICAOF", "NO", "ONE")
        self.wait_leased(0)


@proxy_only
class GoneTest(LeaseTest):
    """Who leaves while waiting takes nothing with him."""

    def assert_keeps_what_is_pushed(self, count):
        self.wait_blocked(0)
        self.wait_leased(0)
        for _ in range(count):
            self.direct.command("RPUSH", "l", "v")
        self.assertEqual(count, self.direct.value("LLEN", "l"))
        self.direct.command("DEL", "l")

    def test_trap_P8_a_client_that_leaves_while_it_waits_takes_no_element(self):
        for turn in range(20):
            clients = [self.client() for _ in range(10)]
            for client in clients:
                client.send(encode("BLPOP", "l", "0"))
            self.wait_blocked(10)
            for client in clients:
                client.close() if turn % 2 else client.shutdown_write()
            self.assert_keeps_what_is_pushed(3)

    def test_trap_P8_a_client_that_stays_is_served_in_spite_of_those_who_left(self):
        gone, stays = [self.client() for _ in range(20)], self.client()
        for client in gone:
            client.send(encode("BLPOP", "l", "0"))
        self.wait_blocked(20)
        stays.send(encode("BLPOP", "l", "0"))
        self.wait_blocked(21)
        for client in gone:
            client.close()
        self.wait_blocked(1)
        self.direct.command("RPUSH", "l", "v")
        self.assertEqual([b"l", b"v"], parse(stays.read_reply()))

    def test_trap_P8_with_input_behind_the_blocking_command(self):
        """However much it is, that the client has left is noticed, and nothing of it is run."""
        behind = encode("INCR", "behind")
        for extra in (
            behind,
            behind * 100,
            behind * 5000,
            encode("SET", "behind", "x" * 3_000_000),
            encode("BLPOP", "l", "0") * 3,
            encode("MULTI") + behind + encode("EXEC"),
            encode("SUBSCRIBE", "c"),
            b"*2\r\n$3\r\nGET\r\n$100\r\nhalf of it",
        ):
            self.check_leaving(extra)

    def test_trap_P8_with_input_behind_the_blocking_command_that_is_not_read_on(self):
        # BUG: behind these nearkey reads no more (Session::stop_input), so it never notices who has
        # left, and the blocking command of nobody takes the next element.
        self.check_leaving(encode("QUIT"))
        self.check_leaving(b"*x\r\n")

    def check_leaving(self, extra):
        for leave in ("close", "shutdown_write"):
            with self.subTest(extra[:60], leave=leave):
                client = self.client()
                client.send(encode("BLPOP", "l", "0") + extra)
                self.wait_blocked(1)
                getattr(client, leave)()
                self.assert_keeps_what_is_pushed(2)
                self.assertIsNone(self.direct.value("GET", "behind"))

    def test_trap_P8_a_half_close_in_the_same_moment(self):
        """As with the server: who has said that he sends no more does not wait."""
        for _ in range(50):
            client = self.client()
            client.send(encode("PING") + encode("BLPOP", "l", "0"))
            client.shutdown_write()
            data, _ = client.read_to_end()
            self.assertIn(data, (PONG, b""))
        self.assert_keeps_what_is_pushed(5)

    def test_trap_P8_an_element_is_popped_by_a_client_that_half_closes_or_stays(self):
        """It never happens that an element is gone and nobody was told."""
        for turn in range(100):
            client = self.client()
            client.send(encode("BLPOP", "l", "0"))
            if turn % 3 == 0:
                self.wait_blocked(1)
            self.direct.command("RPUSH", "l", turn)
            if turn % 2:
                client.shutdown_write()
            data, _ = client.read_to_end() if turn % 2 else (client.read_reply(), None)
            self.wait_blocked(0)
            left = self.direct.value("LRANGE", "l", 0, -1)
            told = parse(data)[1:] if data else []
            # The server may have popped for a client that left in the same moment, as directly.
            if turn % 2 == 0:
                self.assertEqual([b"%d" % turn], told + left)
            self.direct.command("DEL", "l")


@proxy_only
class LostServerTest(SystemTest):
    def test_row_2_the_blocked_are_told_that_the_server_is_gone(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        clients = [nearkey.client() for _ in range(2)]
        for number, client in enumerate(clients):
            self.addCleanup(client.close)
            client.send(encode("BLPOP", "l", "0") + encode("INCR", f"n{number}"))
        wait_blocked(server, 2)
        server.kill()
        for client in clients:
            # By the end of their connection, as directly: what stood behind is lost with it.
            self.assertEqual((b"", "eof"), client.read_to_end())
        server.start()
        nearkey.wait_ready()
        wait_leased(nearkey, 0)
        clients = [nearkey.client() for _ in range(2)]
        for client in clients:
            self.addCleanup(client.close)
        for client in clients:
            client.send(encode("BLPOP", "l", "0"))
        wait_blocked(server, 2)
        server.run("RPUSH", "l", "a", "b")
        self.assertEqual({b"a", b"b"}, {parse(client.read_reply())[1] for client in clients})
        wait_leased(nearkey, 0)

    def test_row_59_who_leaves_while_nearkey_drains_is_not_waited_for(self):
        server = self.start_server()
        settings = {"server.drain_timeout_ms": 3_600_000}
        nearkey = self.start_nearkey(server.url, settings=settings)
        client = nearkey.client()
        client.send(encode("BLPOP", "l", "0"))
        wait_blocked(server, 1)
        nearkey.signal(signal.SIGTERM)
        nearkey.wait_logged("draining")
        client.close()
        wait_blocked(server, 0)
        nearkey.stop()

    def test_row_1_two_scripts_that_run_past_the_request_timeout(self):
        script = "local e = os.clock() + 1 while os.clock() < e do end return ARGV[1]"
        server = self.start_server("--busy-reply-threshold", "60000")
        nearkey = self.start_nearkey(server.url, settings={"upstream.request_timeout_ms": 300})
        clients = [nearkey.client() for _ in range(2)]
        for client in clients:
            self.addCleanup(client.close)
            client.send(encode("BLPOP", "list", "0"))
        wait_leased(nearkey, 2)
        # Both connections stay open: none has to be made while the server is busy with a script.
        server.run("RPUSH", "list", "a", "b")
        for client in clients:
            client.read_reply()
        wait_leased(nearkey, 0)
        for number, client in enumerate(clients):
            client.send(encode("EVAL", script, "0", f"late {number}"))
        for client in clients:
            self.assertTrue(client.read_reply().startswith(b"-UPSTREAMTIMEOUT "))
        for number, client in enumerate(clients):
            wait_for(
                lambda: self.answered(client, f"mine {number}"), 10, "it is answered again"
            )
        wait_leased(nearkey, 0)
        nearkey.wait_ready()

    def answered(self, client, text):
        """True if it was the reply that is due; a late one would be of somebody else."""
        for command in (("ECHO", text), ("EVAL", "return ARGV[1]", "0", text)):
            reply = client.command(*command)
            if reply.startswith(b"-UPSTREAM"):
                return False
            self.assertEqual(text.encode(), parse(reply))
        return True


if __name__ == "__main__":
    unittest.main()
