"""What the server says is passed on as it is: refusals (faults.md, rows 10, 13, 15, 16, 18), every
type of RESP, nulls of every kind, and replies that are long or deep (row 43)."""

import time
import unittest

from harness import DIRECT, EVERY_COMMAND, SystemTest, free_port, proxy_only, wait_for
from leases import LeaseTest, wait_blocked
from resp import encode, parse

OK, PONG = b"+OK\r\n", b"+PONG\r\n"
# The rest of DEBUG PROTOCOL's types, push, is in a test of its own.
TYPES = ("string", "integer", "double", "null", "array", "set", "map", "attrib", "verbatim",
         "true", "false", "bignum")  # fmt: skip
PREPARE = [
    ("RPUSH", "l", "a", "b", "c"),
    ("SADD", "s", "1", "2", "3"),
    ("HSET", "h", "f", "v", "g", "w"),
    ("ZADD", "z", "1", "a", "2.5", "b", "-inf", "c"),
    ("GEOADD", "geo", "13.361389", "38.115556", "Palermo"),
    ("SET", "empty", ""),
    ("XADD", "x", "1-1", "f", "v"),
    ("XGROUP", "CREATE", "x", "g", "0"),
]
NULLS_AND_EMPTIES = [
    ("GET", "none"),
    ("GET", "empty"),
    ("MGET", "none", "empty", "l"),
    ("HGET", "h", "none"),
    ("HMGET", "h", "f", "none"),
    ("HGETALL", "none"),
    ("HKEYS", "none"),
    ("LRANGE", "none", "0", "-1"),
    ("LRANGE", "l", "5", "9"),
    ("LPOP", "none"),
    ("LPOP", "none", "2"),
    ("LPOP", "l", "0"),
    ("LMPOP", "1", "none", "LEFT"),
    ("LPOS", "l", "x"),
    ("LPOS", "l", "x", "COUNT", "0"),
    ("SMEMBERS", "none"),
    ("SPOP", "none"),
    ("SPOP", "none", "3"),
    ("SRANDMEMBER", "none"),
    ("SRANDMEMBER", "none", "3"),
    ("SMISMEMBER", "s", "1", "9"),
    ("ZSCORE", "z", "none"),
    ("ZSCORE", "z", "c"),
    ("ZMSCORE", "z", "a", "none"),
    ("ZRANK", "z", "none"),
    ("ZRANK", "z", "none", "WITHSCORE"),
    ("ZRANGE", "z", "0", "-1", "WITHSCORES"),
    ("ZRANGE", "none", "0", "-1"),
    ("ZPOPMIN", "none"),
    ("ZMPOP", "1", "none", "MIN"),
    ("ZRANDMEMBER", "none"),
    ("ZRANDMEMBER", "none", "2", "WITHSCORES"),
    ("HRANDFIELD", "none"),
    ("HRANDFIELD", "h", "2", "WITHVALUES"),
    ("GEOPOS", "geo", "none", "Palermo"),
    ("GEODIST", "geo", "Palermo", "none"),
    ("GEOHASH", "geo", "none"),
    ("GEOSEARCH", "geo", "FROMLONLAT", "0", "0", "BYRADIUS", "1", "m"),
    ("XRANGE", "none", "-", "+"),
    ("XREAD", "COUNT", "1", "STREAMS", "x", "1-1"),
    ("XREAD", "COUNT", "1", "STREAMS", "x", "0"),
    ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "x", "1-1"),
    ("XAUTOCLAIM", "x", "g", "c", "0", "0"),
    ("XPENDING", "x", "g"),
    ("BLPOP", "none", "0.01"),
    ("BLMPOP", "0.01", "1", "none", "LEFT"),
    ("BZPOPMIN", "none", "0.01"),
    ("SET", "k", "v", "XX"),
    ("SET", "k", "v", "GET"),
    ("SET", "k", "w", "NX", "GET"),
    ("GETDEL", "none"),
    ("KEYS", "nothing*"),
    ("SCAN", "0", "MATCH", "nothing*", "COUNT", "1000"),
    ("OBJECT", "ENCODING", "none"),
    ("DUMP", "none"),
    ("CONFIG", "GET", "nosuch"),
    ("CONFIG", "GET", "maxmemory"),
    ("COMMAND", "INFO", "nosuch"),
    ("PUBSUB", "CHANNELS"),
    ("EVAL", "return nil", "0"),
    ("EVAL", "return {1, false, {}, {ok='fine'}, 'x', {err='ERR mine'}, true, 1.9}", "0"),
    ("EVAL", "redis.setresp(3); return {double=1.5}", "0"),
    ("EVAL", "redis.setresp(3); return {map={a=1}}", "0"),
    ("EVAL", "redis.setresp(3); return {set={a=true}}", "0"),
    ("EVAL", "redis.setresp(3); return true", "0"),
    ("EVAL", "redis.setresp(3); return redis.call('HGETALL', 'h')", "0"),
]


