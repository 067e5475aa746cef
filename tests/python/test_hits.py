"""nearkey.Redis: which reads the shared memory answers, and with what."""

import codecs
import copy
import gc
import inspect
import os
import threading
import unittest
import weakref
from enum import Enum

import nearkey
import redis
from stand_in import NOT_GET, StandInTest


class Name(str, Enum):
    KEY = "key"


class ClientTest(StandInTest):
    """A client that has opened the segment; its reads over the socket are told by Valkey's values,
    which differ."""

    def setUp(self):
        super().setUp()
        self.segment.put("key", b"shared")
        self.segment.put("nil", None)
        self.server.run("MSET", "key", "socket", "nil", "socket", "other", "socket")
        self.client = self.opened()

    def opened(self, **options):
        return self.open(nearkey.Redis(self.stand_in.path, **options))

    def open(self, client):
        self.addCleanup(client.connection_pool.disconnect)
        client.get("to open it")
        self.stand_in.commands.clear()
        return client

    def assert_reads_memory(self, client=None):
        self.assertIn((client or self.client).get("key"), (b"shared", "shared"))

    def assert_reads_socket(self, client=None):
        self.assertIn((client or self.client).get("key"), (b"socket", "socket"))
        self.assertIn((client or self.client).mget(["key"]), ([b"socket"], ["socket"]))


