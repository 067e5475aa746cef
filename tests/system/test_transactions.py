"""Transactions (traps.md, S2, S3, C18): one that arrives whole travels as one piece over a shared
connection, every other one has a connection of its own until it is over."""

import threading
import unittest

try:
    import redis
except ImportError:  # Debian: python3-redis
    redis = None

from harness import SharedSystemTest, proxy_only, wait_for
from leases import LEASED, LeaseTest
from near_cache import explain
from resp import encode, parse

WHOLE = "nearkey_transactions_whole_total"
OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
NIL = {2: b"*-1\r\n", 3: b"_\r\n"}


@proxy_only
class WholeTransactionTest(SharedSystemTest):
    """No test here needs a lease, so no connection is made but the shared ones."""

    settings = {"upstream.connections": 1}

    def setUp(self):
        super().setUp()
        self.client().command("PING")
        # By then nearkey has made the connections of its own.
        tracking = "nearkey_near_cache_tracking"
        wait_for(lambda: self.nearkey.metric(tracking) == 1, 5, "tracking")
        self.before = self.nearkey.metrics()

    def assert_no_lease(self, whole):
        """So many whole transactions since the test began, and not one new connection."""
        after = self.nearkey.metrics()
        self.assertEqual(0, after[LEASED])
        self.assertEqual(whole, after[WHOLE] - self.before[WHOLE])
        connects = "nearkey_upstream_connects_total"
        self.assertEqual(self.before[connects], after[connects], "a connection was made for it")

    def test_trap_S3_a_whole_transaction_costs_no_lease(self):
        commands = [("MULTI",), ("SET", "k", "1"), ("INCR", "k"), ("GET", "k"), ("EXEC",)]
        client = self.client()
        self.assertEqual(
            [OK, QUEUED, QUEUED, QUEUED, b"*3\r\n+OK\r\n:2\r\n$1\r\n2\r\n"],
            client.pipeline(commands),
        )
        self.assert_no_lease(1)
        for _ in range(50):
            client.send(b"".join(encode(*command) for command in commands) * 4)
            for _ in range(4):
                self.assertEqual([b"OK", 2, b"2"], parse(client.read_replies(5)[-1]))
        self.assert_no_lease(201)

    def test_trap_S3_a_discarded_one_and_an_aborted_one_cost_no_lease(self):
        client = self.client()
        replies = client.pipeline([("MULTI",), ("SET", "k", "1"), ("DISCARD",), ("GET", "k")])
        self.assertEqual([OK, QUEUED, OK, b"$-1\r\n"], replies)
        replies = client.pipeline([("MULTI",), ("SET", "k", "1", "NOSUCH"), ("EXEC",)])
        self.assertEqual([OK, QUEUED, b"*1\r\n-ERR syntax error\r\n"], replies)
        self.assert_no_lease(2)

    def test_trap_S3_exec_discard_and_unwatch_without_one_cost_no_lease(self):
        commands = [("EXEC",), ("DISCARD",), ("UNWATCH",), ("PING",)]
        self.assertEqual(
            [b"-ERR EXEC without MULTI\r\n", b"-ERR DISCARD without MULTI\r\n", OK],
            self.assert_same_replies(commands)[:3],
        )
        self.assert_no_lease(0)

    @unittest.skipIf(redis is None, "python3-redis is not installed")
    def test_trap_S3_the_pipeline_of_redis_py_costs_no_lease(self):
        app = redis.Redis(unix_socket_path=self.address, socket_timeout=15)
        self.addCleanup(app.close)
        app.ping()
        for number in range(20):
            with app.pipeline() as pipe:
                pipe.set("a", number).incr("n").get("a").lpush("l", number)
                self.assertEqual(
                    [True, number + 1, b"%d" % number, number + 1], pipe.execute(), number
                )
        with app.pipeline() as pipe:
            pipe.set("a", "text").incr("a").get("a")
            results = pipe.execute(raise_on_error=False)
            self.assertIsInstance(results[1], redis.ResponseError)
            self.assertEqual([True, b"text"], [results[0], results[2]])
        self.assert_no_lease(21)

    def test_trap_S3_whole_transactions_of_many_clients_never_mix(self):
        """Each one's block reads what it wrote, whatever others write between the blocks."""
        failures = []

        def work(number):
            with self.nearkey.client() as client:
                for turn in range(100):
                    mine = f"{number}:{turn}"
                    replies = client.pipeline(
                        [
                            ("MULTI",),
                            ("SET", "shared", mine),
                            ("APPEND", "shared", "!"),
                            ("GET", "shared"),
                            ("EXEC",),
                            ("ECHO", mine),
                        ]
                    )
                    expected = [b"OK", len(mine) + 1, f"{mine}!".encode()]
                    got = [parse(replies[4]), parse(replies[5])]
                    if got != [expected, mine.encode()]:
                        failures.append((mine, replies))

        run_threads([threading.Thread(target=work, args=(n,)) for n in range(12)])
        self.assertEqual([], failures)
        self.assert_no_lease(1200)


