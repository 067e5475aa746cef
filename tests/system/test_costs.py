"""What a request may cost: allocations, system calls, and wake-ups while there is none.

Counted, not timed: so that it holds on a loaded machine as on a quiet one."""

import os
import re
import shutil
import struct
import subprocess
import time
import unittest

from harness import BINARY, SLOW, Nearkey, SystemTest, proxy_only, wait_for
from resp import encode

COUNTER = os.path.join(os.path.dirname(BINARY), "libnearkey_malloc_count.so")
VALUE = "v" * 100
# name, the commands of one round. All are answered with one reply each.
KINDS = [
    ("GET", [("GET", "k")]),
    ("SET", [("SET", "w", VALUE)]),
    ("INCR", [("INCR", "n")]),
    ("MGET of four", [("MGET", "k", "a", "b", "c")]),
    ("HGET", [("HGET", "h", "f")]),
    ("EVAL", [("EVAL", "return 1", "0")]),
    ("MULTI, GET, EXEC", [("MULTI",), ("GET", "k"), ("EXEC",)]),
    ("PING", [("PING",)]),
]
CLIENTS = 8
ROUNDS = 60
# Heartbeats and timers go on meanwhile: a few a second, however long the rounds take.
PER_REQUEST_MAX = 0.05


def settings(is_cached):
    return {"near_cache.enabled": "true" if is_cached else "false", "server.commands": "+@all"}


def wait_hit(nearkey, client):
    """Nothing is served before the first heartbeat was answered."""
    wait_for(
        lambda: client.command("GET", "k") and nearkey.metric("nearkey_near_cache_hits_total"),
        10,
        "the first hit",
    )


@proxy_only
class AllocationTest(SystemTest):
    def setUp(self):
        super().setUp()
        if SLOW or not os.path.exists(COUNTER):
            self.skipTest("a sanitizer's malloc is not counted")
        self.server = self.start_server()
        with self.server.client() as client:
            client.command("SET", "k", VALUE)
            client.command("HSET", "h", "f", VALUE)

    def start_counted(self, is_cached):
        self.count_path = os.path.join(self.directory, "count")
        with open(self.count_path, "wb") as file:
            file.write(bytes(8))
        environment = {"LD_PRELOAD": COUNTER, "NEARKEY_MALLOC_COUNT": self.count_path}
        return self.start_nearkey(
            self.server.url, settings=settings(is_cached), environment=environment
        )

    def allocations(self):
        with open(self.count_path, "rb") as file:
            return struct.unpack("=Q", file.read())[0]

    def check_steady_state(self, is_cached):
        nearkey = self.start_counted(is_cached)
        self.assertGreater(self.allocations(), 1000, "they are counted")
        clients = [nearkey.client() for _ in range(CLIENTS)]
        for client in clients:
            self.addCleanup(client.close)
        if is_cached:
            wait_hit(nearkey, clients[0])
        for name, commands in KINDS:
            for pipeline in (1, 16):
                with self.subTest(name, pipeline=pipeline, near_cache=is_cached):

                    def run(rounds):
                        for _ in range(rounds):
                            for client in clients:
                                client.pipeline(commands * pipeline)

                    run(ROUNDS // 2)
                    before = self.allocations()
                    run(ROUNDS)
                    number = ROUNDS * CLIENTS * pipeline
                    per_request = (self.allocations() - before) / number
                    self.assertLess(per_request, PER_REQUEST_MAX)

    def test_what_is_forwarded_allocates_nothing(self):
        self.check_steady_state(is_cached=False)

    def test_with_the_near_cache_on_neither(self):
        self.check_steady_state(is_cached=True)


@proxy_only
class SystemCallTest(SystemTest):
    PIPELINES = 20
    LENGTH = 64

    def setUp(self):
        super().setUp()
        strace = shutil.which("strace")
        if SLOW or strace is None:
            self.skipTest("strace is not installed, or it is a sanitizer build")
        if subprocess.run([strace, "-qq", "-o", "/dev/null", "true"]).returncode != 0:
            self.skipTest("strace may not trace here")
        self.server = self.start_server()
        with self.server.client() as client:
            client.command("SET", "k", VALUE)
        self.trace = os.path.join(self.directory, "trace")
        self.strace = [strace, "-D", "-qq", "-s", "64", "-o", self.trace]

    def start_traced(self, is_cached):
        nearkey = Nearkey(self.directory, self.server.url, settings=settings(is_cached))
        nearkey.command = [*self.strace, *nearkey.command]
        self.addCleanup(nearkey.kill)
        nearkey.start()
        self.addCleanup(nearkey.stop)
        return nearkey

    def calls(self, client):
        """The system calls of the pipelines by name; what a timer does meanwhile is left out."""
        def run(times):
            for _ in range(times):
                client.send(encode("GET", "k") * self.LENGTH)
                client.read_replies(self.LENGTH)

        run(3)
        begin = os.path.getsize(self.trace)
        run(self.PIPELINES)
        client.command("ECHO", "the-end")

        def lines():
            with open(self.trace) as file:
                file.seek(begin)
                file.readline()  # What was being written then.
                text = file.read()
            return text.split("\n") if text.count("the-end") >= 4 else None

        found = {}
        for line in wait_for(lines, 10, "the trace is written"):
            if "the-end" in line:
                break
            if re.search("PING|PONG|prlimit64|newfstatat|EAGAIN|epoll", line):
                continue
            name = line.split("(")[0]
            found[name] = found.get(name, 0) + 1
        return found

    def test_a_pipeline_that_is_forwarded_is_one_read_and_one_write_on_each_side(self):
        client = self.start_traced(is_cached=False).client(timeout=30)
        self.addCleanup(client.close)
        calls = self.calls(client)
        # Valkey may write its replies in two pieces.
        self.assertEqual({"recvfrom", "sendto"}, set(calls))
        for name in calls:
            self.assertGreaterEqual(calls[name], 2 * self.PIPELINES)
            self.assertLessEqual(calls[name], 2 * self.PIPELINES + self.PIPELINES // 4)

    def test_a_pipeline_of_hits_is_one_read_and_one_write(self):
        nearkey = self.start_traced(is_cached=True)
        client = nearkey.client(timeout=30)
        self.addCleanup(client.close)
        wait_hit(nearkey, client)
        calls = self.calls(client)
        self.assertEqual({"recvfrom": self.PIPELINES, "sendto": self.PIPELINES}, calls)


@proxy_only
class IdleTest(SystemTest):
    SECONDS = 3

    def test_an_idle_nearkey_wakes_up_for_its_heartbeat_alone(self):
        """Three times a second two connections are asked and answer; once the files are looked at."""
        nearkey = self.start_nearkey(self.start_server().url)
        with nearkey.client() as client:
            client.command("SET", "k", VALUE)
            client.command("GET", "k")
        time.sleep(1)  # What a client has left to do is done: nothing else says so.
        before, begin = self.sleeps(nearkey), time.monotonic()
        time.sleep(self.SECONDS)
        per_second = (self.sleeps(nearkey) - before) / (time.monotonic() - begin)
        self.assertGreater(per_second, 1, "the heartbeat beats")
        self.assertLess(per_second, 20)

    def sleeps(self, nearkey):
        with open(f"/proc/{nearkey.pid}/status") as file:
            return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.M)[1])


if __name__ == "__main__":
    unittest.main()
