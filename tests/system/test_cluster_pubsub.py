"""Pub/sub, keyspace events and MONITOR over the nodes of a Valkey Cluster: a subscriber sees one
server, and the bytes of one, wherever its channels are and go."""

import os
import random
import signal
import threading
import time
import unittest

from clusters import Cluster
from harness import SLOWNESS, proxy_only, wait_for
from resp import Closed, encode, mask_ids, parse, split_replies
from test_cluster import ClusterCase
from test_tunnels import PIPELINES

MOVED = "nearkey_cluster_subscriptions_moved_total"
TUNNELS = "nearkey_upstream_tunnels"
KINDS = ("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE")


def push(version, *words):
    """A push of bulk strings, but a last number; None is a null."""
    parts = [b"%c%d\r\n" % (ord("*" if version == 2 else ">"), len(words))]
    for word in words:
        if word is None:
            parts.append(b"$-1\r\n" if version == 2 else b"_\r\n")
        elif isinstance(word, int):
            parts.append(b":%d\r\n" % word)
        else:
            data = word if isinstance(word, bytes) else word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


class PubSubCase(ClusterCase):
    def nodes_of(self, *channels):
        return {self.cluster.owner_of(self.cluster.slot_of(channel)).port for channel in channels}

    def channels_of_all_nodes(self, count=3):
        """So many shard channels of each node."""
        found = {}
        for number in range(10000):
            channel = f"shard:{number}"
            mine = found.setdefault(self.nodes_of(channel).pop(), [])
            if len(mine) < count:
                mine.append(channel)
            if len(found) == 3 and all(len(each) == count for each in found.values()):
                return [channel for each in found.values() for channel in each]
        raise AssertionError("no channels")

    def notify(self, flags):
        for node in self.cluster.nodes:
            if node.is_running():
                node.run("CONFIG", "SET", "notify-keyspace-events", flags)

    def moved(self):
        return self.nearkey.metric(MOVED)

    def read_until(self, client, last, timeout=20):
        """All pushes up to one that ends with that text."""
        pushes = []
        end = time.monotonic() + timeout * SLOWNESS
        while True:
            pushes.append(parse(client.read_reply(end - time.monotonic())))
            if pushes[-1][-1] == last:
                return pushes


