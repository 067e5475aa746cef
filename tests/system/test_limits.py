"""Every limit is an option, has a counter, and strikes nobody but the client that reaches it."""

import time
import unittest

from harness import SLOW, SystemTest, proxy_only, wait_for
from procfs import rss_bytes
from resp import Closed, encode, split_replies

PONG = b"+PONG\r\n"
MEGABYTE = 1 << 20


@proxy_only
class LimitsTest(SystemTest):
    def start(self, **limits):
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(
            self.server.url,
            settings={
                "upstream.connections": 1,
                **{f"limits.{name}": value for name, value in limits.items()},
            },
        )
        self.other = self.client()
        self.assertEqual(PONG, self.other.command("PING"))

    def client(self, **options):
        client = self.nearkey.client(**options)
        self.addCleanup(client.close)
        return client

    def assert_others_unharmed(self):
        self.assertEqual(
            [b"+OK\r\n", b"$5\r\nother\r\n"],
            self.other.pipeline([("SET", "o", "other"), ("GET", "o")]),
        )

    def test_clients_max(self):
        self.start(clients_max=5)
        clients = [self.client() for _ in range(4)]
        for client in clients:
            self.assertEqual(PONG, client.command("PING"))
        refused = self.client()
        self.assertEqual((b"-ERR max number of clients reached\r\n", "eof"), refused.read_to_end())
        self.assertEqual(1, self.nearkey.metric("nearkey_clients_refused_total"))
        self.assert_others_unharmed()
        clients[0].close()
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == 4, 3, "there is room again")
        self.assertEqual(PONG, self.client().command("PING"))

    def test_in_flight_per_client_max(self):
        self.start(in_flight_per_client_max=10)
        client = self.client()
        with self.server.client() as sleeper:
            sleeper.send(encode("DEBUG", "SLEEP", "0.3"))
            time.sleep(0.05)  # The server is asleep now; nothing else can be asked of it.
            client.send(encode("INCR", "n") * 1000)
            wait_for(
                lambda: self.nearkey.metric("nearkey_clients_paused_in_flight_total") > 0,
                2,
                "the client is paused",
            )
            self.assertLessEqual(self.nearkey.metric("nearkey_commands_total"), 1 + 10 + 10)
            sleeper.read_reply()
        self.assertEqual([b":%d\r\n" % i for i in range(1, 1001)], client.read_replies(1000))
        self.assert_others_unharmed()

    def test_commands_per_turn_max_keeps_a_pipeline_from_starving_the_others(self):
        self.start(commands_per_turn_max=4)
        client = self.client()
        client.send(encode("INCR", "n") * 5000)
        self.assert_others_unharmed()
        self.assertEqual([b":%d\r\n" % i for i in range(1, 5001)], client.read_replies(5000))

    def test_input_per_client_max(self):
        self.start(input_per_client_max=65536)
        self.assertEqual(b"+OK\r\n", self.other.command("SET", "k", "x" * 50000))
        client = self.client()
        try:
            client.send(encode("PING") + encode("SET", "behind", "x" * MEGABYTE))
        except OSError:
            pass
        data, ended = client.read_to_end()
        replies = split_replies(data)
        self.assertIn(ended, ("eof", "reset"))
        for reply in replies:
            self.assertTrue(reply == PONG or reply.startswith(b"-ERR"), reply)
        self.assertEqual(1, self.nearkey.metric("nearkey_clients_closed_input_total"))
        self.assertIsNone(self.server.run("GET", "behind"))
        self.assert_others_unharmed()

    def test_input_per_client_max_is_about_one_command_and_not_about_a_long_pipeline(self):
        self.start(input_per_client_max=65536)
        client = self.client()
        for _ in range(5):
            self.assertEqual([b"+OK\r\n"] * 100, client.pipeline([("SET", "k", "x" * 4000)] * 100))
        self.assertEqual(0, self.nearkey.metric("nearkey_clients_closed_input_total"))

    def test_bulk_max(self):
        self.start(bulk_max=100000)
        client = self.client()
        self.assertEqual(b"+OK\r\n", client.command("SET", "k", "x" * 100000))
        client.send(encode("PING") + b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100001\r\n")
        self.assertEqual(
            (PONG + b"-ERR Protocol error: invalid bulk length\r\n", "eof"), client.read_to_end()
        )
        self.assertGreaterEqual(self.nearkey.metric("nearkey_protocol_errors_total"), 1)
        self.assert_others_unharmed()

    def send_all_it_takes(self, client, data):
        client.socket.setblocking(False)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[client.socket.send(rest) :]
        except OSError:
            pass

    def test_output_per_client_high_water_pauses_and_then_goes_on(self):
        self.start(output_per_client_high_water=100_000, in_flight_per_client_max=20)
        self.server.run("SET", "large", "x" * 50_000)
        client = self.client(receive_buffer=4096)
        client.send(encode("GET", "large") * 200)
        wait_for(
            lambda: self.nearkey.metric("nearkey_clients_paused_output_total") > 0,
            3,
            "the client is paused",
        )
        self.assert_others_unharmed()
        self.assertEqual(
            [50_000 + len("$50000\r\n\r\n")] * 200,
            [len(reply) for reply in client.read_replies(200)],
        )
        self.assertEqual(0, self.nearkey.metric("nearkey_clients_closed_output_total"))

    def test_output_per_client_max_closes(self):
        self.start(output_per_client_high_water=100_000, output_per_client_max=MEGABYTE)
        self.server.run("SET", "large", "x" * 100_000)
        client = self.client(receive_buffer=4096)
        self.send_all_it_takes(client, encode("GET", "large") * 500)
        wait_for(
            lambda: self.nearkey.metric("nearkey_clients_closed_output_total") == 1,
            3,
            "the client is closed",
        )
        self.assert_others_unharmed()
        try:
            client.read_to_end()
        except Closed:
            pass

    def fill_memory(self):
        """3 clients that do not read are owed 30 MB, with 8 MB allowed."""
        self.start(
            memory_max=8 * MEGABYTE,
            output_per_client_max=64 * MEGABYTE,
            output_per_client_high_water=32 * MEGABYTE,
        )
        self.server.run("SET", "large", "x" * 100_000)
        self.memory_before = rss_bytes(self.nearkey.pid)
        for client in [self.client(receive_buffer=4096) for _ in range(3)]:
            client.send(encode("GET", "large") * 100)

    def memory_actions(self):
        metrics = self.nearkey.metrics()
        return (
            metrics["nearkey_clients_paused_memory_total"]
            + metrics["nearkey_clients_closed_memory_total"]
        )

    def test_memory_max_counts_what_clients_do_not_read(self):
        self.fill_memory()
        wait_for(
            lambda: self.memory_actions() > 0,
            5,
            "somebody is paused or closed for the memory of all",
        )

    def test_memory_max_is_reached_and_left_again(self):
        self.fill_memory()
        deadline = time.monotonic() + 10
        while self.memory_actions() == 0 and time.monotonic() < deadline:
            self.assertEqual(PONG, self.other.command("PING"))
        self.assertGreater(self.memory_actions(), 0)
        if not SLOW:
            self.assertLess(rss_bytes(self.nearkey.pid) - self.memory_before, 64 * MEGABYTE)
        # Who does not read goes, the largest first, until there is room for those who do.
        self.assertEqual(PONG, self.other.command("PING", timeout=30))
        self.assert_others_unharmed()
        self.assertGreater(self.nearkey.metric("nearkey_clients_closed_memory_total"), 0)

    def test_protocol_errors_are_counted(self):
        self.start()
        for bad in (b"*x\r\n", b"*1\r\n$-1\r\n", b'"\r\n'):
            client = self.client()
            client.send(bad)
            client.read_to_end()
        self.assertEqual(3, self.nearkey.metric("nearkey_protocol_errors_total"))
        self.assert_others_unharmed()

    def test_row_64_memory_given_back_after_a_large_reply(self):
        self.start()
        self.server.run("SET", "large", "x" * (64 * MEGABYTE))
        before = rss_bytes(self.nearkey.pid)
        client = self.client()
        for _ in range(3):
            self.assertEqual(64 * MEGABYTE, len(client.value("GET", "large")))
        client.close()
        self.assert_others_unharmed()
        if not SLOW:
            wait_for(
                lambda: rss_bytes(self.nearkey.pid) - before < 32 * MEGABYTE,
                3,
                "the buffer is given back",
            )


if __name__ == "__main__":
    unittest.main()
