"""Commands about the session itself: answered here, with the bytes that Valkey would have sent.
Commands that leave state on a connection never reach one that is shared with others."""

import threading
import time
import unittest

from harness import EVERY_COMMAND, SLOWNESS, SharedSystemTest, proxy_only, wait_for
from resp import encode, parse

STATEFUL = [
    ("MULTI",),
    ("EXEC",),
    ("DISCARD",),
    ("WATCH", "k"),
    ("UNWATCH",),
    ("SUBSCRIBE", "c"),
    ("PSUBSCRIBE", "c*"),
    ("SSUBSCRIBE", "c"),
    ("UNSUBSCRIBE",),
    ("PUNSUBSCRIBE",),
    ("SUNSUBSCRIBE",),
    ("MONITOR",),
    ("CLIENT", "REPLY", "OFF"),
    ("CLIENT", "REPLY", "SKIP"),
    ("CLIENT", "REPLY", "ON"),
    ("CLIENT", "TRACKING", "ON"),
    ("CLIENT", "CACHING", "YES"),
    ("CLIENT", "NO-EVICT", "ON"),
    ("CLIENT", "NO-TOUCH", "ON"),
    ("SYNC",),
    ("PSYNC", "?", "-1"),
    ("REPLCONF", "listening-port", "1"),
    ("READONLY",),
    ("READWRITE",),
    ("ASKING",),
    ("AUTH", "nobody", "nothing"),
    ("WAIT", "0", "10"),
]

