"""Random sequences: calls from the templates, spoilt now and then, between commands that change the
session. The same seed and number make the same sequence."""

import random

import exceptions
import pools
import templates
import wire
from sequence import Sequence

LENGTH_MAX = 150
BLANKS = (b"\r\n", b"*0\r\n", b"\n", b"*-1\r\n")
MODES = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE")
FRAGILE = ("ttl", "ttl_ms", "at", "at_ms", "dump", "lex")
ALL_KEYS = pools.KEYS["key"]


class Generator:
    def __init__(self, seed, specs, containers, world):
        self.seed = seed
        self.extra = world.extra
        self.tags = world.tags
        names = {spec.name for spec in specs}
        parsed = templates.all_templates(containers)
        self.templates = [each for each in parsed if each.is_random and each.name in names
                          and not (world.interrupts and each.line == exceptions.INTERRUPTING)]
        chunks = (
            (30, self._select),
            (20, self._hello),
            (40, self._transaction),
            (20, self._watch),
            (8, self._reset),
            (15, self._name),
            (10, self._subscribe),
            (10, self._publish_to_self),
            (5, self._silence),
            (5, self._tracking),
            (5, self._auth),
            (5, self._large),
            (5, self._unknown),
            (2, self._block),
        )
        self.chunks = [chunk for weight, chunk in chunks for _ in range(weight)]

    def make(self, number):
        self.random = random.Random(f"{self.seed}/{number}")
        self.filler = templates.RandomFiller(self.random, self.extra)
        self._turn()
        self.may_block = False
        commands = [(b"AUTH", b"bob", b"wrong")] if self.random.random() < 0.01 else []
        lockstep = len(commands)
        length = self.random.randint(1, LENGTH_MAX)
        while len(commands) < length:
            self._turn()
            if self.random.random() < 0.93:
                commands += self._call()
            else:
                commands += self.random.choice(self.chunks)()
        wires = [self._wire(args) for args in commands]
        for at, args in enumerate(commands[:-1]):
            if args[:2] == (b"CLIENT", b"REPLY"):  # See LEFT_OUT in exceptions.py.
                wires[at + 1] = wire.encode(commands[at + 1])
        return Sequence(f"random/{number}", commands, wires, may_block=self.may_block,
                        lockstep=lockstep, tags=self.tags)

    def _turn(self):
        """Keys are of another slot from here on."""
        if len(self.tags) > 1:
            self.filler.tag = self.random.choice(self.tags)

    def _key(self, name):
        return self.filler.tagged(name)

    def _wire(self, args):
        """Sometimes inline, sometimes with an empty request in front; else the canonical form."""
        roll = self.random.random()
        if roll < 0.04 and args and sum(map(len, args)) < 4000 and args[0]:
            newline = self.random.choice((b"\r\n", b"\n"))
            return wire.encode_inline(args, newline)
        if roll < 0.05:
            return self.random.choice(BLANKS) + wire.encode(args)
        return wire.encode(args)

    def _choose(self, pool):
        return self.filler.choose(pool)

    def _call(self):
        """One template, as it is or spoilt: too many or too few arguments, keys of any type, an
        argument of another kind, another spelling."""
        template = self.random.choice(self.templates)
        roll = self.random.random() if not self._is_fragile(template) else 0
        filler = self.filler
        if 0.80 < roll < 0.87:
            filler = templates.Filler(self.extra, self.random.choice(ALL_KEYS), filler.tag)
        calls = [templates.fill(command, filler) for command in template.commands]
        if roll < 0.87:
            return calls
        first, words = calls[0], template.commands[0]
        if roll < 0.91:
            first = first[: self.random.randint(1, len(first))]
        elif roll < 0.94:
            first += (self._value_for(words[-1]),)
        elif roll < 0.97 and len(first) > 1 and first[0] != b"DEBUG":
            at = self.random.randrange(1, len(first))
            first = first[:at] + (self._value_for(words[at]),) + first[at + 1 :]
        else:
            first = (self._respelt(first[0]),) + first[1:]
        return [first] + calls[1:]

    def _value_for(self, word):
        """Another key, where the word is one."""
        value = self._choose("value")
        return self._key(value) if word.is_key else value

    def _is_fragile(self, template):
        """Spoilt, a time to live may end within the sequence, SPOP takes any member, and what is in
        a range by name is random where scores differ; for FUNCTION LIST see LEFT_OUT."""
        used = {word.pool for word in template.commands[0]}
        return template.name in ("function|list", "spop") or not used.isdisjoint(FRAGILE)

    def _respelt(self, name):
        return bytes(
            byte ^ 32 if 65 <= byte <= 90 and self.random.random() < 0.5 else byte for byte in name
        )

    def _select(self):
        return [(b"SELECT", self._choose("db"))]

    def _hello(self):
        hello = (b"HELLO", self.random.choice((b"2", b"3", b"3", b"2", b"4")))
        if self.random.random() < 0.2:
            hello += (b"SETNAME", b"me")
        return [hello]

    def _reset(self):
        return [(b"RESET",)]

    def _name(self):
        name = self.random.choice((b"me", b"you", b"", b"not a name"))
        return [(b"CLIENT", b"SETNAME", name), (b"CLIENT", b"GETNAME")]

    def _calls(self, most):
        return sum((self._call() for _ in range(self.random.randint(0, most))), [])

    def _transaction(self):
        inner = self._calls(6)
        if self.random.random() < 0.3:
            others = (self._select, self._name, self._hello, self._reset, self._unknown)
            inner += self.random.choice(others)() + self._calls(2)
        end = b"EXEC" if self.random.random() < 0.85 else b"DISCARD"
        return [(b"MULTI",)] + inner + [(end,)]

    def _watch(self):
        watch = [(b"WATCH", self._choose("key"), self._choose("str"))]
        between = self._calls(2)
        if self.random.random() < 0.3:
            between += self.random.choice((self._select, self._hello, self._reset))()
        if self.random.random() < 0.2:
            return watch + between + [(b"UNWATCH",)]
        return watch + between + self._transaction()

    def _subscribe(self):
        """In RESP2: what is no longer allowed, and the answers that change."""
        mode = self.random.choice(MODES)
        channels = [self._choose("channel") for _ in range(self.random.randint(1, 3))]
        inner = self.random.choice(([(b"PING",)], [(b"PING", b"x")], [], [(b"GET", self._key(b"str"))]))
        end = [(mode.replace(b"SUB", b"UNSUB"), *channels)]
        if self.random.random() < 0.2:
            end = [(b"RESET",)]
        return [(b"HELLO", b"2"), (mode, *channels)] + inner + end

    def _publish_to_self(self):
        mode = self.random.choice(MODES)
        channel = self._choose("channel")
        publish = b"SPUBLISH" if mode == b"SSUBSCRIBE" else b"PUBLISH"
        inner = [(publish, channel, self._choose("value"))]
        if self.random.random() < 0.3:
            inner = [(b"MULTI",)] + inner + [(b"EXEC",)]
        end = [(mode.replace(b"SUB", b"UNSUB"), channel)]
        return [(b"HELLO", b"3"), (mode, channel)] + inner + [(b"PING",)] + end

    def _silence(self):
        if self.random.random() < 0.5:
            return [(b"CLIENT", b"REPLY", b"SKIP"), (b"SET", self._key(b"str"), b"silent")]
        calls = [(b"SET", self._key(b"str"), b"silent"), (b"GET", self._key(b"hash"))]
        calls = calls[: self.random.randint(0, 2)]
        return [(b"CLIENT", b"REPLY", b"OFF")] + calls + [(b"CLIENT", b"REPLY", b"ON")]

    def _tracking(self):
        key = self._choose("str")
        options = self.random.choice(((), (), (b"NOLOOP",)))
        return [
            (b"HELLO", b"3"),
            (b"CLIENT", b"TRACKING", b"ON") + options,
            (b"GET", key),
            (b"SET", key, self._choose("value")),
            (b"CLIENT", b"TRACKING", b"OFF"),
        ]

    def _auth(self):
        return [(b"AUTH", b"bob", b"secret"), (b"ACL", b"WHOAMI")] + self._calls(2)

    def _large(self):
        value = b"%d" % self.random.randrange(10) * self.random.choice((15000, 30000))
        new, known = self._key(b"new1"), self._key(b"str")
        return [(b"SET", new, value), (b"GET", new), (b"APPEND", known, b"behind")]

    def _unknown(self):
        name = self.random.choice((b"NOSUCH", b"no\r\nsuch", b"", b"GETT", b"x" * 200))
        return [(name,) + (self._choose("value"),) * self.random.randint(0, 2)]

    def _block(self):
        self.may_block = True
        key = self._choose("list")
        calls = [(b"BLPOP", key, b"0.002"), (b"BRPOP", self._key(b"missing"), key, b"0.002")]
        calls += [(b"XREAD", b"BLOCK", b"2", b"STREAMS", self._choose("stream"), b"$")]
        calls += [(b"BLMOVE", key, self._choose("list"), b"LEFT", b"RIGHT", b"0.002")]
        return [self.random.choice(calls)]
