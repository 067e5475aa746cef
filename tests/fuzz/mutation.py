"""Client bytes, changed: what the differential fuzzer sends, and what it must not send."""

import re

# Pieces of requests that are right, wrong, or at a limit.
TOKENS = [
    *(b"*0\r\n", b"*1\r\n", b"*2\r\n", b"*3\r\n", b"*-1\r\n", b"*-5\r\n", b"*01\r\n", b"*+1\r\n"),
    *(b"*\r\n", b"*2147483647\r\n", b"*2147483648\r\n", b"*1048577\r\n"),
    *(b"$0\r\n\r\n", b"$1\r\na\r\n", b"$-1\r\n", b"$04\r\n", b"$4x\r\n", b"$\r\n"),
    *(b"$536870912\r\n", b"$536870913\r\n", b"$99999999999999999999\r\n"),
    *(b"\r\n", b"\n", b"\r", b"\rX", b"\n\r", b"\0", b"  \r\n", b"\t", b"\x0b", b"\x0c", b"\xff"),
    *(b'"', b"'", b"\\", b"\\x41", b"\\x00", b'\\"', b"\\'", b'""', b"''", b"\\n"),
    *(b":1\r\n", b"+OK\r\n", b"-ERR x\r\n", b"_\r\n", b"%1\r\n", b"~1\r\n", b">1\r\n", b"#t\r\n"),
    b"*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$1\r\ne\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    b"*1\r\n$5\r\nMULTI\r\n",
    b"*1\r\n$4\r\nEXEC\r\n",
    b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
    b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n",
    b"PING\r\n",
    b"INCR a\n",
    b'ECHO "a b"\r\n',
    b"QUIT\r\n",
    b"RESET\r\n",
    b"NOSUCH a b\r\n",
]
NUMBERS = [b"-1", b"0", b"1", b"2", b"3", b"9", b"10", b"64", b"65535", b"1024", b"4294967296"]
# Longer than a line may be, sent now and then. Valkey reads 16 KiB at a time and takes a line that
# ends in the piece in which it gets too long; so it is longer by more than a piece.
LONG = 90000
INPUT_BYTES_MAX = 4096

# What is not sent, wherever in the input it stands, and why.
LEFT_OUT = {
    "stops, changes or stalls the server, or other clients": (
        *("SHUTDOWN", "DEBUG", "REPLICAOF", "SLAVEOF", "FAILOVER", "CLUSTER", "SYNC", "REPLCONF"),
        *("MONITOR", "SAVE", "REWRITEAOF", "CONFIG", "MODULE", "ACL", "MIGRATE", "CLIENT"),
        *("EVAL", "FCALL", "FUNCTION", "SCRIPT", "SWAPDB", "SLEEP", "LATENCY"),
    ),
    "waits": ("BLPOP", "BRPOP", "BLMOVE", "BLMPOP", "BZPOP", "BZMPOP", "BLOCK", "WAIT"),
    "its answers come when they come": ("SUBSCRIBE", "PUBLISH"),
    "its answer hangs on the time, on chance or on the connection": (
        *("TIME", "TTL", "INFO", "SLOWLOG", "MEMORY", "LASTSAVE", "RANDOM", "RANDMEMBER"),
        *("RANDFIELD", "SPOP", "SCAN", "KEYS", "OBJECT", "ROLE", "LOLWUT", "COMMAND", "XADD"),
        *("XINFO", "XAUTOCLAIM", "XCLAIM", "XPENDING", "XREADGROUP"),
    ),
    "closes the client, at once, so that Valkey loses answers it has given": ("POST", "HOST:"),
    "is nearkey's own": ("NEARKEY",),
}
# A server without these commands can't be hurt by what the filter might let through.
RENAMED = (
    *("SHUTDOWN", "DEBUG", "REPLICAOF", "SLAVEOF", "FAILOVER", "SYNC", "PSYNC", "REPLCONF"),
    *("MONITOR", "SAVE", "BGSAVE", "BGREWRITEAOF", "CONFIG", "MODULE", "ACL", "MIGRATE"),
)
WORDS = re.compile("|".join(word for words in LEFT_OUT.values() for word in words).encode(), re.I)


def unquoted(data):
    """The input as if all of it were inline: quotes can hide a name, as in "\\x53HUT"DOWN."""
    data = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda match: bytes([int(match[1], 16)]), data)
    return re.sub(rb"""["'\\]""", b"", data)


def may_be_sent(data):
    return not WORDS.search(data) and not WORDS.search(unquoted(data))


class Mutator:
    """Makes inputs out of seeds; the same `random` makes the same ones."""

    def __init__(self, seeds, random):
        self.seeds = [seed for seed in seeds if may_be_sent(seed)]
        self.random = random

    def make(self):
        while True:
            data = self.random.choice(self.seeds)
            for _ in range(self.random.choice((0, 1, 1, 2, 2, 3, 5, 8))):
                data = self.random.choice(self.CHANGES)(self, data)
            data = data[:INPUT_BYTES_MAX]
            if self.random.random() < 0.01:
                data = self._stretched(data)
            if data and may_be_sent(data):
                return data

    def _place(self, data):
        return self.random.randint(0, len(data))

    def _range(self, data):
        start = self._place(data)
        return start, min(len(data), start + self.random.choice((1, 1, 2, 4, 16, 64)))

    def _insert_token(self, data):
        at = self._place(data)
        return data[:at] + self.random.choice(TOKENS) + data[at:]

    def _insert_token_behind_line(self, data):
        ends = [match.end() for match in re.finditer(rb"\n", data)] or [len(data)]
        at = self.random.choice(ends)
        return data[:at] + self.random.choice(TOKENS) + data[at:]

    def _insert_seed(self, data):
        at = self.random.choice((0, len(data), self._place(data)))
        return data[:at] + self.random.choice(self.seeds) + data[at:]

    def _replace_byte(self, data):
        at = self._place(data)
        return data[:at] + bytes([self.random.randrange(256)]) + data[at + 1 :]

    def _flip_bit(self, data):
        if not data:
            return data
        at = self.random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << self.random.randrange(8))]) + data[at + 1 :]

    def _erase(self, data):
        start, end = self._range(data)
        return data[:start] + data[end:]

    def _repeat(self, data):
        start, end = self._range(data)
        return data[:end] + data[start:end] * self.random.choice((1, 2, 30)) + data[end:]

    def _truncate(self, data):
        return data[: self._place(data)]

    def _replace_number(self, data):
        found = list(re.finditer(rb"-?\d+", data))
        if not found:
            return data
        match = self.random.choice(found)
        near = b"%d" % (int(match[0][:20]) + self.random.choice((-1, 1)))
        number = self.random.choice((near, self.random.choice(NUMBERS)))
        return data[: match.start()] + number + data[match.end() :]

    def _replace_line_end(self, data):
        found = list(re.finditer(rb"\r\n", data))
        if not found:
            return data
        match = self.random.choice(found)
        others = (b"\n", b"\r", b"xx", b"\rX", b"*1", b"\n\r", b"\r\r\n", b"\0\0")
        return data[: match.start()] + self.random.choice(others) + data[match.end() :]

    def _stretched(self, data):
        at = self._place(data)
        return data[:at] + self.random.choice((b"x", b"1", b" ", b'"', b"\\")) * LONG + data[at:]

    CHANGES = (
        _insert_token,
        _insert_token_behind_line,
        _insert_seed,
        _replace_byte,
        _flip_bit,
        _erase,
        _repeat,
        _truncate,
        _replace_number,
        _replace_line_end,
    )