class LocalCommandsTest(SharedSystemTest):
    def test_hello(self):
        for commands in (
            [("HELLO",)],
            [("HELLO", "2")],
            [("HELLO", "3")],
            [("hello", "3"), ("HELLO",), ("GET", "none")],
            [("HELLO", "3"), ("HELLO", "2"), ("GET", "none")],
            [("HELLO", "2"), ("HELLO",), ("GET", "none")],
            [("HELLO", "4")],
            [("HELLO", "1")],
            [("HELLO", "x")],
            [("HELLO", "")],
            [("HELLO", "-1")],
            [("HELLO", "3"), ("HELLO", "4"), ("GET", "none")],
            [("HELLO", "99999999999999999999")],
        ):
            with self.subTest(commands):
                self.assert_same_replies(commands)
        self.assertEqual(
            b"_\r\n", self.assert_same_replies([("HELLO", "3"), ("HELLO",), ("GET", "none")])[2]
        )
        self.assertTrue(self.assert_same_replies([("HELLO", "4")])[0].startswith(b"-NOPROTO "))

    def test_hello_names_the_server_and_gives_each_client_an_id_of_its_own(self):
        ids = set()
        for _ in range(5):
            answer = self.client().value("HELLO", "3")
            self.assertEqual(
                [b"server", b"version", b"proto", b"id", b"mode", b"role", b"modules"], list(answer)
            )
            self.assertGreater(answer[b"id"], 0)
            ids.add(answer[b"id"])
        self.assertEqual(5, len(ids))

    def test_hello_setname(self):
        for commands in (
            [("HELLO", "3", "SETNAME", "me"), ("CLIENT", "GETNAME")],
            [("HELLO", "2", "setname", "me"), ("CLIENT", "GETNAME")],
            [("HELLO", "3", "SETNAME", "not a name"), ("CLIENT", "GETNAME")],
            [("HELLO", "4", "SETNAME", "me"), ("CLIENT", "GETNAME")],
            [("HELLO", "3", "SETNAME"), ("CLIENT", "GETNAME")],
            [("HELLO", "3", "SETNAME", "a", "SETNAME", "b"), ("CLIENT", "GETNAME")],
            [("HELLO", "3", "NOSUCH"), ("CLIENT", "GETNAME")],
            [("HELLO", "3", "NOSUCH", "x"), ("GET", "none")],
            [("CLIENT", "SETNAME", "kept"), ("HELLO", "3"), ("CLIENT", "GETNAME")],
        ):
            with self.subTest(commands):
                self.assert_same_replies(commands)

    def test_client_setname_and_getname(self):
        for commands in (
            [("CLIENT", "GETNAME")],
            [("HELLO", "3"), ("CLIENT", "GETNAME")],
            [("CLIENT", "SETNAME", "me"), ("client", "getname")],
            [("CLIENT", "SETNAME", "me"), ("CLIENT", "SETNAME", ""), ("CLIENT", "GETNAME")],
            [("CLIENT", "SETNAME", "a b"), ("CLIENT", "GETNAME")],
            [("CLIENT", "SETNAME", "a\nb")],
            [("CLIENT", "SETNAME", "\x7f")],
            [("CLIENT", "SETNAME", "caf\u00e9")],
            [("CLIENT", "SETNAME", "x" * 2000), ("CLIENT", "GETNAME")],
            [("CLIENT", "SETNAME")],
            [("CLIENT", "SETNAME", "a", "b")],
            [("CLIENT", "GETNAME", "x")],
            [("CLIENT",)],
            [("CLIENT", "NOSUCH")],
            [("CLIENT", "NO\r\nSUCH")],
            [("client", "nosuch", "a")],
        ):
            with self.subTest(commands):
                self.assert_same_replies(commands)

    def test_client_setinfo(self):
        for commands in (
            [("CLIENT", "SETINFO", "lib-name", "redis-py")],
            [("CLIENT", "SETINFO", "LIB-VER", "1.2.3")],
            [("CLIENT", "SETINFO", "lib-name", "a b")],
            [("CLIENT", "SETINFO", "lib-ver", "a\nb")],
            [("CLIENT", "SETINFO", "lib-name", "")],
            [("CLIENT", "SETINFO", "nosuch", "x")],
            [("CLIENT", "SETINFO", "lib-name")],
            [("CLIENT", "SETINFO")],
            [("CLIENT", "SETINFO", "a", "b", "c")],
        ):
            with self.subTest(commands):
                self.assert_same_replies(commands)

    def test_select(self):
        for argument in (
            "0",
            "1",
            "15",
            "16",
            "99",
            "-1",
            "x",
            "",
            "01",
            "+1",
            " 1",
            "2147483648",
            "99999999999999999999",
        ):
            with self.subTest(argument):
                self.assert_same_replies([("SELECT", argument), ("PING",)])
        self.assert_same_replies([("SELECT",), ("SELECT", "1", "2"), ("PING",)])

    def test_select_chooses_the_database_and_an_error_leaves_it(self):
        client = self.client()
        replies = client.pipeline(
            [
                ("SET", "k", "zero"),
                ("SELECT", "3"),
                ("SET", "k", "three"),
                ("SELECT", "99"),
                ("GET", "k"),
                ("SELECT", "0"),
                ("GET", "k"),
                ("SELECT", "3"),
                ("GET", "k"),
            ]
        )
        self.assertEqual([b"three", b"zero", b"three"], [parse(replies[i]) for i in (4, 6, 8)])
        self.assertEqual(b"zero", self.client().value("GET", "k"))

    def test_quit(self):
        self.assertEqual(
            b"+PONG\r\n+OK\r\n",
            self.assert_same_answer(
                encode("PING") + encode("QUIT") + encode("SET", "after", "quit")
            ),
        )
        self.assert_same_answer(encode("quit", "now", "please") + encode("PING"))
        self.assert_same_answer(b"QUIT\r\nPING\r\n")
        self.assertIsNone(self.direct.value("GET", "after"))
        client = self.client()
        client.send(encode("QUIT"))
        self.assertEqual((b"+OK\r\n", "eof"), client.read_to_end())

    def test_reset(self):
        self.direct.command("SET", "k", "zero")
        replies = self.assert_same_replies(
            [
                ("HELLO", "3", "SETNAME", "me"),
                ("SELECT", "3"),
                ("RESET",),
                ("GET", "k"),
                ("GET", "none"),
                ("CLIENT", "GETNAME"),
            ]
        )
        self.assertEqual([b"+RESET\r\n", b"$4\r\nzero\r\n", b"$-1\r\n", b"$-1\r\n"], replies[2:])
        self.assert_same_replies([("RESET", "x"), ("RESET",), ("PING",)])

    def test_echo_and_ping(self):
        for commands in (
            [("ECHO", "x")],
            [("ECHO", "")],
            [("ECHO", bytes(range(256)))],
            [("echo", "x" * 300000)],
            [("ECHO",)],
            [("ECHO", "a", "b")],
            [("PING",)],
            [("ping", "x")],
            [("PING", "")],
            [("PING", "a", "b")],
            [("HELLO", "3"), ("PING",), ("PING", "x"), ("ECHO", "y")],
        ):
            with self.subTest(commands):
                self.assert_same_replies(commands)

    def test_unknown_commands_and_wrong_arity(self):
        for command in (
            ("FOOBAR",),
            ("foobar", "a", "b c", "d'e"),
            ("FOO\r\nBAR", "x\ny"),
            ("F" * 300, "a"),
            ("",),
            ("FOO", "y" * 300, "z"),
            ("FOO", *["12345678"] * 40),
            ("FOO", ""),
            ("GET",),
            ("get", "a", "b"),
            ("SET", "k"),
            ("MSET", "a"),
            ("OBJECT",),
            ("OBJECT", "NOSUCH"),
            ("CONFIG", "NOSUCH"),
            ("XINFO", "NOSUCH", "a"),
            ("COMMAND", "NOSUCH"),
            ("MEMORY",),
            ("EVAL", "return 1"),
            ("SET", "k", "v", "NOSUCH"),
            ("FO\0O",),
            ("\xff\xfe",),
        ):
            with self.subTest(command):
                self.assert_same_replies([("PING",), command, ("ECHO", "after")])
        self.assertEqual(
            b"-ERR unknown command 'FOOBAR', with args beginning with: 'a' \r\n",
            self.client().command("FOOBAR", "a"),
        )


