"""nearkey.Redis and nearkey.asyncio.Redis with a real nearkey before a real Valkey."""

import asyncio
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import unittest
import unittest.mock
from pathlib import Path

import nearkey
import nearkey.asyncio
import redis
from harness import ROOT, show_figure, wait_for
from nearkey import _shared
from sharing import SharingTest

# Counts upwards in a process of its own, and says each number when its SET was answered.
WRITER = """
import sys, redis
client = redis.Redis(unix_socket_path=sys.argv[1])
for number in range(int(sys.argv[2])):
    client.set("counter", number)
    print(number, flush=True)
"""

# Hits between two marks, none of which is a sample.
TRACED = """
import os, sys, nearkey
from nearkey import _shared

_shared.SAMPLE_EVERY = 0xFFFFFFFF
client = nearkey.Redis(sys.argv[1])
client.set("key", "value")
while client.shared_memory_info().hits < 10:
    client.get("key")
os.access("a mark", os.R_OK)
for _ in range(100000):
    client.get("key")
os.access("a mark", os.R_OK)
assert client.shared_memory_info().hits == 100010
"""


class WithNearkeyTest(SharingTest):
    def setUp(self):
        self.server.run("FLUSHALL")
        if not self.nearkey.is_running():
            self.start_nearkey()

    def open(self, **options):
        client = nearkey.Redis(self.path, socket_timeout=15, **options)
        self.addCleanup(client.connection_pool.disconnect)
        client.get("to open it")
        self.assertIsNone(client.shared_memory_info().why_off)
        return client

    def hits_of(self, client, read):
        before = client.shared_memory_info().hits
        read()
        return client.shared_memory_info().hits - before

    def assert_hits(self, client, name="key"):
        """The first read over the socket brings it into the memory."""
        wait_for(lambda: self.hits_of(client, lambda: client.get(name)) == 1, 5, "a hit")


