"""Who uses the near cache: NEARKEY CACHE, a listener's choice, key patterns; and what EXPLAIN says."""

import os
import unittest

from harness import SharedSystemTest, SystemTest, proxy_only, wait_for
from resp import RespClient, parse

HITS = "nearkey_near_cache_hits_total"


def is_hit(nearkey, client, *command):
    before = nearkey.metric(HITS)
    client.command(*command)
    return nearkey.metric(HITS) > before


def explain(client, *command):
    words = parse(client.command("NEARKEY", "EXPLAIN", *command))
    return dict(zip((word.decode() for word in words[::2]), words[1::2]))


@proxy_only
class SessionSwitchTest(SharedSystemTest):
    def store(self, client, *command):
        wait_for(lambda: is_hit(self.nearkey, client, *command), 5, f"{command} is stored")

    def test_a_client_can_leave_the_cache_and_come_back(self):
        client, other = self.client(), self.client()
        self.direct.command("SET", "k", "1")
        self.store(client, "GET", "k")
        self.assertEqual(b"+OK\r\n", client.command("NEARKEY", "CACHE", "OFF"))
        self.assertFalse(is_hit(self.nearkey, client, "GET", "k"))
        self.assertTrue(is_hit(self.nearkey, other, "GET", "k"))
        self.assertEqual(b"bypassed", explain(client, "GET", "k")["cache"])
        self.assertEqual(b"off for this client", explain(client, "GET", "k")["cache_reason"])
        client.command("NEARKEY", "CACHE", "ON")
        self.assertTrue(is_hit(self.nearkey, client, "GET", "k"))
        client.command("NEARKEY", "CACHE", "OFF")
        client.command("RESET")
        self.assertTrue(is_hit(self.nearkey, client, "GET", "k"))

    def test_who_bypasses_the_cache_still_has_its_writes_seen(self):
        client, other = self.client(), self.client()
        client.command("NEARKEY", "CACHE", "OFF")
        for i in range(100):
            other.command("GET", "own")
            client.command("SET", "own", str(i))
            self.assertEqual(str(i).encode(), parse(other.command("GET", "own")))

    def test_what_a_bypassing_client_reads_is_not_tracked(self):
        client = self.client()
        client.command("NEARKEY", "CACHE", "OFF")
        self.direct.command("FLUSHALL")
        client.command("SET", "untracked", "1")
        client.command("GET", "untracked")
        info = parse(self.direct.command("INFO", "stats"))
        self.assertIn(b"tracking_total_keys:0\r\n", info)

    def test_everything_can_be_dropped(self):
        client = self.client()
        self.direct.command("SET", "k", "1")
        self.store(client, "GET", "k")
        self.assertEqual(b"+OK\r\n", client.command("NEARKEY", "CACHE", "CLEAR"))
        self.assertFalse(is_hit(self.nearkey, client, "GET", "k"))
        self.assertEqual(b"asked", explain(client, "GET", "k")["last_invalidation"])

    def test_an_unknown_word_is_an_error(self):
        reply = self.client().command("NEARKEY", "CACHE", "MAYBE")
        self.assertEqual(b"-ERR NEARKEY CACHE is followed by ON, OFF or CLEAR\r\n", reply)

    def test_explain_tells_of_a_hit_and_of_its_last_invalidation(self):
        client = self.client()
        self.direct.command("FLUSHALL")
        self.direct.command("SET", "told", "1", "PX", "100000")
        self.assertEqual(b"miss", explain(client, "GET", "told")["cache"])
        self.store(client, "GET", "told")
        told = explain(client, "GET", "told")
        self.assertEqual(b"hit", told["cache"])
        self.assertTrue(0 < told["ttl_left_ms"] <= 100000, told)
        self.assertTrue(0 <= told["age_ms"] < 60000, told)
        self.assertTrue(0 <= told["proven_ms_ago"] < 1000, told)
        self.assertRegex(told["connection"], rb"^RESP2 database 0, CLIENT ID \d+, told of changes")
        self.direct.command("SET", "told", "2")
        wait_for(lambda: explain(client, "GET", "told")["cache"] == b"miss", 5, "the push")
        told = explain(client, "GET", "told")
        self.assertEqual(b"push", told["last_invalidation"])
        self.assertGreaterEqual(told["last_invalidation_ms_ago"], 0)
        client.command("SET", "told", "3")
        self.assertEqual(b"write", explain(client, "GET", "told")["last_invalidation"])

    def test_explain_tells_why_a_command_bypasses_the_cache(self):
        client = self.client()
        for command, reason in (
            (("SET", "k", "v"), b"not a read"),
            (("TTL", "k"), b"not on the list of reads that may be stored"),
            (("GET",), b"not a sound call"),
        ):
            told = explain(client, *command)
            self.assertEqual((b"bypassed", reason), (told["cache"], told["cache_reason"]))

    def test_explain_tells_of_each_key_of_a_split_read(self):
        client = self.client()
        self.direct.command("MSET", "s1", "1", "s2", "2")
        self.store(client, "MGET", "s1")
        told = explain(client, "MGET", "s1", "s2")
        self.assertTrue(told["cache, key 1"].startswith(b"hit: "), told)
        self.assertTrue(told["cache, key 2"].startswith(b"miss: "), told)


