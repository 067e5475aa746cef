"""What an operator sees of a cluster: readiness, gauges, tables of nodes, EXPLAIN and the words of
errors, while a node is away. One cluster for all; a node behind a relay can be cut off."""

import os
import re
import tempfile
import time
import unittest

from clusters import Cluster, address_of
from harness import ROOT, SLOWNESS, free_port, proxy_only, run_nearkey, wait_for
from relay import Relay
from resp import encode, parse
from test_cluster import ClusterCase  # It has no tests of its own.
from test_upstream_access import make_certificates

SOON = {"upstream.heartbeat_interval_ms": 100, "upstream.unready_after_ms": 500 * SLOWNESS}


def setUpModule():
    cluster = Cluster(tempfile.mkdtemp())
    unittest.addModuleCleanup(cluster.stop)
    OperatingCase.cluster = cluster.start()


class OperatingCase(ClusterCase):
    SETTINGS = SOON

    @classmethod
    def setUpClass(cls):
        """It has the module's cluster."""

    def setUp(self):
        super().setUp()
        self.wait_whole()

    def tearDown(self):
        for node in self.cluster.nodes:
            node.thaw()

    def wait_whole(self, nearkey=None):
        nearkey = nearkey or self.nearkey
        wait_for(lambda: self.ready(nearkey)["state"] == "ready", 10, "all nodes are ready")

    @staticmethod
    def ready(nearkey):
        return nearkey.get("/readyz")[1]

    def key_of(self, node):
        """A key whose slot the node owns, and the slot."""
        for number in range(1000):
            slot = self.cluster.slot_of(f"k{number}")
            if self.cluster.owner_of(slot) is node:
                return f"k{number}", slot
        raise AssertionError("no key is of that node")

    def start_behind_relay(self, node, **settings):
        """This node alone is reached through a relay."""
        port = free_port()
        relay = Relay(("127.0.0.1", port), node.address)
        self.addCleanup(relay.close)
        os.mkdir(os.path.join(self.directory, "behind"))
        others = [other for other in self.cluster.nodes if other is not node]
        nearkey = self.start_nearkey(
            self.cluster.url(*others), directory=os.path.join(self.directory, "behind"),
            settings={**SOON, "cluster.addresses": f"{address_of(node)}=127.0.0.1:{port}",
                      **settings})
        self.wait_whole(nearkey)
        return nearkey, relay, f"127.0.0.1:{port}"

    def steadily(self, look, what):
        """It is so, and stays so over some heartbeats of each node. Soon: after its node-timeout a
        node that is away makes the others refuse everything."""
        wait_for(look, 5, what)
        for _ in range(20):
            self.assertTrue(look(), what)
            time.sleep(0.03)

    def has_logged(self, event):
        return any(entry["event"] == event for entry in self.nearkey.logs())

    def cli(self, verb, *args):
        done = run_nearkey(self.directory, verb, "--admin", self.nearkey.admin_path, *args)
        return done.returncode, done.stdout


