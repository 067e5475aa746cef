"""While a script runs past busy-reply-threshold the server takes MULTI, WATCH, AUTH and little else,
and refuses what nearkey itself must say on a new connection. Each client hears what it would hear
directly, in time, and nothing runs outside of its transaction."""

import unittest

from harness import SLOWNESS, SystemTest, proxy_only, wait_for
from leases import wait_leased
from resp import RespClient, encode

OK, QUEUED, NIL = b"+OK\r\n", b"+QUEUED\r\n", b"$-1\r\n"
ENDLESS = encode("EVAL", "while true do end", "0")
MULTI, INCR, EXEC = ("MULTI",), ("INCR", "n"), ("EXEC",)
WORDS = b"BUSY Valkey is busy running a script."
# Of one client, while the server is busy: what it sends then, one by one or in one write.
TALKS = [
    [MULTI, INCR, EXEC, EXEC],
    [MULTI, INCR, ("DISCARD",), MULTI, ("DISCARD",)],
    [MULTI, ("DISCARD",), ("GET", "k")],
    [MULTI, EXEC, EXEC, ("GET", "k")],
    [("EVAL", "return 1", "0"), ("BLPOP", "l", "1"), ("WAIT", "0", "1")],
    [("SUBSCRIBE", "c"), ("GET", "k")],
    [("CLIENT", "ID"), ("CLIENT", "NO-EVICT", "ON"), ("CLIENT", "REPLY", "ON")],
    [("AUTH", "default", "any"), ("GET", "k")],
    [("AUTH", "nobody", "wrong"), ("GET", "k")],
    [("HELLO", "3", "AUTH", "nobody", "wrong"), ("GET", "k")],
    [("SET", "k", "x" * (2 << 20)), ("GET", "k")],
    [("FCALL", "none", "0"), ("GET", "k")],
]


class BusyTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server("--busy-reply-threshold", "10")
        settings = {"near_cache.enabled": "false", "upstream.request_timeout_ms": 3000}
        self.nearkey = self.start_nearkey(self.server.url, settings=settings)
        self.killer = self.server.client()
        self.addCleanup(self.killer.close)

    def begin_script(self):
        script = self.server.client()
        self.addCleanup(script.close)
        script.send(ENDLESS)
        wait_for(lambda: self.killer.command("PING").startswith(b"-BUSY"), 5, "it is busy")
        return script

    def end_script(self, script):
        self.assertEqual(OK, self.killer.command("SCRIPT", "KILL"))
        script.read_reply()

    def client(self, address, database):
        client = RespClient(address, timeout=4)
        self.addCleanup(client.close)
        client.pipeline([("SELECT", database), ("GET", "k")])
        return client

    def both(self, database):
        return [self.client(each.path, database) for each in (self.server, self.nearkey)]


@proxy_only
class AsDirectlyTest(BusyTest):
    def test_each_command_is_answered_as_directly_and_at_once(self):
        for database in ("0", "9"):
            for commands in TALKS:
                with self.subTest(str(commands)[:80], database=database):
                    oracle, client = self.both(database)
                    script = self.begin_script()
                    try:
                        for command in commands:
                            if command[0] in ("AUTH", "HELLO") and database != "0":
                                continue  # It is answered late: see below.
                            expected = oracle.command(*command)
                            reply = client.command(*command, timeout=SLOWNESS)
                            self.assertEqual(expected, reply, str(command)[:80])
                    finally:
                        self.end_script(script)
                        oracle.close()
                        client.close()
                    wait_leased(self.nearkey, 0)

    def test_in_one_write_too(self):
        for database in ("0", "9"):
            for commands in ([MULTI, INCR], [MULTI, INCR, ("EVAL", "return 1", "0"), EXEC]):
                with self.subTest(commands, database=database):
                    oracle, client = self.both(database)
                    script = self.begin_script()
                    try:
                        self.assertEqual(oracle.pipeline(commands), client.pipeline(commands))
                    finally:
                        self.end_script(script)
                    for each in (oracle, client):
                        each.command("DISCARD")
                    self.assertEqual(oracle.command("GET", "n"), client.command("GET", "n"))
                    oracle.close()
                    client.close()


