"""/history: the last hour, as a running nearkey keeps it."""

import os
import signal
import unittest

from harness import SystemTest, proxy_only, wait_for


@proxy_only
class HistoryTest(SystemTest):
    def history(self, nearkey, path="/history"):
        return nearkey.get(path)[1]

    def events(self, nearkey):
        return {event["kind"]: event for event in self.history(nearkey)["events"]}

    def wait_samples(self, nearkey, count):
        wait_for(lambda: self.history(nearkey)["next"] >= count, 15, f"{count} samples")
        return self.history(nearkey)

    def received(self, page):
        """Commands from the first sample on."""
        times, rates = page["samples"]["time_ms"], page["samples"]["commands_per_second"]
        steps = zip(times, times[1:], rates[1:])
        return sum((end - begin) / 1000 * rate for begin, end, rate in steps)

    def test_all_event_loops_are_in_it_and_it_can_be_asked_on(self):
        nearkey = self.start_nearkey(self.start_server().url, args=["--set", "server.workers=2"])
        self.wait_samples(nearkey, 1)
        clients = [nearkey.client() for _ in range(4)]
        for client in clients:
            self.addCleanup(client.close)
            client.pipeline([("GET", "k")] * 250)
        wait_for(lambda: self.received(self.history(nearkey)) > 900, 15, "a sample with all")
        page = self.history(nearkey)
        self.assertEqual((5000, 3600000), (page["step_ms"], page["window_ms"]))
        samples = page["samples"]
        self.assertEqual({page["next"] - page["first"]}, {len(each) for each in samples.values()})
        self.assertAlmostEqual(1000, self.received(page), delta=50)
        self.assertEqual(4, max(samples["clients"]))
        self.assertEqual({1}, set(samples["ready"]))
        self.assertTrue(any(samples["request_p99_us"]), samples)
        self.assertLessEqual(samples["time_ms"][-1], page["now_ms"])
        later = self.history(nearkey, f"/history?after={page['next']}")
        self.assertEqual(page["next"], later["first"])
        self.assertLessEqual(len(later["samples"]["ready"]), 1)
        self.assertEqual(400, nearkey.get("/history?after=x")[0])

    def test_what_happened_is_told_with_what_to_do(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        self.assertEqual(["started"], list(self.events(nearkey)))
        server.kill()
        wait_for(lambda: "not_ready" in self.events(nearkey), 10, "not ready")
        event = self.events(nearkey)["not_ready"]
        self.assertIsNone(event["until_ms"])
        self.assertIn("Look at Valkey", event["advice"])
        server.start()
        wait_for(lambda: self.events(nearkey)["not_ready"]["until_ms"], 10, "ready")
        event = self.events(nearkey)["not_ready"]
        self.assertGreater(event["until_ms"], event["time_ms"])
        wait_for(lambda: 0 in self.history(nearkey)["samples"]["ready"], 10, "a sample of it")
        os.kill(nearkey.pid, signal.SIGHUP)
        wait_for(lambda: "reloaded" in self.events(nearkey), 10, "a reload")
        self.assertEqual("nothing was changed", self.events(nearkey)["reloaded"]["what"])

    def test_a_restart_begins_anew(self):
        nearkey = self.start_nearkey(self.start_server().url)
        self.wait_samples(nearkey, 1)
        nearkey.stop()
        nearkey.start()
        page = self.history(nearkey, "/history?after=700")
        self.assertEqual(0, page["first"])
        self.assertLess(page["next"], 2)
        self.assertEqual(["started"], [event["kind"] for event in page["events"]])

    def test_replies_that_had_no_room_are_an_event(self):
        args = ["--set", "near_cache.memory=1MiB"]
        nearkey = self.start_nearkey(self.start_server().url, args=args)
        client = nearkey.client()
        self.addCleanup(client.close)
        for i in range(60):
            client.command("SET", f"k{i}", "x" * 40000)
            client.command("GET", f"k{i}")
        wait_for(lambda: "evictions" in self.events(nearkey), 10, "evictions")
        event = self.events(nearkey)["evictions"]
        self.assertGreater(event["count"], 10)
        self.assertIn("near_cache.memory", event["advice"])


if __name__ == "__main__":
    unittest.main()
