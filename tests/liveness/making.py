"""Makes sequences: what the clients send, how it is cut, and how they read."""

import random

from commands import KIB, Maker
from sequences import READING, Blob, Client, Command, Sequence
from stage import SCALES

# What all clients of a sequence write, and what one pipeline of large replies is answered: never
# more than some 64 MiB together.
ARGUMENT_BYTES = (256 * KIB, 2048 * KIB, 24576 * KIB)
REPLIES_MAX = 40_000
REPLY_BYTES = (KIB * KIB, 8192 * KIB, 24576 * KIB)
SHARED_SIZES = (100, 1000, 5000, 64 * KIB, 300 * KIB, KIB * KIB)
SHARED_KEYS = 8

BLOCKING = (b"BLPOP",)
# Before a cluster some of these are refused.
CLUSTER_TUNNELS = {
    2: (
        [(b"AUTH", b"default", b"x")],
        [(b"CLIENT", b"REPLY", b"ON")],
        [(b"SUBSCRIBE", b"ch1", b"ch2")],
        [(b"HELLO", b"2", b"AUTH", b"default", b"x")],
    ),
    3: (
        [(b"HELLO", b"3"), (b"SUBSCRIBE", b"ch1", b"ch2")],
        [(b"HELLO", b"3", b"AUTH", b"default", b"x")],
        [(b"HELLO", b"3"), (b"CLIENT", b"NO-EVICT", b"ON")],
    ),
}
TUNNELS = {
    2: (
        [(b"AUTH", b"default", b"x")],
        [(b"CLIENT", b"REPLY", b"ON")],
        [(b"CLIENT", b"NO-TOUCH", b"ON")],
        [(b"SUBSCRIBE", b"ch1", b"ch2")],
        [(b"HELLO", b"2", b"AUTH", b"default", b"x")],
    ),
    3: (
        [(b"HELLO", b"3"), (b"SUBSCRIBE", b"ch1", b"ch2")],
        [(b"HELLO", b"3"), (b"CLIENT", b"TRACKING", b"ON")],
        [(b"HELLO", b"3", b"AUTH", b"default", b"x")],
        [(b"HELLO", b"3"), (b"CLIENT", b"NO-EVICT", b"ON")],
    ),
}


def plain(*args):
    return Command(tuple(args))


def _may_block(client):
    """Whoever closes half while blocked is let go without an answer, directly as well."""
    return any(command.args[0] in BLOCKING for command in client.commands)


class Generator:
    def __init__(self, seed, settings, tags=None):
        self.seed = seed
        self.settings = list(settings)
        self.tags = tags  # Before a cluster: of the keys of a client.

    def make(self, number):
        chance = random.Random(f"{self.seed}/{number}")
        if self.tags is not None:
            return _ClusterMaking(chance, str(number), self.settings, self.tags).sequence()
        return _Making(chance, str(number), self.settings).sequence()


