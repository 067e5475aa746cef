"""The cache: the ordinary client, and what is done while nobody answers it.

The rule: the cache makes the app faster and is never needed. While it is away, reports are made
anew, and only what lives in the cache alone is refused (503).
"""

import json
import logging
import time
from contextlib import asynccontextmanager, suppress
from typing import Any, Awaitable, Callable, Optional

from fastapi import Request
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

from app.core.logging import correlation_id
from app.core.settings import Settings

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1.0


class CacheAway(Exception):
    """The cache can't be used now; the text says why."""


def is_away(error: RedisError) -> bool:
    """Whether the cache is away, and not the command wrong.

    Nobody listens, or says nothing in time: nearkey is away, or stuck. -UPSTREAMDOWN, -UPSTREAMLOST
    and -UPSTREAMTIMEOUT: nearkey is there, and says that Valkey is not.
    """
    if isinstance(error, ResponseError):
        return str(error).startswith("UPSTREAM")
    return isinstance(error, (ConnectionError, TimeoutError))


class Cache(Redis):
    """redis.asyncio's client, whose commands raise CacheAway while the cache is away.

    Then one request a second asks whether it is back, and the others do not wait for it. What has
    changed is logged once, not with every request.
    nearkey is told the id of the request that a command belongs to, for its slow log and warnings.
    """

    # For nearkey.asyncio.Redis in place of Redis: what is overridden changes no key and no value.
    overrides_only_add = True

    _is_there: Optional[bool] = None
    _takes_tags = False
    _reason = ""
    _ask_again_at = 0.0

    async def execute_command(self, *args, **options):
        async with self.watched():
            if not self._takes_tags:
                return await super().execute_command(*args, **options)
            # Both go in one write, and come back in one.
            pipeline = self.pipeline(transaction=False)
            pipeline.execute_command("NEARKEY", "TAG", correlation_id.get() or "")
            pipeline.execute_command(*args, **options)
            _, reply = await pipeline.execute(raise_on_error=False)
            if isinstance(reply, RedisError):
                raise reply
            return reply

    @asynccontextmanager
    async def watched(self):
        """For what does not come through execute_command(): a pipeline's execute()."""
        if not self._is_there:
            await self._ask()
        try:
            yield
        except RedisError as error:
            self._raise(error)

    async def _ask(self):
        """PING is answered by Valkey itself; a read may be answered by nearkey a while longer."""
        now = time.monotonic()
        if now < self._ask_again_at:
            raise CacheAway(self._reason)
        self._ask_again_at = now + ASK_AGAIN_S
        try:
            await super().execute_command("PING")
            self._takes_tags = await self._is_tag_taken()
        except RedisError as error:
            self._raise(error)
        if not self._is_there:
            log.info("the cache is there" if self._is_there is None else "the cache is back")
        self._is_there = True
        self._ask_again_at = 0.0

    async def _is_tag_taken(self) -> bool:
        """Valkey itself does not know the command."""
        try:
            await super().execute_command("NEARKEY", "TAG", "")
        except ResponseError:
            return False
        return True

    def _raise(self, error: RedisError):
        if not is_away(error):
            raise error
        self._reason = str(error)
        if self._is_there is not False:
            log.warning("the cache is away, serving without it: %s", error)
        self._is_there = False
        raise CacheAway(self._reason) from error

    async def get_or_make(
        self, key: str, ttl_s: int, make: Callable[[], Awaitable[Any]]
    ) -> Any:
        """The cached value, or a new one that the next request finds in the cache."""
        try:
            cached = await self.get(key)
        except CacheAway:
            return await make()
        if cached is not None:
            return json.loads(cached)
        value = await make()
        with suppress(CacheAway):
            await self.set(key, json.dumps(value), ex=ttl_s)
        return value


@asynccontextmanager
async def open_cache(settings: Settings):
    cache = Cache.from_url(
        settings.cache_url,
        decode_responses=True,
        socket_timeout=settings.cache_timeout_s,
        socket_connect_timeout=settings.cache_timeout_s,
        # nearkey reconnects and tries again where that is safe; newer clients do so for seconds.
        retry=Retry(NoBackoff(), 0),
    )
    # The app starts without the cache as well; the next command finds it.
    with suppress(CacheAway):
        await cache.ping()
    try:
        yield cache
    finally:
        # close() alone would leave connections of a client that from_url() made open.
        await cache.connection_pool.disconnect()


async def get_cache(request: Request) -> Cache:
    return request.app.state.cache
