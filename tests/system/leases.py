"""What the tests of leases and tunnels share: how many are out, who is blocked, how a connection
looks to the server, and the same conversation held twice, once with the server itself."""

from harness import DIRECT, SharedSystemTest, wait_for
from resp import mask_ids

LEASED = "nearkey_upstream_dedicated_leased"



class LeaseTest(SharedSystemTest):
    """Whatever a test does, no lease is left of it."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.check_nothing_is_left)

    def check_nothing_is_left(self):
        """Runs after the clients of the test were closed."""
        self.wait_leased(0)
        if not DIRECT:
            self.assertEqual(0, self.nearkey.metric("nearkey_upstream_tunnels"))

    def wait_leased(self, count):
        if not DIRECT:
            wait_leased(self.nearkey, count)

    def wait_blocked(self, count):
        wait_blocked(self.server, count)

    def resp_client(self, protocol, address=None):
        """A client that speaks the protocol, with nearkey or with the address that is given."""
        client = self.client() if address is None else self.client_of(address)
        if protocol == 3:
            client.command("HELLO", "3")
        return client

    def client_of(self, address):
        client = self.server.client() if address == self.server.path else self.client()
        self.addCleanup(client.close)
        return client

    def assert_same_talk(self, talk, *args):
        """`talk(address, ...)` gives the replies of a conversation: the server's own are the
        oracle. The keyspace is empty before each."""
        self.server.run("FLUSHALL")
        expected = [mask_ids(reply) for reply in talk(self.server.path, *args)]
        self.server.run("FLUSHALL")
        replies = [mask_ids(reply) for reply in talk(self.address, *args)]
        self.assertEqual(len(expected), len(replies), (expected, replies))
        for number, (right, reply) in enumerate(zip(expected, replies)):
            self.assert_bytes(right, reply, f"reply {number} of {args!r}".encode())
        return replies


def wait_leased(nearkey, count):
    wait_for(
        lambda: nearkey.metric(LEASED) == count, 10, f"{count} leases, not {nearkey.metric(LEASED)}"
    )


def wait_blocked(server, count):
    """Waits until so many clients wait in blocking commands."""
    text = b"\r\nblocked_clients:%d\r\n" % count
    with server.client() as client:
        wait_for(lambda: text in client.value("INFO", "clients"), 10, f"{count} blocked clients")


def client_row(server, **fields):
    """The one row of CLIENT LIST with these fields, once there is one."""

    def find():
        rows = [row for row in server.clients() if fields.items() <= row.items()]
        assert len(rows) <= 1, rows
        return rows[0] if rows else None

    return wait_for(find, 5, f"a connection with {fields}")
