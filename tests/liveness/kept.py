"""Sequences that are played first in every run, because one like them failed once."""

from sequences import Blob, Client, Command, Sequence

KIB = 1024


def _blob(size):
    return Blob(size * 2, size)


def _one(name, *commands, shared=(), **options):
    client = Client(list(commands), **options)
    return Sequence(f"kept/{name}", [client], shared=shared)


def _large_not_last():
    commands = {
        "set": (b"SET", b"a", _blob(300 * KIB), b"EX", b"100"),
        "mset": (b"MSET", b"a", _blob(300 * KIB), b"b", b"1"),
        "hset": (b"HSET", b"h", b"f", _blob(500 * KIB), b"g", b"1"),
        "key": (b"SET", _blob(900 * KIB), b"v"),
    }
    for name, args in commands.items():
        yield _one(f"large-not-last-{name}", Command(args))
    pieces = Command((b"SET", b"a", _blob(5 * KIB), b"EX", b"100"), cuts=((2000, 0.02),))
    yield _one("large-not-last-in-pieces", pieces)


def _written_before_it_reads(scale):
    for size, count in ((1000, 20_000), (5000, 10_000)):
        row = (b"shared:0", _blob(size))
        get = Command((b"GET", row[0]), repeat=count // scale)
        name = f"write-first-{size}-bytes"
        yield _one(name, get, shared=(row,), reading="write-first")
    ping = Command((b"PING",), repeat=100_000 // scale)
    yield _one("write-first-small", ping, reading="write-first")


def _half_closed():
    """Requests that wait in the input when the client has sent its last byte."""
    for size, count in ((1000, 262), (5000, 3000), (64 * KIB, 64)):
        row = (b"shared:0", _blob(size))
        commands = [Command((b"GET", row[0]), repeat=count), Command((b"INCR", b"n"), repeat=20)]
        yield _one(f"half-closed-{size}-bytes", *commands, shared=(row,), ending="half-close")


def _large_behind_large():
    """While the server sleeps, over a connection that is there; the last ones arrive together."""
    commands = [
        Command((b"SET", b"a", _blob(2048 * KIB))),
        Command((b"SET", b"a", _blob(6144 * KIB)), waits=True, cuts=((0, 0.04),)),
        Command((b"SET", b"b", _blob(1024 * KIB)), cuts=((1024 * KIB - 70, 0.05),)),
        Command((b"ECHO", b"behind")),
    ]
    sleeper = Client([Command((b"DEBUG", b"SLEEP", b"0.25"))], start_seconds=0.03, is_direct=True)
    yield Sequence("kept/large-behind-large", [Client(commands), sleeper])


def sequences(scale):
    """scale: long pipelines are shorter by so much, where limits are."""
    yield from _large_not_last()
    yield from _written_before_it_reads(scale)
    yield from _half_closed()
    yield from _large_behind_large()
