"""C7: fields of hashes that expire by themselves, which PTTL says nothing of. The server that the
tests run with has none, so the server here is one of our own that says it has."""

import os
import unittest

from fake_valkey import FakeValkey, bulk
from harness import SystemTest, proxy_only, wait_for
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


if __name__ == "__main__":
    unittest.main()
