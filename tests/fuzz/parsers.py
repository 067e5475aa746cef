"""Hostile bytes to Valkey and to nearkey: the same commands run, the same is answered, and the
connection ends or stays open alike.

    tests/fuzz/parsers.py [--seconds N] [--seed N]      inputs of hostile.py
    tests/fuzz/parsers.py --input FILE...               these, and what became of them

Many inputs are sent at once, each over a connection of its own: shared ones, transactions, tunnels.
They are not half-closed: an input that is not complete must leave both waiting. A nearkey whose
rules refuse one command must never let it through, however it is written. What differs is sent once
more alone, made small, printed and saved in tests/fuzz/findings/.
"""

import argparse
import fcntl
import hashlib
import os
import random
import re
import select
import shutil
import sys
import tempfile
import termios
import time
from collections import namedtuple
from pathlib import Path

from differential import FUZZ, ROOT, comparable, cut
from hostile import CANARY, Hostile
from processes import BINARY, EVERY_COMMAND, SLOWNESS, Nearkey, ValkeyServer
from resp import RespClient

BATCH = 120
DIFFERENCES_MAX = 5
# Nothing more is expected when for so long nothing came. Alone, it may take longer.
QUIET_SECONDS = 0.04 * SLOWNESS
ALONE_QUIET_SECONDS = 0.2 * SLOWNESS
BATCH_SECONDS_MAX = 10 * SLOWNESS
SHRINK_SECONDS = 8
LINE_BYTES_MAX = 65536
SHOWN_BYTES = 160
BULK_MAX = "1048576"
# The rules of the other nearkey refuse the canary, and it takes shorter arguments than the server.
SETTINGS = {
    "nearkey": {**EVERY_COMMAND, "limits.bulk_max": BULK_MAX},
    "rules": {"server.commands": f"+@all -{CANARY.decode()}", "limits.bulk_max": "64KiB"},
}

# data: all that came back; ended: "open" or "closed".
Answer = namedtuple("Answer", "data ended")


class World:
    def __init__(self, directory, *, relay=None):
        """relay: a class that takes the place of nearkey."""
        self.server = ValkeyServer(directory, args=["--proto-max-bulk-len", BULK_MAX])
        self.relay = relay
        self.proxies = {}
        for name, settings in SETTINGS.items():
            folder = os.path.join(directory, name)
            os.mkdir(folder)
            if relay is not None:
                self.proxies[name] = relay(os.path.join(folder, "relay.sock"), self.server.path)
            else:
                self.proxies[name] = Nearkey(folder, self.server.url, settings=settings)

    def __enter__(self):
        self.server.start()
        self.admin = self.server.client()
        for nearkey in self.proxies.values() if self.relay is None else ():
            nearkey.start()
        self.paths = {"valkey": self.server.path}
        self.paths.update((name, proxy.path) for name, proxy in self.proxies.items())
        self.resets = {name: RespClient(path) for name, path in self.paths.items()}
        return self

    def __exit__(self, kind, *_):
        if kind is not None and self.relay is None:
            for name, nearkey in self.proxies.items():
                print(f"{name}: exit status {nearkey.process.poll()}")
                print("\n".join(nearkey.lines[-20:]))
        try:
            for nearkey in self.proxies.values() if kind is None and self.relay is None else ():
                nearkey.stop()
        finally:
            for proxy in self.proxies.values():
                proxy.close() if self.relay is not None else proxy.kill()
            self.server.stop()

    def send(self, name, inputs, quiet_seconds):
        """The answers to the inputs, lists of pieces, and what the server has at the end."""
        assert self.resets[name].command("FLUSHALL") == b"+OK\r\n"
        talks = [Talk(self.paths[name], pieces) for pieces in inputs]
        try:
            converse(talks, quiet_seconds)
        finally:
            for talk in talks:
                talk.socket.close()
        return [talk.answer() for talk in talks], self.state()

    def state(self):
        keys = sorted(self.admin.value("KEYS", "*"))
        return dict(zip(keys, self.admin.pipeline([("DUMP", key) for key in keys])))

    def canary_calls(self):
        for line in self.admin.value("INFO", "commandstats").split(b"\r\n"):
            if line.startswith(b"cmdstat_%b:calls=" % CANARY):
                return int(line.split(b"=")[1].split(b",")[0])
        return 0


