"""Scripts and blocking commands whose slot moves in a Valkey Cluster: they go on where it is, and a
script that only says so is believed by nobody."""

import threading
import time
import unittest

from harness import SLOWNESS, proxy_only, wait_for
from resp import encode, parse
from sentinels import info
from test_cluster import ClusterCase

# Each call leaves its number behind.
APPEND = "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LLEN', KEYS[1])"
SAY = "redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1])"


class FollowCase(ClusterCase):
    def other_than(self, node):
        return next(each for each in self.cluster.nodes if each is not node)

    def ends_of(self, key):
        """The slot, its owner, and another node."""
        slot = self.cluster.slot_of(key)
        source = self.cluster.owner_of(slot)
        return slot, source, self.other_than(source)


@proxy_only
class FollowTest(FollowCase):
    SETTINGS = {"slowlog.threshold_ms": 50}

    def test_a_script_goes_on_where_its_slot_is(self):
        client = self.client()
        sha = parse(client.command("SCRIPT", "LOAD", APPEND)).decode()
        function = "#!lua name=follow\nredis.register_function('append', function(KEYS, ARGV) " \
                   f"{APPEND} end)"
        self.assertEqual(b"follow", parse(client.command("FUNCTION", "LOAD", function)))
        slot, source, target = self.ends_of("{f}")
        for node in (target, source):
            self.cluster.move(slot, node)
            for command in (("EVAL", APPEND, "1", "{f}", "x"), ("EVALSHA", sha, "1", "{f}", "x"),
                            ("FCALL", "append", "1", "{f}", "x")):
                before = int(node.run("LLEN", "{f}"))
                self.assertEqual(before + 1, parse(client.command(*command)), command)
                self.assertEqual(before + 1, node.run("LLEN", "{f}"))
        # Once more where the map that was asked for after the first one is older than that move.
        self.assertGreater(self.redirects(), 0)

    def test_scripts_in_a_pipeline_go_on_in_order(self):
        """Those of the slot that moved, and others of the same node between them."""
        client = self.client()
        slot, source, target = self.ends_of("{f}")
        here = next(key for key in (f"{{{n}}}" for n in range(1000))
                    if self.cluster.owner_of(self.cluster.slot_of(key)) is source)
        client.command("EVAL", APPEND, "1", here, "0")
        self.cluster.move(slot, target)
        count = 200
        client.send(b"".join(encode("EVAL", APPEND, "1", key, str(number))
                             for number in range(1, count + 1) for key in ("{f}", here)))
        replies = [parse(reply) for reply in client.read_replies(2 * count)]
        self.assertEqual([length for n in range(1, count + 1) for length in (n, n + 1)], replies)
        numbers = [str(number).encode() for number in range(1, count + 1)]
        self.assertEqual(numbers, target.run("LRANGE", "{f}", "0", "-1"))
        self.assertEqual([b"0", *numbers], source.run("LRANGE", here, "0", "-1"))

    def test_nothing_is_kept_of_what_is_answered_while_more_is_in_flight(self):
        client = self.client()
        script = "local i = 0 while i < 2000 do i = i + 1 end return i"
        batch = b"".join(encode("EVAL", script, "1", "{f}") for _ in range(500))
        client.send(4 * batch)
        for _ in range(60):
            client.send(batch)  # Something is always in flight.
            client.read_replies(500)
        client.read_replies(2000)
        wait_for(lambda: self.nearkey.metric("nearkey_client_memory_held_bytes") < 200_000, 10, "little")

    def test_a_slot_whose_keys_are_moving(self):
        """What is gone is run behind ASKING, each time over the same connection."""
        client = self.client()
        slot, source, target = self.ends_of("{m}")
        client.command("SET", "{m}here", "1")
        replies = []

        def while_moving():
            for number in range(20):
                replies.append(client.command("EVAL", APPEND, "1", "{m}gone", str(number)))
            self.assertEqual(20, target.run("EVAL", "return 20", "0"))
            replies.append(client.command("EVAL", "return redis.call('GET', KEYS[1])", "1", "{m}here"))

        self.cluster.move(slot, target, while_moving=while_moving)
        self.assertEqual([*range(1, 21), b"1"], [parse(reply) for reply in replies])
        self.assertEqual(20, target.run("LLEN", "{m}gone"))
        self.assertLess(self.nearkey.metric("nearkey_upstream_connects_total"), 40)

    def test_keys_at_two_nodes_are_waited_for(self):
        client = self.client()
        slot, source, target = self.ends_of("{t}")
        client.command("SET", "{t}here", "1")
        both = ("EVAL", "return redis.call('MGET', KEYS[1], KEYS[2])", "2", "{t}here", "{t}gone")
        replies = []

        def while_moving():
            client.command("SET", "{t}gone", "2")
            replies.append(client.command(*both, timeout=5 * SLOWNESS))
            before = self.nearkey.metric("nearkey_cluster_delayed_total")
            client.send(encode(*both))
            wait_for(lambda: self.nearkey.metric("nearkey_cluster_delayed_total") > before, 5,
                     "the second one waits")

        self.cluster.move(slot, target, while_moving=while_moving)
        self.assertTrue(replies[0].startswith(b"-TRYAGAIN"), replies)
        (second,) = client.read_replies(1)
        self.assertTrue(second.startswith(b"-TRYAGAIN") or parse(second) == [b"1", b"2"], second)
        self.assertEqual([b"1", b"2"], parse(client.command(*both)))

    def test_what_was_sent_behind_a_script_does_not_change_places_with_it(self):
        """The first could run only later than the second has run."""
        client = self.client()
        slot, source, target = self.ends_of("{p}")
        client.command("SET", "{p}other", "1")

        def while_moving():
            client.send(encode("EVAL", APPEND, "2", "{p}other", "{p}gone", "1")
                        + encode("EVAL", "return redis.call('INCR', KEYS[1])", "1", "{p}other"))
            wait_for(lambda: source.run("GET", "{p}other") == b"2", 5, "the second one has run")

        self.cluster.move(slot, target, while_moving=while_moving)
        replies = client.read_replies(2)
        self.assertTrue(replies[0].startswith(b"-TRYAGAIN "), replies)
        self.assertEqual(b":2\r\n", replies[1])

    def test_what_comes_while_a_script_waits_stays_behind_it(self):
        client = self.client()
        slot, source, target = self.ends_of("{c}")
        append = "return redis.call('APPEND', KEYS[1], ARGV[1])"

        def delayed():
            return self.nearkey.metric("nearkey_cluster_delayed_total")

        def while_moving(first, second):
            before = delayed()
            client.send(first)
            wait_for(lambda: delayed() > before, 5, "it waits")
            client.send(second)

        # The source has one of its keys.
        client.command("SET", "{c}here", "0")
        self.cluster.move(slot, target, while_moving=lambda: while_moving(
            encode("EVAL", append, "2", "{c}here", "{c}gone", "1"),
            encode("EVAL", append, "1", "{c}here", "2")))
        self.assertEqual([b":2\r\n", b":3\r\n"], client.read_replies(2))
        self.assertEqual(b"012", target.run("GET", "{c}here"))

        # It has none, and the other node one: the first is refused twice.
        def while_moving_back():
            client.command("SET", "{c}there", "0")
            while_moving(b"".join(encode("EVAL", append, count, *keys, value) for count, keys, value
                                  in (("2", ("{c}there", "{c}gone"), "1"), ("1", ("{c}there",), "2"))),
                         encode("EVAL", append, "1", "{c}there", "3"))

        self.cluster.move(slot, source, while_moving=while_moving_back)
        self.assertEqual([b":2\r\n", b":3\r\n", b":4\r\n"], client.read_replies(3))
        self.assertEqual(b"0123", source.run("GET", "{c}there"))

    def test_a_key_that_is_watched_behind_a_script_stays_watched(self):
        """The script goes on at another node, and its lease with it."""
        client, other = self.client(), self.client()
        slot, source, target = self.ends_of("{v}")
        client.command("SET", "{v}", "1")

        def while_moving():
            client.send(encode("EVAL", APPEND, "1", "{v}gone", "1") + encode("WATCH", "{v}"))
            self.assertEqual([b":1\r\n", b"+OK\r\n"], client.read_replies(2))

        self.cluster.move(slot, target, while_moving=while_moving)
        other.command("SET", "{v}", "2")
        client.send(encode("MULTI") + encode("SET", "{v}", "3") + encode("EXEC"))
        self.assertFalse(client.read_replies(3)[2].startswith(b"*1"))
        self.assertEqual(b"2", parse(other.command("GET", "{v}")))

    def test_a_script_that_says_the_words_of_a_node_has_run_once(self):
        """As from a server: the words as they are, nothing is learned from them. Where a client could
        follow them they are a TRYAGAIN."""
        client = self.client()
        slot, source, target = self.ends_of("{s}")
        self.assertEqual(1, parse(client.command("INCR", "{s}")))
        words = [f"MOVED {slot} 127.0.0.1:{target.port}", f"MOVED {slot} 127.0.0.1:1",
                 f"MOVED {slot + 1} 127.0.0.1:{target.port}", f"ASK {slot} 127.0.0.1:{target.port}",
                 f"ASK {slot} nowhere:7", "TRYAGAIN Multiple keys request during rehashing of slot",
                 "CLUSTERDOWN The cluster is down", "MOVED", "MOVED x y", "ASK ", "MOVED -1 a:1 b",
                 f"MOVED {slot} " + "h" * 300 + ":7", "MOVED " + "x" * 600]
        before = self.redirects()
        direct = source.client()
        self.addCleanup(direct.close)
        for number, text in enumerate(words):
            for reply in (client.command("EVAL", SAY, "1", "{s}", text),
                          client.command("EVAL", SAY, "2", "{s}", "{s}b", text)):
                if f" {slot} " in text:
                    self.assertIn(b"by the word of its node or of the script; may have run", reply)
                else:
                    self.assertEqual(direct.command("EVAL", SAY, "1", "{s}direct", text), reply)
            self.assertEqual(2 * number + 3, int(source.run("GET", "{s}")))
        self.assertEqual(before, self.redirects())
        self.assertEqual(b"+OK\r\n", client.command("SET", "{s}", "x"))
        # In a pipeline, too, and between others.
        client.send(b"".join(encode("EVAL", SAY if n % 3 else APPEND, "1", f"{{s}}{n % 3}", words[2])
                             for n in range(60)))
        replies = client.read_replies(60)
        for n, reply in enumerate(replies):
            expected = f"-{words[2]}\r\n" if n % 3 else f":{n // 3 + 1}\r\n"
            self.assertEqual(expected.encode(), reply, n)
        self.assertEqual(b"20", source.run("GET", "{s}1"))
        # A script without keys runs anywhere: no node sends it on.
        reply = client.command("EVAL", "return redis.error_reply(ARGV[1])", "0", words[0])
        self.assertEqual(f"-{words[0]}\r\n".encode(), reply)

    def test_a_blocking_command_follows_its_slot_while_it_moves(self):
        waiting, pushing = self.client(), self.client()
        slot, source, target = self.ends_of("{b}")

        def while_moving():
            waiting.send(encode("BLPOP", "{b}list", "0"))
            wait_for(lambda: blocked(target) == 1, 5, "it waits behind ASKING")
            time.sleep(2 * SLOWNESS)  # Longer than it is tried again.
            self.assertEqual(1, blocked(target))

        self.cluster.move(slot, target, while_moving=while_moving)
        for node in (source, target, source, target, source, target, source, target, source):
            if self.cluster.owner_of(slot) is not node:
                self.cluster.move(slot, node)
            wait_for(lambda: blocked(node) == 1, 5, "it waits where its slot is")
            time.sleep(1.2)  # A move that has settled counts no more.
        self.assertEqual(1, parse(pushing.command("RPUSH", "{b}list", "value")))
        self.assertEqual([[b"{b}list", b"value"]], [parse(r) for r in waiting.read_replies(1)])

    def test_a_script_does_not_wait_for_a_blocking_command_behind_it(self):
        client = self.client()
        slot, source, target = self.ends_of("{h}")
        here = next(key for key in (f"{{{n}}}" for n in range(1000))
                    if self.cluster.owner_of(self.cluster.slot_of(key)) is source)
        client.command("EVAL", APPEND, "1", here, "0")
        self.cluster.move(slot, target)
        client.send(encode("EVAL", APPEND, "1", "{h}", "1") + encode("BLPOP", f"{here}list", "0"))
        self.assertEqual([b":1\r\n"], client.read_replies(1))
        wait_for(lambda: blocked(source) == 1, 5, "it waits")
        self.client().command("RPUSH", f"{here}list", "value")
        self.assertEqual([f"{here}list".encode(), b"value"], parse(client.read_replies(1)[0]))

    def test_a_node_that_is_lost_before_it_can_be_asked(self):
        """No client reads MOVED: it is not known who has said it."""
        client = self.client()
        slot, source, target = self.ends_of("{i}")
        here = next(key for key in (f"{{{n}}}" for n in range(1000))
                    if self.cluster.owner_of(self.cluster.slot_of(key)) is source)
        client.command("EVAL", APPEND, "1", here, "0")
        self.cluster.move(slot, target)
        before = int(info(source, "total_error_replies"))
        source.run("CLIENT", "PAUSE", "100000", "WRITE")
        client.send(encode("EVAL", APPEND, "1", "{i}", "1") + encode("EVAL", APPEND, "1", here, "1"))
        wait_for(lambda: int(info(source, "total_error_replies")) > before, 5, "it has said MOVED")
        wait_for(lambda: b"cmd=eval" in source.run("CLIENT", "LIST"), 5, "the second one waits")
        source.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        source.run("CLIENT", "UNPAUSE")
        first, second = client.read_replies(2)
        self.assertTrue(first.startswith(b"-TRYAGAIN slot"), first)
        self.assertTrue(second.startswith(b"-UPSTREAMLOST"), second)

    def test_a_client_that_leaves_a_blocking_command_behind_a_script_is_noticed(self):
        slot, source, target = self.ends_of("{g}")
        self.cluster.move(slot, target)
        client = self.nearkey.client()
        client.send(encode("EVAL", APPEND, "1", "{g}", "1") + encode("BLPOP", "{g}list", "0"))
        wait_for(lambda: blocked(target) == 1, 5, "it waits where its slot is")
        client.close()
        wait_for(lambda: blocked(target) == 0, 10, "it waits no more")
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == 0, 10, "it is gone")

    def test_the_slow_log_tells_of_a_script_that_went_on(self):
        client = self.client()
        slot, source, target = self.ends_of("{l}")
        self.cluster.move(slot, target)
        busy = "local x = 0 for i = 1, ARGV[1] do x = x + i % 7 end return 'done'"
        self.assertEqual(b"done", parse(client.command("EVAL", busy, "1", "{l}", "30000000",
                                                       timeout=20)))
        (entry,) = wait_for(lambda: self.nearkey.get("/slowlog")[1]["entries"], 5, "it is there")
        self.assertEqual(("eval", "dedicated"), (entry["command"], entry["route"]))
        self.assertGreater(entry["total_us"], 50_000)

    def test_a_client_that_leaves_is_forgotten(self):
        slot, source, target = self.ends_of("{q}")
        settled = self.client()
        settled.command("SET", "{q}", "1")

        def while_moving():
            settled.command("SET", "{q}gone", "1")
            for _ in range(5):
                for count in (1, 3):
                    client = self.nearkey.client()
                    client.send(encode("EVAL", APPEND, "2", "{q}", "{q}gone", "1") * count)
                    time.sleep(0.03)
                    client.close()
            wait_for(lambda: self.nearkey.metric("nearkey_clients") == 1, 10, "they are gone")

        self.cluster.move(slot, target, while_moving=while_moving)
        wait_for(lambda: self.nearkey.metric("nearkey_upstream_dedicated_leased") == 0, 10,
                 "all leases are back")
        self.assertEqual(b"+OK\r\n", settled.command("SET", "{q}", "2"))


