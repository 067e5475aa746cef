"""Commands that span slots and nodes of a Valkey Cluster: answered as by one server."""

import random
import signal
import threading
import time
import unittest

from clusters import cluster_of
from harness import SLOWNESS, proxy_only, show_figure, wait_for
from resp import encode, parse
from test_cluster import ClusterCase

SCRIPT = "return redis.call('GET', KEYS[1])"


class PartsCase(ClusterCase):
    def setUp(self):
        super().setUp()
        self.one = self.start_server(directory=self.directory)

    def start_nearkey_with(self, **settings):
        self.nearkey.stop()
        self.nearkey = self.start_nearkey(self.cluster.url(), settings=settings)

    def direct(self, version=2):
        client = self.one.client()
        self.addCleanup(client.close)
        if version == 3:
            client.command("HELLO", "3")
        return client

    def owner(self, key):
        return self.cluster.owner_of(self.cluster.slot_of(key))

    def key_of(self, node, prefix="k"):
        return next(key for key in (f"{prefix}{i}" for i in range(10000)) if self.owner(key) is node)

    @staticmethod
    def scan(client, *options, page=10):
        """All keys that SCAN returns, each as often as it does, and the number of pages."""
        cursor, keys, pages = b"0", [], 0
        while True:
            reply = parse(client.command("SCAN", cursor, "COUNT", str(page), *options))
            assert isinstance(reply, list), reply
            cursor = reply[0]
            keys += reply[1]
            pages += 1
            if cursor == b"0":
                return keys, pages


def keys_of(draw, count):
    """Some twice, some of one slot."""
    keys = [f"key:{draw.randrange(60)}" for _ in range(draw.randrange(1, count))]
    if draw.random() < 0.3:
        keys += [f"{{tag}}{draw.randrange(5)}" for _ in range(draw.randrange(4))]
    draw.shuffle(keys)
    return keys


def generated(draw):
    """A command whose reply is the same, byte for byte, on one server and on a cluster."""
    keys = keys_of(draw, 30)
    kind = draw.randrange(12)
    if kind == 0:
        return ("MSET", *[word for key in keys for word in (key, draw.randbytes(draw.randrange(40)))])
    if kind == 1:
        return ("MGET", *keys)
    if kind < 6:
        return (("EXISTS", "DEL", "UNLINK", "TOUCH")[kind - 2], *keys)
    if kind == 6:
        return ("SET", keys[0], draw.randbytes(draw.choice((0, 10, 30000))))
    if kind == 7:
        return ("RPUSH", f"list:{draw.randrange(3)}", "x")
    if kind == 8:
        return ("MGET", *keys, f"list:{draw.randrange(3)}")
    return (("DBSIZE",), ("PING",), ("MSET", "a", "1", "b"))[kind - 9]


