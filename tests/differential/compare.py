"""Sends a sequence both ways, compares, and makes what differs small enough to read."""

import re
import time

import templates
import wire
from cluster_world import REDIRECT, REST_SECONDS, TRY_AGAIN  # First: it says where the others are.

from cluster_rules import in_words_of_one_server  # noqa: I100
from masks import hello, mask_answers
from sequence import PlainPlan, Sequence

FENCE_COMMANDS = [(b"RESET",), (b"PING", b"end")]
SHOWN_BYTES = 400
SHRINK_SECONDS = 5
FORKING = (b"BGSAVE", b"BGREWRITEAOF")


# So often is played again, after a while, what its client has to try again while slots move.
TRIES = 20


class TryAgain(Exception):
    """A slot of the sequence moves."""


class Difference:
    def __init__(self, sequence, text, command):
        self.sequence = sequence
        self.text = text
        self.command = command  # The name of the command whose answer differs.


class Comparer:
    def __init__(self, world, containers, rules=None):
        self.world = world
        self.containers = containers
        self.rules = rules  # Before a cluster.
        self.redirects = self.tries = 0
        self.commands = 0
        self.sequences = 0
        self.bytes = 0
        self.unaligned = []

    def name_of(self, args):
        return templates.name_of(args[:2], self.containers)

    def comparable(self, sequence):
        return sequence if self.rules is None else self.rules.applied(sequence)

    def compare(self, sequence, plan):
        """The difference, or None. The sequence is a comparable() one."""
        for _ in range(TRIES):
            try:
                return self._compare(sequence, plan)
            except TryAgain:
                self.tries += 1
                time.sleep(REST_SECONDS / 2)
        return Difference(sequence, f"it had to be tried again {TRIES} times", "moved slots")

    def _compare(self, sequence, plan):
        world = self.world
        world.prepare(sequence, directly=True)
        direct = world.talk_directly(sequence)
        digest = world.digest(directly=True)
        frames = self._frame_counts(sequence, direct)
        forks = any(args and args[0].upper() in FORKING for args in sequence.commands)
        if forks:
            world.wait_for_children()
        world.prepare(sequence, directly=False)
        other, problem = world.talk(sequence, plan, frames)
        if forks:
            world.wait_for_children()
        if self.rules is not None:
            if TRY_AGAIN.search(other.data):
                raise TryAgain
            redirect = REDIRECT.search(other.data)
            if redirect is not None:
                self.redirects += 1
                return Difference(sequence, f"{short(other.data[redirect.start():], b'')}", "redirect")
        self.commands += len(sequence.commands)
        self.sequences += 1
        self.bytes += len(direct.data)
        difference = self._first_difference(sequence, direct, other)
        if problem and difference is None:
            difference = Difference(sequence, problem, "another client")
        if difference is None and self._has_stable_data(sequence):
            now = world.digest(directly=False)
            if now != digest:
                difference = Difference(sequence, "the data differ afterwards", "data")
        return difference

    def _frame_counts(self, sequence, direct):
        """How many frames in band answer each command, for the pace of the other side."""
        answers = self._answers(sequence, direct)
        if answers is None:
            self.unaligned.append(sequence.name)
            return None
        return [sum(not wire.is_out_of_band(f) for f in taken) for taken in answers]

    def _answers(self, sequence, outcome):
        """The frames that answer each command and, if it was reached, the fence."""
        frames, rest = wire.split_frames(outcome.data)
        if rest:
            return None
        commands = sequence.directly().commands
        commands = commands + (FENCE_COMMANDS if outcome.ended == "fence" else [])
        if outcome.ended == "closed":
            commands = commands[: self._last_answered(commands)]
        return wire.align(commands, frames)

    def _last_answered(self, commands):
        """QUIT is the last command that is run."""
        for at, args in enumerate(commands):
            if args and args[0].upper() == b"QUIT":
                return at + 1
        return len(commands)

    def _has_stable_data(self, sequence):
        for args in sequence.commands:
            name = args[0].upper() if args else b""
            if name == b"XADD" and b"*" in args[2:]:
                return False
            if name == b"SPOP" and len(args) < 3 or name == b"SPOP" and args[2] < b"9":
                if args[-1] != b"1000":
                    return False
        return True

    def _first_difference(self, sequence, direct, other):
        if direct == other:
            return None
        commands = sequence.commands + FENCE_COMMANDS
        # The most common mask, and the only one for which no answers need to be told apart.
        if direct.ended == other.ended and any(args[:1] == (b"HELLO",) for args in commands):
            if hello((), direct.data) == hello((), other.data):
                return None
        expected = self._answers(sequence, direct)
        actual = self._answers(sequence, other)
        if expected is None or actual is None or direct.ended != other.ended:
            return self._raw_difference(sequence, direct, other)
        commands = sequence.directly().commands + FENCE_COMMANDS
        for at, row in sequence.refused.items():
            if row.words and at < len(actual) and re.match(row.words, b"".join(actual[at])):
                actual[at] = expected[at]
        if sequence.refused:
            actual = [in_words_of_one_server(frames) for frames in actual]
        if self.rules is not None:
            expected, actual = pushes_last(expected), pushes_last(actual)
        expected = mask_answers(self.name_of, commands, expected)
        actual = mask_answers(self.name_of, commands, actual)
        commands = sequence.commands + FENCE_COMMANDS
        for at, (wanted, got) in enumerate(zip(expected, actual)):
            if wanted != got:
                return Difference(
                    sequence,
                    f"command {at + 1} of {len(sequence.commands)}: {shown(commands[at])}\n"
                    f"  directly: {short(wanted, got)}\n"
                    f"  nearkey:  {short(got, wanted)}",
                    self.name_of(commands[at]),
                )
        return None

    def _raw_difference(self, sequence, direct, other):
        """The replies can't be matched with the commands: the bytes from where they differ."""
        wanted, got = wire.split_frames(direct.data)[0], wire.split_frames(other.data)[0]
        at = next((i for i, (a, b) in enumerate(zip(wanted, got)) if a != b), None)
        at = min(len(wanted), len(got)) if at is None else at
        start = sum(len(frame) for frame in wanted[:at])
        other_start = sum(len(frame) for frame in got[:at])
        return Difference(
            sequence,
            f"from reply {at + 1} on\n"
            f"  directly ({direct.ended}): {direct.data[start:start + SHOWN_BYTES]!r}\n"
            f"  nearkey ({other.ended}): {other.data[other_start:other_start + SHOWN_BYTES]!r}",
            f"{self.name_of(sequence.commands[-1])} ({other.ended})",
        )

    def shrink(self, difference):
        """The same difference from fewer commands, if it does not depend on cuts and pauses."""
        best = difference
        deadline = time.monotonic() + SHRINK_SECONDS
        size = max(len(best.sequence.commands) // 2, 1)
        while size >= 1 and time.monotonic() < deadline:
            start = 0
            count = len(best.sequence.commands)
            while start < count and time.monotonic() < deadline:
                whole = best.sequence
                commands = whole.commands[:start] + whole.commands[start + size :]
                wires = whole.wires[:start] + whole.wires[start + size :]
                smaller = None
                if commands:
                    lockstep = whole.lockstep if start >= whole.lockstep else 0
                    candidate = Sequence(
                        whole.name, commands, wires, whole.is_thorough, whole.may_block, lockstep,
                        tags=whole.tags,
                    )
                    smaller = self.compare(self.comparable(candidate), PlainPlan())
                if smaller is not None and smaller.command == best.command:
                    best = smaller
                    count = len(commands)
                else:
                    start += size
            size //= 2
        return best


def pushes_last(answers):
    """Messages come over other connections than replies: they are compared, but not their places."""
    pushes = [frame for frames in answers for frame in frames if wire.is_out_of_band(frame)]
    in_band = [[f for f in frames if not wire.is_out_of_band(f)] for frames in answers]
    return in_band[:-1] + [in_band[-1] + sorted(pushes)]


def shown(args):
    text = " ".join(repr(arg)[2:-1] if arg else '""' for arg in args)
    return text if len(text) < 200 else text[:200] + "..."


def short(data, other):
    """The part of the bytes around where they begin to differ."""
    at = next((i for i, pair in enumerate(zip(data, other)) if pair[0] != pair[1]), len(data))
    start = max(at - 100, 0) if at > SHOWN_BYTES // 2 else 0
    dots = "..." if start else ""
    return f"{dots}{data[start:start + SHOWN_BYTES]!r}"
