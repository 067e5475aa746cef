"""The judges of tests/liveness and tests/fuzz/parsers.py: a proxy that keeps back, delays or
changes what passes is found out, and an honest one is not."""

import argparse
import os
import shutil
import sys
import tempfile
import time
import unittest

from harness import BINARY, DIRECT, ROOT
from relay import Relay

sys.path.insert(0, os.path.join(ROOT, "tests", "liveness"))
sys.path.append(os.path.join(ROOT, "tests", "fuzz"))
import parsers  # noqa: E402
import stage  # noqa: E402
from judge import GeneratorError, judge  # noqa: E402
from making import Generator  # noqa: E402
from sequences import Blob, Client, Command, Sequence, loaded, saved  # noqa: E402
from shrinking import shrunk  # noqa: E402

# What the set-up is answered is shorter.
LARGE_REPLY_BYTES = 1000


class SpoilingRelay(Relay):
    """Treats what it reads of large replies in its own way."""

    def _pass_on(self, near, data):
        if len(data) >= LARGE_REPLY_BYTES:
            data = self.spoil(data)
        return super()._pass_on(near, data)

    def spoil(self, data):
        return data


class SwallowingRelay(SpoilingRelay):
    def spoil(self, data):
        return data[:-1]


class AlteringRelay(SpoilingRelay):
    def spoil(self, data):
        return data[:500] + bytes([data[500] ^ 1]) + data[501:]


class LateRelay(SpoilingRelay):
    def spoil(self, data):
        time.sleep(stage.LATE_SECONDS + 0.5)
        return data


class StuckRelay(SpoilingRelay):
    def spoil(self, data):
        time.sleep(stage.SILENCE_SECONDS + 1)
        return data


def echo(size, **options):
    return Command((b"ECHO", Blob(2, size)), **options)


class OracleTest(unittest.TestCase):
    def finding(self, relay, *clients):
        sequence = Sequence("test", list(clients or [Client([echo(5000)])]))
        place = stage.Stage(BINARY, ["default"], relay=relay)
        self.addCleanup(place.close)
        return judge(
            sequence, place.play(sequence, directly=True), place.play(sequence, directly=False)
        )

    def test_a_proxy_that_keeps_back_the_last_byte_of_a_reply_hangs(self):
        self.assertEqual("hang", self.finding(SwallowingRelay).kind)

    def test_a_proxy_that_gives_a_reply_too_late_is_late(self):
        self.assertEqual("late", self.finding(LateRelay).kind)

    def test_a_proxy_that_gives_a_reply_much_too_late_hangs(self):
        self.assertEqual("hang", self.finding(StuckRelay).kind)

    def test_a_proxy_that_changes_a_byte_differs(self):
        self.assertEqual("difference", self.finding(AlteringRelay).kind)

    def test_a_client_of_several_that_hangs_is_found(self):
        clients = [Client([Command((b"PING",))]), Client([echo(5000)]), Client([echo(10)])]
        finding = self.finding(SwallowingRelay, *clients)
        self.assertEqual("hang", finding.kind)
        self.assertIn("client 1", finding.text)

    def test_an_honest_proxy_is_not_blamed(self):
        place = stage.Stage(BINARY, ["default"], relay=Relay)
        self.addCleanup(place.close)
        generator = Generator(20261128, ["default"])
        for number in range(25):
            sequence = generator.make(number)
            direct = place.play(sequence, directly=True)
            self.assertIsNone(judge(sequence, direct, place.play(sequence, directly=False)), number)


class SequencesTest(unittest.TestCase):
    def test_the_same_seed_makes_the_same_sequences_and_a_saved_one_is_the_same(self):
        for number in range(50):
            sequence = Generator(7, stage.SETTINGS).make(number)
            self.assertEqual(sequence, Generator(7, stage.SETTINGS).make(number))
            self.assertEqual(sequence, loaded(saved(sequence)))

    def test_replies_are_counted_as_the_server_gives_them(self):
        words = ("CLIENT REPLY SKIP", "PING", "PING", "SUBSCRIBE a b", "CLIENT REPLY OFF", "PING")
        commands = [Command(tuple(line.encode().split())) for line in words]
        self.assertEqual([0, 0, 0, 1, 3, 3, 3], Client(commands).frames_before())

    def test_a_client_that_waits_for_more_than_valkey_gives_is_the_tests_fault(self):
        sequence = Sequence("test", [Client([Command((b"PING",))])])
        outcome = stage.player.Outcome(ended="silence")
        with self.assertRaises(GeneratorError):
            judge(sequence, stage.Result([outcome], b""), stage.Result([outcome], b""))

    def test_what_fails_is_made_small(self):
        commands = [Command((b"PING",), repeat=50), echo(10, cuts=((3, 0.1),)), echo(70000)]
        sequence = Sequence("test", [Client(commands, reading="slow"), Client([echo(1)])])

        def fails(candidate):
            sizes = [c.size() for client in candidate.clients for c in client.commands]
            return max(sizes) > 50000

        small = shrunk(sequence, fails, 10)
        self.assertEqual([Client([echo(70000)])], small.clients)


class RewritingRelay(Relay):
    """The server is sent something else, to which it says the same."""

    def _pump_requests(self, near, far, *_):
        try:
            while data := near.recv(1 << 16):
                far.sendall(data.replace(b"before", b"behind"))
        except OSError:
            pass


class AnsweringRelay(Relay):
    def _pass_on(self, near, data):
        return super()._pass_on(near, data.replace(b"-ERR Protocol error: ", b"-ERR "))


class KeepingRelay(Relay):
    """What the server ends stays open."""

    def _pump_replies(self, far, near, lag, *_):
        while data := far.recv(1 << 16):
            self._pass_on(near, data)


class ParsersTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="nearkey-test-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def differences(self, relay, *inputs):
        with parsers.World(self.directory, relay=relay) as world:
            run = parsers.Run(argparse.Namespace(), world)
            return [run.difference([data]) for data in inputs]

    def test_a_proxy_that_runs_something_else_is_found(self):
        (text,) = self.differences(RewritingRelay, b"SET s before\r\n")
        self.assertIn("the server has", text)

    def test_a_proxy_that_says_another_error_is_found(self):
        right, wrong = self.differences(AnsweringRelay, b"SET s v\r\n", b"*x\r\n")
        self.assertIsNone(right)
        self.assertIn("invalid multibulk length", wrong)

    def test_a_proxy_that_keeps_open_what_the_server_ends_is_found(self):
        right, wrong = self.differences(KeepingRelay, b"*1\r\n$4\r\nPI", b"*x\r\n")
        self.assertIsNone(right)
        self.assertIn("open", wrong)

    def test_a_proxy_without_rules_lets_the_canary_through(self):
        (text,) = self.differences(Relay, b"SETBIT c 1 1\r\n")
        self.assertIn("though the rules refuse it", text)

    def test_a_line_is_cut_where_the_server_must_see_that_it_is_too_long(self):
        size = parsers.LINE_BYTES_MAX
        short, long = b"x" * (size - 1) + b"\r\n", b"x" * size + b"\r\n"
        self.assertEqual([short], parsers.trickled(short))
        self.assertEqual([b"x" * size, b"\r", b"\n" + short], parsers.trickled(long + short))


if DIRECT:
    del OracleTest, ParsersTest