@proxy_only
class PartsTest(PartsCase):
    def test_generated_commands_are_answered_as_by_one_server(self):
        for version in (2, 3):
            draw = random.Random(version)
            client, direct = self.client(version), self.direct(version)
            for _ in range(60):
                batch = [generated(draw) for _ in range(draw.randrange(1, 30))]
                sent = b"".join(encode(*command) for command in batch)
                client.send(sent)
                direct.send(sent)
                for command in batch:
                    expected, reply = direct.read_reply(), client.read_reply()
                    self.assertEqual(expected[:300], reply[:300], str(command)[:300])
                    self.assertEqual(expected, reply)
            self.assertEqual(sorted(parse(direct.command("KEYS", "*"))),
                             sorted(parse(client.command("KEYS", "*"))))
            self.assertEqual(sorted(parse(direct.command("KEYS", "key:1*"))),
                             sorted(parse(client.command("KEYS", "key:1*"))))
            for command in (("FLUSHALL",), ("DBSIZE",), ("RANDOMKEY",), ("KEYS", "*")):
                self.assertEqual(direct.command(*command), client.command(*command))
        self.assertGreater(self.nearkey.metric("nearkey_cluster_commands_split_total"), 100)
        self.assertGreater(self.nearkey.metric("nearkey_cluster_parts_total"),
                           5 * self.nearkey.metric("nearkey_cluster_commands_split_total"))
        self.assertEqual(0, self.redirects())

    def test_explain_says_that_it_is_not_atomic(self):
        client = self.client()
        told = self.explain(client, "MGET", "a", "b", "a")
        self.assertEqual((2, b"no"), (told[b"parts"], told[b"atomic"]))
        told = self.explain(client, "DBSIZE")
        self.assertEqual((3, b"no"), (told[b"parts"], told[b"atomic"]))
        said = self.explain(client, "MGET", "{t}a", "{t}b")
        self.assertEqual((1, b"yes"), (said[b"parts"], said[b"atomic"]))
        self.assertEqual(1, self.explain(client, "MSETNX", "a", "1", "b", "2")[b"parts"])

    def test_mset_may_be_left_to_the_server(self):
        self.start_nearkey_with(**{"cluster.split_mset": "false"})
        client = self.client()
        self.assertTrue(client.command("MSET", "a", "1", "b", "2").startswith(b"-CROSSSLOT"))
        self.assertEqual(b"+OK\r\n", client.command("MSET", "{t}a", "1", "{t}b", "2"))
        self.assertEqual(b":0\r\n", client.command("DEL", "a", "b"))

    def test_every_node_knows_scripts_and_functions(self):
        client = self.client()
        sha = parse(client.command("SCRIPT", "LOAD", SCRIPT))
        for node in self.cluster.nodes:
            self.assertEqual([1], node.run("SCRIPT", "EXISTS", sha))
        self.assertEqual(b"*2\r\n:1\r\n:0\r\n", client.command("SCRIPT", "EXISTS", sha, "0" * 40))
        for i in range(20):
            self.assertEqual(b"$-1\r\n", client.command("EVALSHA", sha, "1", f"key:{i}"))
        self.cluster.nodes[1].run("SCRIPT", "FLUSH")
        self.assertEqual(b"*1\r\n:0\r\n", client.command("SCRIPT", "EXISTS", sha))
        self.assertEqual(b"+OK\r\n", client.command("SCRIPT", "FLUSH"))
        for node in self.cluster.nodes:
            self.assertEqual([0], node.run("SCRIPT", "EXISTS", sha))
        for wrong in ("return ((", "x\r\n:1\r\n+OK\r\n"):
            self.assertEqual(self.direct().command("SCRIPT", "LOAD", wrong),
                             client.command("SCRIPT", "LOAD", wrong))
        library = "#!lua name=lib\nredis.register_function('f', function() return 7 end)"
        self.assertEqual(b"$3\r\nlib\r\n", client.command("FUNCTION", "LOAD", library))
        for i in range(20):
            self.assertEqual(b":7\r\n", client.command("FCALL", "f", "1", f"key:{i}"))
        self.assertIn(b"already exists", client.command("FUNCTION", "LOAD", library))
        dump = parse(client.command("FUNCTION", "DUMP"))
        self.assertEqual(b"+OK\r\n", client.command("FUNCTION", "FLUSH"))
        self.assertEqual(b"*0\r\n", client.command("FUNCTION", "LIST"))
        self.assertEqual(b"+OK\r\n", client.command("FUNCTION", "RESTORE", dump))
        for node in self.cluster.nodes:
            self.assertEqual(1, len(node.run("FUNCTION", "LIST")))
        self.assertEqual(b"+OK\r\n", client.command("FUNCTION", "DELETE", "lib"))
        for node in self.cluster.nodes:
            self.assertEqual([], node.run("FUNCTION", "LIST"))
        self.assertEqual(b"+PONG\r\n", client.command("PING"))

    def test_a_script_is_killed_wherever_it_runs(self):
        client, other = self.client(), self.client()
        self.assertTrue(client.command("SCRIPT", "KILL").startswith(b"-NOTBUSY"))
        for node in self.cluster.nodes:
            node.run("CONFIG", "SET", "busy-reply-threshold", "50")
            key = self.key_of(node)
            other.send(encode("EVAL", "while true do redis.call('GET', KEYS[1]) end", "1", key))
            wait_for(lambda: client.command("SCRIPT", "KILL") == b"+OK\r\n", 10, "it is killed")
            self.assertIn(b"Script killed", other.read_reply())

    def test_randomkey_finds_the_only_key_wherever_it_is(self):
        client = self.client()
        for node in self.cluster.nodes:
            client.command("FLUSHALL")
            key = self.key_of(node)
            client.command("SET", key, "1")
            self.assertEqual(key.encode(), parse(client.command("RANDOMKEY")))

    def test_channels_of_all_nodes(self):
        subscribers = [node.client() for node in self.cluster.nodes]
        for number, subscriber in enumerate(subscribers):
            self.addCleanup(subscriber.close)
            subscriber.command("SUBSCRIBE", "all")
            subscriber.command("SUBSCRIBE", f"own:{number}")
            subscriber.command("PSUBSCRIBE", f"p{number}*")
        client = self.client()
        self.assertEqual([b"all", b"own:0", b"own:1", b"own:2"],
                         sorted(parse(client.command("PUBSUB", "CHANNELS"))))
        self.assertEqual([b"own:2"], parse(client.command("PUBSUB", "CHANNELS", "*2")))
        self.assertEqual([b"all", 3, b"own:1", 1, b"none", 0],
                         parse(client.command("PUBSUB", "NUMSUB", "all", "own:1", "none")))
        self.assertEqual(3, parse(client.command("PUBSUB", "NUMPAT")))
        with self.owner("shard").client() as sharded:
            sharded.command("SSUBSCRIBE", "shard")
            self.assertEqual([b"shard"], parse(client.command("PUBSUB", "SHARDCHANNELS")))
            self.assertEqual([b"shard", 1, b"none", 0],
                             parse(client.command("PUBSUB", "SHARDNUMSUB", "shard", "none")))

    def test_ten_thousand_keys_and_the_cost_of_a_hundred(self):
        client = self.client()
        keys = [f"key:{i}" for i in range(10000)]
        self.assertEqual(b"+OK\r\n", client.command(
            "MSET", *[word for key in keys for word in (key, key * 3)]))
        self.assertEqual([(key * 3).encode() for key in keys], parse(client.command("MGET", *keys)))
        self.assertEqual(b":10000\r\n", client.command("DBSIZE"))
        self.assertEqual(sorted(key.encode() for key in keys), sorted(parse(client.command("KEYS", "*"))))
        self.assertEqual(b":10000\r\n", client.command("EXISTS", *keys))
        times = {}
        for name, some in (("100 slots", keys[:100]), ("one slot", ["{t}" + key for key in keys[:100]])):
            sent = encode("MGET", *some)
            begin = time.monotonic()
            for _ in range(50):
                client.send(sent)
                client.read_reply()
            times[name] = (time.monotonic() - begin) * 20
        show_figure(f"MGET of 100 keys: {times['100 slots']:.2f} ms in parts, {times['one slot']:.2f} "
                    "ms of one slot")
        self.assertLess(times["100 slots"], 50 * SLOWNESS)
        self.assertEqual(b":10000\r\n", client.command("DEL", *keys))
        self.assertEqual(b":0\r\n", client.command("DBSIZE"))

    def test_more_than_a_client_may_hold_is_said_in_words(self):
        self.start_nearkey_with(**{"limits.output_per_client_max": 60_000,
                                   "limits.output_per_client_high_water": 50_000})
        client = self.client()
        for i in range(0, 4000, 500):
            client.command("MSET", *[word for n in range(i, i + 500)
                                     for word in (f"a-long-name-of-a-key:{n}", "1")])
        reply = client.command("KEYS", "*")
        self.assertIn(b"larger than limits.output_per_client_max", reply)
        self.assertEqual(4000, len(set(self.scan(client, page=200)[0])))
        self.assertIn(b"COUNT is too large", client.command("SCAN", "0", "COUNT", "1000000"))
        self.assertEqual(b":4000\r\n", client.command("DBSIZE"))

    def test_clients_that_leave_in_the_middle_leave_nothing(self):
        keys = [f"key:{i}" for i in range(500)]
        self.client().command("MSET", *[word for key in keys for word in (key, "x" * 1000)])
        for number in range(40):
            with self.nearkey.client() as client:
                client.send(encode("MGET", *keys) * 5 + encode("KEYS", "*") +
                            encode("SCAN", "0", "COUNT", "1000") * 3 + encode("SCRIPT", "LOAD", SCRIPT))
                if number % 2 == 0:
                    client.socket.recv(1000)
        wait_for(lambda: self.nearkey.metric("nearkey_clients") <= 1, 10, "they are gone")
        wait_for(lambda: self.nearkey.metric("nearkey_tombstones") == 0, 10, "no reply is awaited")
        self.assertEqual(b":500\r\n", self.client().command("DBSIZE"))

    def test_a_node_that_is_silent_is_named(self):
        keys = [self.key_of(node) for node in self.cluster.nodes]
        self.start_nearkey_with(**{
            "upstream.request_timeout_ms": 400, "upstream.tombstone_timeout_ms": 20000,
            "upstream.heartbeat_interval_ms": 10000, "upstream.unready_after_ms": 30000,
            "upstream.suspect_after_ms": 0})
        client = self.client()
        self.assertEqual(b"+OK\r\n", client.command("MSET", *[word for key in keys for word in (key, "1")]))
        frozen = self.cluster.nodes[1]
        frozen.signal(signal.SIGSTOP)
        try:
            for command in (("MSET", *[word for key in keys for word in (key, "2")]), ("DBSIZE",)):
                reply = client.command(*command)
                self.assertEqual(
                    f"-UPSTREAMTIMEOUT 2 of 3 parts were answered, node 127.0.0.1:{frozen.port} did not "
                    "answer in time; may have run in part\r\n".encode(), reply)
        finally:
            frozen.signal(signal.SIGCONT)
        wait_for(lambda: client.command("DBSIZE") == b":3\r\n", 10, "all answer again")
        self.assertEqual([b"2"] * 3, parse(client.command("MGET", *keys)))


