"""The main job: unmodified clients talk to nearkey's Unix socket and a real Valkey answers."""

import os
import subprocess
import unittest

from harness import (
    EVERY_COMMAND,
    SLOWNESS,
    SharedSystemTest,
    SystemTest,
    proxy_only,
    valkey_program,
    wait_for,
)
from resp import RespClient, encode, mask_ids, parse


def run_program(name, *args, stdin=b"", timeout=60):
    done = subprocess.run(
        [valkey_program(name), *args], input=stdin, capture_output=True, timeout=timeout * SLOWNESS
    )
    return done.returncode, done.stdout, done.stderr


class ProgramsTest(SharedSystemTest):
    def cli(self, *args, stdin=b""):
        code, out, err = run_program("cli", "-s", self.address, *args, stdin=stdin)
        self.assertEqual(0, code, err)
        self.assertEqual(b"", err)
        return out

    def test_valkey_cli_reads_and_writes(self):
        self.assertEqual(b"OK\n", self.cli("set", "greeting", "hello there"))
        self.assertEqual(b"hello there\n", self.cli("get", "greeting"))
        self.assertEqual(b"\n", self.cli("get", "absent"))
        self.assertEqual(b"hello there", self.direct.value("GET", "greeting"))

    def test_valkey_cli_selects_a_database(self):
        self.assertEqual(b"OK\n", self.cli("-n", "5", "set", "where", "five"))
        self.assertEqual(b"\n", self.cli("get", "where"))
        self.assertEqual(b"OK\n", self.cli("-n", "5", "-3", "set", "where", "still five"))
        self.assertEqual(b"still five\n", self.cli("-n", "5", "get", "where"))

    def test_valkey_cli_speaks_resp3(self):
        self.assertEqual(b"2\n", self.cli("-3", "hset", "h", "a", "1", "b", "2"))
        answer = self.cli("-3", "--json", "hgetall", "h")
        self.assertEqual(b'{"a":"1","b":"2"}\n', answer)  # A map: only RESP3 has one.

    def test_valkey_cli_takes_commands_and_binary_values_from_stdin(self):
        self.assertEqual(b"OK\nPONG\n3\n", self.cli(stdin=b"set a 1\nping\nincrby a 2\n"))
        self.assertEqual(b"OK\n", self.cli("-x", "set", "binary", stdin=bytes(range(256))))
        self.assertEqual(bytes(range(256)), self.direct.value("GET", "binary"))

    def test_valkey_cli_pipe_mode_loads_ten_thousand_keys(self):
        commands = b"".join(encode("SET", f"mass:{i}", f"value {i}") for i in range(10000))
        out = self.cli("--pipe", stdin=commands)
        self.assertIn(b"errors: 0, replies: 10000", out)
        self.assertEqual(10000, self.direct.value("DBSIZE"))
        self.assertEqual(b"value 9999", self.direct.value("GET", "mass:9999"))

    def test_valkey_benchmark_runs_without_an_error(self):
        code, out, err = run_program(
            "benchmark",
            "-s",
            self.address,
            "-t",
            "get,set,incr,lpush,sadd,hset,mset",
            "-P",
            "16",
            "-c",
            "50",
            "-n",
            "20000",
            "--csv",
            timeout=90,
        )
        self.assertEqual(0, code, err)
        self.assertNotIn(b"rror", out + err)
        rows = [line.split(b",")[0] for line in out.splitlines() if line.startswith(b'"')]
        for name in (b'"SET"', b'"GET"', b'"INCR"', b'"LPUSH"', b'"SADD"', b'"HSET"'):
            self.assertIn(name, rows)
        self.assertEqual(1, sum(row.startswith(b'"MSET') for row in rows))
        # The benchmark may send at most one pipeline for each client more than it was asked to
        # count.
        counted = int(self.direct.value("GET", "counter:__rand_int__"))
        self.assertTrue(20000 <= counted <= 20000 + 50 * 16, counted)
        pushed = self.direct.value("LLEN", "mylist")
        self.assertTrue(20000 <= pushed <= 20000 + 50 * 16, pushed)

    def test_valkey_benchmark_speaks_resp3(self):
        code, out, err = run_program(
            "benchmark",
            "-s",
            self.address,
            "-3",
            "-t",
            "get,set",
            "-P",
            "16",
            "-c",
            "20",
            "-n",
            "5000",
            "--csv",
        )
        self.assertEqual(0, code, err)
        self.assertNotIn(b"rror", out + err)
        self.assertIn(b'"GET"', out)


