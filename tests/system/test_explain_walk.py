"""What NEARKEY EXPLAIN says of a command is what is done with it: every command of the server, in
every state of a session. The deed is seen from outside: over which connection to the server its
bytes went, which metrics moved, what the client got."""

import threading
import time
import unittest

from harness import EVERY_COMMAND, SLOW, SharedSystemTest, proxy_only, show_figure, wait_for
from near_cache import explain
from relay import Relay
from resp import Closed, encode, parse

FORWARDED = "nearkey_commands_forwarded_total"
ANSWERED = "nearkey_commands_answered_total"
REFUSED = "nearkey_commands_refused_total"
HITS = "nearkey_near_cache_hits_total"
TUNNELS = "nearkey_upstream_tunnels"
UNPROVEN = "dedicated, closed afterwards unless the server refused"
WHOLE = "shared if the transaction arrives whole, else dedicated"
REFUSAL = "refused by rule"

# Calls of what would wait for long, stop the server or turn it into another's replica if it were
# called with any words; and more calls of what goes by its words.
CALLS = {
    "blpop": [("none", "0.001")],
    "brpop": [("none", "0.001")],
    "bzpopmin": [("none", "0.001")],
    "bzpopmax": [("none", "0.001")],
    "blmove": [("none", "none2", "LEFT", "LEFT", "0.001")],
    "brpoplpush": [("none", "none2", "0.001")],
    "blmpop": [("0.001", "1", "none", "LEFT")],
    "bzmpop": [("0.001", "1", "none", "MIN")],
    "xread": [("STREAMS", "none", "0"), ("BLOCK", "1", "STREAMS", "none", "0")],
    "xreadgroup": [
        ("GROUP", "g", "c", "STREAMS", "none", ">"),
        ("GROUP", "g", "c", "BLOCK", "1", "STREAMS", "none", ">"),
    ],
    "wait": [("0", "1")],
    "waitaof": [("0", "0", "1")],
    "migrate": [("1", "1", "none", "0", "1")],
    "shutdown": [("1",)],
    "replicaof": [("1", "x")],
    "slaveof": [("1", "x")],
    "client|reply": [("ON",)],
    "debug": [("HELP",), ("1",)],
    "hello": [(), ("3",), ("2",), ("4",), ("3", "AUTH", "u", "p"), ("3", "AUTH", "u")],
    "select": [("0",), ("5",), ("x",), ("-1",)],
    "mget": [("k",), ("k", "l")],
    "exists": [("k",), ("k", "l")],
    "config|get": [("maxmemory",), ("*",)],
}
# They have no reply: their client is a replica from then on.
SILENT = ("sync", "psync")

SUBSCRIBE = ("SUBSCRIBE", "c")
# With a sanitizer each call is made in a fourth of the states.
SHARE = 4 if SLOW else 1
STATES = {
    "RESP2": (),
    "RESP3": (("HELLO", "3"),),
    "database 3": (("SELECT", "3"),),
    "in MULTI": (("MULTI",),),
    "watching": (("WATCH", "w"),),
    "subscribed, RESP2": (SUBSCRIBE,),
    "subscribed, RESP3": (("HELLO", "3"), SUBSCRIBE),
}


class Tap(Relay):
    """Hears what nearkey sends, over which connection, and when that is closed."""

    def __init__(self, path, target):
        self.heard = []
        self.closed = set()
        self.taps = threading.Lock()
        super().__init__(path, target)

    def _pump_requests(self, near, far, asked):
        with self.taps:
            number = len(self.heard)
            self.heard.append(bytearray())
        try:
            while data := near.recv(1 << 16):
                self.heard[number] += data
                far.sendall(data)
        except OSError:
            pass
        self.closed.add(number)
        super()._pump_requests(near, far, asked)

    def lengths(self):
        return [len(bytes_) for bytes_ in list(self.heard)]

    def since(self, lengths):
        """What was heard since then, of the connections where anything was."""
        heard = list(self.heard)
        lengths = lengths + [0] * (len(heard) - len(lengths))
        later = {i: bytes(heard[i][length:]) for i, length in enumerate(lengths)}
        return {i: data for i, data in later.items() if data}


def cache_of(said):
    """What the near cache does; an answer from several keys is a hit if each of them is."""
    if "cache" in said:
        return said["cache"].decode()
    keys = [value for name, value in said.items() if name.startswith("cache, key")]
    return "hit" if all(value.startswith(b"hit: ") for value in keys) else "miss"