class _Making:
    """One sequence."""

    modes = ("plain", "tunnel", "silent")
    tunnels = TUNNELS
    changes = ((b"RESET",), (b"HELLO", b"2"), (b"SELECT", b"1"))

    def __init__(self, chance, name, settings):
        self.chance = chance
        self.name = name
        self.setting = chance.choice(settings)
        self.scale = SCALES.get(self.setting, 1)
        self.shared = {}

    def sequence(self):
        chance = self.chance
        count = chance.choices((1, 2, 3, 5), (60, 18, 12, 10))[0]
        budget = chance.choices(ARGUMENT_BYTES, (50, 35, 15))[0] // count
        clients = [self._client(i, count, budget) for i in range(count)]
        if chance.random() < 0.2:
            clients.append(self._stall())
        return Sequence(
            self.name,
            clients,
            setting=self.setting,
            shared=tuple(sorted(self.shared.items())),
        )

    def _client(self, number, count, budget):
        chance = self.chance
        # What somebody who left has sent may run as late as in the next sequence.
        maker = Maker(chance, b"%s%c" % (self.name.encode(), 97 + number), budget, self._tag())
        mode = chance.choices(self.modes, (60, 20, 20))[0]
        protocol = chance.choice((2, 3))
        commands = []
        if mode == "tunnel":
            commands = [plain(*args) for args in chance.choice(self.tunnels[protocol])]
        elif protocol == 3:
            commands = [plain(b"HELLO", b"3")]
        for _ in range(chance.choice((1, 1, 2, 3))):
            commands += self._part(maker, count, mode)
        client = Client(commands)
        self._pace(client)
        self._end(client, count, mode)
        return client

    def _stall(self):
        """The server sleeps for a while, so that what is sent to it piles up."""
        seconds = self.chance.choice((b"0.05", b"0.1", b"0.25"))
        start = self.chance.choice((0.0, 0.001, 0.01, 0.03))
        return Client([plain(b"DEBUG", b"SLEEP", seconds)], start_seconds=start, is_direct=True)

    def _part(self, maker, count, mode):
        shapes = (self._sizes, self._deep_small, self._deep_large, self._reads)
        part = self.chance.choices(shapes, (60, 14, 14, 12))[0](maker, count)
        if self.chance.random() < 0.2:
            part = self._in_transaction(part, maker)
        elif mode == "silent":
            part = self._silenced(part)
        if self.chance.random() < 0.04:
            part.append(plain(*self.chance.choice(self.changes)))
        return part

    def _tag(self):
        return b""

    def _sizes(self, maker, _count):
        return [maker.command() for _ in range(self.chance.randint(1, 10))]

    def _deep_small(self, maker, count):
        """Many small ones, deeper than what may be in flight."""
        key = self.chance.choice(maker.keys)
        name = self.chance.choice(
            (
                (b"PING",),
                (b"ECHO", b"e"),
                (b"GET", key + b":n"),
                (b"INCR", key + b":n"),
                (b"LPUSH", key + b":l", b""),
            )
        )
        repeat = self.chance.choices((10, 300, 3000, 20000, 60000), (20, 30, 30, 15, 5))[0]
        return [Command(name, repeat=max(1, repeat // self.scale // count))]

    def _deep_large(self, maker, count):
        """More bytes of replies, or of requests, than any buffer takes."""
        size = self.chance.choice(SHARED_SIZES)
        total = self.chance.choices(REPLY_BYTES, (50, 35, 15))[0]
        repeat = max(1, min(REPLIES_MAX // self.scale, total // size) // count)
        if self.chance.random() < 0.75:
            keys = [self._shared_key(size) for _ in range(self.chance.choice((1, 1, 2, 4)))]
            if self.chance.random() < 0.3:
                return [Command((b"MGET", *keys), repeat=max(1, repeat // len(keys)))]
            return [Command((b"GET", key), repeat=max(1, repeat // len(keys))) for key in keys]
        blob = Blob(self.chance.randrange(1 << 30), size)
        key = self.chance.choice(maker.keys)
        return [Command((b"SET", key, blob, b"EX", b"100"), repeat=repeat)]

    def _reads(self, maker, _count):
        """What is read again is answered from the near cache, among what is not."""
        part = []
        for _ in range(self.chance.randint(3, 30)):
            key = self._shared_key(self.chance.choice(SHARED_SIZES[:5]))
            command = self.chance.choice(
                (plain(b"GET", key), plain(b"GET", key), plain(b"MGET", key, maker.keys[0]))
            )
            part.append(maker.command() if self.chance.random() < 0.15 else command)
        return part

    def _shared_key(self, size):
        number = self.chance.randrange(SHARED_KEYS)
        key = b"shared:%d:%d" % (size, number)
        self.shared[key] = Blob(size * 16 + number, size)
        return key

    def _in_transaction(self, part, maker):
        watched = [plain(b"WATCH", b"watched" + maker.tag)] if self.chance.random() < 0.3 else []
        end = plain(b"DISCARD") if self.chance.random() < 0.1 else plain(b"EXEC")
        return [*watched, plain(b"MULTI"), *part, end]

    def _silenced(self, part):
        """Each SKIP in front of one command, or OFF and ON around several."""
        if self.chance.random() < 0.5:
            at = self.chance.randint(0, len(part) - 1)
            return [*part[:at], plain(b"CLIENT", b"REPLY", b"SKIP"), *part[at:]]
        start = self.chance.randint(0, len(part))
        end = self.chance.randint(start, len(part))
        return [
            *part[:start],
            plain(b"CLIENT", b"REPLY", b"OFF"),
            *part[start:end],
            *([plain(b"CLIENT", b"REPLY", b"ON")] if self.chance.random() < 0.8 else []),
            *part[end:],
        ]

    def _pace(self, client):
        chance = self.chance
        client.reading = chance.choices(READING, (35, 30, 20, 15))[0]
        client.buffer_bytes = chance.choices((0, 4096, 65536), (70, 15, 15))[0]
        client.start_seconds = chance.choice((0.0, 0.0, 0.001, 0.005))
        style = chance.choices(
            ("none", "borders", "tails", "anywhere", "mixed"), (20, 25, 20, 20, 15)
        )[0]
        for _ in range(0 if style == "none" else chance.choice((1, 1, 2, 4, 8))):
            self._cut(chance.choice(client.commands), style)
        if chance.random() < 0.25:
            share = chance.choice((0.1, 0.5, 1.0))
            for command in client.commands[1:]:
                command.waits = chance.random() < share

    def _cut(self, command, style):
        chance = self.chance
        size = len(command.bytes()) if command.size() < 1 << 20 else command.size()
        if style == "mixed":
            style = chance.choice(("borders", "tails", "anywhere"))
        if style == "borders" and not command.inline:
            at = chance.choice(command.borders()) + chance.choice((0, 0, -1, 1))
        elif style == "tails":
            at = size - chance.choice((1, 2, 3, 5, 10, 30, 100))
        else:
            at = chance.randint(0, size)
        pause = chance.choice((0.0005, 0.002, 0.005, 0.02))
        command.cuts = (*command.cuts, (max(0, at), pause))

    def _end(self, client, count, mode):
        chance = self.chance
        if count > 1 and chance.random() < 0.25:
            client.ending = "leave"
            total = sum(command.size() for command in client.commands)
            client.leaves_after = chance.randint(1, max(1, total))
        elif mode == "plain" and chance.random() < 0.25 and not _may_block(client):
            client.ending = "half-close"
        elif mode == "plain" and chance.random() < 0.05:
            client.ending = "quit"
            client.commands.append(plain(b"QUIT"))


class _ClusterMaking(_Making):
    """What a client before a cluster may do: transactions have keys of one slot."""

    modes = ("plain", "tunnel", "plain")
    tunnels = CLUSTER_TUNNELS
    changes = ((b"RESET",), (b"HELLO", b"2"), (b"PING",))

    def __init__(self, chance, name, settings, tags):
        super().__init__(chance, name, settings)
        self.tags = tags

    def _tag(self):
        return self.chance.choice(self.tags)

    def _in_transaction(self, part, maker):
        """Another part, for the keys of that one may be of many slots."""
        maker.is_bound = True
        part = self.chance.choice((self._sizes, self._deep_small))(maker, 1)
        maker.is_bound = False
        return super()._in_transaction(part, maker)
