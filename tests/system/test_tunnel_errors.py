"""Input that is no command, sent into a tunnel: none of it reaches the server, and the client gets
the server's own error at its place, and the end."""

import unittest

from harness import proxy_only, wait_for
from leases import LeaseTest
from resp import encode

LINE_MAX = 64 << 10
BULK_MAX = 1 << 20
# What nearkey must refuse, and what Valkey itself says of it.
INVALID = {
    "an inline line over 64 KiB": b"x" * (LINE_MAX + 1),
    "half a long line": b"ECHO " + b"x" * LINE_MAX,
    "an unbalanced quote": b'SET k "v\r\n',
    "a count that is no number": b"*many\r\n",
    "too large a count": b"*2147483648\r\n",
    "an endless count": b"*" + b"1" * (LINE_MAX + 1),
    "an endless length": b"*1\r\n$" + b"1" * (LINE_MAX + 1),
    "a length that is no number": b"*2\r\n$3\r\nGET\r\n$x\r\n",
    "a negative length": b"*2\r\n$3\r\nGET\r\n$-1\r\n",
    "no length": b"*2\r\n$3\r\nGET\r\n:1\r\n",
    "a line end for a length": b"*1\r\n\r\n\r\n",
    "a newline for a length": b"*1\r\n\n\r\n",
    "too large a length": b"*1\r\n$%d\r\n" % (BULK_MAX + 1),
}
INTO = {
    "tunnel": [("CLIENT", "NO-EVICT", "ON")],
    "subscriber": [("SUBSCRIBE", "c")],
    "transaction": [("CLIENT", "NO-EVICT", "ON"), ("MULTI",), ("SET", "k", "in multi")],
    "silenced": [("CLIENT", "NO-EVICT", "ON"), ("CLIENT", "REPLY", "OFF")],
    "pipeline": [("CLIENT", "NO-EVICT", "ON"), ("SET", "k", "v"), ("GET", "k"), ("ECHO", "x" * 999)],
}


class RefusedInputTest(LeaseTest):
    server_args = ("--proto-max-bulk-len", str(BULK_MAX))
    settings = {"limits.bulk_max": "1MiB"}

    def test_the_client_gets_the_servers_error_behind_what_it_is_owed_and_the_end(self):
        for state, commands in INTO.items():
            begin = b"".join(encode(*command) for command in commands)
            for what, data in INVALID.items():
                with self.subTest(state, what=what):
                    ends = state == "silenced"
                    oracle = self.talk(self.server.path, begin + data, ends)
                    answer = self.talk(self.address, begin + data, ends)
                    self.assert_bytes(oracle, answer, begin + data)
                    if state != "silenced":
                        self.assertIn(b"-ERR Protocol error: ", answer)

    def talk(self, address, data, ends):
        """Everything that comes back until the server ends it. (It does not end a silenced client
        that does not end itself.)"""
        client = self.client_of(address)
        try:
            client.send(data)
        except OSError:
            pass
        if ends:
            client.shutdown_write()
        answer, _ = client.read_to_end(5)
        client.close()
        return answer

    def test_a_blocked_client_gets_its_reply_before_the_error(self):
        client = self.client()
        client.pipeline([("CLIENT", "NO-EVICT", "ON")])
        client.send(encode("BLPOP", "l", "0"))
        self.wait_blocked(1)
        client.send(b"*x\r\n")
        self.assertTrue(client.is_silent(0.2))
        self.direct.command("RPUSH", "l", "v")
        answer, _ = client.read_to_end(5)
        self.assertEqual(
            b"*2\r\n$1\r\nl\r\n$1\r\nv\r\n-ERR Protocol error: invalid multibulk length\r\n", answer
        )

    def test_a_blocked_client_that_leaves_behind_it_is_ended(self):
        client = self.client()
        client.pipeline([("CLIENT", "NO-EVICT", "ON")])
        client.send(encode("BLPOP", "l", "0") + b"*x\r\n")
        self.wait_blocked(1)
        client.close()
        self.wait_blocked(0)
        self.wait_leased(0)


@proxy_only
class PastTheRulesTest(LeaseTest):
    settings = {"limits.bulk_max": "1MiB", "server.commands": "+@all -flushall -config|set"}

    def test_nothing_of_what_was_not_understood_is_run(self):
        self.server.run("SET", "k", "v")
        before = self.server.run("CONFIG", "GET", "hz")
        set_hz = encode("CONFIG", "SET", "hz", "77")
        padded = b"CONFIG SET hz 77" + b" " * LINE_MAX + b"\r\n"
        large = encode("ECHO", "x" * (BULK_MAX + 1))
        for bad in (padded, b"x" * (LINE_MAX + 1) + b"\r\n", large, *INVALID.values()):
            for behind in (set_hz + encode("FLUSHALL"), b"\r\nFLUSHALL\r\nCONFIG SET hz 77\r\n"):
                with self.subTest(bad[:40]):
                    client = self.client()
                    client.pipeline([("CLIENT", "NO-EVICT", "ON")])
                    try:
                        client.send(bad + behind)
                        answer, _ = client.read_to_end(5)
                        self.assertTrue(answer.startswith(b"-ERR Protocol error: "), answer[:80])
                    except OSError:
                        pass  # It was closed while we still sent.
                    client.close()
        self.assertEqual(before, self.server.run("CONFIG", "GET", "hz"))
        self.assertEqual(b"v", self.server.run("GET", "k"))
        wait_for(lambda: self.nearkey.metric("nearkey_upstream_tunnels") == 0, 5, "they ended")


if __name__ == "__main__":
    unittest.main()
