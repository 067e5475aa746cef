"""What the tests of Sentinel share: nearkey in front of a group of real servers, and what it says of
it in its log and on its pages."""

import itertools

from harness import EVERY_COMMAND, SystemTest, wait_for
from near_cache import explain
from resp import RespError, parse
from sentinels import SentinelGroup, address_of, role

OK = b"+OK\r\n"
# Each value is written once: an old one would be found at a former primary.
NUMBERS = itertools.count()


class SentinelWords:
    """For a test whose nearkey is `self.nearkey`: what that says of its Sentinels, and which server
    answers."""

    # What nearkey says.

    def events(self, event, **fields):
        """The lines of the log of that event whose fields contain these texts."""
        return [
            entry
            for entry in self.nearkey.logs()
            if entry["event"] == event
            and all(str(text) in str(entry.get(name, "")) for name, text in fields.items())
        ]

    def wait_event(self, event, timeout=5, **fields):
        return wait_for(lambda: self.events(event, **fields), timeout, f"{event} {fields}")[-1]

    def states(self):
        """What /readyz tells of each Sentinel: address -> state."""
        return {
            each["address"]: each["state"] for each in self.nearkey.get("/readyz")[1]["sentinels"]
        }

    def wait_state(self, sentinel, text, timeout=5):
        """Until the state of the Sentinel contains the text."""
        wait_for(
            lambda: text in self.states().get(sentinel.address, ""),
            timeout,
            f"{sentinel.address} is said to be: {text}",
        )

    def metric(self, name):
        return self.nearkey.metric(f"nearkey_{name}")

    def failovers(self, cause="sentinel"):
        return self.metric(f"failovers_{cause}_total")

    def wait_failovers(self, count, cause="sentinel"):
        """A write may be through before the line in the log, and before it is counted."""
        wait_for(lambda: self.failovers(cause) == count, 3, f"{count} failovers")

    # Which server answers.

    def is_written_at(self, server, client, value, key="k"):
        """Whether a SET through nearkey reached the server, as the primary that it is."""
        reply = client.command("SET", key, value)
        return (
            reply == OK
            and server.run("GET", key) == str(value).encode()
            and role(server) == b"master"
        )

    def wait_writes_at(self, server, client, timeout=3):
        """Until writes through nearkey reach the server; it is asked each 5 ms at most."""
        wait_for(
            lambda: self.is_written_at(server, client, f"write-{next(NUMBERS)}"),
            timeout,
            f"writes arrive at {address_of(server)}",
        )

    def assert_served_by(self, server, client):
        """Reads and writes, near cache and all."""
        mine = f"mine-{next(NUMBERS)}"
        self.assertTrue(self.is_written_at(server, client, mine), client.command("SET", "k", mine))
        self.assertEqual(mine.encode(), client.value("GET", "k"))
        server.run("SET", "others", "theirs")
        self.assertEqual(b"$6\r\ntheirs\r\n", client.command("GET", "others"))
        words = explain(client, "GET", "k")
        told = (words["server"].decode(), words["role"])
        self.assertEqual((address_of(server), b"primary"), told)
        self.assertEqual(200, self.nearkey.ready_status())


class SentinelTest(SentinelWords, SystemTest):
    group = None

    def start_group(self, **options):
        self.group = SentinelGroup(self.directory, **options)
        self.addCleanup(self.group.stop)
        return self.group.start()

    def start(self, url=None, *, ready=True, **settings):
        """nearkey, by default at all Sentinels of the group; a client of it once it is ready, which
        is when it listens."""
        self.nearkey = self.start_nearkey(
            url or self.group.url(), ready=ready, settings={**EVERY_COMMAND, **settings}
        )
        return self.client() if ready else None

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client


def is_error(reply):
    return isinstance(parse(reply), RespError)
