"""near_cache.tracking = "broadcast" with a real server: one connection is told of all changes."""

import unittest

from harness import SharedSystemTest, proxy_only, wait_for
from resp import parse


@proxy_only
class BroadcastTest(SharedSystemTest):
    settings = {
        "near_cache.tracking": "broadcast",
        "near_cache.prefixes": "a:,b:",
        "upstream.connections": 2,
    }

    def is_hit(self, client, *command):
        before = self.nearkey.metric("nearkey_near_cache_hits_total")
        client.command(*command)
        return self.nearkey.metric("nearkey_near_cache_hits_total") > before

    def store(self, client, key):
        wait_for(lambda: self.is_hit(client, "GET", key), 5, f"{key} is stored")

    def stat(self, name):
        stats = self.direct.value("INFO", "stats")
        return int(stats.split(name.encode() + b":")[1].split()[0])

    def clients_of_both_protocols(self):
        two, three = self.client(), self.client()
        three.command("HELLO", "3")
        return two, three

    def test_a_change_from_elsewhere_is_seen_over_every_connection(self):
        for client in self.clients_of_both_protocols():
            self.direct.command("SET", "a:k", "1")
            self.store(client, "a:k")
            self.direct.command("SET", "a:k", "2")
            wait_for(lambda: client.command("GET", "a:k") == b"$1\r\n2\r\n", 5, "the new value")

    def test_a_write_through_nearkey_is_seen_at_once_by_every_client(self):
        one, other = self.clients_of_both_protocols()
        for i in range(100):
            one.command("SET", "b:own", str(i))
            self.assertEqual(str(i).encode(), parse(other.command("GET", "b:own")))

    def test_a_key_without_a_prefix_is_never_served_from_here(self):
        client = self.client()
        self.store(client, "a:k")
        for _ in range(20):
            self.assertFalse(self.is_hit(client, "GET", "other"))

    def test_one_connection_tracks_prefixes_and_the_server_remembers_no_key(self):
        for client in self.clients_of_both_protocols():
            self.store(client, "a:k")
            client.command("GET", "other")
        flags = [row["flags"] for row in self.server.clients()]
        self.assertEqual(1, sum("B" in each for each in flags))
        self.assertEqual(1, sum("t" in each for each in flags))
        self.assertEqual(2, self.stat("tracking_total_prefixes"))
        self.assertEqual(0, self.stat("tracking_total_keys"))

    def test_no_error_is_provoked(self):
        """CLIENT CACHING is an error with BCAST."""
        before = self.stat("total_error_replies")
        for client in self.clients_of_both_protocols():
            self.store(client, "a:k")
            client.command("GET", "other")
            client.command("MGET", "a:k", "other")
        self.assertEqual(before, self.stat("total_error_replies"))

    def test_the_loss_of_the_receiver_voids_everything(self):
        client = self.client()
        self.direct.command("SET", "a:k", "1")
        self.store(client, "a:k")
        receiver = next(row for row in self.server.clients() if "B" in row["flags"])
        lost = self.nearkey.metric("nearkey_upstream_reconnects_total")
        self.assertEqual(1, self.direct.value("CLIENT", "KILL", "ID", receiver["id"]))
        self.direct.command("SET", "a:k", "2")
        wait_for(
            lambda: self.nearkey.metric("nearkey_upstream_reconnects_total") > lost, 5, "the loss"
        )
        self.assertEqual(b"$1\r\n2\r\n", client.command("GET", "a:k"))
        self.store(client, "a:k")

    def test_a_flush_is_seen(self):
        client = self.client()
        self.direct.command("SET", "a:k", "1")
        self.store(client, "a:k")
        self.direct.command("FLUSHALL")
        wait_for(lambda: client.command("GET", "a:k") == b"$-1\r\n", 5, "it is gone")


if __name__ == "__main__":
    unittest.main()
