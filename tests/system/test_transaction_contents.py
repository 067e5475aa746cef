"""What may stand in a transaction: in one write, step by step and in both protocols, each reply has
the bytes that Valkey itself sends."""

import unittest

from harness import EVERY_COMMAND, proxy_only
from leases import LeaseTest
from resp import encode, parse

OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
# What the session is and has afterwards.
AFTER = [("CLIENT", "GETNAME"), ("GET", "k"), ("GET", "none"), ("PING",)]


def between(*commands):
    return [("MULTI",), *commands, ("EXEC",)]


ORDINARY = {
    "empty": between(),
    "several": between(("SET", "k", "1"), ("INCR", "k"), ("LPUSH", "l", "a"), ("LLEN", "l")),
    "types": between(("HSET", "h", "f", "v"), ("HGETALL", "h"), ("ZADD", "z", "1.5", "m"),
                     ("ZSCORE", "z", "m"), ("GET", "none"), ("LMPOP", 1, "none", "LEFT")),
    "discard": [("MULTI",), ("SET", "k", "1"), ("DISCARD",)],
    "two": between(("SET", "k", "1")) + between(("INCR", "k")),
    "arguments": [("MULTI", "x"), ("EXEC", "x"), ("DISCARD", "x"), ("WATCH",), ("UNWATCH", "x")],
    "arguments inside": [("MULTI",), ("MULTI", "x"), ("SET", "k", "1"), ("EXEC",), ("EXEC",)],
    "exec with arguments inside": [("MULTI",), ("SET", "k", "1"), ("EXEC", "x"), ("EXEC",)],
    "discard with arguments": [("MULTI",), ("SET", "k", "1"), ("DISCARD", "x"), ("DISCARD",)],
    "nested": [("MULTI",), ("SET", "k", "1"), ("MULTI",), ("SET", "k", "2"), ("EXEC",), ("EXEC",)],
    "without": [("EXEC",), ("DISCARD",), ("UNWATCH",)],
    "exec after watch": [("WATCH", "k"), ("EXEC",), ("SET", "k", "1"), ("MULTI",), ("EXEC",)],
    "discard after watch": [("WATCH", "k"), ("DISCARD",), ("SET", "k", "1"), ("MULTI",), ("EXEC",)],
    "watch inside": [("WATCH", "k"), *between(("WATCH", "l"), ("SET", "k", "1"))],
    "unwatch inside": [("WATCH", "k"), *between(("UNWATCH",), ("SET", "k", "1"))],
    "unwatch": [("WATCH", "k"), ("SET", "k", "1"), ("UNWATCH",), *between(("SET", "k", "2"))],
    "watch that is not one": [("WATCH", "k"), ("WATCH",), ("SET", "k", "1"), ("UNWATCH",)],
}
ERRORS = {
    "unknown": between(("SET", "k", "1"), ("NOSUCH", "a b"), ("SET", "k", "2")),
    "wrong arity": between(("SET", "k", "1"), ("GET",), ("SET", "k", "2")),
    "unknown, discarded": [("MULTI",), ("NOSUCH",), ("DISCARD",), ("SET", "k", "1")],
    "unknown subcommand": between(("CLIENT", "NOSUCH"), ("SET", "k", "1")),
    "wrong type": between(("SET", "k", "text"), ("INCR", "k"), ("LPUSH", "k", "x"), ("GET", "k")),
    "syntax": between(("SET", "k", "1"), ("SET", "k", "2", "NOSUCH")),
    "shutdown": between(("SHUTDOWN", "NOSUCH", "NOSUCH", "NOSUCH", "NOSUCH", "NOSUCH")),
    "after an abort": between(("NOSUCH",)) + between(("SET", "k", "1")),
}
# What would change the session, were it not inside.
STATEFUL = {
    "select": between(("SET", "k", "0"), ("SELECT", "3"), ("SET", "k", "3"), ("GET", "k")),
    "select nowhere": between(("SELECT", "99"), ("SET", "k", "0")),
    "select, discarded": [("MULTI",), ("SELECT", "3"), ("DISCARD",), ("SET", "k", "0")],
    "hello": between(("HELLO", "3"), ("GET", "none")),
    "hello back": between(("HELLO", "2"), ("GET", "none")),
    "hello setname": between(("HELLO", "3", "SETNAME", "me"), ("CLIENT", "GETNAME")),
    "hello of another world": between(("HELLO", "4"), ("SET", "k", "1")),
    "setname": between(("CLIENT", "SETNAME", "me"), ("CLIENT", "GETNAME")),
    "bad name": between(("CLIENT", "SETNAME", "a b"), ("CLIENT", "GETNAME")),
    "setinfo": between(("CLIENT", "SETINFO", "lib-name", "me"), ("CLIENT", "GETNAME")),
    "reset": [("MULTI",), ("CLIENT", "SETNAME", "me"), ("RESET",), ("EXEC",), ("SET", "k", "1")],
    "reset at once": [("WATCH", "k"), ("MULTI",), ("RESET",), ("MULTI",), ("EXEC",)],
    "client reply on": between(("CLIENT", "REPLY", "ON"), ("SET", "k", "1")),
    "tracking": between(("CLIENT", "TRACKING", "OFF"), ("CLIENT", "GETREDIR"), ("SET", "k", "1")),
    "no-evict": between(("CLIENT", "NO-EVICT", "ON"), ("SET", "k", "1")),
    "readonly": between(("READONLY",), ("SET", "k", "1")),
    "replconf": between(("REPLCONF", "listening-port", "1"), ("SET", "k", "1")),
}
SUBSCRIBING = {
    "subscribe": between(("SET", "k", "1"), ("SUBSCRIBE", "c")),
    "psubscribe": between(("PSUBSCRIBE", "c*"), ("SET", "k", "1")),
    "ssubscribe": between(("SSUBSCRIBE", "c")),
    "unsubscribe": between(("UNSUBSCRIBE", "c"), ("SET", "k", "1")),
    "monitor": between(("MONITOR",), ("SET", "k", "1")),
    "subscribe, discarded": [("MULTI",), ("SUBSCRIBE", "c"), ("DISCARD",), ("SET", "k", "1")],
}
# What waits elsewhere does not wait inside.
WAITING = {
    "blpop": between(("BLPOP", "l", "0"), ("SET", "k", "1")),
    "blpop of something": between(("RPUSH", "l", "a"), ("BLPOP", "l", "0"), ("LLEN", "l")),
    "blmove": between(("BLMOVE", "a", "b", "LEFT", "LEFT", "0"), ("BZPOPMIN", "z", "0")),
    "xread": between(("XREAD", "BLOCK", "0", "STREAMS", "x", "$"), ("SET", "k", "1")),
    "wait": between(("SET", "k", "1"), ("WAIT", "0", "0"), ("WAIT", "1", "0")),
    "eval": between(("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", "k", "s")),
    "eval error": between(("EVAL", "return nosuch", "0"), ("EVAL", "not lua", "0")),
    "publish": between(("PUBLISH", "c", "m"), ("SPUBLISH", "c", "m")),
    "flush": [("SET", "k", "1"), *between(("FLUSHALL",), ("DBSIZE",))],
    "debug": between(("DEBUG", "SLEEP", "0"), ("SET", "k", "1")),
}


