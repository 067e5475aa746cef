"""What Valkey does not allow nearkey's own user is not asked for again and again: each refusal is an
entry in the server's ACL LOG."""

import time
import unittest

from harness import SystemTest, proxy_only, wait_for

OK = b"+OK\r\n"
USER = ("on", "nopass", "~*", "&*", "+@all")


@proxy_only
class RightsTest(SystemTest):
    def start_as(self, *rights):
        self.server = self.start_server()
        self.server.run("ACL", "SETUSER", "app", *USER, *rights)
        self.server.run("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
        self.nearkey = self.start_nearkey(self.server.url, settings={"upstream.username": "app"})
        return self.nearkey.client()

    def refusals(self):
        """How often the server has refused each command to nearkey."""
        counts = {}
        for entry in self.server.run("ACL", "LOG"):
            fields = dict(zip(entry[::2], entry[1::2]))
            command = fields[b"object"].decode()
            counts[command] = counts.get(command, 0) + fields[b"count"]
        return counts

    def test_reads_and_time_do_not_fill_the_servers_acl_log(self):
        with self.start_as("-info", "-pttl", "-touch", "-config|get") as client:
            self.assertEqual(OK, client.command("SET", "k", "v"))
            for _ in range(50):
                self.assertEqual(b"$1\r\nv\r\n", client.command("GET", "k"))
            time.sleep(2)  # Something that is asked again and again shows only over time.
            for _ in range(50):
                self.assertEqual(b"$1\r\nv\r\n", client.command("GET", "k"))
            counts = self.refusals()
        self.assertLessEqual(counts.pop("pttl", 0), 2, counts)
        self.assertLessEqual(counts.pop("info", 0), 2, counts)
        self.assertLessEqual(sum(counts.values()), 3, counts)
        self.nearkey.wait_logged("PTTL")

    def test_with_the_rights_nothing_is_refused_and_reads_are_stored(self):
        with self.start_as() as client:
            self.assertEqual(OK, client.command("SET", "k", "v"))

            def is_hit():
                before = self.nearkey.metric("nearkey_near_cache_hits_total")
                client.command("GET", "k")
                return self.nearkey.metric("nearkey_near_cache_hits_total") > before

            wait_for(is_hit, 3, "a hit")
        self.assertEqual({}, self.refusals())


if __name__ == "__main__":
    unittest.main()
