"""The whole app, over HTTP, while its cache goes and comes back."""

import json
import time

from harness import wait_for

from tests.serving import ServedTest


class ReportsTest(ServedTest):
    def test_a_report_is_made_once_and_then_comes_from_the_cache(self):
        app = self.start_app(report_ttl_s=30)
        first = app.report()
        self.assertEqual(first, app.report())
        self.assertEqual(first, json.loads(self.server.run("GET", "report:sales")))
        self.assertTrue(0 < self.server.run("TTL", "report:sales") <= 30)
        self.assertNotEqual(first, app.report("costs"))
        self.server.run("DEL", "report:sales")
        wait_for(lambda: app.report() != first, 5, "a new report")

    def test_the_app_starts_while_the_cache_is_away_and_heals(self):
        self.nearkey.kill()
        app = self.start_app()
        self.assertEqual(1, len(app.logged("the cache is away, serving without it")))
        self.assertNotEqual(app.report(), app.report())
        self.nearkey.start()
        wait_for(app.is_caching, 10, "the app caches")
        self.assertEqual(1, len(app.logged("the cache is back")))
        self.assertEqual(1, len(app.logged("the cache is away")))

    def test_while_valkey_is_away_reports_are_made_anew(self):
        app = self.start_app()
        cached = app.report()
        self.server.stop()
        # Until Valkey's absence is seen, what was read just now may be answered from here.
        made = wait_for(lambda: (app.report() != cached) and app.report(), 5, "a new report")
        for _ in range(10):
            made, last = app.report(), made
            self.assertNotEqual(last, made)
        (away,) = app.logged("the cache is away")
        self.assertIn("UPSTREAM", away["message"])
        self.server.start()
        wait_for(app.is_caching, 10, "the app caches again")
        self.assertEqual(1, len(app.logged("the cache is back")))

    def test_while_nearkey_is_away_reports_are_made_anew(self):
        app = self.start_app()
        cached = app.report()
        self.nearkey.kill()
        made = app.report()
        self.assertNotEqual(cached, made)
        self.assertNotEqual(made, app.report())
        self.assertEqual(1, len(app.logged("the cache is away")))
        self.nearkey.start()
        wait_for(lambda: app.report() == cached, 10, "the app reads the cache again")

    def test_a_cache_lost_in_mid_request_costs_a_new_report(self):
        app = self.start_app()
        self.server.freeze()
        report = self.in_background(app.report)
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") > 0, 5, "it waits")
        self.server.kill()
        self.assertEqual("sales", report()["name"])
        (away,) = app.logged("the cache is away")
        self.assertIn("UPSTREAM", away["message"])
        self.server.start()
        wait_for(app.is_caching, 10, "the app caches again")

    def test_a_cache_that_is_stuck_does_not_stick_the_app(self):
        app = self.start_app(cache_timeout_s=1)
        self.nearkey.freeze()
        try:
            self.assertNotEqual(app.report(), app.report())
            self.assertEqual(503, app.get("/health/cache")[0])
        finally:
            self.nearkey.thaw()
        wait_for(app.is_caching, 10, "the app caches again")

    def test_requests_at_once_share_the_client(self):
        app = self.start_app()
        results = [self.in_background(lambda i=i: app.report(f"r{i % 4}")) for i in range(32)]
        self.assertEqual(32, len([result() for result in results]))
        self.assertEqual([], app.logged("the cache is away"))


class NotesTest(ServedTest):
    def test_what_is_set_is_got(self):
        app = self.start_app()
        self.assertEqual(404, app.get("/notes/n")[0])
        status, _, body = app.ask("PUT", "/notes/n", body={"text": "caf\u00e9"})
        self.assertEqual((204, None), (status, body))
        self.assertEqual((200, {"text": "caf\u00e9"}), app.get("/notes/n"))
        self.assertEqual("caf\u00e9".encode(), self.server.run("GET", "note:n"))
        self.assertEqual(422, app.ask("PUT", "/notes/n", body={})[0])

    def test_while_the_cache_is_away_it_is_said_so(self):
        app = self.start_app()
        self.nearkey.stop()
        status, headers, body = app.ask("PUT", "/notes/n", body={"text": "x"})
        self.assertEqual((503, {"detail": "the cache is away"}), (status, body))
        self.assertEqual("1", headers["Retry-After"])
        self.assertEqual(503, app.get("/notes/n")[0])


class HealthTest(ServedTest):
    def test_health_tells_the_app_from_the_cache(self):
        app = self.start_app()
        healthy = {"app": {"status": "ok"}, "cache": {"status": "ok"}}
        self.assertEqual((200, healthy), app.get("/health"))
        self.assertEqual((200, {"status": "ok"}), app.get("/health/cache"))
        self.server.stop()
        status, health = app.get("/health")
        self.assertEqual(
            (200, "ok", "away"), (status, health["app"]["status"], health["cache"]["status"])
        )
        status, cache = app.get("/health/cache")
        self.assertEqual((503, "away"), (status, cache["status"]))
        self.assertRegex(cache["reason"], "^UPSTREAM")
        self.server.start()
        wait_for(lambda: app.get("/health/cache")[0] == 200, 10, "the cache is back")
        self.assertEqual((200, healthy), app.get("/health"))


class CorrelationTest(ServedTest):
    def test_the_id_is_in_the_response_and_in_each_line_of_the_request(self):
        app = self.start_app()
        self.nearkey.stop()
        status, headers, _ = app.ask("GET", "/reports/x", headers={"X-Request-Id": "my-id"})
        self.assertEqual((200, "my-id"), (status, headers["x-request-id"]))
        (away,) = app.logged("the cache is away")
        (access,) = app.logged("GET /reports/x")
        self.assertEqual(["my-id"] * 2, [away["correlation_id"], access["correlation_id"]])

    def test_the_id_is_in_the_slow_log_of_nearkey(self):
        app = self.start_app()
        self.server.freeze()
        answer = self.in_background(
            lambda: app.ask("GET", "/reports/x", headers={"X-Request-Id": "my-id"})
        )
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") > 0, 5, "it waits for Valkey")
        time.sleep(0.1)  # slowlog.threshold_ms is 50
        self.server.thaw()
        self.assertEqual(200, answer()[0])
        wait_for(lambda: self.slow_tags(), 5, "it is in the slow log")
        self.assertEqual({("get", "my-id")}, self.slow_tags())

    def slow_tags(self):
        entries = self.nearkey.get("/slowlog")[1]["entries"]
        return {(entry["command"], entry["tag"]) for entry in entries}

    def test_each_request_without_an_id_gets_its_own(self):
        app = self.start_app()
        ids = {app.ask("GET", "/reports/x")[1]["x-request-id"] for _ in range(3)}
        self.assertEqual(3, len(ids))
        self.assertEqual(ids, {line["correlation_id"] for line in app.logged("GET /reports/x")})

    def test_an_error_that_nobody_handles_has_the_id_too(self):
        app = self.start_app()
        self.server.run("LPUSH", "report:broken", "x")
        status, headers, body = app.ask("GET", "/reports/broken", headers={"X-Request-Id": "my-id"})
        self.assertEqual((500, {"detail": "internal error", "request_id": "my-id"}), (status, body))
        self.assertEqual("my-id", headers["x-request-id"])
        # uvicorn logs it when the answer is out.
        wait_for(lambda: app.logged("Exception in ASGI application"), 5, "it is logged")
        (line,) = [line for line in app.logs() if "exception" in line]
        self.assertEqual("my-id", line["correlation_id"])
        self.assertIn("WRONGTYPE", line["exception"])
        self.assertEqual([], app.logged("the cache is away"))
