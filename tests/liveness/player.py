"""Plays the clients of a sequence at once, and notes when each reply was there.

One loop for all: each client is an Actor, which writes its pieces, pauses, waits for replies, and
reads in its own way. It ends with a fence (RESET and a PING, sent when all that is owed has come),
with the end of the connection, or when nothing moves any more.
"""

import select
import socket
import time
from dataclasses import dataclass, field

import wire
from resp import Framer
from world import FENCE, FENCE_REPLY

READ_BYTES = 1 << 18
SLOW_READ_BYTES = 1 << 14
SLOW_PAUSE_SECONDS = 0.002
SLOW_SECONDS = 0.12  # Then it reads as it can: the test is to end.
LATE_SECONDS = 0.05


@dataclass
class Outcome:
    data: bytearray = field(default_factory=bytearray)
    ends: list = field(default_factory=list)  # Of each reply or push,
    times: list = field(default_factory=list)  # and when it was complete.
    in_band: int = 0
    expected: int = 0
    sent: int = 0
    to_send: int = 0
    ended: str = ""  # "fence", "closed", "left", "silence" or "garbage".

    def where(self):
        replies = f"{min(self.in_band, self.expected)} of {self.expected} replies"
        return f"{replies}, {self.sent} of {self.to_send} bytes written"


def actions_of(client):
    """What the client does, in order: bytes to write, seconds to pause, or (frames,) to await."""
    actions, pending = [], bytearray()
    if client.start_seconds:
        actions.append(client.start_seconds)

    def flush():
        nonlocal pending
        if pending:
            actions.append(pending)
            pending = bytearray()

    for command, owed in zip(client.commands, client.frames_before()):
        data = command.bytes()
        if command.waits:
            flush()
            actions.append((owed,))
        at = 0
        for place, pause in sorted(command.cuts):
            place = max(0, min(place, len(data)))
            pending += data[at:place]
            flush()
            actions.append(pause)
            at = place
        pending += data[at:]
    flush()
    return actions