@proxy_only
class TransactionTest(BusyTest):
    def test_a_transaction_begun_while_it_is_busy_never_runs_in_part(self):
        """As Valkey's own unit/multi: whatever came before the script's end, EXEC fails."""
        for database in ("0", "9"):
            for before in ([MULTI, INCR], [MULTI, INCR, INCR], [MULTI, ("NOSUCH",)]):
                for after in ([INCR, EXEC], [EXEC], [("INCR",), EXEC], [("DISCARD",), EXEC]):
                    with self.subTest(before, after=after, database=database):
                        oracle, client = self.both(database)
                        script = self.begin_script()
                        self.assertEqual(*self.replies(oracle, client, before))
                        self.end_script(script)
                        expected, replies = self.replies(oracle, client, after)
                        self.assertEqual(expected, replies)
                        self.assertEqual(NIL, client.command("GET", "n"))
                        self.assertEqual(b"$4\r\nasdf\r\n", client.command("PING", "asdf"))
                        wait_leased(self.nearkey, 0)

    def test_one_of_which_nothing_was_refused_runs_in_its_own_database(self):
        oracle, client = self.both("9")
        script = self.begin_script()
        self.assertEqual(*self.replies(oracle, client, [MULTI]))
        self.end_script(script)
        expected, replies = self.replies(oracle, client, [INCR, EXEC])
        self.assertEqual([QUEUED, b"*1\r\n:1\r\n"], expected)
        self.assertEqual([QUEUED, b"*1\r\n:2\r\n"], replies)
        self.assertIsNone(self.server.run("GET", "n"))

    def test_watch_is_late_where_its_connection_is(self):
        oracle, client = self.both("9")
        script = self.begin_script()
        self.assertEqual(OK, oracle.command("WATCH", "k"))
        client.send(encode("WATCH", "k"))
        self.assertTrue(client.is_silent(0.3))
        self.end_script(script)
        self.assertEqual(OK, client.read_reply())
        oracle.command("UNWATCH")
        oracle.command("SET", "k", "changed")
        self.assertEqual([OK, QUEUED, b"*-1\r\n"], [client.command(*c) for c in (MULTI, INCR, EXEC)])

    def test_watch_that_is_refused_for_too_long_has_the_words_of_the_server(self):
        client = self.client(self.nearkey.path, "9")
        script = self.begin_script()
        self.assertTrue(client.command("WATCH", "k").startswith(b"-" + WORDS))
        self.end_script(script)
        self.assertEqual(NIL, client.command("GET", "k"))

    def test_auth_is_late_where_its_connection_is(self):
        client = self.client(self.nearkey.path, "9")
        script = self.begin_script()
        client.send(encode("AUTH", "default", "any"))
        self.assertTrue(client.is_silent(0.3))
        self.end_script(script)
        self.assertEqual(OK, client.read_reply())

    @staticmethod
    def replies(oracle, client, commands):
        return [[each.command(*command) for command in commands] for each in (oracle, client)]


@proxy_only
class SlowTest(BusyTest):
    def test_where_the_server_is_late_so_is_the_answer(self):
        """It sleeps for longer than queue_timeout_ms and connect_timeout_ms, and no connection of
        its own is there yet for the client."""
        for number, command in enumerate(
            (
                ("SET", "k", "x" * (2 << 20)),
                ("EVAL", "return 1", "0"),
                ("WATCH", "k"),
                ("MULTI",),
                ("CLIENT", "NO-EVICT", "ON"),
                ("GET", "k"),
            )
        ):
            with self.subTest(command[0]):
                client = self.client(self.nearkey.path, str(number))
                sleeper = self.server.client()
                sleeper.send(encode("DEBUG", "SLEEP", "1.5"))
                self.assertFalse(sleeper.is_silent(0.05) is None)
                reply = client.command(*command)
                self.assertFalse(reply.startswith(b"-"), reply)
                sleeper.read_reply()
                sleeper.close()
                client.close()
                wait_leased(self.nearkey, 0)


if __name__ == "__main__":
    unittest.main()