@proxy_only
class ScanTest(PartsCase):
    def test_each_key_once_with_every_option(self):
        client = self.client()
        draw = random.Random(1)
        for count in (0, 1, 7, 300, 3000):
            client.command("FLUSHALL")
            keys = {f"key:{draw.randrange(10**6)}".encode() for _ in range(count)}
            keys |= {f"{{t}}{i}".encode() for i in range(count)}
            if keys:
                client.command("MSET", *[word for key in keys for word in (key, "1")])
            for page in (10, 100, 10000):
                found, _ = self.scan(client, page=page)
                self.assertEqual(sorted(keys), sorted(found))
            client.command("RPUSH", "list", "x")
            self.assertEqual([b"list"], self.scan(client, "TYPE", "list")[0])
            matching = sorted(key for key in keys if key.startswith(b"key:1"))
            self.assertEqual(matching, sorted(self.scan(client, "MATCH", "key:1*")[0]))
            tagged = sorted(key for key in keys if key.startswith(b"{t}1"))
            self.assertEqual(tagged, sorted(self.scan(client, "MATCH", "{t}1*")[0]))
        for command in (("SCAN", "x"), ("SCAN", "0", "MATCH"), ("SCAN", "-1"), ("SCAN", "0", "COUNT", "0")):
            self.assertEqual(self.direct().command(*command), client.command(*command))

    def test_a_slot_that_stays_half_moved_is_passed(self):
        """A move that was given up, or that takes hours: some keys are here, some there."""
        client = self.client()
        slot = self.cluster.slot_of("t")
        source = self.cluster.owner_of(slot)
        target = next(node for node in self.cluster.nodes if node is not source)
        keys = {f"{{t}}{i}".encode() for i in range(40)} | {f"key:{i}".encode() for i in range(100)}
        client.command("MSET", *[word for key in keys for word in (key, "1")])

        def scan():
            for there in (20, 0, 20):  # So many keys more go there in each round.
                moving = source.run("CLUSTER", "GETKEYSINSLOT", str(slot), str(there))
                if moving:
                    source.run("MIGRATE", target.bind, str(target.port), "", "0", "5000", "KEYS",
                               *moving)
                for page in (3, 10, 1000):
                    cursor, found = b"0", []
                    for _ in range(200):
                        cursor, some = parse(client.command("SCAN", cursor, "COUNT", str(page)))
                        found += some
                        if cursor == b"0":
                            break
                    self.assertEqual(b"0", cursor, f"200 pages of {page}, {len(found)} keys")
                    self.assertEqual(keys, set(found))

        self.cluster.move(slot, target, while_moving=scan)
        self.cluster.move(slot, source)

    def test_every_key_is_found_while_slots_move(self):
        """Slots of many keys and slots of few, in pages that end within a slot."""
        client = self.client()
        keys = {f"{{count:{i}}}{j}".encode() for i in range(8) for j in range((1, 40, 400)[i % 3])}
        keys |= {f"key:{i}".encode() for i in range(500)}
        client.command("MSET", *[word for key in keys for word in (key, "1")])
        mover = self.move_for(5 * min(SLOWNESS, 2), [self.cluster.slot_of(f"count:{i}") for i in range(8)])
        self.addCleanup(mover.join)
        draw = random.Random(3)
        problems, scans = [], [0]

        def work(number):
            mine = self.client()
            while mover.is_alive() and not problems:
                found = set()
                cursor = b"0"
                while True:
                    reply = parse(mine.command("SCAN", cursor, "COUNT", str(draw.choice((5, 20, 100)))))
                    if not isinstance(reply, list):
                        problems.append(reply)
                        return
                    cursor = reply[0]
                    found |= set(reply[1])
                    if cursor == b"0":
                        break
                if found != keys:
                    problems.append((number, len(keys - found), sorted(keys - found)[:3]))
                scans[0] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        self.run_beside(mover, threads)
        self.assertEqual([], problems)
        self.assertGreater(self.moves, 5)
        self.assertGreater(scans[0], 2)