@proxy_only
class FollowUnderLoadTest(FollowCase):
    def check(self, pipelined):
        """Counters and lists of clients that run scripts while their slots move to and fro."""
        tags = [f"{{load{number}}}" for number in range(12)]
        slots = sorted({self.cluster.slot_of(tag) for tag in tags})
        seconds = 5 * min(SLOWNESS, 3)
        end = time.monotonic() + seconds
        sent, failures = {}, []

        def work(number):
            client = self.nearkey.client()
            keys = [f"{tag}:{number}" for tag in tags]
            counts = dict.fromkeys(keys, 0)
            step = 0
            while time.monotonic() < end and not failures:
                commands, lengths = [], []
                for _ in range(pipelined):
                    key = keys[step % len(keys)]
                    step += 1
                    counts[key] += 1
                    commands.append(encode("EVAL", APPEND, "1", key, str(counts[key])))
                    lengths.append(counts[key])
                client.send(b"".join(commands))
                replies = [parse(reply) for reply in
                           client.read_replies(pipelined, timeout=20 * SLOWNESS)]
                if replies != lengths:
                    failures.append((lengths, replies))
            client.close()
            sent.update(counts)

        mover = self.move_for(seconds, slots)
        self.run_beside(mover, [threading.Thread(target=work, args=(number,)) for number in range(6)])
        self.assertEqual([], failures)
        self.assertGreater(self.moves, 10)
        self.cluster.wait_until_ok()
        for key, count in sent.items():
            node = self.cluster.owner_of(self.cluster.slot_of(key))
            numbers = [str(number).encode() for number in range(1, count + 1)]
            self.assertEqual(numbers, node.run("LRANGE", key, "0", "-1"), key)

    def test_one_by_one(self):
        self.check(1)

    def test_in_pipelines(self):
        self.check(20)


