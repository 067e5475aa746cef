"""Keys agree: what nearkey takes for a command's keys (NEARKEY EXPLAIN: "writes" and "keys") against
the server itself, for every command, with random options in random order.

Two oracles:
  - COMMAND GETKEYSANDFLAGS: every key that it names, nearkey names as well.
  - What is really written. The command is run on the server, and CLIENT TRACKING in broadcast mode
    tells which keys have changed: nearkey names each of them.
It is right to name more (another option's value that looks like a key), or to take a command for one
that may write anything: what is dropped from the near cache for nothing is read again. A key that is
written and not named is what this test is for.
"""

import os
import random
import unittest

from harness import SystemTest, proxy_only, show_figure
from near_cache import is_receiver, store
from relay import Relay
from resp import RespError, encode, parse

SEED = 15
CALLS = 12000
BATCH = 500

# Some look like options.
KEYS = ["str", "num", "hash", "list", "set", "zset", "geo", "stream", "hll", "none", "none2",
        "STORE", "streams", "KEYS", "limit"]  # fmt: skip
OPTIONS = ["STORE", "storedist", "STREAMS", "KEYS", "LIMIT", "COUNT", "BLOCK", "GROUP", "WEIGHTS",
           "AGGREGATE", "REPLACE", "DB", "ASC", "DESC", "ALPHA", "BY", "GET", "ANY", "WITHSCORES",
           "LEFT", "MIN", "NX", "XX", "EX", "ID", "CREATE", "REV"]  # fmt: skip
VALUES = ["0", "1", "2", "3", "-1", "0-1", "$", ">", "*", "km", "x", "a", ""]
PREPARE = [
    ("FLUSHALL",), ("SET", "str", "v"), ("SET", "num", "1"), ("HSET", "hash", "a", "1", "x", "2"),
    ("RPUSH", "list", "3", "1", "2"), ("SADD", "set", "1", "2", "3"),
    ("ZADD", "zset", "1", "1", "2", "2", "3", "3"), ("GEOADD", "geo", "13", "38", "a", "15", "37", "x"),
    ("XADD", "stream", "0-1", "f", "v"), ("XGROUP", "CREATE", "stream", "x", "0"),
    ("PFADD", "hll", "1", "2"), ("SET", "STORE", "v"), ("ZADD", "limit", "1", "1"),
    ("XADD", "streams", "0-1", "f", "v"), ("XGROUP", "CREATE", "streams", "x", "0"),
    ("RPUSH", "KEYS", "1"),
]  # fmt: skip

