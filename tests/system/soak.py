"""Workers of the soak test. Each knows which answers it may get: a reply that belongs to another
request, a command that ran twice or an element that is gone shows, in `violations` or at the end.

As in load.py, a command is acknowledged, refused (it was never sent), or its outcome is unknown.
"""

import socket
import threading
import time

from load import MAY_HAVE_RUN, NEVER_SENT
from resp import Closed, RespError, encode, parse

LOST = (OSError, Closed, socket.timeout)


class Unknown(Exception):
    """The outcome of what was sent is not known."""


class Refused(Exception):
    """It was never sent."""


class SoakWorker(threading.Thread):
    """One client that does turn() until it is stopped, and connects anew when it was closed."""

    def __init__(self, connect, name):
        super().__init__(daemon=True, name=name)
        self.connect = connect
        self.stopping = threading.Event()
        self.violations = []
        self.acknowledged = self.refused = self.unknown = self.reconnects = 0
        self.last_ok_at = 0.0

    def run(self):
        while not self.stopping.is_set() and not self.violations:
            try:
                client = self.connect()
            except OSError:
                time.sleep(0.01)
                continue
            with client:
                self.serve(client)

    def serve(self, client):
        """One connection, to its end."""
        try:
            self.begin(client)
            while not self.stopping.is_set() and not self.violations:
                self.try_turn(client)
        except LOST:
            self.unknown += 1
            self.reconnects += 1
            self.on_unknown()
        except Refused:
            self.refused += 1

    def try_turn(self, client):
        try:
            self.turn(client)
            self.acknowledged += 1
            self.last_ok_at = time.monotonic()
        except Refused:
            self.refused += 1
            self.on_refused()
        except Unknown:
            self.unknown += 1
            self.on_unknown()

    def begin(self, client):
        pass

    def turn(self, client):
        raise NotImplementedError

    def on_unknown(self):
        pass

    def on_refused(self):
        pass

    def check(self, right, *what):
        if not right:
            self.violations.append((self.name, *what))

    def ask(self, client, *commands):
        """The parsed replies. Unknown or Refused if any of them says so; all replies are read."""
        client.send(b"".join(encode(*command) for command in commands))
        replies = client.read_replies(len(commands), 60)
        if any(reply.startswith(MAY_HAVE_RUN) for reply in replies):
            raise Unknown
        if any(reply.startswith(NEVER_SENT) for reply in replies):
            # What was before it in the pipeline may have run.
            raise Refused if len(commands) == 1 else Unknown
        return [parse(reply) for reply in replies]


class Plain(SoakWorker):
    """Values with tags, some of them large, in three protocols' worth of sessions."""

    def __init__(self, connect, name):
        super().__init__(connect, name)
        self.number = 0
        self.possible = {None}  # What the key may hold.

    def begin(self, client):
        if hash(self.name) % 2:
            client.command("HELLO", "3", timeout=60)

    def turn(self, client):
        self.number += 1
        tag = f"{self.name}/{self.number}/".encode()
        value = tag + b"x" * (100_000 if self.number % 50 == 0 else self.number % 300)
        self.possible.add(value)
        stored, got, echo = self.ask(
            client, ("SET", self.name, value), ("GET", self.name), ("ECHO", tag)
        )
        self.check(stored == b"OK" and got == value and echo == tag, stored, got[:60], echo, tag)
        self.possible = {value}

    def on_unknown(self):
        pass  # `possible` has the old values and the new one.


class Transaction(SoakWorker):
    """Two counters that are only ever changed together, in one write or step by step."""

    def __init__(self, connect, name):
        super().__init__(connect, name)
        self.number = self.last = 0
        self.unexplained = 0

    def turn(self, client):
        self.number += 1
        tag = f"{self.name}/{self.number}"
        block = [("INCR", f"{self.name}:a"), ("INCR", f"{self.name}:b"), ("ECHO", tag)]
        if self.number % 2:
            replies = self.ask(client, ("MULTI",), *block, ("EXEC",))
        else:
            replies = self.step_by_step(client, [("MULTI",), *block, ("EXEC",)])
        self.check(replies[:4] == [b"OK"] + [b"QUEUED"] * 3, replies)
        result = replies[4]
        if not isinstance(result, list) or len(result) != 3:
            self.check(False, tag, replies)
            return
        self.check(result[0] == result[1] and result[2] == tag.encode(), tag, result)
        skipped = result[0] - self.last - 1
        self.check(0 <= skipped <= self.unexplained, tag, result, self.last, self.unexplained)
        self.unexplained -= skipped
        self.last = result[0]

    def step_by_step(self, client, commands):
        try:
            return [self.ask(client, command)[0] for command in commands]
        except (Refused, Unknown):
            # A server that is loading refuses a step, and stays in MULTI.
            self.ask(client, ("DISCARD",))
            raise

    def on_unknown(self):
        self.unexplained += 1

    on_refused = on_unknown  # A step may have been refused behind others that were not.