@proxy_only
class ScriptsOfLateNodesTest(FollowCase):
    OPTIONS = {"replicas": 1, "node_timeout_ms": 2000 * SLOWNESS}
    SETTINGS = {"server.workers": 2, "cluster.scripts_bytes_max": 2000}

    def load(self, text):
        return parse(self.client().command("SCRIPT", "LOAD", text)).decode()

    def promote_all(self):
        """Each replica takes over: none of them knows any script."""
        def is_primary(node):
            return b"role:master" in node.run("INFO", "replication")

        def has_taken_over(node):
            if not is_primary(node):
                node.run("CLUSTER", "FAILOVER")
                time.sleep(0.3)
            return is_primary(node)

        for node in [node for node in self.cluster.nodes if not is_primary(node)]:
            wait_for(lambda node=node: has_taken_over(node), 20, "it is primary")
        for node in self.cluster.nodes:
            node.run("SCRIPT", "FLUSH")
        self.cluster.wait_until_ok()

    def loaded(self):
        return self.nearkey.metric("nearkey_cluster_scripts_loaded_total")

    def test_a_replica_that_takes_over_is_told_the_script(self):
        sha = self.load("return 'known ' .. ARGV[1]")
        forged = self.load("redis.call('INCR', KEYS[1]) return redis.error_reply(ARGV[1])")
        self.promote_all()
        words = "NOSCRIPT No matching script."
        clients = [self.client() for _ in range(4)]
        clients[0].send(encode("EVALSHA", sha, "1", "{0}", "x") * 20)
        self.assertEqual([b"known x"] * 20, [parse(r) for r in clients[0].read_replies(20)])
        self.assertEqual(1, self.loaded())  # Not once for each of them.
        for number, client in enumerate(clients):
            keys = [f"{{{n}}}{number}" for n in range(30)]
            client.send(b"".join(encode("EVALSHA", sha.upper() if n % 2 else sha, "1", key, str(n))
                                 for n, key in enumerate(keys)))
            self.assertEqual([f"known {n}".encode() for n in range(30)],
                             [parse(reply) for reply in client.read_replies(30)])
            self.assertEqual(b"known x", parse(client.command("EVALSHA_RO", sha, "0", "x")))
            # One that says so itself has run, once.
            for _ in range(2):
                self.assertEqual(f"-{words}\r\n".encode(),
                                 client.command("EVALSHA", forged, "1", keys[0], words))
            self.assertEqual(b"2", parse(client.command("GET", keys[0])))
        self.assertGreaterEqual(self.loaded(), 3)
        # A node that was told it and has lost it since says so.
        for node in self.cluster.nodes:
            node.run("SCRIPT", "FLUSH")
        before = self.loaded()
        self.assertEqual(f"-{words}\r\n".encode(),
                         clients[0].command("EVALSHA", sha, "1", "{1}", "1"))
        self.assertEqual(before, self.loaded())

    def test_what_clients_flush_is_forgotten(self):
        sha = self.load("return 1")
        self.assertGreater(self.nearkey.metric("nearkey_cluster_scripts_bytes"), 0)
        self.assertEqual(b"+OK\r\n", self.client().command("SCRIPT", "FLUSH"))
        self.assertEqual(0, self.nearkey.metric("nearkey_cluster_scripts_bytes"))
        self.promote_all()
        self.assertTrue(self.client().command("EVALSHA", sha, "1", "x").startswith(b"-NOSCRIPT"))
        self.assertTrue(self.client().command("EVALSHA", "f" * 40, "0").startswith(b"-NOSCRIPT"))

    def test_the_oldest_are_forgotten(self):
        """cluster.scripts_bytes_max"""
        shas = [self.load(f"return '{number}' -- " + "x" * 400) for number in range(5)]
        self.assertLessEqual(self.nearkey.metric("nearkey_cluster_scripts_bytes"), 2000)
        self.assertEqual(2, self.nearkey.metric("nearkey_cluster_scripts_bytes_max_total"))
        self.promote_all()
        client = self.client()
        replies = [client.command("EVALSHA", sha, "1", "x") for sha in shas]
        self.assertEqual([True, True, False, False, False],
                         [reply.startswith(b"-NOSCRIPT") for reply in replies])


