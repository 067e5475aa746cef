"""Each command that may be stored: stored, and its bytes are those of the server. C19: what
changes by itself is never stored; nor is an error."""

import re
import unittest
from pathlib import Path

from harness import ROOT, proxy_only
from near_cache import NearCacheTest

DATA = (
    ("SET", "string", "some value"),
    ("HSET", "hash", "f", "1", "g", "22"),
    ("RPUSH", "list", "a", "b", "c"),
    ("SADD", "set", "1", "2", "3"),
    ("ZADD", "zset", "1", "a", "2.5", "b", "3", "c"),
    ("GEOADD", "geo", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania"),
    ("XADD", "stream", "1-1", "f", "1"),
    ("XADD", "stream", "2-1", "f", "2"),
)
# command: (a key of its type, the arguments behind the key)
READS = {
    "get": ("string", ()), "mget": ("string", ()), "getrange": ("string", ("1", "3")),
    "substr": ("string", ("0", "-2")), "strlen": ("string", ()), "getbit": ("string", ("3",)),
    "bitcount": ("string", ()), "bitpos": ("string", ("1",)),
    "bitfield_ro": ("string", ("GET", "u8", "0")),
    "hget": ("hash", ("f",)), "hmget": ("hash", ("f", "none")), "hgetall": ("hash", ()),
    "hkeys": ("hash", ()), "hvals": ("hash", ()), "hlen": ("hash", ()),
    "hexists": ("hash", ("f",)), "hstrlen": ("hash", ("g",)),
    "lrange": ("list", ("0", "-1")), "lindex": ("list", ("1",)), "llen": ("list", ()),
    "lpos": ("list", ("b",)),
    "smembers": ("set", ()), "sismember": ("set", ("1",)), "smismember": ("set", ("1", "9")),
    "scard": ("set", ()),
    "zrange": ("zset", ("0", "-1", "WITHSCORES")), "zrangebyscore": ("zset", ("1", "2.5")),
    "zrangebylex": ("zset", ("-", "+")), "zrevrange": ("zset", ("0", "1")),
    "zrevrangebyscore": ("zset", ("3", "1")), "zrevrangebylex": ("zset", ("+", "-")),
    "zscore": ("zset", ("b",)), "zmscore": ("zset", ("b", "none")), "zcard": ("zset", ()),
    "zcount": ("zset", ("1", "2")), "zlexcount": ("zset", ("-", "+")), "zrank": ("zset", ("b",)),
    "zrevrank": ("zset", ("b",)),
    "geopos": ("geo", ("Palermo",)), "geodist": ("geo", ("Palermo", "Catania")),
    "geohash": ("geo", ("Palermo",)),
    "geosearch": ("geo", ("FROMLONLAT", "15", "37", "BYRADIUS", "200", "km", "ASC")),
    "georadius_ro": ("geo", ("15", "37", "200", "km")),
    "georadiusbymember_ro": ("geo", ("Palermo", "200", "km")),
    "xlen": ("stream", ()), "xrange": ("stream", ("-", "+")), "xrevrange": ("stream", ("+", "-")),
    "type": ("string", ()), "exists": ("string", ()),
}
ANY_TYPE = {"type", "exists", "mget"}
UNSTABLE = (
    ("TTL", "string"), ("PTTL", "string"), ("EXPIRETIME", "string"), ("PEXPIRETIME", "string"),
    ("OBJECT", "ENCODING", "string"), ("OBJECT", "IDLETIME", "string"),
    ("MEMORY", "USAGE", "string"), ("DUMP", "string"), ("SRANDMEMBER", "set"),
    ("HRANDFIELD", "hash"), ("ZRANDMEMBER", "zset"), ("RANDOMKEY",), ("DBSIZE",), ("TIME",),
    ("KEYS", "*"), ("SCAN", "0"), ("HSCAN", "hash", "0"), ("SSCAN", "set", "0"),
    ("ZSCAN", "zset", "0"), ("XPENDING", "stream", "group"), ("XINFO", "STREAM", "stream"),
    ("XREAD", "STREAMS", "stream", "0"), ("SORT_RO", "list", "ALPHA"), ("TOUCH", "string"),
    ("SINTER", "set"), ("LCS", "string", "string"),
)


@proxy_only
class CommandTest(NearCacheTest):
    def setUp(self):
        super().setUp()
        for step in DATA:
            self.assertNotEqual(b"-", self.direct.command(*step)[:1], step)
        self.direct.command("XGROUP", "CREATE", "stream", "group", "0")

    def test_the_table_is_that_of_the_product(self):
        source = Path(ROOT, "src/resp/cache_rules.cc").read_text(encoding="utf-8")
        self.assertEqual(sorted(re.findall(r'^    \{"(\w+)", k', source, re.M)), sorted(READS))

    def test_what_is_stored_has_the_bytes_of_the_server(self):
        for version in (2, 3):
            client, oracle = self.client_of(version), self.direct_of(version)
            for name, (key, rest) in READS.items():
                for place in (key, "missing"):
                    with self.subTest(f"{name} {place} RESP{version}"):
                        read = (name.upper(), place, *rest)
                        expected = oracle.command(*read)
                        self.assertNotEqual(b"-", expected[:1], expected)
                        self.assertEqual(expected, client.command(*read))
                        self.store(client, *read)
                        self.assertEqual(expected, client.command(*read))
                        self.assertTrue(self.is_hit(client, *read))

    def test_an_error_is_never_stored(self):
        for version in (2, 3):
            client, oracle = self.client_of(version), self.direct_of(version)
            for name, (key, rest) in READS.items():
                if name in ANY_TYPE:
                    continue
                with self.subTest(f"{name} RESP{version}"):
                    read = (name.upper(), "list" if key != "list" else "set", *rest)
                    expected = oracle.command(*read)
                    self.assertEqual(b"-WRONGTYPE", expected[:10])
                    for _ in range(3):
                        self.assertEqual(expected, client.command(*read))
                    self.assertFalse(self.is_hit(client, *read))

    def test_c19_what_changes_by_itself_is_never_a_hit(self):
        for version in (2, 3):
            client = self.client_of(version)
            for command in UNSTABLE:
                with self.subTest(f"{command} RESP{version}"):
                    for _ in range(3):
                        self.assertNotEqual(b"-", client.command(*command)[:1])
                    self.assertFalse(self.is_hit(client, *command))


if __name__ == "__main__":
    unittest.main()
