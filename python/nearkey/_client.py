"""nearkey.Redis, for threads and processes. A thread that reads has no command unanswered: each of
redis-py's commands returns with its reply."""

from contextlib import suppress
from typing import Any, Optional

import redis.client
from redis.commands.helpers import list_or_args
from redis.connection import UnixDomainSocketConnection
from redis.exceptions import ResponseError

from nearkey._outcome import Outcome
from nearkey._shared import (
    MISS,
    OFF,
    SAMPLE,
    SAMPLED,
    STATE_OF_CLIENT,
    STATE_OF_CONNECTION,
    NoSegment,
    Reader,
    SharedMemory,
    is_path,
)


class Pipeline(redis.client.Pipeline):
    """redis-py's own, which tells its client what it does to a connection."""

    _client: Optional["Redis"] = None  # None: it was made without one.

    def execute_command(self, *args: Any, **options: Any) -> Any:
        options.pop(SAMPLED, None)
        if self._client is not None:
            self._client._note_command(args, STATE_OF_CONNECTION)
        return super().execute_command(*args, **options)


class Redis(SharedMemory, Reader, redis.client.Redis):
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

    def mget(self, keys: Any, *args: Any) -> Any:
        """The values of all keys, in their order, as they were at one moment."""
        names = list_or_args(keys, args)
        values = self._segment.mget(names)
        if values is MISS:
            return super().mget(names)
        if values is SAMPLE:
            return self._sample("MGET", *names)
        if values is OFF:
            self._refresh_if_due()
            return super().mget(names)
        return values

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command and return a parsed response."""
        self._note_command(args, STATE_OF_CLIENT)
        return super().execute_command(*args, **options)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Pipeline:
        """A new pipeline object that can queue multiple commands for later execution."""
        pipeline = Pipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        pipeline._client = self
        return pipeline

    def __copy__(self) -> "Redis":
        """copy.copy() knows nothing of what an extension's object holds."""
        copy = type(self).__new__(type(self))
        vars(copy).update(vars(self))
        copy._segment = self._segment
        return copy

    def _get_elsewhere(self, name: Any, outcome: Optional[Outcome]) -> Any:
        """What get(), which is Reader's, does when it has no hit."""
        if outcome is SAMPLE:
            return self._sample("GET", name)
        if outcome is OFF:
            self._refresh_if_due()
        return super(Reader, self).get(name)

    def _sample(self, *command: Any) -> Any:
        self._check_settings()
        return self.execute_command(*command, **{SAMPLED: True})

    def _send_command_parse_response(
        self, conn: Any, command_name: Any, *args: Any, **options: Any
    ) -> Any:
        """redis-py's own step between taking a connection and giving it back, with its retries."""
        if options.pop(SAMPLED, False):
            return self._send_sample(conn, command_name, *args, **options)
        return super()._send_command_parse_response(conn, command_name, *args, **options)

    def _send_sample(self, conn: Any, command_name: Any, *args: Any, **options: Any) -> Any:
        """Both go in one write. Another server, or an older nearkey, refuses the first of them."""
        commands = [("NEARKEY", "HITS", self._segment.take_hits()), args]
        conn.send_packed_command(conn.pack_commands(commands))
        with suppress(ResponseError):
            conn.read_response()
        return self.parse_response(conn, command_name, **options)

    def _refresh_if_due(self) -> None:
        if self._segment.claim_refresh():
            self._refresh_segment()