class TypesTest(LeaseTest):
    settings = EVERY_COMMAND

    def replies(self, address, protocol, commands):
        client = self.resp_client(protocol, address)
        try:
            return client.pipeline(commands)
        finally:
            client.close()

    def test_every_type_has_the_bytes_of_the_server(self):
        commands = [("DEBUG", "PROTOCOL", kind) for kind in TYPES]
        for protocol in (2, 3):
            replies = self.assert_same_talk(self.replies, protocol, [*commands, ("PING",)])
            if protocol == 3:
                kinds = {reply[:1] for reply in replies}
                self.assertLessEqual({b"$", b":", b",", b"_", b"*", b"~", b"%", b"|", b"=", b"#",
                                      b"("}, kinds)  # fmt: skip
            self.assert_same_talk(self.replies, protocol, [("CLIENT", "NO-TOUCH", "ON"), *commands])

    def push(self, address, protocol, before):
        client = self.resp_client(protocol, address)
        client.pipeline(before)
        replies = client.pipeline([("DEBUG", "PROTOCOL", "push"), ("PING",)])
        while replies[-1] != PONG:
            replies.append(client.read_reply())
        client.close()
        return replies

    def test_a_push_has_the_bytes_of_the_server_in_a_tunnel(self):
        for protocol in (2, 3):
            self.assert_same_talk(self.push, protocol, [("CLIENT", "NO-TOUCH", "ON")])

    def test_row_45_a_push_that_no_client_asked_for_is_dropped(self):
        """A client without a tunnel has nothing that could push: RESP3 lets pushes come and go."""
        oracle = self.push(self.server.path, 3, [])
        silent = [reply for reply in oracle if reply[:1] != b">"]
        self.assertEqual(len(oracle) - 1, len(silent))
        self.assertIn(self.push(self.address, 3, [("PING",)]), (silent, oracle))

    def test_nulls_and_empty_things(self):
        for protocol in (2, 3):
            replies = self.assert_same_talk(
                self.replies, protocol, [*PREPARE, *NULLS_AND_EMPTIES]
            )
            null = {b"$-1\r\n", b"*-1\r\n"} if protocol == 2 else {b"_\r\n"}
            self.assertLessEqual(null | {b"$0\r\n\r\n", b"*0\r\n"}, set(replies))

    def raw(self, address, protocol, command):
        """The bytes up to the reply to an ECHO behind the command."""
        client = self.resp_client(protocol, address)
        client.send(encode(*command) + encode("ECHO", "the end"))
        while not client.buffer.endswith(b"$7\r\nthe end\r\n"):
            self.assertTrue(client.receive_some(), "closed in the middle")
        client.close()
        return bytes(client.buffer)

    def test_replies_of_a_hundred_thousand_elements(self):
        count = 100_000
        fill = "for i = 1, tonumber(ARGV[1]) do redis.call(%s) end"
        for arguments in (
            "'RPUSH', 'l', i",
            "'SADD', 's', 'm' .. i",
            "'ZADD', 'z', i, i",
            "'HSET', 'h', i, 'v' .. i",
            "'XADD', 'x', i .. '-0', 'f', i",
        ):
            self.direct.value("EVAL", fill % arguments, "0", count, timeout=60)
        for protocol in (2, 3):
            for command in (("LRANGE", "l", "0", "-1"), ("SMEMBERS", "s"), ("HGETALL", "h"),
                            ("ZRANGE", "z", "0", "-1", "WITHSCORES"), ("XRANGE", "x", "-", "+"),
                            ("SORT", "l", "DESC"), ("HSCAN", "h", "0", "COUNT", "1000000"),
                            ("MGET", *["none"] * count)):  # fmt: skip
                with self.subTest(command[:3], protocol=protocol):
                    oracle = self.raw(self.server.path, protocol, command)
                    answer = self.raw(self.address, protocol, command)
                    self.assert_bytes(oracle, answer, repr(command[:3]).encode())
                    self.assertGreater(len(answer), count * 3)

    def test_row_43_deep_replies_over_every_kind_of_connection(self):
        script = "local t = {7} for i = 2, tonumber(ARGV[1]) do t = {t} end return t"
        for protocol in (2, 3):
            for depth in (1000, 7000):
                expected = b"*1\r\n" * depth + b":7\r\n"
                client = self.resp_client(protocol)
                run = ("EVAL", script, "0", depth)
                self.assertEqual([expected, PONG], client.pipeline([run, ("PING",)]))
                whole = client.pipeline([("MULTI",), run, run, ("EXEC",), ("PING",)])
                self.assertEqual([b"*2\r\n" + expected * 2, PONG], whole[3:])
                client.command("CLIENT", "NO-TOUCH", "ON")
                replies = client.pipeline([run, ("RESET",), ("PING",)])
                self.assertEqual([expected, b"+RESET\r\n", PONG], replies)

    def test_errors_have_the_words_of_the_server(self):
        commands = [
            ("SET", "text", "x"),
            ("INCR", "text"),
            ("LPUSH", "text", "x"),
            ("EVAL", "return redis.error_reply('MINE of mine')", "0"),
            ("EVAL", "return {err = 'a b'}", "0"),
            ("EVAL", "return redis.call('NOSUCH')", "0"),
            ("EVALSHA", "0" * 40, "0"),
            ("EVAL", "return 1", "x"),
            ("RESTORE", "k", "0", "rubbish"),
            ("XADD", "text", "*", "f", "v"),
            ("XADD", "x", "0-0", "f", "v"),
            ("CLUSTER", "INFO"),
            ("CONFIG", "SET", "nosuch", "1"),
            ("OBJECT", "HELP"),
            ("FCALL", "nosuch", "0"),
            ("DEBUG", "NOSUCH"),
            ("MIGRATE", "x"),
        ]
        for protocol in (2, 3):
            self.assert_same_talk(self.replies, protocol, commands)


