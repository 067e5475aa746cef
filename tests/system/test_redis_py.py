"""redis-py as an application uses it, unchanged: only its unix_socket_path points at nearkey."""

import os
import threading
import unittest

try:
    import redis
except ImportError:  # Debian: python3-redis
    redis = None

from harness import SharedSystemTest, proxy_only


@unittest.skipIf(redis is None, "python3-redis is not installed")
class RedisPyTest(SharedSystemTest):
    def redis(self, **options):
        connection = redis.Redis(unix_socket_path=self.address, socket_timeout=15, **options)
        self.addCleanup(connection.close)
        return connection

    def test_reads_and_writes(self):
        app = self.redis(decode_responses=True)
        self.assertTrue(app.set("name", "value", ex=100))
        self.assertEqual("value", app.get("name"))
        self.assertIsNone(app.get("absent"))
        self.assertTrue(90 < app.ttl("name") <= 100)
        self.assertEqual(2, app.hset("hash", mapping={"a": "1", "b": "zwei"}))
        self.assertEqual({"a": "1", "b": "zwei"}, app.hgetall("hash"))
        self.assertEqual(3, app.rpush("list", "x", "y", "z"))
        self.assertEqual(["x", "y", "z"], app.lrange("list", 0, -1))
        self.assertEqual(
            [("m", 1.5)],
            [app.zadd("zset", {"m": 1.5}), app.zrange("zset", 0, -1, withscores=True)][1],
        )
        self.assertEqual({"name", "hash", "list", "zset"}, set(app.scan_iter()))

    def test_binary_keys_and_a_client_name_and_another_database(self):
        app = self.redis(db=7, client_name="the-app")
        key, value = bytes(range(256)), os.urandom(1 << 20)
        self.assertTrue(app.set(key, value))
        self.assertEqual(value, app.get(key))
        self.assertEqual("the-app", app.client_getname())
        self.assertIsNone(self.redis().get(key))
        self.assertEqual(b"", self.direct.value("ECHO", ""))
        self.assertEqual(b"+OK\r\n", self.direct.command("SELECT", "7"))
        self.assertEqual(value, self.direct.value("GET", key))

    def test_pipelines_and_errors_in_them(self):
        app = self.redis()
        pipe = app.pipeline(transaction=False)
        for i in range(2000):
            pipe.set(f"p{i}", i).get(f"p{i}")
        self.assertEqual(
            [answer for i in range(2000) for answer in (True, b"%d" % i)], pipe.execute()
        )
        pipe.set("text", "x").incr("text").get("text")
        first, second, third = pipe.execute(raise_on_error=False)
        self.assertEqual((True, b"x"), (first, third))
        self.assertIsInstance(second, redis.ResponseError)

    def test_scripts(self):
        add = self.redis().register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        self.assertEqual(5, add(keys=["sum"], args=[5]))
        self.assertEqual(12, add(keys=["sum"], args=[7]))

    def test_threads_share_one_pool(self):
        app = self.redis(max_connections=8)
        failures = []

        def work(index):
            try:
                for i in range(200):
                    app.set(f"t{index}", i)
                    if app.get(f"t{index}") != b"%d" % i:
                        failures.append((index, i))
                    app.incr("all")
            except redis.RedisError as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual([], failures)
        self.assertEqual(b"1600", app.get("all"))

    @proxy_only
    def test_a_transaction_is_an_error_that_the_application_survives(self):
        app = self.redis()
        try:
            app.pipeline(transaction=True).set("a", 1).set("b", 2).execute()
        except redis.ResponseError as error:
            self.assertGreater(len(str(error)), 8)
        except redis.ConnectionError as error:
            self.fail(f"the connection was lost: {error}")
        self.assertTrue(app.set("after", 1))
        self.assertEqual(b"1", app.get("after"))


if __name__ == "__main__":
    unittest.main()