class ValuesTest(SharedSystemTest):
    settings = EVERY_COMMAND

    def test_raw_resp3_replies_are_those_of_the_server(self):
        commands = [
            ("HELLO", "3"),
            ("HSET", "h", "f", "v"),
            ("HGETALL", "h"),
            ("SADD", "s", "m"),
            ("SMEMBERS", "s"),
            ("ZADD", "z", "1.5", "m"),
            ("ZSCORE", "z", "m"),
            ("ZRANGE", "z", "0", "-1", "WITHSCORES"),
            ("GET", "none"),
            ("LRANGE", "none", "0", "-1"),
            ("CONFIG", "GET", "maxmemory"),
            ("ZPOPMIN", "z", "1"),
            ("GEOPOS", "none", "m"),
            ("OBJECT", "HELP"),
            ("HELLO", "2"),
        ]
        self.direct.command("DEL", "h", "s", "z")
        replies = self._both(commands)
        self.assertEqual(b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n", replies[2])
        self.assertEqual(b"~1\r\n$1\r\nm\r\n", replies[4])
        self.assertEqual(b",1.5\r\n", replies[6])
        self.assertEqual(b"_\r\n", replies[8])

    def _both(self, commands):
        """Compares with the server, which is emptied in between because the commands write."""
        with self.server.client() as client:
            oracle = [mask_ids(reply) for reply in client.pipeline(commands)]
        self.server.run("FLUSHALL")
        replies = [mask_ids(reply) for reply in self.client().pipeline(commands)]
        self.assertEqual(oracle, replies)
        return replies

    def test_resp2_replies_are_those_of_the_server(self):
        replies = self._both(
            [
                ("SET", "k", "v"),
                ("GET", "k"),
                ("GET", "none"),
                ("INCR", "k"),
                ("LPUSH", "l", "a", "b"),
                ("LRANGE", "l", "0", "-1"),
                ("HSET", "h", "f", "v"),
                ("HGETALL", "h"),
                ("HMGET", "h", "f", "g"),
                ("ZADD", "z", "1.5", "m"),
                ("ZRANGE", "z", "0", "-1", "WITHSCORES"),
                ("TYPE", "z"),
                ("SCAN", "0"),
                ("OBJECT", "ENCODING", "k"),
                ("GEOPOS", "none", "m"),
                ("SET", "k", "v", "NX"),
                ("EXISTS", "k"),
                ("MGET", "k", "none", "l"),
                ("DEBUG", "NOSUCH"),
                ("SET", "k"),
                ("CONFIG", "GET", "maxmemory"),
                ("DBSIZE",),
                ("APPEND", "k", ""),
                ("STRLEN", "k"),
                ("SETRANGE", "k", "5", "x"),
                ("GETDEL", "k"),
            ]
        )
        self.assertIn(b"-WRONGTYPE", self.client().command("GET", "l"))
        self.assertEqual(b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n", replies[7])

    def test_binary_keys_and_values_and_large_ones(self):
        client = self.client()
        for size in (0, 1, 63, 64, 4095, 4096, 16384, 65535, 65536, 1 << 20, 5_000_003):
            key = b"\r\n$" + bytes(range(256)) + b"%d" % size
            value = os.urandom(size)
            self.assertEqual(b"+OK\r\n", client.command("SET", key, value))
            self.assertEqual(value, client.value("GET", key))
            self.assertEqual(value, self.direct.value("GET", key))

    def test_a_deep_pipeline_is_answered_in_order(self):
        client = self.client()
        commands = []
        for i in range(3000):
            commands += [("SET", f"k{i % 7}", i), ("GET", f"k{i % 7}"), ("ECHO", f"e{i}")]
        replies = client.pipeline(commands)
        for i in range(3000):
            self.assertEqual(
                [
                    b"+OK\r\n",
                    b"$%d\r\n%d\r\n" % (len(str(i)), i),
                    b"$%d\r\ne%d\r\n" % (len(f"e{i}"), i),
                ],
                replies[3 * i : 3 * i + 3],
            )

    def test_scripts_work_and_keep_their_place_in_a_pipeline(self):
        replies = self._both(
            [
                ("SET", "k", "1"),
                ("EVAL", "return redis.call('get', KEYS[1])", "1", "k"),
                ("SET", "k", "2"),
                ("GET", "k"),
                ("EVAL", "return redis.call('incr', 'k')", "0"),
                ("GET", "k"),
                ("EVALSHA", "f" * 40, "0"),
                ("EVAL", "return {1, {2, 'x'}, false}", "0"),
                ("EVAL", "syntax error", "0"),
                ("EVAL", "return redis.error_reply('MY error')", "0"),
                ("GET", "k"),
            ]
        )
        self.assertEqual(
            [b"+OK\r\n", b"$1\r\n1\r\n", b"+OK\r\n", b"$1\r\n2\r\n", b":3\r\n", b"$1\r\n3\r\n"],
            replies[:6],
        )
        self.assertTrue(replies[6].startswith(b"-NOSCRIPT"))


@proxy_only
class SharingTest(SystemTest):
    def check_sharing(self, connections):
        """1,000 clients over three (protocol, database) pairs; the pairs of the connections to the
        server, counted."""
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"upstream.connections": connections})
        clients = []
        for i in range(1000):
            client = RespClient(nearkey.path)
            self.addCleanup(client.close)
            clients.append(client)
            protocol, database = (("2", "0"), ("3", "0"), ("2", "4"))[i % 3]
            client.send(
                encode("HELLO", protocol)
                + encode("SELECT", database)
                + encode("SET", f"k{i}", f"v{i}")
            )
        for client in clients:
            self.assertEqual(b"+OK\r\n", client.read_replies(3)[2])
        for i, client in enumerate(clients):
            client.send(encode("GET", f"k{i}"))
        for i, client in enumerate(clients):
            self.assertEqual(f"v{i}".encode(), parse(client.read_reply()))
        pairs = [(row["resp"], row["db"]) for row in server.clients()]
        pairs.remove(("3", "0"))  # the receiver of what RESP2 connections are to be told
        # One more where the server kept all of a pair waiting: on a busy machine it may.
        for pair in (("2", "0"), ("3", "0"), ("2", "4")):
            self.assertTrue(1 <= pairs.count(pair) <= connections + 1, (pair, pairs))
        metrics = nearkey.metrics()
        self.assertEqual(1000, metrics["nearkey_clients"])
        self.assertEqual(len(pairs) + 1, metrics["nearkey_upstream_connections"])
        for client in clients:
            client.close()
        wait_for(lambda: nearkey.metric("nearkey_clients") == 0, 5, "the clients are gone")

    def test_clients_that_open_many_databases_at_once_are_all_answered(self):
        """Right after the start, when no connection but the first is there yet."""
        server = self.start_server()
        for number in range(8):
            directory = os.path.join(self.directory, str(number))
            os.mkdir(directory)
            nearkey = self.start_nearkey(server.url, directory=directory)
            clients = [nearkey.client() for _ in range(20)]
            for i, client in enumerate(clients):
                client.send(encode("HELLO", 2 + i % 2) + encode("SELECT", i % 3))
                client.send(encode("SET", f"k{i}", i) + encode("GET", f"k{i}"))
            for i, client in enumerate(clients):
                _, selected, written, read = client.read_replies(4)
                self.assertEqual([b"+OK\r\n"] * 2, [selected, written])
                self.assertEqual(str(i).encode(), parse(read))
                client.close()
            nearkey.stop()

    def test_a_thousand_clients_share_one_connection_per_protocol_and_database(self):
        self.check_sharing(1)

    def test_a_thousand_clients_share_two_connections_per_protocol_and_database(self):
        self.check_sharing(2)


if __name__ == "__main__":
    unittest.main()
