"""A raw RESP client: what goes over the wire is exactly what the test says, and replies come back
as bytes.

Framing knows RESP2 and RESP3 and is iterative, so that a reply 7,000 levels deep is no problem.
Every read has a deadline.
"""

import re
import socket
import struct
import time

ELEMENTS_PER_COUNT = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}
BLOBS = b"$=!"
SINGLE_LINES = b"+-:_#,("


class Closed(Exception):
    """The peer closed the connection before a complete reply was there."""


def encode(*args):
    """One command as an array of bulk strings, the canonical form."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


class Framer:
    """Finds the end of one reply in a growing buffer, and never looks at a byte twice."""

    def __init__(self):
        self.position = 0
        self.pending = 1

    def end(self, buffer):
        """The length of the complete reply at the start of the buffer, or None while it is
        incomplete."""
        while self.pending > 0:
            line_end = buffer.find(b"\r\n", self.position)
            if line_end < 0:
                return None
            kind = bytes(buffer[self.position : self.position + 1])
            if kind in BLOBS:
                length = int(buffer[self.position + 1 : line_end])
                after = line_end + 2 + (length + 2 if length >= 0 else 0)
                if len(buffer) < after:
                    return None
                self.position = after
            elif kind in ELEMENTS_PER_COUNT:
                count = int(buffer[self.position + 1 : line_end])
                self.pending += max(count, 0) * ELEMENTS_PER_COUNT[kind]
                self.pending += (
                    1 if kind == b"|" else 0
                )  # Attributes precede the reply that they describe.
                self.position = line_end + 2
            elif kind in SINGLE_LINES:
                self.position = line_end + 2
            else:
                raise AssertionError(f"not a reply: {bytes(buffer[self.position:line_end])[:80]!r}")
            self.pending -= 1
        return self.position


def split_replies(data):
    """Cuts bytes into complete replies; a rest that is not one complete reply is an assertion
    failure."""
    replies = []
    rest = bytearray(data)
    while rest:
        end = Framer().end(rest)
        assert end is not None, f"an incomplete reply at the end: {bytes(rest[:80])!r}"
        replies.append(bytes(rest[:end]))
        del rest[:end]
    return replies


def parse(reply):
    """A reply as Python values: errors as RespError, null as None, maps as dict, everything else as
    it comes."""
    value, end = _parse_at(reply, 0)
    assert end == len(reply), "more than one reply"
    return value


class RespError(Exception):
    pass


def _parse_at(data, at):
    line_end = data.index(b"\r\n", at)
    kind, line, at = data[at : at + 1], data[at + 1 : line_end], line_end + 2
    if kind in BLOBS:
        if int(line) < 0:
            return None, at
        return data[at : at + int(line)], at + int(line) + 2
    if kind in ELEMENTS_PER_COUNT:
        if int(line) < 0:
            return None, at
        values = []
        for _ in range(int(line) * ELEMENTS_PER_COUNT[kind]):
            value, at = _parse_at(data, at)
            values.append(value)
        return (dict(zip(values[::2], values[1::2])) if kind in b"%|" else values), at
    if kind == b":":
        return int(line), at
    if kind == b"-":
        return RespError(line.decode(errors="replace")), at
    if kind == b"_":
        return None, at
    return line, at


def mask_ids(reply):
    """HELLO's connection id is the only thing in which two connections may differ."""
    return re.sub(rb"(\$2\r\nid\r\n:)\d+", rb"\1#", reply)


class RespClient:
    """One connection. `address` is the path of a Unix socket or a (host, port) pair."""

    def __init__(self, address, timeout=15.0, receive_buffer=None):
        self.timeout = timeout
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if family == socket.AF_INET and ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Not settimeout(): a connect() that may not block fails at once when the backlog is full.
        send_timeout = struct.pack("@ll", int(timeout) + 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, send_timeout)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(timeout)
        self.buffer = bytearray()
        self.framer = Framer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.settimeout(self.timeout)
        self.socket.sendall(data)

    def shutdown_write(self):
        self.socket.shutdown(socket.SHUT_WR)

    def _receive(self, deadline):
        """Appends what arrives to the buffer. False at the end of the stream; socket.timeout at the
        deadline."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise socket.timeout(f"no complete reply; so far {bytes(self.buffer[:80])!r}")
        self.socket.settimeout(remaining)
        data = self.socket.recv(1 << 18)
        self.buffer += data
        return bool(data)

    def receive_some(self):
        """Waits for bytes and puts them into the buffer; False at the end of the stream."""
        return self._receive(time.monotonic() + self.timeout)

    def read_reply(self, timeout=None):
        """One complete reply as bytes."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            end = self.framer.end(self.buffer)
            if end is not None:
                reply = bytes(self.buffer[:end])
                del self.buffer[:end]
                self.framer = Framer()
                return reply
            if not self._receive(deadline):
                raise Closed(f"closed after {bytes(self.buffer[:80])!r}")

    def read_replies(self, count, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        return [self.read_reply(deadline - time.monotonic()) for _ in range(count)]

    def read_to_end(self, timeout=None):
        """Everything up to the end of the stream, and how it ended: "eof" or "reset"."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        ended = "eof"
        try:
            while self._receive(deadline):
                pass
        except ConnectionResetError:
            ended = "reset"
        data = bytes(self.buffer)
        self.buffer.clear()
        return data, ended

    def is_silent(self, seconds):
        """True if nothing arrives and the connection stays open for that long: how "it waits" is
        proven."""
        try:
            self._receive(time.monotonic() + seconds)
        except socket.timeout:
            return True
        except ConnectionResetError:
            return False
        return False

    def command(self, *args, timeout=None):
        """Sends one command; its raw reply."""
        self.send(encode(*args))
        return self.read_reply(timeout)

    def value(self, *args, timeout=None):
        """Sends one command; its parsed reply."""
        return parse(self.command(*args, timeout=timeout))

    def pipeline(self, commands, timeout=None):
        """Sends the commands in one write; their raw replies."""
        self.send(b"".join(encode(*command) for command in commands))
        return self.read_replies(len(commands), timeout)
