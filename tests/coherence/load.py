"""One process of clients: owns keys and changes them, reads everybody's, and notes what it saw."""

import random
import select
import socket
import time
from array import array
from collections import deque

from history import Checker, Read
from segments import Segment

DATABASES = 2
SLOTS = 16  # keys per owner and database; the odd ones are hashes
FAR = 8  # from this one on: keys that change only directly, so that only news can tell; in "own":
# only through the nearkey behind the relay
CALM = 12  # from this one on: keys that change seldom
CALM_S = {"all": 0.1, "owed": 0.1, "cluster": 0.1, "gets": 0.1, "own": 0.02, "quiet": 0.02, "far": 0.03}
HOT = 4  # of them half of all reads are
WATCHERS = ("a", "b")  # channels with sessions that do nothing but read far keys, one at a time
BATCH_MAX = 12
SEGMENT_READS = 24  # of shared memory, between a session's batches
WRITES = {"all": 0.12, "owed": 0.12, "cluster": 0.12, "gets": 0.12, "own": 0.02, "quiet": 0.12, "far": 0.12}
TIMEOUT_S = 15
TOLD_MAX = 5  # of how many violations all is told that is known
SELECTED = "selected"  # in a plan: the reply to SELECT
FIELD = "f"
# The server's clock is in milliseconds, and it looks at it once per command.
EXPIRY_EARLY, EXPIRY_LATE = 0.002, 0.030
SET_SCRIPT = "return redis.call('SET', ARGV[1], ARGV[2])"
HSET_SCRIPT = "return redis.call('HSET', ARGV[1], 'f', ARGV[2])"
OWNERS = 4


def tags():
    """In a cluster: two for each owner, one for its strings and one for its hashes."""
    return [f"k{owner}{kind}" for owner in range(OWNERS) for kind in "sh"]


