"""One Valkey, and nearkey in front of it; the state that every sequence starts with; and the way a
sequence is sent and read, directly or through nearkey."""

import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections import namedtuple

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))

import exceptions  # noqa: E402
import pools  # noqa: E402
import processes  # noqa: E402
import wire  # noqa: E402
from relay import Relay  # noqa: E402
from resp import Closed, RespClient, parse  # noqa: E402

FENCE_TOKEN = b"end-of-the-sequence"
# RESET ends whatever state the client is in; what is behind it is the last reply.
FENCE = wire.encode((b"RESET",)) + wire.encode((b"PING", FENCE_TOKEN))
FENCE_REPLY = b"+RESET\r\n$%d\r\n%b\r\n" % (len(FENCE_TOKEN), FENCE_TOKEN)

# What came back, and how the reading ended: "fence", "closed" or "silence".
Outcome = namedtuple("Outcome", "data ended")
CommandSpec = namedtuple("CommandSpec", "name arity has_keys count_place")
# The sequence before the first one.
Start = namedtuple("Start", "is_thorough tags")

# Longer than the 5 s after which nearkey itself gives up on a reply.
PATIENCE_SECONDS = 8


class World:
    tags = (b"",)  # Behind the names of keys.
    is_clustered = False

    def __init__(self, binary, *, direct=False, relay=None):
        """direct: the server takes the place of nearkey. relay: a class to put behind nearkey."""
        self.directory = tempfile.mkdtemp(prefix="nearkey-diff-")
        processes.BINARY = binary
        self.server = processes.ValkeyServer(
            self.directory, tcp=self.is_clustered, args=pools.SERVER_OPTIONS
        )
        self.nearkey = None
        self.relay = None
        try:
            self.server.start()
            if not direct:
                self.nearkey = processes.Nearkey(
                    self.directory, self._start_upstream(), settings=processes.EVERY_COMMAND
                )
                self.nearkey.start()
            self._open(relay)
        except BaseException:
            self.close()
            raise

    def _start_upstream(self):
        """The URL of what is behind nearkey."""
        return self.server.url

    def _open(self, relay):
        self.path = self.server.path if self.nearkey is None else self.nearkey.path
        if relay is not None:
            self.relay = relay(os.path.join(self.directory, "relay.sock"), self.path)
            self.path = self.relay.path
        self.admin = self.server.client()
        replies = [server.command("DEBUG", switch, "0")
                   for server in self.servers() for switch in pools.DEBUG_SWITCHES]
        is_switched = all(reply == b"+OK\r\n" for reply in replies)
        assert is_switched or replies[-1].startswith(b"-ERR unknown subcommand"), replies
        self._look_up_subcommands()
        self.is_steady = is_switched and self._is_steady()
        self.interrupts = self._interrupts()
        self.neighbours = [Neighbour(self.path, 2), Neighbour(self.path, 3)]
        self._data = b"".join(
            wire.encode([as_bytes(arg) for arg in args]) for args in pools.DATA
        )
        self._state = b"".join(
            wire.encode([as_bytes(arg) for arg in args]) for args in pools.SERVER_STATE
        )
        self._was_thorough = True
        start = Start(is_thorough=True, tags=self.tags[:1])
        self.prepare(start, directly=True)
        self.prepare(start, directly=False)
        self.extra = {
            "dump": self.admin.value("DUMP", b"zset" + start.tags[0]),
            "functions": self.admin.value("FUNCTION", "DUMP"),
        }

    def close(self):
        for part in (self.relay, getattr(self, "admin", None)):
            if part is not None:
                part.close()
        try:
            if self.nearkey is not None:
                self.nearkey.stop()
        finally:
            if self.nearkey is not None:
                self.nearkey.kill()
            self.server.stop()
            shutil.rmtree(self.directory, ignore_errors=True)

    def command_table(self):
        """Every command and sub-command that the server lists, by name: COMMAND's own order changes
        from start to start."""
        specs = []
        for row in self.admin.value("COMMAND"):
            specs.append(spec_of(row))
            specs += [spec_of(sub) for sub in row[9]]
        containers = {spec.name.split("|")[0] for spec in specs if "|" in spec.name}
        return sorted(specs), containers

    def _look_up_subcommands(self):
        """Redis 7.0 reorders its tables of them while it looks them up, until they are in place."""
        for name in self.command_table()[1]:
            for _ in range(20):
                assert self.admin.command(name, "nosuch").startswith(b"-ERR unknown subcommand")

    def _is_steady(self):
        """Whether the table of keys stays as it is while nobody uses it."""
        self.admin.command("SELECT", "9")
        for number in range(34):  # One more, and Valkey 8.1 grows it at once.
            self.admin.command("SET", number, "v")
        before = self.admin.value("DEBUG", "HTSTATS", "9")
        time.sleep(0.2)
        is_steady = self.admin.value("DEBUG", "HTSTATS", "9") == before
        self.admin.command("SELECT", "0")
        return is_steady

    def _interrupts(self):
        """Whether a push stands between the elements of EXEC's array, as in Redis 7.0."""
        with RespClient(self.server.path) as client:
            client.command("HELLO", "3")
            client.command("MULTI")
            client.command(*exceptions.INTERRUPTING.split())
            return client.command("EXEC").startswith(b"*1\r\n>")

    def servers(self):
        """Clients of all that are compared, and of all behind nearkey."""
        return [self.admin]

    def prepare(self, sequence, *, directly):
        """Everything as the sequence finds it; all of it before and after those that change more
        than keys. `directly`: of the server that is asked itself."""
        if sequence.is_thorough or self._was_thorough:
            self._set_up(self._state, self.admin)
        self._was_thorough = sequence.is_thorough
        self._set_up(wire.encode((b"FLUSHALL",)) + self._data, self.admin)

    def _set_up(self, commands, client):
        client.send(commands + wire.encode((b"PING", FENCE_TOKEN)))
        while not client.buffer.endswith(FENCE_TOKEN + b"\r\n"):
            assert client.receive_some(), "the server went away"
        assert b"\r\n-" not in client.buffer, f"set-up: {bytes(client.buffer)!r}"
        client.buffer.clear()

    def wait_for_children(self):
        """BGSAVE and its like refuse to run twice at a time, and may start a little later."""
        busy = (b"rdb_bgsave_in_progress:1", b"aof_rewrite_in_progress:1")
        idle = 0
        while idle < 4:
            infos = [server.value("INFO", "persistence") for server in self.servers()]
            is_busy = any(line in info for info in infos for line in busy)
            idle = 0 if is_busy else idle + 1
            time.sleep(0.01)

    def digest(self, *, directly):
        """The server's own digest of all keys and values."""
        return self.admin.command("DEBUG", "DIGEST")

    def mirror(self, args):
        """A scenario has sent a command that concerns more servers than one."""

    def clients(self, field, *, directly):
        """The sum of a field of INFO clients, of those that are asked."""
        infos = [server.value("INFO", "clients") for server in self.asked(directly=directly)]
        return sum(int(re.search(rb"%b:(\d+)" % field, info)[1]) for info in infos)

    def asked(self, *, directly):
        return [self.admin]

    def talk_directly(self, sequence):
        with Talk(self.server.path) as talk:
            return talk.run_at_once(sequence.directly())

    def talk(self, sequence, plan, frames):
        """Through nearkey, cut and paced as the plan says, with other clients in between: what came
        back, and what was wrong with the others' replies. `frames` says how many frames each
        command got directly; None: nobody waits."""
        for neighbour in self.neighbours:
            neighbour.ask()
        with Talk(self.path) as talk:
            outcome = plan.run(talk, sequence, frames)
        problems = [neighbour.check() for neighbour in self.neighbours]
        return outcome, " ".join(filter(None, problems))


