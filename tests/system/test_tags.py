"""NEARKEY TAG: which tag a command has is known from the client's stream alone, so generated streams
are compared with what the slow log says of each."""

import random
import time

from harness import SystemTest, proxy_only, wait_for
from resp import encode

SEED = 20261128
OK = b"+OK\r\n"
SEQUENCES = 60
COMMANDS_MAX = 150


@proxy_only
class TagTest(SystemTest):
    SHARED = [
        lambda key: ("GET", key),
        lambda key: ("MGET", key, "k1"),
        lambda key: ("SET", key, "v"),
        lambda key: ("SET", key, "v" * 3000),
        lambda key: ("ECHO", key),
    ]
    DEDICATED = [lambda key: ("EVAL", "return 1", "1", key), lambda key: ("NOSUCH", key)]

    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(
            self.server.url,
            settings={
                "slowlog.threshold_ms": 1,
                "slowlog.entries_max": 10_000,
                "near_cache.enabled": "false",
                "upstream.request_timeout_ms": 60_000,
            },
        )

    def stream(self, chance):
        """(commands, number of the command in its session to its tag)."""
        commands, tags, tag = [], {}, ""
        often = chance.random()
        for _ in range(chance.randint(1, COMMANDS_MAX)):
            if chance.random() < often:
                tag = chance.choice(["", "a", "t" * 128, f"id-{chance.randrange(10**9)}"])
                commands.append(("NEARKEY", "TAG", tag))
                continue
            if chance.random() < 0.01:
                tag = ""
                commands.append(("RESET",))
                continue
            tags[len(commands)] = tag
            # What needs a connection of its own waits for all before it, which is slow alone.
            kinds = self.SHARED if chance.random() < 0.98 else self.DEDICATED
            commands.append(chance.choice(kinds)(f"k{chance.randrange(20)}"))
        return commands, tags

    def slow_of(self, session):
        entries = self.nearkey.get("/slowlog")[1]["entries"]
        return {entry["request"]: entry for entry in entries if entry["session"] == session}

    def test_each_command_has_the_tag_that_stood_before_it(self):
        chance = random.Random(SEED)
        compared = 0
        for number in range(1, SEQUENCES + 1):
            commands, tags = self.stream(chance)
            client = self.nearkey.client()
            self.addCleanup(client.close)
            # Whatever is sent meanwhile is slow.
            self.server.freeze()
            parts = b"".join(encode(*command) for command in commands)
            cut = chance.randrange(len(parts))
            client.send(parts[:cut])
            if chance.random() < 0.5:
                wait_for(lambda: self.nearkey.metric("nearkey_clients") >= 1, 5, "it is there")
            client.send(parts[cut:])
            time.sleep(0.003)  # More than slowlog.threshold_ms.
            self.server.thaw()
            replies = client.read_replies(len(commands))
            for command, reply in zip(commands, replies):
                if command[0] == "NEARKEY":
                    self.assertEqual(OK, reply, command)
            client.close()
            wait_for(lambda: self.nearkey.metric("nearkey_clients") == 0, 5, "it has left")
            for request, entry in self.slow_of(number).items():
                self.assertEqual(tags[request], entry["tag"], (number, request, commands[request]))
                compared += 1
        self.assertGreater(compared, 5 * SEQUENCES)


if __name__ == "__main__":
    import unittest

    unittest.main()
