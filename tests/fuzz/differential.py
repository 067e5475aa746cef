"""The differential fuzz target: the same client bytes to Valkey and to nearkey, replies compared.

    tests/fuzz/differential.py [--seconds N] [--count N] [--seed N]     mutated inputs
    tests/fuzz/differential.py --replay                                 the seeds as they are
    tests/fuzz/differential.py --input FILE...                          these, and their answers

Each input goes to a private valkey-server and, after a reset, to a nearkey in front of the same
server: sent, half-closed, read to the end. The bytes must be the same and so must the end; a pieced
input reaches nearkey in several writes. Inputs that differ are made small, printed and saved in
tests/fuzz/findings/. NEARKEY_BINARY names the nearkey (default build/nearkey).
"""

import argparse
import hashlib
import random
import re
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "system"))

from mutation import RENAMED, Mutator  # noqa: E402
from processes import BINARY, EVERY_COMMAND, SLOWNESS, Nearkey, ValkeyServer  # noqa: E402
from resp import encode, mask_ids  # noqa: E402

# A conversation that has not ended by then never will.
CONVERSATION_SECONDS = 10 * SLOWNESS
RESET = b"".join(map(lambda words: encode(*words.split()), ("FLUSHALL", "SCRIPT FLUSH")))
RESET_DONE = b"+OK\r\n" * 2
VALKEY_TURN_BYTES = 1 << 16  # NET_MAX_WRITES_PER_EVENT
# After so many differences the rest would say the same.
DIFFERENCES_MAX = 5
SHRINK_RUNS = 300
SHOWN_BYTES = 1000


def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONVERSATION_SECONDS)
    connection.connect(path)
    return connection


def converse(path, pieces):
    """All bytes that come back, and how it ended: eof, reset or never."""
    answer = bytearray()
    with connect(path) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It may close before it has read everything; what it answered is still there.
        try:
            while True:
                data = connection.recv(1 << 18)
                if not data:
                    return bytes(answer), "eof"
                answer += data
        except ConnectionResetError:
            return bytes(answer), "reset"
        except socket.timeout:
            return bytes(answer), "never"


class World:
    """A server, a nearkey in front of it, and a connection to each that empties the server."""

    def __init__(self, directory):
        renamed = [word for name in RENAMED for word in ("--rename-command", name, "")]
        self.server = ValkeyServer(directory, args=renamed)
        self.nearkey = Nearkey(directory, self.server.url, settings=EVERY_COMMAND)
        self.executions = 0
        self._resets = {}

    def __enter__(self):
        self.server.start()
        self.nearkey.start()
        self._resets = {path: connect(path) for path in (self.server.path, self.nearkey.path)}
        return self

    def __exit__(self, kind, *_):
        for connection in self._resets.values():
            connection.close()
        if kind is None:
            self.nearkey.stop()  # With exit code 0, and all it logged is JSON.
        self.nearkey.kill()
        self.server.stop()

    def _reset(self, path):
        """By way of the same path, so that whoever may cache has seen it."""
        connection = self._resets[path]
        connection.sendall(RESET)
        answer = b""
        while len(answer) < len(RESET_DONE):
            data = connection.recv(4096)
            assert data, f"the connection to {path} was closed"
            answer += data
        assert answer == RESET_DONE, f"FLUSHALL: {answer!r}"

    def answer(self, path, pieces):
        self._reset(path)
        return converse(path, pieces)

    def answers(self, pieces):
        """Valkey's and nearkey's."""
        self.executions += 1
        direct = self.answer(self.server.path, [b"".join(pieces)])
        return direct, self.answer(self.nearkey.path, pieces)

    def difference(self, pieces):
        """Valkey's answer and nearkey's where they differ, else None."""
        (expected, expected_end), (actual, actual_end) = answers = self.answers(pieces)
        # Whoever closes with something unread resets. Valkey reads less at a time than nearkey, and
        # finds the whole input there; nearkey may get its last piece after it has closed.
        is_same_end = actual_end == expected_end or {expected_end, actual_end} == {"eof", "reset"}
        if len(pieces) == 1 and expected_end == "eof":
            is_same_end = actual_end == "eof"
        expected, actual = comparable(expected), comparable(actual)
        # Behind a half-close nearkey sends all there is, Valkey what it writes in one turn.
        is_same = expected == actual or (
            len(expected) > VALKEY_TURN_BYTES and actual.startswith(expected)
        )
        return None if is_same and is_same_end else answers


