"""C7: fields of hashes that expire by themselves, which PTTL says nothing of. Valkey 8 has none, so
the server here is one of our own that says it has; and the installed one if it has them."""

import os
import random
import time
import unittest

from fake_valkey import FakeValkey, bulk
from harness import SLOWNESS, SystemTest, proxy_only, show_figure, wait_for
from near_cache import HITS, NearCacheTest
from resp import parse

STALENESS_MS = 2000
INFO = "# Commandstats\r\ncmdstat_get:calls=1\r\n\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0%s\r\n"


def row(name, flag, has_key):
    """An entry of COMMAND, with the key specification of a command whose first argument is its key."""
    spec = [bulk(b"flags"), b"*1\r\n+RO\r\n",
            bulk(b"begin_search"), b"*4\r\n", bulk(b"type"), bulk(b"index"), bulk(b"spec"),
            b"*2\r\n", bulk(b"index"), b":1\r\n",
            bulk(b"find_keys"), b"*4\r\n", bulk(b"type"), bulk(b"range"), bulk(b"spec"),
            b"*6\r\n", bulk(b"lastkey"), b":0\r\n", bulk(b"keystep"), b":1\r\n",
            bulk(b"limit"), b":0\r\n"]
    specs = b"*1\r\n*6\r\n" + b"".join(spec) if has_key else b"*0\r\n"
    return (b"*10\r\n" + bulk(name) + b":-2\r\n*1\r\n+" + flag + b"\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n"
            + specs + b"*0\r\n")


ROWS = {
    b"hget": row(b"hget", b"readonly", True),
    b"get": row(b"get", b"readonly", True),
    b"ping": row(b"ping", b"fast", False),
    b"hpexpire": row(b"hpexpire", b"write", True),
}


@proxy_only
class FieldsTest(SystemTest):
    def start(self, names, keyspace):
        server = FakeValkey(os.path.join(self.directory, "fake.sock"))
        self.addCleanup(server.close)
        rows = [ROWS[name] for name in names]
        server.answers.update({
            b"command": b"*%d\r\n" % len(rows) + b"".join(rows),
            b"client": b"+OK\r\n",
            b"pttl": b":-1\r\n",
            b"hget": bulk(b"v"),
            b"get": bulk(b"v"),
            b"info": bulk((INFO % keyspace).encode()),
        })
        nearkey = self.start_nearkey(
            server.url, settings={"near_cache.max_staleness_ms": STALENESS_MS})
        client = nearkey.client()
        self.addCleanup(client.close)
        return server, client

    def explain(self, client, *command):
        words = parse(client.command("NEARKEY", "EXPLAIN", *command))
        return dict(zip((word.decode() for word in words[::2]), words[1::2]))

    def left_ms(self, client, *command):
        """Until the stored reply is read anew."""
        def is_stored():
            client.command(*command)
            return self.explain(client, *command)["cache"] == b"hit"
        wait_for(is_stored, 5, f"{command} is stored")
        return self.explain(client, *command)["ttl_left_ms"]

    def test_c7_where_fields_expire_hashes_are_read_anew_after_the_bound(self):
        _, client = self.start([b"hget", b"get", b"ping", b"hpexpire"], ",keys_with_volatile_items=1")
        self.assertLessEqual(self.left_ms(client, "HGET", "h", "f"), STALENESS_MS)
        self.assertGreater(self.left_ms(client, "GET", "k"), 10 * STALENESS_MS)

    def test_c7_where_none_does_they_are_kept_until_the_first_one_does(self):
        server, client = self.start([b"hget", b"get", b"ping", b"hpexpire"],
                                    ",keys_with_volatile_items=0")
        wait_for(lambda: self.left_ms(client, "HGET", "h", "f") > 10 * STALENESS_MS, 5,
                 "the server said that no field expires")
        server.answers[b"info"] = bulk((INFO % ",keys_with_volatile_items=1").encode())
        wait_for(lambda: self.explain(client, "HGET", "h", "f")["last_invalidation"] == b"fields", 5,
                 "everything is dropped")
        self.assertLessEqual(self.left_ms(client, "HGET", "h", "f"), STALENESS_MS)

    def test_c7_a_server_without_such_fields_is_not_asked(self):
        _, client = self.start([b"hget", b"get", b"ping"], "")
        wait_for(lambda: self.left_ms(client, "HGET", "h", "f") > 10 * STALENESS_MS, 5,
                 "a server without HPEXPIRE has no such fields")


