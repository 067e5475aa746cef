"""A failover, and what a client sees of it that has something of its own on the server: a blocking
command waits on at the new primary for the time that is left, a subscriber is subscribed anew, a
transaction is closed."""

import os
import time
import unittest

from harness import EVERY_COMMAND, SLOWNESS, SystemTest, free_port, proxy_only, wait_for
from resp import encode

OK = b"+OK\r\n"
POPPED = b"*2\r\n$1\r\nl\r\n$1\r\nv\r\n"


def message(channel, text):
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
        len(channel), channel, len(text), text)  # fmt: skip


@proxy_only
class FailoverClientsTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.first = self.start_server(name="first")
        self.second = self.start_server(name="second")
        self.ports = {}
        for server in (self.first, self.second):
            self.ports[server] = free_port()
            server.run("CONFIG", "SET", "port", str(self.ports[server]))
            server.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        self.first.run("SET", "k", "before")
        self.second.run("REPLICAOF", "127.0.0.1", str(self.ports[self.first]))
        wait_for(lambda: self.second.run("GET", "k") == b"before", 10, "the replica has caught up")
        self.link_to(self.first)
        self.nearkey = self.start_nearkey(f"unix://{self.link}", settings=EVERY_COMMAND)
        self.writer = self.client()

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def link_to(self, server):
        self.link = os.path.join(self.directory, "upstream.sock")
        os.symlink(server.path, self.link + ".new")
        os.replace(self.link + ".new", self.link)

    def promote(self):
        """The second is the primary, and the path leads to it; the first does not know yet."""
        self.second.run("REPLICAOF", "NO", "ONE")
        self.link_to(self.second)

    def demote(self):
        """Valkey says -UNBLOCKED to who is blocked there."""
        self.first.run("REPLICAOF", "127.0.0.1", str(self.ports[self.second]))

    def wait_written(self):
        """As an application does whose write is refused. Then nearkey has found the primary."""
        wait_for(lambda: self.writer.command("SET", "k", "after") == OK, 2, "writes work again")

    def fail_over(self):
        self.promote()
        self.demote()
        self.wait_written()

    def wait_blocked(self, server, count):
        def blocked():
            found = server.run("INFO", "clients").split(b"blocked_clients:")[1]
            return int(found.split(b"\r\n")[0]) == count

        wait_for(blocked, 5, f"{count} clients are blocked at {server.path}")

    def ask(self, *command):
        client = self.client()
        client.send(encode(*command))
        return client

    def moved(self, kind):
        return self.nearkey.metric(f"nearkey_clients_moved_{kind}_total")

    def test_a_blocking_command_waits_on_at_the_new_primary(self):
        commands = {
            ("BLPOP", "l", "0"): POPPED,
            ("BRPOP", "l", "60"): POPPED,
            ("BLMPOP", "60", "1", "l", "LEFT"): b"*2\r\n$1\r\nl\r\n*1\r\n$1\r\nv\r\n",
            ("BLMOVE", "l", "m", "LEFT", "LEFT", "60"): b"$1\r\nv\r\n",
            ("BRPOPLPUSH", "l", "m", "60"): b"$1\r\nv\r\n",
        }
        clients = {command: self.ask(*command) for command in commands}
        zset = self.ask("BZPOPMIN", "z", "60")
        zsets = self.ask("BZMPOP", "60", "1", "z", "MAX")
        stream = self.ask("XREAD", "BLOCK", "60000", "STREAMS", "x", "0")
        self.wait_blocked(self.first, len(commands) + 3)
        self.fail_over()
        self.wait_blocked(self.second, len(commands) + 3)
        for _ in commands:
            self.second.run("RPUSH", "l", "v")
        for command, client in clients.items():
            self.assertEqual(commands[command], client.read_reply(5), command)
        self.second.run("ZADD", "z", "1", "a", "2", "b")
        self.assertEqual(b"*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n", zset.read_reply(5))
        self.assertTrue(zsets.read_reply(5).startswith(b"*2\r\n$1\r\nz\r\n"))
        self.second.run("XADD", "x", "1-1", "f", "v")
        self.assertIn(b"1-1", stream.read_reply(5))
        self.assertEqual(len(commands) + 3, self.moved("blocked"))
        for client in (*clients.values(), zset, zsets, stream):
            self.assertEqual(b"$5\r\nafter\r\n", client.command("GET", "k"), "it goes on")

    def test_the_servers_word_that_it_is_a_replica_does_not_reach_a_blocked_client(self):
        """Nobody writes: it is Valkey's -UNBLOCKED alone that tells of the failover."""
        popper = self.ask("BLPOP", "l", "10")
        self.wait_blocked(self.first, 1)
        self.promote()
        self.demote()
        self.wait_blocked(self.second, 1)
        self.second.run("RPUSH", "l", "v")
        self.assertEqual(POPPED, popper.read_reply(5))
        self.assertEqual(1, self.moved("blocked"))

    def test_a_path_that_moves_after_that_word_is_waited_for(self):
        popper = self.ask("BLPOP", "l", "10")
        self.wait_blocked(self.first, 1)
        self.second.run("REPLICAOF", "NO", "ONE")
        self.demote()
        self.wait_blocked(self.first, 0)
        time.sleep(0.2)  # That an operator is slower than Valkey.
        self.link_to(self.second)
        self.wait_blocked(self.second, 1)
        self.second.run("RPUSH", "l", "v")
        self.assertEqual(POPPED, popper.read_reply(5))

    def test_where_there_is_no_primary_a_blocked_client_reads_what_valkey_says(self):
        popper = self.ask("BLPOP", "l", "10")
        self.wait_blocked(self.first, 1)
        self.demote()
        self.assertTrue(popper.read_reply(5).startswith(b"-READONLY "))
        self.assertEqual(b"$6\r\nbefore\r\n", popper.command("GET", "k"))

    def test_client_unblock_is_the_clients(self):
        popper = self.ask("BLPOP", "l", "10")
        self.wait_blocked(self.first, 1)
        row = next(row for row in self.first.clients() if row["cmd"] == "blpop")
        self.first.run("CLIENT", "UNBLOCK", row["id"], "ERROR")
        self.assertEqual(
            b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n", popper.read_reply(5)
        )

    def test_a_timeout_is_kept_over_a_failover(self):
        start = time.monotonic()
        clients = {
            ("BLPOP", "l", "1.5"): b"*-1\r\n",
            ("BLMOVE", "l", "m", "LEFT", "LEFT", "1.5"): b"*-1\r\n",
            ("XREAD", "BLOCK", "1500", "STREAMS", "x", "$"): b"*-1\r\n",
        }
        clients = {self.ask(*command): reply for command, reply in clients.items()}
        self.wait_blocked(self.first, 3)
        self.fail_over()
        self.wait_blocked(self.second, 3)
        for client, reply in clients.items():
            self.assertEqual(reply, client.read_reply(10))
        took = time.monotonic() - start
        self.assertGreaterEqual(took, 1.4)
        self.assertLess(took, 1.5 + 0.5 * SLOWNESS)

    def test_wait_is_not_waited_for_elsewhere(self):
        self.assertEqual(OK, self.writer.command("SET", "k", "w"))
        waiter = self.ask("WAIT", "5", "0")
        self.wait_blocked(self.first, 1)
        self.fail_over()
        self.assertTrue(waiter.read_reply(5).startswith(b"-UNBLOCKED force unblock"))
        self.assertEqual(0, self.moved("blocked"))

    def test_a_transaction_is_closed(self):
        clients = [self.client() for _ in range(3)]
        self.assertEqual(OK, clients[0].command("MULTI"))
        self.assertEqual(OK, clients[1].command("MULTI"))
        self.assertEqual(b"+QUEUED\r\n", clients[1].command("SET", "k", "transaction"))
        self.assertEqual(OK, clients[2].command("WATCH", "k"))
        self.fail_over()
        for client in clients:
            self.assertEqual(b"", client.read_to_end()[0])
        self.assertEqual(b"after", self.second.run("GET", "k"))

    def test_a_subscriber_is_subscribed_anew(self):
        subscriber = self.client()
        for command in (("SUBSCRIBE", "a", "b"), ("PSUBSCRIBE", "p.*"), ("SSUBSCRIBE", "s"),
                        ("UNSUBSCRIBE", "b")):  # fmt: skip
            subscriber.send(encode(*command))
        for _ in range(5):
            subscriber.read_reply(5)
        self.first.run("PUBLISH", "a", "one")
        self.assertEqual(message(b"a", b"one"), subscriber.read_reply(5))
        self.fail_over()
        wait_for(lambda: self.moved("subscriber") == 1, 5, "it has moved")
        self.assertEqual(0, int(self.second.run("PUBLISH", "b", "nobody")))
        self.assertEqual(1, int(self.second.run("PUBLISH", "a", "two")))
        self.assertEqual(message(b"a", b"two"), subscriber.read_reply(5))
        self.assertEqual(1, int(self.second.run("PUBLISH", "p.x", "three")))
        self.assertIn(b"three", subscriber.read_reply(5))
        self.assertEqual(1, int(self.second.run("SPUBLISH", "s", "four")))
        self.assertIn(b"four", subscriber.read_reply(5))
        self.nearkey.wait_logged("subscriber_moved")
        lines = [line for line in self.nearkey.logs() if line["event"] == "subscriber_moved"]
        self.assertEqual([3], [line["subscriptions"] for line in lines])
        # By another client of nearkey, and with the number of what it is subscribed to.
        self.assertEqual(b":1\r\n", self.writer.command("PUBLISH", "a", "five"))
        self.assertEqual(message(b"a", b"five"), subscriber.read_reply(5))
        self.assertEqual(
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:3\r\n", subscriber.command("SUBSCRIBE", "c")
        )

    def test_a_subscriber_with_resp3_is_subscribed_anew(self):
        subscriber = self.client()
        self.assertTrue(subscriber.command("HELLO", "3", "SETNAME", "listener").startswith(b"%"))
        subscriber.command("SUBSCRIBE", "a")
        self.fail_over()
        wait_for(lambda: self.moved("subscriber") == 1, 5, "it has moved")
        self.assertIn("listener", {row["name"] for row in self.second.clients()})
        self.second.run("PUBLISH", "a", "two")
        self.assertEqual(message(b"a", b"two").replace(b"*", b">", 1), subscriber.read_reply(5))
        self.assertEqual(b"+PONG\r\n", subscriber.command("PING"))

    def test_a_subscriber_with_anything_else_is_closed(self):
        tunnels = []
        for command in (("CLIENT", "NO-EVICT", "ON"), ("CLIENT", "ID"), ("CLIENT", "REPLY", "ON")):
            with self.subTest(command=command):
                tunnel = self.client()
                tunnel.command(*command)
                tunnel.command("SUBSCRIBE", "a")
                tunnels.append(tunnel)
        self.fail_over()
        for tunnel in tunnels:
            self.assertEqual(b"", tunnel.read_to_end()[0])
        self.assertEqual(0, self.moved("subscriber"))

    def test_many_clients_move_together(self):
        poppers = [self.ask("BLPOP", f"l{i}", "30") for i in range(100)]
        subscribers = [self.client() for _ in range(100)]
        for i, subscriber in enumerate(subscribers):
            subscriber.command("SUBSCRIBE", "all", f"c{i}")
            subscriber.read_reply(5)
        self.wait_blocked(self.first, 100)
        self.fail_over()
        self.wait_blocked(self.second, 100)
        wait_for(lambda: self.moved("subscriber") == 100, 5, "all have moved")
        for i, popper in enumerate(poppers):
            self.second.run("RPUSH", f"l{i}", "v")
            self.assertIn(b"v\r\n", popper.read_reply(5))
        self.assertEqual(100, int(self.second.run("PUBLISH", "all", "news")))
        for i, subscriber in enumerate(subscribers):
            self.assertEqual(message(b"all", b"news"), subscriber.read_reply(5))
            self.second.run("PUBLISH", f"c{i}", "own")
            self.assertIn(b"own", subscriber.read_reply(5))


if __name__ == "__main__":
    unittest.main()
