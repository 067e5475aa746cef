"""Runs the scripts for several clients, both ways, and compares what each client got."""

import re
import time

import scripts_pushes
import scripts_waiting
import templates
import wire
from compare import Difference
from masks import hello
from world import FENCE, PATIENCE_SECONDS, Start, Talk

POLL_SECONDS = 0.003


class Stuck(Exception):
    """What a script waits for does not come."""


def parse():
    """Pairs of (name, lines)."""
    blocks = (scripts_waiting.TEXT.strip() + "\n\n" + scripts_pushes.TEXT.strip()).split("\n\n")
    return [(block.split("\n")[0][2:], block.split("\n")[1:]) for block in blocks]


class Scenario:
    """One script, on its way through one address."""

    def __init__(self, world, protocol, tag, *, directly):
        self.world = world
        self.path = world.server.path if directly else world.path
        self.directly = directly
        self.protocol = protocol
        self.tag = tag
        self.clients = {}
        self.ids = {}
        self.commands = []

    def run(self, lines):
        """What each client got, as lists of frames; where a script got stuck, what there is."""
        problem = None
        try:
            for line in lines:
                self._open(re.match(r"(\w)[:><.!-]", line), lines)
            for line in lines:
                self._step(line)
            self._fence()
        except Stuck as stuck:
            problem = f"stuck at {stuck}"
        finally:
            for talk in self.clients.values():
                talk.socket.close()
        got = {name: self._frames(talk) for name, talk in self.clients.items()}
        return got, problem

    def _open(self, match, lines):
        """CLIENT ID is asked only where it is needed: nearkey gives such a client a connection of
        its own."""
        if match is None or match[1] in self.clients:
            return
        name = match[1]
        talk = self.clients[name] = Talk(self.path)
        talk.send(wire.encode((b"HELLO", b"%d" % self.protocol)))
        self._wait(talk, 1, "HELLO")
        if any("$" + name in line for line in lines):
            start = talk.counted
            talk.send(wire.encode((b"CLIENT", b"ID")))
            self._wait(talk, 1, "CLIENT ID")
            self.ids[name] = bytes(talk.data[start + 1 : talk.counted - 2])
        talk.data.clear()
        talk.counted = 0

    def _step(self, line):
        name, mark, rest = line[0], line[1], line[2:].strip()
        if line.split()[0] in ("blocked", "subscribers"):
            self._wait_for_server(*line.split())
            return
        talk = self.clients[name]
        if mark == ".":
            talk.socket.close()
            talk.ended = "left"
        elif mark in ":>":
            self._send(talk, rest)
            if mark == ":":
                self._wait(talk, 1, line)
        elif mark == "<" and rest == "end":
            self._wait(talk, 1 << 30, line)
        elif mark == "<":
            self._wait(talk, int(rest), line)
        elif mark == "-":
            self._wait_for_text(talk, rest.encode(), line)
        elif mark == "!":
            self._repeat(talk, *rest.split(" ", 1))

    def _send(self, talk, text):
        filler = templates.Filler(self.world.extra, tag=self.tag)
        words = [re.sub(r"^\$(\w)$", lambda m: self.ids[m[1]].decode(), w) for w in text.split()]
        args = templates.fill(templates.parse_command(words), filler)
        self.commands.append(args)
        talk.send(wire.encode(args))
        self.world.mirror(args)

    def _wait(self, talk, count, line):
        """Until so many frames have come, or until it is closed."""
        for _ in range(count):
            while (end := wire.frame_end(talk.data, talk.counted)) < 0:
                if not talk.receive():
                    if talk.ended == "closed" and count == 1 << 30:
                        return
                    raise Stuck(f"'{line}': {talk.ended}, {bytes(talk.data[talk.counted:])!r}")
            talk.counted = end

    def _wait_for_text(self, talk, text, line):
        while text not in talk.data:
            if not talk.receive():
                raise Stuck(f"'{line}': {talk.ended}")
        talk.counted = len(talk.data)

    def _repeat(self, talk, word, command):
        """The last reply alone counts."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            start = len(talk.data)
            self._send(talk, command)
            self._wait(talk, 1, command)
            if word.encode() in talk.data[start:]:
                return
            del talk.data[start:]
            talk.counted = start
            if time.monotonic() > deadline:
                raise Stuck(f"no {word} in the reply to '{command}'")

    def _wait_for_server(self, what, number):
        field = {"blocked": b"blocked_clients", "subscribers": b"pubsub_clients"}[what]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.world.clients(field, directly=self.directly) != int(number):
            if time.monotonic() > deadline:
                raise Stuck(f"not {number} {what}")
            time.sleep(POLL_SECONDS)

    def _fence(self):
        """What is still under way to a client comes before the answer to its fence."""
        for talk in self.clients.values():
            if talk.ended is None:
                talk.send(FENCE)
        for name, talk in self.clients.items():
            if talk.ended is None and talk.read_to_fence().ended == "silence":
                raise Stuck(f"the end of client {name}")

    def _frames(self, talk):
        frames, rest = wire.split_frames(talk.data)
        lines = [frame for frame in frames if not re.match(rb"\+\d+\.\d+ \[", frame)]
        monitored = [
            re.sub(rb"^\+\S+ \[(\d+) \S+\]", rb"+# [\1 #]", frame)
            for frame in frames
            if frame not in lines and b'"monitored"' in frame
        ]
        ended = [b"ended: " + talk.ended.encode()] if talk.ended else []
        return [hello((), frame) for frame in lines + monitored] + [rest] + ended


def compare(world, name, lines, protocol, tag=b""):
    """(the difference or None, how many commands, how many bytes)."""
    start = Start(is_thorough=True, tags=(tag,))
    world.prepare(start, directly=True)
    directly = Scenario(world, protocol, tag, directly=True)
    wanted, problem = directly.run(lines)
    world.prepare(start, directly=False)
    other = Scenario(world, protocol, tag, directly=False)
    got, other_problem = other.run(lines)
    count = sum(len(frame) for frames in wanted.values() for frame in frames)
    if wanted == got and problem == other_problem:
        return None, len(directly.commands), count
    text = [f"  directly: {problem or 'came to its end'}", f"  nearkey:  {other_problem or 'too'}"]
    for client in sorted(wanted):
        if wanted[client] != got.get(client):
            text.append(f"  client {client} directly: {wanted[client]!r}")
            text.append(f"  client {client} nearkey:  {got.get(client)!r}")
    return Difference(_Named(name, directly.commands), "\n".join(text), name), len(
        directly.commands
    ), count


class _Named:
    """A scenario as the report wants it."""

    def __init__(self, name, commands):
        self.name = name
        self.commands = commands
