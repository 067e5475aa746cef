"""A server that answers at all can be reached: whatever it says of itself, a client of nearkey reads
the very words that it would have read directly.

The table has one row for each state in which Valkey refuses something, and one column for each kind
of client. Where nearkey answers something else on purpose, ANOTHER says so and why; the same is in
docs/compatibility.md, "Words of a live server"."""

import os
import re
import time
import unittest

from harness import EVERY_COMMAND, SystemTest, free_port, proxy_only, wait_for
from namespaces import in_namespace
from resp import Closed, RespClient, encode

OK, PONG = b"+OK\r\n", b"+PONG\r\n"
LARGE = "v" * 200_000
READ = "return redis.call('GET', KEYS[1])"
# Another one for each conversation: no connection of nearkey's has been in it.
databases = iter(range(1, 1000))


def step_by_step(*commands):
    def talk(client):
        return [client.command(*command) for command in commands]

    return talk


def at_once(*commands):
    return lambda client: client.pipeline(commands)


def in_another_database(client):
    return step_by_step(("SELECT", next(databases)), ("GET", "k"), ("SET", "j", "v"))(client)


def first_line_only(talk):
    """What stands behind it differs with the connection and the time."""
    return lambda client: [reply.split(b"\r\n")[0][:1] + reply[1:40] * (reply[:1] == b"-")
                           for reply in talk(client)]  # fmt: skip


KINDS = {
    "a read": step_by_step(("GET", "k")),
    "a write": step_by_step(("SET", "j", "v")),
    "reads and writes in one pipeline": at_once(("GET", "k"), ("SET", "j", "v"), ("GET", "k")),
    "a large write": step_by_step(("SET", "j", LARGE)),
    "PING and ECHO": step_by_step(("PING",), ("ECHO", "x")),
    "another database": in_another_database,
    "RESP3": lambda client: [
        client.command("HELLO", "3")[:1],
        *step_by_step(("GET", "k"), ("GET", "none"), ("SET", "j", "v"))(client),
    ],
    "WATCH, MULTI and EXEC": step_by_step(
        ("WATCH", "k"), ("MULTI",), ("GET", "k"), ("SET", "j", "v"), ("EXEC",), ("UNWATCH",)
    ),
    "a transaction that arrives whole": at_once(
        ("MULTI",), ("GET", "k"), ("SET", "j", "v"), ("EXEC",), ("ECHO", "x")
    ),
    "SUBSCRIBE": step_by_step(("SUBSCRIBE", "c"), ("PING",)),
    "EVAL of a read": step_by_step(("EVAL", READ, "1", "k"), ("EVALSHA", "0" * 40, "0")),
    "INFO, CONFIG GET and TIME": first_line_only(
        step_by_step(("INFO", "server"), ("CONFIG", "GET", "maxmemory"), ("TIME",), ("ROLE",))
    ),
    "a blocking read": step_by_step(("BLPOP", "none", "0.01"), ("BLMOVE", "a", "b", "LEFT", "LEFT", "0.01")),
    "AUTH": step_by_step(("AUTH", "wrong"), ("AUTH", "nobody", "wrong"), ("GET", "k")),
    "an unknown command": step_by_step(("NOSUCH", "x"), ("GET", "k")),
}  # fmt: skip


class Conversation:
    """One client, directly or through nearkey, and what it reads."""

    def __init__(self, address):
        self.client = RespClient(address, timeout=5)

    def replies(self, talk):
        try:
            return talk(self.client)
        except (Closed, OSError) as error:
            return [f"{type(error).__name__}: {error}"]
        finally:
            self.client.close()


