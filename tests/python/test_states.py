"""nearkey.Redis: what keeps a client from the shared memory, for good or for a while.

The rule of all of it: a hit is what the same read over the client's own socket would be answered
with, after all of the client's own commands.
"""

import json
import os
import subprocess
import sys
import unittest

import nearkey
import redis
from harness import wait_for
from nearkey import _shared
from redis.backoff import NoBackoff
from redis.connection import UnixDomainSocketConnection
from redis.retry import Retry
from test_hits import ClientTest


class OwnConnection(UnixDomainSocketConnection):
    pass


class OwnParser(redis.connection.PythonParser if hasattr(redis.connection, "PythonParser")
                else redis.connection.DefaultParser):
    pass


# Commands of an application's that leave a connection in another state, and those that do not.
STATES = [
    ("SELECT", 1), ("select", "1"), (b"SELECT", b"0"), ("AUTH", "password"), ("HELLO", 3),
    ("HELLO",), ("RESET",), ("MULTI",), ("WATCH", "key"), ("MONITOR",), ("SUBSCRIBE", "channel"),
    ("PSUBSCRIBE", "*"), ("SSUBSCRIBE", "channel"), ("SYNC",), ("PSYNC", "?", "-1"),
    ("CLIENT", "TRACKING", "ON"), ("CLIENT TRACKING", "ON"), ("client", b"reply", "OFF"),
    ("CLIENT REPLY", "SKIP"), ("CLIENT", "CACHING", "YES"), ("CLIENT TRACKING ON",),
    ("NEARKEY", "CACHE", "OFF"), ("NEARKEY CACHE", "OFF"), ("nearkey", memoryview(b"cache"), "off"),
    ("CLIENT",), (memoryview(b"SELECT"), 1), ("CLIENT", "INFO"), ("CLIENT ID",), ("READONLY",),
    ("client no-touch", "on"), ("SCRIPT", b"debug", "NO"), ("UNSUBSCRIBE",),
]
NO_STATES = [
    ("GET", "SELECT"), ("SET", "key", "AUTH"), ("CLIENT", "SETNAME", "x"),
    ("CLIENT SETNAME", "reply"), ("CLIENT", "LIST"), ("SCRIPT", "LOAD", "debug"), ("NEARKEY", "TAG", "CACHE"),
    ("NEARKEY", "HITS", 7), ("PING",), ("ECHO", "RESET"), ("UNWATCH",), ("CONFIG", "RESETSTAT"), ("PUBLISH", "a", "b"), (b"set", b"\xff", b"\xff"),
]


