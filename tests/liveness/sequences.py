"""What is played: commands with large arguments, cut into pieces; the clients that send them; and a
sequence of clients that run at once. All of it is small and can be saved: a large argument is a
`Blob`, which is made when it is sent."""

import functools
import json
import random
from dataclasses import asdict, dataclass

import wire

SHOWN_COMMANDS = 40
HOSTILE = b"\r\n$4\r\nPING\r\n*1\r\n+OK\r\n-ERR no\r\n:1\r\n>2\r\n"


@dataclass(frozen=True)
class Blob:
    """An argument of so many bytes. Those of an odd seed are made of what looks like replies."""

    seed: int
    size: int


@functools.lru_cache(maxsize=16)
def blob_bytes(blob):
    chance = random.Random(blob.seed)
    if blob.seed % 2:
        start = chance.randrange(len(HOSTILE))
        block = HOSTILE[start:] + HOSTILE + chance.randbytes(5).hex().encode()
    else:
        block = chance.randbytes(min(blob.size, 60_013))
    return (block * (blob.size // max(len(block), 1) + 1))[: blob.size]


def as_bytes(arg):
    return blob_bytes(arg) if isinstance(arg, Blob) else arg


@dataclass
class Command:
    args: tuple  # Of bytes and Blobs.
    inline: bool = False
    repeat: int = 1
    # Where the client stops writing for a while: pairs (offset in the bytes, seconds).
    cuts: tuple = ()
    waits: bool = False  # Until every reply so far has come, before this is sent.

    def bytes(self):
        args = [as_bytes(arg) for arg in self.args]
        return (wire.encode_inline(args) if self.inline else wire.encode(args)) * self.repeat

    def size(self):
        """About as many bytes as it is."""
        each = sum(arg.size if isinstance(arg, Blob) else len(arg) for arg in self.args)
        return (each + 12 * len(self.args)) * self.repeat

    def borders(self):
        """Where headers and arguments begin and end, in the first of the repeated ones."""
        at = len(b"*%d\r\n" % len(self.args))
        places = [at]
        for arg in self.args:
            size = arg.size if isinstance(arg, Blob) else len(arg)
            at += len(b"$%d\r\n" % size)
            places += [at, at + size, at + size + 2]
            at += size + 2
        return places

    def shown(self):
        words = []
        for arg in self.args:
            if isinstance(arg, Blob):
                words.append(f"<{arg.size} B>")
            else:
                text = repr(arg[:60])[2:-1]
                words.append(text if len(arg) <= 60 else f"{text}...({len(arg)} B)")
        notes = ["inline"] if self.inline else []
        notes += [f"{self.repeat} times"] if self.repeat > 1 else []
        notes += ["after all replies so far"] if self.waits else []
        notes += [f"cut at {at} for {pause * 1000:.0f} ms" for at, pause in self.cuts]
        return " ".join(words) + (f"   ({', '.join(notes)})" if notes else "")


READING = ("eager", "write-first", "slow", "late")


@dataclass
class Client:
    commands: list
    reading: str = "eager"
    ending: str = "open"  # Or "half-close", "quit", "leave".
    leaves_after: int = 0  # Bytes that it writes before it leaves.
    buffer_bytes: int = 0  # Of its socket; 0: the kernel's default.
    start_seconds: float = 0.0
    is_direct: bool = False  # It talks to the server itself in either case.

    def frames_before(self):
        """How many replies are owed before each command and, last, in total; pushes not counted."""
        counts, total, silence, in_multi = [], 0, None, False
        for command in self.commands:
            counts.append(total)
            args = [arg if isinstance(arg, bytes) else b"" for arg in command.args]
            name = args[0].upper()
            before, silence = silence, wire.silence_after(name, args, silence, in_multi)
            if name in (b"MULTI", b"EXEC", b"DISCARD", b"RESET"):
                in_multi = name == b"MULTI"
            if silence == b"NEXT" and before == b"NEXT":
                total += command.repeat - 1
                silence = None
            elif silence is None:
                many = wire.SUBSCRIBING + wire.UNSUBSCRIBING
                total += command.repeat * (len(args) - 1 if name in many else 1)
        return counts + [total]

    def shown(self):
        parts = ["to Valkey itself"] if self.is_direct else []
        parts += [f"reads: {self.reading}", f"ends: {self.ending}"]
        parts += [f"leaves after {self.leaves_after} bytes"] if self.ending == "leave" else []
        parts += [f"socket buffers {self.buffer_bytes}"] if self.buffer_bytes else []
        parts += [f"starts at {self.start_seconds * 1000:.0f} ms"] if self.start_seconds else []
        return ", ".join(parts)


@dataclass
class Sequence:
    name: str
    clients: list
    setting: str = "default"  # Which nearkey: a row of stage.SETTINGS.
    shared: tuple = ()  # Keys that are there before, as rows (key, Blob).

    def commands(self):
        return sum(command.repeat for client in self.clients for command in client.commands)

    def bytes(self):
        return sum(command.size() for client in self.clients for command in client.commands)

    def has_leavers(self):
        return any(client.ending == "leave" for client in self.clients)

    def shown(self):
        lines = [f"nearkey's settings: {self.setting}"]
        if self.shared:
            keys = [f"SET {key.decode()} <{blob.size} B>" for key, blob in self.shared]
            lines.append("before: " + ", ".join(keys))
        for number, client in enumerate(self.clients):
            lines.append(f"client {number} ({client.shown()})")
            lines += [f"    {command.shown()}" for command in client.commands[:SHOWN_COMMANDS]]
            if len(client.commands) > SHOWN_COMMANDS:
                lines.append(f"    ... {len(client.commands) - SHOWN_COMMANDS} more")
        return "\n".join(lines)


def saved(sequence):
    """As JSON: bytes are latin-1 texts."""
    return json.dumps(asdict(sequence), default=lambda data: data.decode("latin-1"), indent=1)


def _argument(value):
    return Blob(**value) if isinstance(value, dict) else value.encode("latin-1")


def _command(row):
    args = tuple(_argument(arg) for arg in row.pop("args"))
    cuts = tuple(tuple(cut) for cut in row.pop("cuts"))
    return Command(args, cuts=cuts, **row)


def loaded(text):
    row = json.loads(text)
    clients = [
        Client([_command(command) for command in client.pop("commands")], **client)
        for client in row.pop("clients")
    ]
    shared = tuple((key.encode("latin-1"), Blob(**blob)) for key, blob in row.pop("shared"))
    return Sequence(clients=clients, shared=shared, **row)
