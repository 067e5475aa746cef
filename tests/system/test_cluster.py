"""A Valkey Cluster behind one socket: any client sees one server. Slots that move, nodes that die,
and the order of what a client has sent."""

import contextlib
import os
import random
import signal
import threading
import time
import unittest

from clusters import cluster_of
from harness import SLOWNESS, SystemTest, proxy_only, wait_for
from processes import WORKERS
from resp import encode, mask_ids, parse

REDIRECTS = "nearkey_cluster_redirects_total"


class ClusterCase(SystemTest):
    OPTIONS = {}
    SETTINGS = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster_of(cls, **cls.OPTIONS)

    def setUp(self):
        super().setUp()
        self.cluster.wait_until_ok()
        self.cluster.flush()
        self.nearkey = self.start_nearkey(self.cluster.url(), settings=self.SETTINGS)

    def client(self, version=2):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        if version == 3:
            client.command("HELLO", "3")
        return client

    @staticmethod
    def explain(client, *command):
        said = parse(client.command("NEARKEY", "EXPLAIN", *command))
        return dict(zip(said[::2], said[1::2]))

    def folder(self, name):
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        return path

    def run_beside(self, mover, threads):
        """Until all are over; the mover ends by its time."""
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mover.join()

    @contextlib.contextmanager
    def sent_on_to_frozen(self, client, target, *command):
        """Inside, the command has been sent on to the target, which is frozen."""
        target.signal(signal.SIGSTOP)
        try:
            client.send(encode(*command))
            wait_for(lambda: self.redirects() > 0, 10, "it is sent on")
            yield
        finally:
            target.signal(signal.SIGCONT)

    def send_behind_gate(self, client, commands):
        before = self.nearkey.metric("nearkey_cluster_gate_waits_total")
        client.send(commands)
        wait_for(lambda: self.nearkey.metric("nearkey_cluster_gate_waits_total") > before, 10,
                 "the next one waits")

    def redirects(self):
        metrics = self.nearkey.metrics()
        return sum(value for name, value in metrics.items() if name.startswith(REDIRECTS))

    def move_for(self, seconds, slots):
        """Moves slots to and fro in a thread of its own; join() it."""

        def work():
            end = time.monotonic() + seconds
            draw = random.Random(7)
            rested = {slot: 0.0 for slot in slots}  # since when each may move
            while time.monotonic() < end:
                # None comes back to a node within a pipeline's flight (docs/cluster.md, "Order").
                now = time.monotonic()
                slot = draw.choice(sorted(rested, key=rested.get)[: max(1, len(slots) // 3)])
                if rested[slot] > now:
                    time.sleep(0.01)
                    continue
                self.cluster.move(slot, draw.choice(self.cluster.nodes[:3]))
                rested[slot] = time.monotonic() + 0.1 * SLOWNESS
                self.moves += 1

        self.moves = 0
        thread = threading.Thread(target=work)
        thread.start()
        return thread


@proxy_only
class ClusterTest(ClusterCase):
    def test_keys_of_all_nodes_in_one_pipeline(self):
        for version in (2, 3):
            client = self.client(version)
            count = 3000
            sent = b"".join(encode("SET", f"key:{i}", str(i)) for i in range(count))
            client.send(sent + b"".join(encode("GET", f"key:{i}") for i in range(count)))
            replies = client.read_replies(2 * count)
            self.assertEqual([b"+OK\r\n"] * count, replies[:count])
            self.assertEqual([str(i).encode() for i in range(count)],
                             [parse(reply) for reply in replies[count:]])
        for node in self.cluster.nodes:
            self.assertGreater(node.run("DBSIZE"), 800)

    def test_the_face_of_one_server(self):
        client = self.client(3)
        self.assertIn(b"mode\r\n$10\r\nstandalone\r\n", client.command("HELLO", "3"))
        for command in (("CLUSTER", "SLOTS"), ("CLUSTER", "NODES"), ("ASKING",)):
            self.assertEqual(b"-ERR This instance has cluster support disabled\r\n",
                             client.command(*command))
        self.assertEqual(b"+PONG\r\n", client.command("PING"))
        self.assertEqual(b"$5\r\nhello\r\n", client.command("ECHO", "hello"))

    def test_explain_and_the_list_of_nodes(self):
        client = self.client()
        for key in ("a", "b", "c"):
            slot = self.cluster.slot_of(key)
            owner = f"127.0.0.1:{self.cluster.owner_of(slot).port}".encode()
            wait_for(lambda: self.explain(client, "GET", key)[b"server"] == owner, 10,
                     "this event loop has a connection to the owner")
            self.assertEqual(slot, self.explain(client, "GET", key)[b"slot"])
        _, page = self.nearkey.get("/nodes")
        self.assertEqual(
            {(self.cluster.id_of(node).decode(), f"127.0.0.1:{node.port}", "ready")
             for node in self.cluster.nodes},
            {(node["id"], node["address"], node["state"]) for node in page["nodes"]})
        self.assertEqual(16384, sum(node["slots"] for node in page["nodes"]))
        self.assertEqual(3, self.nearkey.metric("nearkey_cluster_nodes"))
        self.assertEqual(0, self.nearkey.metric("nearkey_cluster_slots_unserved"))

    def test_what_can_not_run_in_parts_is_refused_in_words(self):
        client = self.client()
        for command in (("CLIENT", "TRACKING", "ON"), ("CLIENT", "REPLY", "OFF"),
                        ("CLIENT", "NO-TOUCH", "ON"), ("CLIENT", "CACHING", "YES")):
            self.assertIn(b"needs a connection to one server", client.command(*command), command)
        client.command("MULTI")
        self.assertEqual(b"+QUEUED\r\n", client.command("SET", "k", "1"))
        self.assertTrue(client.command("DBSIZE").startswith(b"-"))
        self.assertTrue(client.command("EXEC").startswith(b"-EXECABORT"))
        self.assertEqual(b"+PONG\r\n", client.command("PING"))

    def test_commands_about_the_connection_are_answered_as_by_one_server(self):
        """Whatever clients send when they connect."""
        server = self.start_server()
        for version in (2, 3):
            ours, theirs = self.client(version), server.client()
            self.addCleanup(theirs.close)
            if version == 3:
                theirs.command("HELLO", "3")
            for command in (
                ("READONLY",), ("READWRITE",), ("READONLY", "x"), ("CLIENT", "CAPA", "redirect"),
                ("CLIENT", "NO-EVICT", "ON"), ("CLIENT", "NO-EVICT", "off"), ("CLIENT", "NO-EVICT", "x"),
                ("CLIENT", "NO-EVICT"), ("CLIENT", "NO-TOUCH", "OFF"), ("CLIENT", "NO-TOUCH", "x"),
                ("CLIENT", "REPLY", "on"), ("CLIENT", "TRACKING", "OFF"), ("CLIENT", "GETREDIR"),
                ("AUTH", "x"), ("AUTH", "default", "x"), ("AUTH", "a", "b", "c"), ("AUTH",),
                ("HELLO", str(version), "AUTH", "default", "x", "SETNAME", "me"), ("CLIENT", "GETNAME"),
                ("HELLO", str(version), "SETNAME", "you", "AUTH", "default", "x"), ("CLIENT", "GETNAME"),
                ("HELLO", str(version), "AUTH", "default", "x", "SETNAME", "a b"), ("CLIENT", "GETNAME"),
                ("HELLO", str(version), "AUTH", "default"), ("HELLO", "4", "AUTH", "default", "x"),
            ):
                self.assertEqual(mask_ids(theirs.command(*command)), mask_ids(ours.command(*command)),
                                 command)
            hello = parse(ours.command("HELLO"))
            number = hello[b"id"] if version == 3 else hello[hello.index(b"id") + 1]
            self.assertEqual(number, parse(ours.command("CLIENT", "ID")))
            # In a pipeline each answer stands where it belongs.
            ours.send(encode("SET", "k", "1") + encode("AUTH", "default", "x") + encode("GET", "k") +
                      encode("CLIENT", "NO-EVICT", "ON") + encode("INCR", "k"))
            self.assertEqual([b"+OK\r\n", b"+OK\r\n", b"$1\r\n1\r\n", b"+OK\r\n", b":2\r\n"],
                             ours.read_replies(5))
            self.assertIn(b"can't be 'other'", ours.command("AUTH", "other", "x"))
            self.assertIn(b"can't be 'other'",
                          ours.command("HELLO", "3", "AUTH", "default", "x", "AUTH", "other", "x"))
            ours.command("MULTI")
            self.assertTrue(ours.command("AUTH", "x").startswith(b"-ERR auth needs"))
            self.assertTrue(ours.command("EXEC").startswith(b"-EXECABORT"))

    def test_passwords_are_judged_by_a_node(self):
        for node in self.cluster.nodes:
            node.run("ACL", "SETUSER", "app", "on", ">right", "~*", "&*", "+@all")
            node.run("ACL", "SETUSER", "someone", "on", ">right", "~*", "&*", "+@all")
            self.addCleanup(node.run, "ACL", "DELUSER", "app", "someone")
        url = self.cluster.url().replace("://", "://app:right@")
        nearkey = self.start_nearkey(url, directory=self.folder("app"))
        wrong = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        for version in (2, 3):
            with nearkey.client() as client:
                self.assertEqual(b"+OK\r\n", client.command("AUTH", "app", "right"))
                self.assertEqual(wrong, client.command("AUTH", "app", "wrong"))
                hello = ("HELLO", str(version), "AUTH", "app")
                self.assertEqual(wrong, client.command(*hello, "wrong"))
                self.assertIn(b"valkey", client.command(*hello, "right"))
                self.assertIn(b"can't be 'someone'", client.command("AUTH", "someone", "right"))
                self.assertIn(b"can't be 'default'", client.command("AUTH", "right"))
                self.assertEqual(b"$3\r\napp\r\n", client.command("ACL", "WHOAMI"))
                self.assertEqual(b"+OK\r\n", client.command("SET", "k", "1"))

    def test_keys_of_several_slots_are_refused_by_the_server(self):
        client = self.client()
        for command in (("MSETNX", "a", "1", "b", "2"), ("RENAME", "a", "b"), ("SINTER", "a", "b")):
            reply = client.command(*command)
            self.assertTrue(reply.startswith(b"-CROSSSLOT"), (command, reply))
        self.assertEqual(b"+OK\r\n", client.command("MSET", "{t}a", "1", "{t}b", "2"))
        self.assertEqual([b"1", b"2"], parse(client.command("MGET", "{t}a", "{t}b")))

    def test_scripts_and_blocking_commands_find_their_node(self):
        for number in range(12):
            client, other = self.client(), self.client()
            key = f"list:{number}"
            client.send(encode("BLPOP", key, "10"))
            wait_for(
                lambda: any(b"blocked_clients:1" in node.run("INFO", "clients")
                            for node in self.cluster.nodes), 5, "it waits")
            self.assertEqual(b":1\r\n", other.command("RPUSH", key, "x"))
            self.assertEqual([key.encode(), b"x"], parse(client.read_reply()))
            script = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
            self.assertEqual(b":5\r\n", client.command("EVAL", script, "1", f"n:{number}", "5"))

    def test_transactions_find_their_node(self):
        for number in range(12):
            client = self.client()
            key = f"{{tag:{number}}}"
            self.assertEqual(b"+OK\r\n", client.command("MULTI"))
            self.assertEqual(b"+QUEUED\r\n", client.command("SET", key + "a", "1"))
            self.assertEqual(b"+QUEUED\r\n", client.command("INCR", key + "a"))
            self.assertEqual(b"*2\r\n+OK\r\n:2\r\n", client.command("EXEC"))
            whole = encode("MULTI") + encode("INCR", key + "b") + encode("EXEC")
            client.send(whole + encode("GET", key + "b"))
            self.assertEqual([b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n:1\r\n", b"$1\r\n1\r\n"],
                             client.read_replies(4))
            self.assertEqual(b"+OK\r\n", client.command("WATCH", key + "b"))
            self.assertEqual(b":2\r\n", self.client().command("INCR", key + "b"))
            client.command("MULTI")
            client.command("SET", key + "b", "7")
            self.assertEqual(b"*-1\r\n", client.command("EXEC"))
        client = self.client()
        client.command("MULTI")
        self.assertEqual(b"+OK\r\n", client.command("DISCARD"))
        self.assertEqual(b"+OK\r\n", client.command("WATCH", "a"))
        self.assertTrue(client.command("GET", "b").startswith(b"-CROSSSLOT"))
        self.assertEqual(b"+OK\r\n", client.command("UNWATCH"))
        # What has no key is queued until the first key says where; behind EXEC all may go elsewhere.
        for number in range(6):
            lines = [("MULTI",), ("PING",), ("SET", f"k:{number}", "1"), ("EXEC",), ("MULTI",),
                     ("INCR", f"l:{number}"), ("EXEC",), ("GET", f"k:{number}"),
                     ("EVAL", "return 1", "1", f"m:{number}")]
            client.send(b"".join(encode(*line) for line in lines))
            self.assertEqual(
                [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n", b"*2\r\n+PONG\r\n+OK\r\n", b"+OK\r\n",
                 b"+QUEUED\r\n", b"*1\r\n:1\r\n", b"$1\r\n1\r\n", b":1\r\n"],
                client.read_replies(len(lines)))
        client.command("MULTI")
        self.assertEqual(b"*0\r\n", client.command("EXEC"))

    def test_a_moved_slot_is_followed_and_nobody_reads_of_it(self):
        client = self.client()
        slot = self.cluster.slot_of("key")
        for target in self.cluster.nodes:
            self.cluster.move(slot, target)
            self.assertEqual(b"+OK\r\n", client.command("SET", "key", str(target.port)))
            self.assertEqual(str(target.port).encode(), parse(client.command("GET", "key")))
            self.assertEqual(str(target.port).encode(), target.run("GET", "key"))

    def test_a_read_of_a_moved_slot_is_followed_however_long_it_is(self):
        """Above upstream.retry_bytes_max it is not kept to be read anew, but to be sent on."""
        client = self.client()
        keys = [f"{{long}}{i:08}" for i in range(8000)]
        client.command("SET", keys[-1], "last")
        slot = self.cluster.slot_of("long")
        target = next(node for node in self.cluster.nodes
                      if node is not self.cluster.owner_of(slot))
        self.cluster.move(slot, target)
        self.assertEqual([None] * 7999 + [b"last"], parse(client.command("MGET", *keys)))
        self.assertGreater(self.redirects(), 0)

    def test_a_slot_that_is_moving(self):
        """Keys that are gone are found by ASK; of two keys at two nodes the server says TRYAGAIN."""
        client = self.client()
        slot = self.cluster.slot_of("{m}")
        source = self.cluster.owner_of(slot)
        target = next(node for node in self.cluster.nodes if node is not source)
        client.command("SET", "{m}there", "1")
        result = {}

        def while_moving():
            client.command("SET", "{m}new", "2")
            result["new"] = target.run("EXISTS", "{m}there")
            result["get"] = [parse(client.command("GET", "{m}new")),
                             parse(client.command("GET", "{m}there"))]
            result["both"] = client.command("MGET", "{m}new", "{m}there", timeout=5)

        self.cluster.move(slot, target, while_moving=while_moving)
        self.assertEqual([b"2", b"1"], result["get"])
        self.assertTrue(result["both"].startswith(b"-TRYAGAIN"), result["both"])
        self.assertEqual([b"2", b"1"], parse(client.command("MGET", "{m}new", "{m}there")))

    def test_nothing_overtakes_what_was_sent_on(self):
        """What the owner has sent on waits at a node that is busy: the next command, which the owner
        would run at once if it had the slot back, is not sent."""
        client = self.client()
        slot = self.cluster.slot_of("{o}")
        source = self.cluster.owner_of(slot)
        target = next(node for node in self.cluster.nodes if node is not source)
        result = {}

        def while_moving():
            with self.sent_on_to_frozen(client, target, "RPUSH", "{o}", "1"):
                self.send_behind_gate(client, encode("RPUSH", "{o}", "2"))
            result["replies"] = client.read_replies(2)

        self.cluster.move(slot, target, while_moving=while_moving)
        self.assertEqual([b":1\r\n", b":2\r\n"], result["replies"])
        self.assertEqual([b"1", b"2"], parse(client.command("LRANGE", "{o}", "0", "-1")))

    def test_increments_are_exact_and_in_order_while_slots_move(self):
        """Each client appends its numbers to lists in pipelines, and counts in keys of all: no number
        is lost, twice or before another, and no redirect is seen."""
        keys = [f"count:{i}" for i in range(12)]
        slots = [self.cluster.slot_of(key) for key in keys]
        seconds = 4 * min(SLOWNESS, 2)
        mover = self.move_for(seconds, slots)
        self.addCleanup(mover.join)
        problems = []
        totals = [[0] * len(keys) for _ in range(6)]

        def work(number):
            draw = random.Random(number)
            client = self.client()
            mine = [f"mine:{number}:{{count:{i}}}" for i in range(len(keys))]
            counts = [0] * len(keys)
            owed = []  # what each batch in flight is to be answered with
            while mover.is_alive() or owed:
                # Several are in flight, so that the next one finds a slot moved while others are owed.
                if len(owed) == 4 or not mover.is_alive():
                    expected = owed.pop(0)
                    replies = client.read_replies(2 * len(expected))
                    if any(not reply.startswith(b":") for reply in replies):
                        problems.append([one for one in replies if not one.startswith(b":")][:3])
                        return
                    lengths = [parse(reply) for reply in replies[1::2]]
                    if lengths != expected:
                        problems.append((number, "expected", expected, "lengths", lengths))
                        return
                    continue
                batch = [draw.randrange(len(keys)) for _ in range(draw.randrange(1, 40))]
                expected = []
                sent = b""
                for key in batch:
                    counts[key] += 1
                    sent += encode("INCR", keys[key])
                    sent += encode("RPUSH", mine[key], str(counts[key]))
                    totals[number][key] += 1
                    expected.append(counts[key])
                client.send(sent)
                owed.append(expected)
            for i, key in enumerate(mine):
                numbers = [int(each) for each in parse(client.command("LRANGE", key, "0", "-1"))]
                if numbers != list(range(1, counts[i] + 1)):
                    problems.append((key, numbers))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        self.run_beside(mover, threads)
        self.assertEqual([], problems)
        client = self.client()
        for i, key in enumerate(keys):
            total = sum(counts[i] for counts in totals)
            self.assertEqual(total, int(parse(client.command("GET", key))), key)
        self.assertGreater(self.moves, 5)
        self.assertGreater(self.redirects(), 0)
        self.assertGreater(self.nearkey.metric("nearkey_cluster_gate_waits_total"), 0)

    def test_a_wrong_url_is_said_in_words(self):
        server = self.start_server(tcp=True)
        nearkey = self.start_nearkey(f"valkey+cluster://127.0.0.1:{server.port}", ready=False,
                                     directory=self.folder("wrong"))
        wait_for(lambda: any(entry["event"] == "cluster_map_refused" for entry in nearkey.logs()),
                 10, "it says why")


@proxy_only
class ClusterFailoverTest(ClusterCase):
    OPTIONS = {"replicas": 1, "node_timeout_ms": 2000 * SLOWNESS}

    def test_a_failover_by_plan_loses_nothing(self):
        client = self.client()
        keys = [f"key:{i}" for i in range(60)]
        for key in keys:
            client.command("SET", key, "0")
        replica = self.cluster.nodes[3]
        self.assertEqual(b"OK", replica.run("CLUSTER", "FAILOVER"))
        for count in range(1, 40):
            client.send(b"".join(encode("INCR", key) for key in keys))
            self.assertEqual([count] * len(keys),
                             [parse(reply) for reply in client.read_replies(len(keys))])
        wait_for(lambda: b"role:master" in replica.run("INFO", "replication"), 10, "it is primary")
        client.send(b"".join(encode("INCR", key) for key in keys))
        self.assertEqual([40] * len(keys),
                         [parse(reply) for reply in client.read_replies(len(keys))])

    def test_a_node_that_dies_costs_the_others_nothing(self):
        dead = next(node for node in self.cluster.nodes
                    if b"role:master" in node.run("INFO", "replication"))
        keys = {key: self.cluster.owner_of(self.cluster.slot_of(key))
                for key in (f"key:{i}" for i in range(40))}
        client = self.client()
        for key in keys:
            client.command("SET", key, "1")
        others = [key for key, owner in keys.items() if owner is not dead]
        lost = [key for key, owner in keys.items() if owner is dead]
        with dead.client() as direct:  # what is not replicated yet would die with it
            direct.command("SET", lost[0], "1")
            self.assertEqual(b":1\r\n", direct.command("WAIT", "1", "10000", timeout=20))
        dead.signal(signal.SIGKILL)
        dead.process.wait(10)
        worst = 0.0
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            begin = time.monotonic()
            for key in others:
                client.command("GET", key)
            worst = max(worst, time.monotonic() - begin)
        self.assertLess(worst, 1 * SLOWNESS)
        # Its replica takes over, and clients only see that it works again.
        def read():
            return {client.command("GET", key) for key in lost}

        end = time.monotonic() + 30 * SLOWNESS
        while (replies := read()) != {b"$1\r\n1\r\n"}:
            self.assertLess(time.monotonic(), end, replies)
            time.sleep(0.02)
        self.assertEqual([b"+OK\r\n"] * len(lost),
                         [client.command("SET", key, "2") for key in lost])
        heir = self.cluster.owner_of(self.cluster.slot_of(lost[0]))
        self.cluster.replace(dead, heir)
        self.cluster.wait_until_ok()


@proxy_only
class WaitingTest(ClusterCase):
    """What waits for a node when its replica takes over, and was never sent, goes there."""
    OPTIONS = {"replicas": 1, "node_timeout_ms": 2000 * SLOWNESS}
    SETTINGS = {"upstream.request_timeout_ms": 100_000, "upstream.queue_timeout_ms": 100_000,
                "upstream.suspect_after_ms": 300}

    def primary(self):
        node = next(node for node in self.cluster.nodes
                    if b"role:master" in node.run("INFO", "replication"))
        return node, next(f"{{{n}}}" for n in range(10_000)
                          if self.cluster.owner_of(self.cluster.slot_of(f"{{{n}}}")) is node)

    def send_to_waiting(self, key):
        """One command for each of some clients."""
        clients = [self.client() for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(encode("APPEND", f"{key}:{number}", "x"))
        return clients

    def check(self, clients):
        self.assertEqual([b":1\r\n"] * len(clients),
                         [client.read_replies(1, timeout=60 * SLOWNESS)[0] for client in clients])
        self.assertGreater(self.nearkey.metric("nearkey_cluster_taken_along_total"), 0)

    def test_behind_a_dead_node(self):
        dead, key = self.primary()
        self.client().command("SET", key, "1")
        dead.signal(signal.SIGKILL)
        dead.process.wait(10)
        wait_for(lambda: self.nearkey.metric("nearkey_cluster_nodes_away") == 1, 10, "it is away")
        flushing = self.client()
        flushing.send(encode("FLUSHALL"))
        self.check(self.send_to_waiting(key))
        # What is for each node is for no other: it waits for its own.
        flushing.socket.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            flushing.socket.recv(1)
        self.cluster.replace(dead, self.cluster.owner_of(self.cluster.slot_of(key)))

    def test_behind_a_frozen_node(self):
        """Of a client that is owed something there nothing goes: it could overtake that."""
        frozen, key = self.primary()
        owed = self.client()
        owed.command("SET", f"{key}:owed", "0")
        probes = [self.client() for _ in range(8)]  # each event loop has some of them
        frozen.signal(signal.SIGSTOP)
        try:
            for client in probes:
                client.send(encode("GET", f"{key}:probe"))
            owed.send(encode("APPEND", f"{key}:owed", "1"))
            wait_for(lambda: (self.nearkey.metric("nearkey_upstream_suspects_total")
                              >= int(WORKERS or 1)), 10, "each event loop suspects it")
            owed.send(encode("APPEND", f"{key}:owed", "2"))
            clients = self.send_to_waiting(key)
            self.check(clients)
        finally:
            frozen.signal(signal.SIGCONT)
        owed.read_replies(2, timeout=60 * SLOWNESS)
        heir = self.cluster.owner_of(self.cluster.slot_of(key))
        wait_for(lambda: b"role:slave" in frozen.run("INFO", "replication"), 20, "it follows")
        # What the woken one ran before it knew is lost; what is left keeps its order.
        self.assertIn(heir.run("GET", f"{key}:owed"),
                      (b"012", b"12", b"01", b"02", b"0", b"1", b"2", None))


if __name__ == "__main__":
    unittest.main()