class RefusalTest(LeaseTest):
    settings = EVERY_COMMAND

    def assert_refused(self, error, *commands):
        """Over every kind of connection."""
        for command in commands:
            for before in ([], [("CLIENT", "NO-TOUCH", "ON")]):
                client, oracle = self.client(), self.client_of(self.server.path)
                expected = oracle.pipeline([*before, command, ("ECHO", "x")])
                self.assertTrue(expected[-2].startswith(error), expected)
                self.assertEqual(expected, client.pipeline([*before, command, ("ECHO", "x")]))
                client.close()

    def test_row_13_readonly(self):
        self.addCleanup(self.server.run, "REPLICAOF", "NO", "ONE")
        client = self.client()
        self.assertEqual(OK, client.command("SET", "k", "v"))
        self.server.run("REPLICAOF", "127.0.0.1", free_port())
        if not DIRECT:
            # A write that is on its way when that is found is lost (docs/failover.md).
            wait_for(lambda: any("upstream_demoted" in line for line in self.nearkey.lines), 10,
                     "the replica is found")
        self.assert_refused(b"-READONLY ", ("SET", "k", "w"), ("BLPOP", "l", "0"), ("DEL", "k"))
        self.assertEqual(b"$1\r\nv\r\n", client.command("GET", "k"))
        self.assert_same_replies([("MULTI",), ("SET", "k", "w"), ("EXEC",), ("GET", "k")])
        script = "return redis.call('SET', 'k', 'w')"
        self.assert_same_replies([("EVAL", script, "0"), ("EVAL", "return 1", "0")])
        self.server.run("REPLICAOF", "NO", "ONE")
        self.assertEqual(OK, client.command("SET", "k", "w"))

    def test_row_15_masterdown(self):
        self.addCleanup(self.server.run, "REPLICAOF", "NO", "ONE")
        self.addCleanup(self.server.run, "CONFIG", "SET", "replica-serve-stale-data", "yes")
        client = self.client()
        self.assertEqual(OK, client.command("SET", "k", "v"))
        self.server.run("CONFIG", "SET", "replica-serve-stale-data", "no")
        self.server.run("REPLICAOF", "127.0.0.1", free_port())
        for command in (("GET", "k"), ("LLEN", "l"), ("EVAL", "return 1", "0")):
            expected = self.client_of(self.server.path).command(*command)
            self.assertTrue(expected.startswith(b"-MASTERDOWN "), expected)
            self.assertEqual(expected, client.command(*command))
        self.server.run("REPLICAOF", "NO", "ONE")
        self.assertEqual(b"$1\r\nv\r\n", client.command("GET", "k"))
        if self.nearkey is not None:
            self.nearkey.wait_ready()

    def test_row_16_out_of_memory(self):
        self.addCleanup(self.server.run, "CONFIG", "SET", "maxmemory", "0")
        client = self.client()
        self.server.run("CONFIG", "SET", "maxmemory", "1")
        self.assert_refused(b"-OOM ", ("SET", "k", "v"), ("LPUSH", "l", "v"), ("APPEND", "k", "v"))
        self.assertEqual([b"$-1\r\n", PONG], client.pipeline([("GET", "k"), ("PING",)]))
        script = "return redis.call('SET', KEYS[1], 'v')"
        self.assert_same_replies([("EVAL", script, "1", "k"), ("EVAL", "return 1", "0")])
        self.server.run("CONFIG", "SET", "maxmemory", "0")
        self.assertEqual(OK, client.command("SET", "k", "v"))

    def test_row_18_not_enough_replicas(self):
        self.addCleanup(self.server.run, "CONFIG", "SET", "min-replicas-to-write", "0")
        self.server.run("CONFIG", "SET", "min-replicas-to-write", "1")
        self.assert_refused(b"-NOREPLICAS ", ("SET", "k", "v"), ("DEL", "k"), ("LPUSH", "l", "v"))
        self.assert_same_replies([("MULTI",), ("SET", "k", "v"), ("EXEC",), ("GET", "k")])
        self.server.run("CONFIG", "SET", "min-replicas-to-write", "0")
        self.assertEqual(OK, self.client().command("SET", "k", "v"))


