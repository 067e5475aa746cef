"""nearkey.asyncio.Redis: redis.asyncio's client, which reads nearkey's shared memory.

The rule: a hit must not overtake the client's own commands. So the shared memory is read only while
no command or pipeline of the client is under way in another task.
"""

from asyncio import get_running_loop
from contextlib import contextmanager, suppress
from typing import Any, Iterator, Optional

import redis.asyncio.client
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.commands.helpers import list_or_args
from redis.exceptions import ResponseError

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

__all__ = ["Pipeline", "Redis"]


class Pipeline(redis.asyncio.client.Pipeline):
    """redis-py's own, which its client counts while it is under way."""

    _client: Optional["Redis"] = None  # None: it was made without one.

    def execute_command(self, *args: Any, **options: Any) -> Any:
        options.pop(SAMPLED, None)
        if self._client is not None:
            self._client._note_command(args, STATE_OF_CONNECTION)
        return super().execute_command(*args, **options)

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        with self._counted():
            return await super().immediate_execute_command(*args, **options)

    async def execute(self, raise_on_error: bool = True) -> Any:
        """Sends what is queued, and returns the list of its replies."""
        with self._counted():
            return await super().execute(raise_on_error)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        client = self._client
        if client is not None:
            client._owed += 1
        try:
            yield
        finally:
            if client is not None:
                client._owed -= 1


class Redis(SharedMemory, redis.asyncio.client.Redis):
    """redis.asyncio's client; get() and mget() ask nearkey's shared memory first.

    The first argument may be the path of nearkey's socket. Everything else is redis-py's. A hit
    does not give way to other tasks; one in 1,024 does, since it goes over the socket.
    """

    _unix_connection = UnixDomainSocketConnection

    def __init__(self, host: str = "localhost", **kwargs: Any) -> None:
        if is_path(host):
            kwargs.setdefault("unix_socket_path", host)
            host = "localhost"
        self._segment = NoSegment("the client is not made yet")
        self._owed = 0  # Commands and pipelines whose replies are not here yet.
        super().__init__(host=host, **kwargs)
        self._open_segment()

    async def get(self, name: Any) -> Any:
        """The value at key `name`, or None if the key doesn't exist."""
        value = MISS if self._owed else self._segment.get(name)
        if value is MISS:
            return await super().get(name)
        if value is SAMPLE:
            return await self._sample("GET", name)
        if value is OFF:
            self._refresh_if_due()
            return await super().get(name)
        return value

    async def mget(self, keys: Any, *args: Any) -> Any:
        """The values of all keys, in their order, as they were at one moment."""
        names = list_or_args(keys, args)
        values = MISS if self._owed else self._segment.mget(names)
        if values is MISS:
            return await super().mget(names)
        if values is SAMPLE:
            return await self._sample("MGET", *names)
        if values is OFF:
            self._refresh_if_due()
            return await super().mget(names)
        return values

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command and return a parsed response."""
        self._note_command(args, STATE_OF_CLIENT)
        self._owed += 1
        try:
            return await super().execute_command(*args, **options)
        finally:
            self._owed -= 1

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """A new pipeline object that can queue multiple commands for later execution."""
        pipeline = Pipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        pipeline._client = self
        return pipeline

    async def _sample(self, *command: Any) -> Any:
        self._check_settings()
        return await self.execute_command(*command, **{SAMPLED: True})

    async def _send_command_parse_response(
        self, conn: Any, command_name: Any, *args: Any, **options: Any
    ) -> Any:
        """redis-py's own step between taking a connection and giving it back, with its retries."""
        if options.pop(SAMPLED, False):
            return await self._send_sample(conn, command_name, *args, **options)
        return await super()._send_command_parse_response(conn, command_name, *args, **options)

    async def _send_sample(self, conn: Any, command_name: Any, *args: Any, **options: Any) -> Any:
        """Both go in one write. Another server, or an older nearkey, refuses the first of them."""
        commands = [("NEARKEY", "HITS", self._segment.take_hits()), args]
        await conn.send_packed_command(conn.pack_commands(commands))
        with suppress(ResponseError):
            await conn.read_response()
        return await self.parse_response(conn, command_name, **options)

    def _refresh_if_due(self) -> None:
        """In a thread, for it may block."""
        if self._segment.claim_refresh():
            # The loop, or its executor, may be shutting down: then this read is the socket's, too.
            with suppress(RuntimeError):
                get_running_loop().run_in_executor(None, self._refresh_segment)