class ContentsTest(LeaseTest):
    settings = EVERY_COMMAND

    def in_one_write(self, address, protocol, commands):
        client = self.resp_client(protocol, address)
        try:
            return client.pipeline(commands)
        finally:
            client.close()

    def step_by_step(self, address, protocol, commands):
        client = self.resp_client(protocol, address)
        try:
            return [client.command(*command) for command in commands]
        finally:
            client.close()

    def check(self, table, after=AFTER):
        for name, commands in table.items():
            for protocol in (2, 3):
                for way in (self.in_one_write, self.step_by_step):
                    with self.subTest(name, protocol=protocol, way=way.__name__):
                        self.assert_same_talk(way, protocol, commands + after)

    def test_ordinary_ones(self):
        self.check(ORDINARY)

    def test_errors_inside(self):
        self.check(ERRORS)
        client = self.client()
        replies = client.pipeline(between(("SET", "k", "1"), ("NOSUCH",)))
        self.assertTrue(replies[2].startswith(b"-ERR unknown command 'NOSUCH'"), replies[2])
        self.assertTrue(replies[3].startswith(b"-EXECABORT "), replies[3])

    def test_what_changes_the_session(self):
        self.check(STATEFUL)
        self.server.run("FLUSHALL")
        client = self.client()
        client.pipeline(between(("SELECT", "5"), ("CLIENT", "SETNAME", "five")))
        self.assertEqual(b"five", client.value("CLIENT", "GETNAME"))
        client.command("SET", "k", "in five")
        self.assertIsNone(self.direct.value("GET", "k"))
        client.command("RESET")
        self.assertIsNone(client.value("GET", "k"))

    def test_trap_P3_a_failing_auth_inside(self):
        """Valkey swallows the error, so EXEC's reply is an element short: so be it."""
        for auth in (("AUTH", "nobody", "nothing"), ("HELLO", "3", "AUTH", "nobody", "nothing")):
            commands = between(auth, ("SET", "k", "1"))
            self.assert_same_answer(b"".join(encode(*command) for command in commands))

    def test_subscriptions(self):
        self.check(SUBSCRIBING, [("PING",)])

    def test_what_waits_elsewhere(self):
        self.check(WAITING)

    def test_quit_inside(self):
        for data in (
            b"".join(encode(*c) for c in (("MULTI",), ("SET", "k", "1"), ("QUIT",), ("EXEC",))),
            encode("WATCH", "k") + encode("QUIT") + encode("SET", "k", "1"),
        ):
            self.assert_same_answer(data)
            self.assertIsNone(self.direct.value("GET", "k"))

    def test_bytes_that_are_not_resp_inside(self):
        for rest in (b"*x\r\n", b"*1\r\n:1\r\n", b"*2\r\n$3\r\nGET\r\n$-5\r\n", b"GET 'k\r\n"):
            for first in (encode("MULTI"), encode("MULTI") + encode("SET", "k", "1")):
                self.assert_same_answer(first + rest + encode("EXEC"))
        self.assertIsNone(self.direct.value("GET", "k"))

    def test_inline_commands_inside(self):
        self.assertIn(
            b"*2\r\n+OK\r\n:2\r\n",
            self.assert_same_answer(b"MULTI\r\nSET k 1\r\n\r\n  INCR 'k' \nEXEC\r\nPING\r\n"),
        )
        self.assert_same_answer(b"MULTI\nSELECT 3\nEXEC\nPING\n")

    def test_http_inside_is_closed_without_an_answer(self):
        for data in (b"MULTI\r\nPOST / HTTP/1.1\r\n\r\n", b"WATCH k\r\nHost: here\r\n\r\n"):
            self.assert_same_answer(data)
        data = encode("MULTI") + encode("SET", "k", "1") + b"POST / HTTP/1.1\r\n" + encode("EXEC")
        self.assert_same_answer(data)
        self.assertIsNone(self.direct.value("GET", "k"))


@proxy_only
class NearkeyInsideTest(LeaseTest):
    def test_nearkey_explain_inside_does_not_disturb_it(self):
        client = self.client()
        self.assertEqual(OK, client.command("MULTI"))
        self.assertEqual(QUEUED, client.command("SET", "k", "1"))
        self.assertFalse(client.command("NEARKEY", "EXPLAIN", "GET", "k").startswith(b"-"))
        self.assertEqual([b"OK"], parse(client.command("EXEC")))


if __name__ == "__main__":
    unittest.main()
