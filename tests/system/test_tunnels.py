"""Publish and subscribe, MONITOR, CLIENT TRACKING and CLIENT REPLY through a tunnel (traps.md, P4,
P5): the bytes are the server's own."""

import threading
import unittest

from harness import EVERY_COMMAND, proxy_only
from leases import LeaseTest, client_row
from resp import Closed, encode, parse, split_replies

PONG = b"+PONG\r\n"
# Subscriptions in one pipeline, each in both protocols.
PIPELINES = [
    [("SUBSCRIBE", "a")],
    [("SUBSCRIBE", "a", "b", "a"), ("UNSUBSCRIBE", "a"), ("UNSUBSCRIBE", "b")],
    [("SUBSCRIBE", "a", "b"), ("UNSUBSCRIBE",)],
    [("PSUBSCRIBE", "a*", "b?"), ("PUNSUBSCRIBE", "a*"), ("PUNSUBSCRIBE",)],
    [("SSUBSCRIBE", "a"), ("SSUBSCRIBE", "b"), ("SUNSUBSCRIBE", "a"), ("SUNSUBSCRIBE",)],
    [("SUBSCRIBE", "a"), ("PSUBSCRIBE", "a*"), ("SSUBSCRIBE", "a"), ("UNSUBSCRIBE",)],
    [("UNSUBSCRIBE",)],
    [("PUNSUBSCRIBE",)],
    [("SUNSUBSCRIBE",)],
    [("UNSUBSCRIBE", "x", "y"), ("PUNSUBSCRIBE", "x", "y", "z"), ("SUNSUBSCRIBE", "x")],
    [("SUBSCRIBE", "a"), ("PING",), ("PING", "x"), ("UNSUBSCRIBE",), ("PING",)],
    [("SUBSCRIBE", "a"), ("SET", "k", "v"), ("GET", "k"), ("NOSUCH",), ("SUBSCRIBE",)],
    [("SUBSCRIBE",), ("PSUBSCRIBE",), ("SSUBSCRIBE",), ("PING",)],
    [("SUBSCRIBE", "a"), ("UNSUBSCRIBE", "a"), ("SET", "k", "v"), ("GET", "k"), ("DEL", "k")],
    [("SUBSCRIBE", "a"), ("RESET",), ("PING",), ("GET", "none")],
    [("SUBSCRIBE", "a"), ("HELLO", "3"), ("PING",), ("GET", "none")],
    [("SUBSCRIBE", "a"), ("QUIT",), ("PING",)],
    [("SUBSCRIBE", "a"), ("PUBLISH", "a", "self"), ("SUBSCRIBE", "b")],
    [("SUBSCRIBE", b"\x00\r\n\xff", "")],
    [("SET", "n", "v"), ("GET", "n"), ("SUBSCRIBE", "a"), ("UNSUBSCRIBE",), ("DEL", "n")],
    [("SUBSCRIBE", "a"), ("MULTI",), ("PING",), ("UNSUBSCRIBE",)],
    [("SUBSCRIBE", "a"), ("CLIENT", "GETNAME"), ("CLIENT", "REPLY", "ON")],
]


def data_of(commands):
    return b"".join(encode(*command) for command in commands)