class PromisesTest(WithNearkeyTest):
    def test_each_command_of_the_server_that_begins_a_tunnel_ends_the_reading(self):
        """In a tunnel nearkey waits for no news before it passes on what a script has written."""
        rows = self.server.run("COMMAND")
        rows += [row for container in list(rows) if len(container) > 9 for row in container[9]]
        tunnels = set()
        with redis.Redis(unix_socket_path=self.path) as client:
            for name, arity, *_ in rows:
                for argument in ("1", "x"):
                    words = name.decode().split("|")
                    words += [argument] * max(0, abs(arity) - len(words))
                    told = client.execute_command("NEARKEY", "EXPLAIN", *words)
                    route = dict(zip(told[::2], told[1::2]))[b"route"]
                    if route != b"tunnel":
                        continue
                    tunnels.add(name.decode())
                    self.assertTrue(_shared.changes_state(words, _shared.STATE_OF_CLIENT), words)
        self.assertLess({"client|id", "client|no-touch", "subscribe", "monitor"}, tunnels)

    def test_own_writes_are_read(self):
        client = self.open(decode_responses=True)
        for number in range(2000):
            self.assertTrue(client.set("key", number))
            for _ in range(3):
                self.assertEqual(str(number), client.get("key"))
                self.assertEqual([str(number), None], client.mget("key", "nil"))
        # Not more: nearkey does not keep what is written all the time.
        self.assertGreater(client.shared_memory_info().hits, 50)

    def test_each_kind_of_write_is_read(self):
        client, other = self.open(), self.open()
        for write, expected in (
            (lambda: client.set("key", "1"), b"1"),
            (lambda: client.incr("key"), b"2"),
            (lambda: client.append("key", "3"), b"23"),
            (lambda: client.setrange("key", 1, "45"), b"245"),
            (lambda: client.getdel("key"), None),
            (lambda: client.mset({"key": "6"}), b"6"),
            (lambda: client.rename("key", "elsewhere"), None),
            (lambda: client.copy("elsewhere", "key"), b"6"),
            (lambda: client.eval("redis.call('set', KEYS[1], '7')", 1, "key"), b"7"),
            (lambda: client.pipeline().set("key", "8").execute(), b"8"),
            (lambda: client.delete("key"), None),
            (lambda: client.setnx("key", "9"), b"9"),
            (lambda: client.flushdb(), None),
        ):
            for reader in (client, other):
                reader.get("key")
                self.assert_hits(reader)
            write()
            for reader in (client, other):
                for _ in range(3):
                    self.assertEqual(expected, reader.get("key"))
                    self.assertEqual([expected], reader.mget(["key"]))

    def test_a_write_of_another_process_is_read_when_it_is_known(self):
        client = self.open()
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, self.path, "3000"], stdout=subprocess.PIPE, text=True
        )
        hits = self.hits_of(client, lambda: self.read_along(client, writer))
        self.assertEqual(0, writer.wait(10))
        self.assertGreater(hits, 0)

    def read_along(self, client, writer):
        shown = 0
        with writer.stdout as lines:
            for line in lines:
                for _ in range(3):
                    value = int(client.get("counter"))
                    self.assertGreaterEqual(value, int(line), "older than what was answered")
                    self.assertGreaterEqual(value, shown, "back in time")
                    shown = value

    def test_a_key_expires(self):
        client = self.open()
        client.set("key", "1", px=300)
        client.get("key")
        self.assert_hits(client)
        wait_for(lambda: self.server.run("EXISTS", "key") == 0, 5, "it has expired")
        self.assertIsNone(client.get("key"))

    def test_values_that_are_no_strings(self):
        client = self.open()
        client.rpush("list", "x")
        for _ in range(3):
            self.assertEqual([None], client.mget("list"))
            with self.assertRaisesRegex(redis.ResponseError, "WRONGTYPE"):
                client.get("list")

    def test_a_lock(self):
        """Its token is read with GET by is_owned(), its release with a script."""
        first, second = self.open(), self.open()
        for _ in range(50):
            lock = first.lock("lock", timeout=30)
            self.assertTrue(lock.acquire(blocking=False))
            self.assertTrue(lock.owned() and lock.locked())
            other = second.lock("lock")
            self.assertFalse(other.acquire(blocking=False))
            self.assertTrue(other.locked() and not other.owned())
            lock.release()
            self.assertFalse(other.locked() or lock.locked())

    def test_databases(self):
        one, two = self.open(), self.open(db=2)
        one.set("key", "one")
        two.set("key", "two")
        for _ in range(3):
            self.assertEqual((b"one", b"two"), (one.get("key"), two.get("key")))
        two.swapdb(0, 2)
        for _ in range(3):
            self.assertEqual((b"two", b"one"), (one.get("key"), two.get("key")))

    def test_tasks(self):
        async def count(client, name):
            for number in range(300):
                await client.set(name, number)
                for _ in range(3):
                    self.assertEqual(str(number), await client.get(name))

        async def run():
            client = nearkey.asyncio.Redis(self.path, decode_responses=True)
            for _ in range(500):
                await client.get("to open it")
                if client.shared_memory_info().incarnation:
                    break
                await asyncio.sleep(0.01)
            await count(client, "alone")
            alone = client.shared_memory_info().hits
            await asyncio.gather(*[count(client, f"name {n}") for n in range(8)])
            await client.connection_pool.disconnect()
            return alone

        self.assertGreater(asyncio.run(run()), 50)


class EndsTest(WithNearkeyTest):
    def test_nearkey_is_killed_and_back(self):
        """What the dead one knew is not served any more, though its successor is there at once."""
        client = self.open()
        for number in range(5):
            client.set("key", number)
            client.get("key")
            self.assert_hits(client)
            self.nearkey.kill()
            self.server.run("SET", "key", "changed meanwhile")
            with self.assertRaises(redis.ConnectionError):
                client.get("key")
            self.start_nearkey()
            self.assertEqual(b"changed meanwhile", client.get("key"))
            self.assert_hits(client)

    def test_it_is_switched_off_and_on(self):
        client = self.open()
        client.set("key", "1")
        client.get("key")
        self.assert_hits(client)
        self.addCleanup(self.write_config, "shared_memory = true")
        for options, why in (("", "listener.shared_memory"), ("shared_memory = true", None)):
            self.write_config(options)
            self.nearkey.signal(signal.SIGHUP)

            def is_there():
                self.assertEqual(b"1", client.get("key"))
                off = client.shared_memory_info().why_off
                return off is None if why is None else why in (off or "")

            wait_for(is_there, 10, f"shared memory: {options}")

    def test_monitor(self):
        """Who watches sees every read."""
        client = self.open()
        client.set("key", "1")
        client.get("key")
        self.assert_hits(client)
        with redis.Redis(unix_socket_path=self.path).monitor():
            wait_for(lambda: client.shared_memory_info().why_off, 5, "reads go over the socket")
            self.assertEqual(0, self.hits_of(client, lambda: client.get("key")))
        self.assert_hits(client)


