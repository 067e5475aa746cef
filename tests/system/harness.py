"""What every system test stands on: temporary directories, servers that are stopped again, and the
comparison of answers with those of the server itself.

Environment: NEARKEY_BINARY      the program under test (default build/nearkey)
             NEARKEY_TEST_DIRECT 1: clients talk to valkey-server itself, to check the tests
                                 against the oracle
             NEARKEY_TEST_SLOW   1: a sanitizer build: times are scaled, memory is not asserted
"""

import os
import shutil
import tempfile
import unittest

from processes import (  # For the tests as well, which import all of it from here. # noqa: F401
    BINARY,
    EVERY_COMMAND,
    ROOT,
    SLOW,
    SLOWNESS,
    AdminConnection,
    Nearkey,
    ValkeyServer,
    free_port,
    is_server,
    run_nearkey,
    valkey_program,
    wait_for,
)
from resp import RespClient, mask_ids

DIRECT = os.environ.get("NEARKEY_TEST_DIRECT") == "1"
proxy_only = unittest.skipIf(
    DIRECT, "NEARKEY_TEST_DIRECT: this is about nearkey, not about the protocol"
)


def show_figure(text):
    """A measured result that tests/run_all.py shows, also where all is well."""
    print(f"figure: {text}", flush=True)


class SystemTest(unittest.TestCase):
    """A temporary directory for each test, and everything that was started in it is stopped after
    it."""

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="nearkey-test-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def start_server(self, *extra, **options):
        server = ValkeyServer(options.pop("directory", self.directory), **options)
        self.addCleanup(server.stop)
        return server.start(*extra)

    def start_nearkey(self, upstream, *, ready=True, directory=None, **options):
        """Starts nearkey; it is stopped, with exit code 0, at the end of the test."""
        nearkey = Nearkey(directory or self.directory, upstream, **options)
        self.addCleanup(nearkey.kill)
        nearkey.start(ready=ready)
        self.addCleanup(nearkey.stop)
        return nearkey


class SharedSystemTest(unittest.TestCase):
    """One server and one nearkey for all tests of a class; each test starts with an empty one."""

    server_args = ()
    settings = {}
    tcp = False

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="nearkey-test-")
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)
        cls.server = ValkeyServer(cls.directory, tcp=cls.tcp, args=cls.server_args)
        cls.addClassCleanup(cls.server.stop)
        cls.server.start()
        cls.nearkey = None
        if not DIRECT:
            cls.nearkey = Nearkey(cls.directory, cls.server.url, settings=cls.settings)
            cls.addClassCleanup(cls.nearkey.kill)
            cls.nearkey.start()
            cls.addClassCleanup(cls.nearkey.stop)

    def setUp(self):
        self.server.run("FLUSHALL")
        self.direct = self.server.client()
        self.addCleanup(self.direct.close)

    @property
    def address(self):
        """Where the clients of the test connect: nearkey, or the server itself with
        NEARKEY_TEST_DIRECT=1."""
        return self.server.path if DIRECT else self.nearkey.path

    def client(self, **options):
        client = RespClient(self.address, **options)
        self.addCleanup(client.close)
        return client

    def conversation(self, address, data):
        """Sends the bytes on a fresh connection, then half-closes: (all bytes that come back, how
        it ended)."""
        with RespClient(address) as client:
            try:
                client.send(data)
                client.shutdown_write()
            except OSError:
                # The peer may close before it has read everything; what it answered is still there.
                pass
            return client.read_to_end()

    def assert_bytes(self, expected, actual, sent):
        """Equality of bytes with a message that stays short however long they are."""
        if expected != actual:
            at = next(
                (i for i, pair in enumerate(zip(expected, actual)) if pair[0] != pair[1]),
                min(len(expected), len(actual)),
            )
            part = slice(max(at - 60, 0), at + 100)
            self.fail(
                f"sent {sent[:160]!r}\nexpected ({len(expected)} bytes, differ at {at}) "
                f"{bytes(expected[part])!r}\nreceived ({len(actual)} bytes) {bytes(actual[part])!r}"
            )

    def assert_same_answer(self, data, expected=None):
        """Valkey is the oracle: the same bytes sent to it directly and through nearkey get the same
        bytes."""
        oracle, oracle_end = self.conversation(self.server.path, data)
        answer, answer_end = self.conversation(self.address, data)
        self.assert_bytes(mask_ids(oracle), mask_ids(answer), data)
        if oracle_end == "eof":
            self.assertEqual("eof", answer_end, f"sent: {data[:160]!r}")
        if expected is not None:
            self.assert_bytes(expected, answer, data)
        return answer

    def assert_same_replies(self, commands):
        """The same for a list of commands, one reply each; returns the replies."""
        with self.server.client() as client:
            oracle = client.pipeline(commands)
        replies = self.client().pipeline(commands)
        for command, expected, reply in zip(commands, oracle, replies):
            self.assert_bytes(mask_ids(expected), mask_ids(reply), repr(command).encode())
        return replies