class GetTest(ClientTest):
    def test_a_hit_sends_nothing(self):
        for name in ("key", b"key"):
            self.assertEqual(b"shared", self.client.get(name))
            self.assertEqual(b"shared", self.client[name])
        self.assertIsNone(self.client.get("nil"))
        self.assertEqual([], self.stand_in.commands)

    def test_what_is_not_there_goes_over_the_socket(self):
        self.assertEqual(b"socket", self.client.get("other"))
        self.assertIsNone(self.client.get("nowhere"))
        self.assertEqual([[b"GET", b"other"], [b"GET", b"nowhere"]], self.stand_in.commands)

    def test_values_of_all_sizes(self):
        values = {f"size {n}": os.urandom(n) for n in (0, 1, 7, 8, 9, 511, 512, 4095, 4096)}
        for name, value in values.items():
            self.segment.put(name, value)
        for name, value in values.items():
            self.assertEqual(value, self.client.get(name))
        self.assertEqual(list(values.values()), self.client.mget(list(values)))
        self.assertEqual([], self.stand_in.commands)

    def test_keys_of_all_bytes(self):
        name = bytes(range(256))
        self.segment.put(name, b"shared")
        self.segment.put("\u00e4\u20ac\U0001f600\0", b"shared too")
        self.segment.put("", b"of the empty key")
        self.assertEqual(b"shared", self.client.get(name))
        self.assertEqual(b"shared too", self.client.get("\u00e4\u20ac\U0001f600\0"))
        self.assertEqual(b"of the empty key", self.client.get(""))
        self.assertEqual([], self.stand_in.commands)

    def test_keys_that_redis_py_encodes_go_over_the_socket(self):
        self.segment.put("7", b"shared")
        self.segment.put("7.5", b"shared")
        self.server.run("MSET", "7", "socket", "7.5", "socket")
        for name in (7, 7.5, memoryview(b"key"), memoryview(b"7"), Name.KEY):
            self.assertEqual(b"socket", self.client.get(name), repr(name))
            self.assertEqual([b"socket"], self.client.mget([name]), repr(name))
            self.assertEqual([b"socket"] * 2, self.client.mget(["key", name]), repr(name))

    def test_keys_that_redis_py_refuses(self):
        for name, error in (
            (None, redis.DataError), (True, redis.DataError), (["key"], redis.DataError),
            ("\ud800", UnicodeEncodeError),
        ):
            with self.assertRaises(error):
                self.client.get(name)
            if not isinstance(name, list):
                with self.assertRaises(error):
                    self.client.mget(["key", name])
        self.assert_reads_memory()

    def test_a_nil_of_mget_may_be_an_error_of_get(self):
        self.segment.put("list", None, flags=NOT_GET)
        self.server.run("RPUSH", "list", "x")
        with self.assertRaisesRegex(redis.ResponseError, "WRONGTYPE"):
            self.client.get("list")
        self.stand_in.commands.clear()
        self.assertEqual([None, b"shared"], self.client.mget("list", "key"))
        self.assertEqual([], self.stand_in.commands)

    def test_it_is_called_as_redis_pys(self):
        for client in (self.client, redis.Redis(unix_socket_path=self.stand_in.path)):
            self.assertEqual("(name)", str(inspect.signature(client.get)).replace(
                ": Union[bytes, str, memoryview]", "").partition(" ->")[0])
            self.assertIn(client.get(name="key"), (b"shared", b"socket"))
            for arguments, named in (((), {}), (("key", 1), {}), (("key",), {"name": 1}),
                                     ((), {"key": "key"}), ((), {"name": "key", "key": 1})):
                with self.assertRaises(TypeError):
                    client.get(*arguments, **named)
            client.connection_pool.disconnect()
        self.assert_reads_memory()

    def test_a_class_with_a_get_of_its_own(self):
        class Own(nearkey.Redis):
            def get(self, name):
                return ("own", super().get(name))

        client = self.open(Own(self.stand_in.path))
        self.assertEqual(("own", b"shared"), client.get("key"))
        self.assertEqual(("own", b"socket"), client.get("other"))

    def test_a_copy(self):
        client = copy.copy(self.client)
        self.assert_reads_memory(client)
        self.assertEqual(b"socket", client.get("other"))
        client.select(0)
        self.assert_reads_socket(client)
        self.assert_reads_memory()

    def test_it_is_freed(self):
        client = nearkey.Redis(self.stand_in.path)
        client.get("key")
        client.itself = client
        client, reference = None, weakref.ref(client)
        gc.collect()
        self.assertIsNone(reference())

    def test_databases(self):
        self.segment.put("key", b"shared in 2", database=2)
        url = f"unix://{self.stand_in.path}?db=2"
        by_url = self.open(nearkey.Redis.from_url(url))
        for client in (self.opened(db=2), self.opened(db="2"), by_url):
            self.assertEqual(b"shared in 2", client.get("key"))
        with self.opened(db=3) as client:
            self.assertIsNone(client.get("key"))
        # Without a SELECT it is the listener's.
        self.stand_in.database = 2
        for client in (self.opened(), self.opened(db=0)):
            self.assertEqual(b"shared in 2", client.get("key"))

    def test_the_ways_to_name_the_socket(self):
        path = self.stand_in.path
        relative = os.path.relpath(path)
        for client in (
            nearkey.Redis(path),
            nearkey.Redis(host=path),
            nearkey.Redis(unix_socket_path=path),
            nearkey.Redis(unix_socket_path=relative),
            nearkey.Redis.from_url(f"unix://{path}"),
            nearkey.Redis(connection_pool=redis.ConnectionPool.from_url(f"unix://{path}")),
            nearkey.Redis(connection_pool=redis.BlockingConnectionPool.from_url(f"unix://{path}")),
        ):
            self.assert_reads_memory(self.open(client))

    def test_a_path_of_all_characters(self):
        path = os.path.join(self.directory, "a%20?b=#\u00e4 c.sock")
        os.symlink(self.stand_in.path, path)
        self.assert_reads_memory(self.opened(unix_socket_path=path))


class MgetTest(ClientTest):
    def test_all_forms_of_its_arguments(self):
        hits = [b"shared", None]
        for arguments in (
            (["key", "nil"],), (("key", "nil"),), ("key", "nil"), (["key"], "nil"),
            ([b"key"], b"nil"), (iter(["key", "nil"]),), (dict.fromkeys(["key", "nil"]),),
        ):
            self.assertEqual(hits, self.client.mget(*arguments))
        self.assertEqual([b"shared"], self.client.mget("key"))
        self.assertEqual([b"shared"] * 3, self.client.mget(["key"] * 3))
        self.assertEqual([], self.stand_in.commands)

    def test_none_is_a_hit_unless_all_are(self):
        for names in (["key", "other"], iter(["other", "key"])):
            self.assertEqual([b"socket"] * 2, self.client.mget(names))
        self.assertEqual(["MGET"] * 2, self.stand_in.names())

    def test_how_many_at_most(self):
        self.assertEqual([b"shared"] * 256, self.client.mget(["key"] * 256))
        self.assertEqual([], self.stand_in.commands)
        self.assertEqual([b"socket"] * 257, self.client.mget(["key"] * 257))

    def test_of_nothing(self):
        self.assertEqual([], self.client.mget([]))

    def test_values_do_not_get_mixed_up(self):
        names = [f"name {n}" for n in range(200)]
        for n, name in enumerate(names):
            self.segment.put(name, b"%d" % n * (n + 1))
        self.assertEqual([b"%d" % n * (n + 1) for n in range(200)], self.client.mget(names))