@proxy_only
class PubSubTest(PubSubCase):
    def setUp(self):
        super().setUp()
        self.oracle_server = self.start_server()

    # --- the bytes of one server ---

    def oracle(self, version):
        client = self.oracle_server.client()
        self.addCleanup(client.close)
        if version == 3:
            client.command("HELLO", "3")
        return client

    @staticmethod
    def draw_command(draw, version):
        channels = ["a", "b", "c", "{x}1", "{y}2", "news.1", "", "__keyspace@0__:a", b"\x00\r\n\xff"]
        patterns = ["*", "a*", "news.?", "[ab]", "__key*", "[^a]*", "\\*"]
        kind = draw.randrange(3)
        names = patterns if kind == 1 else channels
        roll = draw.random()
        if roll < 0.45:
            return (KINDS[kind], *draw.choices(names, k=draw.randrange(1, 4)))
        if roll < 0.65:
            word = KINDS[kind].replace("SUB", "UNSUB")
            return (word, *draw.choices(names, k=draw.randrange(0, 3)))
        if roll < 0.75:
            return draw.choice([("PING",), ("PING", "x"), ("PING", "x", "y")])
        if roll < 0.78:
            return ("RESET",)
        return draw.choice([
            ("SET", "k", str(draw.randrange(9))), ("GET", "k"), ("NOSUCH",), ("SUBSCRIBE",), ("GET",),
            ("MULTI",), ("EXEC",), ("INCR", "{k}n"), ("CLIENT", "GETNAME"), ("SELECT", "0"),
            ("HELLO", str(version)), ("ECHO", "hi"), ("BLPOP", "none", "0.01"), ("MSET", "{q}1", "1"),
            ("EVAL", "return KEYS[1]", "1", "k"),
        ])

    def test_generated_sequences_have_the_bytes_of_one_server(self):
        """Confirmations with their counts, refusals, PING, ordinary commands, and each message: to a
        client of the cluster as to one of a server."""
        witnesses = [node.client() for node in self.cluster.nodes]
        for witness in witnesses:
            self.addCleanup(witness.close)
            witness.command("PSUBSCRIBE", "*")
        for seed in range(14):
            version = 2 + seed % 2
            draw = random.Random(seed)
            ours, theirs = self.client(version), self.oracle(version)
            publisher, their_publisher = self.client(), self.oracle(2)
            names = {"SUBSCRIBE": set(), "PSUBSCRIBE": set(), "SSUBSCRIBE": set()}
            in_multi = False
            history = []
            for _ in range(120):
                if draw.random() < 0.3:
                    word = draw.choice(["PUBLISH", "SPUBLISH"])
                    channel = draw.choice(["a", "b", "c", "{x}1", "{y}2", "news.1", "none"])
                    text = str(draw.randrange(1 << 30))
                    history.append((word, channel, text))
                    count = parse(their_publisher.command(word, channel, text))
                    publisher.command(word, channel, text)
                    if word == "PUBLISH":
                        # It is at all nodes before the next command.
                        for witness in witnesses:
                            self.assertEqual(text.encode(), parse(witness.read_reply())[3])
                    self.assertEqual(sorted(theirs.read_replies(count)),
                                     sorted(ours.read_replies(count)), (seed, history))
                    continue
                command = self.draw_command(draw, version)
                if in_multi and command not in (("EXEC",), ("GET", "k"), ("INCR", "{k}n")):
                    continue  # A transaction has no subscriptions.
                if command[0] == "MULTI" and not (version == 2 and any(names.values())):
                    in_multi = True
                elif command[0] in ("EXEC", "RESET"):
                    in_multi = False
                history.append(command)
                count = self.count_replies(command, names)
                expected = self.run_one(theirs, command, count)
                actual = self.run_one(ours, command, count)
                self.assertEqual(self.without_order(command, expected),
                                 self.without_order(command, actual), (seed, history))
            ours.close()
            theirs.close()

    @staticmethod
    def run_one(client, command, count):
        client.send(encode(*command))
        return client.read_replies(count)

    @staticmethod
    def count_replies(command, names):
        """How many it is answered with; `names` is what the client has."""
        word = command[0]
        if word == "RESET":
            for each in names.values():
                each.clear()
        as_subscribe = word.replace("UNSUB", "SUB")
        if as_subscribe not in names:
            return 1
        mine = names[as_subscribe]
        if word != as_subscribe and not any(names.values()):
            return 1  # NOSUB
        if word != as_subscribe and len(command) == 1:
            count = max(1, len(mine))
            mine.clear()
            return count
        if word == as_subscribe:
            mine.update(command[1:])
        else:
            mine.difference_update(command[1:])
        return max(1, len(command) - 1)

    @staticmethod
    def without_order(command, replies):
        """UNSUBSCRIBE without names goes through the server's table."""
        if len(command) > 1 or not command[0].endswith("UNSUBSCRIBE") or replies[0][:1] == b"-":
            return [mask_ids(reply) for reply in replies]
        parsed = [parse(reply) for reply in replies]
        return ([reply[:4] for reply in replies], sorted(str(each[1]) for each in parsed),
                [each[2] for each in parsed])

    def test_pipelines_up_to_the_end_of_the_client(self):
        """Those of test_tunnels.py, where the order is the server's; and the end behind them."""
        for version in (2, 3):
            for commands in PIPELINES:
                if any(command[0] == "PUBLISH" for command in commands):
                    continue
                sent = b"".join(encode(*command) for command in (*commands, ("QUIT",)))
                said = []
                for client in (self.oracle(version), self.client(version)):
                    client.send(sent)
                    data, ended = client.read_to_end()
                    said.append(([mask_ids(reply) for reply in split_replies(data)], ended))
                if ("UNSUBSCRIBE",) in commands:
                    said = [(sorted(replies), ended) for replies, ended in said]
                    self.assertEqual(len(said[0][0]), len(said[1][0]), (version, commands))
                    continue
                self.assertEqual(said[0], said[1], (version, commands))

    def test_no_message_before_the_confirmation(self):
        """Of names that several nodes have to confirm, while messages come from all."""
        stop = threading.Event()

        def publish():
            with self.nearkey.client() as publisher:
                while not stop.is_set():
                    publisher.command("PUBLISH", "c", "x" * 50)

        threads = [threading.Thread(target=publish) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(60):
                client = self.client(2 + number % 2)
                client.send(encode("PSUBSCRIBE", "*", "c", "__key*"))
                replies = client.read_replies(3)
                self.assertEqual([push(2 + number % 2, "psubscribe", name, place + 1)
                                  for place, name in enumerate(("*", "c", "__key*"))], replies)
                self.assertIn(parse(client.read_reply())[0], (b"pmessage",))
                client.close()
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_what_is_left_is_heard_no_more(self):
        """UNSUBSCRIBE is answered before the nodes know: what they still send is dropped."""
        stop = threading.Event()

        def publish():
            with self.nearkey.client() as publisher:
                while not stop.is_set():
                    publisher.command("PUBLISH", "c", "x")
                    publisher.command("SPUBLISH", "s", "x")

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            for version in (2, 3):
                client = self.client(version)
                client.command("SUBSCRIBE", "other")
                for _ in range(200):
                    client.send(encode("SUBSCRIBE", "c") + encode("SSUBSCRIBE", "s"))
                    self.skip_messages(client, b"subscribe")
                    self.skip_messages(client, b"ssubscribe")
                    client.send(encode("SUNSUBSCRIBE", "s") + encode("UNSUBSCRIBE", "c"))
                    self.skip_messages(client, b"sunsubscribe")
                    self.skip_messages(client, b"unsubscribe")
                    client.send(encode("PING"))
                    self.assertEqual(b"+PONG\r\n" if version == 3 else push(2, "pong", ""),
                                     client.read_reply())
        finally:
            stop.set()
            thread.join()

    def skip_messages(self, client, word):
        while (said := parse(client.read_reply()))[0] != word:
            self.assertIn(said[0], (b"message", b"smessage"))

    def test_who_has_left_is_counted_no_more(self):
        client = self.client()
        for number in range(60):
            channel = f"channel:{number}"
            client.command("SUBSCRIBE", channel)
            client.command("SSUBSCRIBE", channel)
            leaving = [("RESET",)]
            if number % 2:
                leaving = [("UNSUBSCRIBE", channel), ("SUNSUBSCRIBE",)]
            counting = [("PUBLISH", channel, "x"), ("SPUBLISH", channel, "x"),
                        ("PUBSUB", "CHANNELS"), ("PUBSUB", "SHARDCHANNELS")]
            replies = client.pipeline(leaving + counting)
            self.assertEqual([b":0\r\n"] * 2 + [b"*0\r\n"] * 2, replies[len(leaving):], number)

    def test_what_a_client_has_published_comes_before_it_has_left(self):
        client = self.client(3)
        for number in range(60):
            name = f"channel:{number}"
            client.command("SUBSCRIBE", name)
            client.send(b"".join(encode(*command) for command in (
                ("PUBLISH", name, "x"), ("UNSUBSCRIBE", name), ("PING",))))
            replies = client.read_replies(4)
            self.assertEqual(b"+PONG\r\n", replies[3])
            self.assertIn(b"unsubscribe", replies[2])
            self.assertTrue(any(b"$7\r\nmessage" in reply for reply in replies[:2]), replies)

    def test_a_pipeline_of_subscriptions_is_answered_in_order(self):
        for version in (2, 3):
            ours, theirs = self.client(version), self.oracle(version)
            channels = self.channels_of_all_nodes()
            commands = []
            for number, channel in enumerate(channels):
                commands += [("SSUBSCRIBE", channel), ("SUBSCRIBE", f"c{number}", "c0"),
                             ("PSUBSCRIBE", f"p{number}*"), ("UNSUBSCRIBE", "c0")]
                if version == 3:
                    commands += [("SET", f"k{number}", "1"), ("GET", f"k{number}"), ("PING",)]
            sent = b"".join(encode(*command) for command in commands)
            count = sum(max(1, len(command) - 1) if "SUBSCRIBE" in command[0] else 1
                        for command in commands)
            for client in (theirs, ours):
                client.send(sent)
            self.assertEqual(theirs.read_replies(count), ours.read_replies(count))

    # --- shard channels ---

    def test_shard_channels_of_all_nodes_at_one_client(self):
        channels = self.channels_of_all_nodes()
        for version in (2, 3):
            client, publisher = self.client(version), self.client()
            before = self.nearkey.metric(TUNNELS)
            client.send(encode("SSUBSCRIBE", *channels) + encode("SUBSCRIBE", "plain"))
            for number, channel in enumerate(channels):
                self.assertEqual(push(version, "ssubscribe", channel, number + 1), client.read_reply())
            self.assertEqual(push(version, "subscribe", "plain", 1), client.read_reply())
            self.assertEqual(before + 3, self.nearkey.metric(TUNNELS))
            for channel in channels:
                self.assertEqual(b":1\r\n", publisher.command("SPUBLISH", channel, "m"))
                self.assertEqual(push(version, "smessage", channel, "m"), client.read_reply())
            publisher.command("PUBLISH", "plain", "p")
            self.assertEqual(push(version, "message", "plain", "p"), client.read_reply())
            client.close()
            wait_for(lambda: self.nearkey.metric(TUNNELS) == before, 10, "its feeds are given back")

    def test_a_shard_channel_follows_its_slot(self):
        """Numbered messages while slots move: each arrives once at most, in order for each channel,
        the client is confirmed nothing again, and after the last move everything arrives."""
        channels = self.channels_of_all_nodes(2)
        slots = [self.cluster.slot_of(channel) for channel in channels]
        clients = [(version, self.client(version)) for version in (2, 3, 3)]
        for version, client in clients:
            client.send(encode("SSUBSCRIBE", *channels) + encode("SUBSCRIBE", "plain"))
            client.read_replies(len(channels) + 1)
        mover = self.move_for(3 * min(SLOWNESS, 2), slots)
        self.addCleanup(mover.join)
        publisher = self.client()
        number = 0
        while mover.is_alive():
            number += 1
            for channel in channels:
                self.assertTrue(publisher.command("SPUBLISH", channel, str(number)).startswith(b":"))
            publisher.command("PUBLISH", "plain", str(number))
            time.sleep(0.002)
        self.assertGreater(self.moves, 5)
        lost = 0
        # Once each channel has arrived, the next ones do.
        for version, client in clients:
            seen = {channel.encode(): 0 for channel in channels}
            plain = 0
            pending = set(seen)
            end = time.monotonic() + 20 * SLOWNESS
            while pending:
                self.assertLess(time.monotonic(), end, pending)
                number += 1
                for channel in channels:
                    publisher.command("SPUBLISH", channel, str(number))
                publisher.command("PUBLISH", "plain", str(number))
                last = str(number).encode()
                while True:
                    kind, channel, text = parse(client.read_reply())
                    if kind == b"message":
                        self.assertEqual(plain + 1, int(text))
                        plain = int(text)
                        if text == last:
                            break
                        continue
                    self.assertEqual(b"smessage", kind)
                    self.assertLess(seen[channel], int(text), channel)
                    lost += int(text) - seen[channel] - 1
                    seen[channel] = int(text)
                    if text == last:
                        pending.discard(channel)
                time.sleep(0.01)
            client.send(encode("SUNSUBSCRIBE", *channels))
            while (said := parse(client.read_reply()))[0] != b"sunsubscribe":
                pass
            self.assertEqual(len(channels) - 1, said[2])
        self.assertGreater(self.moved(), 5)
        self.assertTrue([log for log in self.nearkey.logs() if log["event"] == "subscriber_moved"])

    def test_a_slot_that_moves_before_it_is_subscribed_to(self):
        """The map of this event loop is old: the client reads no MOVED."""
        for number in range(8):
            version = 2 + number % 2
            client = self.client(version)
            channel = f"late:{number}"
            slot = self.cluster.slot_of(channel)
            source = self.cluster.owner_of(slot)
            target = next(node for node in self.cluster.nodes if node is not source)
            self.cluster.move(slot, target)
            self.assertEqual(push(version, "ssubscribe", channel, 1),
                             client.command("SSUBSCRIBE", channel))
            # Not through nearkey, which would learn of the move by that.
            self.assertEqual(1, target.run("SPUBLISH", channel, "x"))
            self.assertEqual(push(version, "smessage", channel, "x"), client.read_reply())

    # --- what one node knows alone ---

    def test_keyspace_events_of_all_nodes(self):
        self.notify("KEA")
        self.addCleanup(self.notify, "")
        for version in (2, 3):
            for subscribe in (("PSUBSCRIBE", "__keyspace@0__:*"), ("PSUBSCRIBE", "__key*__:*", "*"),
                              ("SUBSCRIBE", "__keyevent@0__:set"), ("PSUBSCRIBE", "[_-]]_keyevent?0*")):
                ours, theirs = self.client(version), self.oracle(version)
                theirs.command("CONFIG", "SET", "notify-keyspace-events", "KEA")
                count = len(subscribe) - 1
                self.assertEqual(self.run_one(theirs, subscribe, count),
                                 self.run_one(ours, subscribe, count))
                commands = [("SET", f"key:{i}", "1") for i in range(40)]
                commands += [("PUBLISH", f"plain:{i}", "m") for i in range(20)]
                writer, their_writer = self.client(), self.oracle(2)
                for command in commands:
                    writer.command(*command)
                    their_writer.command(*command)
                expected = []
                while not theirs.is_silent(0.1) or theirs.buffer:
                    while theirs.framer.end(theirs.buffer) is not None:
                        expected.append(theirs.read_reply())
                self.assertGreater(len(expected), 39)
                self.assertEqual(sorted(expected), sorted(ours.read_replies(len(expected))))
                self.assertTrue(ours.is_silent(0.1))
                ours.close()
                theirs.close()

    def test_events_of_nodes_that_come_and_go(self):
        """A node gets its first slot, and gives it away again: its events are heard, and then those of
        the other, each once."""
        self.notify("Kg$")
        self.addCleanup(self.notify, "")
        source = self.cluster.nodes[0]
        slot = next(slot for slot in range(16384) if self.cluster.owner_of(slot) is source)
        key = next(f"k{i}" for i in range(200000) if self.cluster.slot_of(f"k{i}") == slot)
        new = self.new_node()
        new.run("CONFIG", "SET", "notify-keyspace-events", "Kg$")
        client, writer = self.client(3), self.client()
        other = next(f"o{i}" for i in range(1000) if self.nodes_of(f"o{i}") != {source.port})
        client.command("PSUBSCRIBE", f"__keyspace@0__:{key}", f"__keyspace@0__:{other}")
        client.read_reply()
        client.command("SUBSCRIBE", "plain")
        # One that has given away its last slot becomes a replica, which says what its primary says.
        for owner in (new, self.cluster.nodes[1], source):
            time.sleep(0.3)  # Nothing is tried again by now: the nodes that change are told of.
            self.cluster.move(slot, owner)
            end = time.monotonic() + 20 * SLOWNESS
            # Until the nodes are known as they are now.
            while True:
                self.assertLess(time.monotonic(), end)
                writer.command("SET", key, "1")
                writer.command("SET", other, "1")
                time.sleep(0.05)
                writer.command("PUBLISH", "plain", "end")
                heard = [said[2] for said in self.read_until(client, b"end")[:-1]
                         if said[3] == b"set"]
                if sorted(heard) == sorted(f"__keyspace@0__:{name}".encode()
                                           for name in (key, other)):
                    break

    def new_node(self):
        """One without slots, that ends with the test."""
        folder = os.path.join(self.directory, "new")
        os.mkdir(folder)
        more = Cluster(folder, primaries=1)
        node = more.nodes[0]
        node.start()
        node.run("CLUSTER", "SET-CONFIG-EPOCH", "100")
        self.cluster.meet(self.cluster.nodes[0], node)
        self.cluster.nodes.append(node)

        def forget():
            self.cluster.nodes.remove(node)
            node_id = self.cluster.id_of(node)
            node.kill()
            for each in self.cluster.nodes:
                each.run("CLUSTER", "FORGET", node_id)

        self.addCleanup(forget)
        for each in self.cluster.nodes:
            wait_for(lambda each=each: b"cluster_known_nodes:4\r\n" in each.run("CLUSTER", "INFO"), 15,
                     "all nodes met")
        self.cluster.wait_until_ok()
        return node

    def test_monitor_shows_what_all_nodes_run(self):
        for version in (2, 3):
            client, writer = self.client(version), self.client()
            self.assertEqual(b"+OK\r\n", client.command("MONITOR"))
            names = [f"seen:{version}:{i}" for i in range(60)]
            for name in names:
                writer.command("SET", name, "1")
            left = {f'"SET" "{name}" "1"'.encode() for name in names}
            while left:
                line = client.read_reply()
                self.assertRegex(line, rb"^\+\d+\.\d+ \[\d+ \S+\] .*\r\n$")
                left = {each for each in left if each not in line}
            self.assertIn(b"-ERR Replica can't interact with the keyspace\r\n",
                          self.read_answer(client, "GET", "seen"))
            self.assertEqual(b"+RESET\r\n", self.read_answer(client, "RESET"))
            self.assertEqual(b"$-1\r\n", client.command("GET", "none"))
            for name in names:
                writer.command("SET", name, "2")
            self.assertEqual(b"+PONG\r\n", client.command("PING"))

    @staticmethod
    def read_answer(client, *command):
        """Its reply, between lines of MONITOR."""
        client.send(encode(*command))
        while (reply := client.read_reply()).startswith(b"+1"):
            pass
        return reply

    # --- a subscriber's other commands ---

    def test_a_resp3_subscriber_runs_commands_of_all_kinds(self):
        """Replies come in order, with messages in between, also in the middle of a pipeline whose
        replies are large."""
        client, publisher = self.client(3), self.client()
        client.command("SUBSCRIBE", "c")
        client.command("SSUBSCRIBE", "s")
        large = "x" * 700_000
        stop = threading.Event()
        sent = [0]

        def publish():
            while not stop.is_set():
                sent[0] += 1
                publisher.command("PUBLISH", "c", str(sent[0]))
                publisher.command("SPUBLISH", "s", str(sent[0]))

        thread = threading.Thread(target=publish)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)
        draw = random.Random(5)
        heard = {b"message": 0, b"smessage": 0}
        for round_number in range(12):
            commands, expected = [], []
            for number in range(40):
                key = f"{{{draw.randrange(50)}}}"
                commands += [("SET", key, f"{round_number}:{number}"), ("GET", key)]
                expected += ["+OK\r\n", f"$\r\n{round_number}:{number}\r\n"]
                if number % 10 == 3:
                    commands += [("SET", "large", large), ("GET", "large"), ("MULTI",),
                                 ("INCR", f"i{key}"), ("EXEC",), ("EVAL", "return 7", "1", key)]
                    expected += ["+OK\r\n", f"$\r\n{large}\r\n", "+OK\r\n", "+QUEUED\r\n", None, ":7\r\n"]
            client.send(b"".join(encode(*command) for command in commands))
            for each in expected:
                while (reply := client.read_reply()).startswith(b">"):
                    kind, _, text = parse(reply)
                    self.assertEqual(heard[kind] + 1, int(text))
                    heard[kind] += 1
                if each is not None and each.startswith("$"):
                    self.assertEqual(each[3:-2].encode(), parse(reply))
                elif each is not None:
                    self.assertEqual(each.encode(), reply)
        stop.set()
        thread.join()
        while heard != {b"message": sent[0], b"smessage": sent[0]}:
            kind, _, text = parse(client.read_reply())
            self.assertEqual(heard[kind] + 1, int(text))
            heard[kind] += 1

    # --- limits, and clients that leave ---

    def test_a_client_that_leaves_in_the_middle_leaves_nothing(self):
        channels = self.channels_of_all_nodes()
        before = self.nearkey.metric(TUNNELS)
        for number in range(40):
            client = self.nearkey.client()
            if number % 2:
                client.command("HELLO", "3")
            client.send(encode("SSUBSCRIBE", *channels) + encode("PSUBSCRIBE", "__key*") +
                        encode("MONITOR") * (number % 3))
            if number % 4 == 0:
                client.read_reply()
            if number % 8 == 5:
                client.shutdown_write()
            client.close()
        wait_for(lambda: self.nearkey.metric(TUNNELS) == before, 20, "all feeds are given back")
        wait_for(lambda: self.nearkey.metric("nearkey_upstream_dedicated_leased") == 0, 20,
                 "so are the leases")
        for node in self.cluster.nodes:
            wait_for(lambda node=node: all(int(row["ssub"]) == int(row["psub"]) == 0
                                           for row in node.clients()), 20, "the server has none")

    def test_a_subscriber_that_reads_nothing_is_left_to_the_server(self):
        """As behind one server: its limit for subscribers closes the client, and nobody else notices."""
        for node in self.cluster.nodes:
            node.run("CONFIG", "SET", "client-output-buffer-limit", "pubsub 8mb 4mb 10")
            self.addCleanup(node.run, "CONFIG", "SET", "client-output-buffer-limit",
                            "pubsub 32mb 8mb 60")
        slow, good, publisher = self.client(), self.client(3), self.client()
        for client in (slow, good):
            client.send(encode("SUBSCRIBE", "c") + encode("PSUBSCRIBE", "__key*"))
            client.read_replies(2)
        text = "x" * 100_000
        for _ in range(400):
            publisher.command("PUBLISH", "c", text)
            self.assertEqual(text.encode(), parse(good.read_reply())[2])
        try:
            data, _ = slow.read_to_end(20 * SLOWNESS)
        except Closed:
            data = b""
        self.assertLess(len(data), 40_000_000)
        self.assertEqual(b"+PONG\r\n", good.command("PING"))

    def start_another(self, **settings):
        folder = os.path.join(self.directory, "another")
        os.mkdir(folder)
        settings = {f"upstream.{name}": value for name, value in settings.items()}
        return self.start_nearkey(self.cluster.url(), directory=folder,
                                  settings={"server.workers": 1, **settings})

    def test_above_dedicated_max_a_clear_error(self):
        nearkey = self.start_another(dedicated_max=2, queue_timeout_ms=200 * SLOWNESS)
        clients = [nearkey.client() for _ in range(3)]
        for client in clients:
            self.addCleanup(client.close)
        for client in clients[:2]:
            self.assertEqual(push(2, "psubscribe", "__key*", 1),
                             client.command("PSUBSCRIBE", "__key*"))
        reply = clients[2].command("PSUBSCRIBE", "__key*")
        self.assertIn(b"upstream.dedicated_max", reply)
        self.assertEqual(b"+PONG\r\n", clients[2].command("PING"))
        clients[0].close()
        wait_for(lambda: clients[2].command("PSUBSCRIBE", "__key*")[:1] != b"-", 10, "one is free")
        # One that waits gets the place of one that leaves.
        late = nearkey.client()
        self.addCleanup(late.close)
        late.send(encode("PSUBSCRIBE", "__key*"))
        clients[2].close()
        self.assertEqual(push(2, "psubscribe", "__key*", 1), late.read_reply())

    def test_a_node_that_answers_nothing(self):
        """Its subscriptions fail in words once it has been silent for a request's time; those of other
        nodes are as ever, and what it has is heard when it is back."""
        nearkey = self.start_another(request_timeout_ms=500 * SLOWNESS)
        channels = self.channels_of_all_nodes(2)
        client, publisher = nearkey.client(), nearkey.client()
        self.addCleanup(client.close)
        self.addCleanup(publisher.close)
        frozen = self.cluster.owner_of(self.cluster.slot_of(channels[0]))
        client.command("SSUBSCRIBE", channels[0])
        frozen.freeze()
        try:
            begin = time.monotonic()
            reply = client.command("SSUBSCRIBE", channels[1])
            self.assertTrue(reply.startswith(b"-UPSTREAM"), reply)
            self.assertLess(time.monotonic() - begin, 10 * SLOWNESS)
            self.assertEqual(push(2, "ssubscribe", channels[2], 2),
                             client.command("SSUBSCRIBE", channels[2]))
            publisher.command("SPUBLISH", channels[2], "x")
            self.assertEqual(push(2, "smessage", channels[2], "x"), client.read_reply())
        finally:
            frozen.thaw()
        wait_for(lambda: publisher.command("SPUBLISH", channels[0], "y")[:1] == b":", 10, "it is back")
        while (said := client.read_reply()) != push(2, "smessage", channels[0], "y"):
            self.fail(said)
        self.assertEqual(push(2, "ssubscribe", channels[1], 3),
                         client.command("SSUBSCRIBE", channels[1]))

    def test_subscriptions_count_as_dedicated_connections(self):
        nearkey, client = self.nearkey, self.client()
        client.send(encode("SUBSCRIBE", "a"))
        client.read_reply()
        self.assertEqual(1, nearkey.metric("nearkey_upstream_dedicated_leased"))
        client.send(encode("SSUBSCRIBE", *self.channels_of_all_nodes(1)))
        client.read_replies(3)
        self.assertEqual(3, nearkey.metric("nearkey_upstream_dedicated_leased"))


