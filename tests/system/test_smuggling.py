"""What the server says in a way that could be taken for more than one reply, or for none, never
reaches a client that did not ask for it (traps.md, P3, P4)."""

import unittest

from harness import EVERY_COMMAND, proxy_only
from leases import LeaseTest
from processes import wait_for
from resp import encode, parse

# The server repeats these in its error text.
NAMES = ["x\r\n+SMUGGLED", "x\r\n$8\r\nSMUGGLED\r\n", "\r\n:1\r\n:2", "x\r\n-SMUGGLED\r\n*2"]


class LineEndTest(LeaseTest):
    def check_others_are_answered(self, *command):
        """Ours and the others' commands are on their way at once, many times."""
        others = [self.client() for _ in range(4)]
        for client in others:
            self.addCleanup(client.close)
        for turn in range(25):
            smuggler = self.client()
            smuggler.send(encode(*command))
            for number, client in enumerate(others):
                client.send(encode("ECHO", f"{turn}.{number}") * 8)
            for number, client in enumerate(others):
                for reply in client.read_replies(8):
                    self.assertEqual(f"{turn}.{number}".encode(), parse(reply))
            smuggler.read_reply()
            smuggler.close()

    @proxy_only
    def test_trap_P3_an_error_of_function_list_with_line_ends(self):
        for name in NAMES:
            with self.subTest(name):
                self.check_others_are_answered("FUNCTION", "LIST", name)

    @proxy_only
    def test_trap_P3_an_error_of_a_script_with_line_ends(self):
        for name in NAMES:
            with self.subTest(name):
                self.check_others_are_answered("EVAL", "return {err=ARGV[1]}", "0", name)


class SyncTest(LeaseTest):
    settings = EVERY_COMMAND

    def has_replicas(self, count):
        return f"connected_slaves:{count}\r\n".encode() in self.direct.command(
            "INFO", "replication"
        )

    def receive_until(self, client, text):
        while text not in client.buffer:
            self.assertTrue(client.receive_some(), "the end came before it")

    @proxy_only
    def test_trap_P4_sync_goes_through_a_tunnel_and_ends_with_its_client(self):
        self.direct.command("SET", "planted", "in the snapshot")
        replica = self.client()
        self.addCleanup(replica.close)
        replica.send(encode("SYNC"))
        self.receive_until(replica, b"planted")
        other = self.client()
        self.addCleanup(other.close)
        self.assertEqual(b"+OK\r\n", other.command("SET", "written", "while it listens"))
        self.receive_until(replica, b"while it listens")
        self.assertEqual(b"$16\r\nwhile it listens\r\n", other.command("GET", "written"))
        self.assertTrue(self.has_replicas(1))
        replica.close()
        wait_for(lambda: self.has_replicas(0), 15, "the server has no replica any more")


if __name__ == "__main__":
    unittest.main()