class DecodingTest(ClientTest):
    def test_texts(self):
        self.segment.put("text", "\u00e4\u20ac".encode())
        client = self.opened(decode_responses=True)
        texts = [client.get(name) for name in ("key", "text", "nil")]
        self.assertEqual(["shared", "\u00e4\u20ac", None], texts)
        self.assertEqual(["shared", "\u00e4\u20ac"], client.mget("key", "text"))

    def test_what_is_no_text(self):
        """As redis-py: the same error over the socket."""
        self.segment.put("bytes", b"a\xffb")
        self.server.run("SET", "bytes", b"a\xffb")
        plain = {"unix_socket_path": self.stand_in.path, "decode_responses": True}
        reads = [lambda client: client.get("bytes"), lambda client: client.mget("bytes")]
        for errors in ("strict", "replace", "ignore", "surrogateescape", "backslashreplace"):
            client = self.opened(decode_responses=True, encoding_errors=errors)
            with redis.Redis(encoding_errors=errors, **plain) as other:
                for read in reads:
                    try:
                        expected = read(other)
                    except UnicodeDecodeError:
                        with self.assertRaises(UnicodeDecodeError):
                            read(client)
                    else:
                        self.assertEqual(expected, read(client))
        self.assert_reads_memory(client)

    def test_code_of_the_applications_that_ends_it_meanwhile(self):
        def leave(error):
            client.select(0)
            gc.collect()
            return ("left", error.end)

        codecs.register_error("nearkey-leave", leave)
        self.segment.put("bytes", b"a\xffb")
        client = self.opened(decode_responses=True, encoding_errors="nearkey-leave")
        self.assertEqual("aleftb", client.get("bytes"))
        self.assert_reads_socket(client)

    def test_a_key_that_another_mode_would_encode(self):
        self.server.run("SET", b"\xff", "socket")
        client = self.opened(encoding_errors="surrogateescape")
        self.assertEqual(b"socket", client.get("\udcff"))

    def test_other_encodings_go_over_the_socket(self):
        self.assert_reads_memory(self.opened(encoding="UTF8"))
        self.assert_reads_memory(self.opened(encoding="utf_8"))
        for encoding in ("latin-1", "utf-16"):
            with nearkey.Redis(self.stand_in.path, encoding=encoding) as client:
                self.assertIn("UTF-8", client.shared_memory_info().why_off)
        self.assert_reads_socket(self.opened(encoding="latin-1"))


class SharingTest(ClientTest):
    def test_threads(self):
        names = [f"name {n}" for n in range(64)]
        for name in names:
            self.segment.put(name, name.encode() * 20)
        wrong = []

        def read():
            for _ in range(20):
                values = self.client.mget(names) + [self.client.get(name) for name in names]
                if values != [name.encode() * 20 for name in names] * 2:
                    wrong.append(values)

        # A sample is a read over the socket.
        self.server.run("MSET", *[word for name in names for word in (name, name * 20)])
        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], wrong)
        info = self.client.shared_memory_info()
        self.assertGreater(info.hits, 8 * 20 * 64)

    def test_a_child_reads_on(self):
        self.assert_reads_memory()
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if self.client.get("key") == b"shared" else 1)
            finally:
                os._exit(2)
        self.assertEqual(0, os.waitpid(child, 0)[1])
        self.assert_reads_memory()

    def test_many_clients_come_and_go(self):
        def mappings():
            with open("/proc/self/maps") as maps:
                return maps.read().count("segment-by-hand")

        before = mappings()
        for _ in range(50):
            client = nearkey.Redis(self.stand_in.path)
            client.get("key")
            self.assert_reads_memory(client)
            client.close()
            del client
        self.assertEqual(before, mappings())


if __name__ == "__main__":
    unittest.main()
