"""Reads the near cache's shared memory as the client library does, by that library's own reader."""

import array
import ctypes
import os
import socket
import time

from processes import BINARY

READER = ctypes.CDLL(os.path.join(os.path.dirname(BINARY), "libnearkey_client_for_tests.so"))
LIBC = ctypes.CDLL(None, use_errno=True)
VALUE_MAX = 4096
PROT_READ, MAP_SHARED = 1, 1
MAP_FAILED = ctypes.c_void_p(-1).value


class View(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("numbers", ctypes.c_uint64 * 16)]


class Key(ctypes.Structure):
    _fields_ = [
        ("bytes", ctypes.c_char_p),
        ("size", ctypes.c_size_t),
        ("database", ctypes.c_uint16),
    ]


class Found(ctypes.Structure):
    _fields_ = [("outcome", ctypes.c_int), ("size", ctypes.c_size_t)]


class Slice(ctypes.Structure):
    _fields_ = [
        ("key", ctypes.c_char_p),
        ("key_size", ctypes.c_size_t),
        ("buffer", ctypes.c_void_p),
        ("capacity", ctypes.c_size_t),
        ("found", Found),
        ("bucket_at", ctypes.c_uint64),
        ("version", ctypes.c_uint64),
        ("epoch", ctypes.c_uint32),
        ("source", ctypes.c_uint16),
        ("refused_flags", ctypes.c_uint8),
    ]


READER.segment_get.restype = Found
READER.segment_get.argtypes = [
    ctypes.POINTER(View),
    ctypes.POINTER(Key),
    ctypes.c_char_p,
    ctypes.c_size_t,
]
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

HIT, NIL, MISS, BUSY, STALE, OFF = range(6)
WORDS = {NIL: "nil", MISS: "miss", BUSY: "busy", STALE: "stale", OFF: "off"}


def ask(path, timeout=15.0):
    """The reply to NEARKEY SHM, and the descriptors that came with it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(path)
        return ask_over(client)


def ask_over(client):
    client.sendall(b"NEARKEY SHM\r\n")
    reply, fds = b"", []
    while not reply.endswith(b"\r\n"):
        space = socket.CMSG_SPACE(4 * array.array("i").itemsize)
        data, ancillary, _, _ = client.recvmsg(4096, space, socket.MSG_CMSG_CLOEXEC)
        if not data:
            break
        reply += data
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content)
                fds += numbers
    return reply, fds


class Segment:
    """One segment, mapped; read(key) is bytes, or a word that says why not."""

    def __init__(self, path):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        reply, fds = ask(path)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert reply.startswith(b"+OK ") and len(fds) == 1, (reply, fds)
        layout, self.incarnation, clock, _ = reply[4:].split()
        assert layout == b"1" and len(self.incarnation) == 16, reply
        assert before <= int(clock) <= after, (before, clock, after)
        self.fd = fds[0]
        self.size = os.fstat(self.fd).st_size
        self.base = LIBC.mmap(None, self.size, PROT_READ, MAP_SHARED, self.fd, 0)
        assert self.base != MAP_FAILED
        self.view = View()
        status = READER.segment_view_init(
            ctypes.byref(self.view), ctypes.c_void_p(self.base), ctypes.c_uint64(self.size)
        )
        assert status == 0, "this is no segment"
        self.buffer = ctypes.create_string_buffer(VALUE_MAX)

    def close(self):
        LIBC.munmap(self.base, self.size)
        os.close(self.fd)

    def is_over(self):
        return READER.segment_is_over(ctypes.byref(self.view)) != 0

    def read(self, key, database=0):
        key = key.encode() if isinstance(key, str) else key
        found = READER.segment_get(
            ctypes.byref(self.view),
            ctypes.byref(Key(key, len(key), database)),
            self.buffer,
            VALUE_MAX,
        )
        return self.buffer.raw[: found.size] if found.outcome == HIT else WORDS[found.outcome]

    def read_all(self, keys, database=0):
        """As MGET: a list, or a word."""
        buffers = [ctypes.create_string_buffer(VALUE_MAX) for _ in keys]
        slices = (Slice * len(keys))()
        for i, key in enumerate(keys):
            address = ctypes.addressof(buffers[i])
            slices[i] = Slice(key.encode(), len(key), address, VALUE_MAX)
        outcome = READER.segment_mget(
            ctypes.byref(self.view), ctypes.c_uint16(database), slices, ctypes.c_size_t(len(keys))
        )
        if outcome != HIT:
            return WORDS[outcome]
        return [
            buffers[i].raw[: one.found.size] if one.found.outcome == HIT else None
            for i, one in enumerate(slices)
        ]

    def contents(self):
        """All bytes of it, as a reader sees them."""
        return ctypes.string_at(self.base, self.size)


class Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("timeout_ms", ctypes.c_uint32),
        ("sample_every", ctypes.c_uint32),
    ]


class Library:
    """libnearkey-client on one socket, as a C program uses it; every hit is given out."""

    OFF, MISS, NIL = -4, -2, -1

    def __init__(self, url):
        self.library = READER
        self.library.nearkey_open.restype = ctypes.c_void_p
        self.library.nearkey_get.restype = ctypes.c_int64
        self.library.nearkey_get.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        self.library.nearkey_refresh.argtypes = [ctypes.c_void_p]
        self.library.nearkey_close.argtypes = [ctypes.c_void_p]
        options = Options(ctypes.sizeof(Options), 5000, 0xFFFFFFFF)
        self.handle = self.library.nearkey_open(url.encode(), ctypes.byref(options))
        assert self.handle, url
        self.buffer = ctypes.create_string_buffer(VALUE_MAX)

    def get(self, key):
        """Bytes, or what the library says in their place."""
        size = self.library.nearkey_get(
            self.handle, key.encode(), len(key), self.buffer, VALUE_MAX
        )
        return self.buffer.raw[:size] if size >= 0 else size

    def refresh(self):
        return self.library.nearkey_refresh(self.handle) == 1

    def close(self):
        self.library.nearkey_close(self.handle)