def comparable(answer):
    """Without the errors to an AUTH that fails: behind another command of the same read Valkey 8.0.1
    leaves them out, and every later reply is one too early for the client."""
    return re.sub(rb"-WRONGPASS [^\r]*\r\n", b"", mask_ids(answer))


def cut(data, chance):
    """Mostly whole; else in a few pieces."""
    if chance.random() < 0.75:
        return [data]
    places = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(1, 4)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)])]


def shrunk(world, data):
    """A smaller input that differs as well: pieces are taken out as long as it does."""
    size, runs = max(len(data) // 2, 1), 0
    while size > 0 and runs < SHRINK_RUNS:
        start = 0
        while start < len(data) and runs < SHRINK_RUNS:
            shorter = data[:start] + data[start + size :]
            runs += 1
            if shorter and world.difference([shorter]):
                data = shorter
            else:
                start += size
        size //= 2
    return data


def shown(data):
    rest = f"... ({len(data)} bytes)" if len(data) > SHOWN_BYTES else ""
    return f"{data[:SHOWN_BYTES]!r}{rest}"


def report(data, answers):
    (expected, expected_end), (actual, actual_end) = answers
    folder = FUZZ / "findings"
    folder.mkdir(exist_ok=True)
    path = folder / f"differential-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    print(f"sent     {shown(data)}")
    print(f"valkey   {shown(expected)}, then {expected_end}")
    print(f"nearkey  {shown(actual)}, then {actual_end}")
    print(f"again    tests/fuzz/differential.py --input {path.relative_to(ROOT)}\n", flush=True)


def check(world, pieces):
    """Whether the input is a difference; then it is reported."""
    answers = world.difference(pieces)
    if answers is None:
        return False
    data = b"".join(pieces)
    if all(world.difference([data]) for _ in range(3)):
        data = shrunk(world, data)
        report(data, world.answers([data]))
    else:
        print(f"seen once, in {len(pieces)} pieces of {[len(piece) for piece in pieces]} bytes:")
        report(data, answers)
    return True


def seeds():
    """Conversations, and the seeds of the parsers as client bytes."""
    inputs = {}
    for name in ("differential", "command_parser", "inline_command"):
        for path in sorted((FUZZ / "seeds" / name).iterdir()):
            data = path.read_bytes()
            inputs[f"{name}/{path.name}"] = (
                b"ECHO " + data + b"\r\n" if name == "inline_command" else data
            )
    return inputs


def inputs_to_run(options):
    """Lists of pieces, without an end where nothing is to be replayed."""
    if options.input:
        yield from ([Path(path).read_bytes()] for path in options.input)
    elif options.replay:
        yield from ([data] for data in seeds().values())
    else:
        chance = random.Random(options.seed)
        mutator = Mutator(list(seeds().values()), chance)
        deadline = time.monotonic() + options.seconds
        count = 0
        while time.monotonic() < deadline and (options.count is None or count < options.count):
            count += 1
            data = mutator.make()
            if options.without is None or not re.search(options.without, data):
                yield cut(data, chance)


def run(options, world):
    started, differences = time.monotonic(), 0
    for pieces in inputs_to_run(options):
        if options.input:
            for name, answer in zip(("valkey ", "nearkey"), world.answers(pieces)):
                print(name, *answer)
        differences += check(world, pieces)
        if differences == DIFFERENCES_MAX and not options.replay:
            print(f"stopped after {differences} differences")
            break
    seconds = time.monotonic() - started
    print(
        f"{world.executions} executions, {differences} differences in {seconds:.1f} s "
        f"({world.executions / max(seconds, 0.001):.0f} a second), seed {options.seed}"
    )
    return 1 if differences else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description="The same bytes to Valkey and to nearkey.")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--count", type=int, help="at most so many inputs")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument(
        "--without",
        metavar="REGEX",
        type=lambda text: re.compile(text.encode(), re.I),
        help="leave out what matches, to look behind a difference that is known",
    )
    parser.add_argument("--replay", action="store_true", help="the seeds as they are")
    parser.add_argument("--input", nargs="+", metavar="FILE", help="these inputs as they are")
    return parser.parse_args()


def main():
    options = parse_arguments()
    print(f"differential: {BINARY}, seed {options.seed}", flush=True)
    directory = tempfile.mkdtemp(prefix="nearkey-fuzz-")
    try:
        with World(directory) as world:
            return run(options, world)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
