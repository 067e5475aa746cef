"""nearkey.asyncio.Redis: as the other one, and nothing is read while a command is under way."""

import asyncio
import threading
import unittest

import nearkey.asyncio
import redis.asyncio
from harness import SLOWNESS
from stand_in import HOLD_S, StandInTest


class AsyncTest(StandInTest):
    def setUp(self):
        super().setUp()
        self.segment.put("key", b"shared")
        self.segment.put("nil", None)
        self.server.run("MSET", "key", "socket", "nil", "socket", "other", "socket")

    def run_with_client(self, test, make=None, **options):
        """Runs `test(client)` with a client that has opened the segment."""

        async def run():
            client = (make or nearkey.asyncio.Redis)(self.stand_in.path, **options)
            try:
                await client.get("to open it")
                if client.shared_memory_info().incarnation == 0:
                    await self.until(lambda: client.shared_memory_info().incarnation != 0)
                self.stand_in.commands.clear()
                await test(client)
            finally:
                await client.connection_pool.disconnect()

        asyncio.run(run())

    async def until(self, condition):
        for _ in range(500 * SLOWNESS):
            if condition():
                return
            await asyncio.sleep(0.01)
        self.fail("no end of waiting")

    async def until_owed(self, name):
        """A command has come to the server's side, where it is held."""
        await self.until(lambda: name in self.stand_in.names())

    async def assert_reads_memory(self, client):
        self.assertEqual(b"shared", await client.get("key"))
        self.assertEqual([b"shared", None], await client.mget("key", "nil"))

    async def assert_reads_socket(self, client):
        self.assertEqual(b"socket", await client.get("key"))
        self.assertEqual([b"socket"] * 2, await client.mget("key", "nil"))


class ReadTest(AsyncTest):
    def test_hits(self):
        async def test(client):
            await self.assert_reads_memory(client)
            self.assertIsNone(await client.get("nil"))
            self.assertEqual([b"shared"], await client.mget(iter([b"key"])))
            self.assertEqual([], self.stand_in.commands)
            self.assertEqual(b"socket", await client.get("other"))
            self.assertEqual([b"socket"] * 2, await client.mget(iter(["key", "other"])))
            self.assertEqual([], await client.mget([]))

        self.run_with_client(test)

    def test_texts(self):
        async def test(client):
            self.assertEqual("shared", await client.get("key"))

        self.run_with_client(test, decode_responses=True)

    def test_the_ways_to_name_the_socket(self):
        for make in (
            lambda path: nearkey.asyncio.Redis(host=path),
            lambda path: nearkey.asyncio.Redis(unix_socket_path=path),
            lambda path: nearkey.asyncio.Redis.from_url(f"unix://{path}"),
            lambda path: nearkey.asyncio.Redis(
                connection_pool=redis.asyncio.ConnectionPool.from_url(f"unix://{path}")
            ),
        ):
            self.run_with_client(self.assert_reads_memory, make)

    def test_what_changes_a_connection(self):
        async def in_a_pipeline(client):
            async with client.pipeline(transaction=False) as pipeline:
                pipeline.select(0)
                await pipeline.execute()

        for change in (
            lambda client: client.execute_command("SELECT", 0),
            lambda client: client.client_tracking_off(),
            in_a_pipeline,
        ):
            async def test(client):
                await self.assert_reads_memory(client)
                await change(client)
                await self.assert_reads_socket(client)

            self.run_with_client(test)

    def test_clients_that_never_read_it(self):
        path = self.stand_in.path
        for why, options in (
            ("connection of its own", {"single_connection_client": True}),
            ("password", {"password": "p"}),
            ("UTF-8", {"encoding": "latin-1"}),
        ):
            client = nearkey.asyncio.Redis(path, **options)
            self.assertIn(why, client.shared_memory_info().why_off)
        self.assertIn("Unix socket", nearkey.asyncio.Redis().shared_memory_info().why_off)


class Tagging(nearkey.asyncio.Redis):
    """As examples/fastapi does, to tell nearkey of which request a command is."""

    overrides_only_add = True

    async def execute_command(self, *args, **options):
        async with self.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("NEARKEY", "TAG", "request 1")
            pipeline.execute_command(*args, **options)
            return (await pipeline.execute(raise_on_error=False))[1]


class Tenant(nearkey.asyncio.Redis):
    async def execute_command(self, name, *keys, **options):
        keys = [f"tenant:{key}" for key in keys]
        return await super().execute_command(name, *keys, **options)


class OverridesTest(AsyncTest):
    def test_a_class_that_changes_keys(self):
        async def test():
            client = Tenant(self.stand_in.path)
            self.assertIsNone(await client.get("key"))
            self.assertEqual([[b"GET", b"tenant:key"]], self.stand_in.commands)
            self.assertIn("Tenant overrides", client.shared_memory_info().why_off)
            await client.connection_pool.disconnect()

        asyncio.run(test())

    def test_what_is_replaced_on_a_client(self):
        async def test(client):
            await self.assert_reads_memory(client)
            client.parse_response = client.parse_response
            await self.assert_reads_socket(client)

        self.run_with_client(test)


