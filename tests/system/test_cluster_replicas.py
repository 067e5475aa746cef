"""Reads from the replicas of a cluster (read_from = "replica"): which go there, that they show what
they must, and that no client sees a replica that is frozen, cut off, promoted or gone. Where a
replica's link to its primary is cut it serves on, with what it had: so what is old can be told from
what is new."""

import contextlib
import os
import random
import re
import signal
import tempfile
import threading
import time
import unittest

from clusters import Cluster, address_of
from harness import SLOWNESS, SystemTest, proxy_only, wait_for
from resp import RespClient, encode, parse

BOUND_MS = 1000 * SLOWNESS
DOORS = {
    "replica": 'read_from = "replica"\nnear_cache = false',
    "cached": 'read_from = "replica"',
    "plain": "near_cache = false",
}


def calls_of(node, command="get"):
    """How often clients have called it there; a replica's own primary is none."""
    found = re.search(rb"cmdstat_%s:calls=(\d+)" % command.encode(),
                      node.run("INFO", "commandstats"))
    return int(found[1]) if found else 0


def setUpModule():
    cluster = Cluster(tempfile.mkdtemp(), primaries=3, replicas=1)
    unittest.addModuleCleanup(cluster.stop)
    ReplicaCase.cluster = cluster.start()


class ReplicaCase(SystemTest):
    def setUp(self):
        super().setUp()
        self.cluster.wait_until_ok()
        self.cluster.flush()
        self.nearkey = self.start({})

    def write(self, doors):
        path = os.path.join(self.directory, "nearkey.toml")
        with open(path, "w") as file:
            for name, lines in doors.items():
                file.write(f'[[listener]]\naddress = "{self.path(name)}"\n{lines}\n')
        return path

    def start(self, settings, doors=DOORS, upstream=None):
        return self.start_nearkey(
            upstream or self.cluster.url(), listen=[], args=["--config", self.write(doors)],
            settings={"cluster.replica_lag_max_ms": BOUND_MS,
                      # A replica that has come is in the map soon.
                      "cluster.refresh_interval_ms": 500, **settings})

    def path(self, name):
        return os.path.join(self.directory, f"{name}.sock")

    def door(self, name="replica", version=2, **options):
        client = RespClient(self.path(name), **options)
        self.addCleanup(client.close)
        if version == 3:
            client.command("HELLO", "3")
        return client

    @staticmethod
    def explain(client, *command):
        said = parse(client.command("NEARKEY", "EXPLAIN", *command))
        return said if isinstance(said, dict) else dict(zip(said[::2], said[1::2]))

    def primaries(self):
        return [node for node in self.cluster.nodes
                if node.is_running() and b"role:master" in node.run("INFO", "replication")]

    def replicas(self):
        return [node for node in self.cluster.nodes if node not in self.primaries()]

    def replica_of(self, primary):
        port = b"master_port:%d\r" % primary.port
        return next(node for node in self.replicas() if port in node.run("INFO", "replication"))

    def key_of(self, primary, count=1):
        """Keys of different slots of that node."""
        ranges = [(first, last) for first, last, owner, *_ in primary.run("CLUSTER", "SLOTS")
                  if owner[1] == primary.port]
        keys = []
        for number in range(100000):
            slot = self.cluster.slot_of(f"k{number}")
            if any(first <= slot <= last for first, last in ranges):
                keys.append(f"k{number}")
            if len(keys) == count:
                return keys[0] if count == 1 else keys
        raise AssertionError("the node has no slots")

    def is_read_from(self, client, key):
        return self.explain(client, "GET", key)[b"read_from"] == b"replica"

    def wait_read_from(self, client, key):
        """A replica is known to be up to date: reads are what asks for that."""
        def look():
            client.command("GET", key)
            return self.is_read_from(client, key)

        wait_for(look, 15, "a replica of the key is up to date")

    def at_replicas(self):
        return sum(calls_of(node) for node in self.replicas())

    @contextlib.contextmanager
    def cut_off(self, primary, replica):
        """The replica does not hear of changes any more, and serves on."""
        replica.run("CONFIG", "SET", "masteruser", "nobody", "masterauth", "wrong")
        primary.run("CLIENT", "KILL", "TYPE", "replica")
        wait_for(lambda: b"master_link_status:down" in replica.run("INFO", "replication"), 10,
                 "its link is down")
        try:
            yield
        finally:
            replica.run("CONFIG", "SET", "masteruser", "", "masterauth", "")
            Cluster.wait_until_replicated(replica)


