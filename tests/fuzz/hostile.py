"""Requests that are nearly right, behind a valid beginning, and in front of commands that leave a
mark: what runs of them, and what is answered, says how a parser took the bytes between."""

from mutation import TOKENS

NUMBERS = (
    *(b"-1", b"-2", b"0", b"1", b"2", b"3", b"4", b"10", b"00", b"03", b"+3", b"3 ", b" 3", b"3x"),
    *(b"", b"-", b"x", b"-0", b"1024", b"1048576", b"1048577", b"2147483647", b"2147483648"),
    *(b"-2147483649", b"4294967296", b"9223372036854775807", b"9223372036854775808"),
    *(b"18446744073709551616", b"99999999999999999999999", b"3" * 40, b"0x3", b"1e1", b"3\0"),
)
# Around limits.bulk_max of the nearkey with command rules, and proto-max-bulk-len of the server.
BULKS = (b"65535", b"65536", b"65537", b"1048575", b"1048576", b"1048577", b"2097152")
LINE_ENDS = (b"\n", b"\r", b"", b"xx", b"\n\r", b"\r\r\n", b"\r\n\r\n", b"\0\0", b" \r\n", b"\r\0")
SIGNS = (b"*", b":", b"+", b"", b"=")
NEWLINES = (b"\r\n", b"\n")
QUOTED = (
    *(b"RPUSH", b"log{i}", b'"log{i}"', b"'log{i}'", b'"a b"', b'"\\x41\\n"', b"'\\''"),
    *(b"'\\n'", b'"a"b', b'"', b"'", b'"\\', b'"\\xzz"', b"''", b'""', b"a\0b", b"\0", b"\t"),
    *(b"\x0b", b"\x0c", b"\xff", b'"\\"', b"\\", b"a\rb", b'a"b"', b'"\\b\\a\\t"'),
)
# Of a line. The server takes a little more than 64 KiB, depending on how it was read.
LENGTHS = (1000, 16383, 16384, 32768, 65000, 65535, 65536, 66000, 70000, 90000, 200000)
# {i} is the number of the input, so that each leaves marks of its own. CLIENT REPLY SKIP is not
# here: the server silences an empty request behind it, nearkey drops that (docs/compatibility.md).
BEGINNINGS = (
    *((), (), (), (), ("PING",), ("HELLO 3",), ("MULTI",), ("SELECT 0",)),
    ("WATCH w{i}", "MULTI"),
    *(("AUTH default x",), ("AUTH default x", "MULTI"), ("HELLO 3 AUTH default x",)),
    *(("SUBSCRIBE c{i}",), ("HELLO 3", "SUBSCRIBE c{i}"), ("HELLO 3", "CLIENT TRACKING ON")),
    *(("CLIENT REPLY OFF",), ("CLIENT REPLY ON",), ("CLIENT NO-TOUCH ON",)),
    *(("MULTI", "INCR q{i}", "EXEC"), ("AUTH default x", "RESET")),
    ("RPUSH b{i} v", "BLPOP b{i} 1"),
)
MARKS = ("RPUSH log{i} a", "RPUSH log{i} b", "INCR n{i}", "SET s{i} v", "SETBIT canary{i} 1 1")
CANARY = b"setbit"


def array(line):
    words = line.split()
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


class Hostile:
    """Makes inputs of its own; the same `random` makes the same ones."""

    def __init__(self, chance):
        self.chance = chance
        self.number = b""

    def make(self, number):
        """The bytes of one client."""
        self.number = b"%05d" % number
        parts = [array(self._named(line)) for line in self.chance.choice(BEGINNINGS)]
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            if self.chance.random() < 0.4:
                parts.append(self._mark())
            parts.append(self.chance.choice(self.KINDS)(self))
        parts += [self._mark() for _ in range(self.chance.choice((1, 2, 2, 3)))]
        return b"".join(parts)

    def _named(self, text):
        return (text if isinstance(text, bytes) else text.encode()).replace(b"{i}", self.number)

    def _mark(self):
        line = self._named(self.chance.choice(MARKS))
        return array(line) if self.chance.random() < 0.6 else line + self.chance.choice(NEWLINES)

    def _number(self, right):
        near = (b"%d" % (right + self.chance.choice((-1, 1))), self.chance.choice(NUMBERS))
        return self.chance.choice((b"%d" % right, *near))

    def _line_end(self):
        return b"\r\n" if self.chance.random() < 0.8 else self.chance.choice(LINE_ENDS)

    def _near_array(self):
        """A command of which a number, a line end or a sign is wrong, or nothing."""
        words = self._named(self.chance.choice(MARKS)).split()
        parts = [self.chance.choice((b"*", b"*", b"*", b"*", b"$", b"~"))]
        parts += [self._number(len(words)), self._line_end()]
        for word in words:
            sign = b"$" if self.chance.random() < 0.9 else self.chance.choice(SIGNS)
            size = b"%d" % len(word) if self.chance.random() < 0.7 else self._number(len(word))
            parts += [sign, size, self._line_end(), word, self._line_end()]
        return b"".join(parts)

    def _bulk_at_limit(self):
        """Now and then with all that it says."""
        size = self.chance.choice(BULKS)
        head = b"*3\r\n$3\r\nSET\r\n$6\r\ns%b\r\n$%b\r\n" % (self.number, size)
        if self.chance.random() < 0.5:
            return head + b"x" * int(size) + b"\r\n"
        return head + b"x" * self.chance.choice((0, 1, 1000))

    def _long_line(self):
        size = self.chance.choice(LENGTHS) + self.chance.choice((0, 0, -1, 1, -30, 30))
        filler = self.chance.choice((b"x", b" ", b'"', b"a ", b"\\x41", b"''"))
        start = self.chance.choice((b"SET s{i} ", b"ECHO ", b"", b'ECHO "', b"RPUSH log{i} c "))
        start = self._named(start)
        body = (start + filler * (size // len(filler) + 1))[:size]
        return body + self.chance.choice((b"\r\n", b"\n", b'"\r\n', b""))

    def _long_number(self):
        """A header that has no end for longer than a line may be."""
        sign = self.chance.choice((b"*", b"*3\r\n$"))
        return sign + b"1" * self.chance.choice(LENGTHS) + b"\r\n"

    def _quoted_line(self):
        words = [self.chance.choice(QUOTED) for _ in range(self.chance.randint(1, 4))]
        start = self.chance.choice((b"RPUSH log{i} ", b"", b" ", b'"RPUSH" log{i} '))
        line = self._named(start + b" ".join(words))
        return line + self.chance.choice((b"\r\n", b"\n", b"\r\n", b"\r", b"\0\n"))

    def _tokens(self):
        tokens = [self.chance.choice(TOKENS) for _ in range(self.chance.randint(1, 5))]
        data = b"".join(tokens).replace(b"$1\r\na\r\n", b"$6\r\na%b\r\n" % self.number)
        return data.replace(b"INCR a\n", b"INCR a%b\n" % self.number)

    def _random_bytes(self):
        return self.chance.randbytes(self.chance.choice((1, 2, 5, 20, 200)))

    def _truncated(self):
        data = self._near_array()
        return data[: self.chance.randint(1, len(data))]

    KINDS = (
        *(_near_array, _near_array, _near_array, _near_array, _bulk_at_limit, _long_line),
        *(_long_number, _quoted_line, _quoted_line, _tokens, _tokens, _random_bytes, _truncated),
    )
