"""A network that comes apart: the primary is cut off from nearkey, from the Sentinels and from its
replica, lives on with the clients on its own host, and comes back after a failover. Each test runs
itself again in a network namespace of its own."""

import time
import unittest

from harness import SLOWNESS, proxy_only, wait_for
from namespaces import cut_port, heal, in_namespace
from near_cache import is_hit, store
from sentinel_case import OK, SentinelTest, is_error
from sentinels import calls, role

FIREWALL = ("-Urn", "ip link set lo up && iptables -A INPUT -p tcp --dport 9 -j DROP")
DROP = ["DROP"]
RESET = ["REJECT", "--reject-with", "tcp-reset"]


@proxy_only
class PartitionTest(SentinelTest):
    def start_warm(self, **options):
        self.start_group(**options)
        client = self.start()
        self.assertEqual(OK, client.command("SET", "cached", "before"))
        store(self.nearkey, client, "GET", "cached")
        return client

    @in_namespace(*FIREWALL)
    def test_packets_vanish_and_come_again_after_the_failover(self):
        self.primary_is_cut_off(DROP)

    @in_namespace(*FIREWALL)
    def test_connections_are_refused_until_after_the_failover(self):
        self.primary_is_cut_off(RESET)

    def primary_is_cut_off(self, how):
        client = self.start_warm()
        writer, reader = self.client(), self.client()
        former = self.group.primary()
        cut_port(former.port, how)
        writer.send(b"SET lost v\r\n")
        reader.send(b"GET other\r\n")
        new = self.group.wait_promoted(former)
        promoted = time.monotonic()
        self.assertEqual(b"OK", new.run("SET", "cached", "after"))
        # Somebody on the host of the former goes on there.
        self.assertEqual(b"OK", former.run("SET", "cached", "of the former"))
        self.wait_writes_at(new, client)
        self.assertLess(time.monotonic() - promoted, 1.5 * SLOWNESS)
        self.assertEqual(b"after", client.value("GET", "cached"))
        self.assertTrue(is_error(writer.read_reply()), "nobody knows whether it ran")
        self.assertTrue(reader.read_reply())
        self.wait_event("upstream_failover", upstream=new.port)
        self.group.wait_named(new)
        self.assertEqual(b"master", role(former), "it knows of nothing")
        heal()
        self.nothing_of_the_former_is_served(former, new, client)
        self.wait_failovers(1)

    def nothing_of_the_former_is_served(self, former, new, client):
        """While it still thinks that it is the primary, and while it becomes a replica."""
        asked = calls(former, "get", "set")
        self.group.hurry()
        end = time.monotonic() + 10 * SLOWNESS
        number = 0
        after = None
        while after is None or time.monotonic() < after:
            self.assertLess(time.monotonic(), end, "it becomes a replica")
            self.assertEqual(b"after", client.value("GET", "cached"))
            self.assertEqual(OK, client.command("SET", f"w:{number}", "v"))
            self.assertEqual(b"v", new.run("GET", f"w:{number}"), "acknowledged by somebody else")
            number += 1
            if after is None and role(former) == b"slave":
                after = time.monotonic() + 0.5
            elif after is None:
                now = calls(former, "get", "set")
                if role(former) == b"master":  # A replica does all that the new one does.
                    self.assertEqual(asked, now, "commands of clients go to the former")
            time.sleep(0.005)
        self.assertGreater(number, 20)
        self.assert_served_by(new, client)

    @in_namespace(*FIREWALL)
    def test_a_partition_that_is_over_before_anybody_is_promoted_changes_nothing(self):
        client = self.start_warm(down_after_ms=30000)
        primary = self.group.primary()
        cut_port(primary.port, DROP)
        self.wait_event("upstream_suspect")
        former_hits = self.metric("near_cache_hits_total")
        self.assertEqual(b"OK", primary.run("SET", "cached", "meanwhile"))
        client.send(b"GET cached\r\n")
        self.assertTrue(client.is_silent(0.1) or client.buffer.startswith(b"-UPSTREAM"))
        heal()
        self.assertIn(client.read_reply()[:9], (b"$9\r\nmeanw", b"-UPSTREAM"))
        self.nearkey.wait_ready(5)
        wait_for(lambda: client.value("GET", "cached") == b"meanwhile", 5, "service goes on")
        self.assertGreaterEqual(self.metric("near_cache_hits_total"), former_hits)
        self.assertEqual(0, self.failovers())
        self.assertEqual([], self.events("upstream_failover"))
        store(self.nearkey, client, "GET", "cached")
        self.assertTrue(is_hit(self.nearkey, client, "GET", "cached"))


if __name__ == "__main__":
    unittest.main()
