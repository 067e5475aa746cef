"""200 clients that know what they may be answered, over a failover: see Client.evaluate().

Everything runs in one event loop; times are those of time.monotonic().
"""

import asyncio
import random
import socket
import time

from resp import Closed, Framer, encode

NEVER_SENT = b"-UPSTREAMDOWN"
MAY_HAVE_RUN = (b"-UPSTREAMLOST", b"-UPSTREAMTIMEOUT")
ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"
PAUSE_S = (0.06, 0.12)
# A replica is behind its primary by less: what was acknowledged that long before it was promoted
# is kept.
LAG_S = 0.1
ANSWERED_S = 15


class Failover:
    """When a replica was promoted (between `not_yet` and `promoted`), and when the first write was
    acknowledged by it through nearkey."""

    def __init__(self, number):
        self.number = number
        self.not_yet = self.promoted = self.first_write = self.told = 0.0
        self.lost = 0  # Acknowledged by the former after the promotion.
        self.late = 0.0  # The latest that was sent to the former, after first_write.

    def took(self):
        return self.first_write - self.promoted

    def answered_by_former(self, sent):
        self.late = max(self.late, sent - self.first_write)


class Connection:
    """One client; commands are answered in turn."""

    @classmethod
    async def open(cls, path):
        self = cls()
        end = socket.socket(socket.AF_UNIX)
        end.connect(path)  # One that may not block fails where the backlog is full.
        self.reader, self.writer = await asyncio.open_unix_connection(sock=end)
        return self

    async def command(self, *args):
        """The reply as it came, a string without its length."""
        self.writer.write(encode(*args))
        buffer, framer = bytearray(), Framer()
        while (end := framer.end(buffer)) is None:
            data = await self.reader.read(1 << 16)
            if not data:
                raise Closed(f"closed after {bytes(buffer[:80])!r}")
            buffer += data
        if buffer.startswith(b"$") and not buffer.startswith(b"$-1"):
            return bytes(buffer[buffer.index(b"\r\n") + 2 : end - 2])
        return bytes(buffer[: end - 2])

    def close(self):
        self.writer.close()


class Client:
    """INCR of a counter, SET and GET of a value, both its own, and GET of a value that others
    change; then a pause. `records` has all of it: (command, sent, written value, outcome, reply).
    """

    def __init__(self, load, number):
        self.load = load
        self.counter, self.value = f"counter:{number}", f"value:{number}"
        self.records = []
        self.violations = []
        self.is_idle = False
        self.written = 0
        self.last = 0  # What the counter was, as far as it knows.
        self.unexplained = 0  # Increments that may have run.

    async def run(self, path):
        connection = await Connection.open(path)
        try:
            while not self.load.is_over:
                self.is_idle = not self.load.gate.is_set()
                if self.is_idle:
                    await self.load.gate.wait()
                    continue
                self.written += 1
                await self.do(connection, "INCR", self.counter)
                await self.do(connection, "SET", self.value, self.written)
                await self.do(connection, "GET", self.value)
                await self.do(connection, "GET", self.load.SHARED)
                await asyncio.sleep(random.uniform(*PAUSE_S))
        except (OSError, Closed) as error:
            self.violations.append(f"{self.counter}: its connection ended: {error!r}")
        finally:
            self.is_idle = True
            connection.close()

    async def do(self, connection, *words):
        sent = time.monotonic()
        reply = await connection.command(*words)
        outcome = ACKNOWLEDGED
        if reply.startswith(b"-"):
            outcome = REFUSED if reply.startswith(NEVER_SENT) else UNKNOWN
            if not reply.startswith((NEVER_SENT, *MAY_HAVE_RUN)):
                self.violations.append(f"{words} sent at {sent:.3f}: {reply}")
        self.records.append((words, sent, outcome, reply))

    # Afterwards: was all of it right?

    def evaluate(self, failover):
        """The violations of the rules over one failover, as texts:
        - a counter goes up by one with each acknowledged increment and each that may have run, and
          back once, from what the former primary made it after the promotion;
        - a value that was written is what is read; not in between, when the former was written to
          and the new one is read;
        - what others wrote at the new primary is read as soon as writes are acknowledged there."""
        self.check_counter(failover)
        self.check_values(failover)
        found, self.violations, self.records = self.violations, [], []
        return found

    def check_counter(self, failover):
        kept = 0  # Replicated for sure.
        former = []  # When what it acknowledged was sent.
        is_turned = False
        for words, sent, outcome, reply in self.records:
            if words[0] != "INCR":
                continue
            if outcome == UNKNOWN:
                self.unexplained += 1
            if outcome != ACKNOWLEDGED:
                continue
            value = int(reply[1:])
            skipped = value - self.last - 1
            if 0 <= skipped <= self.unexplained:
                self.unexplained -= skipped
            elif not is_turned and kept < value <= self.last and sent > failover.not_yet - LAG_S:
                is_turned = True
                failover.lost += self.last - value + 1
                for each in former:
                    failover.answered_by_former(each)
                self.unexplained = 0
            else:
                self.violate(failover, f"{words[1]} is {value} after {self.last}", sent)
            self.last = value
            if not is_turned:
                former.append(sent)
                former = former[-1:]
            if sent < failover.not_yet - LAG_S:
                kept = value

    def check_values(self, failover):
        known = None  # What it read or wrote last; None at first and when the servers change.
        maybe = set()
        is_turned = False
        for words, sent, outcome, reply in self.records:
            if not is_turned and sent > failover.first_write:
                is_turned, known, maybe = True, None, set()
            if words[1] == self.load.SHARED and outcome == ACKNOWLEDGED:
                if sent > max(failover.first_write, failover.told):
                    expected = self.load.shared_value(failover).encode()
                    if reply != expected:
                        self.violate(failover, f"others wrote {expected}, {reply} was read", sent)
            elif words[0] == "SET" and outcome != REFUSED:
                value = str(words[2]).encode()
                known, maybe = (
                    (value, set()) if outcome == ACKNOWLEDGED else (known, maybe | {value})
                )
            elif words[0] == "GET" and words[1] == self.value and outcome == ACKNOWLEDGED:
                is_between = failover.not_yet - LAG_S < sent <= failover.first_write
                if known is not None and not is_between and reply not in {known, *maybe}:
                    self.violate(failover, f"{known} was written, {reply} was read", sent)
                known, maybe = reply, maybe - {reply}

    def check_end(self, failover, final):
        """`final` is the counter at the new primary."""
        if not self.last <= final <= self.last + self.unexplained:
            text = f"{self.counter} is {final} in the end, {self.unexplained} unknown"
            self.violate(failover, f"{text}, {self.last} was acknowledged", time.monotonic())
        self.last, self.unexplained = final, 0
        return self.violations

    def violate(self, failover, text, sent):
        since = sent - failover.first_write
        self.violations.append(f"{text}; sent {since:+.4f} s from the first write at the new one")