@proxy_only
class FewLeasesTest(FollowCase):
    SETTINGS = {"upstream.dedicated_max": 1, "upstream.queue_timeout_ms": 300}

    def test_a_lease_that_can_not_be_had_is_an_error_and_no_more(self):
        slot, source, target = self.ends_of("{w}")
        client, holder = self.client(), self.client()
        there = next(key for key in (f"{{{n}}}" for n in range(1000))
                     if self.cluster.owner_of(self.cluster.slot_of(key)) is target)
        holder.send(encode("BLPOP", there, "0"))
        wait_for(lambda: blocked(target) == 1, 5, "the only lease of the target is taken")
        self.cluster.move(slot, target)
        client.send(encode("EVAL", APPEND, "1", "{w}", "1") * 3)
        replies = client.read_replies(3, timeout=10 * SLOWNESS)
        self.assertTrue(all(reply.startswith(b"-") and b"MOVED" not in reply for reply in replies),
                        replies)
        self.assertIn(b"upstream.dedicated_max", replies[0])
        self.assertEqual(b"+OK\r\n", client.command("SET", there, "1", timeout=5))
        self.assertEqual(0, target.run("EXISTS", "{w}"))


def blocked(node):
    return int(info(node, "blocked_clients"))


if __name__ == "__main__":
    unittest.main()