def spec_of(row):
    """Channels of shards are listed as keys, but have no type."""
    has_keys = row[3] > 0 and b"pubsub" not in row[2]
    return CommandSpec(row[0].decode().lower(), row[1], has_keys, count_place(row[8]))


def count_place(key_specs):
    """Where the number of keys stands; 0: the command has none."""
    for fields in key_specs:
        spec = dict(zip(fields[::2], fields[1::2]))
        begin, keys = (dict(zip(spec[name][::2], spec[name][1::2]))
                       for name in (b"begin_search", b"find_keys"))
        if keys[b"type"] == b"keynum":
            start = dict(zip(begin[b"spec"][::2], begin[b"spec"][1::2]))[b"index"]
            return start + dict(zip(keys[b"spec"][::2], keys[b"spec"][1::2]))[b"keynumidx"]
    return 0


def as_bytes(arg):
    return arg if isinstance(arg, bytes) else arg.encode()


class Neighbour:
    """Another client, on the connection that the sequences share: it must get its own replies, and
    in order."""

    REQUESTS = 3

    def __init__(self, path, protocol):
        self.path = path
        self.protocol = protocol
        self.number = 0
        self._connect()

    def _connect(self):
        self.asked = []
        self.client = RespClient(self.path, timeout=PATIENCE_SECONDS)
        self.client.command("HELLO", self.protocol)

    def ask(self):
        words = [b"neighbour%d" % (self.number + i) for i in range(self.REQUESTS)]
        self.number += self.REQUESTS
        self.asked += words
        self.client.send(b"".join(wire.encode((b"PING", word)) for word in words))

    def check(self):
        """What is wrong with its replies, or None."""
        problem = None
        try:
            for word in self.asked:
                reply = parse(self.client.read_reply())
                if reply != word:
                    problem = f"a neighbour asked for {word!r} and got {reply!r}"
        except (OSError, Closed, AssertionError, ValueError) as error:
            problem = f"a neighbour got no reply: {error}"
        self.asked = []
        if problem is not None:
            self.client.close()
            self._connect()
        return problem