@proxy_only
class DegradedTest(OperatingCase):
    def test_a_node_that_is_away(self):
        away = self.cluster.nodes[2]
        slots = sum(last - first + 1 for first, last, owner, *_ in
                    self.cluster.nodes[0].run("CLUSTER", "SLOTS") if owner[1] == away.port)
        self.assertEqual({"nodes": 3, "nodes_away": 0, "slots_unserved": 0},
                         self.ready(self.nearkey)["cluster"])
        self.assertEqual(0, self.nearkey.metric("nearkey_degraded"))
        away.freeze()
        wait_for(lambda: self.ready(self.nearkey)["state"] == "degraded", 15, "it is degraded")
        status, page = self.nearkey.get("/readyz")
        self.assertEqual(200, status)
        for part in (f"{slots} slots are not served", "1 of 3 nodes away", address_of(away)):
            self.assertIn(part, page["reason"])
        self.assertEqual({"nodes": 3, "nodes_away": 1, "slots_unserved": slots}, page["cluster"])
        metrics = self.nearkey.metrics()
        self.assertEqual(
            [1, 1, 3, 1, slots],
            [metrics[f"nearkey_{name}"] for name in (
                "ready", "degraded", "cluster_nodes", "cluster_nodes_away",
                "cluster_slots_unserved")])
        wait_for(lambda: self.has_logged("cluster_degraded"), 5, "the log says so")
        self.assert_shown(away, slots)
        away.thaw()
        self.wait_whole()
        wait_for(lambda: self.has_logged("cluster_whole"), 5, "the log says so")
        self.assertEqual(0, self.nearkey.metric("nearkey_cluster_slots_unserved"))
        self.assertEqual(1, sum(entry["event"] == "cluster_degraded"
                                for entry in self.nearkey.logs()))

    def assert_shown(self, away, slots):
        """The same at a terminal, with the node that is away first."""
        code, said = self.cli("ready")
        self.assertEqual(0, code)
        self.assertTrue(said.startswith("degraded: "), said)
        first = self.nearkey.get("/nodes?limit=1")[1]
        self.assertEqual(3, first["total"])
        self.assertEqual(address_of(away), first["nodes"][0]["address"])
        self.assertGreaterEqual(first["nodes"][0]["since_seconds"], 0)
        code, said = self.cli("nodes")
        self.assertRegex(said, rf"NODE .*STATE .*\n{re.escape(address_of(away))} ")
        code, said = self.cli("top", "--once")
        self.assertEqual(0, code)
        self.assertRegex(said, r"degraded for \S+.*: ")
        self.assertRegex(said, rf"{re.escape(address_of(away))} .*no PONG for \d+ ms for ")
        for node in self.cluster.nodes[:2]:
            self.assertRegex(said, rf"{re.escape(address_of(node))} .*ready for ")
        self.assertIn(f"cluster of 3 nodes, 1 away, {slots} slots not served", self.cli("stats")[1])

    def test_all_nodes_are_away(self):
        for node in self.cluster.nodes:
            node.freeze()
        self.nearkey.wait_unready(15)
        page = self.ready(self.nearkey)
        self.assertEqual("not ready", page["state"])
        self.assertIn("16384 slots are not served, 3 of 3 nodes away", page["reason"])
        code, said = self.cli("ready")
        self.assertEqual(1, code)
        self.assertTrue(said.startswith("not ready: "), said)
        for node in self.cluster.nodes:
            node.thaw()
        self.wait_whole()

    def test_a_node_that_refuses_connections_is_named_once(self):
        nearkey, relay, address = self.start_behind_relay(self.cluster.nodes[1])
        relay.close()
        wait_for(lambda: self.ready(nearkey)["state"] == "degraded", 15, "it is degraded")
        wait_for(lambda: "refused" in self.ready(nearkey)["reason"], 10, "the reason")
        self.assertEqual(1, self.ready(nearkey)["reason"].count(address))


@proxy_only
class ClosedDoorTest(OperatingCase):
    def test_when_down_close_admits_who_can_be_served(self):
        """What is asked for commands and slots is silent: the others serve."""
        port = free_port()
        relay = Relay(("127.0.0.1", port), self.cluster.nodes[0].address)
        self.addCleanup(relay.close)
        os.mkdir(os.path.join(self.directory, "door"))
        nearkey = self.start_nearkey(
            f"valkey+cluster://127.0.0.1:{port}", directory=os.path.join(self.directory, "door"),
            settings={**SOON, "server.when_down": "close"})
        self.wait_whole(nearkey)
        relay.freeze_replies()
        wait_for(lambda: any(entry["event"] == "not_ready" for entry in nearkey.logs()), 15,
                 "the silence is noticed")
        with nearkey.client() as client:
            self.assertEqual(b"+PONG\r\n", client.command("PING"))
        self.assertEqual(0, nearkey.metric("nearkey_clients_refused_down_total"))


