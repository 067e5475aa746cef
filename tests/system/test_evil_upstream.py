"""faults.md, rows 43 to 45: a server whose replies are deep, huge, malformed, or not asked for.
Whatever comes, no reply reaches the wrong client, nothing is allocated from a declared length, and
nearkey goes on."""

import unittest

from fake_valkey import FakeUpstreamTest, bulk, echo_argument
from harness import SLOW, SharedSystemTest, SystemTest, proxy_only, wait_for
from procfs import rss_bytes
from resp import Closed, encode

PONG = b"+PONG\r\n"
MEGABYTE = 1 << 20


class DeepReplyTest(SharedSystemTest):
    SCRIPT = "local t = {7} for i = 1, tonumber(ARGV[1]) - 1 do t = {t} end return t"

    def test_row_43_seven_thousand_levels_from_a_script(self):
        for protocol in ("2", "3"):
            for depth in (9, 1000, 1025, 7000):
                with self.subTest(protocol=protocol, depth=depth):
                    client = self.client()
                    client.command("HELLO", protocol)
                    reply = client.command("EVAL", self.SCRIPT, "0", depth)
                    self.assertEqual(b"*1\r\n" * depth + b":7\r\n", reply)
                    self.assertEqual(b"+OK\r\n", client.command("CLIENT", "SETNAME", "after"))
                    self.assertEqual(PONG, client.command("PING"))


@proxy_only
class EvilTest(FakeUpstreamTest):
    def start(self, **settings):
        defaults = {
            "upstream.connections": 1,
            "upstream.request_timeout_ms": 1000,
            "upstream.queue_timeout_ms": 3000,
        }
        self.nearkey = self.start_nearkey(self.fake.url, settings={**defaults, **settings})
        return self.nearkey

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def assert_recovers(self):
        """The next request of anybody gets its own answer."""
        client = self.client()

        def answered():
            reply = client.command("GET", "recovered")
            self.assertTrue(reply == bulk(b"recovered") or reply.startswith(b"-UPSTREAM"), reply)
            return reply == bulk(b"recovered")

        wait_for(answered, 5, "a GET is answered again")
        self.nearkey.wait_ready(5)


class DeepTest(EvilTest):
    def test_row_43_deep_replies_pass_through_a_shared_connection_unchanged(self):
        self.start()
        client, other = self.client(), self.client()
        for protocol in ("2", "3"):
            client.command("HELLO", protocol)
            other.command("HELLO", protocol)
            for header in (b"*1\r\n", b"*1\r\n" if protocol == "2" else b"%1\r\n+k\r\n"):
                for depth in (7000, 100_000):
                    deep = header * depth + b"$2\r\nhi\r\n"
                    self.fake.answers["get"] = (
                        lambda args, deep=deep: deep if args[1] == b"deep" else bulk(args[1])
                    )
                    other.send(encode("GET", "before"))
                    client.send(encode("GET", "deep") + encode("GET", "next"))
                    other.send(encode("GET", "behind"))
                    self.assertTrue(
                        client.read_reply() == deep, f"{depth} levels are not what they were"
                    )
                    self.assertEqual(bulk(b"next"), client.read_reply())
                    self.assertEqual([bulk(b"before"), bulk(b"behind")], other.read_replies(2))
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_lost_total"))

    def test_every_shape_of_reply_passes_through_unchanged(self):
        self.start()
        shapes2 = [
            b"+\r\n",
            b"+OK\r\n",
            b"-ERR x\r\n",
            b":0\r\n",
            b":-9223372036854775808\r\n",
            b"$0\r\n\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*3\r\n$-1\r\n*-1\r\n*0\r\n",
            b"*2\r\n-ERR inside\r\n:1\r\n",
            b"$3\r\n\r\n:\r\n",
        ]
        shapes3 = shapes2 + [
            b"_\r\n",
            b"#t\r\n",
            b"#f\r\n",
            b",1.5\r\n",
            b",inf\r\n",
            b",-inf\r\n",
            b",nan\r\n",
            b",1e5\r\n",
            b",0.10000000000000001\r\n",
            b"(3492890328409238509324850943850943825024385\r\n",
            b"=7\r\ntxt:abc\r\n",
            b"!5\r\nERR x\r\n",
            b"~2\r\n:1\r\n:2\r\n",
            b"%0\r\n",
            b"%1\r\n+a\r\n~0\r\n",
            b"*2\r\n_\r\n%1\r\n$1\r\nk\r\n=5\r\ntxt:\n\r\n",
        ]
        for protocol, shapes in (("2", shapes2), ("3", shapes3)):
            client = self.client()
            client.command("HELLO", protocol)
            for shape in shapes:
                with self.subTest(shape, protocol=protocol):
                    self.fake.answers["get"] = shape
                    self.assertEqual(shape, client.command("GET", "x"))
            self.fake.answers["get"] = lambda args, shapes=shapes: shapes[int(args[1])]
            client.send(b"".join(encode("GET", i) for i in range(len(shapes))))
            self.assertEqual(shapes, client.read_replies(len(shapes)))