class Talk:
    """One connection of a client, with what has come back so far."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(path)
        self.data = bytearray()
        self.counted = 0  # Bytes of the frames that were counted,
        self.frames = 0  # those in band.
        self.ended = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        if self.ended is not None:
            return
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Closed by what came before; the replies are still there to be read.

    def receive(self):
        """False at the end, or when nothing comes any more."""
        if self.ended is not None:
            return False
        try:
            data = self.socket.recv(1 << 18)
        except socket.timeout:
            self.ended = "silence"
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = "closed"
        self.data += data
        return bool(data)

    def read_frames(self, count):
        """Waits until so many frames have come; what comes out of band does not count."""
        while self.frames < count:
            try:
                end = wire.frame_end(self.data, self.counted)
            except ValueError:
                return  # No reply at all: the comparison will say so.
            if end < 0:
                if not self.receive():
                    return
                continue
            self.frames += not wire.is_out_of_band(self.data[self.counted : self.counted + 40])
            self.counted = end

    def read_to_fence(self):
        while not self.data.endswith(FENCE_REPLY):
            if not self.receive():
                return Outcome(bytes(self.data), self.ended)
        return Outcome(bytes(self.data), "fence")

    def run_at_once(self, sequence):
        """Without cuts and pauses."""
        for number, data in enumerate(sequence.wires[: sequence.lockstep]):
            self.send(data)
            self.read_frames(number + 1)
        self.send(b"".join(sequence.wires[sequence.lockstep :]) + FENCE)
        return self.read_to_fence()

    def half_close_and_read(self):
        """After the fence was sent; the replies must come to the last one, and then the end."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        while self.receive():
            pass
        complete = self.data.endswith(FENCE_REPLY) and self.ended == "closed"
        return Outcome(bytes(self.data), "fence" if complete else self.ended)


class FlippingRelay(Relay):
    """Changes one bit of every 20,000th byte that passes: a test of the test."""

    passed = 0

    def _pass_on(self, near, data):
        at = 19_999 - self.passed % 20_000
        self.passed += len(data)
        if at < len(data):
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return super()._pass_on(near, data)