@proxy_only
class GaugesTest(OperatingCase):
    def test_dedicated_connections_of_all_nodes(self):
        for node in self.cluster.nodes:
            client = self.client()
            self.assertEqual(b"*-1\r\n", client.command("BLPOP", self.key_of(node)[0], "0.01"))
        loops = self.nearkey.metric("nearkey_upstream_dedicated_max") // (3 * 1024)
        self.assertGreaterEqual(loops, 1)
        self.steadily(lambda: self.nearkey.metrics()["nearkey_upstream_dedicated_idle"] == 3,
                      "one of each node")

    # Each node in turn: which of them beats last is a matter of chance.
    def test_the_oldest_proof_is_that_of_the_node_that_is_away(self):
        with self.nearkey.client() as client:
            for node in self.cluster.nodes:
                client.command("GET", self.key_of(node)[0])
        lease = "nearkey_near_cache_lease_seconds"
        for node in self.cluster.nodes:
            self.steadily(lambda: float(self.nearkey.metric(lease)) < 1 * SLOWNESS, "all is proven")
            node.freeze()
            self.steadily(lambda: float(self.nearkey.metric(lease)) > 1 * SLOWNESS,
                          "the frozen node's proof is old")
            node.thaw()

    def test_one_node_that_evicts_by_use_is_told_of_hits(self):
        self.assertEqual(0, self.nearkey.metric("nearkey_near_cache_touching"))
        for node in self.cluster.nodes:
            node.run("CONFIG", "SET", "maxmemory", "1gb")
            node.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            try:
                folder = os.path.join(self.directory, f"touch{node.port}")
                os.mkdir(folder)
                nearkey = self.start_nearkey(self.cluster.url(), settings=SOON, directory=folder)
                self.wait_whole(nearkey)
                self.steadily(lambda nearkey=nearkey:
                              nearkey.metric("nearkey_near_cache_touching") == 1, "one is told")
                nearkey.stop()
            finally:
                node.run("CONFIG", "SET", "maxmemory", "0")

    def test_one_node_that_refuses_to_tell_of_changes(self):
        self.steadily(lambda: self.nearkey.metric("nearkey_near_cache_tracking") == 1, "all tell")
        node = self.cluster.nodes[1]
        node.run("ACL", "SETUSER", "default", "-client|tracking")
        self.addCleanup(node.run, "ACL", "SETUSER", "default", "+@all")
        os.mkdir(os.path.join(self.directory, "untold"))
        nearkey = self.start_nearkey(self.cluster.url(), settings=SOON,
                                     directory=os.path.join(self.directory, "untold"))
        self.wait_whole(nearkey)
        self.steadily(lambda: nearkey.metric("nearkey_near_cache_tracking") == 0, "one does not")

    def test_nodes_are_those_of_all_event_loops(self):
        os.mkdir(os.path.join(self.directory, "two"))
        nearkey = self.start_nearkey(self.cluster.url(), settings={**SOON, "server.workers": 2},
                                     directory=os.path.join(self.directory, "two"))
        self.wait_whole(nearkey)

        def all_are_counted():
            nodes = nearkey.get("/nodes")[1]["nodes"]
            ready = [connection for connection in nearkey.get("/connections?limit=1000")[1]
                     ["connections"] if connection["state"] == "ready"]
            # Each loop asks over one connection more, or two, which is none of a node.
            seeds = len(ready) - sum(node["connections"] for node in nodes)
            return len(nodes) == 3 and all(node["connections"] >= 2 for node in nodes) and seeds <= 4

        wait_for(all_are_counted, 10, "the connections of both loops")