class OffForGoodTest(ClientTest):
    def test_what_changes_a_connection(self):
        for command in STATES:
            self.assertTrue(_shared.changes_state(command, _shared.STATE_OF_CLIENT), command)
        for command in NO_STATES:
            self.assertFalse(_shared.changes_state(command, _shared.STATE_OF_CLIENT), command)

    def test_commands(self):
        for command in (("SELECT", 0), ("CLIENT", "TRACKING", "OFF"), ("NEARKEY", "CACHE", "OFF"),
                        ("UNKNOWN",)):
            client = self.opened()
            self.assert_reads_memory(client)
            try:
                client.execute_command(*command)
            except redis.ResponseError:
                pass
            if command[0] == "UNKNOWN":
                self.assert_reads_memory(client)
            else:
                self.assert_reads_socket(client)
                self.assertIn("connection's state", client.shared_memory_info().why_off)

    def test_methods_of_redis_py(self):
        for method, arguments in (
            ("select", (0,)), ("auth", ("password",)), ("client_reply", ("ON",)),
            ("client_tracking_off", ()), ("hello", ()), ("reset", ()),
        ):
            client = self.opened()
            if not hasattr(client, method):
                continue
            self.assert_reads_memory(client)
            try:
                getattr(client, method)(*arguments)
            except NotImplementedError:
                continue
            except redis.RedisError:
                pass
            self.assert_reads_socket(client)

    def test_commands_in_a_pipeline(self):
        """Its connection goes back to the pool, and is the client's next one."""
        for command in (("SELECT", 0), ("CLIENT", "REPLY", "ON"), ("NEARKEY", "CACHE", "OFF")):
            client = self.opened()
            self.assert_reads_memory(client)
            with client.pipeline(transaction=False) as pipeline:
                pipeline.execute_command(*command)
                pipeline.execute(raise_on_error=False)
            self.assert_reads_socket(client)

    def test_it_stays_so(self):
        self.client.select(0)
        self.segment.set_over()
        self.stand_in.make_segment().put("key", b"shared")
        for _ in range(3):
            self.assert_reads_socket()

    def test_clients_that_never_read_it(self):
        path = self.stand_in.path
        pool = redis.ConnectionPool(connection_class=OwnConnection, path=path)
        with_parser = redis.ConnectionPool(
            connection_class=UnixDomainSocketConnection, path=path, parser_class=OwnParser
        )
        for why, client in (
            ("password", nearkey.Redis(path, password="p")),
            ("user", nearkey.Redis(path, username="u", password="p")),
            ("prepares", nearkey.Redis(path, redis_connect_func=lambda connection: None)),
            ("connection of its own", nearkey.Redis(path, single_connection_client=True)),
            ("connection of its own", nearkey.Redis(path).client()),
            ("UTF-8", nearkey.Redis(path, encoding="latin-1")),
            ("database", nearkey.Redis(path, db=65536)),
            ("Unix socket", nearkey.Redis()),
            ("Unix socket", nearkey.Redis("localhost", 1)),
            ("Unix socket", nearkey.Redis(connection_pool=pool)),
            ("parser", nearkey.Redis(connection_pool=with_parser)),
            ("path", nearkey.Redis(unix_socket_path="\0abstract")),
        ):
            self.assertIn(why, client.shared_memory_info().why_off)
            client.connection_pool.disconnect()
        self.assertEqual(1, self.stand_in.asked)  # by ClientTest's own

    def test_callbacks_see_every_reply(self):
        for command in ("GET", "MGET", "get", "mget"):
            client = self.opened()
            client.set_response_callback(command, lambda reply, **_: ("seen", reply))
            reads = {"GET": lambda: client.get("key"), "MGET": lambda: client.mget("key")}
            self.assertEqual("seen", reads.pop(command.upper())()[0])
            (other,) = reads.values()
            self.assertIn(other(), (b"shared", [b"shared"]))
            del client.response_callbacks[command]
            self.assert_reads_memory(client)


class Prefixing:
    """Before either client in a class: all keys of one tenant."""

    def execute_command(self, name, *keys, **options):
        return super().execute_command(name, *(f"tenant:{key}" for key in keys), **options)


class Decoding(nearkey.Redis):
    def parse_response(self, connection, command_name, **options):
        return ("decoded", super().parse_response(connection, command_name, **options))


class Tenant(Prefixing, nearkey.Redis):
    pass


class Behind(Prefixing, redis.Redis):
    pass


class TenantBehind(nearkey.Redis, Behind):
    """Its super().execute_command() is the prefixing one's."""


class Counting(nearkey.Redis):
    overrides_only_add = True
    count = 0

    def execute_command(self, *args, **options):
        self.count += 1
        return super().execute_command(*args, **options)


class CountingTenant(Prefixing, Counting):
    """Its parent said so of itself alone."""


class OwnPool(redis.ConnectionPool):
    def get_connection(self, *args, **options):
        return super().get_connection(*args, **options)