@proxy_only
class PubSubFailoverTest(PubSubCase):
    OPTIONS = {"replicas": 1, "node_timeout_ms": 2000 * SLOWNESS}

    def primaries(self):
        return [node for node in self.cluster.nodes
                if node.is_running() and b"role:master" in node.run("INFO", "replication")]

    def subscribe(self):
        """Subscribers whose first nodes differ, and their channels."""
        channels = self.channels_of_all_nodes(1)
        clients = [self.client(2 + number % 2) for number in range(6)]
        for client in clients:
            client.send(encode("SUBSCRIBE", "plain") + encode("PSUBSCRIBE", "__keyspace@*") +
                        encode("SSUBSCRIBE", *channels))
            client.read_replies(2 + len(channels))
        return clients, channels

    def wait_until_complete(self, clients, channels, keys):
        """Until each hears everything again, once; nothing but messages came before."""
        writer = self.client()
        number = 0
        pending = list(clients)
        end = time.monotonic() + 60 * SLOWNESS
        while pending:
            self.assertLess(time.monotonic(), end)
            number += 1
            replies = [writer.command("SPUBLISH", channel, str(number)) for channel in channels]
            replies += [writer.command("SET", key, str(number)) for key in keys]
            time.sleep(0.1)
            writer.command("PUBLISH", "plain", f"end:{number}")
            for client in list(pending):
                try:
                    heard = self.read_until(client, f"end:{number}".encode(), 5)
                except TimeoutError:
                    continue
                self.assertLessEqual({each[0] for each in heard},
                                     {b"message", b"pmessage", b"smessage"})
                newest = [each for each in heard if each[-1] == str(number).encode()]
                events = [each for each in heard if each[-1] == b"set"]
                if len(newest) == len(channels) and len(events) == len(keys) and \
                        all(reply[:1] != b"-" for reply in replies):
                    pending.remove(client)

    def test_subscribers_go_on_when_their_node_dies(self):
        self.notify("K$")
        clients, channels = self.subscribe()
        keys = channels
        self.wait_until_complete(clients, channels, keys)
        before = self.moved()
        dead = self.primaries()[0]
        slot = next(each[0] for each in dead.run("CLUSTER", "SLOTS") if each[2][1] == dead.port)
        dead.signal(signal.SIGKILL)
        dead.process.wait(10)
        self.wait_until_complete(clients, channels, keys)
        self.assertGreater(self.moved(), before)
        self.assertTrue([log for log in self.nearkey.logs() if log["event"] == "subscriber_moved"])
        self.assertEqual([], [log for log in self.nearkey.logs()
                              if log["event"] == "subscriber_closed"])
        self.cluster.replace(dead, self.cluster.owner_of(slot))
        self.cluster.wait_until_ok()

    def test_subscribers_go_on_after_a_failover_by_plan(self):
        self.notify("K$")
        clients, channels = self.subscribe()
        self.wait_until_complete(clients, channels, channels)
        replica = next(node for node in self.cluster.nodes if node not in self.primaries())
        end = time.monotonic() + 30 * SLOWNESS
        while replica not in self.primaries():  # One that is new may not be known to all yet.
            self.assertLess(time.monotonic(), end)
            replica.run("CLUSTER", "FAILOVER")
            time.sleep(0.5)
        self.wait_until_complete(clients, channels, channels)

    def test_subscribers_go_on_when_their_node_freezes(self):
        self.notify("K$")
        clients, channels = self.subscribe()
        self.wait_until_complete(clients, channels, channels)
        frozen = self.primaries()[0]
        frozen.freeze()
        try:
            wait_for(lambda: self.is_replaced(frozen), 30, "its replica has taken over")
            self.wait_until_complete(clients, channels, channels)
        finally:
            frozen.thaw()
        self.cluster.wait_until_ok()

    def is_replaced(self, frozen):
        others = [node for node in self.cluster.nodes if node is not frozen]
        owners = {owner[1] for _, _, owner, *_ in others[0].run("CLUSTER", "SLOTS")}
        return frozen.port not in owners


