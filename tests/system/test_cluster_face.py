"""[[listener]] face = "cluster": to clients that insist on a cluster, nearkey is its one node. The
oracle for what such a node says is a real one that stands alone."""

import os
import re
import unittest

from clusters import cluster_of
from harness import SystemTest, ValkeyServer, free_port, proxy_only, wait_for
from resp import RespClient, encode, parse

SLOTS = 16384
ASKED = (
    ("CLUSTER", "SLOTS"), ("CLUSTER", "SHARDS"), ("CLUSTER", "NODES"), ("CLUSTER", "INFO"),
    ("CLUSTER", "MYID"), ("CLUSTER", "MYSHARDID"), ("CLUSTER", "LINKS"),
    ("CLUSTER", "KEYSLOT", "a{b}c"), ("CLUSTER", "KEYSLOT", ""), ("cluster", "slots"),
    ("CLUSTER", "REPLICAS", "nobody"), ("CLUSTER", "SLAVES", "nobody"),
    ("CLUSTER", "COUNT-FAILURE-REPORTS", "nobody"), ("CLUSTER", "REPLICAS", "MYID"),
    ("CLUSTER", "COUNT-FAILURE-REPORTS", "MYID"),
    ("CLUSTER", "COUNTKEYSINSLOT", "0"), ("CLUSTER", "COUNTKEYSINSLOT", "x"),
    ("CLUSTER", "COUNTKEYSINSLOT", "16384"), ("CLUSTER", "GETKEYSINSLOT", "5", "10"),
    ("CLUSTER", "GETKEYSINSLOT", "5", "x"), ("CLUSTER", "HELP"),
    ("CLUSTER",), ("CLUSTER", "SLOTS", "x"), ("CLUSTER", "KEYSLOT"), ("CLUSTER", "NONE"),
    ("READONLY",), ("READWRITE",), ("ASKING",), ("READONLY", "x"),
)


class FaceTest(SystemTest):
    def start_before(self, url, *more, host="127.0.0.1", directory=None):
        """nearkey with a Unix socket, and a TCP listener that looks like a cluster."""
        directory = directory or self.directory
        self.port = free_port()
        shown = f"[{host}]" if ":" in host else host
        lines = [
            "[upstream]", f'url = "{url}"',
            "[[listener]]", f'address = "{os.path.join(directory, "nearkey.sock")}"',
            "[[listener]]", f'address = "tcp:{shown}:{self.port}"', 'face = "cluster"', *more,
        ]
        config = os.path.join(directory, "face.toml")
        with open(config, "w") as file:
            file.write("\n".join(lines) + "\n")
        self.nearkey = self.start_nearkey(None, listen=[], args=["--config", config],
                                          directory=directory)
        self.config = config
        self.address = (host, self.port)
        return self.nearkey

    def client(self, version=2, address=None):
        client = RespClient(address or self.address)
        self.addCleanup(client.close)
        if version == 3:
            client.command("HELLO", "3")
        return client

    def folder(self, name):
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        return path

    def start_node(self):
        """A cluster of one real node."""
        node = ValkeyServer(
            self.folder(f"node-{free_port()}"), name="node", tcp=True,
            args=["--cluster-enabled", "yes", "--cluster-port", str(free_port()),
                  "--cluster-announce-ip", "127.0.0.1"])
        self.addCleanup(node.stop)
        node.start()
        self.assertEqual(b"OK", node.run("CLUSTER", "ADDSLOTSRANGE", "0", "16383"))
        wait_for(lambda: b"cluster_state:ok" in node.run("CLUSTER", "INFO"), 10, "it serves")
        return node


def masked(reply, port, node_id, shard_id):
    """Without what belongs to this node: its id, its ports, and how its cluster came to be."""
    for known in (node_id, shard_id):
        reply = reply.replace(known, b"I" * 40)
    reply = re.sub(rb"\b%d(@\d+)?\b" % port, b"PORT", reply)
    reply = re.sub(rb"(cluster_(current|my)_epoch|cluster_stats_messages_\w+):\d+", rb"\1:N", reply)
    reply = re.sub(rb"master - 0 0 \d+ connected", b"master - 0 0 N connected", reply)
    return re.sub(rb"^([$=])\d+\r\n", rb"\1N\r\n", reply)


