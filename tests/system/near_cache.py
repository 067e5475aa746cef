"""What the tests of the near cache share: is a read answered from it, and what EXPLAIN says."""

from harness import SharedSystemTest, wait_for
from resp import parse

HITS = "nearkey_near_cache_hits_total"
HELLO_3 = b"$5\r\nHELLO\r\n$1\r\n3\r\n"


def is_receiver(asked):
    """For Relay.hold(): the connection that is told of what RESP2 connections read. It asks for
    nothing itself."""
    return HELLO_3 in asked and b"TRACKING" not in asked


def is_hit(nearkey, client, *command):
    before = nearkey.metric(HITS)
    client.command(*command)
    return nearkey.metric(HITS) > before


def store(nearkey, client, *command):
    wait_for(lambda: is_hit(nearkey, client, *command), 5, f"{command} is stored")


def explain(client, *command):
    words = parse(client.command("NEARKEY", "EXPLAIN", *command))
    if isinstance(words, dict):
        return {name.decode(): value for name, value in words.items()}
    return dict(zip((word.decode() for word in words[::2]), words[1::2]))


class NearCacheTest(SharedSystemTest):
    """One server and one nearkey; clients of either protocol."""

    def client_of(self, version):
        client = self.client()
        client.command("HELLO", str(version))
        return client

    def direct_of(self, version):
        client = self.server.client()
        self.addCleanup(client.close)
        client.command("HELLO", str(version))
        return client

    def is_hit(self, client, *command):
        return is_hit(self.nearkey, client, *command)

    def store(self, client, *command):
        store(self.nearkey, client, *command)
