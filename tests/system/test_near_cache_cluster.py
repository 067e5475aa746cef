"""C23: an upstream that is a node of a cluster gets no near cache. When a slot moves, Valkey tells
of the keys that were there, and of those that were not it does not."""

import tempfile
import unittest

from harness import ValkeyServer, free_port, proxy_only, wait_for
from near_cache import HITS, explain, is_hit, store
from resp import parse
from test_reload import ReloadTest

AS_ONE = 'cluster = "off"'
TRACKING = "nearkey_near_cache_tracking"


@proxy_only
class ClusterTest(ReloadTest):
    def start_node(self):
        node = ValkeyServer(
            tempfile.mkdtemp(dir=self.directory),
            name="node",
            tcp=True,
            args=["--cluster-enabled", "yes", "--cluster-port", str(free_port())],
        )
        self.addCleanup(node.stop)
        node.start()
        self.assertEqual(b"OK", node.run("CLUSTER", "ADDSLOTSRANGE", "0", "16383"))
        wait_for(lambda: b"cluster_state:ok" in node.run("CLUSTER", "INFO"), 10, "all slots")
        return node

    def client_of(self, version):
        client = self.client()
        client.command("HELLO", str(version))
        return client

    def warnings(self):
        return [entry for entry in self.nearkey.logs() if entry["event"] == "near_cache_off"]

    def assert_nothing_is_stored(self, node):
        hits = self.nearkey.metric(HITS)
        for version in (2, 3):
            client = self.client_of(version)
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "1"))
            for _ in range(3):
                self.assertEqual(b"1", parse(client.command("GET", "k")))
                self.assertEqual([b"1"], parse(client.command("MGET", "k")))
            said = explain(client, "GET", "k")
            self.assertEqual(b"bypassed", said["cache"])
            self.assertIn(b"node of a cluster", said["cache_reason"])
        self.assertEqual(hits, self.nearkey.metric(HITS))
        self.assertEqual(0, self.nearkey.metric(TRACKING))
        stats = node.run("INFO", "commandstats")
        self.assertNotIn(b"cmdstat_client|tracking", stats)
        self.assertIn(b"tracking_clients:0", node.run("INFO", "clients"))

    def test_nothing_is_stored_and_one_warning_says_why(self):
        for options in ((), ('tracking = "broadcast"',)):
            with self.subTest(options):
                node = self.start_node()
                near_cache = ["\n".join(["[near_cache]", *options])]
                self.start(self.settings(node.url, AS_ONE, *near_cache))
                self.assert_nothing_is_stored(node)
                node.run("CLIENT", "KILL", "TYPE", "normal")
                wait_for(lambda: self.nearkey.ready_status() == 200, 10, "it is back")
                self.assert_nothing_is_stored(node)
                self.assertEqual(1, len(self.warnings()), self.warnings())
                self.assertIn("cluster", self.warnings()[0]["reason"])
                self.nearkey.stop()
                node.stop()

    def test_another_upstream_that_is_none_has_a_near_cache_again(self):
        node = self.start_node()
        server = self.start_server()
        self.start(self.settings(node.url, AS_ONE))
        self.assert_nothing_is_stored(node)
        for url, is_cluster in ((server.url, False), (node.url, True), (server.url, False)):
            self.write(self.settings(url, AS_ONE))
            self.assertEqual("reloaded", self.hang_up()["event"])
            for version in (2, 3):
                client = self.client_of(version)
                if is_cluster:
                    self.assertFalse(is_hit(self.nearkey, client, "GET", "k"))
                    self.assertFalse(is_hit(self.nearkey, client, "GET", "k"))
                else:
                    store(self.nearkey, client, "GET", "k")
            self.assertEqual(0 if is_cluster else 1, self.nearkey.metric(TRACKING))
        self.assertEqual(2, len(self.warnings()), self.warnings())


del ReloadTest

if __name__ == "__main__":
    unittest.main()