@proxy_only
class ConfiguredTest(SystemTest):
    def test_a_listener_without_near_cache(self):
        server = self.start_server()
        path = os.path.join(self.directory, "nearkey.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'[[listener]]\naddress = "{self.directory}/nearkey.sock"\n'
                       f'[[listener]]\naddress = "{self.directory}/plain.sock"\n'
                       'near_cache = false\n')
        nearkey = self.start_nearkey(server.url, listen=[], args=["--config", path])
        server.run("SET", "k", "1")
        with nearkey.client() as cached, RespClient(self.directory + "/plain.sock") as plain:
            wait_for(lambda: is_hit(nearkey, cached, "GET", "k"), 5, "k is stored")
            self.assertFalse(is_hit(nearkey, plain, "GET", "k"))
            self.assertEqual(b"off for this client", explain(plain, "GET", "k")["cache_reason"])
            plain.command("NEARKEY", "CACHE", "ON")
            self.assertTrue(is_hit(nearkey, plain, "GET", "k"))
            plain.command("RESET")
            self.assertFalse(is_hit(nearkey, plain, "GET", "k"))

    def test_only_some_keys_take_part(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={
            "near_cache.keys": "user:*", "near_cache.skip_keys": "*:secret"})
        server.run("MSET", "user:1", "1", "user:1:secret", "2", "page:1", "3")
        with nearkey.client() as client:
            wait_for(lambda: is_hit(nearkey, client, "GET", "user:1"), 5, "user:1 is stored")
            for key in ("user:1:secret", "page:1"):
                client.command("GET", key)
                self.assertFalse(is_hit(nearkey, client, "GET", key))
                self.assertEqual(b"near_cache.keys or skip_keys leave this key out",
                                 explain(client, "GET", key)["cache_reason"])

    def test_c21_a_family_that_thrashes_leaves_the_cache(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        with nearkey.client() as client:
            for i in range(100):
                client.command("GET", f"session:{i}")
                client.command("SET", f"session:{i}", "x")
            self.assertEqual(1, nearkey.metric("nearkey_near_cache_families_off"))
            client.command("GET", "session:1")
            self.assertFalse(is_hit(nearkey, client, "GET", "session:1"))
            self.assertIn(b"its key family was invalidated more often than hit: off for",
                          explain(client, "GET", "session:1")["cache_reason"])
            client.command("GET", "page:1")
            wait_for(lambda: is_hit(nearkey, client, "GET", "page:1"), 5, "others stay")

    def test_without_a_near_cache_it_can_not_be_switched_on(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"near_cache.enabled": "false"})
        with nearkey.client() as client:
            self.assertEqual(b"+OK\r\n", client.command("NEARKEY", "CACHE", "OFF"))
            self.assertTrue(client.command("NEARKEY", "CACHE", "ON").startswith(
                b"-ERR the near cache is off"))
            self.assertEqual(b"the near cache is off", explain(client, "GET", "k")["cache_reason"])


if __name__ == "__main__":
    unittest.main()
