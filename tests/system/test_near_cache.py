"""The near cache with a real server: what is answered without asking it, and what is not."""

import unittest

from harness import SharedSystemTest, proxy_only, wait_for
from resp import parse


@proxy_only
class NearCacheTest(SharedSystemTest):
    def is_hit(self, client, *command):
        before = self.nearkey.metric("nearkey_near_cache_hits_total")
        client.command(*command)
        return self.nearkey.metric("nearkey_near_cache_hits_total") > before

    def store(self, client, key):
        """GETs the key until it is answered from the cache."""
        wait_for(lambda: self.is_hit(client, "GET", key), 5, f"{key} is stored")

    def test_a_change_from_elsewhere_is_seen(self):
        client = self.client()
        self.direct.command("SET", "k", "1")
        self.store(client, "k")
        self.direct.command("SET", "k", "2")
        wait_for(lambda: client.command("GET", "k") == b"$1\r\n2\r\n", 5, "the new value")

    def test_a_write_through_nearkey_is_seen_at_once_by_every_client(self):
        one, other = self.client(), self.client()
        for i in range(100):
            one.command("SET", "own", str(i))
            self.assertEqual(str(i).encode(), parse(other.command("GET", "own")))

    def test_a_monitor_sees_every_read_and_nothing_else(self):
        client, monitor = self.client(), self.client()
        self.direct.command("SET", "watched", "1")
        self.store(client, "watched")
        self.assertEqual(b"+OK\r\n", monitor.command("MONITOR"))
        for _ in range(2):
            client.command("GET", "watched")
        client.command("GET", "other")
        seen = []
        while len(seen) < 3:
            line = monitor.read_reply()
            # nearkey's own heartbeats are commands like all others to the server.
            if b'"PING"' not in line and b'"INFO" "commandstats"' not in line:
                seen.append(line)
        for line, words in zip(seen, (b'"GET" "watched"', b'"GET" "watched"', b'"GET" "other"')):
            self.assertIn(words, line)
        monitor.close()
        self.store(client, "watched")

    def test_who_may_not_monitor_keeps_nobody_from_reading_what_is_stored(self):
        self.direct.command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-monitor")
        self.direct.command("SET", "watched", "1")
        client = self.client()
        beginnings = [("AUTH", "limited", "pw")], [("SUBSCRIBE", "channel")]
        for protocol in ("2", "3"):
            for commands in beginnings:
                if protocol == "3" and commands[0][0] == "SUBSCRIBE":
                    continue  # such a subscriber may
                with self.subTest(commands, protocol=protocol):
                    monitor = self.client()
                    monitor.command("HELLO", protocol)
                    for command in commands:
                        monitor.command(*command)
                    for _ in range(2):
                        reply = monitor.command("MONITOR")
                        self.assertTrue(reply.startswith(b"-"), reply)
                        self.store(client, "watched")
                    monitor.close()


if __name__ == "__main__":
    unittest.main()