@proxy_only
class StatefulCommandsTest(SharedSystemTest):
    # Without a near cache nothing is tracked, and "flags" must say so.
    settings = {"upstream.connections": 1, "near_cache.enabled": "false", **EVERY_COMMAND}

    def test_stateful_commands_never_reach_a_shared_connection(self):
        bystander = self.client()
        bystander.command("SET", "mine", "yes")
        shared = self.connection_of(bystander)
        for protocol in ("2", "3"):
            for command in STATEFUL:
                with self.subTest(command, protocol=protocol):
                    self.check_one(bystander, shared, protocol, command)

    def connection_of(self, client):
        """The id of the shared connection that carries the client's commands."""
        client.command("GET", "who")
        rows = [row for row in self.server.clients() if row["cmd"] == "get"]
        self.assertEqual(1, len(rows), rows)
        return rows[0]["id"]

    def check_one(self, bystander, shared, protocol, command):
        client = self.client()
        client.command("HELLO", protocol)
        client.send(encode(*command) + encode("SET", "k", "1"))
        self.assertEqual(
            [b"$3\r\nyes\r\n", b":1\r\n", b"+PONG\r\n"],
            bystander.pipeline([("GET", "mine"), ("EXISTS", "mine"), ("PING",)]),
        )
        for row in self.server.clients():
            if row["id"] == shared or row["name"] == "nearkey":
                self.assertRegex(row["flags"], "^[NU]+$", row)
                self.assertEqual(
                    ("0", "0", "0", "-1"),
                    (row["sub"], row["psub"], row["watch"], row["redir"]),
                    row,
                )
        client.close()
        wait_for(
            lambda: self.nearkey.metric("nearkey_upstream_dedicated_leased") == 0,
            3,
            "the connection is given back or closed",
        )
        for row in self.server.clients():
            self.assertRegex(row["flags"], "^[NU]+$", row)
            self.assertEqual(("0", "0", "0"), (row["sub"], row["psub"], row["watch"]), row)

    def test_a_blocking_command_holds_up_nobody_else(self):
        blocked, bystander = self.client(), self.client()
        blocked.send(encode("BLPOP", "queue", "1") + encode("ECHO", "next"))
        worst = 0.0
        deadline = time.monotonic() + 0.8
        while time.monotonic() < deadline:
            begin = time.monotonic()
            self.assertEqual(b"+OK\r\n", bystander.command("SET", "k", "v"))
            worst = max(worst, time.monotonic() - begin)
        self.assertLess(worst, 0.4 * SLOWNESS)
        first, second = blocked.read_replies(2)
        self.assertTrue(first.startswith(b"-") or first == b"*-1\r\n", first)
        self.assertEqual(b"$4\r\nnext\r\n", second)

    def test_a_transaction_of_one_client_is_never_interleaved_with_another(self):
        """Whatever MULTI is answered, commands of others are neither queued into it nor lost."""
        stop = threading.Event()
        failures = []

        def increment(key):
            client = self.client()
            for expected in range(1, 100000):
                if stop.is_set():
                    return
                reply = client.command("INCR", key)
                if reply != b":%d\r\n" % expected:
                    failures.append(reply)
                    return

        threads = [threading.Thread(target=increment, args=(f"n{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        client = self.client()
        for _ in range(100):
            multi, *rest = client.pipeline([("MULTI",), ("INCR", "t"), ("EXEC",), ("PING",)])
            self.assertTrue(multi.startswith((b"-", b"+OK")), multi)
            self.assertEqual(b"+PONG\r\n", rest[-1])
        stop.set()
        for thread in threads:
            thread.join(10)
        self.assertEqual([], failures)

    def test_shutdown_of_the_server_is_not_ours_to_forward(self):
        """SHUTDOWN would end the server for every process of the host; Valkey's own answer would be
        no answer."""
        client = self.client()
        client.send(encode("SHUTDOWN", "NOSUCH"))
        self.assertTrue(client.read_reply().startswith(b"-"))
        self.assertTrue(self.server.answers())


if __name__ == "__main__":
    unittest.main()