@proxy_only
class WordsTest(SystemTest):
    """nearkey is connected when the state begins; then once more with all its connections lost."""

    # What nearkey says in place of the server's words, by kind.
    another = {}

    def start(self, *extra, **settings):
        self.server = self.start_server(*extra, "--databases", "2000")
        self.assertEqual(b"OK", self.server.run("SET", "k", "v"))
        self.nearkey = self.start_nearkey(
            self.server.url, settings={**EVERY_COMMAND, "near_cache.max_staleness_ms": 0, **settings}
        )
        # Those who were there before.
        self.before = {
            address: self.settle(address) for address in (self.server.path, self.nearkey.path)
        }

    def settle(self, address):
        prepared = {
            "was in a database": [("SELECT", "1999"), ("GET", "k")],
            "spoke RESP3": [("HELLO", "3"), ("GET", "k")],
            "watches": [("WATCH", "k")],
            "is in a transaction": [("MULTI",), ("GET", "k")],
            "subscribes": [("SUBSCRIBE", "c")],
        }
        clients = {}
        for kind, commands in prepared.items():
            client = clients[kind] = RespClient(address, timeout=5)
            self.addCleanup(client.close)
            for command in commands:
                client.command(*command)
        return clients

    def assert_same_words(self, kinds=KINDS, another=()):
        differences = []
        for kind, talk in kinds.items():
            expected = Conversation(self.server.path).replies(talk)
            replies = Conversation(self.nearkey.path).replies(talk)
            if kind in dict(another):
                expected = dict(another)[kind]
            if expected != replies:
                differences.append(f"{kind}:\n  directly {expected}\n  nearkey  {replies}")
        self.assertFalse(differences, "\n" + "\n".join(differences))

    def assert_same_words_for_those_who_were_there(self):
        further = {
            "was in a database": [("GET", "k"), ("SET", "j", "v"), ("PING",)],
            "spoke RESP3": [("GET", "none"), ("SET", "j", "v"), ("PING",)],
            "watches": [("MULTI",), ("GET", "k"), ("EXEC",), ("GET", "k")],
            "is in a transaction": [("GET", "k"), ("SET", "j", "v"), ("EXEC",), ("PING",)],
            "subscribes": [("SUBSCRIBE", "d"), ("PING",)],
        }
        for kind, commands in further.items():
            direct, through = (
                [self.before[address][kind].command(*command) for command in commands]
                for address in (self.server.path, self.nearkey.path)
            )
            self.assertEqual(direct, through, kind)

    def lose_all(self):
        """Every connection of nearkey's is lost, and made anew in this state."""
        lost = self.nearkey.metric("nearkey_upstream_reconnects_total")
        with self.server.client() as direct:
            direct.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            direct.command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        return lost

    def ready(self):
        return self.nearkey.get("/readyz")

    def assert_recovers(self):
        self.nearkey.wait_ready(5)
        with self.nearkey.client() as client:
            for command, expected in ((("SET", "j", "v"), OK), (("GET", "k"), b"$1\r\nv\r\n"),
                                      (("PING",), PONG)):  # fmt: skip
                wait_for(lambda: client.command(*command) == expected, 3, f"{command} works again")

    # --- the rows ---

    def test_misconf_a_disk_that_is_full_stops_writes_only(self):
        dump = os.path.join(self.directory, "dump")
        os.mkdir(dump)
        self.start("--dir", dump)
        self.server.run("CONFIG", "SET", "save", "3600 1")
        os.rmdir(dump)
        self.server.run("BGSAVE")
        wait_for(lambda: self.says(b"-MISCONF", "SET", "j", "v"), 5, "Valkey can't save")
        self.assert_same_words_for_those_who_were_there()
        for _ in range(2):
            self.assert_same_words(KINDS)
            status, page = self.ready()
            self.assertEqual(200, status, "reads are answered")
            wait_for(lambda: "MISCONF" in self.ready()[1]["reason"], 2, "readyz says it")
            self.lose_all()
        self.server.run("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        wait_for(lambda: not self.says(b"-MISCONF", "SET", "j", "v"), 5, "Valkey can save")
        self.assert_recovers()
        wait_for(lambda: self.ready()[1]["reason"] == "PONG", 2, "it is over")

    def says(self, words, *command):
        with self.server.client() as direct:
            return direct.command(*command).startswith(words)

    def test_loading_says_so_to_data_and_serves_the_rest(self):
        self.start()
        self.server.run("DEBUG", "POPULATE", "60000")
        self.assertEqual(b"OK", self.server.run("SAVE"))
        self.server.kill()
        self.server.start(
            "--databases", "2000", "--key-load-delay", "300",
            "--loading-process-events-interval-bytes", "1024", wait=False,
        )  # fmt: skip
        wait_for(self.is_loading, 5, "Valkey is loading")
        wait_for(lambda: "LOADING" in self.ready()[1]["reason"], 3, "readyz says why")
        self.assertEqual(503, self.ready()[0], "no application is served")
        self.assert_same_words(KINDS)
        self.lose_all()
        self.assert_same_words(KINDS)
        self.assertEqual(503, self.ready()[0])
        self.assertTrue(self.is_loading(), "it ended too early for this test to mean anything")
        self.server.run("CONFIG", "SET", "key-load-delay", "0")
        wait_for(lambda: not self.is_loading(), 20, "Valkey has loaded")
        self.assert_recovers()

    def is_loading(self):
        try:
            return self.says(b"-LOADING", "PING")
        except OSError:
            return False

    def test_busy_is_said_of_what_valkey_does_not_run_meanwhile(self):
        self.start("--busy-reply-threshold", "1")
        runner = self.server.client()
        self.addCleanup(runner.close)
        self.addCleanup(self.server.kill)
        runner.send(encode("EVAL", "while true do end", "0"))
        wait_for(lambda: self.says(b"-BUSY", "PING"), 5, "Valkey is busy")
        self.assert_same_words({kind: talk for kind, talk in KINDS.items() if kind != "RESP3"})
        with self.nearkey.client() as client:
            self.assertEqual(OK, client.command("SCRIPT", "KILL"))
        self.assertTrue(runner.read_reply().startswith(b"-ERR"))
        self.assert_recovers()

    def test_masterdown_a_replica_without_its_primary(self):
        self.start()
        self.server.run("CONFIG", "SET", "replica-serve-stale-data", "no")
        self.server.run("REPLICAOF", "127.0.0.1", free_port())
        self.assert_same_words_for_those_who_were_there()
        for _ in range(2):
            self.assert_same_words(KINDS)
            self.lose_all()
        wait_for(lambda: "MASTERDOWN" in self.ready()[1]["reason"], 3, "readyz says why")
        self.assertEqual(503, self.ready()[0], "no application is served")
        self.server.run("REPLICAOF", "NO", "ONE")
        self.assert_recovers()

    def test_readonly_a_replica(self):
        self.start()
        self.server.run("REPLICAOF", "127.0.0.1", free_port())
        self.assert_same_words_for_those_who_were_there()
        for _ in range(2):
            self.assert_same_words()
            self.assertEqual(200, self.ready()[0], "reads are answered")
            self.lose_all()
        self.server.run("REPLICAOF", "NO", "ONE")
        self.assert_recovers()

    def test_noreplicas_too_few_to_write(self):
        self.start()
        self.server.run("CONFIG", "SET", "min-replicas-to-write", "1")
        self.assert_same_words_for_those_who_were_there()
        for _ in range(2):
            self.assert_same_words()
            self.assertEqual(200, self.ready()[0], "reads are answered")
            self.lose_all()
        self.server.run("CONFIG", "SET", "min-replicas-to-write", "0")
        self.assert_recovers()

    def test_oom_no_memory_for_a_write(self):
        self.start()
        self.server.run("CONFIG", "SET", "maxmemory", "1")
        self.assert_same_words_for_those_who_were_there()
        for _ in range(2):
            self.assert_same_words()
            self.assertEqual(200, self.ready()[0], "reads are answered")
            self.lose_all()
        self.server.run("CONFIG", "SET", "maxmemory", "0")
        self.assert_recovers()

    def test_noperm_of_what_nearkey_itself_asks(self):
        self.start()
        for command in ("ping", "select", "client", "info", "hello", "command"):
            with self.subTest(command):
                self.server.run("ACL", "SETUSER", "default", f"-{command}")
                for _ in range(2):
                    self.assert_same_words(KINDS if command == "ping" else KINDS)
                    self.assertEqual(200, self.ready()[0], "what is allowed works")
                    self.lose_all()
                    if command == "command":
                        break  # Without COMMAND nearkey knows nothing: see docs/errors.md.
                self.server.run("ACL", "SETUSER", "default", f"+{command}")
                self.assert_recovers()

    def test_noauth_a_password_that_nearkey_does_not_have(self):
        self.start()
        self.server.run("CONFIG", "SET", "requirepass", "new")
        self.server.password = "new"
        self.lose_all()
        self.nearkey.wait_unready(3)
        # RESET, HELLO and what else nearkey answers itself is answered as ever.
        kinds = ("a read", "a write", "reads and writes in one pipeline", "EVAL of a read", "a blocking read",
                 "INFO, CONFIG GET and TIME")  # fmt: skip
        self.assert_same_words({kind: KINDS[kind] for kind in kinds})
        self.assertIn("NOAUTH", self.ready()[1]["reason"])
        self.server.run("CONFIG", "SET", "requirepass", "")
        self.server.password = None
        self.assert_recovers()

    def test_maxclients_the_servers_words_when_it_takes_no_connection(self):
        self.start()
        with self.server.client() as direct:
            self.assertEqual(OK, direct.command("CONFIG", "SET", "maxclients", "1"))
            direct.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            direct.command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
            self.nearkey.wait_unready(3)
            with RespClient(self.server.path) as refused:
                words = refused.read_reply()
            self.assertTrue(words.startswith(b"-ERR max number of clients"), words)
            with self.nearkey.client() as client:
                for command in (("GET", "k"), ("SET", "k", "v"), ("BLPOP", "l", "0.01")):
                    self.assertEqual(words, client.command(*command), self.nearkey.lines)
            self.assertEqual(OK, direct.command("CONFIG", "SET", "maxclients", "1000"))
        self.assert_recovers()


if __name__ == "__main__":
    unittest.main()
