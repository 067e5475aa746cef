"""A server that answers nearkey's handshake properly and everything else as the test says: for evil
replies, and to see exactly which bytes nearkey sends.

It parses strictly: a request that is not in canonical form is a violation, because only canonical
bytes may be forwarded.
"""

import re
import socket
import threading

from harness import SystemTest
from resp import encode

NAMES = {  # name: (arity, flags, first key, last key, step)
    b"get": (2, [b"readonly", b"fast"], 1, 1, 1),
    b"set": (-3, [b"write", b"denyoom"], 1, 1, 1),
    b"incr": (2, [b"write", b"denyoom", b"fast"], 1, 1, 1),
    b"ping": (-1, [b"fast"], 0, 0, 0),
    b"echo": (2, [b"fast"], 0, 0, 0),
    b"info": (-1, [b"loading", b"stale"], 0, 0, 0),
    b"command": (-1, [b"loading", b"stale"], 0, 0, 0),
}
CANONICAL_LENGTH = rb"(0|[1-9][0-9]*)\r\n"


def bulk(data):
    return b"$%d\r\n%s\r\n" % (len(data), data)


def command_table():
    """The reply to COMMAND as Valkey 8 shapes it, for the few commands above."""
    rows = []
    for name, (arity, flags, first, last, step) in NAMES.items():
        flag_list = b"*%d\r\n" % len(flags) + b"".join(b"+%s\r\n" % flag for flag in flags)
        rows.append(
            b"*10\r\n"
            + bulk(name)
            + b":%d\r\n" % arity
            + flag_list
            + b":%d\r\n:%d\r\n:%d\r\n" % (first, last, step)
            + b"*0\r\n" * 4
        )
    return b"*%d\r\n" % len(rows) + b"".join(rows)


def hello(protocol):
    fields = [
        bulk(b"server"),
        bulk(b"valkey"),
        bulk(b"version"),
        bulk(b"8.0.1"),
        bulk(b"proto"),
        b":%d\r\n" % protocol,
        bulk(b"id"),
        b":7\r\n",
        bulk(b"mode"),
        bulk(b"standalone"),
        bulk(b"role"),
        bulk(b"master"),
        bulk(b"modules"),
        b"*0\r\n",
    ]
    header = b"%7\r\n" if protocol == 3 else b"*14\r\n"
    return header + b"".join(fields)


class FakeValkey:
    """Listens on a Unix socket, or on TCP where `path` is a (host, port) pair. `answers` maps a command name to reply bytes, or to a function
    (args) -> bytes or None (None: no answer). Bytes in `close_after` close the connection once they
    were sent. `stray`: (name, bytes) stands before the replies to commands of that name, which are
    kept until a GET comes behind them."""

    def __init__(self, path):
        self.path = path
        is_tcp = isinstance(path, tuple)
        self.url = "valkey://%s:%d" % path if is_tcp else f"unix://{path}"
        self.answers = {}
        self.close_after = set()
        self.stray = None
        self.received = (
            []
        )  # Every command that is not part of nearkey's own traffic, as a list of arguments.
        self.violations = []  # Requests that were not canonical.
        self.connections = 0
        self._sockets = []
        self._listener = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX)
        if is_tcp:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for end in [self._listener, *self._sockets]:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def _accept(self):
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        buffer = b""
        state = {"protocol": 2}
        try:
            while data := peer.recv(1 << 16):
                buffer += data
                while (parsed := self._take(buffer)) is not None:
                    args, buffer = parsed
                    reply = self._with_stray(state, args, self._answer(state, args))
                    if reply is not None:
                        peer.sendall(reply)
                    if reply in self.close_after:
                        peer.shutdown(socket.SHUT_RDWR)
                        return
        except (OSError, ValueError):
            pass
        finally:
            peer.close()

    def _with_stray(self, state, args, reply):
        if self.stray is None:
            return reply
        name, stray = self.stray
        if args[0].lower() == name and "kept" not in state:
            state["kept"] = stray
        if "kept" not in state:
            return reply
        state["kept"] += reply or b""
        return state.pop("kept") if args[0].lower() == b"get" else None

    def _take(self, buffer):
        """(arguments, rest) of the first canonical command; None while incomplete."""
        head = re.match(rb"\*" + CANONICAL_LENGTH, buffer)
        if head is None:
            self._violation_unless_partial(buffer)
            return None
        args, at = [], head.end()
        if head.group(1) == b"0":
            self._violate(buffer)
        for _ in range(int(head.group(1))):
            match = re.compile(rb"\$" + CANONICAL_LENGTH).match(buffer, at)
            if match is None:
                self._violation_unless_partial(buffer[at:])
                return None
            end = match.end() + int(match.group(1))
            if len(buffer) < end + 2:
                return None
            if buffer[end : end + 2] != b"\r\n":
                self._violate(buffer)
            args.append(buffer[match.end() : end])
            at = end + 2
        return args, buffer[at:]

    def _violation_unless_partial(self, buffer):
        if buffer and not re.fullmatch(rb"[*$]([0-9]*\r?)", buffer):
            self._violate(buffer)

    def _violate(self, buffer):
        self.violations.append(buffer[:120])
        raise ValueError("not canonical")

    def _answer(self, state, args):
        name = args[0].lower()
        if name.decode(errors="replace") in self.answers or name in self.answers:
            answer = self.answers.get(name, self.answers.get(name.decode(errors="replace")))
            self.received.append(args)
            return answer(args) if callable(answer) else answer
        if name == b"hello":
            state["protocol"] = int(args[1]) if len(args) > 1 else state["protocol"]
            return hello(state["protocol"])
        if name == b"command":
            return command_table() if len(args) == 1 else b"*0\r\n"
        if name == b"info":
            return bulk(b"# Server\r\nvalkey_version:8.0.1\r\nloading:0\r\n")
        if name == b"ping":
            self.received.append(args)
            return b"+PONG\r\n" if len(args) == 1 else bulk(args[1])
        if name in (b"client", b"select", b"auth"):
            return b"+OK\r\n"
        self.received.append(args)
        return b"-ERR unknown command '" + name + b"'\r\n"


def echo_argument(args):
    """An answer for GET: the key comes back, so that every reply names its request."""
    return bulk(args[1])


def forwarded_bytes(fake):
    return b"".join(encode(*args) for args in fake.received)


class FakeUpstreamTest(SystemTest):
    """nearkey in front of a fake server that answers GET with its key."""

    def setUp(self):
        super().setUp()
        self.fake = FakeValkey(f"{self.directory}/fake.sock")
        self.addCleanup(self.fake.close)
        self.fake.answers = {"get": echo_argument, "set": b"+OK\r\n"}
