"""What a client under the default rules can learn of the server's passwords: nothing, by any command.

The server has a password in each place where it can have one; everything that it says to a client is
searched for them and for their hashes, over each way that a command can take."""

import hashlib
import socket
import unittest

from harness import EVERY_COMMAND, SystemTest, proxy_only
from resp import Closed, RespClient, parse

PASSWORDS = {
    "requirepass": "oneNearkeySecret",
    "primaryauth": "twoNearkeySecret",
    "tls-key-file-pass": "threeNearkeySecret",
    "tls-client-key-file-pass": "fourNearkeySecret",
}
ALIASES = {"masterauth"}
NAMES = set(PASSWORDS) | ALIASES
TRACES = [
    trace
    for password in PASSWORDS.values()
    for trace in (password.encode(), hashlib.sha256(password.encode()).hexdigest().encode())
]
PATTERNS = (
    [("*",), ("*pass",), ("*auth",), ("requirepas?",), ("[r]equirepass",), ("re\\quirepass",)]
    + [(name,) for name in sorted(NAMES)]
    + [("REQUIREPASS",), ("MasterAuth", "maxmemory"), ("tls-*", "hz", "primaryauth")]
)


def names_of(reply):
    """Of a reply to CONFIG GET, in RESP2 or RESP3."""
    value = parse(reply)
    return set(value if isinstance(value, dict) else value[::2])


def words_of(commands):
    """All commands of a reply to COMMAND, sub-commands as two words, with their arity."""
    for entry in commands:
        subcommands = entry[9]
        if not subcommands:
            yield entry[0].decode().split("|"), entry[1]
        yield from words_of(subcommands)


@proxy_only
class ServerSecretsTest(SystemTest):
    def setUp(self):
        super().setUp()
        args = [word for name, value in PASSWORDS.items() for word in (f"--{name}", value)]
        self.server = self.start_server(args=args)
        self.server.password = PASSWORDS["requirepass"]

    def start(self, **settings):
        password = {"NEARKEY_UPSTREAM_PASSWORD": PASSWORDS["requirepass"]}
        return self.start_nearkey(self.server.url, settings=settings, environment=password)

    def direct(self):
        client = self.server.client()
        self.addCleanup(client.close)
        return client

    def client(self):
        client = RespClient(self.nearkey.path)
        self.addCleanup(client.close)
        return client

    def assert_no_trace(self, reply, what):
        for trace in TRACES:
            self.assertNotIn(trace, reply, what)

    def ways(self, *command):
        """The reply to the command, over each way that it can take."""
        for protocol in ("2", "3"):
            client = self.client()
            client.command("HELLO", protocol)
            yield "alone", client.command(*command)
            whole = client.pipeline([("MULTI",), command, ("EXEC",)])
            yield "transaction, whole", whole[2].partition(b"\r\n")[2]
            client.command("MULTI")
            client.command(*command)
            yield "transaction, in steps", client.command("EXEC").partition(b"\r\n")[2]
            client.command("CLIENT", "NO-TOUCH", "ON")
            yield "tunnel", client.command(*command)

    def test_config_get_shows_everything_but_passwords(self):
        self.nearkey = self.start()
        for patterns in PATTERNS:
            expected = names_of(self.direct().command("CONFIG", "GET", *patterns))
            expected = {name for name in expected if name.lower().decode() not in NAMES}
            for way, reply in self.ways("CONFIG", "GET", *patterns):
                with self.subTest(patterns, way=way):
                    self.assert_no_trace(reply, patterns)
                    self.assertEqual(expected, names_of(reply))

    def test_config_get_of_what_applications_read_is_the_servers(self):
        self.nearkey = self.start()
        for patterns in (("maxmemory-policy",), ("notify-keyspace-events",), ("maxmemory*", "hz")):
            expected = names_of(self.direct().command("CONFIG", "GET", *patterns))
            for way, reply in self.ways("CONFIG", "GET", *patterns):
                with self.subTest(patterns, way=way):
                    self.assertEqual(expected, names_of(reply))

    def test_who_may_set_parameters_is_shown_all(self):
        self.nearkey = self.start(**EVERY_COMMAND)
        expected = self.direct().command("CONFIG", "GET", "requirepass")
        for way, reply in self.ways("CONFIG", "GET", "requirepass"):
            with self.subTest(way):
                self.assertEqual([b"requirepass", b"oneNearkeySecret"], flat(parse(reply)))
        self.assertIn(b"oneNearkeySecret", expected)

    def test_no_command_tells_a_password(self):
        self.nearkey = self.start()
        commands = parse(self.direct().command("COMMAND"))
        asked = 0
        for words, arity in words_of(commands):
            if words[0] in ("subscribe", "psubscribe", "ssubscribe", "monitor", "quit", "reset"):
                continue  # They answer with what others say, or end the client.
            if words[0].startswith(("unsub", "sunsub", "punsub")) or words == ["client", "reply"]:
                continue
            for filler in ("default", "*", "requirepass", "0"):
                client = self.client()
                fillers = [filler] * max(0, abs(arity) - len(words))
                try:
                    reply = client.command(*words, *fillers, timeout=5)
                except (socket.timeout, ConnectionError, Closed):
                    reply = bytes(client.buffer)  # It waits, or it is one that ends a client.
                finally:
                    client.close()
                self.assert_no_trace(reply, (words, filler))
                asked += 1
        self.assertGreater(asked, 1000)


def flat(value):
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair]
    return value


if __name__ == "__main__":
    unittest.main()
