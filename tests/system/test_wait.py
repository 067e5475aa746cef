"""WAIT and WAITAOF with a real replica (traps.md, P9): they count the writes of their own
connection, and a session's writes went over others."""

import os
import unittest

from harness import SystemTest, proxy_only, wait_for
from leases import wait_leased
from resp import encode, parse


@proxy_only
class WaitTest(SystemTest):
    def setUp(self):
        super().setUp()
        aof = ("--appendonly", "yes", "--repl-diskless-sync-delay", "0")
        self.server = self.start_server(*aof, tcp=True)
        folder = os.path.join(self.directory, "replica")
        os.mkdir(folder)
        port = str(self.server.port)
        self.replica = self.start_server(
            *aof, "--replicaof", "127.0.0.1", port, directory=folder, tcp=True, name="replica"
        )
        self.addCleanup(self.replica.thaw)
        wait_for(lambda: self.server.run("WAIT", "1", "100") == 1, 20, "the replica is in sync")
        self.nearkey = self.start_nearkey(self.server.url, settings={"upstream.connections": 2})

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def test_trap_P9_wait_tells_of_writes_over_the_shared_connection(self):
        client = self.client()
        for turn in range(50):
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", turn))
            self.assertEqual(b":1\r\n", client.command("WAIT", "1", "60000"))
            self.assertEqual(b"%d" % turn, self.replica.run("GET", "k"))
        self.assertEqual(b":1\r\n", client.command("WAIT", "2", "20"))
        wait_leased(self.nearkey, 0)

    def test_trap_P9_wait_does_not_count_a_replica_that_has_not_the_writes(self):
        client = self.client()
        for prepare in (
            [],
            [("EVAL", "return 1", "0")],
            [("WATCH", "k"), ("UNWATCH",)],
            [("SELECT", "3")],
            [("HELLO", "3")],
            [("MULTI",), ("SET", "before", "1"), ("EXEC",)],
        ):
            with self.subTest(prepare):
                self.replica.thaw()
                client.pipeline([*prepare, ("SET", "first", "1")])
                self.assertEqual(b":1\r\n", client.command("WAIT", "1", "60000"))
                self.replica.freeze()
                self.assertEqual(b"+OK\r\n", client.command("SET", "k", repr(prepare)))
                self.assertEqual(b":0\r\n", client.command("WAIT", "1", "200"))
                self.assertEqual(b":0\r\n", client.command("WAIT", "1", "200"), "once more")
                replies = client.pipeline([("INCR", "n"), ("WAIT", "1", "200"), ("PING",)])
                self.assertEqual([b":0\r\n", b"+PONG\r\n"], replies[1:])
        self.replica.thaw()
        self.assertEqual(b":1\r\n", client.command("WAIT", "1", "60000"))

    def test_trap_P9_every_way_to_write_counts(self):
        client = self.client()
        large = "x" * (2 << 20)
        for commands in (
            [("SET", "large", large)],
            [("EVAL", "return redis.call('SET', KEYS[1], 'v')", "1", "k")],
            [("MULTI",), ("SET", "k", "v"), ("EXEC",)],
            [("WATCH", "k"), ("MULTI",), ("SET", "k", "v"), ("EXEC",)],
            [("RPUSH", "l", "v"), ("BLPOP", "l", "0")],
            [("PUBLISH", "c", "m")],
        ):
            with self.subTest([command[0] for command in commands]):
                self.replica.freeze()
                client.pipeline(commands)
                self.assertEqual(b":0\r\n", client.command("WAIT", "1", "200"))
                self.replica.thaw()
                self.assertEqual(b":1\r\n", client.command("WAIT", "1", "60000"))

    def test_trap_P9_in_a_tunnel_and_after_it(self):
        client = self.client()
        self.replica.freeze()
        client.command("SET", "k", "v")
        replies = client.pipeline([("CLIENT", "ID"), ("WAIT", "1", "200"), ("SET", "k", "w")])
        self.assertEqual([b":0\r\n", b"+OK\r\n"], replies[1:])
        self.assertEqual(b":0\r\n", client.command("WAIT", "1", "200"))
        replies = client.pipeline([("SET", "k", "x"), ("RESET",), ("WAIT", "1", "200")])
        self.assertEqual([b"+RESET\r\n", b":0\r\n"], replies[1:])
        self.replica.thaw()
        self.assertEqual(b":1\r\n", client.command("WAIT", "1", "60000"))
        wait_leased(self.nearkey, 0)

    def test_trap_P9_waitaof(self):
        client = self.client()
        client.command("SET", "k", "v")
        self.assertEqual(b"*2\r\n:1\r\n:1\r\n", client.command("WAITAOF", "1", "1", "60000"))
        self.replica.freeze()
        client.command("SET", "k", "w")
        self.assertEqual(0, client.value("WAITAOF", "0", "1", "200")[1])
        self.replica.thaw()
        self.assertEqual(b"*2\r\n:1\r\n:1\r\n", client.command("WAITAOF", "1", "1", "60000"))

    def test_trap_P9_while_one_client_waits_the_others_go_on(self):
        self.replica.freeze()
        waiting, other = self.client(), self.client()
        waiting.send(encode("SET", "k", "v") + encode("WAIT", "1", "0") + encode("GET", "k"))
        self.assertEqual(b"+OK\r\n", waiting.read_reply())
        for number in range(200):
            self.assertEqual(b"+OK\r\n", other.command("SET", f"k{number}", number))
        self.assertTrue(waiting.is_silent(0.1))
        self.replica.thaw()
        self.assertEqual([1, b"v"], [parse(reply) for reply in waiting.read_replies(2)])


if __name__ == "__main__":
    unittest.main()
