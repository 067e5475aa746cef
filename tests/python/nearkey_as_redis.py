"""A pytest plugin: redis-py's own tests have nearkey's clients where they name redis-py's.

They use a Unix socket, and a pool also where the tests ask for a single connection, which would not
read the shared memory. Each read is made twice: the second one can be a hit, and is what the test
gets. NEARKEY_TEST_PLAIN=1: redis-py's clients, to compare with.
"""

import os

import nearkey
import nearkey.asyncio
import redis
import redis.asyncio
from redis.connection import Connection, UnixDomainSocketConnection

is_plain = os.environ.get("NEARKEY_TEST_PLAIN") == "1"
hits = {}  # of each client, which is kept so that its id stays its own


class Pool(redis.ConnectionPool):
    def __init__(self, connection_class=Connection, **settings):
        if "path" in settings and connection_class is Connection:
            connection_class = UnixDomainSocketConnection
        super().__init__(connection_class=connection_class, **settings)


class Redis(redis.Redis if is_plain else nearkey.Redis):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not is_plain:
            self._refresh_segment()

    def client(self):
        return self

    def get(self, name):
        super().get(name)
        return note_hits(self, super().get(name))

    def mget(self, keys, *args):
        keys = list(keys) if not isinstance(keys, (str, bytes)) else keys
        super().mget(keys, *args)
        return note_hits(self, super().mget(keys, *args))


class AsyncRedis(redis.asyncio.Redis if is_plain else nearkey.asyncio.Redis):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not is_plain:
            self._refresh_segment()

    def client(self):
        return self

    async def get(self, name):
        await super().get(name)
        return note_hits(self, await super().get(name))

    async def mget(self, keys, *args):
        keys = list(keys) if not isinstance(keys, (str, bytes)) else keys
        await super().mget(keys, *args)
        return note_hits(self, await super().mget(keys, *args))


def note_hits(client, value):
    if not is_plain:
        hits[id(client)] = (client, client.shared_memory_info().hits)
    return value


def pytest_sessionfinish():
    print(f"\nhits: {sum(count for _, count in hits.values())}")


redis.ConnectionPool = Pool
redis.Redis = redis.StrictRedis = Redis
redis.asyncio.Redis = redis.asyncio.StrictRedis = AsyncRedis