@proxy_only
class OracleTest(FaceTest):
    def test_it_says_what_a_node_that_stands_alone_says(self):
        node = self.start_node()
        self.start_before(node.url)
        for version in (2, 3):
            said = []
            for address, port in ((("127.0.0.1", node.port), node.port), (self.address, self.port)):
                client = self.client(version, address)
                node_id = parse(client.command("CLUSTER", "MYID"))
                self.assertRegex(node_id, rb"\A[0-9a-f]{40}\Z")
                shard_id = parse(client.command("CLUSTER", "MYSHARDID"))
                replies = []
                for command in ASKED:
                    words = [node_id if word == "MYID" and place == 2 else word
                             for place, word in enumerate(command)]
                    replies.append(masked(client.command(*words), port, node_id, shard_id))
                said.append(replies)
            for command, real, ours in zip(ASKED, *said):
                self.assertEqual(real, ours, (version, command))

    def test_ids_belong_to_addresses(self):
        node = self.start_node()
        ids = set()
        for host in ("127.0.0.1", "::1"):
            self.start_before(node.url, host=host)
            before = parse(self.client().command("CLUSTER", "MYID"))
            row = parse(self.client().command("CLUSTER", "SLOTS"))[0][2]
            self.assertEqual([host.encode(), self.port, before], row[:3])
            self.assertIn(b"%s %s:%d@" % (before, host.encode(), self.port),
                          parse(self.client().command("CLUSTER", "NODES")))
            ids.add(before)
            self.nearkey.stop()
            again = self.start_nearkey(None, listen=[], args=["--config", self.config])
            self.assertEqual(before, parse(self.client().command("CLUSTER", "MYID")))
            again.stop()
        self.assertEqual(2, len(ids))

    def test_another_address_is_announced(self):
        self.start_before(self.start_node().url, 'announce = "cache.example:7000"')
        row = parse(self.client().command("CLUSTER", "SLOTS"))[0][2]
        self.assertEqual([b"cache.example", 7000], row[:2])


@proxy_only
class BeforeClusterTest(FaceTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster_of(cls)

    def setUp(self):
        super().setUp()
        self.cluster.flush()

    def test_no_server_behind_it_is_named(self):
        self.start_before(self.cluster.url(), 'commands = "+@all"')
        ports = [str(node.port).encode() for node in self.cluster.nodes]
        ids = [self.cluster.id_of(node) for node in self.cluster.nodes]
        names = [("CLUSTER", name) for name in (
            "SLOTS", "SHARDS", "NODES", "INFO", "MYID", "MYSHARDID", "LINKS", "BUMPEPOCH",
            "SAVECONFIG", "FLUSHSLOTS", "RESET", "FAILOVER")]
        for version in (2, 3):
            client = self.client(version)
            for command in [*names, ("CLUSTER", "REPLICAS", ids[0]), ("CLUSTER", "MEET", "h", "1"),
                            ("CLUSTER", "FORGET", ids[0]), ("CLUSTER", "DELSLOTS", "1"),
                            ("CLUSTER", "SETSLOT", "1", "STABLE"), ("HELLO",)]:
                reply = client.command(*command)
                for secret in ports + (ids if len(command) < 3 else []):
                    self.assertNotIn(secret, reply, command)
        self.assertEqual(b"-ERR CLUSTER reset is about the servers behind nearkey, which shows "
                         b"itself as one node; ask one of them\r\n",
                         client.command("CLUSTER", "RESET"))
        # Nothing of that has reached them.
        for node in self.cluster.nodes:
            self.assertIn(b"cluster_known_nodes:3", node.run("CLUSTER", "INFO"))
            self.assertIn(b"cluster_slots_assigned:16384", node.run("CLUSTER", "INFO"))

    def test_the_default_rules_hold(self):
        self.start_before(self.cluster.url())
        client = self.client()
        self.assertTrue(client.command("CLUSTER", "RESET").startswith(b"-NOPERM"))
        self.assertEqual(b"+OK\r\n", client.command("READONLY"))

    def test_all_else_is_as_at_the_other_listener(self):
        self.start_before(self.cluster.url())
        for version in (2, 3):
            client = self.client(version)
            said = parse(client.command("HELLO"))
            fields = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2]))
            self.assertEqual(b"cluster", fields[b"mode"])
            self.assertIn(b"cluster_enabled:1", client.command("INFO", "cluster"))
            keys = [f"key:{number}" for number in range(300)]
            client.send(b"".join(encode("SET", key, "1") + encode("INCR", key) + encode("READONLY")
                                 + encode("CLUSTER", "KEYSLOT", key) for key in keys))
            replies = client.read_replies(4 * len(keys))
            self.assertEqual({b"+OK\r\n"}, set(replies[::4]) | set(replies[2::4]))
            self.assertEqual({b":2\r\n"}, set(replies[1::4]))
            self.assertEqual([self.cluster.slot_of(key) for key in keys[:20]],
                             [parse(reply) for reply in replies[3:80:4]])
            client.command("MULTI")
            self.assertEqual(b"+QUEUED\r\n", client.command("INCR", "{t}a"))
            self.assertTrue(client.command("CLUSTER", "SLOTS").startswith(b"-"))
            self.assertTrue(client.command("EXEC").startswith(b"-EXECABORT"))
            self.assertEqual(b"+OK\r\n", client.command("ASKING"))
        unix = self.nearkey.client()
        self.addCleanup(unix.close)
        self.assertIn(b"standalone", unix.command("HELLO"))
        self.assertIn(b"cluster support disabled", unix.command("CLUSTER", "SLOTS"))
        self.assertEqual(b"$1\r\n2\r\n", unix.command("GET", "key:7"))

    def test_keys_of_a_slot_are_counted_where_they_are(self):
        self.start_before(self.cluster.url())
        client = self.client()
        for tag in ("a", "b", "c", "d", "e"):
            slot = str(self.cluster.slot_of(tag))
            for number in range(3):
                client.command("SET", f"{{{tag}}}{number}", "1")
            self.assertEqual(b":3\r\n", client.command("CLUSTER", "COUNTKEYSINSLOT", slot))
            self.assertEqual({b"{%s}%d" % (tag.encode(), number) for number in range(3)},
                             set(parse(client.command("CLUSTER", "GETKEYSINSLOT", slot, "9"))))

    def test_a_subscriber_learns_nothing_of_the_servers(self):
        self.start_before(self.cluster.url())
        client = self.client(3)
        commands = (("CLUSTER", "SLOTS"), ("CLUSTER", "MYID"), ("ASKING",))
        before = [client.command(*command) for command in commands]
        client.command("SUBSCRIBE", "news")
        self.assertEqual(before, [client.command(*command) for command in commands])
        self.assertEqual(b"+PONG\r\n", client.command("PING"))
        unix = self.nearkey.client()
        self.addCleanup(unix.close)
        unix.command("HELLO", "3")
        unix.command("SUBSCRIBE", "news")
        self.assertIn(b"cluster support disabled", unix.command("CLUSTER", "SLOTS"))

    def test_it_is_answered_in_its_turn(self):
        """Behind a command that has still to come back from a node."""
        self.start_before(self.cluster.url())
        client = self.client()
        value = "x" * 300_000
        client.send(encode("SET", "large", value) + encode("CLUSTER", "MYID") + encode("GET", "large")
                    + encode("READONLY") + encode("CLUSTER", "SLOTS"))
        replies = client.read_replies(5)
        self.assertEqual([b"+OK\r\n", value.encode(), b"+OK\r\n"],
                         [replies[0], parse(replies[2]), replies[3]])
        self.assertEqual(parse(replies[1]), parse(replies[4])[0][2][2])