class OverridesTest(ClientTest):
    """What an application changes in a class of its own, a hit would not have."""

    def test_classes_that_change_keys_or_replies(self):
        for make, by in (
            (Tenant, "Prefixing"), (Decoding, "Decoding"), (TenantBehind, "Prefixing"),
            (CountingTenant, "Prefixing"), (type("Derived", (Tenant,), {}), "Prefixing"),
        ):
            client = self.open(make(self.stand_in.path))
            with self.subTest(make.__name__):
                self.assertNotEqual(b"shared", client.get("key"))
                self.assertNotEqual([b"shared"], client.mget(["key"]))
                self.assertIn(f"{by} overrides", client.shared_memory_info().why_off)
        pool = OwnPool(connection_class=UnixDomainSocketConnection, path=self.stand_in.path)
        client = self.open(nearkey.Redis(connection_pool=pool))
        self.assert_reads_socket(client)
        self.assertIn("OwnPool overrides", client.shared_memory_info().why_off)

    def test_classes_that_only_add(self):
        for make in (Counting, type("Derived", (Counting,), {"more": lambda self: None})):
            client = self.open(make(self.stand_in.path))
            self.assert_reads_memory(client)
            client.get("other")
            self.assertEqual(2, client.count)

    def test_what_is_replaced_on_a_client(self):
        for name in ("execute_command", "parse_response"):
            client = self.opened()
            method = getattr(client, name)
            setattr(client, name, lambda *args, method=method, **options: method(*args, **options))
            self.assert_reads_socket(client)
            self.assertIn(name, client.shared_memory_info().why_off)
        client = self.opened()
        client.response_callbacks = {**client.response_callbacks, "GET": lambda reply: "seen"}
        self.assertEqual("seen", client.get("key"))
        client = self.opened()
        client.connection_pool = redis.ConnectionPool.from_url(f"unix://{self.server.path}")
        self.addCleanup(client.connection_pool.disconnect)
        self.assert_reads_socket(client)

    def test_what_is_replaced_on_a_client_that_only_adds(self):
        client = self.opened()
        client.overrides_only_add = True
        client.execute_command = client.execute_command
        self.assert_reads_memory(client)


class ChangedSettingsTest(ClientTest):
    sample_every = 100

    def test_settings_of_the_pool(self):
        """The next sample notices them."""
        for name, value in (
            ("connection_class", OwnConnection), ("db", 2), ("password", "p"), ("encoding", "ascii"),
        ):
            client = self.opened()
            self.assert_reads_memory(client)
            pool = client.connection_pool
            if name == "connection_class":
                pool.connection_class = value
            else:
                pool.connection_kwargs[name] = value
            wait_for(lambda: client.get("key") == b"socket", 10, "a sample")
            self.assert_reads_socket(client)
            self.assertIn("settings", client.shared_memory_info().why_off)


class NothingOwedTest(ClientTest):
    """Pipelines and transactions are redis-py's own: their reads keep their place."""

    def test_pipelines_read_over_the_socket(self):
        for transaction in (True, False):
            with self.client.pipeline(transaction=transaction) as pipeline:
                pipeline.get("key").set("key", "new").get("key").mget("key", "nil")
                self.assertEqual(
                    [b"socket", True, b"new", [b"new", b"socket"]], pipeline.execute()
                )
                self.server.run("SET", "key", "socket")
        self.assert_reads_memory()

    def test_a_pipeline_that_is_made_without_a_client(self):
        pool, callbacks = self.client.connection_pool, self.client.response_callbacks
        for make in (redis.client.Pipeline, nearkey.Pipeline):
            with self.assertRaises(TypeError):
                make(pool)
            with make(pool, callbacks, True, None) as pipeline:
                pipeline.set("key", "new").get("key").select(0)
                self.assertEqual([True, b"new", True], pipeline.execute())
                pipeline.watch("key")
                self.assertEqual(b"new", pipeline.get("key"))
        self.assert_reads_memory()

    def test_watch_reads_over_the_socket(self):
        with self.client.pipeline() as pipeline:
            pipeline.watch("key")
            self.assertEqual(b"socket", pipeline.get("key"))
            self.assertEqual([b"socket"], pipeline.mget("key"))
            pipeline.multi()
            pipeline.set("key", "mine").get("key")
            self.server.run("SET", "key", "another's")
            with self.assertRaises(redis.WatchError):
                pipeline.execute()
        self.assert_reads_memory()

    def test_transaction(self):
        def double(pipeline):
            value = pipeline.get("number")
            pipeline.multi()
            pipeline.set("number", int(value) * 2)

        self.segment.put("number", b"1000")
        self.server.run("SET", "number", "4")
        self.client.transaction(double, "number")
        self.assertEqual(b"8", self.server.run("GET", "number"))
        self.assert_reads_memory()

    def test_pubsub_has_connections_of_its_own(self):
        pubsub = self.client.pubsub()
        self.addCleanup(pubsub.close)
        pubsub.subscribe("channel")
        self.assertEqual("subscribe", pubsub.get_message(timeout=10)["type"])
        self.assert_reads_memory()


