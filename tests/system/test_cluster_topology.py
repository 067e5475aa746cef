"""How nearkey comes to know the nodes of a cluster: a plain URL that leads to one, the options of
[cluster], addresses as they are announced (NAT, names, IPv6, TLS), and other clusters."""

import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from clusters import address_of, cluster_of
from fake_valkey import FakeValkey, bulk
from harness import SystemTest, ValkeyServer, free_port, proxy_only, wait_for
from relay import Relay
from resp import encode, parse
from test_reload import ReloadTest
from test_upstream_access import make_certificates

KEYS = [f"key:{number}" for number in range(200)]
LIMIT = "nearkey_cluster_nodes_max_total"


class TopologyTest(SystemTest):
    def folder(self, name):
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        return path

    def entries(self, nearkey, event):
        return [entry for entry in nearkey.logs() if entry["event"] == event]

    def said(self, nearkey, event, timeout=10):
        """The first log line of this event."""
        wait_for(lambda: self.entries(nearkey, event), timeout, f"{event} in the log")
        return self.entries(nearkey, event)[0]

    def write_and_read(self, nearkey, mark="1"):
        """Keys of all nodes, over both protocols."""
        for version in (2, 3):
            with nearkey.client() as client:
                client.command("HELLO", str(version))
                value = f"{mark}:{version}"
                client.send(b"".join(encode("SET", key, value) for key in KEYS))
                self.assertEqual({b"+OK\r\n"}, set(client.read_replies(len(KEYS))))
                client.send(b"".join(encode("GET", key) for key in KEYS))
                self.assertEqual({value.encode()},
                                 {parse(reply) for reply in client.read_replies(len(KEYS))})

    def known(self, nearkey):
        return {node["address"] for node in nearkey.get("/nodes")[1]["nodes"]}

    def start_node(self, *args, **options):
        """A cluster of one node that has no slots yet."""
        node = ValkeyServer(
            self.folder(f"single-{free_port()}"), name="node", tcp=True,
            args=["--cluster-enabled", "yes", "--cluster-port", str(free_port()), *args], **options)
        self.addCleanup(node.stop)
        return node.start()

    @staticmethod
    def give_slots(node):
        assert node.run("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"OK"
        wait_for(lambda: b"cluster_state:ok" in node.run("CLUSTER", "INFO"), 10, "it serves")


class OneCluster(TopologyTest):
    OPTIONS = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster_of(cls, **cls.OPTIONS)

    def setUp(self):
        super().setUp()
        self.cluster.flush()


@proxy_only
class AutoTest(OneCluster, ReloadTest):
    """upstream.cluster = "auto", the default."""

    def test_a_plain_url_of_a_node_makes_a_cluster(self):
        addresses = {address_of(node) for node in self.cluster.nodes}
        for node in self.cluster.nodes[:2]:
            for url in (f"valkey://{address_of(node)}", f"unix://{node.path}"):
                nearkey = self.start_nearkey(url)
                self.write_and_read(nearkey, url)
                self.assertEqual(addresses, self.known(nearkey))
                self.assertEqual(1, len(self.entries(nearkey, "cluster_found")))
                self.assertIn("mode cluster", self.entries(nearkey, "cluster_found")[0]["what"])
                with nearkey.client() as client:
                    self.assertIn(b"standalone", client.command("HELLO", "3"))
                nearkey.stop()
        for node in self.cluster.nodes:
            self.assertGreater(node.run("DBSIZE"), 30)

    def test_off_means_one_server(self):
        node = self.cluster.nodes[0]
        nearkey = self.start_nearkey(node.url, settings={"upstream.cluster": "off"})
        with nearkey.client() as client:
            client.send(b"".join(encode("GET", key) for key in KEYS))
            replies = client.read_replies(len(KEYS))
        self.assertTrue(any(reply.startswith(b"-MOVED") for reply in replies))
        self.assertEqual([], nearkey.get("/nodes")[1]["nodes"])
        self.assertEqual([], self.entries(nearkey, "cluster_found"))

    def test_one_server_stays_one(self):
        nearkey = self.start_nearkey(self.start_server(tcp=True).url)
        self.write_and_read(nearkey)
        self.assertEqual([], nearkey.get("/nodes")[1]["nodes"])
        self.assertEqual([], [entry for entry in nearkey.logs() if "cluster" in entry["event"]])

    def test_the_node_comes_late_and_gets_its_slots_later(self):
        """nearkey is not ready before it is known who owns a slot: no client reads of it."""
        port = free_port()
        nearkey = self.start_nearkey(f"valkey://127.0.0.1:{port}", ready=False)
        self.said(nearkey, "upstream_unreachable")
        self.assertEqual([], self.entries(nearkey, "cluster_found"))
        node = ValkeyServer(self.folder("late"), name="node", port=port,
                            args=["--cluster-enabled", "yes", "--cluster-port", str(free_port())])
        self.addCleanup(node.stop)
        node.start()
        self.said(nearkey, "cluster_found")
        self.said(nearkey, "cluster_map_refused")
        self.assertEqual(503, nearkey.ready_status())
        self.give_slots(node)
        nearkey.wait_ready()
        self.write_and_read(nearkey)

    def test_nobody_is_served_before_it_is_known(self):
        """The answer to CLUSTER SLOTS is held back: nearkey is not ready, and there is no socket."""
        port = free_port()
        relay = Relay(("127.0.0.1", port), self.cluster.nodes[0].address)
        self.addCleanup(relay.close)
        relay.hold(lambda asked: b"SLOTS" in asked)
        nearkey = self.start_nearkey(f"valkey://127.0.0.1:{port}", ready=False)
        self.said(nearkey, "ready")  # the node
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            self.assertEqual(503, nearkey.ready_status())
            self.assertFalse(os.path.exists(nearkey.path))
        self.assertIn("asking whether it is a cluster", nearkey.get("/readyz")[1]["reason"])
        self.assertEqual([], self.entries(nearkey, "cluster_found"))
        relay.thaw()
        nearkey.wait_ready()
        self.write_and_read(nearkey)
        self.assertEqual(1, len(self.entries(nearkey, "cluster_found")))

    def test_a_reload_does_not_make_a_cluster_of_one_server_nor_the_reverse(self):
        server = self.start_server(tcp=True)
        node = self.cluster.nodes[0]
        self.start(self.settings(server.url))
        self.write(self.settings(node.url))
        outcome = self.hang_up()
        self.assertEqual("reload_refused", outcome["event"])
        self.assertIn("node of a cluster, which needs a restart", outcome["reason"])
        self.write_and_read(self.nearkey)
        self.assertEqual(0, node.run("DBSIZE"))
        self.nearkey.stop()
        self.start(self.settings(node.url))
        for url in (server.url, self.cluster.url(), self.cluster.nodes[1].url):
            self.write(self.settings(url))
            outcome = self.hang_up()
            self.assertEqual("reload_refused", outcome["event"], url)
            self.assertIn("needs a restart", outcome["reason"])
        self.write(self.settings(node.url, "request_timeout_ms = 4999"))
        self.assertEqual("reloaded", self.hang_up()["event"])
        self.write_and_read(self.nearkey)

    def test_another_password_holds_for_all_nodes(self):
        secret = os.path.join(self.directory, "secret")

        def require(password):
            for node in self.cluster.nodes:
                node.run("CONFIG", "SET", "masterauth", password)
                node.run("CONFIG", "SET", "requirepass", password)
                node.password = password or None

        self.addCleanup(require, "")
        for scheme in ("valkey", "valkey+cluster"):
            require("first")
            with open(secret, "w") as file:
                file.write("first\n")
            os.chmod(secret, 0o600)
            self.start(self.settings(self.cluster.url(self.cluster.nodes[0], scheme=scheme),
                                     f'password_file = "{secret}"'))
            self.write_and_read(self.nearkey)
            with open(secret, "w") as file:
                file.write("second\n")
            require("second")
            self.assertEqual("reloaded", self.hang_up()["event"])
            for node in self.cluster.nodes:
                node.run("CLIENT", "KILL", "TYPE", "normal")
            wait_for(lambda: all(node["state"] == "ready" for node in
                                 self.nearkey.get("/nodes")[1]["nodes"]), 10, "all nodes are back")
            self.write_and_read(self.nearkey, "second")
            self.nearkey.stop()

    def test_a_subscription_waits_for_the_nodes(self):
        """Which node is asked for what has no key may be another one by the time that it is there."""
        node = self.start_node()
        self.give_slots(node)
        nearkey = self.start_nearkey(f"unix://{node.path}",
                                     settings={"upstream.queue_timeout_ms": 20000})
        for _ in range(3):
            clients = [nearkey.client() for _ in range(10)]
            node.stop()
            nearkey.wait_unready()
            for client in clients:
                client.send(encode("SUBSCRIBE", "news"))
            node.start()
            for client in clients:
                self.assertEqual([b"subscribe", b"news", 1], parse(client.read_reply()))
                client.close()
            nearkey.wait_ready()

    def test_a_server_that_becomes_a_node_later_is_still_asked_alone(self):
        server = self.start_server(tcp=True)
        nearkey = self.start_nearkey(server.url)
        server.stop()
        nearkey.wait_unready()
        node = ValkeyServer(self.folder("later"), name="node", port=server.port,
                            args=["--cluster-enabled", "yes", "--cluster-port", str(free_port())])
        self.addCleanup(node.stop)
        node.start()
        self.give_slots(node)
        nearkey.wait_ready()
        entry = self.said(nearkey, "cluster_not_used")
        self.assertIn("when nearkey started", entry["reason"])
        self.assertEqual([], nearkey.get("/nodes")[1]["nodes"])
        self.write_and_read(nearkey)

    def test_what_can_not_be_used_as_a_cluster_is_one_server(self):
        """CLUSTER SLOTS is not allowed, or tells no port of those without TLS."""
        node = self.start_node()
        self.give_slots(node)
        node.run("ACL", "SETUSER", "default", "-cluster|slots")
        nearkey = self.start_nearkey(node.url)
        self.assertIn("NOPERM", self.said(nearkey, "cluster_not_used")["reason"])
        self.write_and_read(nearkey)
        nearkey.stop()
        make_certificates(self.directory)
        path = lambda name: os.path.join(self.directory, name)  # noqa: E731
        node = self.start_node("--tls-port", str(free_port()), "--port", "0",
                               "--tls-cert-file", path("server.crt"), "--tls-key-file",
                               path("server.key"), "--tls-ca-cert-file", path("ca.crt"))
        self.give_slots(node)
        nearkey = self.start_nearkey(f"unix://{node.path}")
        self.assertIn("no node's address", self.said(nearkey, "cluster_not_used")["reason"])
        self.write_and_read(nearkey)


@proxy_only
class OptionsTest(OneCluster):
    """One cluster of three whose nodes announce themselves in other ways in turn."""

    def setUp(self):
        super().setUp()
        self.wait_all_tell(0, [b"127.0.0.1"])
        self.wait_all_tell(1, [node.port for node in self.cluster.nodes])

    def configure(self, **values):
        """Announced from now on by each node: name=value, or a list of values."""
        for number, node in enumerate(self.cluster.nodes):
            for name, value in values.items():
                each = value[number] if isinstance(value, list) else value
                node.run("CONFIG", "SET", "cluster-" + name.replace("_", "-"), each)

    def announce(self, **values):
        self.configure(**values)
        defaults = {"announce_hostname": "", "announce_port": "0",
                    "preferred_endpoint_type": "ip"}
        self.addCleanup(self.configure, **{name: defaults[name] for name in values})

    def wait_all_tell(self, index, values):
        """Each node names these hosts (0) or ports (1) for all."""
        wait_for(lambda: all({owner[index] for _, _, owner, *_ in node.run("CLUSTER", "SLOTS")} ==
                             set(values) for node in self.cluster.nodes), 20, "all have heard it")

    def check_with_moves(self, nearkey):
        """Slots move to and fro: MOVED and ASK lead to the addresses that can be reached, too."""
        self.write_and_read(nearkey)
        slot = self.cluster.slot_of("{m}")
        with nearkey.client() as client:
            for target in self.cluster.nodes:
                if self.cluster.owner_of(slot) is target:
                    continue
                client.command("SET", "{m}there", "1")
                client.command("DEL", "{m}new")

                def while_moving():
                    self.assertEqual(b"+OK\r\n", client.command("SET", "{m}new", "2"))

                self.cluster.move(slot, target, while_moving=while_moving)
                self.assertEqual([b"1", b"2"], parse(client.command("MGET", "{m}there", "{m}new")))
        redirects = "nearkey_cluster_%s_total"
        self.assertGreater(nearkey.metric(redirects % "moved"), 0)
        self.assertGreater(nearkey.metric(redirects % "asked"), 0)

    def test_ports_behind_nat(self):
        ports = [str(free_port()) for _ in self.cluster.nodes]
        self.announce(announce_port=ports)
        self.wait_all_tell(1, [int(port) for port in ports])
        pairs = [f"127.0.0.1:{port}={address_of(node)}"
                 for port, node in zip(ports, self.cluster.nodes)]
        nearkey = self.start_nearkey(self.cluster.url(self.cluster.nodes[0]),
                                     settings={"cluster.addresses": ",".join(pairs)})
        self.check_with_moves(nearkey)
        self.assertEqual({address_of(node) for node in self.cluster.nodes}, self.known(nearkey))
        nearkey.stop()
        # Without that nobody is there.
        nearkey = self.start_nearkey(self.cluster.url(self.cluster.nodes[0]), ready=False)
        self.said(nearkey, "cluster")
        wait_for(lambda: any("node" in entry.get("upstream", "") or entry["event"] ==
                             "upstream_unreachable" for entry in nearkey.logs()), 10, "it says so")
        self.assertEqual(503, nearkey.ready_status())

    def test_addresses_change_with_a_reload(self):
        ports = [str(free_port()) for _ in self.cluster.nodes]
        self.announce(announce_port=ports)
        self.wait_all_tell(1, [int(port) for port in ports])
        config = os.path.join(self.directory, "nearkey.toml")
        text = f'[upstream]\nurl = "{self.cluster.url()}"\n[cluster]\naddresses = ['

        def write(rows):
            with open(config, "w") as file:
                file.write(text + ", ".join(f'"{row}"' for row in rows) + "]\n")

        write([])
        nearkey = self.start_nearkey(None, ready=False, args=["--config", config])
        self.said(nearkey, "cluster")
        write([f"127.0.0.1:{port}={address_of(node)}"
               for port, node in zip(ports, self.cluster.nodes)])
        nearkey.signal(1)
        nearkey.wait_ready()
        self.write_and_read(nearkey)

    def test_names_are_preferred(self):
        names = ["one.invalid", "two.invalid", "three.invalid"]
        self.announce(announce_hostname=names, preferred_endpoint_type="hostname")
        self.wait_all_tell(0, [name.encode() for name in names])
        rows = ",".join(f"{name}=127.0.0.1" for name in names)
        nearkey = self.start_nearkey(self.cluster.url(), settings={"cluster.addresses": rows})
        self.check_with_moves(nearkey)
        nearkey.stop()
        self.announce(announce_hostname="localhost")
        self.wait_all_tell(0, [b"localhost"])
        nearkey = self.start_nearkey(self.cluster.url())
        self.check_with_moves(nearkey)
        self.assertEqual({f"localhost:{node.port}" for node in self.cluster.nodes},
                         self.known(nearkey))

    def test_names_are_preferred_and_there_are_none(self):
        """A host is "?", with the address beside it; in MOVED there is the port alone."""
        self.announce(preferred_endpoint_type="hostname")
        self.wait_all_tell(0, [b"?"])
        nearkey = self.start_nearkey(self.cluster.url())
        self.check_with_moves(nearkey)
        self.assertEqual({address_of(node) for node in self.cluster.nodes}, self.known(nearkey))

    def test_the_endpoint_is_the_one_that_was_asked(self):
        self.announce(preferred_endpoint_type="unknown-endpoint")
        self.wait_all_tell(0, [None])
        for url in (self.cluster.url(), f"unix://{self.cluster.nodes[0].path}"):
            nearkey = self.start_nearkey(url)
            self.check_with_moves(nearkey)
            self.assertEqual({address_of(node) for node in self.cluster.nodes},
                             self.known(nearkey))
            nearkey.stop()

    def test_the_interval_of_refreshes(self):
        name = "nearkey_cluster_maps_total"
        nearkey = self.start_nearkey(self.cluster.url(),
                                     settings={"cluster.refresh_interval_ms": "100"})
        before = nearkey.metric(name)
        wait_for(lambda: nearkey.metric(name) >= before + 10, 10, "it asks each 100 ms")
        nearkey.stop()
        nearkey = self.start_nearkey(self.cluster.url())
        wait_for(lambda: nearkey.metric(name) > 0, 10, "it has asked")
        time.sleep(1.5)  # While a node is not dialled yet, it is asked each second.
        before = nearkey.metric(name)
        time.sleep(1.5)
        self.assertLessEqual(nearkey.metric(name), before + 1)

    def test_no_more_nodes_than_allowed(self):
        nearkey = self.start_nearkey(self.cluster.url(self.cluster.nodes[0]),
                                     settings={"cluster.nodes_max": "2", "server.workers": "1"})
        entry = self.said(nearkey, "cluster_nodes_max")
        self.assertEqual(2, entry["limit"])
        self.assertEqual(2, len(self.known(nearkey)))
        self.assertGreater(nearkey.metric(LIMIT), 0)
        self.assertGreater(nearkey.metric("nearkey_cluster_slots_unserved"), 5000)
        with nearkey.client() as client:
            replies = {}
            for key in KEYS[:40]:
                owner = address_of(self.cluster.owner_of(self.cluster.slot_of(key)))
                replies.setdefault(owner, set()).add(client.command("SET", key, "1"))
        known = self.known(nearkey)
        for owner, said in replies.items():
            if owner in known:
                self.assertEqual({b"+OK\r\n"}, said)
            else:
                for reply in said:
                    self.assertRegex(reply, rb"\(cluster\.nodes_max\) \(slot \d+, node %b\); not run"
                                     % re.escape(owner.encode()))
        self.assertEqual(1, len(self.entries(nearkey, "cluster_nodes_max")))


@proxy_only
class Ipv6Test(OneCluster):
    OPTIONS = {"bind": "::1"}

    def test_addresses_with_colons(self):
        for url in (self.cluster.url(), self.cluster.url(self.cluster.nodes[1], scheme="valkey")):
            nearkey = self.start_nearkey(url)
            OptionsTest.check_with_moves(self, nearkey)
            self.assertEqual({f"[::1]:{node.port}" for node in self.cluster.nodes},
                             self.known(nearkey))
            nearkey.stop()


@proxy_only
class RedirectsTest(TopologyTest):
    def test_a_circle_ends(self):
        """Two nodes that send every command from one to the other."""
        ports = [free_port(), free_port()]
        fakes = [FakeValkey(("127.0.0.1", port)) for port in ports]
        ids = [b"a" * 40, b"b" * 40]
        slots = b"*2\r\n" + b"".join(
            b"*3\r\n:%d\r\n:%d\r\n*4\r\n$9\r\n127.0.0.1\r\n:%d\r\n%s*0\r\n"
            % (8192 * number, 8192 * number + 8191, ports[number], bulk(ids[number]))
            for number in range(2))
        for number, fake in enumerate(fakes):
            self.addCleanup(fake.close)
            fake.answers = {"cluster": slots,
                            "get": b"-MOVED 866 127.0.0.1:%d\r\n" % ports[1 - number]}

        def asked():
            return sum(args[0] == b"GET" for fake in fakes for args in fake.received)

        for limit in (1, 5, 15):
            nearkey = self.start_nearkey(f"valkey+cluster://127.0.0.1:{ports[0]}",
                                         settings={"cluster.redirects_max": limit})
            before = asked()
            with nearkey.client() as client:
                reply = client.command("GET", "key")
            self.assertIn(b"-UPSTREAMDOWN the cluster's nodes send it from one to the other", reply)
            self.assertEqual(limit + 1, asked() - before)
            nearkey.stop()


@proxy_only
class StrangerTest(OneCluster):
    """The address that the URL names leads to another cluster some time."""

    def start_before_relay(self, target, **settings):
        self.port = free_port()
        self.relay = Relay(("127.0.0.1", self.port), target.address)
        self.addCleanup(self.relay.close)
        return self.start_nearkey(f"valkey+cluster://127.0.0.1:{self.port}", settings=settings)

    def lead_to(self, node):
        self.relay.target = node.address
        self.relay.cut_all()

    def test_another_cluster_is_not_taken_for_ours(self):
        stranger = self.start_node()
        self.give_slots(stranger)
        nearkey = self.start_before_relay(self.cluster.nodes[0],
                                          **{"cluster.refresh_interval_ms": 100,
                                             "upstream.backoff_max_ms": 100})
        self.write_and_read(nearkey)
        self.lead_to(stranger)
        self.assertIn("another cluster", self.said(nearkey, "cluster_map_refused")["reason"])
        wait_for(lambda: stranger.clients() == [], 10, "nothing is asked there any more")
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            self.write_and_read(nearkey, "still ours")
            time.sleep(0.1)
        self.assertEqual({address_of(node) for node in self.cluster.nodes}, self.known(nearkey))
        self.assertEqual(0, stranger.run("DBSIZE"))
        self.assertEqual([], self.entries(nearkey, "cluster_replaced"))

    def test_one_that_stands_where_ours_was_is_believed_after_a_while(self):
        ours, stranger = self.start_node(), self.start_node()
        self.give_slots(ours)
        self.give_slots(stranger)
        nearkey = self.start_before_relay(ours, **{"cluster.refresh_interval_ms": 700,
                                                   "upstream.backoff_max_ms": 100})
        self.write_and_read(nearkey)
        died = time.monotonic()
        ours.stop()
        self.lead_to(stranger)
        self.said(nearkey, "cluster_map_refused")
        self.said(nearkey, "cluster_replaced", 30)
        self.assertGreater(time.monotonic() - died, 1.3)
        nearkey.wait_ready(20)
        self.write_and_read(nearkey)
        wait_for(lambda: self.known(nearkey) == {address_of(stranger)}, 10, "ours is forgotten")


@proxy_only
class TlsTest(TopologyTest, ReloadTest):
    """A cluster whose nodes speak TLS alone, to clients and to each other."""

    @classmethod
    def setUpClass(cls):
        cls.certificates = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.certificates, ignore_errors=True)
        make_certificates(cls.certificates)
        path = cls.path_of
        cls.cluster = cluster_of(cls, args=lambda port: (
            "--port", "0", "--tls-port", str(port), "--tls-cluster", "yes",
            "--tls-replication", "yes", "--tls-auth-clients", "no",
            "--tls-cert-file", path("server.crt"), "--tls-key-file", path("server.key"),
            "--tls-ca-cert-file", path("ca.crt")))

    @classmethod
    def path_of(cls, name):
        return os.path.join(cls.certificates, name)

    def with_tls(self, **more):
        return {"upstream.tls_ca_file": self.path_of("ca.crt"), **more}

    def sign(self, name, days):
        """NAME.crt for the hosts in NAME.ext."""
        subprocess.run(
            ["openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.crt"],
            cwd=self.certificates, check=True, capture_output=True, timeout=30)

    def test_of_all_certificates_the_one_that_ends_first_is_shown(self):
        shutil.copy(self.path_of("server.ext"), self.path_of("short.ext"))
        self.sign("short", days=1)
        day = 24 * 3600
        for node in self.cluster.nodes:
            node.run("CONFIG", "SET", "tls-cert-file", self.path_of("short.crt"))
            nearkey = self.start_nearkey(self.cluster.url(scheme="valkeys+cluster"),
                                         settings=self.with_tls())

            def left(nearkey=nearkey):
                name = "nearkey_tls_server_certificate_expires_seconds"
                return nearkey.metric(name) - time.time()

            wait_for(lambda: day - 3600 < left() <= day, 10, "the day that is left")
            for _ in range(10):
                self.write_and_read(nearkey)
                self.assertTrue(day - 3600 < left() <= day, left())
            nearkey.stop()
            node.run("CONFIG", "SET", "tls-cert-file", self.path_of("server.crt"))

    def test_all_nodes_are_reached_by_tls(self):
        for url in (self.cluster.url(scheme="valkeys+cluster"),
                    self.cluster.url(self.cluster.nodes[1], scheme="rediss")):
            nearkey = self.start_nearkey(url, settings=self.with_tls())
            OptionsTest.check_with_moves(self, nearkey)
            nearkey.stop()

    def test_a_node_without_a_host_proves_to_be_the_one_of_the_url(self):
        """The certificate carries the name in the URL, not the address that this leads to."""
        with open(self.path_of("localhost.ext"), "w") as file:
            file.write("subjectAltName=DNS:localhost\n")
        self.sign("localhost", days=2)

        def configure(certificate, endpoint):
            for node in self.cluster.nodes:
                node.run("CONFIG", "SET", "tls-cert-file", self.path_of(certificate),
                         "cluster-preferred-endpoint-type", endpoint)

        configure("localhost.crt", "unknown-endpoint")
        self.addCleanup(configure, "server.crt", "ip")
        nearkey = self.start_nearkey(f"valkeys+cluster://localhost:{self.cluster.nodes[0].port}",
                                     settings=self.with_tls())
        OptionsTest.check_with_moves(self, nearkey)

    def test_a_certificate_of_another_name_is_refused(self):
        url = self.cluster.url(scheme="valkeys+cluster")
        nearkey = self.start_nearkey(
            url, ready=False, settings=self.with_tls(**{"upstream.tls_server_name": "other.test"}))
        self.assertIn("TLS", self.said(nearkey, "upstream_unreachable")["reason"])
        nearkey.stop()
        nearkey = self.start_nearkey(
            url, settings=self.with_tls(**{"upstream.tls_server_name": "valkey.test"}))
        self.write_and_read(nearkey)
        nearkey.stop()
        # What the nodes announce is what their certificates must carry.
        for node in self.cluster.nodes:
            node.run("CONFIG", "SET", "cluster-announce-hostname", "localhost")
            node.run("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
            self.addCleanup(node.run, "CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")
        wait_for(lambda: all(owner[0] == b"localhost" for node in self.cluster.nodes
                             for _, _, owner, *_ in node.run("CLUSTER", "SLOTS")), 20, "all heard")
        nearkey = self.start_nearkey(url, ready=False, settings=self.with_tls())
        self.said(nearkey, "cluster")
        wait_for(lambda: any("TLS" in entry.get("reason", "") for entry in nearkey.logs()), 10,
                 "no node proves to be localhost")
        self.assertEqual(503, nearkey.ready_status())


    def test_reloads_go_on_while_the_first_node_of_the_url_is_away(self):
        """Who is asked in its place proves that the new settings serve, by its own name."""
        ca = shutil.copy(self.path_of("ca.crt"), self.directory)
        there = ",".join(address_of(node) for node in self.cluster.nodes)
        # No certificate names it.
        url = f"valkeys+cluster://127.0.0.2:{free_port()},{there}"
        options = (f'tls_ca_file = "{ca}"', "backoff_max_ms = 100", "[near_cache]\nenabled = false")
        self.start(self.settings(url, *options))
        self.said(self.nearkey, "cluster_seed")
        self.write_and_read(self.nearkey)
        self.write(self.settings(url, *options, '[log]\nlevel = "debug"'))
        outcome = self.hang_up()
        self.assertEqual("reloaded", outcome["event"], outcome)
        self.assertNotIn("certificates", outcome["changes"])
        with open(ca, "a") as file:
            file.write("\n")
        outcome = self.hang_up()
        self.assertEqual("reloaded", outcome["event"], outcome)
        self.assertIn("other certificates", outcome["changes"])
        for node in self.cluster.nodes:
            node.run("CLIENT", "KILL", "TYPE", "normal")
        self.write_and_read(self.nearkey, "2")
        self.nearkey.wait_ready()
        self.assertFalse([entry for entry in self.nearkey.logs() if "TLS" in entry.get("reason", "")])


del OneCluster, TopologyTest, ReloadTest

if __name__ == "__main__":
    unittest.main()