@proxy_only
class WordsTest(OperatingCase):
    def test_explain_names_slot_node_and_parts(self):
        client = self.client()
        key, slot = self.key_of(self.cluster.nodes[1])
        said = self.explain(client, "GET", key)
        self.assertEqual((slot, address_of(self.cluster.nodes[1]).encode(), 1, b"yes"),
                         (said[b"slot"], said[b"node"], said[b"parts"], said[b"atomic"]))
        other, _ = self.key_of(self.cluster.nodes[2])
        said = self.explain(client, "MSET", key, "1", other, "2")
        self.assertEqual((2, b"no"), (said[b"parts"], said[b"atomic"]))
        said = self.explain(client, "DBSIZE")
        self.assertEqual((3, b"no", b"all that own slots"),
                         (said[b"parts"], said[b"atomic"], said[b"node"]))
        said = self.explain(client, "PING")
        self.assertNotIn(b"slot", said)
        one = self.start_server()
        os.mkdir(os.path.join(self.directory, "one"))
        nearkey = self.start_nearkey(one.url, directory=os.path.join(self.directory, "one"))
        with nearkey.client() as client:
            said = self.explain(client, "GET", key)
        self.assertEqual(set(), {b"slot", b"node", b"parts", b"atomic"} & set(said))

    def test_errors_name_slot_and_node(self):
        node = self.cluster.nodes[1]
        key, slot = self.key_of(node)
        nearkey, relay, address = self.start_behind_relay(
            node, **{"upstream.request_timeout_ms": 700 * SLOWNESS,
                     "upstream.queue_timeout_ms": 300 * SLOWNESS,
                     "upstream.suspect_after_ms": 0})
        client = nearkey.client()
        self.addCleanup(client.close)
        place = f"(slot {slot}, node {address})".encode()
        self.assertEqual(b":1\r\n", client.command("INCR", key))
        relay.freeze_replies()
        # The second one is late, too, and stands behind bytes of the first.
        client.send(encode("INCR", key) + encode("GET", key))
        late = b"-UPSTREAMTIMEOUT Valkey did not answer in time " + place + b"; may have run\r\n"
        self.assertEqual([late, late], client.read_replies(2))
        forwarded = nearkey.metric("nearkey_commands_forwarded_total")
        client.send(encode("INCR", key))
        wait_for(lambda: nearkey.metric("nearkey_commands_forwarded_total") > forwarded, 5,
                 "it was sent")
        # Cut while it is frozen: close() lets go what it holds.
        relay.cut_all()
        self.assertEqual(b"-UPSTREAMLOST the connection to Valkey was lost " + place +
                         b"; may have run\r\n", client.read_reply())
        relay.close()
        wait_for(lambda: self.ready(nearkey)["state"] == "degraded", 15, "it is away")
        reply = client.command("SET", key, "1")
        self.assertTrue(reply.startswith(b"-UPSTREAMDOWN "), reply)
        self.assertIn(place + b"; not sent\r\n", reply)
        healthy, _ = self.key_of(self.cluster.nodes[0])
        self.assertEqual(b"+OK\r\n", client.command("SET", healthy, "1"))

    def test_a_slot_that_nobody_owns(self):
        key, slot = self.key_of(self.cluster.nodes[2])
        owner = self.cluster.nodes[2]
        # With full coverage all would refuse everything.
        for node in self.cluster.nodes:
            node.run("CONFIG", "SET", "cluster-require-full-coverage", "no")

        def give_back():
            owner.run("CLUSTER", "ADDSLOTS", str(slot))
            for node in self.cluster.nodes:
                wait_for(lambda node=node: self.cluster.owner_of(slot, node) is owner, 10, "told")
                node.run("CONFIG", "SET", "cluster-require-full-coverage", "yes")

        for node in self.cluster.nodes:
            node.run("CLUSTER", "DELSLOTS", str(slot))
        try:
            client = self.client()
            reply = client.command("GET", key)
            self.assertTrue(reply.startswith(b"-CLUSTERDOWN"), reply)
            wait_for(lambda: self.ready(self.nearkey)["state"] == "degraded", 15, "it is degraded")
            self.assertEqual("1 slots are not served", self.ready(self.nearkey)["reason"])
            self.assertEqual(b"nobody owns the slot", self.explain(client, "GET", key)[b"node"])
        finally:
            give_back()
        self.wait_whole()


@proxy_only
class ExamplesTest(OperatingCase):
    """What config/examples/ and docs/cluster.md show is accepted."""

    def check(self, text):
        make_certificates(self.directory)
        for name, source in (("ca.pem", "ca.crt"), ("client.pem", "client.crt"),
                             ("client.key", "client.key")):
            text = text.replace(f"/etc/nearkey/{name}", os.path.join(self.directory, source))
        for name in ("password", "sentinel-password"):
            path = os.path.join(self.directory, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write("secret\n")
            os.chmod(path, 0o600)
        text = text.replace("/etc/nearkey/", self.directory + "/")
        text = text.replace("/run/nearkey/", self.directory + "/")
        path = os.path.join(self.directory, "example.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return run_nearkey(self.directory, "check", "--config", path)

    def test_each_file_is_accepted(self):
        folder = os.path.join(ROOT, "config", "examples")
        names = sorted(os.listdir(folder))
        self.assertEqual(["cluster-nat.toml", "cluster-tls.toml", "managed-service.toml",
                          "sentinel.toml"], names)
        with open(os.path.join(ROOT, "docs", "cluster.md"), encoding="utf-8") as file:
            page = file.read()
        for name in names:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                done = self.check(file.read())
            self.assertEqual((0, ""), (done.returncode, done.stderr), name)
            self.assertIn(f"config/examples/{name}", page)
        done = self.check("[upstream]\nurl = 'valkey+cluster://a'\n[cluster]\naddresses = ['a=b:1']")
        self.assertEqual(2, done.returncode)

    def test_what_the_page_shows_is_accepted(self):
        with open(os.path.join(ROOT, "docs", "cluster.md"), encoding="utf-8") as file:
            blocks = re.findall(r"^```\n(\[.*?)^```$", file.read(), re.M | re.S)
        self.assertGreaterEqual(len(blocks), 2)
        for block in blocks:
            block = re.sub(r"^# or, .*?\]$", "", block, flags=re.M | re.S)
            done = self.check(block)
            self.assertEqual((0, ""), (done.returncode, done.stderr), block)