class Talk:
    """One connection; each piece is sent when the one before has been read."""

    def __init__(self, path, pieces):
        self.socket = RespClient(path).socket
        self.socket.setblocking(False)
        self.pieces = [memoryview(piece) for piece in pieces if piece]
        self.is_fresh = True
        self.data = bytearray()
        self.is_closed = False

    def answer(self):
        return Answer(comparable(bytes(self.data)), "closed" if self.is_closed else "open")

    def may_write(self):
        if not self.is_fresh and self.pieces:
            unread = fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4)
            self.is_fresh = not any(unread)
        return bool(self.pieces) and self.is_fresh

    def write(self):
        try:
            count = self.socket.send(self.pieces[0])
        except BlockingIOError:
            return
        except OSError:
            self.pieces = []  # It closes; what it said is still to be read.
            return
        self.pieces[0] = self.pieces[0][count:]
        if not self.pieces[0]:
            self.pieces.pop(0)
            self.is_fresh = False

    def read(self):
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.data += data
        self.is_closed = not data


def converse(talks, quiet_seconds):
    """Until nothing has moved for so long."""
    started = moved_at = time.monotonic()
    while (now := time.monotonic()) < moved_at + quiet_seconds:
        assert now < started + BATCH_SECONDS_MAX, "the conversations don't come to an end"
        poller, by_descriptor = select.poll(), {}
        for talk in talks:
            if not talk.is_closed:
                poller.register(talk.socket, select.POLLIN | select.POLLOUT * talk.may_write())
                by_descriptor[talk.socket.fileno()] = talk
        if not by_descriptor:
            return
        is_unread = any(not talk.is_fresh and talk.pieces for talk in by_descriptor.values())
        for descriptor, events in poller.poll(1 if is_unread else quiet_seconds * 1000):
            talk, moved_at = by_descriptor[descriptor], time.monotonic()
            if events & select.POLLOUT and talk.pieces:
                talk.write()
            if events & ~select.POLLOUT:
                talk.read()


