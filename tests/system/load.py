"""Load with accounting: each worker increments a key of its own and knows which values it may be
answered with.

A command is acknowledged (an integer came back), refused (-UPSTREAMDOWN, EPIPE: never sent), or
unknown (-UPSTREAMLOST, -UPSTREAMTIMEOUT, or the connection ended). An increment that ran twice, a
reply of somebody else, or an acknowledged increment that is gone breaks the sums.
"""

import socket
import threading
import time

from resp import Closed, encode

NEVER_SENT = (b"-UPSTREAMDOWN", b"-LOADING")
MAY_HAVE_RUN = (b"-UPSTREAMLOST", b"-UPSTREAMTIMEOUT")


class Worker:
    def __init__(self, key):
        self.key = key
        self.acknowledged = 0
        self.refused = 0
        self.unknown = 0
        self.unexplained = 0  # Unknown increments that no later value has accounted for yet.
        self.last = 0
        self.last_ok_at = 0.0
        self.violations = []

    def take(self, reply):
        if reply.startswith(b":"):
            value = int(reply[1:])
            skipped = value - self.last - 1
            if not 0 <= skipped <= self.unexplained:
                self.violations.append(
                    f"{self.key}: {value} after {self.last}, {self.unexplained} unknown"
                )
            self.unexplained -= max(min(skipped, self.unexplained), 0)
            self.last = value
            self.acknowledged += 1
            self.last_ok_at = time.monotonic()
        elif reply.startswith(NEVER_SENT):
            self.refused += 1
        elif reply.startswith(MAY_HAVE_RUN):
            self.lose(1)
        else:
            self.violations.append(f"{self.key}: unexpected reply {reply[:100]!r}")

    def lose(self, count):
        self.unknown += count
        self.unexplained += count


class IncrementLoad:
    """`connect` gives a new client; each of the workers keeps a pipeline of `depth` INCR in flight
    until stop()."""

    def __init__(self, connect, *, workers=8, depth=8):
        self.connect = connect
        self.depth = depth
        self.workers = [Worker(f"load:{index}") for index in range(workers)]
        self.connections_lost = 0
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), daemon=True)
            for worker in self.workers
        ]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a worker hangs"

    def _run(self, worker):
        while not self._stopping.is_set():
            try:
                client = self.connect()
            except OSError:
                time.sleep(0.01)
                continue
            with client:
                self._run_connection(worker, client)

    def _run_connection(self, worker, client):
        batch = encode("INCR", worker.key) * self.depth
        while not self._stopping.is_set():
            owed = self.depth
            try:
                client.send(batch)
            except BrokenPipeError:
                # Over a Unix socket so small a batch is sent whole or not at all.
                worker.refused += owed
                self.connections_lost += 1
                return
            except OSError:
                worker.lose(owed)
                self.connections_lost += 1
                return
            try:
                for _ in range(self.depth):
                    reply = client.read_reply()
                    owed -= 1
                    worker.take(reply)
            except (OSError, Closed, socket.timeout):
                worker.lose(owed)
                self.connections_lost += 1
                return

    def total(self, name):
        return sum(getattr(worker, name) for worker in self.workers)

    def acknowledged_since(self, moment):
        """How many workers were acknowledged something after that moment (of time.monotonic())."""
        return sum(worker.last_ok_at > moment for worker in self.workers)

    def check(self, test, direct):
        """acknowledged <= counter <= acknowledged + unknown for each key, and no reply was wrong on
        the way."""
        for worker in self.workers:
            test.assertEqual([], worker.violations)
            counter = int(direct.value("GET", worker.key) or 0)
            test.assertLessEqual(
                worker.acknowledged, counter, f"{worker.key}: an acknowledged increment is gone"
            )
            test.assertLessEqual(worker.last, counter, worker.key)
            test.assertLessEqual(
                counter,
                worker.acknowledged + worker.unknown,
                f"{worker.key}: an increment ran twice, or one that was refused ran",
            )
