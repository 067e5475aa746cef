"""One process of clients: owns keys and changes them, reads everybody's, and notes what it saw."""

import random
import socket
import time
from array import array

from history import Checker

DATABASES = 2
SLOTS = 12  # keys per owner and database; the odd ones are hashes
HOT = 4  # of them half of all reads are
BATCH_MAX = 12
WRITES = 0.12
FIELD = "f"
# The server's clock is in milliseconds, and it looks at it once per command.
EXPIRY_EARLY, EXPIRY_LATE = 0.002, 0.030
SET_SCRIPT = "return redis.call('SET', ARGV[1], ARGV[2])"
HSET_SCRIPT = "return redis.call('HSET', ARGV[1], 'f', ARGV[2])"


def encode(*words):
    return "".join(
        [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
    ).encode()


class Failed(Exception):
    pass


class Session:
    """A connection of a client, as fast as Python goes; it is opened again when it was lost."""

    def __init__(self, channel, path, protocol, database):
        self.name = f"{channel}/{protocol}/{database}"
        self.channel = channel
        self.path = path
        self.protocol = protocol
        self.database = database
        self.socket = None
        self.data = b""

    def open(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(15)
        self.data = b""
        try:
            self.socket.connect(self.path)
            self.send(encode("HELLO", str(self.protocol)) + encode("SELECT", str(self.database)))
            self.reply()
            if self.reply() != "OK":
                raise OSError("not selected")
        except OSError:
            self.close()
            raise

    def close(self):
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    def send(self, data):
        self.socket.sendall(data)

    def reply(self):
        while True:
            try:
                value, end = parse(self.data, 0)
            except (IndexError, ValueError):
                more = self.socket.recv(65536)
                if not more:
                    raise OSError("closed") from None
                self.data += more
                continue
            self.data = self.data[end:]
            return value


def parse(data, at):
    """IndexError or ValueError: there is more to come."""
    end = data.index(b"\r\n", at)
    kind = data[at]
    line = data[at + 1 : end]
    at = end + 2
    if kind == 36:  # $
        size = int(line)
        if size < 0:
            return None, at
        if len(data) < at + size + 2:
            raise IndexError
        return data[at : at + size].decode(), at + size + 2
    if kind in b"*%":
        values = []
        for _ in range(int(line) * (2 if kind == 37 else 1)):
            value, at = parse(data, at)
            values.append(value)
        return values, at
    if kind == 45:  # -
        return Failed(line.decode()), at
    return (None if kind == 95 else line.decode()), at


def whole(value):
    return value or None  # GETRANGE of what is absent is empty


def first(value):
    return value[0] if value else None


def of_field(value):
    return value[1] if value else None


READS = (
    [(("GET",), (), whole)] * 6
    + [(("MGET",), (), first), (("GETRANGE",), ("0", "-1"), whole)],
    [(("HGET",), (FIELD,), whole)] * 3
    + [(("HGETALL",), (), of_field), (("HMGET",), (FIELD,), first), (("HVALS",), (), first)],
)


class Worker:
    def __init__(self, index, owners, addresses, shared, seed, commands):
        self.index = index
        self.owners = owners
        self.shared = shared
        self.random = random.Random(seed)
        self.reads = READS if commands == "all" else (READS[0][:1], READS[1][:1])
        self.sessions = [
            Session(channel, path, protocol, database)
            for channel, path in addresses.items()
            for protocol in ((2, 3) if channel != "direct" else (2,))
            for database in range(DATABASES)
        ]
        for number, session in enumerate(self.sessions):
            session.number = number
        weights = {"a": 10, "b": 6, "direct": 5}
        self.weights = [weights[session.channel] for session in self.sessions]
        self.version = 0
        self.state = {}  # (database, slot) -> value
        self.expiring = {}  # (database, slot) -> when it is gone
        self.steps = []
        self.retired = []
        self.key_ids = {}
        self.state_ids = {None: 0}
        self.seen = [array(kind) for kind in "iiidd"]

    def name(self, owner, slot):
        return f"k{owner}:{slot}:{self.shared.generations[owner * SLOTS + slot]}"

    # --- the loop ---

    def run(self, events):
        turn = 0
        while not self.shared.stop.value:
            turn += 1
            if self.shared.pause.value:
                if not self.expiring:
                    self.shared.paused[self.index] = 1
            elif self.shared.paused[self.index]:
                self.apply(events.recv())
                self.shared.paused[self.index] = 0
            now = time.monotonic()
            for key in [key for key, gone in self.expiring.items() if gone < now]:
                del self.expiring[key]
            [session] = self.random.choices(self.sessions, self.weights)
            try:
                if session.socket is None:
                    session.open()
            except OSError:
                session.close()
                time.sleep(0.01)
                continue
            self.batch(session)

    def batch(self, session):
        count = 1 if self.random.random() < 0.5 else self.random.randrange(2, BATCH_MAX)
        data, plan, written = [], [], set()
        for _ in range(count):
            write = None
            if not self.shared.pause.value and self.random.random() < WRITES:
                write = self.plan_write(session.database, written)
            if write is None:
                command, item = self.plan_read(session.database)
                plan.append(item)
                data.append(command)
            else:
                commands, changes, wait = write
                plan += [None] * (len(commands) - 1) + [(changes, wait)]
                data += commands
        start = time.monotonic()
        done = 0
        try:
            session.send(b"".join(data))
            for item in plan:
                value = session.reply()
                done += 1
                if item is not None:
                    self.note(session, item, value, start, time.monotonic())
        except OSError:
            session.close()
            for item in plan[done:]:
                if item is not None and len(item) == 2:
                    self.retire(item[0], start)

    def note(self, session, item, value, start, end):
        if len(item) == 3:
            key, read, _ = item
            if isinstance(value, Failed):
                return
            row = (key, self.state_id(read(value)), session.number, start, end)
            for column, cell in zip(self.seen, row):
                column.append(cell)
            return
        changes, expires_ms = item
        if isinstance(value, Failed) or value is None and expires_ms == -1:
            self.retire(changes, start)
            return
        for slot, state in changes:
            key = f"{session.database}/{self.name(self.index, slot)}"
            self.steps.append((key, state, start, end, session.channel))
            self.state[session.database, slot] = state
            if expires_ms > 0:
                gone = end + expires_ms / 1000 + EXPIRY_LATE
                self.steps.append(
                    (key, None, start + expires_ms / 1000 - EXPIRY_EARLY, gone, "time")
                )
                self.state[session.database, slot] = None
                self.expiring[session.database, slot] = gone

    def state_id(self, state):
        return self.state_ids.setdefault(state, len(self.state_ids))

    def retire(self, changes, start):
        """In all databases: so that names stay the same in all of them."""
        for slot, _ in changes:
            for database in range(DATABASES):
                self.retired.append((f"{database}/{self.name(self.index, slot)}", start))
                self.state.pop((database, slot), None)
                self.expiring.pop((database, slot), None)
            self.shared.generations[self.index * SLOTS + slot] += 1

    def apply(self, event):
        """What was done to all keys at once, while nobody wrote."""
        kind, start, end, channel = event
        old = dict(self.state)
        for database in range(DATABASES):
            for slot in range(SLOTS):
                state = old.get((1 - database, slot)) if kind == "swap" else None
                key = f"{database}/{self.name(self.index, slot)}"
                self.steps.append((key, state, start, end, channel))
                self.state[database, slot] = state

    # --- what is sent ---

    def plan_read(self, database):
        owner = self.random.randrange(self.owners)
        slot = self.random.randrange(HOT if self.random.random() < 0.5 else SLOTS)
        name = self.name(owner, slot)
        words, tail, read = self.random.choice(self.reads[slot % 2])
        full = f"{database}/{name}"
        key = self.key_ids.setdefault(full, len(self.key_ids))
        return encode(*words, name, *tail), (key, read, None)

    def plan_write(self, database, written):
        """(commands, [(slot, state after)], milliseconds until it expires); None: not now."""
        slot = self.random.randrange(SLOTS)
        if slot in written or (database, slot) in self.expiring:
            return None
        written.add(slot)
        name = self.name(self.index, slot)
        self.version += 1
        value = f"{database}.{name}={self.version}" + "." * self.random.choice((0, 0, 60))
        is_hash = slot % 2
        choice = self.random.randrange(20)
        put = ("HSET", name, FIELD, value) if is_hash else ("SET", name, value)
        if choice == 0:
            return [encode("DEL", name)], [(slot, None)], 0
        if choice == 1:
            script = HSET_SCRIPT if is_hash else SET_SCRIPT
            return [encode("EVAL", script, "0", name, value)], [(slot, value)], 0
        if choice == 2:
            return [encode("MULTI"), encode(*put), encode("EXEC")], [(slot, value)], -1
        if choice == 3:
            commands = [encode("WATCH", name), encode("MULTI"), encode(*put), encode("EXEC")]
            return commands, [(slot, value)], -1
        if choice == 4 and not is_hash:
            expires_ms = self.random.randrange(20, 250)
            return [encode("SET", name, value, "PX", str(expires_ms))], [(slot, value)], expires_ms
        if choice in (5, 6):
            return self.plan_copy(database, slot, written) or ([encode(*put)], [(slot, value)], 0)
        return [encode(*put)], [(slot, value)], 0

    def plan_copy(self, database, slot, written):
        target = (slot + 2) % SLOTS
        state = self.state.get((database, slot))
        if state is None or target in written or (database, target) in self.expiring:
            return None
        written.add(target)
        names = [self.name(self.index, each) for each in (slot, target)]
        if self.random.random() < 0.5:
            return [encode("RENAME", *names)], [(slot, None), (target, state)], 0
        return [encode("COPY", *names, "REPLACE")], [(target, state)], 0

    # --- afterwards ---

    def check(self, steps, retired, bounds):
        checker = Checker(bounds)
        for step in steps:
            checker.step(*step)
        for key, start in retired:
            checker.retire(key, start)
        keys, states = list(self.key_ids), list(self.state_ids)
        for key, state, session, start, end in zip(*self.seen):
            by = self.sessions[session]
            checker.read(keys[key], states[state], start, end, by.channel,
                         f"{self.index}/{by.name}")
        return checker.reads, checker.violations


def main(index, owners, addresses, shared, seed, commands, pipe):
    worker = Worker(index, owners, addresses, shared, seed, commands)
    worker.run(pipe)
    pipe.send((worker.steps, worker.retired))
    pipe.send(worker.check(*pipe.recv()))