class SubscribeTest(LeaseTest):
    def test_trap_P5_subscriptions_have_the_bytes_of_the_server(self):
        for hello in ([], [("HELLO", "2")], [("HELLO", "3")]):
            for commands in PIPELINES:
                with self.subTest(commands, hello=hello):
                    self.assert_same_answer(data_of(hello + commands))

    def receive(self, address, protocol, subscribe, publish, count):
        client = self.resp_client(protocol, address)
        replies = client.pipeline(subscribe)
        for command in publish:
            self.direct.command(*command)
        replies += client.read_replies(count)
        replies.append(client.command("PING"))
        client.close()
        return replies

    def test_trap_P5_messages_have_the_bytes_of_the_server(self):
        binary = bytes(range(256))
        for subscribe, publish, count in (
            ([("SUBSCRIBE", "c")], [("PUBLISH", "c", "m")], 1),
            ([("PSUBSCRIBE", "c*")], [("PUBLISH", "c1", "m"), ("PUBLISH", "c2", "")], 2),
            ([("SSUBSCRIBE", "c")], [("SPUBLISH", "c", "m")], 1),
            ([("SUBSCRIBE", "c"), ("PSUBSCRIBE", "c*")], [("PUBLISH", "c", "m")], 2),
            ([("SUBSCRIBE", "c")], [("PUBLISH", "d", "no"), ("PUBLISH", "c", binary)], 1),
            ([("SUBSCRIBE", "c")], [("PUBLISH", "c", "x" * 2_000_000)], 1),
            ([("SUBSCRIBE", "c")], [("EVAL", "redis.call('PUBLISH', 'c', 'm')", "0")], 1),
            ([("SUBSCRIBE", "__keyspace@0__:k")], [("SET", "k", "v")], 1),
        ):
            for protocol in (2, 3):
                with self.subTest(subscribe, protocol=protocol):
                    self.server.run("CONFIG", "SET", "notify-keyspace-events", "KEA")
                    self.assert_same_talk(self.receive, protocol, subscribe, publish, count)
                    self.wait_leased(0)

    def test_ten_thousand_messages_arrive_in_order(self):
        for protocol in (2, 3):
            subscriber, publisher = self.resp_client(protocol), self.client()
            subscriber.command("SUBSCRIBE", "c")
            numbers = range(10_000)
            sender = threading.Thread(
                target=publisher.send, args=(data_of(("PUBLISH", "c", n) for n in numbers),)
            )
            sender.start()
            for number in numbers:
                self.assertEqual(
                    [b"message", b"c", b"%d" % number], parse(subscriber.read_reply(60))
                )
            sender.join(60)
            self.assertEqual([b":1\r\n"] * 10_000, publisher.read_replies(10_000, 60))
            subscriber.close()
            self.wait_leased(0)

    def test_a_subscriber_through_a_tunnel_publishes_and_reads_in_resp3(self):
        client, other = self.resp_client(3), self.client()
        client.command("SUBSCRIBE", "c")
        for turn in range(100):
            client.send(encode("SET", "k", turn) + encode("GET", "k") + encode("ECHO", turn))
            other.command("PUBLISH", "c", turn)
            frames = client.read_replies(4)
            replies = [frame for frame in frames if frame[:1] != b">"]
            self.assertEqual([b"OK"] + [b"%d" % turn] * 2, [parse(reply) for reply in replies])
        client.command("UNSUBSCRIBE", "c")

    def test_a_half_close_ends_a_subscriber(self):
        for address in (self.server.path, self.address):
            client = self.client_of(address)
            client.command("SUBSCRIBE", "c")
            client.shutdown_write()
            self.assertEqual((b"", "eof"), client.read_to_end())
        self.wait_leased(0)
        self.assertEqual(b":0\r\n", self.direct.command("PUBLISH", "c", "m"))

    def test_who_goes_is_unsubscribed(self):
        clients = [self.client() for _ in range(20)]
        for client in clients:
            client.command("SUBSCRIBE", "c")
        self.assertEqual(20, self.direct.value("PUBLISH", "c", "m"))
        for client in clients[:15]:
            client.close()
        self.wait_leased(5)
        for client in clients[15:]:
            self.assertEqual([b"message", b"c", b"m"], parse(client.read_reply()))
            client.close()

    def test_row_4_a_tunnel_that_is_killed_closes_its_client(self):
        clients = [self.client() for _ in range(5)]
        for client in clients:
            client.command("SUBSCRIBE", "c")
        other = self.client()
        other.command("PING")
        self.assertEqual(5, self.server.run("CLIENT", "KILL", "TYPE", "pubsub"))
        for client in clients:
            self.assertEqual((b"", "eof"), client.read_to_end())
        self.wait_leased(0)
        self.assertEqual(PONG, other.command("PING"))


