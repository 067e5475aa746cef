"""No client's words are taken for another's reply: commands whose replies may be more than they
seem never travel on a connection that others share, a connection is lent again only when nothing
is left over on it, and a server that says more than it was asked for is given up."""

import threading
import time
import unittest

import forging
from fake_valkey import FakeUpstreamTest, bulk, echo_argument
from harness import EVERY_COMMAND, SystemTest, is_server, proxy_only, show_figure, wait_for
from leases import LeaseTest
from resp import encode

FORGED_LIBRARY = b'#!lua name=x "foo\\r\\n:-1\\r\\n$6\\r\\nhacked"\nreturn 1'
FORGED_FLAGS = b'#!lua flags="a\\r\\n:-1\\r\\n$6\\r\\nhacked"\nreturn 1'
FORGED_ERROR = 'error("a\\r\\n:-1\\r\\n$6\\r\\nhacked")'
CONNECTS = "nearkey_upstream_connects_total"
VIOLATIONS = "nearkey_upstream_protocol_errors_total"


class EveryCommandTest(LeaseTest):
    settings = EVERY_COMMAND
    # Known to say more than one reply, in Valkey 8.0 besides: the search must be able to find them.
    KNOWN = {"function|load", "function|restore", "script|load"}
    KNOWN_OF_8_0 = {"eval", "fcall", "function|list"}

    @proxy_only
    def test_no_command_that_can_say_more_than_one_reply_goes_over_a_shared_connection(self):
        prober = forging.Prober(self.server)
        self.addCleanup(prober.close)
        self.addCleanup(self.server.run, "FUNCTION", "FLUSH")
        prober.search()
        show_figure(f"{prober.calls} calls with line ends; more than one reply was said by "
                    f"{' '.join(sorted(prober.forging))}")
        self.assertGreater(prober.calls, 30_000)
        client = self.client()
        shared = {}
        for name, call in prober.forging.items():
            facts = client.value("NEARKEY", "EXPLAIN", *call)
            route = dict(zip(facts[::2], facts[1::2]))[b"route"]
            if route.startswith(b"shared") or route == b"local":
                shared[name] = (route, call)
        self.assertEqual({}, shared)
        known = self.KNOWN | (self.KNOWN_OF_8_0 if is_server("Valkey server v=8.0.") else set())
        self.assertEqual(set(), known - set(prober.forging))