@proxy_only
class FieldsOfAServerTest(NearCacheTest):
    """Fields that somebody else lets expire, with a real server (Redis 7.4 or newer)."""

    # So many writes would have every key leave the cache.
    settings = {"near_cache.thrash_guard": "false"}
    SECONDS = 4
    BOUND_S = 1.0
    HASHES = 40
    FIELDS = 3
    READS = (("HGETALL",), ("HKEYS",), ("HMGET", "f0", "f1", "f2"), ("HGET", "f0"), ("HEXISTS", "f1"))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        reply = cls.server.run("COMMAND", "INFO", "hpexpire")
        if not reply or reply[0] is None:
            raise unittest.SkipTest("the server has no fields that expire")

    def setUp(self):
        super().setUp()
        self.addCleanup(self.direct.command, "DEBUG", "SET-ACTIVE-EXPIRE", "1")
        self.random = random.Random(7)
        self.expires = {}  # (hash, field): when, or infinity
        self.late = 0.0

    def write(self):
        """A new value of each field of a hash; it ends soon, later, or never."""
        key = f"h{self.random.randrange(self.HASHES)}"
        for field in (f"f{i}" for i in range(self.FIELDS)):
            self.direct.command("HSET", key, field, f"{key}{field}")
            self.expires[key, field] = float("inf")
            if self.random.random() < 0.6:
                milliseconds = self.random.choice((1, 20, 150, 800, 1500))
                self.direct.command("HPEXPIRE", key, milliseconds, "FIELDS", 1, field)
                self.expires[key, field] = time.time() + milliseconds / 1000

    def read(self, client):
        key = f"h{self.random.randrange(self.HASHES)}"
        name, *fields = self.random.choice(self.READS)
        sent = time.time()
        reply = client.command(name, key, *fields)
        if name == "HEXISTS":
            shown = fields if reply == b":1\r\n" else []
        else:
            shown = [f"f{i}" for i in range(self.FIELDS)
                     if f"f{i}\r\n".encode() in reply]
        for field in shown:
            late = sent - self.expires.get((key, field), float("inf"))
            self.late = max(self.late, late)
            self.assertLess(late, self.BOUND_S * SLOWNESS / 2 + 0.05, (name, key, field, reply))

    def check(self):
        clients = [self.client_of(2), self.client_of(3)]
        hits = self.nearkey.metric(HITS)
        end = time.monotonic() + self.SECONDS
        while time.monotonic() < end:
            if self.random.random() < 0.02:
                self.write()
            self.read(self.random.choice(clients))
        # Nobody writes any more: what was stored last is what would be seen too long.
        end = time.monotonic() + self.BOUND_S + 1.6
        while time.monotonic() < end:
            self.read(self.random.choice(clients))
        hits = self.nearkey.metric(HITS) - hits
        self.assertGreater(hits, 100)
        show_figure(f"{hits:.0f} hits, an expired field shown at most {self.late:.3f} s too long")

    def test_c7_an_expired_field_is_shown_no_longer_than_the_bound(self):
        self.check()

    def test_c7_nor_where_the_server_leaves_it_where_it_is(self):
        self.assertEqual(b"+OK\r\n", self.direct.command("DEBUG", "SET-ACTIVE-EXPIRE", "0"))
        self.check()

    def test_c7_nor_where_the_first_one_ends_before_it_is_asked_whether_there_are_any(self):
        client = self.client_of(3)
        for number in range(200):
            key = f"first{number}"
            self.direct.command("HSET", key, "f", "1", "g", "2")
            self.direct.command("HPEXPIRE", key, 5 + number % 40, "FIELDS", "1", "f")
            self.assertIn(client.command("HGET", key, "f"), (b"$1\r\n1\r\n", b"_\r\n"))
            wait_for(lambda: self.is_hit(client, "HGET", key, "g"), 5, "stored")
            time.sleep(0.005)
            if number % 4 == 0:  # Whoever finds an expired field removes it.
                time.sleep(0.05)
                self.assertEqual(b"$-1\r\n", self.direct.command("HGET", key, "f"))
        time.sleep(self.BOUND_S * SLOWNESS / 2)
        for number in range(200):
            self.assertEqual(b"_\r\n", client.command("HGET", f"first{number}", "f"))


if __name__ == "__main__":
    unittest.main()