class HugeHeaderTest(EvilTest):
    def test_row_44_a_declared_length_allocates_nothing(self):
        self.start()
        client = self.client()
        client.command("GET", "warm")
        before = rss_bytes(self.nearkey.pid)
        for header in (
            b"*888888888\r\n",
            b"*2147483647\r\n",
            b"$536870912\r\n",
            b"*3\r\n*888888888\r\n",
        ):
            with self.subTest(header):
                self.fake.answers["get"] = header
                client.send(encode("GET", "evil"))
                wait_for(
                    lambda: [b"GET", b"evil"] in self.fake.received,  # A PING may be behind it.
                    3,
                    "the server has answered",
                )
                # No reply can be complete: it times out, or the server's promise is refused at
                # once.
                reply = client.read_reply()
                self.assertTrue(reply.startswith((b"-UPSTREAMTIMEOUT", b"-UPSTREAMLOST")), reply)
                if not SLOW:
                    self.assertLess(rss_bytes(self.nearkey.pid) - before, 8 * MEGABYTE)
                self.fake.received.clear()
        self.fake.answers["get"] = echo_argument

    def test_row_44_the_connection_is_cut_in_the_middle_of_a_reply(self):
        self.start()
        for partial in (
            b"*888888888\r\n",
            b"$10\r\n12345",
            b"*3\r\n$1\r\na\r\n:5\r\n",
            b"+no newline",
            b"$3\r\nabc\r",
            b"*",
            b":12",
        ):
            with self.subTest(partial):
                client, bystander = self.client(), self.client()
                self.fake.close_after = {partial}
                self.fake.answers["get"] = (
                    lambda args, partial=partial: partial if args[1] == b"evil" else bulk(args[1])
                )
                self.fake.answers["incr"] = partial
                for command in (("GET", "evil"), ("INCR", "evil")):
                    reply = client.command(*command)
                    self.assertTrue(reply.startswith(b"-UPSTREAMLOST"), reply)
                    # Never padded, and nothing half-written before the error: the next reply is in
                    # its place.
                    self.assertEqual(b"+OK\r\n", client.command("CLIENT", "SETNAME", "next"))
                self.assertEqual(bulk(b"mine"), bystander.command("GET", "mine"))
        evil_writes = [args for args in self.fake.received if args[0].upper() == b"INCR"]
        self.assertEqual(7, len(evil_writes), "a write was sent twice")


