"""The near cache before a Valkey Cluster: what is stored stays true while slots move, nodes fail over,
freeze, and lose the majority (facts F1, F3 and F6)."""

import random
import signal
import threading
import time
import unittest

from harness import SLOWNESS, proxy_only, wait_for
from near_cache import HITS, explain, store
from resp import encode, parse
from test_cluster import ClusterCase

STALENESS_S = 1.0


@proxy_only
class NodesCase(ClusterCase):
    # So many changes would have every key leave the cache.
    SETTINGS = {"near_cache.thrash_guard": "false"}

    def setUp(self):
        super().setUp()
        self.wait_until_stored()

    def wait_until_stored(self):
        """Each node stores."""
        client = self.client()

        def is_stored(key):
            return explain(client, "GET", key)["cache"] == b"hit" or client.command("GET", key) is None

        for index in range(30):
            wait_for(lambda key=f"warm:{index}": is_stored(key), 10, "each node stores replies")

    def hits(self):
        return self.nearkey.metric(HITS)

    def value(self, client, key):
        return parse(client.command("GET", key))

    def direct(self, key):
        return self.cluster.owner_of(self.cluster.slot_of(key))


@proxy_only
class NodesTest(NodesCase):
    def test_reads_are_hits_and_changes_are_told(self):
        for version in (2, 3):
            client = self.client(version)
            for index in range(60):
                key = f"key:{version}:{index}"
                node = self.direct(key)
                node.run("SET", key, "1")
                self.assertEqual(b"1", self.value(client, key))
                store(self.nearkey, client, "GET", key)
                node.run("SET", key, "2")
                wait_for(lambda: self.value(client, key) == b"2", STALENESS_S, "the change is told")
                client.command("SET", key, "3")
                self.assertEqual(b"3", self.value(client, key))

    def test_a_nil_is_not_served_for_long(self):
        """F1: nobody tells of a key that was not there when its slot moved."""
        client = self.client()
        reader = self.client(3)
        slot = self.cluster.slot_of("{nil}")
        source = self.cluster.owner_of(slot)
        target = next(node for node in self.cluster.nodes if node is not source)
        key = "{nil}key"

        def while_moving():
            with target.client() as direct:
                direct.send(encode("ASKING") + encode("SET", key, "1"))
                self.assertEqual([b"+OK\r\n", b"+OK\r\n"], direct.read_replies(2))
            changed = time.monotonic()
            while self.value(client, key) is None:
                self.assertLess(time.monotonic(), changed + STALENESS_S + 0.2 * SLOWNESS)
                time.sleep(0.005)

        store(self.nearkey, client, "GET", key)
        self.cluster.move(slot, target, while_moving=while_moving)
        self.assertEqual([b"1", b"1"], [self.value(one, key) for one in (client, reader)])

    def test_who_is_sent_on_sees_nothing_older_behind_it(self):
        """N4: another key of the slot was refused by its owner; from then on nothing of it is served."""
        client = self.client(3)
        slot = self.cluster.slot_of("{on}")
        source = self.cluster.owner_of(slot)
        target = next(node for node in self.cluster.nodes if node is not source)

        def while_moving():
            with target.client() as direct:
                for key in ("{on}a", "{on}b"):
                    direct.send(encode("ASKING") + encode("SET", key, "1"))
                    self.assertEqual([b"+OK\r\n", b"+OK\r\n"], direct.read_replies(2))
            self.assertEqual(b"1", self.value(client, "{on}b"))
            self.assertEqual(b"1", self.value(client, "{on}a"))

        store(self.nearkey, client, "GET", "{on}a")
        self.cluster.move(slot, target, while_moving=while_moving)

    def test_nothing_goes_back_while_slots_move(self):
        """Writers count in keys, also directly; readers must never see less than before, nor less than
        what was acknowledged here, and what was changed elsewhere after the bound at last."""
        count = 16
        keys = [f"back:{index}" for index in range(count)]
        slots = sorted({self.cluster.slot_of(key) for key in keys})
        acknowledged = [0] * count
        problems = []
        mover = self.move_for(5 * min(SLOWNESS, 2), slots)
        self.addCleanup(mover.join)

        def write(number):
            draw = random.Random(number)
            client = self.client(2 + number % 2)
            while mover.is_alive():
                index = draw.randrange(number, count, 2)
                reply = client.command("INCR", keys[index])
                if not reply.startswith(b":"):
                    problems.append(reply)
                    return
                acknowledged[index] = int(parse(reply))
                time.sleep(draw.choice((0, 0, 0.002)))

        def read(number):
            draw = random.Random(100 + number)
            client = self.client(2 + number % 2)
            seen = [0] * count
            while mover.is_alive() and not problems:
                index = draw.randrange(count)
                least = max(acknowledged[index], seen[index])
                reply = client.command("GET", keys[index])
                if reply.startswith(b"-"):
                    problems.append(reply)
                    return
                value = int(parse(reply) or 0)
                if value < least:
                    problems.append((keys[index], "seen", value, "after", least))
                seen[index] = value

        threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        threads += [threading.Thread(target=read, args=(number,)) for number in range(4)]
        self.run_beside(mover, threads)
        self.assertEqual([], problems)
        self.assertGreater(self.hits(), 200)
        self.assertGreater(self.moves, 5)

    def test_touch_and_audit_go_to_the_keys_own_node(self):
        self.nearkey.stop()
        self.nearkey = self.start_nearkey(
            self.cluster.url(), directory=self.folder("audited"),
            settings={**self.SETTINGS, "near_cache.audit_ratio": "0.5"})
        self.wait_until_stored()
        client = self.client()
        keys = [f"audited:{index}" for index in range(40)]
        for key in keys:
            client.command("SET", key, "1")

        def is_audited():
            for key in keys:
                client.command("GET", key)
            return self.nearkey.metric("nearkey_near_cache_audits_total") > 200

        wait_for(is_audited, 20, "hits are audited")
        self.assertEqual(0, self.nearkey.metric("nearkey_near_cache_audit_violations_total"))
        self.assertEqual(0, self.redirects())


