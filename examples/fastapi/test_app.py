"""The example, served by the real uvicorn, over a real nearkey and a real Valkey.

    /usr/bin/python3 -m unittest -v examples/fastapi/test_app.py        (from the repository)

NEARKEY_BINARY names the nearkey (default build/nearkey).
"""

import asyncio
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "system"))

from harness import SystemTest, wait_for  # noqa: E402
from processes import SLOWNESS, AdminConnection, Nearkey, Process, free_port  # noqa: E402

MISSING = [name for name in ("fastapi", "uvicorn", "redis") if not importlib.util.find_spec(name)]


class App(Process):
    """uvicorn with the app, on a Unix socket; what it logs is collected."""

    def __init__(self, directory, nearkey):
        self.path = os.path.join(directory, "app.sock")
        self.settings = {
            "CACHE_URL": f"unix://{nearkey.path}",
            "NEARKEY_ADMIN": nearkey.admin_path,
            # How busy this machine is must not decide what the app answers.
            "CACHE_TIMEOUT_S": "15",
        }
        self.lines = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)

    def start(self):
        self.spawn(
            [sys.executable, "-m", "uvicorn", "--app-dir", HERE, "--uds", self.path, "app:app"],
            env={**os.environ, **self.settings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader.start()
        wait_for(self.is_serving, 20, f"the app serves: {self.lines}")
        return self

    def _read_log(self):
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))

    def is_serving(self):
        assert self.is_running(), f"uvicorn ended: {self.lines}"
        try:
            return self.get("/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path):
        """(status, parsed body)."""
        connection = AdminConnection(self.path, 15 * SLOWNESS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def report(self, name="sales"):
        status, report = self.get(f"/reports/{name}")
        assert (status, report["name"]) == (200, name), (status, report, self.lines)
        return report

    def is_caching(self):
        return self.report() == self.report()

    def health_of_cache(self):
        return self.get("/health/cache")

    def wait_logged(self, text):
        wait_for(lambda: any(text in line for line in list(self.lines)), 5, f"{text!r} is logged")

    def stop(self):
        """SIGTERM; the end of the lifespan must be reached."""
        if self.is_running():
            self.signal(signal.SIGTERM)
        code = self.process.wait(15 * SLOWNESS)
        self._reader.join(5)
        log = "\n".join(self.lines)
        # Newer ones end by the signal, when everything else is done.
        assert code in (0, -signal.SIGTERM), f"uvicorn ended with {code}: {log}"
        assert "Application shutdown complete" in log, log
        assert "Traceback" not in log, log


@unittest.skipIf(MISSING, f"not installed: python3-{', python3-'.join(MISSING)}")
class FastApiTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(self.server.url)

    def start_app(self):
        app = App(self.directory, self.nearkey)
        self.addCleanup(app.kill)
        app.start()
        self.addCleanup(app.stop)
        return app

    def test_a_value_is_made_once_and_then_comes_from_the_cache(self):
        app = self.start_app()
        first = app.report()
        self.assertEqual(first, app.report())
        self.assertEqual(first, json.loads(self.server.run("GET", "report:sales")))
        self.assertTrue(0 < self.server.run("TTL", "report:sales") <= 60)
        self.assertNotEqual(first, app.report("costs"))
        self.server.run("DEL", "report:sales")
        self.assertNotEqual(first, app.report())

    def test_health_says_what_nearkey_says(self):
        app = self.start_app()
        status, cache = app.health_of_cache()
        self.assertEqual((200, True, "ready"), (status, cache["is_ready"], cache["state"]))
        self.assertEqual((200, "ok"), (app.get("/health")[0], app.get("/health")[1]["app"]))
        self.server.stop()
        wait_for(lambda: app.health_of_cache()[0] == 503, 5, "the cache is not ready")
        cache = app.health_of_cache()[1]
        self.assertFalse(cache["is_ready"])
        self.assertTrue(cache["reason"])
        self.assertEqual(200, app.get("/health")[0])
        self.server.start()
        wait_for(lambda: app.health_of_cache()[0] == 200, 10, "the cache is ready again")

    def test_while_valkey_is_away_the_app_serves_without_the_cache(self):
        app = self.start_app()
        cached = app.report()
        self.server.stop()
        made = app.report()
        self.assertNotEqual(cached, made)
        self.assertNotEqual(made, app.report())
        app.wait_logged("serving without the cache: UPSTREAM")
        self.server.start()
        wait_for(app.is_caching, 10, "the app caches again")

    def test_while_nearkey_is_away_the_app_serves_without_the_cache(self):
        app = self.start_app()
        cached = app.report()
        self.nearkey.kill()
        made = app.report()
        self.assertNotEqual(cached, made)
        self.assertNotEqual(made, app.report())
        app.wait_logged("serving without the cache: ")
        status, cache = app.health_of_cache()
        self.assertEqual((503, False, "away"), (status, cache["is_ready"], cache["state"]))
        self.nearkey.start()
        wait_for(lambda: app.report() == cached, 10, "the app reads the cache again")
        self.assertEqual(200, app.health_of_cache()[0])

    def test_the_app_starts_while_nearkey_is_away(self):
        self.nearkey.kill()
        app = self.start_app()
        self.assertNotEqual(app.report(), app.report())
        self.nearkey.start()
        wait_for(app.is_caching, 10, "the app caches")

    def test_requests_at_once_share_the_client(self):
        app = self.start_app()
        answers = []
        threads = [
            threading.Thread(target=lambda i=i: answers.append(app.report(f"r{i % 4}")))
            for i in range(32)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual(32, len(answers), app.lines)
        self.assertEqual([], [line for line in app.lines if "cache" in line])

    def test_the_client_is_closed_when_the_app_ends(self):
        """In this process, which lives on: nearkey sees the connections go, not the process."""
        module = load_app(self.nearkey)

        async def live():
            async with module.lifespan(module.app):
                self.assertTrue(await module.app.state.cache.ping())
                self.assertEqual(1, self.clients())

            # The loop still runs: nothing but the lifespan can have closed the client.
            await asyncio.to_thread(
                lambda: wait_for(lambda: self.clients() == 0, 5, "no client is left")
            )

        asyncio.run(live())

    def clients(self):
        return self.nearkey.metric("nearkey_clients")

    def test_nearkey_may_be_asked_over_a_loopback_port(self):
        module = load_app(self.nearkey)
        module.NEARKEY_ADMIN = f"127.0.0.1:{free_port()}"

        def ask():
            return asyncio.run(module.ask_nearkey())

        self.assertEqual("away", ask()["state"])
        folder = os.path.join(self.directory, "other")
        os.mkdir(folder)
        nearkey = Nearkey(folder, self.server.url)
        nearkey.command[nearkey.command.index("--admin") + 1] = module.NEARKEY_ADMIN
        self.addCleanup(nearkey.kill)
        nearkey.start(ready=False)
        self.addCleanup(nearkey.stop)
        wait_for(lambda: ask()["is_ready"], 10, "nearkey is ready")


def load_app(nearkey):
    """The module of the example, set up for this nearkey."""
    spec = importlib.util.spec_from_file_location("example_app", os.path.join(HERE, "app.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CACHE_URL = f"unix://{nearkey.path}"
    module.NEARKEY_ADMIN = nearkey.admin_path
    return module


if __name__ == "__main__":
    unittest.main()