class MalformedTest(EvilTest):
    # It is clear where these end, so the asker, and nobody else, may be given them as they are.
    FRAMED = [b":12x\r\n", b":\r\n", b"$5\r\nhelloXX"]
    EVIL = [
        *FRAMED,
        b"@what\r\n",
        b"hello\r\n",
        b"\r\n",
        b"$-5\r\n",
        b"$5x\r\nhello\r\n",
        b"*-7\r\n",
        b"*x\r\n",
        b"$99999999999999999999\r\n",
        b"*99999999999999999999\r\n",
        b"$\r\n",
        b"*\r\n",
        b"\0\0\0\0\r\n",
    ]

    def test_row_44_malformed_replies_cost_only_what_was_in_flight(self):
        self.start()
        for evil in self.EVIL:
            with self.subTest(evil):
                self.fake.answers["get"] = (
                    lambda args, evil=evil: evil if args[1] == b"evil" else bulk(args[1])
                )
                client, bystander = self.client(), self.client()
                client.send(encode("GET", "evil") + encode("CLIENT", "SETNAME", "next"))
                try:
                    reply = self.first_reply(client, evil)
                    following = client.read_reply()
                    self.assertTrue(reply.startswith(b"-UPSTREAM") or evil in self.FRAMED, reply)
                    self.assertEqual(b"+OK\r\n", following)
                except Closed:
                    # To close the client that asked is honest as well; to answer it with garbage is
                    # not.
                    pass
                self.fake.answers["get"] = echo_argument
                self.assert_mine(bystander)
        self.assert_recovers()

    def first_reply(self, client, evil):
        """Framed replies are taken as bytes: the client of these tests is as strict as nearkey may
        be lenient."""
        while len(client.buffer) < len(evil) and not client.buffer.startswith(b"-"):
            if not client.receive_some():
                raise Closed()
        if evil in self.FRAMED and client.buffer.startswith(evil):
            del client.buffer[: len(evil)]
            return evil
        return client.read_reply()

    def assert_mine(self, client):
        def mine():
            reply = client.command("GET", "mine")
            self.assertTrue(reply == bulk(b"mine") or reply.startswith(b"-UPSTREAM"), reply)
            return reply == bulk(b"mine")

        wait_for(mine, 5, "the bystander is answered")

    def test_row_44_a_reply_that_nobody_asked_for_reaches_nobody(self):
        self.start()
        for stray in (
            b"+STRAY\r\n",
            b"$5\r\nSTRAY\r\n",
            b"-STRAY error\r\n",
            b"*1\r\n+STRAY\r\n",
            b"*3\r\n$7\r\nmessage\r\n+c\r\n+STRAY\r\n",
            b"+STRAY\r\n" * 3,
        ):
            with self.subTest(stray):
                self.fake.answers["get"] = lambda args, stray=stray: bulk(args[1]) + (
                    stray if args[1] == b"evil" else b""
                )
                client, other = self.client(), self.client()
                self.assertIn(client.command("GET", "evil"), (bulk(b"evil"),))
                for i in range(20):
                    for asker in (other, client):
                        reply = asker.command("GET", f"own{i}")
                        self.assertNotIn(b"STRAY", reply)
                        self.assertTrue(
                            reply == bulk(b"own%d" % i) or reply.startswith(b"-UPSTREAM"), reply
                        )
        self.assert_recovers()

    def test_row_44_a_stray_reply_before_that_to_a_question_of_nearkeys_own(self):
        """It is taken for the answer, and the answer for the reply to the next request, unless it
        is seen that it can be none."""
        # None is made beside one whose reply is late: GETs would go there.
        self.start(**{"upstream.connections_max": 1})
        for question in (b"hello", b"ping", b"info"):
            for stray in (b"$5\r\nSTRAY\r\n", b"+STRAY\r\n", b":1\r\n", b"*1\r\n+STRAY\r\n"):
                # Where it could be an answer to HELLO, the next one is none to PING.
                with self.subTest(question, stray=stray):
                    self.check_stray(question, stray)

    def check_stray(self, question, stray):
        def lost():
            return self.nearkey.metric("nearkey_upstream_protocol_errors_total")

        before, client = lost(), self.client()
        self.fake.stray = (question, stray)
        asked = []

        def is_lost():
            client.send(encode("GET", f"own{len(asked)}") * 3)
            asked.extend([bulk(b"own%d" % len(asked))] * 3)
            return lost() > before

        wait_for(is_lost, 10, "the connection is lost")
        self.fake.stray = None
        for expected in asked:
            reply = client.read_reply()
            self.assertTrue(reply == expected or reply.startswith(b"-UPSTREAM"), reply)
        self.assert_recovers()

    def test_row_45_a_push_on_a_shared_connection_reaches_nobody(self):
        self.start()
        push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
        self.fake.answers["get"] = lambda args: push + bulk(args[1]) + push
        client, other = self.client(), self.client()
        client.command("HELLO", "3")
        other.command("HELLO", "3")
        for i in range(20):
            self.assertEqual(bulk(b"own%d" % i), client.command("GET", f"own{i}"))
            self.assertEqual(bulk(b"other%d" % i), other.command("GET", f"other{i}"))

    def test_row_45_resp3_types_never_reach_a_resp2_client(self):
        """A server that answers RESP3 on a RESP2 connection is broken: an error, or its bytes, but
        for the asker only."""
        self.start()
        self.fake.answers["get"] = (
            lambda args: b"%1\r\n+a\r\n+b\r\n" if args[1] == b"evil" else bulk(args[1])
        )
        client, other = self.client(), self.client()
        client.send(encode("GET", "evil") + encode("CLIENT", "SETNAME", "next"))
        try:
            client.read_reply()
            self.assertEqual(b"+OK\r\n", client.read_reply())
        except Closed:
            pass
        self.fake.answers["get"] = echo_argument
        self.assert_mine(other)


if __name__ == "__main__":
    unittest.main()
