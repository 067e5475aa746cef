"""MGET and EXISTS of several keys: stored key by key, answered here when all of them are."""

import unittest

from harness import SharedSystemTest, proxy_only, wait_for
from resp import parse

HITS = "nearkey_near_cache_hits_total"
FORWARDED = "nearkey_commands_forwarded_total"


@proxy_only
class SplitTest(SharedSystemTest):
    settings = {"near_cache.thrash_guard": "false"}

    def setUp(self):
        super().setUp()
        self.direct.command("FLUSHALL")
        self.direct.command("MSET", "a", "1", "b", "2", "c", "3")
        self.direct.command("LPUSH", "list", "x")

    def is_answered_here(self, client, *command):
        before = self.nearkey.metric(FORWARDED)
        reply = client.command(*command)
        self.assertEqual(self.expected(client, *command), reply)
        return self.nearkey.metric(FORWARDED) == before

    def expected(self, client, *command):
        direct = self.server.client()
        self.addCleanup(direct.close)
        direct.command("HELLO", str(getattr(client, "version", 2)))
        return direct.command(*command)

    def store(self, client, *command):
        wait_for(lambda: self.is_answered_here(client, *command), 5, f"{command} is stored")

    def client_of(self, version):
        client = self.client()
        client.version = version
        client.command("HELLO", str(version))
        return client

    def test_mget_is_answered_from_its_keys_whatever_their_order(self):
        for version in (2, 3):
            client = self.client_of(version)
            self.store(client, "MGET", "a", "b", "missing", "list")
            self.assertTrue(self.is_answered_here(client, "MGET", "list", "b"))
            self.assertTrue(self.is_answered_here(client, "MGET", "missing"))
            self.assertTrue(self.is_answered_here(client, "MGET", "b", "b", "a"))
            self.assertFalse(self.is_answered_here(client, "MGET", "a", "c"))
            self.store(client, "MGET", "c", "a")

    def test_a_change_of_one_key_is_seen_and_the_others_stay(self):
        client = self.client_of(3)
        self.store(client, "MGET", "a", "b", "c")
        self.direct.command("SET", "b", "new")
        wait_for(lambda: client.command("MGET", "a", "b") == b"*2\r\n$1\r\n1\r\n$3\r\nnew\r\n", 5,
                 "the change of b")
        self.assertTrue(self.is_answered_here(client, "MGET", "a", "c"))

    def test_an_own_write_is_seen_at_once(self):
        client, other = self.client_of(2), self.client_of(3)
        for i in range(50):
            client.command("MGET", "a", "b")
            other.command("SET", "b", str(i))
            self.assertEqual([b"1", str(i).encode()], parse(client.command("MGET", "a", "b")))

    def test_each_key_expires_by_itself(self):
        client = self.client_of(2)
        self.direct.command("SET", "short", "x", "PX", "400")
        self.store(client, "MGET", "a", "b")
        client.command("MGET", "a", "short")
        wait_for(lambda: parse(client.command("MGET", "a", "short")) == [b"1", None], 5,
                 "it has expired")
        self.assertTrue(self.is_answered_here(client, "MGET", "a", "b"))

    def test_exists_is_counted_from_its_keys(self):
        client = self.client_of(2)
        self.store(client, "EXISTS", "a", "b", "list")
        self.assertTrue(self.is_answered_here(client, "EXISTS", "a"))
        self.assertTrue(self.is_answered_here(client, "EXISTS", "a", "a", "list"))
        self.store(client, "EXISTS", "none", "nothing")
        self.assertTrue(self.is_answered_here(client, "EXISTS", "none", "a", "b"))
        self.direct.command("DEL", "a")
        wait_for(lambda: client.command("EXISTS", "a", "b") == b":1\r\n", 5, "a is gone")

    def test_exists_of_which_some_are_there_says_nothing_of_each(self):
        client = self.client_of(2)
        for _ in range(3):
            self.assertFalse(self.is_answered_here(client, "EXISTS", "a", "none"))
        self.store(client, "EXISTS", "a")
        self.store(client, "EXISTS", "none")
        self.assertTrue(self.is_answered_here(client, "EXISTS", "a", "none", "a"))

    def test_a_pipeline_of_them_keeps_its_order(self):
        client = self.client_of(2)
        commands = [("MGET", "a", "b"), ("GET", "c"), ("EXISTS", "a", "b"), ("SET", "c", "4"),
                    ("MGET", "c", "a")]
        for _ in range(20):
            self.direct.command("SET", "c", "3")
            self.assertEqual(
                [[b"1", b"2"], parse(client.command("GET", "c")), 2, b"OK", [b"4", b"1"]],
                [parse(reply) for reply in client.pipeline(commands)])


if __name__ == "__main__":
    unittest.main()
