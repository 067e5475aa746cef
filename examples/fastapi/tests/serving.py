"""What the tests stand on: a real Valkey, a real nearkey before it, and the app in a real uvicorn.

uvicorn runs in a thread of this process, so that coverage sees the app.
NEARKEY_BINARY names the nearkey (default build/nearkey).
"""

import contextlib
import io
import json
import os
import threading

import uvicorn
from harness import SystemTest, wait_for
from processes import SLOWNESS, AdminConnection

from app.core.settings import Settings
from app.main import create_app


class App:
    """The app on a Unix socket, and the lines that it logs."""

    def __init__(self, directory, settings):
        self.path = os.path.join(directory, "app.sock")
        self._output = io.StringIO()
        config = uvicorn.Config(lambda: create_app(settings), factory=True, uds=self.path)
        with contextlib.redirect_stdout(self._output):
            config.load()
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self):
        self._thread.start()
        wait_for(lambda: self._server.started, 20, "the app serves")
        return self

    def stop(self):
        """Ends the app as SIGTERM would; the end of the lifespan must be reached."""
        self._server.should_exit = True
        self._thread.join(15 * SLOWNESS)
        assert not self._thread.is_alive(), "the app has not ended"
        assert self.logged("Application shutdown complete"), self.logs()

    def logs(self):
        """The lines of the log so far; each must be one JSON object."""
        return [json.loads(line) for line in self._output.getvalue().splitlines()]

    def logged(self, text):
        return [line for line in self.logs() if text in line["message"]]

    def ask(self, method, path, *, body=None, headers=None):
        """(status, headers, parsed body or None)."""
        connection = AdminConnection(self.path, 30 * SLOWNESS)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(
                method, path, text, {"Content-Type": "application/json", **(headers or {})}
            )
            response = connection.getresponse()
            answer = response.read()
            return response.status, response.headers, json.loads(answer) if answer else None
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.ask("GET", path)
        return status, body

    def report(self, name="sales"):
        status, report = self.get(f"/reports/{name}")
        assert (status, report["name"]) == (200, name), (status, report)
        return report

    def is_caching(self):
        return self.report("probe") == self.report("probe")


class ServedTest(SystemTest):
    """Each test has a Valkey and a nearkey of its own."""

    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(self.server.url)

    def settings(self, **others):
        # How busy this machine is must not decide what the app answers.
        return Settings(
            **{"cache_url": f"unix://{self.nearkey.path}", "cache_timeout_s": 15, **others}
        )

    def start_app(self, **settings):
        app = App(self.directory, self.settings(**settings)).start()
        self.addCleanup(app.stop)
        return app

    def in_background(self, function):
        """Runs it in a thread; what is returned waits for its end and gives its result."""
        results = []
        thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
        thread.start()

        def result():
            thread.join(30 * SLOWNESS)
            assert results, "no result"
            return results[0]

        return result