class SampleTest(ClientTest):
    sample_every = 100

    def read_until_sampled(self, read):
        """How many hits there were before the one that went over the socket."""
        before = self.client.shared_memory_info().hits
        self.stand_in.commands.clear()
        for _ in range(1000):
            read()
            if self.stand_in.commands:
                return self.client.shared_memory_info().hits - before
        self.fail("no hit of 1,000 was a sample")

    def assert_both_answer(self, read):
        values = set()
        for _ in range(1000):
            values.add(read())
            if len(values) == 2:
                return
        self.fail(f"{values} of 1,000 hits")

    def test_get(self):
        for _ in range(64):
            hits = self.read_until_sampled(lambda: self.client.get("key"))
            self.assertEqual(["NEARKEY", "GET"], self.stand_in.names())
            told = self.stand_in.commands[0][1:]
            self.assertEqual([b"HITS", b"%d" % max(1, hits)], told)
        info = self.client.shared_memory_info()
        self.assertEqual(64, info.samples)
        # Seven standard deviations of 64 intervals of 1 to 199.
        self.assertTrue(64 * 50 < info.hits < 64 * 150, info)

    def test_a_child_tells_of_its_own(self):
        """Of many hits, not of what its parent had."""
        for _ in range(2000):
            self.client.get("key")
        self.stand_in.commands.clear()
        child = os.fork()
        if child == 0:
            try:
                self.client.connection_pool.reset()
                for _ in range(400):
                    self.client.get("key")
            finally:
                os._exit(0)
        self.assertEqual(0, os.waitpid(child, 0)[1])
        told = [int(command[2]) for command in self.stand_in.commands if command[0] == b"NEARKEY"]
        self.assertTrue(told)
        self.assertLess(sum(told), 400)

    def test_mget(self):
        self.read_until_sampled(lambda: self.client.mget("key", "nil"))
        self.assertEqual(["NEARKEY", "MGET"], self.stand_in.names())
        self.assertEqual([b"key", b"nil"], self.stand_in.commands[1][1:])

    def test_the_value_is_the_sockets(self):
        self.assert_both_answer(lambda: self.client.get("key"))

    def test_a_server_that_does_not_know_the_command(self):
        self.stand_in.knows_hits = False
        self.assert_both_answer(lambda: self.client.get("key"))

    def test_a_connection_that_is_lost(self):
        """As with any command of redis-py's: it says so, and the next one has another connection."""
        for name in ("NEARKEY", "GET"):
            self.stand_in.lost.add(name)
            with self.assertRaises(redis.ConnectionError):
                self.read_until_sampled(lambda: self.client.get("key"))
            self.assertEqual(b"socket", self.client.get("other"))
            self.read_until_sampled(lambda: self.client.get("key"))
            self.assertEqual(["NEARKEY", "GET"], self.stand_in.names())

    def test_one_that_redis_py_tries_again(self):
        pool = redis.ConnectionPool(
            connection_class=UnixDomainSocketConnection, path=self.stand_in.path,
            retry=Retry(NoBackoff(), 1), retry_on_error=[redis.ConnectionError],
        )
        self.client = self.open(nearkey.Redis(connection_pool=pool))
        self.stand_in.lost.add("GET")
        self.read_until_sampled(lambda: self.client.get("key"))
        self.assertEqual(["NEARKEY", "GET"] * 2, self.stand_in.names())

    def test_an_error_is_the_reads(self):
        self.server.run("DEL", "key")
        self.server.run("RPUSH", "key", "x")
        with self.assertRaisesRegex(redis.ResponseError, "^WRONGTYPE"):
            self.read_until_sampled(lambda: self.client.get("key"))

    def test_texts(self):
        client = self.opened(decode_responses=True)
        self.assert_both_answer(lambda: client.get("key"))

    def test_an_execute_command_of_the_applications_sees_it(self):
        class Traced(nearkey.Redis):
            overrides_only_add = True
            seen = []

            def execute_command(self, *args, **options):
                self.seen.append(args)
                return super().execute_command(*args, **options)

        client = self.open(Traced(self.stand_in.path))
        client.seen.clear()
        self.read_until_sampled(lambda: client.get("key"))
        self.assertEqual([("GET", "key")], client.seen)
        self.assertEqual(["NEARKEY", "GET"], self.stand_in.names())