@proxy_only
class NodesFailoverTest(NodesCase):
    OPTIONS = {"replicas": 1, "node_timeout_ms": 2000 * SLOWNESS}

    def pair(self):
        """A primary, its replica, and keys of theirs."""
        primary = next(node for node in self.cluster.nodes
                       if b"role:master" in node.run("INFO", "replication")
                       and b"connected_slaves:1" in node.run("INFO", "replication"))
        of_primary = b"myself,slave " + self.cluster.id_of(primary)
        replica = next(node for node in self.cluster.nodes
                       if of_primary in node.run("CLUSTER", "NODES"))
        keys = [f"key:{index}" for index in range(60)]
        return primary, replica, [key for key in keys if self.direct(key) is primary]

    def store(self, client, keys, value):
        for key in keys:
            self.assertEqual(b"+OK\r\n", client.command("SET", key, value))
        for _ in range(2):
            for key in keys:
                self.assertEqual(value.encode(), self.value(client, key))

    def test_a_failover_by_plan(self):
        client = self.client()
        _, replica, keys = self.pair()
        self.store(client, keys, "old")
        self.assertEqual(b"OK", replica.run("CLUSTER", "FAILOVER"))
        wait_for(lambda: b"role:master" in replica.run("INFO", "replication"), 10, "it is primary")
        for key in keys:
            self.assertEqual(b"OK", replica.run("SET", key, "new"))
        changed = time.monotonic()
        # What was changed directly is seen within the bound; what is changed here, at once.
        client.command("SET", keys[0], "own")
        self.assertEqual(b"own", self.value(client, keys[0]))
        while {self.value(client, key) for key in keys[1:]} != {b"new"}:
            self.assertLess(time.monotonic(), changed + STALENESS_S + 0.3 * SLOWNESS)
            time.sleep(0.005)
        self.store(client, keys, "stored again")
        store(self.nearkey, client, "GET", keys[0])

    def test_a_primary_that_is_frozen_and_wakes_is_not_believed(self):
        """F3: it answers, with what it had, until the others have told it."""
        client = self.client()
        primary, replica, keys = self.pair()
        self.store(client, keys, "old")
        with primary.client() as direct:
            direct.command("SET", keys[0], "old")
            direct.command("WAIT", "1", "10000", timeout=20)
        primary.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: b"role:master" in replica.run("INFO", "replication"), 20,
                     "the replica takes over")
            wait_for(lambda: client.command("SET", keys[0], "new", timeout=30) == b"+OK\r\n", 20,
                     "nearkey has found it")
            for key in keys:
                self.assertEqual(b"+OK\r\n", client.command("SET", key, "new"))
        finally:
            primary.signal(signal.SIGCONT)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            self.assertEqual({b"new"}, {self.value(client, key) for key in keys})
        self.cluster.wait_until_ok()

    def test_a_primary_without_a_majority_is_not_believed(self):
        """F6: it says PONG for ever, and CLUSTERDOWN to reads; what is stored is not served either."""
        client = self.client()
        primary, _, keys = self.pair()
        self.store(client, keys, "old")
        others = [node for node in self.cluster.nodes if node is not primary]
        for node in others:
            node.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: primary.run("GET", keys[0]) != b"old", 20, "it refuses reads")
            refused = time.monotonic()
            while any(client.command("GET", key, timeout=20).startswith(b"$") for key in keys):
                self.assertLess(time.monotonic(), refused + STALENESS_S + 0.3 * SLOWNESS)
                time.sleep(0.005)
        finally:
            for node in others:
                node.signal(signal.SIGCONT)
        self.cluster.wait_until_ok()
        wait_for(lambda: self.value_or_none(client, keys[0]) == b"old", 20, "it serves again")

    def value_or_none(self, client, key):
        reply = client.command("GET", key, timeout=20)
        return None if reply.startswith(b"-") else parse(reply)


if __name__ == "__main__":
    unittest.main()