def run_threads(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"


class CutTransactionTest(LeaseTest):
    def test_trap_S3_a_transaction_that_is_cut_anywhere_is_answered_the_same(self):
        """The first part is known to have arrived when the PING before it is answered."""
        block = b"".join(
            encode(*command)
            for command in [("MULTI",), ("INCR", "n"), ("ECHO", "x"), ("EXEC",), ("ECHO", "y")]
        )
        client = self.client()
        for count, cut in enumerate(range(1, len(block)), start=1):
            client.send(encode("PING") + block[:cut])
            self.assertEqual(b"+PONG\r\n", client.read_reply())
            client.send(block[cut:])
            self.assertEqual(
                [
                    *(OK, QUEUED, QUEUED),
                    b"*2\r\n:%d\r\n$1\r\nx\r\n" % count,
                    b"$1\r\ny\r\n",
                ],
                client.read_replies(5),
            )
        self.wait_leased(0)

    def test_what_another_client_left_half_read_is_nobody_elses(self):
        multi, get, end = encode("MULTI"), encode("GET", "none"), encode("EXEC")
        for cut in (1, 2, 4, len(get) - 1):
            one, other = self.client(), self.client()
            # A line of blanks makes the next request inline, whatever it is.
            one.send(multi + b"  \r\n*1\r\n")
            self.assertEqual([OK, b"-ERR unknown command '*1', with args beginning with: \r\n"],
                             [one.read_reply(), one.read_reply()])
            other.send(multi + get[:cut])
            self.assertEqual(OK, other.read_reply())
            other.send(get[cut:] + end)
            self.assertEqual([QUEUED, b"*1\r\n$-1\r\n"],
                             [other.read_reply(), other.read_reply()])

    def test_long_and_large_transactions(self):
        """More commands than may be in flight, and more bytes than travel as one piece."""
        large = "x" * 300_000
        for commands in (
            [("INCR", "n")] * 5000,
            [("SET", "large", large), ("GET", "large")] * 6,
        ):
            whole = [("MULTI",), *commands, ("EXEC",), ("PING",)]
            replies = self.assert_same_talk(lambda at: self.client_of(at).pipeline(whole))
            self.assertEqual(len(commands), len(parse(replies[-2])))

    def test_transactions_in_another_database_and_under_a_name(self):
        client = self.client()
        client.pipeline([("SELECT", "4"), ("CLIENT", "SETNAME", "me")])
        self.assertEqual(OK, client.command("MULTI"))
        client.pipeline([("SET", "k", "four"), ("CLIENT", "LIST")])
        listed = parse(client.command("EXEC"))[1].decode()
        own = [line for line in listed.splitlines() if " cmd=exec " in line]
        self.assertEqual(1, len(own), listed)
        self.assertIn(" name=me ", own[0])
        self.assertIn(" db=4 ", own[0])
        self.assertEqual(b"four", client.value("GET", "k"))
        self.assertIsNone(self.direct.value("GET", "k"))


class WatchTest(LeaseTest):
    def watch(self, protocol, *keys):
        client = self.resp_client(protocol)
        self.assertEqual(OK, client.command("WATCH", *keys))
        self.wait_leased(1)
        return client

    def test_trap_S2_a_write_of_another_client_makes_exec_nil(self):
        for protocol in (2, 3):
            for other in (self.client(), self.direct):
                with self.subTest(protocol=protocol, direct=other is self.direct):
                    client = self.watch(protocol, "k", "l")
                    other.command("INCR", "k")
                    replies = client.pipeline([("MULTI",), ("SET", "k", "mine"), ("EXEC",)])
                    self.assertEqual([OK, QUEUED, NIL[protocol]], replies)
                    self.assertNotEqual(b"mine", client.value("GET", "k"))
                    self.wait_leased(0)

    def test_trap_S2_without_a_conflict_exec_runs(self):
        for protocol in (2, 3):
            client, other = self.watch(protocol, "k"), self.client()
            other.command("SET", "another", "x")
            self.assertEqual(OK, client.command("MULTI"))
            self.assertEqual(QUEUED, client.command("SET", "k", "mine"))
            self.assertEqual(b"*1\r\n+OK\r\n", client.command("EXEC"))
            self.wait_leased(0)
            self.assertEqual(b"mine", other.value("GET", "k"))

    def test_trap_S2_exec_and_unwatch_of_others_do_not_unwatch(self):
        client, other = self.watch(2, "k"), self.client()
        other.pipeline([("SET", "k", "theirs"), ("UNWATCH",), ("EXEC",), ("DISCARD",)])
        other.pipeline([("MULTI",), ("PING",), ("EXEC",)])
        other.pipeline([("WATCH", "k"), ("UNWATCH",)])
        replies = client.pipeline([("MULTI",), ("SET", "k", "mine"), ("EXEC",)])
        self.assertEqual(NIL[2], replies[2])
        self.assertEqual(b"theirs", client.value("GET", "k"))

    def test_trap_S2_our_own_write_between_watch_and_multi(self):
        commands = [("WATCH", "k"), ("SET", "k", "1"), ("MULTI",), ("SET", "k", "2"), ("EXEC",)]
        self.assertEqual(NIL[2], self.assert_same_replies(commands)[-1])

    def test_unwatch_discard_and_reset_end_it(self):
        for ending in ([("UNWATCH",)], [("MULTI",), ("DISCARD",)], [("RESET",)]):
            with self.subTest(ending):
                client = self.watch(2, "k")
                client.pipeline(ending)
                self.wait_leased(0)
                self.direct.command("INCR", "k")
                replies = client.pipeline([("MULTI",), ("SET", "k", "1"), ("EXEC",)])
                self.assertEqual(b"*1\r\n+OK\r\n", replies[2])

    def test_trap_S2_many_clients_count_with_optimistic_locks(self):
        """The counter is as large as the number of EXEC that were not nil."""
        succeeded, failures = [0] * 10, []

        def work(number):
            with self.client_of(self.address) as client:
                for turn in range(40):
                    client.command("WATCH", "counter")
                    value = int(client.value("GET", "counter") or 0)
                    set_it = ("SET", "counter", value + 1)
                    if turn % 2:
                        done = parse(client.pipeline([("MULTI",), set_it, ("EXEC",)])[2])
                    else:
                        client.command("MULTI")
                        client.command(*set_it)
                        done = client.value("EXEC")
                    if done == [b"OK"]:
                        succeeded[number] += 1
                    elif done is not None:
                        failures.append(done)

        run_threads([threading.Thread(target=work, args=(n,)) for n in range(10)])
        self.assertEqual([], failures)
        self.assertGreater(sum(succeeded), 0)
        self.assertEqual(b"%d" % sum(succeeded), self.direct.value("GET", "counter"))

    @unittest.skipIf(redis is None, "python3-redis is not installed")
    def test_trap_S2_transaction_of_redis_py(self):
        app = redis.Redis(unix_socket_path=self.address, socket_timeout=15)
        self.addCleanup(app.close)
        app.set("k", 5)
        conflicts = [True, True, False]

        def double(pipe):
            value = int(pipe.get("k"))
            if conflicts.pop(0):
                self.direct.command("SET", "k", value + 1)
            pipe.multi()
            pipe.set("k", value * 2)

        self.assertEqual([True], app.transaction(double, "k"))
        self.assertEqual(b"14", app.get("k"))
        with app.pipeline() as pipe:
            pipe.watch("k")
            self.direct.command("SET", "k", 0)
            pipe.multi()
            pipe.incr("k")
            with self.assertRaises(redis.WatchError):
                pipe.execute()
        self.wait_leased(0)


@proxy_only
class TransactionLeaseTest(LeaseTest):
    settings = {"upstream.connections": 1}

    def test_leases_go_back_and_are_used_again(self):
        client = self.client()
        client.pipeline([("WATCH", "k"), ("UNWATCH",)])
        self.wait_leased(0)
        before = self.nearkey.metrics()
        for _ in range(20):
            for command in (("WATCH", "k"), ("MULTI",), ("INCR", "k"), ("EXEC",)):
                client.command(*command)
            self.wait_leased(0)
        after = self.nearkey.metrics()
        self.assertEqual(b"20", client.value("GET", "k"))
        connects = "nearkey_upstream_connects_total"
        self.assertEqual(before[connects], after[connects])
        self.assertEqual(before[WHOLE], after[WHOLE])

    def test_who_goes_away_in_the_middle_leaves_nothing_behind(self):
        """Neither a lease, nor a transaction or a watched key that the next one would inherit."""
        for commands in (
            [("WATCH", "k")],
            [("MULTI",)],
            [("MULTI",), ("SET", "k", "never")],
            [("WATCH", "k"), ("MULTI",), ("SET", "k", "never")],
        ):
            clients = [self.client() for _ in range(10)]
            for client in clients:
                for command in commands:
                    client.command(*command)
            self.wait_leased(10)
            self.direct.command("SET", "k", "theirs")
            for client in clients:
                client.close()
            self.wait_leased(0)
            fields = ("multi", "watch")
            wait_for(
                lambda: all(
                    ("-1", "0") == tuple(row[field] for field in fields)
                    for row in self.server.clients()
                ),
                5,
                f"nothing is left of {commands}",
            )
            self.assertEqual(b"theirs", self.direct.value("GET", "k"))
            heir = self.client()
            self.assertEqual(OK, heir.command("MULTI"))
            heir.command("GET", "k")
            self.assertEqual([b"theirs"], heir.value("EXEC"))
            self.wait_leased(0)

    def test_a_half_close_in_the_middle_of_a_transaction(self):
        for data in (encode("MULTI") + encode("SET", "k", "v"), encode("WATCH", "k")):
            self.assert_same_answer(data)
        self.wait_leased(0)
        self.assertIsNone(self.direct.value("GET", "k"))



@proxy_only
class ExplainTest(LeaseTest):
    def test_explain_tells_the_way_that_a_command_takes_in_a_transaction(self):
        for begin in ([("MULTI",)], [("WATCH", "w")], [("WATCH", "w"), ("MULTI",)]):
            for command, stays in (
                (("GET", "k"), True),
                (("SET", "k", "v"), True),
                (("EVAL", "return 1", "0"), True),
                (("BLPOP", "none", "0.01"), True),
                (("SET", "k"), True),
                (("NOSUCH",), True),
                (("SELECT", "3"), True),
                (("CLIENT", "SETNAME", "me"), True),
                (("CLIENT", "ID"), True),
                (("EXEC",), begin == [("WATCH", "w")]),
                (("RESET",), False),
            ):
                with self.subTest(begin, command=command):
                    client = self.client()
                    client.pipeline(begin)
                    route = explain(client, *command)["route"]
                    client.command(*command)
                    self.wait_leased(1 if stays else 0)
                    tunnels = self.nearkey.metric("nearkey_upstream_tunnels")
                    taken = b"tunnel" if tunnels else b"local" if command[0] == "RESET" else b"dedicated"
                    if command[0] == "NOSUCH":
                        taken = b"dedicated, closed afterwards unless the server refused"
                    self.assertEqual(taken, route)
                    client.close()
                    self.wait_leased(0)


if __name__ == "__main__":
    unittest.main()