# What a call may look like: words, and names of what the generator chooses. Options come in random
# order, each as often as it happens.
K, N, V, Z, L, S = "any key", "number", "value", "zset key", "list key", "set key"
NUMBERED = {"NUMKEYS": K, "ZKEYS": Z, "LKEYS": L}
OF_TYPE = {Z: ["zset", "limit", "geo"], L: ["list", "KEYS"], S: ["set", "none"]}
SHAPES = {
    "georadius": (["geo", "15", "37", "400", "km"], "GEO"),
    "georadiusbymember": (["geo", "a", "400", "km"], "GEO"),
    "geosearchstore": ([K, "geo", "FROMMEMBER", "a", "BYRADIUS", "400", "km"],
                       [["ASC"], ["COUNT", N], ["STOREDIST"], ["FROMMEMBER", "x"]]),
    "geoadd": ([Z, "13", "38", "a"], [["14", "38", "b"]]),
    "sort": (["COLLECTION"], "SORT"),
    "sort_ro": (["COLLECTION"], "SORT"),
    "zunionstore": ([K, "ZKEYS"], "ZSTORE"),
    "zinterstore": ([K, "ZKEYS"], "ZSTORE"),
    "zdiffstore": ([K, "ZKEYS"], []),
    "zunion": (["ZKEYS"], "ZSTORE"),
    "zinter": (["ZKEYS"], "ZSTORE"),
    "zdiff": (["ZKEYS"], [["WITHSCORES"]]),
    "zrangestore": ([K, Z, "0", "9"], [["BYSCORE"], ["REV"], ["LIMIT", "0", N]]),
    "zadd": ([Z, "5", "m"], []),
    "zincrby": ([Z, "1", "x"], []),
    "zremrangebylex": ([Z, "-", "+"], []),
    "zremrangebyrank": ([Z, "0", N], []),
    "zremrangebyscore": ([Z, "0", "9"], []),
    "sintercard": (["NUMKEYS"], [["LIMIT", N]]),
    "sinterstore": ([K, S], [[S]]),
    "sdiffstore": ([K, S], [[S]]),
    "smove": ([S, S, N], []),
    "spop": (["set"], [[N]]),
    "zintercard": (["ZKEYS"], [["LIMIT", N]]),
    "lmpop": (["LKEYS", "LEFT"], [["COUNT", N]]),
    "zmpop": (["ZKEYS", "MIN"], [["COUNT", N]]),
    "blmpop": (["1", "LKEYS", "LEFT"], [["COUNT", N]]),
    "bzmpop": (["1", "ZKEYS", "MIN"], [["COUNT", N]]),
    "bzpopmin": ([Z, Z, "1"], []),
    "bzpopmax": ([Z, Z, "1"], []),
    "blpop": ([L, K, "1"], []),
    "brpop": ([L, L, "1"], []),
    "lset": ([L, "0", V], []),
    "linsert": (["list", "BEFORE", "1", V], []),
    "ltrim": ([L, "0", N], []),
    "rpoplpush": ([L, K], []),
    "xread": (["XOPTIONS", "STREAMS", "XKEYS"], []),
    "xreadgroup": (["GROUP", "x", "c", "XOPTIONS", "STREAMS", "XKEYS"], []),
    "xgroup|create": ([K, "g", "$"], [["MKSTREAM"], ["ENTRIESREAD", N]]),
    "xgroup|setid": (["stream", "x", "0"], []),
    "xgroup|destroy": (["stream", "x"], []),
    "xgroup|createconsumer": (["stream", "x", V], []),
    "xgroup|delconsumer": (["stream", "x", "c"], []),
    "xadd": ([K, "XADD", "*", "f", "v"], []),
    "xtrim": (["stream", "MAXLEN", N], []),
    "xsetid": (["stream", "9-9"], []),
    "xclaim": (["stream", "x", "c", "0", "0-1"], [["IDLE", N], ["FORCE"], ["JUSTID"]]),
    "xautoclaim": (["stream", "x", "c", "0", "0"], [["COUNT", N], ["JUSTID"]]),
    "copy": ([K, K], [["DB", "0"], ["DB", "1"], ["REPLACE"]]),
    "move": ([K, "1"], []),
    "bitop": (["OR", K, K], [[K], [K]]),
    "bitfield": ([K], [["SET", "u8", "0", N], ["GET", "u8", "0"], ["INCRBY", "u8", "0", "1"]]),
    "setbit": ([K, N, "1"], []),
    "set": ([K, "v"], [["GET"], ["NX"], ["XX"], ["KEEPTTL"]]),
    "setex": ([K, "100", "v"], []),
    "psetex": ([K, "100000", "v"], []),
    "getex": ([K], [["PERSIST"], ["EX", "100"]]),
    "incrby": (["num", "1"], []),
    "decrby": ([K, "1"], []),
    "pexpire": ([K, "100000"], []),
    "expire": ([K, "100"], [["NX"]]),
    "pexpireat": ([K, "9999999999999"], []),
    "incrbyfloat": ([K, "1"], []),
    "hincrbyfloat": ([K, "x", "1"], []),
    "lmove": ([L, L, "LEFT", "RIGHT"], []),
    "blmove": ([L, L, "LEFT", "RIGHT", "1"], []),
    "brpoplpush": ([K, K, "1"], []),
    "mset": ([K, "v"], [[K, "v"], [K, "w"]]),
    "msetnx": ([K, "v"], [[K, "v"]]),
    "pfmerge": ([K, "hll"], [["hll"], ["none"]]),
    "pfcount": (["hll"], [["hll"], ["none"]]),
    "eval": (["return 1", "NUMKEYS"], [[V]]),
    "eval_ro": (["return 1", "NUMKEYS"], [[V]]),
    "fcall": (["f", "NUMKEYS"], [[V]]),
    "migrate": (["h", "1", K, "0", "1"], [["COPY"], ["REPLACE"], ["AUTH", "KEYS"], ["KEYS", K, K]]),
    "restore": ([K, "0", "DUMP"], [["REPLACE"], ["IDLETIME", N], ["ABSTTL"]]),
}
SHARED_OPTIONS = {
    "GEO": [["WITHCOORD"], ["WITHDIST"], ["COUNT", N], ["COUNT", N, "ANY"], ["ASC"], ["DESC"],
            ["STORE", K], ["STOREDIST", K], ["STORE", K], ["storedist", K]],
    "SORT": [["BY", "nosort"], ["BY", "x*"], ["LIMIT", "0", N], ["GET", "#"], ["GET", "x*"],
             ["ASC"], ["ALPHA"], ["STORE", K], ["store", K]],
    "ZSTORE": [["WEIGHTS", N], ["WEIGHTS", N, N], ["AGGREGATE", "MIN"], ["WITHSCORES"]],
}  # fmt: skip
# Not run on the server: they end it, wait for others, change it for the whole test, or what they
# write Valkey tells nobody of (nearkey takes them for writes of anything).
NOT_RUN = {
    "shutdown", "debug", "monitor", "sync", "psync", "replicaof", "slaveof", "failover", "cluster",
    "migrate", "wait", "waitaof", "config", "acl", "module", "client", "reset", "quit", "hello",
    "auth", "select", "swapdb", "flushall", "flushdb", "save", "bgsave", "bgrewriteaof", "script",
    "function", "multi", "exec", "discard", "watch", "unwatch", "latency", "slowlog", "replconf",
    "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe",
    "restore-asking", "pfdebug", "pfselftest", "asking", "readonly", "readwrite", "host:", "post",
}  # fmt: skip


