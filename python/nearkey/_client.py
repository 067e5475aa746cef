"""nearkey.Redis, for threads and processes. A thread that reads has no command unanswered: each of
redis-py's commands returns with its reply."""

from typing import Any

import redis.client
from redis.commands.helpers import list_or_args
from redis.connection import UnixDomainSocketConnection

from nearkey._shared import (
    MISS,
    OFF,
    SAMPLE,
    SAMPLED,
    STATE_OF_CLIENT,
    STATE_OF_CONNECTION,
    NoSegment,
    SharedMemory,
    is_path,
)


class Pipeline(redis.client.Pipeline):
    """redis-py's own, which tells its client what it does to a connection."""

    _client: "Redis"

    def execute_command(self, *args: Any, **options: Any) -> Any:
        options.pop(SAMPLED, None)
        self._client._note_command(args, STATE_OF_CONNECTION)
        return super().execute_command(*args, **options)


class Redis(SharedMemory, redis.client.Redis):
    """redis-py's client; get() and mget() ask nearkey's shared memory first.

    The first argument may be the path of nearkey's socket. Everything else is redis-py's.
    """

    _unix_connection = UnixDomainSocketConnection

    def __init__(self, host: str = "localhost", *args: Any, **kwargs: Any) -> None:
        if is_path(host):
            kwargs.setdefault("unix_socket_path", host)
            host = "localhost"
        self._segment = NoSegment("the client is not made yet")
        super().__init__(host, *args, **kwargs)
        self._open_segment()

    def get(self, name: Any) -> Any:
        """The value at key `name`, or None if the key doesn't exist."""
        value = self._segment.get(name)
        if value is MISS:
            return super().get(name)
        if value is SAMPLE:
            return self.execute_command("GET", name, **{SAMPLED: True})
        if value is OFF:
            self._refresh_if_due()
            return super().get(name)
        return value

    def mget(self, keys: Any, *args: Any) -> Any:
        """The values of all keys, in their order, as they were at one moment."""
        names = list_or_args(keys, args)
        values = self._segment.mget(names)
        if values is MISS:
            return super().mget(names)
        if values is SAMPLE:
            return self.execute_command("MGET", *names, **{SAMPLED: True})
        if values is OFF:
            self._refresh_if_due()
            return super().mget(names)
        return values

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command and return a parsed response."""
        if options.pop(SAMPLED, False):
            return self._execute_sample(*args, **options)
        self._note_command(args, STATE_OF_CLIENT)
        return super().execute_command(*args, **options)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Pipeline:
        """A new pipeline object that can queue multiple commands for later execution."""
        pipeline = Pipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        pipeline._client = self
        return pipeline

    def _execute_sample(self, *args: Any, **options: Any) -> Any:
        """Both go in one write. Another server, or an older nearkey, refuses the first of them."""
        self._check_settings()
        # Not the application's pipeline(): a read does not go through it.
        with Redis.pipeline(self, transaction=False) as pipeline:
            pipeline.execute_command("NEARKEY", "HITS", self._segment.take_hits())
            pipeline.execute_command(*args, **options)
            _, reply = pipeline.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _refresh_if_due(self) -> None:
        if self._segment.claim_refresh():
            self._refresh_segment()