class FeedbackTest(WithNearkeyTest):
    def test_nearkey_is_told_of_hits(self):
        """All hits up to the last sample; the rest is told with the next one."""
        with unittest.mock.patch.object(_shared, "SAMPLE_EVERY", 50):
            client = self.open()
            client.set("key", "1")
            before = self.nearkey.metric("nearkey_shared_hits_total")
            for _ in range(5000):
                client.get("key")
            info = client.shared_memory_info()
        self.assertGreater(info.samples, 50)
        told = self.nearkey.metric("nearkey_shared_hits_total") - before
        self.assertTrue(info.hits - 100 <= told <= info.hits, f"{told} of {info}")


class ReadmeTest(WithNearkeyTest):
    def test_its_example(self):
        text = (Path(ROOT) / "README.md").read_text()
        (program,) = re.findall(r"```python\n(import nearkey\n.*?)```", text, re.S)
        program = program.replace("/run/nearkey/nearkey.sock", self.path)
        # One read in 1,024 would not be a hit.
        program = "from nearkey import _shared\n_shared.SAMPLE_EVERY = 0xFFFFFFFF\n" + program
        program += "print(r.shared_memory_info().hits)\n"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        self.assertEqual("b'Ada'\n1\n", done.stdout, done.stderr)


class FiguresTest(WithNearkeyTest):
    """Processor time a call: medians, and what the runs differed by. No bar: others may use this
    machine; scripts/bench has the bars."""

    def show(self, what, call, count):
        def ns_per_call():
            begin = time.process_time_ns()
            for _ in range(count):
                call()
            return (time.process_time_ns() - begin) / count

        runs = sorted(ns_per_call() for _ in range(7))
        show_figure(f"{what}: {statistics.median(runs):.0f} ns ({runs[0]:.0f}-{runs[-1]:.0f})")

    def test_figures(self):
        client = self.open()
        names = [f"name {n}" for n in range(16)]
        client.mset(dict.fromkeys(names, "x" * 100))
        for name in names:
            client.get(name)
            self.assert_hits(client, name)
        plain = redis.Redis(unix_socket_path=self.path)
        texts = self.open(decode_responses=True)
        self.show("Redis.get, a hit of 100 bytes", lambda: client.get("name 1"), 100000)
        self.show("the same as text", lambda: texts.get("name 1"), 100000)
        self.show("Segment.get, the extension alone", lambda: client._segment.get("name 1"), 100000)
        self.show("Redis.mget of 16", lambda: client.mget(names), 10000)
        self.show("redis-py's get over the socket", lambda: plain.get("name 1"), 2000)
        self.show("redis-py's mget of 16", lambda: plain.mget(names), 1000)

    def test_no_system_call(self):
        if shutil.which("strace") is None:
            self.skipTest("strace is not installed")
        trace = os.path.join(self.directory, "trace")
        subprocess.run(
            ["strace", "-f", "-o", trace, sys.executable, "-c", TRACED, self.path],
            check=True, timeout=120,
        )
        with open(trace) as lines:
            calls = [line for line in lines if re.search(r"^\d+ +\w+\(", line)]
        (begin, end) = [n for n, line in enumerate(calls) if "a mark" in line]
        self.assertEqual([], calls[begin + 1 : end])


if __name__ == "__main__":
    unittest.main()