@proxy_only
class ReplicaReadTest(ReplicaCase):
    def test_a_get_without_the_near_cache_goes_to_a_replica(self):
        for version in (2, 3):
            client = self.door(version=version)
            keys = [f"key:{number}" for number in range(300)]
            client.pipeline([("SET", key, key) for key in keys])
            for primary in self.primaries():
                self.wait_read_from(client, self.key_of(primary))
            # Own writes are older than what is known by now.
            wait_for(lambda: all(self.is_read_from(client, key) for key in keys), 15,
                     "replicas have the keys")
            for node in self.cluster.nodes:
                node.run("CONFIG", "RESETSTAT")
            replies = client.pipeline([("GET", key) for key in keys])
            self.assertEqual(keys, [parse(reply).decode() for reply in replies])
            self.assertEqual(len(keys), sum(calls_of(node) for node in self.cluster.nodes))
            self.assertGreater(self.at_replicas(), len(keys) * 9 // 10)
        metrics = self.nearkey.metrics()
        self.assertEqual(3, metrics["nearkey_cluster_replicas"])
        wait_for(lambda: self.nearkey.metric("nearkey_cluster_replicas_proven") == 3, 5,
                 "the gauge says so")
        self.assertGreater(metrics["nearkey_cluster_replica_reads_total"], 500)

    def test_by_default_and_for_what_may_be_stored_only_primaries_are_asked(self):
        reader = self.door()
        key = self.key_of(self.primaries()[0])
        reader.command("SET", key, "1")
        self.wait_read_from(reader, key)
        for node in self.cluster.nodes:
            node.run("CONFIG", "RESETSTAT")
        for name in ("plain", "cached"):
            client = self.door(name)
            for _ in range(20):
                self.assertEqual(b"$1\r\n1\r\n", client.command("GET", key))
        self.assertEqual(0, self.at_replicas())
        cached = self.door("cached")
        self.assertIn(b"only those of primaries", self.explain(cached, "GET", key)[
            b"read_from_reason"])
        self.assertNotIn(b"read_from", self.explain(self.door("plain"), "GET", key))
        # Its reply is never stored.
        cached.command("SADD", f"{{{key}}}set", "m")
        draw = ("SRANDMEMBER", f"{{{key}}}set")
        wait_for(lambda: self.explain(cached, *draw)[b"read_from"] == b"replica", 15, "it may")
        self.assertEqual(b"$1\r\nm\r\n", cached.command(*draw))
        self.assertGreater(sum(calls_of(node, "srandmember") for node in self.replicas()), 0)

    def test_what_is_each_servers_own_is_asked_of_the_primary(self):
        client = self.door()
        key = self.key_of(self.primaries()[0])
        client.command("SADD", key, "m")
        wait_for(lambda: self.explain(client, "SCARD", key)[b"read_from"] == b"replica"
                 or not client.command("SCARD", key), 15, "a replica is up to date")
        for command in (("SSCAN", key, "0"), ("TOUCH", key), ("OBJECT", "FREQ", key),
                        ("MEMORY", "USAGE", key), ("PFCOUNT", key), ("SADD", key, "n"),
                        ("EVAL_RO", "return 1", "1", key), ("DBSIZE",)):
            self.assertEqual(b"primary", self.explain(client, *command)[b"read_from"], command)

    def test_errors_are_those_of_the_primary(self):
        client = self.door()
        key = self.key_of(self.primaries()[0])
        client.command("RPUSH", key, "a")
        wait_for(lambda: self.explain(client, "LLEN", key)[b"read_from"] == b"replica"
                 or not client.command("LLEN", key), 15, "a replica is up to date")
        self.assertEqual(
            b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            client.command("GET", key))
        self.assertEqual([b"*1\r\n$1\r\na\r\n", b":1\r\n"],
                         client.pipeline([("LRANGE", key, "0", "-1"), ("LLEN", key)]))

    def test_a_pipeline_reads_what_it_has_written(self):
        client = self.door()
        keys = self.key_of(self.primaries()[0], 4)
        for key in keys:
            self.wait_read_from(client, key)
        for turn in range(50):
            commands = []
            for key in keys:
                commands += [("GET", key), ("SET", key, f"{turn}a"), ("GET", key),
                             ("SET", key, f"{turn}b"), ("GET", key)]
            values = [parse(reply) for reply in client.pipeline(commands)]
            for place in range(0, len(values), 5):
                before = f"{turn - 1}b".encode() if turn else None
                self.assertEqual(
                    [before, b"OK", f"{turn}a".encode(), b"OK", f"{turn}b".encode()],
                    values[place: place + 5])

    def test_one_client_alone_reads_what_it_has_written(self):
        """Random pipelines against a model, while connections to replicas end at random."""
        draw = random.Random(7)
        keys = self.key_of(self.primaries()[0], 4) + self.key_of(self.primaries()[1], 4)
        for version in (2, 3):
            self.cluster.flush()
            client = self.door(version=version)
            values, end, seen = {}, time.monotonic() + 3, 0
            while time.monotonic() < end:
                commands, expected = [], []
                for _ in range(draw.choice((1, 2, 5, 40))):
                    key = draw.choice(keys)
                    kind = draw.random()
                    if kind < 0.1:
                        values[key] = values.get(key, "") + "x"
                        commands.append(("APPEND", key, "x"))
                        expected.append(len(values[key]))
                    elif kind < 0.12:
                        commands.append(("DEL", *keys))
                        expected.append(len(values))
                        values = {}
                    elif kind < 0.5:
                        commands.append(("STRLEN", key))
                        expected.append(len(values.get(key, "")))
                    else:
                        commands.append(("GET", key))
                        expected.append(values[key].encode() if key in values else None)
                self.assertEqual(expected, [parse(reply) for reply in client.pipeline(commands)])
                seen += len(commands)
                if draw.random() < 0.02:
                    draw.choice(self.replicas()).run("CLIENT", "KILL", "TYPE", "normal")
                # What was written may be proven by then.
                time.sleep(draw.choice((0, 0, 0, 0.3)))
            self.assertGreater(seen, 50)
        self.assertGreater(self.nearkey.metric("nearkey_cluster_replica_reads_total"), 50)

    def test_who_hears_of_a_write_reads_it(self):
        """Over two event loops, by clients of different listeners."""
        self.nearkey.stop()
        self.nearkey = self.start({"server.workers": 2})
        keys = self.key_of(self.primaries()[0], 3)
        self.wait_read_from(self.door(), keys[0])
        told = dict.fromkeys(keys, 0)
        failures = []
        end = time.monotonic() + 3

        def work(number):
            draw = random.Random(number)
            writer, reader = self.door("plain"), self.door(version=2 + number % 2)
            while time.monotonic() < end:
                key = draw.choice(keys)
                if draw.random() < 0.1:
                    told[key] = max(told[key], parse(writer.command("INCR", key)))
                known = told[key]
                seen = int(parse(reader.command("GET", key)) or 0)
                if seen < known:
                    failures.append((key, known, seen))
                time.sleep(draw.choice((0, 0.001, 0.2)))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], failures)
        self.assertGreater(self.nearkey.metric("nearkey_cluster_replica_reads_total"), 20)

    def test_the_table_of_nodes_shows_how_far_they_are(self):
        client = self.door()
        for primary in self.primaries():
            self.wait_read_from(client, self.key_of(primary))
        _, page = self.nearkey.get("/nodes")
        shown = {node["address"]: node for node in page["nodes"]}
        self.assertEqual({address_of(node) for node in self.cluster.nodes}, set(shown))
        for node in self.replicas():
            entry = shown[address_of(node)]
            self.assertEqual(("replica", "ready", 0),
                             (entry["role"], entry["state"], entry["slots"]))
            self.assertLess(entry["lag_seconds"], BOUND_MS / 1000)
        for node in self.primaries():
            self.assertEqual("primary", shown[address_of(node)]["role"])
            self.assertNotIn("lag_seconds", shown[address_of(node)])
        said = self.explain(client, "GET", self.key_of(self.primaries()[0]))
        self.assertEqual(
            [b"replica", address_of(self.replica_of(self.primaries()[0])).encode()],
            [said[b"role"], said[b"server"]])

    def test_nothing_is_asked_while_nothing_is_read(self):
        client = self.door()
        self.wait_read_from(client, self.key_of(self.primaries()[0]))
        replica = self.replica_of(self.primaries()[0])

        def rests():
            before = calls_of(replica, "info")
            time.sleep(0.5)
            # This question is counted, too.
            return calls_of(replica, "info") == before + 1

        self.assertFalse(rests())
        wait_for(rests, 10, "it is left alone")


