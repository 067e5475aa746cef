"""A scripted sequence, and the plan by which it is cut into pieces and paced."""

import time
from dataclasses import dataclass, field, replace

import wire
from world import FENCE


@dataclass
class Sequence:
    name: str
    commands: list  # Each a tuple of arguments.
    wires: list = field(default_factory=list)  # Their bytes, if not the canonical ones.
    is_thorough: bool = False  # Changes more than keys: the set-up is done again in full.
    may_block: bool = False
    # So many commands at the start are sent one by one, each after the answer to the last: a few
    # errors of Valkey depend on what else is in the pipeline.
    lockstep: int = 0
    covers: tuple = ()  # The command of the server, the protocol and the kind of call.
    tags: tuple = (b"",)  # Behind the names of its keys: there is the data set once for each.
    # Before a cluster: what the server itself gets in place of commands that are refused there.
    reference: list = None
    refused: dict = field(default_factory=dict)  # Why, by the place of the command.

    def __post_init__(self):
        if not self.wires:
            self.wires = [wire.encode(args) for args in self.commands]

    def bytes(self):
        return b"".join(self.wires)

    def with_reference(self, commands, wires, reference, refused):
        """The same with some of its commands only, and the server's in place of those refused."""
        lockstep = min(self.lockstep, len(commands))
        return replace(self, commands=commands, wires=wires, lockstep=lockstep,
                       reference=reference, refused=refused)

    def directly(self):
        """As the server itself gets it."""
        if self.reference is None:
            return self
        wires = [
            wire.encode(reference) if reference is not args else data
            for reference, args, data in zip(self.reference, self.commands, self.wires)
        ]
        return replace(self, commands=self.reference, wires=wires, reference=None)


class Plan:
    """Random depths, random cuts, now and then a pause, and half a close at the end."""

    def __init__(self, random, sequence):
        count = len(sequence.wires)
        self.depths = [1] * sequence.lockstep
        style = random.random()
        while sum(self.depths) < count:
            if style < 0.3:
                depth = count
            elif style < 0.4:
                depth = 1
            else:
                depth = random.randint(1, max(2, min(count, 64)))
            self.depths.append(depth)
        self.random = random
        self.cuts = random.choice((0, 0, 1, 3, 10))
        self.is_bytewise = random.random() < 0.01
        self.has_pauses = random.random() < 0.1
        self.is_half_closed = random.random() < 0.2 and not sequence.may_block

    def pieces(self, data):
        if self.is_bytewise and len(data) < 2000:
            return [data[i : i + 1] for i in range(len(data))]
        cuts = sorted(self.random.randrange(len(data)) for _ in range(self.cuts)) if data else []
        return [data[start:end] for start, end in zip([0] + cuts, cuts + [len(data)])]

    def run(self, talk, sequence, frames):
        start, answered = 0, 0
        for depth in self.depths:
            batch = sequence.wires[start : start + depth]
            is_last = start + depth >= len(sequence.wires)
            self._send(talk, b"".join(batch) + (FENCE if is_last else b""))
            if frames is not None and not is_last:
                answered += sum(frames[start : start + depth])
                talk.read_frames(answered)
            start += depth
        return talk.half_close_and_read() if self.is_half_closed else talk.read_to_fence()

    def _send(self, talk, data):
        for piece in self.pieces(data):
            talk.send(piece)
            if self.has_pauses:
                time.sleep(0.0002)


class PlainPlan:
    """All at once: for shrinking."""

    def run(self, talk, sequence, frames):
        return talk.run_at_once(sequence)
