"""Whatever a client sends is run once it is complete, however it came; and each client gets on, or
ends with a reason."""

import time
import unittest

from harness import SLOWNESS, SharedSystemTest, SystemTest, proxy_only
from resp import encode

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


if __name__ == "__main__":
    unittest.main()