class Run:
    def __init__(self, options, world):
        self.options = options
        self.world = world
        self.inputs = self.differences = 0

    def difference(self, pieces):
        """What differs when the input is sent alone: a text, or None. What the server makes of a
        long line depends on how it reads it: any of its ways is right."""
        whole = b"".join(pieces)
        through = self._alone("nearkey", pieces)
        ways = [trickled(whole), [whole], pieces]
        directly = None
        for number, way in enumerate(ways):
            if way in ways[:number]:
                continue
            outcome = self._alone("valkey", way)
            directly = directly or outcome
            if is_same(whole, outcome, through):
                return self._canary_text([pieces])
        return f"valkey   {told(directly)}\nnearkey  {told(through)}"

    def _alone(self, name, pieces):
        (answer,), state = self.world.send(name, [pieces], ALONE_QUIET_SECONDS)
        return answer, state

    def _canary_text(self, inputs):
        before = self.world.canary_calls()
        self.world.send("rules", inputs, QUIET_SECONDS)
        count = self.world.canary_calls() - before
        return f"{CANARY.decode()} ran {count} times, though the rules refuse it" if count else None

    def check(self, inputs):
        """All at once; what differs, or may, once more with more patience, and then alone."""
        numbers = self._differing(inputs, QUIET_SECONDS)
        if numbers:
            numbers &= self._differing(inputs, ALONE_QUIET_SECONDS)
        self.inputs += len(inputs)
        suspects = [inputs[i] for i in sorted(numbers)]
        if self._canary_text(inputs):
            suspects += [p for p in self._with_canary(inputs) if p not in suspects]
        for pieces in suspects:
            if self.differences < DIFFERENCES_MAX and self.difference(pieces):
                self._report(pieces)

    def _differing(self, inputs, quiet_seconds):
        """The numbers of the inputs whose answers differ, or what they may have left behind."""
        ways = [trickled(b"".join(pieces)) for pieces in inputs]
        expected, expected_state = self.world.send("valkey", ways, quiet_seconds)
        actual, actual_state = self.world.send("nearkey", inputs, quiet_seconds)
        numbers = {
            i
            for i, pieces in enumerate(inputs)
            if not is_same(b"".join(pieces), (expected[i], None), (actual[i], None))
        }
        for key in expected_state.keys() | actual_state.keys():
            if expected_state.get(key) != actual_state.get(key):
                numbers |= set(numbers_of(key, self.inputs, len(inputs)))
        return numbers

    def _with_canary(self, inputs):
        """Those by which the canary gets past the rules."""
        if len(inputs) == 1:
            return inputs
        half = len(inputs) // 2
        halves = inputs[:half], inputs[half:]
        return [p for part in halves if self._canary_text(part) for p in self._with_canary(part)]

    def _report(self, pieces):
        if not all(self.difference(pieces) for _ in range(2)):
            return
        self.differences += 1
        whole = b"".join(pieces)
        if self.difference([whole]):
            pieces = [self._shrunk(whole)]
        data = b"".join(pieces)
        folder = FUZZ / "findings"
        folder.mkdir(exist_ok=True)
        path = folder / f"parsers-{hashlib.sha256(data).hexdigest()[:16]}"
        path.write_bytes(data)
        print(f"\nsent     {ends_of(data)}, in pieces of {[len(piece) for piece in pieces]} bytes")
        print(self.difference(pieces) or "seen before it was made small")
        print(f"again    tests/fuzz/parsers.py --input {path.relative_to(ROOT)}", flush=True)

    def _shrunk(self, data):
        deadline, size = time.monotonic() + SHRINK_SECONDS, max(len(data) // 2, 1)
        while size > 0:
            start = 0
            while start < len(data):
                if time.monotonic() > deadline:
                    return data
                shorter = data[:start] + data[start + size :]
                if shorter and self.difference([shorter]):
                    data = shorter
                else:
                    start += size
            size //= 2
        return data

    def run(self):
        if self.options.input:
            for path in self.options.input:
                pieces = [Path(path).read_bytes()]
                self.inputs += 1
                self.differences += self.difference(pieces) is not None
                print(self.difference(pieces) or told(self._alone("nearkey", pieces)))
            return
        chance = random.Random(self.options.seed)
        hostile = Hostile(chance)
        deadline = time.monotonic() + self.options.seconds
        while time.monotonic() < deadline and self.differences < DIFFERENCES_MAX:
            first = self.inputs
            self.check([cut(hostile.make(first + i), chance) for i in range(BATCH)])


def numbers_of(key, first, count):
    """Of the inputs that may have made the key: all, unless it tells."""
    match = re.search(rb"\d{5}", key)
    number = int(match[0]) - first if match else -1
    return [number] if 0 <= number < count else range(count)


def is_same(data, directly, through):
    """With CLIENT REPLY OFF the server keeps open what it reads no more: the same to a client."""
    (expected, expected_state), (actual, actual_state) = directly, through
    may_stay_open = expected.ended == "open" and re.search(rb"reply", data, re.I)
    is_same_end = expected.ended == actual.ended or may_stay_open
    return is_same_end and expected.data == actual.data and expected_state == actual_state


def trickled(data):
    """Cut so that the server is sure to see of each line that is too long that it is."""
    ends = []
    for line in re.finditer(rb"[^\n]*\n", data):
        body = line[0].rstrip(b"\r\n")
        if len(body) >= LINE_BYTES_MAX:
            ends += [line.start() + len(body), line.end() - 1]
    # A length ends at a carriage return, whatever line ends are before it.
    lengths = re.finditer(rb"\n?([^\r]*)\r", data)
    ends += [length.end(1) for length in lengths if len(length[1]) > LINE_BYTES_MAX]
    ends = sorted(set(ends))
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)])]


def told(outcome):
    answer, state = outcome
    keys = ", ".join(sorted(repr(key[:40]) for key in state)) or "nothing"
    return f"{ends_of(answer.data)}, then {answer.ended}; the server has {keys}"


def ends_of(data):
    """What is shown of long bytes."""
    if len(data) <= 2 * SHOWN_BYTES:
        return repr(data)
    return f"{data[:SHOWN_BYTES]!r} ... {data[-SHOWN_BYTES:]!r} ({len(data)} bytes)"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--input", nargs="+", metavar="FILE", help="these inputs as they are")
    return parser.parse_args()


def main():
    options = parse_arguments()
    print(f"parsers: {BINARY}, seed {options.seed}", flush=True)
    started = time.monotonic()
    directory = tempfile.mkdtemp(prefix="nearkey-parsers-")
    try:
        with World(directory) as world:
            run = Run(options, world)
            run.run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    verdict = "FAIL" if run.differences else "ok"
    print(
        f"parsers: {run.inputs} inputs, {run.differences} differences in "
        f"{time.monotonic() - started:.0f} s, seed {options.seed}: {verdict}"
    )
    return 1 if run.differences else 0


if __name__ == "__main__":
    sys.exit(main())