@proxy_only
class ForgingTest(LeaseTest):
    """What a client forges reaches nobody but itself, and it itself gets Valkey's own bytes."""

    settings = {**EVERY_COMMAND, "upstream.dedicated_idle_max": 4}

    def setUp(self):
        super().setUp()
        self.direct.command("FUNCTION", "FLUSH")
        dump = self.direct.value("FUNCTION", "DUMP")
        restored = forging.dumped(FORGED_LIBRARY, dump[-10:-8])
        self.addCleanup(self.server.run, "FUNCTION", "FLUSH")
        self.forgers = [
            (("FUNCTION", "LOAD", FORGED_LIBRARY),),
            (("FUNCTION", "RESTORE", restored),),
            (("FUNCTION", "LIST", "x\r\n:-1\r\n$6\r\nhacked"),),
            (("SCRIPT", "LOAD", FORGED_FLAGS),),
            (("EVAL", FORGED_FLAGS, "0"),),
            (("EVAL", FORGED_ERROR, "0"),),
            (("MULTI",), ("EVAL", FORGED_ERROR, "0"), ("EXEC",)),
            (("MULTI",), ("SCRIPT", "LOAD", FORGED_FLAGS), ("EXEC",)),
            (("WATCH", "k"), ("MULTI",), ("FUNCTION", "LOAD", FORGED_LIBRARY), ("EXEC",)),
        ]

    def all_bytes(self, address, commands):
        """Sent one by one, each behind the first reply to the one before."""
        client = self.client_of(address)
        replies = []
        for command in commands:
            replies.append(client.command(*command))
        client.send(encode("ECHO", "the end"))
        while not client.buffer.endswith(b"the end\r\n"):
            self.assertTrue(client.receive_some())
        return replies, bytes(client.buffer)

    def test_who_forges_gets_the_servers_own_first_reply(self):
        for commands in self.forgers:
            with self.subTest(commands):
                expected, _ = self.all_bytes(self.server.path, commands)
                replies, _ = self.all_bytes(self.address, commands)
                self.assertEqual(expected, replies)

    def test_what_one_client_forges_no_other_client_reads(self):
        """Readers of everything at once: plain reads, scripts, transactions, WATCH."""
        stop = threading.Event()
        wrong = []
        threads = [threading.Thread(target=self.read, args=(number, stop, wrong))
                   for number in range(6)]
        threads += [threading.Thread(target=self.forge, args=(commands, stop))
                    for commands in self.forgers]
        for thread in threads:
            thread.start()
        time.sleep(4)
        stop.set()
        for thread in threads:
            thread.join(20)
        self.assertEqual([], wrong)
        self.assertEqual("0", str(self.nearkey.metric("nearkey_upstream_lost_total")))

    def forge(self, commands, stop):
        while not stop.is_set():
            client = self.client()
            try:
                client.send(b"".join(encode(*command) for command in commands))
                client.read_replies(len(commands))
            finally:
                client.close()

    def read(self, number, stop, wrong):
        client = self.client()
        turn = 0
        while not stop.is_set() and not wrong:
            turn += 1
            word = f"{number}.{turn}"
            client.send(
                encode("ECHO", word)
                + encode("EVAL", "return ARGV[1]", "0", word)
                + encode("EVALSHA", "f" * 40, "0")
                + encode("MULTI")
                + encode("ECHO", word)
                + encode("EXEC")
                + encode("WATCH", word)
                + encode("MULTI")
                + encode("EVAL", "return {ARGV[1]}", "0", word)
                + encode("EXEC")
                + encode("ECHO", word)
            )
            replies = client.read_replies(11)
            text = bulk(word.encode())
            one = b"*1\r\n" + text
            if replies != [text, text, replies[2], b"+OK\r\n", b"+QUEUED\r\n", one, b"+OK\r\n",
                           b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n" + one, text]:
                wrong.append(replies)
            if not replies[2].startswith(b"-NOSCRIPT "):
                wrong.append(replies)


@proxy_only
class ScriptErrorTest(LeaseTest):
    COUNT = 4000

    def timed(self, address, command):
        client = self.client_of(address)
        started = time.monotonic()
        for _ in range(self.COUNT):
            self.assertEqual(b"-", client.command(*command)[:1])
        return time.monotonic() - started

    def test_errors_of_scripts_cost_no_new_connections(self):
        for command in (("EVALSHA", "f" * 40, "0"), ("EVAL", "return {err='MY words'}", "0"),
                        ("FCALL", "nosuch", "0"), ("EVAL", "error('x')", "0")):
            with self.subTest(command):
                before = self.nearkey.metric(CONNECTS)
                direct = self.timed(self.server.path, command)
                seconds = self.timed(self.address, command)
                connects = self.nearkey.metric(CONNECTS) - before
                show_figure(f"{self.COUNT} times {' '.join(command)[:24]}: {seconds:.2f} s "
                            f"(directly {direct:.2f} s), {connects:.0f} connections made")
                self.assertLess(connects, 10)

    def test_clients_whose_scripts_fail_at_once_share_a_few_connections(self):
        before = self.nearkey.metric(CONNECTS)
        clients = [self.client() for _ in range(4)]
        for _ in range(250):
            for client in clients:
                client.send(encode("EVALSHA", "f" * 40, "0"))
            for client in clients:
                self.assertEqual(b"-NOSCRIPT ", client.read_reply()[:10])
        self.assertLess(self.nearkey.metric(CONNECTS) - before, 30)

    def own_commands(self):
        """Calls so far of commands that only nearkey sends here."""
        text = self.direct.value("INFO", "commandstats").decode()
        calls = {}
        for line in text.splitlines():
            if line.startswith("cmdstat_"):
                name, values = line[len("cmdstat_"):].split(":", 1)
                calls[name] = int(values.split(",")[0].removeprefix("calls="))
        return {name: calls.get(name, 0) for name in
                ("hello", "select", "client|setname", "client|setinfo", "ping")}

    def test_of_nearkeys_own_a_thousand_failing_scripts_send_a_ping_each(self):
        client = self.client()
        client.command("EVALSHA", "f" * 40, "0")
        before = self.own_commands()
        for _ in range(1000):
            client.command("EVALSHA", "f" * 40, "0")
        after = self.own_commands()
        more = {name: after[name] - before[name] for name in before}
        show_figure(f"nearkey's own commands for 1,000 failing scripts: {more}")
        self.assertLess(more["ping"], 3200)  # And one for each connection that tells of changes.
        # A heartbeat is a HELLO and a PING: of those there are as many as the time it takes.
        heartbeats = more["ping"] - 1000
        self.assertLess(more["hello"] - heartbeats, 10, more)
        for name in ("select", "client|setname", "client|setinfo"):
            self.assertLess(more[name], 10, more)


@proxy_only
class SurplusTest(FakeUpstreamTest):
    """A server that says more than it was asked for, on a connection that many share."""

    def start(self, **settings):
        self.nearkey = self.start_nearkey(
            self.fake.url, settings={"upstream.connections": 1, **settings}
        )
        return self.nearkey.client()

    def test_a_reply_that_nobody_asked_for_is_a_violation_that_is_logged_and_counted(self):
        client = self.start()
        self.addCleanup(client.close)
        self.fake.answers["get"] = lambda args: bulk(args[1]) + b"+STRAY\r\n"
        self.assertEqual(bulk(b"k"), client.command("GET", "k"))
        self.nearkey.wait_logged("upstream_violation")
        self.assertEqual(1, self.nearkey.metric(VIOLATIONS))
        self.fake.answers["get"] = echo_argument
        self.nearkey.wait_ready(5)
        self.assertEqual(bulk(b"k"), client.command("GET", "k"))

    def test_a_heartbeat_that_gets_another_reply_than_its_own_is_a_violation(self):
        """So replies that are off by one have an end where something is in flight all the time."""
        client = self.start(**{"upstream.heartbeat_interval_ms": 50})
        self.addCleanup(client.close)
        self.fake.answers["ping"] = b"$5\r\nSTRAY\r\n"
        self.nearkey.wait_logged("upstream_violation")
        del self.fake.answers["ping"]
        self.nearkey.wait_ready(5)
        self.assertEqual(bulk(b"k"), client.command("GET", "k"))


if __name__ == "__main__":
    unittest.main()