@proxy_only
class PubSubLostNodeTest(PubSubCase):
    """A node and its replica are gone for good: a cluster of its own, which ends with that."""

    OPTIONS = {"replicas": 1, "node_timeout_ms": 2000 * SLOWNESS}

    def test_a_subscriber_without_its_node_for_too_long_is_closed(self):
        folder = os.path.join(self.directory, "another")
        os.mkdir(folder)
        nearkey = self.start_nearkey(self.cluster.url(), directory=folder,
                                     settings={"upstream.drain_timeout_ms": 1000})
        dead = next(node for node in self.cluster.nodes
                    if b"role:master" in node.run("INFO", "replication"))
        channels = self.channels_of_all_nodes(1)
        lost = next(channel for channel in channels if self.nodes_of(channel) == {dead.port})
        clients = [nearkey.client() for _ in range(2)]
        for client in clients:
            self.addCleanup(client.close)
        clients[0].command("SSUBSCRIBE", lost)
        clients[1].send(encode("SSUBSCRIBE", *[each for each in channels if each != lost]))
        clients[1].read_replies(2)
        heir = self.replica_of(dead)
        for node in (dead, heir):
            node.signal(signal.SIGKILL)
            node.process.wait(10)
        data, _ = clients[0].read_to_end(20 * SLOWNESS)
        self.assertEqual(b"", data)
        wait_for(lambda: [log["event"] for log in nearkey.logs() if "closed" in log["event"]] ==
                 ["subscriber_closed"], 5, "the log says so")
        self.assertEqual(push(2, "pong", ""), clients[1].command("PING"))
        reply = clients[1].command("SSUBSCRIBE", lost)
        self.assertTrue(reply.startswith((b"-UPSTREAMDOWN", b"-CLUSTERDOWN")), reply)

    def replica_of(self, primary):
        line = b"slave " + self.cluster.id_of(primary)
        return next(node for node in self.cluster.nodes
                    if any(b"myself," + line in each
                           for each in node.run("CLUSTER", "NODES").splitlines()))


if __name__ == "__main__":
    unittest.main()
