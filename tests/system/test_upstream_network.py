"""faults.md, rows 5, 6, 25 and 26: packets that vanish, resets, and DNS that fails, hangs or
changes. Each test runs itself again inside a network (and mount) namespace of its own, where it may
do all that without being root."""

import os
import socket
import subprocess
import threading
import time
import unittest

from harness import SLOWNESS, SystemTest, proxy_only, wait_for
from load import IncrementLoad
from namespaces import bind_over, cut_port, heal, in_namespace

PONG = b"+PONG\r\n"
FIREWALL = ("-Urn", "ip link set lo up && iptables -A INPUT -p tcp --dport 9 -j DROP")
NAMES = ("-Urnm", "ip link set lo up && mount --bind /dev/null /etc/hosts")
DROP = ["DROP"]
RESET = ["REJECT", "--reject-with", "tcp-reset"]


@proxy_only
class FirewallTest(SystemTest):
    def start(self, **settings):
        self.server = self.start_server(tcp=True)
        self.nearkey = self.start_nearkey(
            self.server.url, settings={"upstream.connections": 1, **settings}
        )
        self.client = self.nearkey.client()
        self.addCleanup(self.client.close)
        self.assertEqual(b"+OK\r\n", self.client.command("SET", "k", "before"))

    @in_namespace(*FIREWALL)
    def test_row_5_half_open_with_a_command_in_flight(self):
        self.start(**{"upstream.queue_timeout_ms": 300})
        cut_port(self.server.port, DROP)
        begin = time.monotonic()
        reply = self.client.command("SET", "k", "lost")
        took = time.monotonic() - begin
        self.assertTrue(reply.startswith((b"-UPSTREAMLOST", b"-UPSTREAMTIMEOUT")), reply)
        self.assertLess(took, 2.2 * SLOWNESS, "a half-open connection is found within 2 s")
        self.nearkey.wait_unready(2.5)
        reply = self.client.command("GET", "k")
        self.assertTrue(reply.startswith(b"-UPSTREAM"), reply)
        heal()
        self.nearkey.wait_ready(3)
        self.assertIn(self.client.command("GET", "k"), (b"$6\r\nbefore\r\n", b"$4\r\nlost\r\n"))
        self.assertTrue(
            self.client.is_silent(0.5), "a reply came after the error that stood for it"
        )

    @in_namespace(*FIREWALL)
    def test_row_5_half_open_without_traffic(self):
        self.start()
        cut_port(self.server.port, DROP)
        begin = time.monotonic()
        self.nearkey.wait_unready(2.2)
        self.assertGreater(
            time.monotonic() - begin, 0.2, "unready before anything could have been noticed"
        )
        heal()
        self.nearkey.wait_ready(3)
        self.assertEqual(b"$6\r\nbefore\r\n", self.client.command("GET", "k"))

    @in_namespace(*FIREWALL)
    def test_row_5_half_open_under_load_loses_nothing_that_was_acknowledged(self):
        self.start()
        load = IncrementLoad(self.nearkey.client).start()
        self.addCleanup(load.stop)
        wait_for(lambda: load.total("acknowledged") > 1000, 10, "the load runs")
        cut_port(self.server.port, DROP)
        self.nearkey.wait_unready(2.5)
        heal()
        healed = time.monotonic()
        wait_for(lambda: load.acknowledged_since(healed) == len(load.workers), 4, "traffic is back")
        load.stop()
        with self.server.client() as direct:
            load.check(self, direct)

    @in_namespace(*FIREWALL)
    def test_row_6_resets_are_answered_with_backoff(self):
        self.start(**{"upstream.queue_timeout_ms": 200})
        cut_port(self.server.port, RESET)
        self.assertTrue(self.client.command("SET", "k", "lost").startswith(b"-UPSTREAM"))
        self.nearkey.wait_unready(2.5)
        before = self.rejected()
        time.sleep(2)  # Backoff shows only over time.
        tries = self.rejected() - before
        # Full jitter between 0 and at most 1 s: a handful of tries, neither none nor a storm.
        self.assertTrue(1 <= tries <= 30, tries)
        self.assertTrue(self.client.command("GET", "k").startswith(b"-UPSTREAMDOWN"))
        heal()
        self.nearkey.wait_ready(2)
        self.assertEqual(b"$6\r\nbefore\r\n", self.client.command("GET", "k"))
        self.assertGreaterEqual(self.nearkey.metric("nearkey_upstream_reconnects_total"), 1)

    def rejected(self):
        done = subprocess.run(
            ["iptables", "-L", "INPUT", "-v", "-x", "-n"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return sum(
            int(line.split()[0]) for line in done.stdout.splitlines() if "reject-with" in line
        )


@proxy_only
class NameTest(SystemTest):
    def prepare(self, addresses):
        """/etc/hosts and /etc/resolv.conf are files of this test from now on; "valkey.test" has the
        given address."""
        self.hosts = os.path.join(self.directory, "hosts")
        self.resolv = os.path.join(self.directory, "resolv.conf")
        self.set_hosts(addresses)
        self.set_resolver(
            "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n"
        )  # Nobody listens there: fails at once.
        bind_over("/etc/hosts", self.hosts)
        bind_over("/etc/resolv.conf", self.resolv)

    def set_hosts(self, address):
        with open(self.hosts, "w") as hosts:
            hosts.write("127.0.0.1 localhost\n" + (f"{address} valkey.test\n" if address else ""))

    def set_resolver(self, text):
        with open(self.resolv, "w") as resolv:
            resolv.write(text)

    def start(self):
        self.server = self.start_server(tcp=True)
        self.nearkey = self.start_nearkey(
            f"valkey://valkey.test:{self.server.port}", settings={"upstream.connections": 1}
        )
        self.client = self.nearkey.client()
        self.addCleanup(self.client.close)
        self.assertEqual(b"+OK\r\n", self.client.command("SET", "k", "value"))

    @in_namespace(*NAMES)
    def test_row_25_dns_fails_and_the_last_good_address_is_kept(self):
        self.prepare("127.0.0.1")
        self.start()
        self.set_hosts(None)
        self.assertEqual(b"$5\r\nvalue\r\n", self.client.command("GET", "k"))
        self.server.run("CLIENT", "KILL", "TYPE", "normal")
        wait_for(
            lambda: self.client.command("GET", "k") == b"$5\r\nvalue\r\n",
            3,
            "it is dialled at its last good address",
        )
        self.nearkey.wait_ready(2)

    @in_namespace(*NAMES)
    def test_row_25_dns_never_answers_and_the_loop_goes_on(self):
        self.prepare("127.0.0.1")
        self.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 53))
            self.set_resolver("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
            self.set_hosts(None)
            other = self.nearkey.client()
            self.addCleanup(other.close)
            other.socket.sendall(b"SELECT 5\r\nGET k\r\n")  # Needs another connection, so the name.
            slowest, asked = 0.0, threading.Event()
            threading.Thread(target=lambda: sink.recv(512) and asked.set(), daemon=True).start()
            deadline = time.monotonic() + 1.5 * SLOWNESS
            while time.monotonic() < deadline:
                begin = time.monotonic()
                self.assertEqual(b"$5\r\nvalue\r\n", self.client.command("GET", "k"))
                self.assertEqual(200, self.nearkey.get("/livez")[0])
                slowest = max(slowest, time.monotonic() - begin)
            self.assertTrue(asked.is_set(), "the name was not resolved again")
            self.assertLess(slowest, 1, "the loop waits for DNS, which takes 2 s to give up")
            self.assertEqual(200, self.nearkey.ready_status())

    @in_namespace(*NAMES)
    def test_row_25_a_name_that_does_not_exist_yet(self):
        self.prepare(None)
        server = self.start_server(tcp=True)
        nearkey = self.start_nearkey(f"valkey://valkey.test:{server.port}", ready=False)
        nearkey.wait_unready()
        wait_for(
            lambda: "valkey.test" in nearkey.get("/readyz")[1]["reason"],
            3,
            "the reason names the name",
        )
        self.assertFalse(os.path.exists(nearkey.path))
        self.set_hosts("127.0.0.1")
        nearkey.wait_ready(3)

    @in_namespace(*NAMES)
    def test_row_26_the_name_moves_to_another_server(self):
        self.prepare("127.0.0.1")
        self.start()
        second = self.start_server(bind="127.0.0.2", port=self.server.port, name="second")
        second.run("SET", "k", "second")
        self.set_hosts("127.0.0.2")
        self.assertEqual(
            b"$5\r\nvalue\r\n",
            self.client.command("GET", "k"),
            "a connection that lives is left alone",
        )
        self.server.kill()
        wait_for(
            lambda: self.client.command("GET", "k") == b"$6\r\nsecond\r\n",
            3,
            "the new address is found",
        )
        self.nearkey.wait_ready(2)

    @in_namespace(*NAMES)
    def test_row_26_what_another_server_says_than_the_one_that_tells_of_changes_is_not_stored(self):
        """The name has moved, and new connections lead elsewhere while old ones live: the second
        server has clients with the same CLIENT IDs."""
        self.prepare("127.0.0.1")
        self.start()
        second = self.start_server(bind="127.0.0.2", port=self.server.port, name="second")
        others = [second.client() for _ in range(12)]
        for other in others:
            self.addCleanup(other.close)
            other.command("HELLO", "3")
        self.set_hosts("127.0.0.2")
        with second.client() as direct:
            direct.command("SELECT", "5")
            direct.command("SET", "k", "old")
            self.assertEqual(b"+OK\r\n", self.client.command("SELECT", "5"))
            for _ in range(3):
                self.assertEqual(b"$3\r\nold\r\n", self.client.command("GET", "k"))
            direct.command("SET", "k", "new")
            time.sleep(2.5)  # More than max_staleness_ms.
            self.assertEqual(b"$3\r\nnew\r\n", self.client.command("GET", "k"))


if __name__ == "__main__":
    unittest.main()