@proxy_only
class CutOffTest(ReplicaCase):
    """The replica has what it had when its link was cut."""

    def setUp(self):
        super().setUp()
        self.primary = self.primaries()[0]
        self.replica = self.replica_of(self.primary)
        self.client = self.door()

    def test_others_writes_are_seen_within_the_bound(self):
        key = self.key_of(self.primary)
        self.primary.run("SET", key, "old")
        self.wait_read_from(self.client, key)
        with self.cut_off(self.primary, self.replica):
            self.primary.run("SET", key, "new")
            written = time.monotonic()
            values = []
            while time.monotonic() < written + 2 * BOUND_MS / 1000:
                asked = time.monotonic()
                values.append((asked - written, parse(self.client.command("GET", key))))
            late = [at for at, value in values if value != b"new" and at > BOUND_MS / 1000]
            self.assertEqual([], late)
            self.assertEqual(b"new", values[-1][1])
            self.assertIn(b"lag_max_ms", self.explain(self.client, "GET", key)[
                b"read_from_reason"])
        self.wait_read_from(self.client, key)
        self.assertEqual(b"$3\r\nnew\r\n", self.client.command("GET", key))

    def test_own_writes_are_seen_at_once(self):
        """Whichever way they went: by other clients, at other listeners, over all event loops."""
        def one(*command):
            return lambda writer: writer.command(*command)

        def queued(*command):
            return lambda writer: writer.pipeline([("MULTI",), command, ("EXEC",)])

        def step_by_step(*command):
            def run(writer):
                writer.command("MULTI")
                writer.command(*command)
                writer.command("EXEC")

            return run

        def watched(*command):
            def run(writer):
                writer.command("WATCH", command[1])
                step_by_step(*command)(writer)

            return run

        script = "return redis.call('SET', KEYS[1], ARGV[1])"
        ways = [
            lambda key: one("SET", key, "new"),
            lambda key: one("MSET", key, "new", f"{{{key}}}b", "1"),
            lambda key: one("MSET", key, "new", "of another slot", "1"),
            lambda key: one("EVAL", script, "1", key, "new"),
            lambda key: queued("SET", key, "new"),
            lambda key: step_by_step("SET", key, "new"),
            lambda key: watched("SET", key, "new"),
            lambda key: queued("EVAL", script, "1", key, "new"),
            lambda key: one("GETSET", key, "new"),
            lambda key: one("SET", key, "n" + "e" * (2 << 20) + "w"),
            lambda key: one("DEL", key),
            lambda key: one("DEL", key, "of another slot"),
            lambda key: one("FLUSHALL"),
            lambda key: one("RENAME", key, f"{{{key}}}b"),
            lambda key: one("BLMOVE", f"{{{key}}}list", f"{{{key}}}list", "LEFT", "RIGHT", "1"),
        ]
        self.nearkey.stop()
        self.nearkey = self.start({"server.workers": 2, "cluster.replica_lag_max_ms": 60000})
        readers = [self.door() for _ in range(4)]
        writers = [self.door("plain", version=3), self.door("cached"), self.door()]
        keys = self.key_of(self.primary, len(ways))
        for number, way in enumerate(ways):
            key = keys[number]
            self.primary.run("SET", key, "old")
            self.primary.run("RPUSH", f"{{{key}}}list", "1", "2")
            for reader in readers:
                self.wait_read_from(reader, key)
            with self.cut_off(self.primary, self.replica):
                other = keys[(number + 1) % len(keys)]
                for reader in readers:
                    self.assertTrue(self.is_read_from(reader, key), number)
                way(key)(writers[number % len(writers)])
                for reader in readers:
                    self.assertFalse(self.is_read_from(reader, key), number)
                    self.assertEqual(self.primary.run("GET", key), parse(reader.command("GET", key)))
                # Where the keys are known no other slot is concerned.
                if number < 3:
                    self.assertTrue(self.is_read_from(readers[0], other))