@proxy_only
class MovingTest(PartsCase):
    def test_parts_are_right_while_their_slots_move(self):
        """Each client writes and reads its own keys of all slots in parts, and counts in others."""
        tags = [f"count:{i}" for i in range(12)]
        seconds = 4 * min(SLOWNESS, 2)
        mover = self.move_for(seconds, [self.cluster.slot_of(tag) for tag in tags])
        self.addCleanup(mover.join)
        problems, totals = [], [0] * len(tags)
        lock = threading.Lock()

        def work(number):
            draw = random.Random(number)
            client = self.client(2 + number % 2)
            keys = [f"mine:{number}:{{{tag}}}" for tag in tags]
            held = {}
            while mover.is_alive() and not problems:
                batch, expected = [], []
                for _ in range(draw.randrange(1, 12)):
                    some = draw.sample(keys, draw.randrange(2, len(keys)))
                    kind = draw.randrange(5)
                    if kind == 0:
                        values = {key: b"%d" % draw.randrange(10**6) for key in some}
                        batch.append(("MSET", *[word for pair in values.items() for word in pair]))
                        expected.append(b"OK")
                        held.update(values)
                    elif kind == 1:
                        batch.append(("MGET", *some))
                        expected.append([held.get(key) for key in some])
                    elif kind == 2:
                        batch.append(("DEL", *some))
                        expected.append(sum(held.pop(key, None) is not None for key in some))
                    elif kind == 3:
                        batch.append(("EXISTS", *some))
                        expected.append(sum(key in held for key in some))
                    else:
                        tag = draw.randrange(len(tags))
                        batch.append(("INCR", f"{{{tags[tag]}}}"))
                        expected.append(None)
                        with lock:
                            totals[tag] += 1
                client.send(b"".join(encode(*command) for command in batch))
                replies = [parse(reply) for reply in client.read_replies(len(batch))]
                for command, right, reply in zip(batch, expected, replies):
                    wrong = not isinstance(reply, int) if right is None else reply != right
                    if wrong:
                        problems.append((command, right, reply))
                        return

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        self.run_beside(mover, threads)
        self.assertEqual([], problems[:2])
        client = self.client()
        self.assertEqual([str(total).encode() for total in totals],
                         [value or b"0" for value in parse(client.command("MGET", *[f"{{{tag}}}" for tag in tags]))])
        self.assertGreater(self.moves, 5)
        self.assertGreater(self.redirects(), 0)


    def test_nothing_is_overtaken_by_a_command_about_all_nodes(self):
        """A write that was sent on waits at a node that is busy: FLUSHALL, which the others would run
        at once, is not sent, and what is behind it waits for it."""
        client = self.client()
        for i in range(30):
            client.command("SET", f"key:{i}", "1")
        slot = self.cluster.slot_of("{o}")
        source = self.cluster.owner_of(slot)
        target, other = [node for node in self.cluster.nodes if node is not source]
        result = {}

        def while_moving():
            with self.sent_on_to_frozen(client, target, "RPUSH", "{o}", "1"):
                client.send(encode("FLUSHALL") + encode("SET", "{o}n", "2") + encode("DBSIZE"))
                time.sleep(0.2)
                result["before"] = (source.run("DBSIZE"), other.run("DBSIZE"))
            result["replies"] = client.read_replies(4)

        self.cluster.move(slot, target, while_moving=while_moving)
        self.assertGreater(min(result["before"]), 0)
        self.assertEqual([b":1\r\n", b"+OK\r\n", b"+OK\r\n", b":1\r\n"], result["replies"])
        self.assertEqual([b"{o}n"], parse(client.command("KEYS", "*")))

    def test_nothing_is_run_before_a_command_about_all_nodes_is_answered(self):
        client = self.client()
        frozen, other = self.cluster.nodes[:2]
        key = self.key_of(other)
        self.assertEqual(b"$-1\r\n", client.command("GET", key))
        frozen.signal(signal.SIGSTOP)
        try:
            client.send(encode("FLUSHALL") + encode("SET", key, "1"))
            time.sleep(0.3)
            self.assertEqual(0, other.run("EXISTS", key))
        finally:
            frozen.signal(signal.SIGCONT)
        self.assertEqual([b"+OK\r\n"] * 2, client.read_replies(2))

    def test_a_part_waits_for_its_slot_as_any_command_does(self):
        client = self.client()
        slot = self.cluster.slot_of("{o}")
        source = self.cluster.owner_of(slot)
        target, other = [node for node in self.cluster.nodes if node is not source]
        there = self.key_of(other)
        result = {}

        def while_moving():
            with self.sent_on_to_frozen(client, target, "SET", "{o}", "1"):
                self.send_behind_gate(client, encode("MSET", there, "2", "{o}", "2"))
                # No part has gone before the others may.
                result["there"] = other.run("EXISTS", there)
            result["replies"] = client.read_replies(2)

        self.cluster.move(slot, target, while_moving=while_moving)
        self.assertEqual(0, result["there"])
        self.assertEqual([b"+OK\r\n", b"+OK\r\n"], result["replies"])
        self.assertEqual([b"2", b"2"], parse(client.command("MGET", "{o}", there)))

    def test_keys_of_a_slot_that_is_moving_are_tried_again(self):
        """Some keys are here, some there: the server says TRYAGAIN until all are at one node."""
        client = self.client()
        # The part of "a" is the last: what is behind that counts, not what is behind each part.
        tag = next(f"{{{i}}}" for i in range(100)
                   if self.cluster.slot_of(f"{i}") < self.cluster.slot_of("a"))
        slot = self.cluster.slot_of(tag)
        source = self.cluster.owner_of(slot)
        target = next(node for node in self.cluster.nodes if node is not source)
        client.command("MSET", tag + "1", "1", "a", "2")
        before = self.nearkey.metric("nearkey_cluster_delayed_total")

        def while_moving():
            client.command("SET", tag + "2", "3")
            client.send(encode("MGET", tag + "1", "a", tag + "2"))
            wait_for(lambda: self.nearkey.metric("nearkey_cluster_delayed_total") > before, 10,
                     "it is tried again")

        self.cluster.move(slot, target, while_moving=while_moving)
        reply = client.read_reply()
        if SLOWNESS == 1:
            self.assertEqual([b"1", b"2", b"3"], parse(reply))