def encode(*words):
    return "".join(
        [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
    ).encode()


class Failed(Exception):
    pass


class Session:
    """A connection of a client, as fast as Python goes; it is opened again when it was lost."""

    def __init__(self, number, channel, path, protocol, database, is_watcher=False):
        self.number = number
        self.is_watcher = is_watcher
        self.name = f"{channel}/{protocol}/{database}{'w' if is_watcher else ''}"
        self.channel = channel
        self.path = path
        self.protocol = protocol
        self.database = database
        self.socket = None
        self.data = b""
        self.plan = deque()  # what the replies to come are for
        self.start = 0.0
        self.segment = None

    def open(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.data = b""
        try:
            self.socket.connect(self.path)
        except OSError:
            self.close()
            return False
        hello = encode("HELLO", str(self.protocol)) + encode("SELECT", str(self.database))
        return self.send(hello, [None, SELECTED])

    def close(self):
        self.socket.close()
        self.socket = None

    def send(self, data, plan):
        self.start = time.monotonic()
        self.plan.extend(plan)
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def replies(self):
        """Those that have come; OSError: the connection is lost."""
        more = self.socket.recv(65536)
        if not more:
            raise OSError("closed")
        data, at, values = self.data + more, 0, []
        try:
            while at < len(data):
                value, at = parse(data, at)
                values.append(value)
        except (IndexError, ValueError):
            pass
        self.data = data[at:]
        return values


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
    def __init__(self, index, owners, addresses, shared, seed, commands, library):
        self.index = index
        self.owners = owners
        self.shared = shared
        self.random = random.Random(seed)
        self.is_quiet = commands == "quiet"
        self.is_owed_ignored = commands == "owed"  # what the shared memory's readers must not do
        # One database, keys of which two are used together in one slot, and scripts name theirs.
        self.is_in_cluster = commands == "cluster"
        self.databases = 1 if self.is_in_cluster else DATABASES
        self.calm_s = CALM_S[commands]
        self.writes = WRITES[commands]
        self.far_channel = "b" if commands == "own" else "direct"
        self.watched_from = FAR if commands in ("own", "quiet") else CALM
        self.reads = READS if commands in ("all", "far", "cluster", "owed") else (READS[0][:1], READS[1][:1])
        self.is_far = commands == "far"
        self.sessions = [
            Session(0, channel, path, protocol, database)
            for channel, path in addresses.items()
            for protocol in ((2, 3) if channel != "direct" else (2,))
            for database in range(self.databases)
        ] + [
            Session(0, channel, addresses[channel], 2 + (index + at) % 2,
                    (index // 2 + at) % self.databases, True)
            for at, channel in enumerate(WATCHERS)
        ]
        for number, session in enumerate(self.sessions):
            session.number = number
            if library is not None and session.channel != "direct":
                session.segment = Segment(library, session.path, session.database)
        self.segment_hits = 0
        self.version = 0
        self.in_flight = set()  # slots
        self.calm_until = 0.0
        self.runs_scripts = commands in ("all", "cluster", "owed")
        self.state = {}  # (database, slot) -> value
        self.expiring = {}  # (database, slot) -> when it is gone
        self.steps = []
        self.retired = []
        self.key_ids = {}
        self.state_ids = {None: 0}
        self.seen = [array(kind) for kind in "iiidd"]

    def name(self, owner, slot):
        rest = f"{slot}:{self.shared.generations[owner * SLOTS + slot]}"
        return f"{{{tags()[2 * owner + slot % 2]}}}:{rest}" if self.is_in_cluster else f"k{owner}:{rest}"

    # --- the loop ---

    def run(self, events):
        while not self.shared.stop.value or any(session.plan for session in self.sessions):
            self.heed_pause(events)
            now = time.monotonic()
            for key in [key for key, gone in self.expiring.items() if gone < now]:
                del self.expiring[key]
            for session in self.sessions:
                if session.plan and session.start + TIMEOUT_S < now:
                    self.lose(session)
                if not session.plan and not self.shared.stop.value:
                    self.read_segment(session)
                    self.send_batch(session)
                elif session.plan and self.is_owed_ignored:
                    self.read_segment(session)
            sockets = {session.socket: session for session in self.sessions if session.plan}
            readable, _, _ = select.select(list(sockets), [], [], 0.02)
            for each in readable:
                self.take_replies(sockets[each])

    def heed_pause(self, events):
        # Between the end of a pause and the news of what it was for, nothing is written either.
        self.may_write = not self.shared.pause.value and not self.shared.paused[self.index]
        if self.shared.pause.value:
            if not self.expiring and not self.in_flight:
                self.shared.paused[self.index] = 1
        elif self.shared.paused[self.index]:
            self.apply(events.recv())
            self.shared.paused[self.index] = 0
            self.may_write = True

    def send_batch(self, session):
        if session.socket is None:
            if not session.open():
                self.lose(session)
            return
        # Behind a read whose reply waits for news, that of a write would wait, too.
        is_single = session.is_watcher or self.far_channel == "b" or self.random.random() < 0.5
        count = 1 if is_single else self.random.randrange(2, BATCH_MAX)
        data, plan = [], []
        for _ in range(count):
            write = None
            if self.may_write and not session.is_watcher and self.random.random() < self.writes:
                write = self.plan_write(session)
            if write is None:
                command, item = self.plan_read(session)
                plan.append(item)
                data.append(command)
            else:
                commands, changes, wait = write
                self.in_flight.update(slot for slot, _ in changes)
                plan += [None] * (len(commands) - 1) + [(changes, wait)]
                data += commands
        if not session.send(b"".join(data), plan):
            self.lose(session)

    def read_segment(self, session):
        """Only while its session is owed nothing: else it would overtake that."""
        if session.segment is None or session.socket is None:
            return
        for _ in range(self.random.randrange(SEGMENT_READS)):
            name, slot = self.plan_key(session)
            if slot % 2:
                continue
            start = time.monotonic()
            is_hit, state = session.segment.get(name.encode())
            if is_hit:
                self.segment_hits += 1
                self.note_read(session, self.key_id(session, name), state, start, time.monotonic())

    def take_replies(self, session):
        try:
            values = session.replies()
        except OSError:
            self.lose(session)
            return
        end = time.monotonic()
        for value in values:
            item = session.plan.popleft()
            if item is SELECTED and value != "OK":
                self.lose(session)
                return
            if item is not None and item is not SELECTED:
                self.note(session, item, value, session.start, end)

    def lose(self, session):
        if session.socket is not None:
            session.close()
        for item in session.plan:
            if item is not None and len(item) == 2:
                self.retire(item[0], session.start)
        session.plan.clear()

    def note(self, session, item, value, start, end):
        if len(item) == 3:
            key, read, _ = item
            if isinstance(value, Failed):
                return
            self.note_read(session, key, read(value), start, end)
            return
        changes, expires_ms = item
        self.in_flight.difference_update(slot for slot, _ in changes)
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

    def note_read(self, session, key, state, start, end):
        row = (key, self.state_id(state), session.number, start, end)
        for column, cell in zip(self.seen, row):
            column.append(cell)

    def key_id(self, session, name):
        return self.key_ids.setdefault(f"{session.database}/{name}", len(self.key_ids))

    def state_id(self, state):
        return self.state_ids.setdefault(state, len(self.state_ids))

    def retire(self, changes, start):
        """In all databases: so that names stay the same in all of them."""
        for slot, _ in changes:
            self.in_flight.discard(slot)
            for database in range(self.databases):
                self.retired.append((f"{database}/{self.name(self.index, slot)}", start))
                self.state.pop((database, slot), None)
                self.expiring.pop((database, slot), None)
            self.shared.generations[self.index * SLOTS + slot] += 1

    def apply(self, event):
        """What was done to all keys at once, while nobody wrote."""
        kind, start, end, channel = event
        if kind == "failover":
            return
        old = dict(self.state)
        for database in range(self.databases):
            for slot in range(SLOTS):
                state = old.get((1 - database, slot)) if kind == "swap" else None
                key = f"{database}/{self.name(self.index, slot)}"
                self.steps.append((key, state, start, end, channel, kind == "swap"))
                self.state[database, slot] = state

    # --- what is sent ---

    def plan_key(self, session):
        owner = self.random.randrange(self.owners)
        if self.is_far:
            slot = self.random.choice((FAR + 1, CALM + 1))
        elif session.is_watcher:
            slot = self.random.randrange(self.watched_from, SLOTS)
        else:
            # Pipelined reads are often sent on though there is an entry, and so replace a wrong one.
            all_slots = FAR if self.is_quiet and session.channel != "direct" else SLOTS
            slot = self.random.randrange(HOT if self.random.random() < 0.5 else all_slots)
        if slot >= FAR and session.channel != "direct":
            # Of one protocol and database: what one connection was not told, none was.
            slot = slot & ~2 | (2 if session.protocol == 3 else 0)
            owner = owner & ~1 | session.database
        return self.name(owner, slot), slot

    def plan_read(self, session):
        name, slot = self.plan_key(session)
        words, tail, read = self.random.choice(self.reads[slot % 2])
        return encode(*words, name, *tail), (self.key_id(session, name), read, None)

    def plan_write(self, session):
        """(commands, [(slot, state after)], milliseconds until it expires); None: not now."""
        now = time.monotonic()
        slot = self.random.randrange(CALM if now < self.calm_until else SLOTS)
        database = session.database
        if slot in self.in_flight or (database, slot) in self.expiring:
            return None
        if slot >= FAR and session.channel != self.far_channel:
            return None
        if slot >= CALM:
            self.calm_until = now + self.calm_s * self.random.random()
        name = self.name(self.index, slot)
        self.version += 1
        value = f"{database}.{name}={self.version}" + "." * self.random.choice((0, 0, 60))
        is_hash = slot % 2
        choice = self.random.randrange(20)
        put = ("HSET", name, FIELD, value) if is_hash else ("SET", name, value)
        if choice == 0:
            return [encode("DEL", name)], [(slot, None)], 0
        if choice == 1 and self.runs_scripts:
            script = HSET_SCRIPT if is_hash else SET_SCRIPT
            if self.is_in_cluster:
                script = script.replace("ARGV[1]", "KEYS[1]").replace("ARGV[2]", "ARGV[1]")
            count = "1" if self.is_in_cluster else "0"
            return [encode("EVAL", script, count, name, value)], [(slot, value)], 0
        if choice == 2:
            return [encode("MULTI"), encode(*put), encode("EXEC")], [(slot, value)], -1
        if choice == 3:
            commands = [encode("WATCH", name), encode("MULTI"), encode(*put), encode("EXEC")]
            return commands, [(slot, value)], -1
        if choice == 4 and not is_hash:
            expires_ms = self.random.randrange(20, 250)
            return [encode("SET", name, value, "PX", str(expires_ms))], [(slot, value)], expires_ms
        if choice in (5, 6) and slot < FAR:
            return self.plan_copy(database, slot) or ([encode(*put)], [(slot, value)], 0)
        return [encode(*put)], [(slot, value)], 0

    def plan_copy(self, database, slot):
        target = (slot + 2) % FAR
        state = self.state.get((database, slot))
        if state is None or target in self.in_flight or (database, target) in self.expiring:
            return None
        names = [self.name(self.index, each) for each in (slot, target)]
        if self.random.random() < 0.5:
            return [encode("RENAME", *names)], [(slot, None), (target, state)], 0
        # The source is a change, too, so that nobody else changes it meanwhile.
        return [encode("COPY", *names, "REPLACE")], [(slot, state), (target, state)], 0

    # --- afterwards ---

    def check(self, steps, retired, lost, bounds):
        checker = Checker(bounds)
        for step in steps:
            checker.step(*step)
        for key, start in retired:
            checker.retire(key, start)
        for each in lost:
            checker.lose(*each)
        for read in self.reads_seen():
            checker.read(*read)
        told = [(each, checker.explain(each, self.reads_seen()))
                for each in checker.violations[:TOLD_MAX]]
        told += [(each, []) for each in checker.violations[TOLD_MAX:]]
        return checker.reads, told, self.segment_hits

    def reads_seen(self):
        keys, states = list(self.key_ids), list(self.state_ids)
        for key, state, session, start, end in zip(*self.seen):
            by = self.sessions[session]
            yield Read(keys[key], states[state], start, end, by.channel, f"{self.index}/{by.name}")


def main(index, owners, addresses, shared, seed, commands, library, pipe):
    worker = Worker(index, owners, addresses, shared, seed, commands, library)
    worker.run(pipe)
    pipe.send((worker.steps, worker.retired))
    pipe.send(worker.check(*pipe.recv()))