@proxy_only
class SilentTest(ReplicaCase):
    def setUp(self):
        super().setUp()
        self.primary = self.primaries()[0]
        self.replica = self.replica_of(self.primary)
        self.addCleanup(self.replica.thaw)

    def read_for(self, client, key, seconds):
        """The longest time that a read took; each shows the value."""
        longest = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            asked = time.monotonic()
            self.assertEqual(b"$1\r\nv\r\n", client.command("GET", key))
            longest = max(longest, time.monotonic() - asked)
        return longest

    def check_silent(self, silence, end):
        clients = [self.door(version=2), self.door(version=3)]
        key = self.key_of(self.primary)
        clients[0].command("SET", key, "v")
        other = self.primaries()[1]
        other_key = self.key_of(other)
        clients[0].command("SET", other_key, "v")
        for client in clients:
            self.wait_read_from(client, key)
            self.wait_read_from(client, other_key)
        silence()
        for client in clients:
            # What was sent there comes from the primary, once it is late.
            self.assertLess(self.read_for(client, key, 3 * SLOWNESS), 2 * BOUND_MS / 1000 + 1)
            self.assertFalse(self.is_read_from(client, key))
            # Nobody else is delayed.
            self.wait_read_from(client, other_key)
            self.assertLess(self.read_for(client, other_key, 1), 0.5 * SLOWNESS)
            self.assertTrue(self.is_read_from(client, other_key))
        end()
        for client in clients:
            self.wait_read_from(client, key)
            self.read_for(client, key, 0.2)

    def test_a_frozen_replica(self):
        self.check_silent(self.replica.freeze, self.replica.thaw)
        self.assertGreater(self.nearkey.metric(
            "nearkey_cluster_reads_away_total"), 0)

    def test_a_paused_replica(self):
        """It hears of changes, and answers nobody, not even who would end the pause."""
        pause_ms = 12000 * SLOWNESS
        ends = []

        def pause():
            self.replica.run("CLIENT", "PAUSE", str(pause_ms), "ALL")
            ends.append(time.monotonic() + pause_ms / 1000)

        self.check_silent(pause, lambda: time.sleep(max(0, ends[0] - time.monotonic())))

    def test_a_replica_that_is_lost_and_comes_back(self):
        client = self.door()
        key = self.key_of(self.primary)
        client.command("SET", key, "v")
        self.wait_read_from(client, key)
        stop = threading.Event()
        failures = []

        def read():
            reader = self.door(version=3)
            while not stop.is_set():
                replies = reader.pipeline([("GET", key)] * 20)
                failures.extend(reply for reply in replies if reply != b"$1\r\nv\r\n")

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            self.replica.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.1)
        self.replica.kill()
        time.sleep(0.5)
        self.cluster.replace(self.replica, self.primary)
        self.wait_read_from(client, key)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual([], failures)

    def test_a_reply_that_takes_longer_than_the_bound(self):
        self.nearkey.stop()
        self.nearkey = self.start({"cluster.replica_lag_max_ms": 100 * SLOWNESS})
        key = self.key_of(self.primary)
        value = "v" * (24 << 20)
        self.primary.run("SET", key, value)
        Cluster.wait_until_replicated(self.replica)
        slow = self.door(receive_buffer=65536)
        self.wait_read_from(self.door(), key)
        wait_for(lambda: self.is_read_from(slow, key), 15, "a replica is up to date")
        slow.send(encode("GET", key))
        time.sleep(1.0 * SLOWNESS)
        self.assertEqual(value.encode(), parse(slow.read_reply(timeout=60)))
        self.assertEqual(b"+PONG\r\n", slow.command("PING"))