class Actor:
    def __init__(self, client, path, *, may_half_close):
        self.client = client
        self.actions = actions_of(client)
        self.next = 0  # The action that comes next,
        self.offset = 0  # and what of its bytes is written.
        self.outcome = Outcome(expected=client.frames_before()[-1])
        self.outcome.to_send = sum(len(a) for a in self.actions if isinstance(a, bytearray))
        self.half_closes = client.ending == "half-close" and may_half_close
        self.waits_for_end = self.half_closes or client.ending == "quit"
        self.has_fence = False
        self.framer = Framer()
        self.frame_start = 0
        self.wakes_at = self.reads_at = self.slow_until = 0.0
        self.sent_at = None
        self.socket = socket.socket(socket.AF_UNIX)
        if client.buffer_bytes:
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self.socket.setsockopt(socket.SOL_SOCKET, option, client.buffer_bytes)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.moved_at = time.monotonic()

    def is_done(self):
        return bool(self.outcome.ended)

    def close(self):
        self.socket.close()

    def end(self, how):
        if not self.outcome.ended:
            self.outcome.ended = how
            self.socket.close()

    def step(self, now):
        """Goes past pauses that are over and replies that have come."""
        while self.next < len(self.actions):
            action = self.actions[self.next]
            if isinstance(action, bytearray):
                return
            if isinstance(action, tuple):
                if self.outcome.in_band < action[0]:
                    return
            else:
                self.wakes_at = self.wakes_at or now + action
                if now < self.wakes_at:
                    return
                self.wakes_at = 0.0
                self.moved_at = now
            self.next += 1
        if self.sent_at is None:
            self._all_is_sent(now)
        if not self.waits_for_end and not self.has_fence:
            if self.outcome.in_band >= self.outcome.expected:
                self.has_fence = True
                self.actions.append(bytearray(FENCE))

    def _all_is_sent(self, now):
        self.sent_at = now
        if self.client.reading == "late":
            self.reads_at = now + LATE_SECONDS
        if self.half_closes:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def events(self, now):
        wanted = select.POLLIN if self._may_read(now) else 0
        if self.next < len(self.actions) and isinstance(self.actions[self.next], bytearray):
            wanted |= select.POLLOUT
        return wanted

    def _may_read(self, now):
        if self.client.reading in ("write-first", "late") and self.sent_at is None:
            # Whoever waits for replies in between reads them.
            return self.next < len(self.actions) and isinstance(self.actions[self.next], tuple)
        return now >= self.reads_at

    def due_at(self, now):
        """When it is to be looked at again, if nothing happens."""
        return min((at for at in (self.wakes_at, self.reads_at) if at > now), default=now + 0.1)

    def is_asleep(self, now):
        return self.wakes_at > now or self.reads_at > now

    def write(self, now):
        data = self.actions[self.next]
        limit = len(data)
        if self.client.ending == "leave":
            limit = min(limit, self.offset + max(0, self.client.leaves_after - self.outcome.sent))
        try:
            with memoryview(data) as view:
                count = self.socket.send(view[self.offset : min(limit, self.offset + READ_BYTES)])
        except BlockingIOError:
            return
        except OSError:
            # Closed by what came before; what was answered is still there to be read.
            self.next, self.waits_for_end = len(self.actions), True
            return
        self.moved_at = now
        self.offset += count
        if not self.has_fence:
            self.outcome.sent += count
        if self.client.ending == "leave" and self.outcome.sent >= self.client.leaves_after:
            self.end("left")
        elif self.offset == len(data):
            self.next, self.offset = self.next + 1, 0

    def read(self, now):
        is_slow = self.client.reading == "slow" and (
            self.reads_at == 0.0 or now < self.slow_until
        )
        if is_slow:
            self.slow_until = now + SLOW_SECONDS if self.reads_at == 0.0 else self.slow_until
            self.reads_at = now + SLOW_PAUSE_SECONDS
        try:
            data = self.socket.recv(SLOW_READ_BYTES if is_slow else READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end("closed")
            return
        self.moved_at = now
        self.outcome.data += data
        try:
            self._count_frames(now)
        except (AssertionError, ValueError):
            self.end("garbage")
        if self.has_fence and self.outcome.data.endswith(FENCE_REPLY):
            self.end("fence")

    def _count_frames(self, now):
        outcome, data = self.outcome, self.outcome.data
        while self.frame_start < len(data):
            end = self.framer.end(data)
            if end is None:
                return
            outcome.ends.append(end)
            outcome.times.append(now)
            if data[self.frame_start] != 0x3E or not wire.is_out_of_band(
                bytes(data[self.frame_start : self.frame_start + 40])
            ):
                outcome.in_band += 1
            self.frame_start = end
            self.framer = Framer()
            self.framer.position = end


def play(clients, *, may_half_close, silence_seconds):
    """The outcomes of all clients, which are pairs of an address and a Client; times count from the
    start. Whoever has neither written nor read a byte for `silence_seconds`, though something is
    owed, has been met with silence."""
    actors = []
    try:
        for path, client in clients:
            actors.append(Actor(client, path, may_half_close=may_half_close))
        started = time.monotonic()
        while running := [actor for actor in actors if not actor.is_done()]:
            _turn(running, silence_seconds)
        for actor in actors:
            actor.outcome.times = [at - started for at in actor.outcome.times]
        return [actor.outcome for actor in actors]
    finally:
        for actor in actors:
            actor.close()


def _turn(actors, silence_seconds):
    now = time.monotonic()
    poller, by_descriptor, wakes_at = select.poll(), {}, now + 0.1
    for actor in actors:
        actor.step(now)
        wakes_at = min(wakes_at, actor.due_at(now))
        if not actor.is_asleep(now) and now - actor.moved_at > silence_seconds:
            actor.end("silence")
        wanted = 0 if actor.is_done() else actor.events(now)
        if wanted:
            poller.register(actor.socket, wanted)
            by_descriptor[actor.socket.fileno()] = actor, wanted
    for descriptor, events in poller.poll(max(0.0, wakes_at - now) * 1000):
        actor, wanted = by_descriptor[descriptor]
        now = time.monotonic()
        if wanted & select.POLLOUT and events & ~select.POLLIN and not actor.is_done():
            actor.write(now)
        if wanted & select.POLLIN and events & ~select.POLLOUT and not actor.is_done():
            actor.read(now)