class OptimisticLock(SoakWorker):
    """Adds one to a counter that many share, if nobody else did since it was read."""

    COUNTER = "soak:counter"

    def turn(self, client):
        (watched,) = self.ask(client, ("WATCH", self.COUNTER))
        (value,) = self.ask(client, ("GET", self.COUNTER))
        set_it = ("SET", self.COUNTER, int(value or 0) + 1)
        *queued, done = self.ask(client, ("MULTI",), set_it, ("EXEC",))
        self.check(watched == b"OK" and queued == [b"OK", b"QUEUED"], watched, queued)
        self.check(done in (None, [b"OK"]), done)
        self.successes = getattr(self, "successes", 0) + (done is not None)


class Producer(SoakWorker):
    """Pushes elements that are all different."""

    def __init__(self, connect, name, queue):
        super().__init__(connect, name)
        self.queue = queue
        self.number = 0
        self.element = b""
        self.pushed, self.maybe_pushed, self.never_pushed = set(), set(), set()

    def turn(self, client):
        self.number += 1
        self.element = f"{self.name}/{self.number}".encode()
        self.maybe_pushed.add(self.element)
        (length,) = self.ask(client, ("RPUSH", self.queue, self.element))
        self.check(isinstance(length, int) and length > 0, length)
        self.maybe_pushed.discard(self.element)
        self.pushed.add(self.element)
        if isinstance(length, int) and length > 100:
            self.stopping.wait(0.05)  # The consumers shall have to wait now and then.

    def on_refused(self):
        self.maybe_pushed.discard(self.element)
        self.never_pushed.add(self.element)


class Consumer(SoakWorker):
    """Pops them, waiting for them, with another command behind."""

    def __init__(self, connect, name, queue):
        super().__init__(connect, name)
        self.queue = queue
        self.number = 0
        self.popped = []

    def turn(self, client):
        self.number += 1
        tag = f"{self.name}/{self.number}"
        commands = [("BLPOP", self.queue, "soak:empty", "1"), ("ECHO", tag)]
        client.send(b"".join(encode(*command) for command in commands))
        first = client.read_reply(60)
        popped = parse(first)
        # Told at once: what comes after may fail, the element is ours.
        if isinstance(popped, list):
            self.check(popped[0] == self.queue.encode() and len(popped) == 2, popped)
            self.popped.append(popped[1])
        echo = client.read_reply(60)
        if first.startswith(MAY_HAVE_RUN):
            raise Unknown
        if first.startswith(NEVER_SENT):
            raise Refused
        self.check(popped is None or isinstance(popped, list), popped)
        right = parse(echo) == tag.encode() or echo.startswith(MAY_HAVE_RUN + NEVER_SENT)
        self.check(right, tag, echo[:80])


class Mover(Consumer):
    """Takes elements to another list, where they stay."""

    def turn(self, client):
        (moved,) = self.ask(client, ("BLMOVE", self.queue, "soak:moved", "LEFT", "RIGHT", "1"))
        self.check(moved is None or isinstance(moved, bytes), moved)


class Leaver(SoakWorker):
    """Goes away while it waits, with input behind, and must not take what comes later."""

    def turn(self, client):
        client.send(encode("BLPOP", "soak:later", "0") + encode("PING") * 20 + b"*1\r\n$4\r\nPI")
        self.stopping.wait(0.02)
        raise Closed


class Publisher(SoakWorker):
    """Numbered messages."""

    def __init__(self, connect, name, channel):
        super().__init__(connect, name)
        self.channel = channel
        self.number = 0
        self.failed = set()

    def turn(self, client):
        self.number += 1
        (receivers,) = self.ask(client, ("PUBLISH", self.channel, self.number))
        self.check(isinstance(receivers, int), receivers)
        self.stopping.wait(0.005)

    def on_unknown(self):
        self.failed.add(self.number)

    on_refused = on_unknown


class Subscriber(SoakWorker):
    """Gets all of them in order, for as long as its connection lasts."""

    def __init__(self, connect, name, channel):
        super().__init__(connect, name)
        self.channel = channel
        self.last = None
        self.skipped = set()

    def begin(self, client):
        self.last = None
        reply = client.command("SUBSCRIBE", self.channel, timeout=60)
        if reply.startswith(NEVER_SENT + MAY_HAVE_RUN):
            raise Refused
        self.check(parse(reply) == [b"subscribe", self.channel.encode(), 1], reply)

    def turn(self, client):
        try:
            message = parse(client.read_reply(0.5))
        except socket.timeout:
            return
        right = isinstance(message, list) and message[:2] == [b"message", self.channel.encode()]
        self.check(right, message if not isinstance(message, RespError) else str(message))
        if not right:
            return
        number = int(message[2])
        if self.last is not None:
            self.check(number > self.last, number, self.last)
            self.skipped.update(range(self.last + 1, number))
        self.last = number