class Calls:
    def __init__(self, commands, dump, seed):
        self.random = random.Random(seed)
        self.commands = commands
        self.dump = dump

    def key(self):
        return self.random.choice(KEYS)

    def numbered(self, of_type):
        """A number of keys, mostly the right one, and the keys."""
        count = self.random.randint(1, 3)
        said = count if self.random.random() < 0.9 else self.random.randint(-1, 5)
        return [str(said), *(word for _ in range(count) for word in self.expand(of_type))]

    def number(self):
        return self.random.choice(["0", "1", "2", "3"])

    def words(self, shape):
        return [word for each in shape for word in self.expand(each)]

    def expand(self, word):
        if word == K:
            return [self.key()]
        if word == N:
            return [self.number()]
        if word == V:
            return [self.random.choice(VALUES + KEYS)]
        if word == "COLLECTION":
            return [self.random.choice(["list", "set", "zset", self.key()])]
        if word in OF_TYPE:
            return [self.random.choice([*OF_TYPE[word], *OF_TYPE[word], "none2", self.key()])]
        if word in NUMBERED:
            return self.numbered(NUMBERED[word])
        if word == "DUMP":
            return [self.dump]
        if word == "XKEYS":
            count = self.random.randint(1, 3)
            ids = self.random.choice(["0", ">", "0-1", "STREAMS"])
            return [*(self.random.choice(["stream", "streams"]) for _ in range(count)), *[ids] * count]
        if word == "XOPTIONS":
            return self.some_of([["COUNT", N], ["NOACK"], ["BLOCK", "1"]])
        if word == "XADD":
            return self.some_of([["NOMKSTREAM"], ["MAXLEN", "3"]])
        return [word]

    def some_of(self, options):
        """In random order, some of them repeatedly."""
        chosen = self.random.choices(options, k=self.random.randint(0, 4)) if options else []
        return [word for option in chosen for word in self.words(option)]

    def shaped(self, name):
        fixed, options = SHAPES[name]
        options = SHARED_OPTIONS[options] if isinstance(options, str) else options
        return [*name.split("|"), *self.words(fixed), *self.some_of(options)]

    def any_words(self, name, arity):
        """As many words as it takes, or some more: keys, options and values in any order."""
        words = name.split("|")
        size = arity if arity > 0 else -arity + self.random.randint(0, 5)
        pools = [KEYS, KEYS, OPTIONS, VALUES]
        while len(words) < size:
            words.append(self.random.choice(self.random.choice(pools)))
        return words

    def make(self, count):
        """Of every command some, and of those with options many."""
        shaped = [name for name, _ in self.commands if name in SHAPES]
        for i in range(count):
            if i % 2 == 0 and shaped:
                yield self.shaped(self.random.choice(shaped))
            else:
                yield self.any_words(*self.commands[i // 2 % len(self.commands)])


@proxy_only
class KeysTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.direct = self.server.client()
        self.addCleanup(self.direct.close)
        self.told = self.server.client()
        self.addCleanup(self.told.close)
        self.told.command("HELLO", "3")
        self.assertEqual(b"+OK\r\n", self.told.command("CLIENT", "TRACKING", "ON", "BCAST"))
        # What expires is not written by the command that is run just then.
        self.direct.command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        function = "server.register_function('f', function(keys, args) return 1 end)"
        self.direct.command("FUNCTION", "LOAD", "#!lua name=l\n" + function)
        self.nearkey = self.start_nearkey(self.server.url, settings={"server.commands": "+@all"})
        self.asked = self.nearkey.client()
        self.addCleanup(self.asked.close)
        self.asked.command("HELLO", "3")

    def commands(self):
        for entry in parse(self.direct.command("COMMAND")):
            for name, arity, *_ in entry[9] or [entry]:
                yield name.decode(), arity

    def dump(self):
        self.direct.pipeline(PREPARE)
        return parse(self.direct.command("DUMP", "zset"))

    def changes(self):
        """The keys of which the server has told since it was asked last. What a turn of its loop
        has written it tells at the end of the turn: a second PING is read in a later one."""
        keys = set()
        for _ in range(2):
            self.told.send(encode("PING"))
            while (reply := self.told.read_reply()) != b"+PONG\r\n":
                keys |= set(parse(reply)[1] or [])
        return keys

    def explain(self, calls):
        said = self.asked.pipeline([("NEARKEY", "EXPLAIN", *call) for call in calls])
        for reply in said:
            words = parse(reply)
            keys = words[b"keys"]
            yield words[b"writes"], None if keys == b"not known" else set(keys)

    def run_and_look(self, call):
        """The keys that the call has changed. In a transaction nothing blocks."""
        self.direct.pipeline([("MULTI",), call, ("EXEC",)])
        return self.changes()

    def prepare(self):
        self.direct.pipeline(PREPARE)
        self.changes()

    def test_no_key_that_a_command_names_or_writes_is_missed(self):
        commands = sorted(self.commands())  # The server's order is another one each time.
        self.assertGreater(len(commands), 300)
        calls = list(Calls(commands, self.dump(), SEED).make(CALLS))
        named = written = 0
        self.prepare()
        for start in range(0, len(calls), BATCH):
            batch = calls[start : start + BATCH]
            answers = self.direct.pipeline([("COMMAND", "GETKEYSANDFLAGS", *call) for call in batch])
            for call, answer, (writes, keys) in zip(batch, answers, self.explain(batch), strict=True):
                answer = parse(answer)
                if call[0] == "xreadgroup" and call[1] != "GROUP":
                    continue  # The server names keys, and refuses to run it.
                if not isinstance(answer, RespError) and keys is not None:
                    named += len(answer)
                    self.assertLessEqual({key for key, _ in answer}, keys, call)
                if call[0] in NOT_RUN:
                    continue
                changed = self.run_and_look(call)
                written += len(changed)
                if changed:
                    self.prepare()
                if writes == b"its keys":
                    self.assertLessEqual(changed, keys, call)
                elif writes == b"nothing":
                    self.assertEqual(set(), changed, call)
        # A generator whose calls are all refused would find nothing.
        self.assertGreater(named, CALLS // 2)
        self.assertGreater(written, CALLS // 10)
        show_figure(f"{len(calls)} calls, {named} keys named by the server, {written} keys written")


@proxy_only
class RepeatedOptionTest(SystemTest):
    def test_a_repeated_option_writes_what_is_read_next(self):
        server = self.start_server()
        relay = Relay(os.path.join(self.directory, "relay.sock"), server.path)
        self.addCleanup(relay.close)
        nearkey = self.start_nearkey(f"unix://{relay.path}")
        client = nearkey.client()
        self.addCleanup(client.close)
        server.run("GEOADD", "geo", "13", "38", "a", "15", "37", "x")
        for option in ("STORE", "storedist"):
            for first, last in (("none", "none2"), ("STORE", "none"), ("none", "STORE")):
                with self.subTest(f"{option} {first} {last}"):
                    server.run("DEL", first, last)
                    store(nearkey, client, "EXISTS", last)
                    self.assertEqual(0, client.value("EXISTS", last))
                    # Without news from the server.
                    relay.hold(is_receiver)
                    self.assertEqual(2, client.value("GEORADIUS", "geo", "15", "37", "400", "km",
                                                     option, first, option, last))  # fmt: skip
                    self.assertEqual(1, client.value("EXISTS", last))
                    relay.thaw()


if __name__ == "__main__":
    unittest.main()
