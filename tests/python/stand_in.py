"""A nearkey whose shared memory a test fills by hand, before a real Valkey: what the segment says
and what the socket says can differ here, so that a test sees where a read was answered.

nearkey itself is in test_with_nearkey.py; the segment's layout in include/nearkey/cache/segment.h.
"""

import array
import ctypes
import ctypes.util
import fcntl
import mmap
import os
import socket
import struct
import threading
import time
import unittest
import unittest.mock

from harness import SLOWNESS, SystemTest
from nearkey import _shared
from resp import Closed, Framer, RespClient, parse

PAGE = 4096
SOURCES = 65536
BUCKETS = 1024
ENTRIES = 7
SIZE = 4 << 20
SOURCES_AT = PAGE
BUCKETS_AT = SOURCES_AT + 8 * SOURCES
ITEMS_AT = BUCKETS_AT + 64 * BUCKETS
# Offsets in the header, whose changing parts have lines of their own.
EPOCH_AT, OVER_AT, STALENESS_AT, OWNER_AT = 64, 68, 72, 128
MAGIC = 0x79656B7261656E01
LAYOUT = 1
NIL, NOT_GET = 1, 2
NEVER_MS = 1 << 62
HOLD_S = 5 * SLOWNESS  # at most
F_ADD_SEALS, SEALS = 1033, 1 | 2 | 4  # SEAL, SHRINK, GROW

xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def boottime_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def padded(data):
    return data + bytes(-len(data) % 8)


class SegmentByHand:
    """A memfd with one segment. Written while nobody reads it: by the thread that also reads."""

    def __init__(self, incarnation):
        self.incarnation = incarnation
        self.seed = 0x5EED
        self.fd = os.memfd_create("segment-by-hand", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(self.fd, SIZE)
        self.memory = mmap.mmap(self.fd, SIZE)
        fcntl.fcntl(self.fd, F_ADD_SEALS, SEALS)
        self.memory[:64] = struct.pack(
            "<QIIQQQQQQ", MAGIC, LAYOUT, BUCKETS, SIZE, SOURCES_AT, BUCKETS_AT, ITEMS_AT,
            self.seed, incarnation,
        )
        self.free_at = ITEMS_AT
        self.set_epoch(1)
        self._set(STALENESS_AT, "<Q", 1 << 40)
        self._set(OWNER_AT, "<I", 1)
        self.set_proven(boottime_ns() // 1_000_000)

    def close(self):
        self.memory.close()
        os.close(self.fd)

    def set_epoch(self, epoch):
        """0: nothing is served."""
        self._set(EPOCH_AT, "<I", epoch)

    def set_over(self):
        self._set(OVER_AT, "<I", 1)

    def set_proven(self, proven_ms):
        """0: its source is closed."""
        self._set(SOURCES_AT, "<Q", proven_ms)

    def put(self, key, value, *, database=0, flags=0):
        """None: there is no such key."""
        key = key.encode() if isinstance(key, str) else key
        value, flags = (b"", flags | NIL) if value is None else (value, flags)
        item = struct.pack(
            "<QIIHHHBB", NEVER_MS, 1, len(value), len(key), database, 0, flags, 0
        ) + padded(key) + padded(value)
        assert self.free_at + len(item) <= SIZE, "the segment is full"
        self.memory[self.free_at : self.free_at + len(item)] = item
        hash = xxhash.XXH3_64bits_withSeed(key, len(key), self.seed)
        bucket_at = BUCKETS_AT + 64 * (hash % BUCKETS)
        for at in range(bucket_at + 8, bucket_at + 64, 8):
            if struct.unpack_from("<Q", self.memory, at) == (0,):
                self._set(at, "<Q", hash & ~0xFFFFFFFFFF | self.free_at)
                self._set(bucket_at, "<Q", 2)
                self.free_at += len(item)
                return
        raise AssertionError("the bucket is full")

    def _set(self, at, form, value):
        struct.pack_into(form, self.memory, at, value)


class StandIn:
    """Listens on a socket; passes each command on to Valkey, NEARKEY excepted, and notes it."""

    def __init__(self, directory, server):
        self.path = os.path.join(directory, "stand-in.sock")
        self.server_path = server.path
        self.segment = None  # None: NEARKEY SHM is refused.
        self.knows_hits = True
        self.commands = []  # Without the clients' own NEARKEY SHM.
        self.asked = 0  # How often for the segment.
        self.database = 0  # In which its clients begin.
        self.lost = set()  # The names of commands with which the connection is lost, once.
        self.held = {}  # The names of commands that wait until the event is set.
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for event in self.held.values():
            event.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        if self.segment is not None:
            self.segment.close()

    def make_segment(self):
        self.segment = SegmentByHand(incarnation=0x1234 + self.asked)
        return self.segment

    def hold(self, name):
        self.held[name] = threading.Event()
        return self.held[name]

    def names(self):
        """The commands that came over the socket, by their names."""
        return [command[0].decode().upper() for command in self.commands]

    def _accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            with client, RespClient(self.server_path, timeout=60) as server:
                self._relay(client, server)
        except (OSError, Closed):
            pass  # One of both has gone.

    def _relay(self, client, server):
        buffer = bytearray()
        while data := client.recv(1 << 16):
            buffer += data
            while (end := Framer().end(buffer)) is not None:
                command = bytes(buffer[:end])
                del buffer[:end]
                self._answer(client, server, command, parse(command))

    def _answer(self, client, server, command, words):
        name = words[0].upper().decode()
        if [word.upper() for word in words] == [b"NEARKEY", b"SHM"]:
            self.asked += 1
            return self._hand_out(client)
        self.commands.append(words)
        if name in self.lost:
            self.lost.remove(name)
            raise OSError("lost")
        if name in self.held:
            self.held[name].wait(HOLD_S)
        if name == "NEARKEY" and self.knows_hits:
            return client.sendall(b"+OK\r\n")
        server.send(command)
        return client.sendall(server.read_reply())

    def _hand_out(self, client):
        if self.segment is None:
            return client.sendall(b"-ERR shared memory is off (listener.shared_memory)\r\n")
        line = b"+OK %d %016x %d %d\r\n" % (
            LAYOUT, self.segment.incarnation, boottime_ns(), self.database)
        rights = array.array("i", [self.segment.fd])
        return client.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


class StandInTest(SystemTest):
    """A Valkey and a stand-in with an empty segment for each test."""

    sample_every = 0xFFFFFFFF  # Never: a sample would be a read over the socket, once in a while.

    @classmethod
    def setUpClass(cls):
        if _shared.WHY_NO_EXTENSION:
            raise unittest.SkipTest(_shared.WHY_NO_EXTENSION)

    def setUp(self):
        super().setUp()
        patch = unittest.mock.patch.object(_shared, "SAMPLE_EVERY", self.sample_every)
        patch.start()
        self.addCleanup(patch.stop)
        self.server = self.start_server()
        self.stand_in = StandIn(self.directory, self.server)
        self.addCleanup(self.stand_in.close)
        self.segment = self.stand_in.make_segment()