class OffForAWhileTest(ClientTest):
    def test_no_segment(self):
        self.stand_in.segment, segment = None, self.stand_in.segment
        self.addCleanup(segment.close)
        client = self.opened()
        asked = self.stand_in.asked
        for _ in range(20):
            self.assert_reads_socket(client)
        self.assertLessEqual(self.stand_in.asked - asked, 3, "once a second at most")
        self.assertIn("listener.shared_memory", client.shared_memory_info().why_off)

    def test_suspended_and_back(self):
        self.segment.set_epoch(0)
        self.assert_reads_socket()
        self.assertIsNotNone(self.client.shared_memory_info().why_off)
        self.segment.set_epoch(1)
        self.assert_reads_memory()

    def test_a_source_that_is_closed(self):
        self.segment.set_proven(0)
        self.assert_reads_socket()

    def test_over_and_a_new_one(self):
        self.segment.set_over()
        self.assert_reads_socket()
        self.addCleanup(self.segment.close)
        self.stand_in.make_segment().put("key", b"shared anew")
        wait_for(lambda: self.client.get("key") == b"shared anew", 10, "it reads the new segment")

    def test_nobody_listens(self):
        client = nearkey.Redis(os.path.join(self.directory, "nobody.sock"))
        with self.assertRaises(redis.ConnectionError):
            client.get("key")
        self.assertIsNotNone(client.shared_memory_info().why_off)

    def test_a_path_that_is_none(self):
        client = nearkey.Redis("/" + "x" * 200)
        for _ in range(2):
            with self.assertRaises((redis.ConnectionError, OSError)):
                client.get("key")
        self.assertIn("can't be opened", client.shared_memory_info().why_off)

    def test_valkey_itself(self):
        with nearkey.Redis(self.server.path) as client:
            self.assert_reads_socket(client)
            self.assertIn("no nearkey", client.shared_memory_info().why_off)


class WithoutExtensionTest(ClientTest):
    PROGRAM = """
import json, sys
sys.modules["nearkey._segment"] = None
import asyncio, nearkey, nearkey.asyncio

async def read(path):
    client = nearkey.asyncio.Redis(path)
    value = await client.get("key")
    await client.connection_pool.disconnect()
    return value.decode()

path = sys.argv[1]
client = nearkey.Redis(path)
print(json.dumps([client.get("key").decode(), client.mget("key")[0].decode(),
                  asyncio.run(read(path)), client.shared_memory_info().why_off]))
"""

    def test_it_is_redis_py(self):
        output = subprocess.run(
            [sys.executable, "-c", self.PROGRAM, self.stand_in.path],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        *values, why = json.loads(output)
        self.assertEqual(["socket"] * 3, values)
        self.assertIn("can't be loaded", why)


if __name__ == "__main__":
    unittest.main()