class MonitorTest(LeaseTest):
    def test_monitor_tells_of_every_command_until_reset(self):
        client = self.client()
        client.command("SET", "before", "1")
        self.assertEqual(b"+OK\r\n", client.command("MONITOR"))
        for number in range(200):
            self.direct.command("SET", "k", f"v{number}")
        seen = []
        while len(seen) < 200:
            line = client.read_reply()
            if b'"SET" "k"' in line:
                seen.append(line)
        for number, line in enumerate(seen):
            self.assertRegex(line, rb'^\+\d+\.\d+ \[0 [^\]]+\] "SET" "k" "v%d"\r\n$' % number)
        client.send(encode("RESET") + encode("GET", "k") + encode("PING"))
        while (reply := client.read_reply()) != b"+RESET\r\n":
            self.assertRegex(reply, rb"^\+\d+\.\d+ \[")
        self.assertEqual([b"$4\r\nv199\r\n", PONG], client.read_replies(2))
        self.wait_leased(0)

    def test_a_text_like_the_reply_to_reset_does_not_end_the_tunnel(self):
        client = self.client()
        self.assertEqual(b"+OK\r\n", client.command("CLIENT", "NO-TOUCH", "ON"))
        reset = b"+RESET\r\n"
        self.assertEqual(reset, client.value("ECHO", reset))
        self.assertEqual(reset, client.command("EVAL", "return {ok = 'RESET'}", "0"))
        data = encode("EVAL", "return {ok = 'RESET'}", "0") + encode("CLIENT", "GETNAME")
        client.command("CLIENT", "SETNAME", "kept")
        client.send(data)
        self.assertEqual([reset, b"$4\r\nkept\r\n"], client.read_replies(2))
        self.wait_leased(1)


class ReplyModeTest(LeaseTest):
    def test_trap_P4_client_reply(self):
        off, skip, on = (("CLIENT", "REPLY", mode) for mode in ("OFF", "SKIP", "ON"))
        for commands in (
            [("SET", "k", "1"), off, ("INCR", "k"), ("NOSUCH",), on, ("GET", "k"), ("PING",)],
            [skip, ("SET", "k", "1"), ("GET", "k")],
            [skip, skip, ("SET", "k", "1"), ("GET", "k"), ("PING",)],
            [("PING",), on, ("PING",)],
            [off, ("PING",), ("SET", "k", "2")],
            [off, skip, ("PING",), on, ("PING",)],
            [off, ("MULTI",), ("INCR", "k"), ("EXEC",), on, ("GET", "k")],
            [("CLIENT", "REPLY"), ("CLIENT", "REPLY", "NOSUCH"), ("PING",)],
            [off, ("RESET",), ("PING",), on, ("PING",)],
        ):
            for hello in ([], [("HELLO", "3")]):
                with self.subTest(commands, hello=hello):
                    self.server.run("DEL", "k")
                    expected, _ = self.conversation(self.server.path, data_of(hello + commands))
                    self.server.run("DEL", "k")
                    answer, ended = self.conversation(self.address, data_of(hello + commands))
                    self.assertEqual(len(split_replies(expected)), len(split_replies(answer)))
                    self.assert_bytes(expected[-20:], answer[-20:], data_of(commands))
                    self.assertEqual("eof", ended)

    def test_reset_ends_a_silence_too(self):
        """Valkey answers RESET although it was told to be silent, and the session goes on."""
        client = self.client()
        client.send(data_of([("CLIENT", "REPLY", "OFF"), ("SET", "k", "v"), ("RESET",)]))
        client.send(data_of([("GET", "k"), ("CLIENT", "GETNAME")]))
        oracle = self.client_of(self.server.path)
        oracle.send(data_of([("CLIENT", "REPLY", "OFF"), ("SET", "k", "v"), ("RESET",)]))
        oracle.send(data_of([("GET", "k"), ("CLIENT", "GETNAME")]))
        self.assertEqual(oracle.read_replies(3), client.read_replies(3))
        self.wait_leased(0)


