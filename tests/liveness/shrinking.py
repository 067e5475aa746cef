"""A smaller sequence that fails in the same way: clients, commands, cuts and habits are left out as
long as it does."""

import time
from dataclasses import replace


def _without(items, start, count):
    return items[:start] + items[start + count :]


def _with_client(sequence, number, client):
    clients = list(sequence.clients)
    clients[number] = client
    return replace(sequence, clients=clients)


def _with_command(sequence, number, at, command):
    client = sequence.clients[number]
    commands = list(client.commands)
    commands[at] = command
    return _with_client(sequence, number, replace(client, commands=commands))


def candidates(sequence):
    """Smaller sequences, those first that leave out most."""
    for number in range(len(sequence.clients)):
        if len(sequence.clients) > 1:
            yield replace(sequence, clients=_without(sequence.clients, number, 1))
    for number, client in enumerate(sequence.clients):
        size = max(1, len(client.commands) // 2)
        while True:
            for start in range(0, len(client.commands), size):
                commands = _without(client.commands, start, size)
                if commands:
                    yield _with_client(sequence, number, replace(client, commands=commands))
            if size == 1:
                break
            size //= 2
    for number, client in enumerate(sequence.clients):
        plainer = {"reading": "eager", "ending": "open", "buffer_bytes": 0, "start_seconds": 0.0}
        for name, value in plainer.items():
            if getattr(client, name) != value:
                yield _with_client(sequence, number, replace(client, **{name: value}))
        for at, command in enumerate(client.commands):
            for index in range(len(command.cuts)):
                cuts = _without(command.cuts, index, 1)
                yield _with_command(sequence, number, at, replace(command, cuts=cuts))
            if command.waits:
                yield _with_command(sequence, number, at, replace(command, waits=False))
            if command.inline:
                yield _with_command(sequence, number, at, replace(command, inline=False))
            if command.repeat > 1:
                fewer = replace(command, repeat=command.repeat // 2)
                yield _with_command(sequence, number, at, fewer)


def with_used_keys(sequence):
    """Of the keys that are there before, those that are asked for."""
    commands = [command for client in sequence.clients for command in client.commands]
    used = {arg for command in commands for arg in command.args if isinstance(arg, bytes)}
    return replace(sequence, shared=tuple(row for row in sequence.shared if row[0] in used))


def shrunk(sequence, fails, seconds):
    """`fails` says whether a sequence fails as this one did."""
    deadline = time.monotonic() + seconds
    sequence, found = with_used_keys(sequence), True
    while found:
        found = False
        for candidate in map(with_used_keys, candidates(sequence)):
            if time.monotonic() > deadline:
                return sequence
            if fails(candidate):
                sequence, found = candidate, True
                break
    return sequence