class Load:
    SHARED = "shared"

    def __init__(self, path, clients):
        self.path = path
        self.clients = [Client(self, number) for number in range(clients)]
        self.gate = asyncio.Event()
        self.is_over = False
        self.probes = []  # (number, sent, answered) of writes that were acknowledged.
        self.tasks = []

    def shared_value(self, failover):
        return f"of failover {failover.number}"

    async def start(self):
        self.tasks = [asyncio.create_task(client.run(self.path)) for client in self.clients]
        self.tasks.append(asyncio.create_task(self.probe()))

    async def probe(self):
        """A client that writes another key every few ms: which server has it, tells who
        acknowledged it."""
        connection = await Connection.open(self.path)
        number = 0
        while not self.is_over:
            if not self.gate.is_set():
                await self.gate.wait()
                continue
            sent = time.monotonic()
            if await connection.command("SET", f"probe:{number}", 1, "PX", 60000) == b"+OK":
                self.probes.append((number, sent, time.monotonic()))
            number += 1
            await asyncio.sleep(0.002)
        connection.close()

    async def pause(self):
        """No more commands, and all of them are answered."""
        self.gate.clear()
        deadline = time.monotonic() + ANSWERED_S
        while not all(client.is_idle for client in self.clients):
            assert time.monotonic() < deadline, "a client was not answered"
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # The probe as well.

    async def stop(self):
        self.is_over = True
        self.gate.set()
        _, pending = await asyncio.wait(self.tasks, timeout=ANSWERED_S)
        assert not pending, "a client hangs"
        for task in self.tasks:
            task.result()

    def answers(self):
        return sum(len(client.records) for client in self.clients)

    def judge_probes(self, failover, new):
        """Finds the first write that the new primary acknowledged. A violation for each later one
        that it does not have."""
        late = [each for each in self.probes if each[1] > failover.promoted]
        self.probes = []
        with new.client() as direct:
            there = direct.pipeline([("EXISTS", f"probe:{number}") for number, _, _ in late])
        acknowledged = [each for each, found in zip(late, there) if found == b":1\r\n"]
        assert acknowledged, "no write was acknowledged by the new primary"
        failover.first_write = min(answered for _, _, answered in acknowledged)
        for (number, sent, _), found in zip(late, there):
            if found != b":1\r\n":
                failover.answered_by_former(sent)
        return failover
