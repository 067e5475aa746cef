"""A Valkey Cluster with nearkey in front of it, beside a Valkey that is no cluster: what a sequence
reads through nearkey must be what that one says.

The keys of a sequence have hash tags, each of a slot of another node. While the comparison runs,
these slots may move between the nodes.
"""

import binascii
import contextlib
import hashlib
import re
import threading
import time

import pools
import wire
from templates import tagged
from world import World, as_bytes  # First: it says where the others are.

from clusters import SLOTS, Cluster  # noqa: I100
from processes import SLOWNESS
from resp import RespClient

CHANNELS = (b"news", b"sport", b"ch\r\n")
REST_SECONDS = 0.1 * SLOWNESS
REDIRECT = re.compile(rb"(?:\A|\n)-(?:MOVED|ASK) \d")
# What docs/cluster.md lets a client read while its slot moves. It tries again.
TRY_AGAIN = re.compile(
    rb"(?:\A|\n)-(?:TRYAGAIN |EXECABORT Transaction discarded: slot \d+ moved, nothing was run)"
)
# Each digest of a server that has keys begins with that of the number of the database.
DATABASE_DIGEST = hashlib.sha1(hashlib.sha1(bytes(4)).digest()).digest()


def slot_of(key):
    tag = re.search(rb"\{([^}]+)\}", key)
    return binascii.crc_hqx(tag[1] if tag else key, 0) % SLOTS


class ClusterWorld(World):
    tags = pools.TAGS
    is_clustered = True

    def __init__(self, binary, *, is_moving=False):
        self.is_moving = is_moving
        self.cluster = None
        self.mover = None
        super().__init__(binary)

    def _start_upstream(self):
        self.cluster = Cluster(self.directory, 3, args=lambda port: pools.SERVER_OPTIONS).start()
        return self.cluster.url()

    def _open(self, relay):
        self.nodes = [node.client() for node in self.cluster.nodes]
        self.filling = RespClient(self.nearkey.path)
        self._data_of_tag = {tag: encoded_data(tag) for tag in pools.TAGS}
        super()._open(relay)
        self.is_steady = False  # Nodes have other tables of keys than one server.
        if self.is_moving:
            self.mover = Mover(self.cluster)
            self.mover.start()

    def close(self):
        if self.mover is not None:
            self.mover.stop()
        for part in getattr(self, "nodes", []):
            part.close()
        try:
            super().close()
        finally:
            if self.cluster is not None:
                self.cluster.stop()

    def servers(self):
        return [self.admin, *self.nodes]

    def asked(self, *, directly):
        return [self.admin] if directly else self.nodes

    def prepare(self, sequence, *, directly):
        """The data of the cluster are set through nearkey, which knows where they belong."""
        if sequence.is_thorough or self._was_thorough:
            for server in self.asked(directly=directly):
                self._set_up(self._state, server)
        if not directly:
            self._was_thorough = sequence.is_thorough
        data = b"".join(self._data_of_tag[tag] for tag in sequence.tags)
        target = self.admin if directly else self.filling
        self._set_up(wire.encode((b"FLUSHALL",)) + data, target)

    def digest(self, *, directly):
        with self.mover.resting() if self.mover is not None else contextlib.nullcontext():
            return digest_of(self.asked(directly=directly))

    def mirror(self, args):
        """What a scenario sets at one server is set at all nodes, as operators do."""
        if args[:2] == (b"CONFIG", b"SET"):
            for node in self.nodes:
                assert node.command(*args) == b"+OK\r\n"


def encoded_data(tag):
    """The data set, with the keys so tagged."""
    rows = ((as_bytes(row[0]), *map(as_bytes, row[1:])) for row in pools.DATA)
    commands = []
    for row in rows:
        at = 2 if row[0] == b"XGROUP" else 1
        commands.append(row[:at] + (tagged(row[at], tag),) + row[at + 1 :])
    return b"".join(wire.encode(args) for args in commands)


def digest_of(servers):
    """Of all keys that these have, whichever has which."""
    digest = bytes(20)
    for server in servers:
        own = bytes.fromhex(server.value("DEBUG", "DIGEST").decode())
        if any(own):
            digest = xor(digest, xor(DATABASE_DIGEST, own))
    return digest


def xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


class Mover:
    """Moves the slots of all tags and channels from node to node, one after the other."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.slots = [slot_of(name) for name in pools.TAGS + CHANNELS]
        self.moved = 0
        self.problem = None
        self._migrating = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self._is_over.set()
        self._thread.join()

    def resting(self):
        """While it is held, no key is on its way."""
        return self._migrating

    def _run(self):
        try:
            while not self._is_over.is_set():
                slot = self.slots[self.moved % len(self.slots)]
                place = self.cluster.nodes.index(self.cluster.owner_of(slot))
                step = 1 + self.moved // len(self.slots) % 2
                self._move(slot, self.cluster.nodes[(place + step) % len(self.cluster.nodes)])
                self.moved += 1
        except (AssertionError, OSError) as error:
            self.problem = f"slots move no more: {error}"

    def _move(self, slot, target):
        rest = lambda: self._is_over.wait(REST_SECONDS)  # noqa: E731
        self.cluster.move(slot, target, while_moving=rest, migrating=self._migrating)
        rest()
