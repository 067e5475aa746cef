"""Two hundred clients of every kind at once, and in the middle the server is killed and started
again: every reply belongs to its request, no element is lost or comes twice, nothing leaks.

Environment: NEARKEY_SOAK_SECONDS  how long (default 10)
"""

import os
import time
import unittest

from harness import SystemTest, proxy_only, wait_for
from leases import LEASED, wait_leased
from soak import (
    Consumer,
    Leaver,
    Mover,
    OptimisticLock,
    Plain,
    Producer,
    Publisher,
    Subscriber,
    Transaction,
)

SECONDS = float(os.environ.get("NEARKEY_SOAK_SECONDS", "10"))
IDLE_MAX = 8


@proxy_only
class SoakTest(SystemTest):
    def setUp(self):
        super().setUp()
        # What is acknowledged was written to the file before, and survives SIGKILL.
        persistence = ["--appendonly", "yes", "--appendfsync", "no"]
        self.server = self.start_server(args=persistence)
        self.nearkey = self.start_nearkey(
            self.server.url,
            settings={
                "upstream.connections": 2,
                "upstream.dedicated_max": 300,
                "upstream.dedicated_idle_max": IDLE_MAX,
                "upstream.request_timeout_ms": 60_000,
            },
        )

    def workers(self):
        """Two hundred clients."""
        connect = self.nearkey.client
        queues = [f"soak:q{number}" for number in range(5)]
        channels = [f"soak:c{number}" for number in range(10)]
        kinds = [
            [Plain(connect, f"plain{n}") for n in range(50)],
            [Transaction(connect, f"tx{n}") for n in range(30)],
            [OptimisticLock(connect, f"lock{n}") for n in range(20)],
            [Producer(connect, f"producer{n}", queues[n % 5]) for n in range(20)],
            [Consumer(connect, f"consumer{n}", queues[n % 5]) for n in range(30)],
            [Mover(connect, f"mover{n}", queues[n]) for n in range(5)],
            [Leaver(connect, f"leaver{n}") for n in range(10)],
            [Publisher(connect, f"publisher{n}", channels[n]) for n in range(10)],
            [Subscriber(connect, f"subscriber{n}", channels[n % 10]) for n in range(25)],
        ]
        self.assertEqual(200, sum(len(kind) for kind in kinds))
        return kinds

    def test_two_hundred_clients_and_a_restart_in_the_middle(self):
        kinds = self.workers()
        (self.plains, self.transactions, self.locks, self.producers, self.consumers, self.movers,
         self.leavers, self.publishers, self.subscribers) = kinds  # fmt: skip
        everybody = [worker for kind in kinds for worker in kind]
        begin = time.monotonic()
        for worker in everybody:
            worker.start()
        self.run_until(begin + SECONDS / 2, everybody)
        self.wait_all_served(everybody, begin)
        self.server.kill()
        self.server.start()
        restarted = time.monotonic()
        self.run_until(begin + SECONDS, everybody)
        self.wait_all_served(everybody, restarted)
        for worker in everybody:
            worker.stopping.set()
        for worker in everybody:
            worker.join(120)
            self.assertFalse(worker.is_alive(), f"{worker.name} hangs")
        self.assert_no_violation(everybody)
        self.tell(kinds)
        self.check_nothing_leaks()
        self.check_elements()
        self.check_counters()
        self.check_messages()

    def run_until(self, moment, workers):
        while time.monotonic() < moment:
            self.assert_no_violation(workers)
            self.assertTrue(self.nearkey.is_running())
            time.sleep(0.05)  # The time of the soak itself.

    def wait_all_served(self, workers, since):
        served = [worker for worker in workers if worker not in self.leavers]

        def is_served():
            self.assert_no_violation(workers)
            return all(worker.last_ok_at > since for worker in served)

        wait_for(is_served, 30, "everybody is served")

    def assert_no_violation(self, workers):
        self.assertEqual([], [wrong for worker in workers for wrong in worker.violations][:5])

    def tell(self, kinds):
        for kind in kinds:
            total = {
                name: sum(getattr(worker, name) for worker in kind)
                for name in ("acknowledged", "refused", "unknown", "reconnects")
            }
            print(f"\n{len(kind):3} {type(kind[0]).__name__}: {total}", end="")

    def check_nothing_leaks(self):
        wait_leased(self.nearkey, 0)
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == 0, 10, "all clients are gone")
        metrics = self.nearkey.metrics()
        for name in (LEASED, "nearkey_upstream_tunnels", "nearkey_queued"):
            self.assertEqual(0, metrics[name], name)
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") == 0, 10, "nothing is in flight")
        # Shared ones of two protocols, one more each beside what was slow, ours, and those that idle.
        self.assertLessEqual(len(self.server.clients()), 2 * (2 + 1) + 2 + IDLE_MAX)
        self.assertEqual(1, self.server.run("RPUSH", "soak:later", "v"))
        self.assertEqual(1, self.server.run("LLEN", "soak:later"), "one who left has taken it")

    def check_elements(self):
        """pushed = popped + left + lost, and for each one that is lost there is a pop of which
        nobody knows the outcome."""
        popped = [element for worker in self.consumers for element in worker.popped]
        lists = [f"soak:q{number}" for number in range(5)] + ["soak:moved"]
        left = [element for name in lists for element in self.server.run("LRANGE", name, 0, -1)]
        found = set(popped) | set(left)
        self.assertEqual(len(found), len(popped) + len(left), "an element came twice")
        pushed = set().union(*(worker.pushed for worker in self.producers))
        maybe = set().union(*(worker.maybe_pushed for worker in self.producers))
        never = set().union(*(worker.never_pushed for worker in self.producers))
        self.assertEqual(set(), found - pushed - maybe, "an element that nobody pushed")
        self.assertEqual(set(), found & never, "an element that was refused")
        unknown_pops = sum(worker.unknown for worker in self.consumers)
        lost = pushed - found
        print(f"\n    {len(pushed)} pushed, {len(popped)} popped, {len(left)} left, {len(maybe)} "
              f"unknown pushes, {unknown_pops} unknown pops, {len(lost)} lost")  # fmt: skip
        self.assertLessEqual(len(lost), unknown_pops, "elements are lost")

    def check_counters(self):
        for worker in self.plains:
            self.assertIn(self.server.run("GET", worker.name), worker.possible)
        for worker in self.transactions:
            first, second = self.server.run("MGET", f"{worker.name}:a", f"{worker.name}:b")
            self.assertEqual(first, second, worker.name)
            self.assertLessEqual(worker.last, int(first))
            self.assertLessEqual(int(first), worker.last + worker.unexplained)
        successes = sum(worker.successes for worker in self.locks)
        unknown = sum(worker.unknown for worker in self.locks)
        counter = int(self.server.run("GET", OptimisticLock.COUNTER))
        self.assertLessEqual(successes, counter)
        self.assertLessEqual(counter, successes + unknown)

    def check_messages(self):
        """Between two messages that arrived on one connection, none is missing."""
        failed = {worker.channel: worker.failed for worker in self.publishers}
        for worker in self.subscribers:
            self.assertLessEqual(worker.skipped, failed[worker.channel], worker.name)


if __name__ == "__main__":
    unittest.main()