@proxy_only
class WalkTest(SharedSystemTest):
    silent = SILENT
    server_args = ("--enable-debug-command", "yes")
    settings = {
        **EVERY_COMMAND,
        "upstream.connections": 1,
        "near_cache.thrash_guard": "false",
    }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.nearkey.stop()
        cls.tap = Tap(cls.directory + "/tap.sock", cls.server.path)
        cls.addClassCleanup(cls.tap.close)
        cls.nearkey = type(cls.nearkey)(
            cls.directory, f"unix://{cls.tap.path}", settings=cls.settings
        )
        cls.addClassCleanup(cls.nearkey.kill)
        cls.nearkey.start()
        cls.addClassCleanup(cls.nearkey.stop)

    def commands(self):
        """(name, arity) of each command and sub-command, and of what only nearkey knows."""
        for entry in parse(self.direct.command("COMMAND")):
            for name, arity, *_ in entry[9] or [entry]:
                yield name.decode(), arity
        yield from (("nearkey", -1), ("post", -1), ("host:", -1), ("nosuch", -1))

    def calls(self, name, arity):
        words = name.split("|")
        for arguments in CALLS.get(name, [("1",) * (abs(arity) - len(words))]):
            yield (*words, *arguments)

    def is_shared(self, number, call):
        """Of the connections that carry commands, only those that clients share are tracked, soon
        after they are made."""
        return b"TRACKING" in self.tap.heard[number].replace(encode(*call), b"")

    def carriers(self, call, heard):
        """The connections over which the call went, of all that were heard meanwhile."""
        return [number for number, data in heard.items() if encode(*call) in data]

    def do(self, client, call, lengths):
        """Its reply; b"" if the client was closed instead, or there is none."""
        client.send(encode(*call))
        if call[0] in self.silent:
            wait_for(lambda: self.carriers(call, self.tap.since(lengths)), 5, f"{call} is sent")
            return b""
        try:
            return client.read_reply()
        except (Closed, ConnectionResetError):
            return b""

    def expected(self, said):
        """The way that EXPLAIN told of."""
        route = said["route"].decode()
        if cache_of(said) == "hit":
            return "local"
        if route in (WHOLE, UNPROVEN):
            return "dedicated"
        return "closed" if route == "the client is closed" else route

    def deed(self, call, carriers, moved, expected):
        """The way that the call was seen to go."""
        if moved[TUNNELS]:
            return "tunnel"
        if not carriers:
            return "local" if moved[ANSWERED] else "closed"
        if expected == "shared":
            wait_for(lambda: self.is_shared(carriers[0], call), 5, "its connection is tracked")
        return "shared" if self.is_shared(carriers[0], call) else "dedicated"

    def quiet_metrics(self):
        """When the former client's tunnel is gone."""
        deadline = time.monotonic() + 5
        while (metrics := self.nearkey.metrics())[TUNNELS] > 0:
            self.assertLess(time.monotonic(), deadline, "a tunnel is left")
        return metrics

    def check(self, prepare, call):
        with self.nearkey.client() as client:
            client.pipeline(prepare)
            before = self.quiet_metrics()
            said = explain(client, *call)
            lengths = self.tap.lengths()
            reply = self.do(client, call, lengths)
            heard = self.tap.since(lengths)
            after = self.nearkey.metrics()
            moved = {name: after[name] - before[name] for name in (FORWARDED, ANSWERED, HITS)}
            moved[ANSWERED] -= 1  # EXPLAIN itself
            moved[TUNNELS] = after[TUNNELS]
            if call[0] == "select" and said["route"] == b"local" and moved[FORWARDED]:
                return  # Whether the database exists the server is asked once.
            carriers = self.carriers(call, heard)
            self.assertEqual(moved[FORWARDED], len(carriers), (said, heard, moved))
            expected = self.expected(said)
            deed = self.deed(call, carriers, moved, expected)
            self.assertEqual(expected, deed, (said, heard))
            self.assertEqual(cache_of(said) == "hit", moved[HITS] > 0 and not carriers, said)
            is_filled = any(b"PTTL" in data for data in heard.values())
            is_new = any(b"TRACKING" in heard[i].replace(encode(*call), b"") for i in carriers)
            if not is_new:  # Else it is not tracked yet.
                self.assertEqual(cache_of(said) == "miss", is_filled, (said, heard))
            if said["route"].decode() == UNPROVEN and not prepare and not reply.startswith(b"-"):
                wait_for(lambda: carriers[0] in self.tap.closed, 5, "its connection is closed")

    def check_in_tunnel(self, prepare, call):
        """The server is asked to explain, too, and all goes over the tunnel's connection."""
        before = self.quiet_metrics()
        with self.nearkey.client() as client:
            lengths = self.tap.lengths()
            client.pipeline(prepare)
            [tunnel] = self.carriers(prepare[-1], self.tap.since(lengths))
            self.assertIn(b"nearkey", client.command("NEARKEY", "EXPLAIN", *call).lower())
            lengths = self.tap.lengths()
            reply = self.do(client, call, lengths)
            self.assertEqual([tunnel], self.carriers(call, self.tap.since(lengths)))
            after = self.nearkey.metrics()
            self.assertEqual(3, after[FORWARDED] - before[FORWARDED])
            self.assertEqual(len(prepare) - 1, after[ANSWERED] - before[ANSWERED])
            if reply == b"+RESET\r\n":
                self.quiet_metrics()
            elif reply.startswith(b"-"):
                self.assertEqual(1, after[TUNNELS])

    def warm_up(self, prepare):
        """The connection that clients of this protocol and database share is tracked."""
        ask = ("ECHO", "warm")
        lengths = self.tap.lengths()
        with self.nearkey.client() as client:
            client.pipeline([words for words in prepare if words[0] in ("HELLO", "SELECT")])
            client.command(*ask)
            [number] = self.carriers(ask, self.tap.since(lengths))
            wait_for(lambda: self.is_shared(number, ask), 5, "it is tracked")

    def walk(self, state, calls):
        prepare = STATES[state]
        self.warm_up(prepare)
        for call in calls:
            with self.subTest(state=state, call=call):
                if prepare[-1:] == (SUBSCRIBE,):
                    self.check_in_tunnel(prepare, call)
                else:
                    self.check(prepare, call)

    def all_calls(self):
        return [call for name, arity in self.commands() for call in self.calls(name, arity)]

    def test_sound_calls(self):
        calls = self.all_calls()
        self.assertGreater(len(calls), 350)
        for number, state in enumerate(STATES):
            self.walk(state, calls[number % SHARE :: SHARE])
        show_figure(f"{len(calls)} calls in {len(STATES)} states")

    def test_calls_that_the_server_will_not_run(self):
        calls = [(name.split("|")[0], *name.split("|")[1:], *["x"] * 40)
                 if arity > 0 else tuple(name.split("|"))
                 for name, arity in self.commands()
                 if arity > 0 or -arity > len(name.split("|"))]  # fmt: skip
        self.assertGreater(len(calls), 250)
        self.silent = ()
        for state in ("RESP2", "in MULTI"):
            self.walk(state, calls)

    def test_reads_that_are_stored(self):
        """The second of two equal reads: what EXPLAIN calls a hit asks nobody."""
        calls = [("get", "k"), ("mget", "k"), ("exists", "k"), ("strlen", "k"), ("ttl", "k"),
                 ("hget", "h", "f"), ("object", "encoding", "k")]  # fmt: skip
        for state in ("RESP2", "RESP3", "database 3", "in MULTI", "watching"):
            self.walk(state, calls + calls)

    def test_a_transaction_that_arrives_whole_goes_over_the_shared_connection(self):
        with self.nearkey.client() as client:
            self.assertEqual(WHOLE.encode(), explain(client, "MULTI")["route"])
            client.command("PING")
            lengths = self.tap.lengths()
            client.pipeline([("MULTI",), ("GET", "k"), ("EXEC",)])
            [number] = self.carriers(("GET", "k"), self.tap.since(lengths))
            self.assertTrue(self.is_shared(number, ("GET", "k")))


@proxy_only
class RefusedTest(WalkTest):
    """The same of commands that the rules refuse: all but a few."""

    silent = ()
    settings = {**WalkTest.settings, "server.commands": "nocommands +nearkey +multi +watch +echo "
                "+select +subscribe +exec +config|get"}

    def test_sound_calls(self):
        for state in ("RESP2", "in MULTI"):
            prepare = STATES[state]
            for call in self.all_calls():
                with self.subTest(state=state, call=call), self.nearkey.client() as client:
                    client.pipeline(prepare)
                    said = explain(client, *call)["route"].decode()
                    before = self.nearkey.metric(REFUSED)
                    reply = self.do(client, call, self.tap.lengths())
                    refused = self.nearkey.metric(REFUSED) - before
                    self.assertEqual(said == REFUSAL, refused == 1, (said, reply))
                    if refused:
                        self.assertIn(b"has no permissions to run the", reply)

    test_calls_that_the_server_will_not_run = None
    test_reads_that_are_stored = None
    test_a_transaction_that_arrives_whole_goes_over_the_shared_connection = None


if __name__ == "__main__":
    unittest.main()
