"""What clients saw, and whether a coherent cache can have shown it.

Each key has one owner, which changes it one step at a time: step n leaves it in a state (a value or
None), and is sent after step n-1 was answered. So the order of a key's steps is known, and a read
is judged by the steps that its answer can stand for. Times are of one monotonic clock, in seconds.

A read through a channel, sent at t, answered at u, may show step n only if
  - n was sent before u                                                    (nobody wrote it: UNKNOWN)
  - n is not older than the newest step answered through the same channel before t         (OWN)
  - n is not older than the newest step answered anywhere before t - bound            (ELSEWHERE)
  - n is not older than what the same session was shown, or did, before                   (BACK)
A channel that goes straight to the server has a bound of zero. When the outcome of a step is not
known, its key is retired: what is read of it from then on is not judged. Of a silent step (SWAPDB)
the server tells nobody: until it must be seen, one may go back to before it. What a former primary
alone was told may be seen until everybody has turned to the next one; a read that is sent after that
and shows it is LOST.
"""

from bisect import bisect_left
from collections import namedtuple

Violation = namedtuple("Violation", "rule key channel session start end shown expected")
Read = namedtuple("Read", "key state start end channel session")
AROUND_S = 2  # how much before a violation is told of its session
NEAR_S = 0.1  # and of others


class Key:
    """The steps of one key. Step 0 is what it was before anybody touched it: absent."""

    def __init__(self):
        self.states = [None]
        self.starts = [0.0]
        self.numbers = {None: [0]}  # of the steps that left it in a state
        self.ends = [0.0]
        self.channels = ["nobody"]
        self.through = {}  # channel -> (ends, numbers) of the steps that went through it
        self.retired = float("inf")  # since when
        self.silent = []  # numbers of the steps that the server tells nobody of

    def add(self, state, start, end, channel):
        number = len(self.starts)
        self.states.append(state)
        self.channels.append(channel)
        self.starts.append(start)
        self.numbers.setdefault(state, []).append(number)
        self.ends.append(end)
        ends, numbers = self.through.setdefault(channel, ([], []))
        ends.append(end)
        numbers.append(number)

    def answered(self, before):
        return bisect_left(self.ends, before) - 1

    def answered_through(self, channel, before):
        ends, numbers = self.through.get(channel, ((), ()))
        count = bisect_left(ends, before)
        return numbers[count - 1] if count else 0


class Checker:
    """`bounds`: channel -> how old what it shows may be, in seconds."""

    def __init__(self, bounds):
        self.bounds = bounds
        self.keys = {}
        self.shown = {}  # (session, key) -> number of the step
        self.reads = 0
        self.violations = []
        self.lost = {}  # (key, value) -> until when it may be shown

    def lose(self, key, value, until):
        self.lost[key, value] = until

    def step(self, key, state, start, end, channel, is_silent=False):
        steps = self.keys.setdefault(key, Key())
        steps.add(state, start, end, channel)
        if is_silent:
            steps.silent.append(len(steps.starts) - 1)

    def retire(self, key, start):
        self.keys.setdefault(key, Key()).retired = start

    def read(self, key, state, start, end, channel, session):
        """To be called in the order in which each session read, after all steps are known."""
        steps = self.keys.setdefault(key, Key())
        if end >= steps.retired:
            return
        self.reads += 1
        if (key, state) in self.lost:
            if start >= self.lost[key, state]:
                self._report("LOST", key, channel, session, start, end, state, None)
            return
        numbers = steps.numbers.get(state)
        if numbers is None or steps.starts[numbers[0]] > end:
            self._report("UNKNOWN", key, channel, session, start, end, state, None)
            return
        own = steps.answered_through(channel, start)
        elsewhere = steps.answered(start - self.bounds[channel])
        shown = self.shown.get((session, key), 0)
        for silent in reversed(steps.silent):
            if silent <= max(own, elsewhere):
                break
            shown = min(shown, silent - 1)
        oldest = max(own, elsewhere, shown)
        at = bisect_left(numbers, oldest)
        if at == len(numbers) or steps.starts[numbers[at]] > end:
            rule = "OWN" if oldest == own else "ELSEWHERE" if oldest == elsewhere else "BACK"
            self._report(rule, key, channel, session, start, end, state, oldest)
            return
        if numbers[at] > shown:
            self.shown[session, key] = numbers[at]

    def _report(self, rule, key, channel, session, start, end, shown, expected):
        self.violations.append(
            Violation(rule, key, channel, session, start, end, shown, expected)
        )

    def explain(self, violation, reads):
        """What is known around it, a line each: the steps of its key, and what of the key its
        session, and shortly before others of its channel, were shown. `reads` are all there were."""
        steps = self.keys[violation.key]

        def when(time):
            return f"{time - violation.start:+.4f} s"

        last = bisect_left(steps.starts, violation.end + NEAR_S) - 1
        first = max(0, min(last - 5, (violation.expected or 0) - 2))
        lines = [
            f"step {number}{' (silent)' if number in steps.silent else ''}: {steps.states[number]}, "
            f"sent {when(steps.starts[number])}, answered {when(steps.ends[number])}, "
            f"through {steps.channels[number]}"
            for number in range(first, last + 1)
        ]
        for read in reads:
            is_own = read.session == violation.session and read.end > violation.start - AROUND_S
            is_near = read.channel == violation.channel and read.end > violation.start - NEAR_S
            if read.key == violation.key and read.start <= violation.end and (is_own or is_near):
                numbers = steps.numbers.get(read.state, [])
                lines.append(
                    f"{read.session} was shown {read.state} (step"
                    f" {', '.join(str(number) for number in numbers[-3:])}), asked "
                    f"{when(read.start)}, answered {when(read.end)}"
                )
        return lines
