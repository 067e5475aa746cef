"""The cache by itself: over a real nearkey and a real Valkey, which go and come back."""

import asyncio
import contextlib
import json
import time
from unittest import mock

from harness import wait_for
from processes import SLOWNESS
from redis.exceptions import ResponseError

from app.core import cache as module
from app.core.cache import CacheAway, open_cache
from tests.serving import ServedTest

LOGGER = module.__name__


async def until(condition, timeout_s, what):
    await asyncio.to_thread(wait_for, condition, timeout_s, what)


async def until_answered(cache):
    for _ in range(1000 * SLOWNESS):
        with contextlib.suppress(CacheAway):
            return await cache.ping()
        await asyncio.sleep(0.01)
    raise AssertionError("the cache does not come back")


class Maker:
    """Makes 1, 2, 3 ..., and does something meanwhile, if told so."""

    def __init__(self, meanwhile=lambda: None):
        self.made = 0
        self._meanwhile = meanwhile

    async def __call__(self):
        self._meanwhile()
        self.made += 1
        return {"number": self.made}


class CacheTest(ServedTest):
    def run_with_cache(self, test, **settings):
        async def run():
            async with open_cache(self.settings(**settings)) as cache:
                return await test(cache)

        return asyncio.run(run())

    def messages_of(self, test, **settings):
        """What is logged meanwhile, as (level, message)."""
        with self.assertLogs(LOGGER, "INFO") as logs:
            self.run_with_cache(test, **settings)
        return [(record.levelname, record.getMessage()) for record in logs.records]

    def test_a_value_is_made_once_and_then_read(self):
        maker = Maker()

        async def test(cache):
            first = await cache.get_or_make("k", 60, maker)
            self.assertEqual(first, await cache.get_or_make("k", 60, maker))
            self.assertEqual(first, json.loads(self.server.run("GET", "k")))
            self.assertTrue(0 < self.server.run("TTL", "k") <= 60)
            self.server.run("DEL", "k")
            await until(lambda: self.server.run("EXISTS", "k") == 0, 1, "it is gone")

        self.assertEqual([("INFO", "the cache is there")], self.messages_of(test))
        self.assertEqual(1, maker.made)

    def test_valkey_itself_serves_as_well(self):
        async def test(cache):
            self.assertTrue(await cache.set("k", "v"))
            self.assertEqual("v", await cache.get("k"))
            with self.assertRaises(ResponseError):
                await cache.lpush("k", "x")

        self.assertEqual(
            [("INFO", "the cache is there")], self.messages_of(test, cache_url=self.server.url)
        )

    def test_an_error_of_valkey_is_the_commands_own(self):
        async def test(cache):
            await cache.set("k", "v")
            with self.assertRaisesRegex(ResponseError, "^WRONGTYPE"):
                await cache.lpush("k", "x")

        self.run_with_cache(test)

    def test_a_cache_away_at_start_is_found_later(self):
        self.nearkey.kill()

        async def test(cache):
            maker = Maker()
            for number in (1, 2, 3):
                made = await cache.get_or_make("k", 60, maker)
                self.assertEqual({"number": number}, made)
            self.nearkey.start()
            await until_answered(cache)
            await cache.get_or_make("k", 60, maker)
            self.assertEqual({"number": 4}, await cache.get_or_make("k", 60, maker))

        (first, away), (second, back) = self.messages_of(test)
        self.assertEqual(("WARNING", "INFO"), (first, second))
        self.assertRegex(away, "^the cache is away, serving without it: .*nearkey.sock")
        self.assertEqual("the cache is back", back)

    def test_valkey_away_is_the_cache_away(self):
        async def test(cache):
            self.server.stop()
            with self.assertRaisesRegex(CacheAway, "^UPSTREAM") as caught:
                await cache.set("k", "v")
            self.assertIsInstance(caught.exception.__cause__, ResponseError)
            self.server.start()
            await until_answered(cache)

        self.run_with_cache(test)

    def test_a_cache_lost_between_read_and_write_costs_nothing(self):
        async def test(cache):
            maker = Maker(meanwhile=self.server.stop)
            self.assertEqual({"number": 1}, await cache.get_or_make("k", 60, maker))

        self.assertIn("WARNING", dict(self.messages_of(test)))

    def test_a_command_in_flight_when_valkey_dies_is_away(self):
        async def test(cache):
            self.server.freeze()
            waiting = asyncio.ensure_future(cache.set("k", "v"))
            await until(lambda: self.nearkey.metric("nearkey_in_flight") > 0, 5, "sent")
            self.server.kill()
            with self.assertRaisesRegex(CacheAway, "^UPSTREAMLOST"):
                await waiting

        self.run_with_cache(test)

    def test_a_stuck_cache_is_away_after_the_timeout(self):
        async def test(cache):
            self.nearkey.freeze()
            try:
                self.assertEqual({"number": 1}, await cache.get_or_make("k", 60, Maker()))
            finally:
                self.nearkey.thaw()
            await until_answered(cache)

        levels = [level for level, _ in self.messages_of(test, cache_timeout_s=1)]
        self.assertEqual(["INFO", "WARNING", "INFO"], levels)

    def test_a_change_is_logged_once_and_nobody_waits_for_a_cache_that_is_away(self):
        async def test(cache):
            self.server.stop()
            started = time.monotonic()
            for _ in range(100):
                with self.assertRaisesRegex(CacheAway, "^UPSTREAM"):
                    await cache.set("k", "v")
            # The first, and then one a second, waits for upstream.queue_timeout_ms.
            self.assertLess(time.monotonic() - started, 10 * SLOWNESS)
            self.server.start()
            await until_answered(cache)
            await cache.ping()

        levels = [level for level, _ in self.messages_of(test)]
        self.assertEqual(["INFO", "WARNING", "INFO"], levels)

    def test_that_it_is_back_is_logged_once_however_many_have_asked(self):
        async def test(cache):
            self.server.stop()
            with self.assertRaises(CacheAway):
                await cache.set("k", "v")
            self.server.start()
            self.nearkey.wait_ready()
            with mock.patch.object(module, "ASK_AGAIN_S", 0):
                await asyncio.gather(cache.get("k"), cache.get("k"))

        levels = [level for level, _ in self.messages_of(test)]
        self.assertEqual(["INFO", "WARNING", "INFO"], levels)

    def test_a_wrong_command_is_not_a_cache_that_is_away(self):
        async def test(cache):
            await cache.lpush("list", "x")
            with self.assertRaisesRegex(ResponseError, "WRONGTYPE"):
                await cache.get("list")
            await cache.ping()

        self.assertEqual([("INFO", "the cache is there")], self.messages_of(test))

    def test_a_pipeline_is_watched_where_one_says_so(self):
        async def test(cache):
            async with cache.watched():
                reply = await cache.pipeline().set("k", "v").get("k").execute()
            self.assertEqual([True, "v"], reply)
            self.nearkey.stop()
            with self.assertRaises(CacheAway):
                async with cache.watched():
                    await cache.pipeline().set("k", "v").execute()

        self.run_with_cache(test)

    def test_the_connections_are_closed_at_the_end(self):
        def clients():
            return self.nearkey.metric("nearkey_clients")

        async def run():
            async with open_cache(self.settings()) as cache:
                await asyncio.gather(*(cache.get(f"k{i}") for i in range(4)))
                self.assertGreater(clients(), 0)
            # The loop still runs: nothing but open_cache can have closed them.
            await until(lambda: clients() == 0, 5, "no client is left")

        asyncio.run(run())
