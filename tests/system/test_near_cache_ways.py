"""Who has seen newer is not served older, whichever way he goes on: each change of way that
docs/near_cache.md lists. The news of a change is held back where the way before does not wait for
it; the proof that the next way needs does."""

import os
import select
import unittest

from harness import SystemTest, proxy_only, wait_for
from near_cache import HELLO_3, is_receiver, store
from relay import Relay
from resp import encode, parse

PROOFS = "nearkey_near_cache_proofs_total"


def is_of_database(number):
    select = encode("SELECT", str(number))
    return lambda asked: HELLO_3 in asked and select in asked and b"TRACKING" in asked


@proxy_only
class WayTest(SystemTest):
    settings = {}

    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.relay = Relay(os.path.join(self.directory, "relay.sock"), self.server.path)
        self.addCleanup(self.relay.close)
        # So long that what is served is never what ends by itself.
        self.nearkey = self.start_nearkey(
            f"unix://{self.relay.path}",
            settings={"near_cache.max_staleness_ms": 60000,
                      "near_cache.thrash_guard": "false", **self.settings},
        )
        self.server.run("SET", "k", "old")

    def client(self, version=2):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        client.command("HELLO", str(version))
        return client

    def holding(self, client, *command):
        """`client` has stored the reply to the command, and will not hear of changes."""
        store(self.nearkey, client, *command)
        self.hold(is_receiver)
        return client

    def hold(self, matches):
        self.relay.hold(matches)
        self.proofs = self.nearkey.metric(PROOFS)

    def ask(self, client, *command):
        """The reply. The news arrives once nearkey waits for it, and no sooner."""
        client.send(encode(*command))
        ready = lambda: select.select([client.socket], [], [], 0.02)[0]  # noqa: E731
        wait_for(lambda: ready() or self.nearkey.metric(PROOFS) > self.proofs, 5, command)
        if not ready():
            self.relay.thaw()
        return parse(client.read_reply())

    def assert_goes_on(self, client, commands, expected, read=("GET", "k")):
        for command in commands:
            self.ask(client, *command)
        self.assertEqual(expected, self.ask(client, *read))

    # --- what replies of another way have shown ---

    def test_a_tunnel_that_reset_ends(self):
        client = self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.ask(client, "CLIENT", "ID")
        self.assertEqual(b"new", self.ask(client, "GET", "k"))
        self.assert_goes_on(client, [("RESET",)], b"new")

    def test_news_that_a_subscriber_has_heard(self):
        self.server.run("CONFIG", "SET", "notify-keyspace-events", "KA")
        client = self.holding(self.client(), "GET", "k")
        self.ask(client, "SUBSCRIBE", "__keyspace@0__:k")
        self.server.run("SET", "k", "new")
        self.assertEqual(b"set", parse(client.read_reply())[2])
        self.assert_goes_on(client, [("RESET",)], b"new")

    def test_what_a_monitor_has_seen(self):
        client = self.holding(self.client(), "GET", "k")
        self.ask(client, "MONITOR")
        self.server.run("SET", "k", "new")
        while b'"SET" "k" "new"' not in client.read_reply():
            pass
        self.relay.hold(is_receiver)
        client.send(encode("RESET"))
        while client.read_reply() != b"+RESET\r\n":
            pass
        self.assert_goes_on(client, [], b"new")

    def test_own_writes_in_a_tunnel(self):
        client = self.holding(self.client(), "GET", "k")
        self.ask(client, "CLIENT", "NO-TOUCH", "OFF")
        self.ask(client, "EVAL", "return server.call('SET', 'k', 'new')", "0")
        self.assert_goes_on(client, [("RESET",)], b"new")

    # --- another protocol or database ---

    def test_hello_2_behind_reads_with_resp3(self):
        client = self.client(3)
        client.command("GET", "other")  # its connection is there
        self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.assertEqual(b"new", self.ask(client, "GET", "k"))
        self.assert_goes_on(client, [("HELLO", "2")], b"new")

    def test_hello_2_behind_a_hit_with_resp3(self):
        client = self.client(3)
        client.command("GET", "other")  # its connection is there
        self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        for _ in range(3):
            self.assertEqual(b"new", self.ask(client, "GET", "k"))
        self.assert_goes_on(client, [("HELLO", "2")], b"new")

    def test_reset_behind_reads_with_resp3(self):
        client = self.client(3)
        client.command("GET", "other")  # its connection is there
        self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.assertEqual(b"new", self.ask(client, "GET", "k"))
        self.assert_goes_on(client, [("RESET",)], b"new")

    def test_select_behind_reads_of_another_database(self):
        client = self.client(3)
        client.command("SELECT", "1")
        store(self.nearkey, client, "GET", "k")
        client.command("SELECT", "0")
        client.command("GET", "other")  # its connection is there
        self.hold(is_of_database(1))
        self.assertEqual(1, self.server.run("MOVE", "k", "1"))
        self.assertIsNone(self.ask(client, "GET", "k"))
        self.assert_goes_on(client, [("SELECT", "1")], b"old")

    def test_a_change_of_way_costs_nothing_when_nothing_was_seen(self):
        self.client().command("SELECT", "1")  # is known from now on
        self.holding(self.client(), "GET", "k")
        client = self.nearkey.client()
        self.addCleanup(client.close)
        for command in (("HELLO", "3"), ("CLIENT", "SETNAME", "me"), ("SELECT", "1"),
                        ("SELECT", "0"), ("HELLO", "2"), ("RESET",)):  # fmt: skip
            client.command(*command)
        self.assertEqual(self.proofs, self.nearkey.metric(PROOFS))
        self.assertEqual(b"old", self.ask(client, "GET", "k"))

    def test_select_costs_nothing_with_resp2_whose_replies_are_proven(self):
        client = self.holding(self.client(2), "GET", "k")
        for database in ("1", "0", "1", "0"):
            self.assertEqual(b"+OK\r\n", client.command("SELECT", database))
        self.assertEqual(b"old", parse(client.command("GET", "k")))
        self.assertEqual(self.proofs, self.nearkey.metric(PROOFS))

    def test_the_answer_to_a_change_of_way_does_not_wait_for_the_proof(self):
        client = self.client(3)
        client.pipeline([("SELECT", "1"), ("SELECT", "0")])  # both are known from now on
        self.holding(client, "GET", "k")
        self.assertEqual(b"+OK\r\n", client.command("SELECT", "1"))
        wait_for(lambda: self.nearkey.metric(PROOFS) > self.proofs, 5, "the proof is asked for")
        self.assertEqual(b"PONG", self.ask(client, "PING"))

    # --- replies that show what they do not name ---

    def test_keys_in_a_whole_transaction(self):
        client = self.holding(self.client(), "GET", "other")
        self.server.run("SET", "other", "new")
        client.send(b"".join(encode(*words) for words in (("MULTI",), ("KEYS", "o*"), ("EXEC",))))
        wait_for(
            lambda: select.select([client.socket], [], [], 0.02)[0]
            or self.nearkey.metric(PROOFS) > self.proofs, 5, "the transaction")
        if not select.select([client.socket], [], [], 0.02)[0]:
            self.relay.thaw()
        self.assertEqual([[b"other"]], parse(client.read_replies(3)[2]))
        self.assert_goes_on(client, [], b"new", read=("GET", "other"))

    def test_keys_in_a_whole_transaction_of_inline_commands(self):
        """Of many lengths: the arguments of each end with the next command."""
        for size in (1, 15, 100, 5000):
            key = "k" * size
            self.server.run("SET", key, "old")
            client = self.holding(self.client(), "GET", key)
            client.send(f"MULTI\r\nSET {key} new\r\nSET {'l' * 9000} v\r\nEXEC\r\n".encode())
            replies = [parse(reply) for reply in client.read_replies(4)]
            self.assertEqual([b"OK", b"OK"], replies[-1])
            self.assertEqual(b"new", self.ask(client, "GET", key), size)
            self.relay.thaw()

    def test_keys_in_a_transaction_that_comes_step_by_step(self):
        client = self.holding(self.client(), "GET", "other")
        self.server.run("SET", "other", "new")
        steps = [("MULTI",), ("KEYS", "o*"), ("EXEC",)]
        self.assert_goes_on(client, steps, b"new", read=("GET", "other"))

    def test_a_script_that_reads_another_key_than_it_names(self):
        client = self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        script = "return server.call('GET', ARGV[1])"
        self.assert_goes_on(client, [("EVAL_RO", script, "1", "other", "k")], b"new")

    def test_a_function_that_reads_another_key_than_it_names(self):
        self.server.run("FUNCTION", "LOAD", "#!lua name=l\nserver.register_function{"
                        "function_name='look', flags={'no-writes'}, callback="
                        "function(keys, args) return server.call('GET', args[1]) end}")
        client = self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.assert_goes_on(client, [("FCALL_RO", "look", "1", "other", "k")], b"new")

    def test_sort_ro_by_keys_that_it_does_not_name(self):
        self.server.run("RPUSH", "list", "k")
        client = self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.assert_goes_on(client, [("SORT_RO", "list", "BY", "nosort", "GET", "*")], b"new")

    def test_info_that_counts_keys(self):
        client = self.holding(self.client(), "EXISTS", "other")
        self.server.run("SET", "other", "new")
        self.assert_goes_on(client, [("INFO", "keyspace")], 1, read=("EXISTS", "other"))

    def test_a_slow_log_that_shows_a_write(self):
        self.server.run("CONFIG", "SET", "slowlog-log-slower-than", "0")
        client = self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.assert_goes_on(client, [("SLOWLOG", "GET", "9")], b"new")

    def test_an_exec_that_says_that_a_watched_key_has_changed(self):
        client = self.holding(self.client(), "GET", "k")
        self.ask(client, "WATCH", "k")
        self.server.run("SET", "k", "new")
        self.ask(client, "MULTI")
        self.ask(client, "SET", "other", "1")
        self.assertIsNone(self.ask(client, "EXEC"))
        self.assert_goes_on(client, [], b"new")

    def test_a_transaction_that_comes_step_by_step(self):
        client = self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.assert_goes_on(client, [("MULTI",), ("GET", "k"), ("EXEC",)], b"new")

    def test_a_watch_that_ends_without_a_transaction(self):
        client = self.holding(self.client(), "GET", "k")
        self.server.run("SET", "k", "new")
        self.assert_goes_on(client, [("WATCH", "other"), ("GET", "k"), ("UNWATCH",)], b"new")

    def test_what_stands_behind_a_blocking_command(self):
        """A job is pushed after what it is about was written: who waits for it reads that."""
        self.server.run("XGROUP", "CREATE", "jobs", "g", "$", "MKSTREAM")
        push, member, entry = ("RPUSH", "q", "job"), ("ZADD", "z", "1", "job"), (
            "XADD", "jobs", "*", "f", "v")
        ways = [
            (("BLPOP", "q", "0"), push),
            (("BRPOP", "q", "0"), push),
            (("BLMOVE", "q", "r", "LEFT", "LEFT", "0"), push),
            (("BRPOPLPUSH", "q", "r", "0"), push),
            (("BLMPOP", "0", "1", "q", "LEFT"), push),
            (("BZPOPMIN", "z", "0"), member),
            (("BZPOPMAX", "z", "0"), member),
            (("BZMPOP", "0", "1", "z", "MIN"), member),
            (("XREAD", "BLOCK", "0", "STREAMS", "jobs", "$"), entry),
            (("XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "jobs", ">"), entry),
        ]
        writer = self.client()
        for number, (blocking, pushing) in enumerate(ways):
            for version in (2, 3):
                with self.subTest(command=blocking[0], version=version):
                    client, value = self.client(version), f"new {number} {version}".encode()
                    self.server.run("XGROUP", "SETID", "jobs", "g", "$")
                    store(self.nearkey, client, "GET", "k")
                    client.send(encode(*blocking) + encode("GET", "k") + encode("MGET", "k", "k")
                                + encode("STRLEN", "k"))
                    wait_for(lambda: b"blocked_clients:1" in self.server.run("INFO", "clients"),
                             5, "it waits")
                    self.assertEqual(b"OK", writer.value("SET", "k", value))
                    writer.command(*pushing)
                    replies = [parse(reply) for reply in client.read_replies(4)]
                    self.assertEqual([value, [value, value], len(value)], replies[1:])

    def test_a_stream_that_was_waited_for(self):
        client = self.holding(self.client(), "XLEN", "stream")
        client.send(encode("XREAD", "BLOCK", "0", "STREAMS", "stream", "$"))
        wait_for(lambda: b"blocked_clients:1" in self.server.run("INFO", "clients"), 5, "it waits")
        self.server.run("XADD", "stream", "*", "f", "v")
        wait_for(lambda: self.nearkey.metric(PROOFS) > self.proofs
                 or select.select([client.socket], [], [], 0.02)[0], 5, "the entry")
        self.relay.thaw()
        self.assertIsNotNone(parse(client.read_reply()))
        self.assert_goes_on(client, [], 1, read=("XLEN", "stream"))

    def test_the_cache_switched_off_and_on(self):
        for version in (2, 3):
            with self.subTest(version):
                self.server.run("SET", "k", "old")
                client = self.client(version)
                self.holding(client, "GET", "k")
                self.server.run("SET", "k", "new")
                self.assert_goes_on(client, [("NEARKEY", "CACHE", "OFF"), ("GET", "k"),
                                             ("NEARKEY", "CACHE", "ON")], b"new")  # fmt: skip
                self.relay.thaw()


if __name__ == "__main__":
    unittest.main()
