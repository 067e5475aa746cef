"""C4, row 47: what a script writes nobody knows but Valkey. The script's reply waits for its news."""

import os
import unittest

from harness import SystemTest, proxy_only, wait_for
from relay import Relay
from resp import parse

HITS = "nearkey_near_cache_hits_total"
SET = "return redis.call('SET', ARGV[1], ARGV[2])"


@proxy_only
class ScriptTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        # Each connection's replies and news lag by another time.
        relay = Relay(os.path.join(self.directory, "relay.sock"), self.server.path)
        self.addCleanup(relay.close)
        relay.spread_seconds = 0.02
        self.nearkey = self.start_nearkey(f"unix://{relay.path}")

    def client(self, version=2):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        client.command("HELLO", str(version))
        return client

    def is_hit(self, client, *command):
        before = self.nearkey.metric(HITS)
        client.command(*command)
        return self.nearkey.metric(HITS) > before

    def store(self, client, *command):
        wait_for(lambda: self.is_hit(client, *command), 5, f"{command} is stored")

    def test_c4_nobody_is_served_what_was_there_before_the_reply(self):
        readers = [self.client(2), self.client(3)]
        writer = self.client(3)
        for i in range(5):
            for reader in readers:
                self.store(reader, "GET", "undeclared")
            writer.command("EVAL", SET, "0", "undeclared", str(i))
            for reader in readers:
                self.assertEqual(str(i).encode(), parse(reader.command("GET", "undeclared")))

    def test_c4_the_same_in_a_transaction(self):
        readers = [self.client(2), self.client(3)]
        writer = self.client()
        for i in range(5):
            for reader in readers:
                self.store(reader, "GET", "undeclared")
            writer.pipeline([("MULTI",), ("EVAL", SET, "0", "undeclared", str(i)), ("EXEC",)])
            for reader in readers:
                self.assertEqual(str(i).encode(), parse(reader.command("GET", "undeclared")))

    def test_c4_the_same_for_functions(self):
        self.server.run("FUNCTION", "LOAD", "#!lua name=l\nserver.register_function('put', "
                        "function(keys, args) return server.call('SET', args[1], args[2]) end)")
        reader, writer = self.client(3), self.client(2)
        for i in range(5):
            self.store(reader, "GET", "undeclared")
            writer.command("FCALL", "put", "0", "undeclared", str(i))
            self.assertEqual(str(i).encode(), parse(reader.command("GET", "undeclared")))

    def test_what_a_script_does_not_write_stays_stored(self):
        client = self.client()
        self.store(client, "GET", "other")
        for i in range(5):
            client.command("EVAL", SET, "0", "undeclared", str(i))
            self.assertTrue(self.is_hit(client, "GET", "other"))

    def test_a_read_behind_a_script_in_a_pipeline_shows_what_it_wrote(self):
        client = self.client(3)
        for i in range(5):
            self.store(client, "GET", "undeclared")
            replies = client.pipeline(
                [("EVAL", SET, "0", "undeclared", str(i)), ("GET", "undeclared")])
            self.assertEqual([b"OK", str(i).encode()], [parse(reply) for reply in replies])


if __name__ == "__main__":
    unittest.main()
