"""Whatever a client sends is run once it is complete, however it came; and each client gets on, or
ends with a reason."""

import hashlib
import threading
import time
import unittest

import redis
from harness import (
    SLOW,
    SLOWNESS,
    SharedSystemTest,
    SystemTest,
    proxy_only,
    show_figure,
    wait_for,
)
from procfs import rss_bytes
from resp import encode, split_replies

KILOBYTE, MEGABYTE = 1 << 10, 1 << 20


class CompleteInputTest(SharedSystemTest):
    """The answer is there, not only once more is sent."""

    def test_a_command_is_run_when_it_is_complete_wherever_its_large_argument_stands(self):
        for command in [
            ("SET", "k", "x" * 300 * KILOBYTE, "EX", "100"),
            ("MSET", "a", "x" * 300 * KILOBYTE, "b", "1"),
            ("HSET", "h", "f", "x" * 500 * KILOBYTE, "g", "1"),
            ("SET", "x" * 900_000, "v", "EX", "100"),
            ("SET", "x" * 2 * MEGABYTE, "v", "EX", "100"),
            ("SET", "k", "x" * 2 * MEGABYTE, "EX", "100"),
        ]:
            with self.server.client() as oracle:
                expected = oracle.command(*command)
            self.server.run("FLUSHALL")
            with self.client() as client:
                for _ in range(3):
                    self.assertEqual(expected, client.command(*command, timeout=2 * SLOWNESS))
                    self.server.run("FLUSHALL")

    def test_a_command_is_run_when_it_is_complete_wherever_it_was_cut(self):
        client = self.client()
        for size in (0, 1, 4095, 4096, 5000, 16 * KILOBYTE, 64 * KILOBYTE, 256 * KILOBYTE):
            data = encode("SET", "k", "x" * size, "EX", "100")
            for cut in (10, 30, 40, len(data) // 2, len(data) - 20, len(data) - 1):
                client.send(data[:cut])
                time.sleep(0.002)  # So that it arrives in two pieces.
                client.send(data[cut:] + encode("ECHO", f"{size} {cut}"))
                self.assertEqual(b"+OK\r\n", client.read_reply(2 * SLOWNESS), (size, cut))
                self.assertIn(f"{size} {cut}".encode(), client.read_reply(2 * SLOWNESS))


@proxy_only
class GivenAwayTest(SystemTest):
    def test_what_follows_two_large_commands_is_answered_though_the_first_is_still_being_sent(self):
        """The connection copies and frees the second's buffer, since it has the first to send."""
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        client = nearkey.client()
        self.addCleanup(client.close)
        client.command("EVAL", "return 1", "0")  # A dedicated connection is there from now on.
        with server.client() as sleeper:
            sleeper.send(encode("DEBUG", "SLEEP", "0.5"))
            time.sleep(0.05)  # The server is asleep now; nothing else can be asked of it.
            large = encode("SET", "k", b"x" * 6 * MEGABYTE) + encode("SET", "l", b"y" * 9 * MEGABYTE)
            client.send(large[:-100])
            time.sleep(0.1)  # So that the rest arrives by itself.
            client.send(large[-100:] + encode("ECHO", "here"))
            sleeper.read_reply()
        self.assertEqual(
            [b"+OK\r\n", b"+OK\r\n", b"$4\r\nhere\r\n"], client.read_replies(3, 5 * SLOWNESS)
        )
        self.assertEqual(b":%d\r\n" % (9 * MEGABYTE), client.command("STRLEN", "l"))


class WriteFirst(threading.Thread):
    """Writes all, and only then its client reads, as redis-py's pipelines do."""

    def __init__(self, client, data):
        super().__init__(daemon=True)
        self.client, self.data = client, data

    def run(self):
        self.client.send(self.data)


class WriteBeforeReadTest(SharedSystemTest):
    """A client may write a pipeline of any length before it reads the first reply."""

    settings = {"limits.output_per_client_high_water": 256 * KILOBYTE}

    def setUp(self):
        super().setUp()
        self.direct.pipeline([("SET", f"k{i}", str(i) * (1000 // len(str(i)))) for i in range(100)])

    def take(self, client, data, count):
        """All replies, and how long it took."""
        begin = time.monotonic()
        client.send(data)
        client.socket.settimeout(30)
        stream = client.socket.makefile("rb", MEGABYTE)
        replies = hashlib.sha256()
        for _ in range(count):
            line = stream.readline()
            self.assertNotEqual(b"", line, "closed")
            replies.update(line)
            if line.startswith(b"$"):
                replies.update(stream.read(int(line[1:]) + 2))
            elif line.startswith(b"*"):
                self.fail("an array")
        return replies.hexdigest(), time.monotonic() - begin

    def assert_ends_as_directly(self, commands, prepare=()):
        data = b"".join(encode(*command) for command in commands)
        results = []
        for client in (self.server.client(), self.client()):
            self.addCleanup(client.close)
            for command in prepare:
                client.command(*command)
            results.append(self.take(client, data, len(commands)))
        (expected, direct), (digest, took) = results
        self.assertEqual(expected, digest)
        show_figure(f"{self.id().rsplit('.')[-1]}: {took:.2f} s, directly {direct:.2f} s")
        self.assertLess(took, 3 * direct + 2 * SLOWNESS)

    def gets(self, count):
        return [("GET", f"k{i % 100}") for i in range(count)]

    def test_twenty_thousand_reads(self):
        self.assert_ends_as_directly(self.gets(20_000))

    def test_a_hundred_thousand_reads(self):
        self.assert_ends_as_directly(self.gets(100_000))

    def test_reads_that_the_near_cache_answers(self):
        reader = self.client()
        for _ in range(2):
            reader.pipeline(self.gets(100))
        self.assert_ends_as_directly(self.gets(30_000))

    def test_reads_and_writes_in_resp3(self):
        mixed = [c for i, get in enumerate(self.gets(15_000)) for c in (get, ("SET", f"n{i}", "x"))]
        self.assert_ends_as_directly(mixed, [("HELLO", "3")])

    def test_larger_values(self):
        self.direct.pipeline([("SET", f"k{i}", "y" * 5000) for i in range(100)])
        self.assert_ends_as_directly(self.gets(10_000))

    def test_in_a_tunnel(self):
        self.assert_ends_as_directly(self.gets(30_000), [("CLIENT", "NO-TOUCH", "OFF")])

    def test_in_a_tunnel_that_ends_in_the_middle(self):
        commands = self.gets(10_000) + [("RESET",)] + self.gets(10_000)
        self.assert_ends_as_directly(commands, [("CLIENT", "NO-TOUCH", "OFF")])

    def test_behind_blocking_commands_and_scripts(self):
        commands = [("LTRIM", "l", "1", "0"), ("RPUSH", "l", "x")]
        for _ in range(20):
            commands += [("RPUSH", "l", "x"), ("LPOP", "l"), ("EVAL", "return 'x'", "0")]
            commands += self.gets(1000) + [("BLMOVE", "l", "l", "LEFT", "LEFT", "0")]
        self.assert_ends_as_directly(commands)

    def test_in_a_transaction_by_steps(self):
        self.assert_ends_as_directly([("WATCH", "w"), ("MULTI",), *self.gets(30_000), ("DISCARD",)])

    def test_a_python_client_that_pipelines(self):
        with redis.Redis(unix_socket_path=self.address, socket_timeout=30) as client:
            for transaction in (False, True):
                pipe = client.pipeline(transaction=transaction)
                for command in self.gets(20_000):
                    pipe.execute_command(*command)
                values = pipe.execute()
                self.assertEqual(20_000, len(values))
                self.assertEqual(b"1" * 1000, values[1])


@proxy_only
class BoundTest(SystemTest):
    def start(self, **settings):
        self.server = self.start_server()
        self.server.run("SET", "large", "x" * 1_500_000)
        self.nearkey = self.start_nearkey(
            self.server.url,
            settings={name.replace("__", "."): value for name, value in settings.items()},
        )

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def test_who_writes_without_reading_is_closed_at_its_bound_and_the_log_says_why(self):
        self.start(limits__input_per_client_max=MEGABYTE)
        client = self.client()
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100):
                client.send(encode("ECHO", "x" * 1000) * 1000)
        self.assertEqual(1, self.nearkey.metric("nearkey_clients_closed_input_total"))
        self.nearkey.wait_logged("limits.input_per_client_max")
        wait_for(
            lambda: self.nearkey.metric("nearkey_client_memory_bytes") < MEGABYTE, 5, "memory"
        )

    def test_a_server_that_takes_nothing_stops_the_client_of_a_tunnel_and_fills_no_memory(self):
        self.start()
        client = self.client()
        client.command("CLIENT", "NO-TOUCH", "OFF")
        before = rss_bytes(self.nearkey.pid)
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        writer = WriteFirst(client, encode("ECHO", "x" * 10_000) * 6000)
        writer.start()
        writer.join(1)
        self.assertTrue(writer.is_alive())
        if not SLOW:
            self.assertLess(rss_bytes(self.nearkey.pid) - before, 16 * MEGABYTE)
        self.server.thaw()
        self.assertEqual(
            [b"$10000\r\n" + b"x" * 10_000 + b"\r\n"] * 6000, client.read_replies(6000, 30)
        )

    def test_who_sends_no_more_is_answered_all_that_it_has_asked_for(self):
        self.start(
            limits__output_per_client_high_water=8 * KILOBYTE, limits__in_flight_per_client_max=8
        )
        self.server.run("SET", "k", "x" * 5000)
        client = self.client()
        client.send(encode("GET", "k") * 3000)
        client.shutdown_write()
        data, ended = client.read_to_end(20)
        self.assertEqual("eof", ended)
        self.assertEqual(3000, len(split_replies(data)))

    def take_all_leases(self):
        taker = self.client()
        self.assertEqual(b"+OK\r\n", taker.command("WATCH", "w"))

    def test_without_a_dedicated_connection_large_values_go_as_all_others_do(self):
        self.start(upstream__dedicated_max=1)
        self.take_all_leases()
        client = self.client()
        self.assertEqual(1_500_000, len(client.value("GET", "large")))
        for number in range(40):
            self.assertEqual(b"+OK\r\n", client.command("SET", "small", str(number)))
            self.assertEqual(str(number).encode(), client.value("GET", "small"))
        self.assertEqual(b"+OK\r\n", client.command("SET", "large", "y" * 3 * MEGABYTE))
        self.assertEqual(b"y" * 3 * MEGABYTE, client.value("GET", "large"))
        self.assertEqual(b":0\r\n", client.command("EXISTS", "z" * MEGABYTE))
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_dedicated_waits_total"))

    def test_a_large_value_is_taken_late_while_valkey_is_busy(self):
        self.start()
        client = self.client()
        self.assertEqual(b"+PONG\r\n", client.command("PING"))
        with self.server.client() as sleeper:
            sleeper.send(encode("DEBUG", "SLEEP", "1.5"))
            time.sleep(0.05)  # The server is asleep now; nothing else can be asked of it.
            self.assertEqual(
                b"+OK\r\n", client.command("SET", "late", "y" * 2 * MEGABYTE, timeout=4 * SLOWNESS)
            )
            sleeper.read_reply()


if __name__ == "__main__":
    unittest.main()