@proxy_only
class LossTest(PartsCase):
    OPTIONS = {"replicas": 1, "node_timeout_ms": 2000 * SLOWNESS}

    def test_wait_counts_the_least_replicas(self):
        client = self.client()
        client.command("MSET", *[word for i in range(50) for word in (f"key:{i}", "1")])
        self.assertEqual(b":1\r\n", client.command("WAIT", "1", "5000", timeout=20))
        stopped = self.cluster.nodes[4]
        stopped.signal(signal.SIGSTOP)
        try:
            client.command("MSET", *[word for i in range(50) for word in (f"key:{i}", "2")])
            begin = time.monotonic()
            self.assertEqual(b":0\r\n", client.command("WAIT", "1", "400", timeout=20))
            self.assertLess(time.monotonic() - begin, 1.5 * SLOWNESS)
        finally:
            stopped.signal(signal.SIGCONT)
        self.assertEqual(b":1\r\n", client.command("WAIT", "1", "8000", timeout=20))
        self.assertEqual(b"*2\r\n:0\r\n:0\r\n", client.command("WAITAOF", "0", "0", "100"))
        self.assertEqual(b"-ERR timeout is negative\r\n", client.command("WAIT", "0", "-1"))
        self.assertEqual(50, parse(client.command("DBSIZE")))

    def test_a_node_that_dies_in_the_middle_is_named(self):
        client = self.client()
        dead = self.cluster.nodes[2]
        keys = [self.key_of(node) for node in self.cluster.nodes[:3]]
        self.assertEqual(b"+OK\r\n", client.command("MSET", *[word for key in keys for word in (key, "1")]))
        with dead.client() as direct:
            direct.command("SET", keys[2], "1")
            self.assertEqual(b":1\r\n", direct.command("WAIT", "1", "10000", timeout=20))
        lost = f"node 127.0.0.1:{dead.port} was lost; may have run in part\r\n".encode()
        unreached = f"node 127.0.0.1:{dead.port} was not reached; has run in part\r\n".encode()
        dead.signal(signal.SIGSTOP)
        client.send(encode("MSET", *[word for key in keys for word in (key, "2")]))
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") >= 1, 5, "it is in flight")
        time.sleep(0.1)
        dead.signal(signal.SIGKILL)
        dead.process.wait(10)
        self.assertEqual(b"-UPSTREAMLOST 2 of 3 parts were answered, " + lost, client.read_reply())
        reply = client.command("MSET", *[word for key in keys for word in (key, "3")])
        self.assertIn(reply, (b"-UPSTREAMLOST 2 of 3 parts were answered, " + unreached,
                              b"-UPSTREAMLOST 2 of 3 parts were answered, " + lost))
        reply = client.command("DBSIZE")
        self.assertIn(b"-UPSTREAMLOST 2 of 3 parts were answered", reply)
        # Another's slots are served, and then the heir has them.
        end = time.monotonic() + 30 * SLOWNESS
        while (reply := client.command("MSET", *[word for key in keys for word in (key, "4")])) != b"+OK\r\n":
            self.assertRegex(reply, rb"^-(UPSTREAM(LOST|DOWN)|CLUSTERDOWN) ")
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.assertEqual([b"4"] * 3, parse(client.command("MGET", *keys)))
        wait_for(lambda: client.command("DBSIZE") == b":3\r\n", 10, "all nodes answer")
        self.assertEqual(sorted(key.encode() for key in keys), sorted(set(self.scan(client)[0])))
        self.assertEqual(b"+OK\r\n", client.command("FLUSHALL"))
        self.cluster.replace(dead, self.owner(keys[2]))
        self.cluster.wait_until_ok()


if __name__ == "__main__":
    unittest.main()