@proxy_only
class ChangeTest(ReplicaCase):
    """Slots that move, and a replica that is promoted."""

    def test_a_slot_that_moves(self):
        client = self.door()
        source, target = self.primaries()[:2]
        key = self.key_of(source)
        slot = self.cluster.slot_of(key)
        client.command("SET", key, "v")
        client.command("SET", f"{{{key}}}b", "v")
        self.wait_read_from(client, key)
        target.run("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.cluster.id_of(source))
        source.run("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.cluster.id_of(target))
        source.run("MIGRATE", target.bind, str(target.port), "", "0", "5000", "KEYS", key)
        # The source's replica says ASK; no client reads that, nor a nil.
        for _ in range(50):
            self.assertEqual([b"$1\r\nv\r\n", b"$1\r\nv\r\n"],
                             client.pipeline([("GET", key), ("GET", f"{{{key}}}b")]))
            time.sleep(0.01)
        # It goes on to the end.
        self.cluster.move(slot, target)
        self.wait_read_from(client, key)
        self.assertEqual([b"$1\r\nv\r\n", b"$1\r\nv\r\n"],
                         client.pipeline([("GET", key), ("GET", f"{{{key}}}b")]))

    def test_a_move_back_and_forth(self):
        client = self.door()
        nodes = self.primaries()[:2]
        key = self.key_of(nodes[0])
        slot = self.cluster.slot_of(key)
        client.command("SET", key, "v")
        for target in (nodes[1], nodes[0]):
            self.wait_read_from(client, key)
            stop = threading.Event()
            failures = []

            def read():
                reader = self.door(version=3)
                while not stop.is_set():
                    failures.extend(reply for reply in reader.pipeline([("GET", key)] * 10)
                                    if reply != b"$1\r\nv\r\n")

            thread = threading.Thread(target=read)
            thread.start()
            self.cluster.move(slot, target)
            self.wait_read_from(client, key)
            stop.set()
            thread.join()
            self.assertEqual([], failures)
            said = self.explain(client, "GET", key)
            self.assertEqual(address_of(self.replica_of(target)).encode(), said[b"server"])

    def test_a_replica_that_is_promoted(self):
        client = self.door()
        primary = self.primaries()[0]
        replica = self.replica_of(primary)
        key = self.key_of(primary)
        client.command("SET", key, "v0")
        self.wait_read_from(client, key)
        stop = threading.Event()
        failures = []

        def write_and_read():
            writer, reader = self.door("plain"), self.door(version=3)
            number = 0
            while not stop.is_set():
                number += 1
                written = writer.command("SET", key, f"v{number}")
                if written != b"+OK\r\n":
                    # A write in flight may be lost; whether it has run is not known.
                    failures.extend([] if b"UPSTREAMLOST" in written else [written])
                    continue
                seen = parse(reader.command("GET", key))
                if seen != f"v{number}".encode():
                    failures.append((number, seen))

        thread = threading.Thread(target=write_and_read)
        thread.start()
        assert replica.run("CLUSTER", "FAILOVER") == b"OK"
        wait_for(lambda: self.cluster.owner_of(self.cluster.slot_of(key), replica) is replica, 20,
                 "it is promoted")
        Cluster.wait_until_replicated(primary)
        stop_at = time.monotonic() + 1
        while time.monotonic() < stop_at:
            client.command("GET", key)
        stop.set()
        thread.join()
        self.assertEqual([], failures)
        self.wait_read_from(client, key)
        self.assertEqual(address_of(primary).encode(), self.explain(client, "GET", key)[b"server"])


@proxy_only
class AccessTest(ReplicaCase):
    """The nodes get a new password, and nearkey with a reload."""

    def test_a_new_password(self):
        secret = os.path.join(self.directory, "password")
        with open(secret, "w") as file:
            file.write("")
        self.nearkey.stop()
        for node in self.cluster.nodes:
            node.run("ACL", "SETUSER", "cacher", "on", ">one", "~*", "&*", "+@all")
        with open(secret, "w") as file:
            file.write("one\n")
        os.chmod(secret, 0o600)
        self.nearkey = self.start({"upstream.username": "cacher",
                                   "upstream.password_file": secret})
        client = self.door()
        key = self.key_of(self.primaries()[0])
        client.command("SET", key, "v")
        self.wait_read_from(client, key)
        for node in self.cluster.nodes:
            node.run("ACL", "SETUSER", "cacher", "resetpass", ">two")
        with open(secret, "w") as file:
            file.write("two\n")
        self.nearkey.signal(signal.SIGHUP)
        wait_for(lambda: any(entry["event"] == "reloaded" for entry in self.nearkey.logs()), 10,
                 "it has read the new one")
        replica = self.replica_of(self.primaries()[0])
        replica.run("CLIENT", "KILL", "USER", "cacher")
        self.assertEqual(b"$1\r\nv\r\n", client.command("GET", key))
        self.wait_read_from(client, key)


@proxy_only
class OptionTest(ReplicaCase):
    def test_a_server_that_is_no_cluster(self):
        self.nearkey.stop()
        server = self.start_server()
        self.nearkey = self.start({}, upstream=server.url)
        self.nearkey.wait_logged("replicas_not_read")
        client = self.door()
        self.assertEqual([b"+OK\r\n", b"$1\r\nv\r\n"],
                         client.pipeline([("SET", "k", "v"), ("GET", "k")]))
        self.assertNotIn(b"read_from", self.explain(client, "GET", "k"))
        self.assertEqual(1, len([entry for entry in self.nearkey.logs()
                                 if entry["event"] == "replicas_not_read"]))

    def reload(self, doors):
        before = len(self.nearkey.logs())
        self.write(doors)
        self.nearkey.signal(signal.SIGHUP)
        wait_for(lambda: any(entry["event"].startswith("reload")
                             for entry in self.nearkey.logs()[before:]), 10, "it has read it")
        return next(entry for entry in self.nearkey.logs()[before:]
                    if entry["event"].startswith("reload"))

    def test_a_reload_adds_no_first_listener_that_reads_from_replicas(self):
        self.nearkey.stop()
        self.nearkey = self.start({}, doors={"plain": DOORS["plain"]})
        said = self.reload({name: DOORS[name] for name in ("plain", "replica")})
        self.assertEqual("reload_refused", said["event"])
        self.assertIn("needs a restart", said["reason"])
        _, page = self.nearkey.get("/nodes")
        self.assertEqual(3, page["total"])

    def test_a_reload_adds_another(self):
        self.nearkey.stop()
        self.nearkey = self.start({}, doors={"replica": DOORS["replica"]})
        added = {"replica": "near_cache = false", "plain": DOORS["replica"]}
        self.assertEqual("reloaded", self.reload(added)["event"])
        key = self.key_of(self.primaries()[0])
        self.wait_read_from(self.door("plain"), key)
        self.assertNotIn(b"read_from", self.explain(self.door("replica"), "GET", key))


if __name__ == "__main__":
    unittest.main()