@proxy_only
class BeforeOneServerTest(FaceTest):
    def test_one_server_looks_like_a_cluster(self):
        server = self.start_server()
        self.start_before(server.url)
        client = self.client(3)
        self.assertEqual(b"cluster", parse(client.command("HELLO"))[b"mode"])
        row = parse(client.command("CLUSTER", "SLOTS"))[0]
        self.assertEqual([0, SLOTS - 1, [b"127.0.0.1", self.port]], [row[0], row[1], row[2][:2]])
        self.assertEqual(b"+OK\r\n", client.command("READONLY"))
        self.assertEqual(b"+OK\r\n", client.command("MSET", "a", "1", "b", "2"))
        self.assertEqual([b"1", b"2"], parse(client.command("MGET", "a", "b")))
        self.assertEqual(b"+OK\r\n", client.command("MULTI"))
        self.assertEqual(b"+QUEUED\r\n", client.command("GET", "a"))
        self.assertEqual([b"1"], parse(client.command("EXEC")))
        # It has no slots to be counted.
        self.assertIn(b"cluster support disabled", client.command("CLUSTER", "COUNTKEYSINSLOT", "1"))
        unix = self.nearkey.client()
        self.addCleanup(unix.close)
        self.assertIn(b"cluster support disabled", unix.command("CLUSTER", "SLOTS"))

    def test_it_is_told_while_the_server_is_away(self):
        server = self.start_server()
        self.start_before(server.url)
        client = self.client()
        server.stop()
        self.nearkey.wait_unready()
        self.assertEqual(self.port, parse(client.command("CLUSTER", "SLOTS"))[0][2][1])
        self.assertTrue(client.command("GET", "a").startswith(b"-UPSTREAM"))


del FaceTest

if __name__ == "__main__":
    unittest.main()