class SampleTest(AsyncTest):
    sample_every = 100

    async def read_until_sampled(self, client):
        self.stand_in.commands.clear()
        while not self.stand_in.commands:
            self.assertIn(await client.get("key"), (b"shared", b"socket"))
        return self.stand_in.commands[0][:2]

    def test_samples(self):
        async def test(client):
            for _ in range(3):
                told = await self.read_until_sampled(client)
                self.assertEqual([b"NEARKEY", b"HITS"], told)
                self.assertEqual(["NEARKEY", "GET"], self.stand_in.names())

        self.run_with_client(test)

    def test_of_a_client_with_an_execute_command_of_its_own(self):
        async def test(client):
            self.assertEqual([b"NEARKEY", b"TAG"], await self.read_until_sampled(client))
            self.assertEqual(["NEARKEY", "GET"], self.stand_in.names())

        self.run_with_client(test, Tagging)

    def test_who_reads_again_and_again_lets_others_run(self):
        async def test(client):
            done = asyncio.create_task(asyncio.sleep(0))
            for _ in range(1000):
                await client.get("key")
                if done.done():
                    return
            self.fail("1,000 hits, and the other task did not run")

        self.run_with_client(test)


class NothingOwedTest(AsyncTest):
    def check_owed(self, name, begin, end):
        """What begin(client) leaves under way keeps reads on the socket; after it they are hits."""
        event = self.stand_in.hold(name)

        async def test(client):
            await self.assert_reads_memory(client)
            task = asyncio.create_task(begin(client))
            await self.until_owed(name)
            await self.assert_reads_socket(client)
            await end(task, event)
            await self.assert_reads_memory(client)

        self.run_with_client(test)

    async def finish(self, task, event):
        event.set()
        await task

    async def fail_(self, task, event):
        event.set()
        with self.assertRaises(redis.ResponseError):
            await task

    async def cancel(self, task, event):
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        event.set()

    def test_a_write(self):
        self.check_owed("SET", lambda client: client.set("x", "y"), self.finish)

    def test_a_read(self):
        self.check_owed("STRLEN", lambda client: client.strlen("x"), self.finish)

    def test_a_command_that_fails(self):
        self.check_owed("RPUSH", lambda client: client.rpush("key", "x"), self.fail_)

    def test_a_command_that_is_cancelled(self):
        self.check_owed("SET", lambda client: client.set("x", "y"), self.cancel)

    def test_two_of_them(self):
        event = self.stand_in.hold("SET")

        async def test(client):
            task = asyncio.create_task(client.set("x", "y"))
            await self.until_owed("SET")
            await client.strlen("x")
            await self.assert_reads_socket(client)
            event.set()
            await task
            await self.assert_reads_memory(client)

        self.run_with_client(test)

    def test_a_pipeline(self):
        async def begin(client):
            async with client.pipeline(transaction=False) as pipeline:
                pipeline.set("x", "y").set("z", "y")
                self.assertEqual([True, True], await pipeline.execute())

        self.check_owed("SET", begin, self.finish)

    def test_a_transaction(self):
        async def begin(client):
            async with client.pipeline() as pipeline:
                await pipeline.watch("x")
                pipeline.multi()
                pipeline.set("x", "y")
                self.assertEqual([True], await pipeline.execute())

        for name in ("WATCH", "EXEC"):
            with self.subTest(name):
                self.check_owed(name, begin, self.finish)

    def test_a_pipeline_that_is_made_without_a_client(self):
        async def test(client):
            for make in (redis.asyncio.client.Pipeline, nearkey.asyncio.Pipeline):
                pool, callbacks = client.connection_pool, client.response_callbacks
                async with make(pool, callbacks, True, None) as pipeline:
                    pipeline.set("key", "new").get("key").select(0)
                    self.assertEqual([True, b"new", True], await pipeline.execute())
                    await pipeline.watch("key")
                    self.assertEqual(b"new", await pipeline.get("key"))
            self.assertEqual(b"shared", await client.get("key"))

        self.run_with_client(test)

    def test_what_a_subclass_sends_in_a_pipeline(self):
        event = self.stand_in.hold("SET")

        async def test(client):
            await self.assert_reads_memory(client)
            task = asyncio.create_task(client.set("x", "y"))
            await self.until_owed("SET")
            await self.assert_reads_socket(client)
            event.set()
            self.assertTrue(await task)
            await self.assert_reads_memory(client)

        self.run_with_client(test, Tagging)


class RefreshTest(AsyncTest):
    def test_others_run_while_nearkey_does_not_answer(self):
        event = threading.Event()
        hand_out = self.stand_in._hand_out
        self.stand_in._hand_out = lambda client: (event.wait(HOLD_S), hand_out(client))

        async def test():
            client = nearkey.asyncio.Redis(self.stand_in.path, socket_timeout=30)
            try:
                self.assertEqual(b"socket", await client.get("key"))
                await self.until(lambda: self.stand_in.asked == 1)
                self.assertEqual(b"socket", await client.get("key"))
                event.set()
                await self.until(lambda: client.shared_memory_info().incarnation != 0)
                await self.assert_reads_memory(client)
                self.assertEqual(1, self.stand_in.asked)
            finally:
                event.set()
                await client.connection_pool.disconnect()

        asyncio.run(test())

    def test_a_loop_that_has_no_threads_any_more(self):
        async def test():
            client = nearkey.asyncio.Redis(self.stand_in.path)
            await asyncio.get_running_loop().shutdown_default_executor()
            await self.assert_reads_socket(client)
            await client.connection_pool.disconnect()

        asyncio.run(test())

    def test_once_a_second_at_most(self):
        self.stand_in.segment, segment = None, self.stand_in.segment
        self.addCleanup(segment.close)

        async def test():
            client = nearkey.asyncio.Redis(self.stand_in.path)
            for _ in range(20):
                await self.assert_reads_socket(client)
            self.assertLessEqual(self.stand_in.asked, 3)
            self.assertGreaterEqual(self.stand_in.asked, 1)
            await client.connection_pool.disconnect()

        asyncio.run(test())


if __name__ == "__main__":
    unittest.main()