class TrackingTest(LeaseTest):
    def track(self, address, options, reads, writes, count):
        self.direct.pipeline([("SET", "k", "1"), ("SET", "p:1", "1")])
        client = self.resp_client(3, address)
        replies = [client.command("CLIENT", "TRACKING", "ON", *options)]
        replies += client.pipeline(reads)
        for command in writes:
            self.direct.command(*command)
        replies += client.read_replies(count)
        replies += client.pipeline([("CLIENT", "TRACKINGINFO"), ("PING",)])
        client.close()
        return replies

    def test_client_tracking_pushes_arrive(self):
        for options, reads, writes, count in (
            ([], [("GET", "k"), ("MGET", "k", "p:1")], [("SET", "k", "2"), ("DEL", "p:1")], 2),
            (["BCAST"], [], [("SET", "x", "2")], 1),
            (["BCAST", "PREFIX", "p:"], [], [("SET", "k", "3"), ("SET", "p:2", "2")], 1),
            (["OPTIN"], [("CLIENT", "CACHING", "YES"), ("GET", "k")], [("SET", "k", "2")], 1),
            (["OPTIN"], [("GET", "k")], [("SET", "k", "2")], 0),
            (["OPTOUT"], [("CLIENT", "CACHING", "NO"), ("GET", "k")], [("SET", "k", "2")], 0),
            ([], [("GET", "k")], [("FLUSHALL",)], 1),
        ):
            with self.subTest(options, reads=reads):
                replies = self.assert_same_talk(self.track, options, reads, writes, count)
                pushes = [reply for reply in replies if reply[:1] == b">"]
                self.assertEqual(count, len(pushes), replies)

    def test_tracking_to_another_tunnel(self):
        """REDIRECT names the connection that receives, so its id must be the real one."""
        receiver, reader = self.resp_client(3), self.client()
        target = receiver.value("CLIENT", "ID")
        self.assertEqual(
            b"+OK\r\n", reader.command("CLIENT", "TRACKING", "ON", "REDIRECT", target)
        )
        self.assertEqual(target, reader.value("CLIENT", "GETREDIR"))
        reader.command("GET", "k")
        self.direct.command("SET", "k", "v")
        self.assertEqual([b"invalidate", [b"k"]], parse(receiver.read_reply()))

    def test_reset_ends_the_tracking(self):
        client = self.resp_client(3)
        client.pipeline([("CLIENT", "TRACKING", "ON"), ("GET", "k")])
        client.pipeline([("RESET",), ("HELLO", "3"), ("GET", "k")])
        self.wait_leased(0)
        self.direct.command("SET", "k", "v")
        self.assertEqual(b"$1\r\nv\r\n", client.command("GET", "k"))


@proxy_only
class RealIdTest(LeaseTest):
    settings = EVERY_COMMAND

    def test_client_id_is_the_one_that_the_server_knows(self):
        client, other = self.client(), self.client()
        client.command("CLIENT", "SETNAME", "known")
        number = client.value("CLIENT", "ID")
        self.assertEqual(str(number), client_row(self.server, name="known")["id"])
        self.assertEqual(number, client.value("CLIENT", "ID"))
        self.assertIn(b"id=%d " % number, client.value("CLIENT", "INFO"))
        self.assertEqual(b":1\r\n", other.command("CLIENT", "KILL", "ID", number))
        self.assertEqual((b"", "eof"), client.read_to_end())
        self.assertEqual(b":0\r\n", other.command("CLIENT", "KILL", "ID", number))
        self.assertEqual(PONG, other.command("PING"))

    def test_client_unblock_finds_it(self):
        client, other = self.client(), self.client()
        number = client.value("CLIENT", "ID")
        for how, expected in (
            ([], b"*-1\r\n"),
            (["TIMEOUT"], b"*-1\r\n"),
            (["ERROR"], b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"),
        ):
            self.assertEqual(b":0\r\n", other.command("CLIENT", "UNBLOCK", number, *how))
            client.send(encode("BLPOP", "l", "0") + encode("PING"))
            self.wait_blocked(1)
            self.assertEqual(b":1\r\n", other.command("CLIENT", "UNBLOCK", number, *how))
            self.assertEqual([expected, PONG], client.read_replies(2))

    def test_trap_P8_who_leaves_a_tunnel_while_it_blocks_takes_no_element(self):
        for turn in range(20):
            client = self.client()
            client.value("CLIENT", "ID")
            client.send(encode("BLPOP", "l", "0") + encode("PING") * (turn * 300))
            self.wait_blocked(1)
            client.close() if turn % 2 else client.shutdown_write()
            self.wait_blocked(0)
            self.assertEqual(1, self.direct.value("RPUSH", "l", "v"))
            self.assertEqual(1, self.direct.value("DEL", "l"))

    def test_client_kill_of_oneself(self):
        client = self.client()
        number = client.value("CLIENT", "ID")
        client.send(encode("CLIENT", "KILL", "ID", number, "SKIPME", "no") + encode("PING"))
        data, _ = client.read_to_end()
        self.assertEqual(b":1\r\n", data)
        with self.assertRaises((Closed, OSError)):
            client.command("PING")


if __name__ == "__main__":
    unittest.main()