@proxy_only
class PausedServerTest(SystemTest):
    """Row 10. The end of a pause comes from a connection that was there before."""

    def start(self, **settings):
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(self.server.url, settings=settings)
        self.control = self.server.client()
        self.addCleanup(self.control.close)
        self.reader, self.writer, self.popper = (self.nearkey.client() for _ in range(3))
        for client in (self.reader, self.writer, self.popper):
            self.addCleanup(client.close)
            self.assertEqual(OK, client.command("SET", "k", "v"))

    def test_row_10_writes_wait_for_the_end_of_a_pause(self):
        self.start()
        self.control.command("CLIENT", "PAUSE", "3600000", "WRITE")
        for _ in range(100):
            self.assertEqual(b"$1\r\nv\r\n", self.reader.command("GET", "k"))
        self.writer.send(encode("SET", "k", "w") + encode("GET", "k"))
        self.popper.send(encode("EVAL", "return redis.call('INCR', 'n')", "0"))
        # INFO's number leaves out clients that are postponed: the table of clients has them.
        wait_for(
            lambda: sum("b" in row["flags"] for row in self.server.clients()) == 2,
            5,
            "both are held back",
        )
        self.assertTrue(self.writer.is_silent(0.3))
        self.assertEqual(200, self.nearkey.ready_status())
        self.assertEqual(OK, self.control.command("CLIENT", "UNPAUSE"))
        self.assertEqual([OK, b"$1\r\nw\r\n"], self.writer.read_replies(2))
        self.assertEqual(b":1\r\n", self.popper.read_reply())
        self.assertEqual(b"$1\r\nw\r\n", self.reader.command("GET", "k"))

    def test_row_10_everything_waits_for_the_end_of_a_full_pause(self):
        self.start()
        self.control.command("CLIENT", "PAUSE", "400", "ALL")
        begin = time.monotonic()
        for client in (self.reader, self.writer):
            client.send(encode("GET", "k") + encode("INCR", "n"))
        statuses = {self.nearkey.ready_status()}
        replies = [client.read_replies(2) for client in (self.reader, self.writer)]
        self.assertGreater(time.monotonic() - begin, 0.3)
        statuses.add(self.nearkey.ready_status())
        self.assertEqual({200}, statuses)
        self.assertEqual([b"$1\r\nv\r\n"] * 2, [first for first, _ in replies])
        self.assertEqual({b":1\r\n", b":2\r\n"}, {second for _, second in replies})

    def test_row_10_a_pause_longer_than_the_timeout_is_an_honest_error(self):
        self.start(**{"upstream.request_timeout_ms": 300})
        self.control.command("CLIENT", "PAUSE", "3600000", "WRITE")
        for reply in self.writer.pipeline([("INCR", "n"), ("INCR", "n")]):
            self.assertTrue(reply.startswith(b"-UPSTREAMTIMEOUT "), reply)
        self.popper.send(encode("BLPOP", "l", "0"))
        self.assertTrue(self.popper.is_silent(0.6), "it has no timeout of ours")
        self.assertEqual(OK, self.control.command("CLIENT", "UNPAUSE"))
        wait_blocked(self.server, 1)
        self.nearkey.wait_ready()
        self.assertEqual(b"$4\r\nmine\r\n", self.writer.command("ECHO", "mine"))
        self.assertEqual(b"+OK\r\n", self.writer.command("SET", "after", "1"))
        self.assertIn(self.server.run("GET", "n"), (None, b"1", b"2"))
        self.server.run("RPUSH", "l", "v")
        self.assertEqual([b"l", b"v"], parse(self.popper.read_reply()))


if __name__ == "__main__":
    unittest.main()
