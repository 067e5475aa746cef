"""The status page at / of the admin server: over HTTP, and in headless Chromium with real load.

NEARKEY_TEST_SCREENSHOTS=DIR keeps what the browser shows, to be looked at."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import unittest

from harness import ROOT, SLOWNESS, AdminConnection, Nearkey, SystemTest, free_port, proxy_only
from harness import show_figure, wait_for
from resp import RespClient

MODULES = os.path.join(ROOT, "build", "browser", "node_modules")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOOKS = {
    "light": {"width": 1440, "height": 900, "scheme": "light"},
    "dark": {"width": 1440, "height": 900, "scheme": "dark"},
    "narrow light": {"width": 390, "height": 844, "scheme": "light"},
    "narrow dark": {"width": 390, "height": 844, "scheme": "dark", "motion": "reduce"},
    "zoomed": {"width": 720, "height": 450, "scheme": "light", "scale": 2},
}
WIDTHS = (360, 390, 720, 900, 1280, 1440, 2200)


def ask(nearkey, method, path, headers=None):
    connection = AdminConnection(nearkey.admin_path, 10)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@proxy_only
class PageTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.nearkey = self.start_nearkey(self.start_server().url)

    def test_it_is_one_page_that_loads_nothing(self):
        status, headers, body = ask(self.nearkey, "GET", "/")
        self.assertEqual((200, "text/html; charset=utf-8"), (status, headers["Content-Type"]))
        page = body.decode()
        for outside in ("http://", "https://", "//cdn", "@import", "url("):
            self.assertNotIn(outside, page.replace("http://www.w3.org/2000/svg", ""))
        for unsafe in (' style="', " onclick=", "innerHTML", "eval("):
            self.assertNotIn(unsafe, page.split("-->", 1)[1])
        policy = headers["Content-Security-Policy"]
        self.assertTrue(policy.startswith("default-src 'none'; script-src 'sha256-"), policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual("no-store", headers["Cache-Control"])

    def test_it_is_served_to_get_and_head_alone(self):
        length = len(ask(self.nearkey, "GET", "/")[2])
        status, headers, body = ask(self.nearkey, "HEAD", "/")
        self.assertEqual((200, str(length), b""), (status, headers["Content-Length"], body))
        for method in ("POST", "PUT", "DELETE"):
            status, headers, _ = ask(self.nearkey, method, "/")
            self.assertEqual((405, "GET, HEAD"), (status, headers["Allow"]))
        self.assertEqual(404, ask(self.nearkey, "GET", "/index.html")[0])

    def test_the_state_that_it_shows(self):
        status, _, body = ask(self.nearkey, "GET", "/status")
        state = json.loads(body)
        self.assertEqual((200, "ready"), (status, state["state"]))
        self.assertRegex(state["version"], r"^\d+\.\d+")
        self.assertGreaterEqual(state["uptime_seconds"], state["since_seconds"])

    def test_over_tcp_the_host_is_looked_at(self):
        port = free_port()
        nearkey = Nearkey(self.directory, self.nearkey.command[5], listen=[f"{self.directory}/b"])
        nearkey.command[3] = f"127.0.0.1:{port}"
        self.addCleanup(nearkey.kill)
        nearkey.start(ready=False)

        def status(host):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", "/", headers={"Host": host})
                return connection.getresponse().status
            except OSError:
                return 0
            finally:
                connection.close()

        wait_for(lambda: status("localhost") == 200, 10, "the page")
        self.assertEqual(403, status("evil.example"))
        nearkey.stop()


class Browser:
    def __init__(self, test, url):
        script = os.path.join(ROOT, "tests", "browser", "drive.mjs")
        profile = os.path.join(test.directory, "home")
        os.mkdir(profile)
        self.errors = open(os.path.join(test.directory, "browser.log"), "w+")
        test.addCleanup(self.errors.close)
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "node", script, MODULES, CHROMIUM, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "HOME": profile, "TMPDIR": test.directory},
        )
        test.addCleanup(self.stop)

    def do(self, command, **options):
        self.process.stdin.write(json.dumps({"command": command, **options}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise AssertionError(f"the browser ended: {self.errors.read()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(f"{command}: {answer['error']}")
        return answer

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process.stdout.close()


class FakeServer:
    """Answers whatever is said on the socket with the same bytes."""

    def __init__(self, path, answer):
        os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.answer = answer

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self):
        while True:
            try:
                with self.listener.accept()[0] as peer:
                    peer.recv(1000)
                    peer.sendall(self.answer)
                    peer.recv(1000)
            except OSError:
                if self.listener.fileno() < 0:
                    return


class Load(threading.Thread):
    """Reads and writes in a few hundred rounds a second, with misses and slow ones among them."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path = path
        self.ended = threading.Event()

    def run(self):
        i = 0
        while not self.ended.wait(0.01):
            try:
                with RespClient(self.path, timeout=5) as client:
                    while not self.ended.wait(0.01):
                        i += 1
                        commands = [("GET", f"user:{i % 40}")] * 12 + [("GET", f"item:{i % 900}")]
                        if i % 50 == 0:
                            client.command("EVAL", "for i = 1, 500000 do end", 0)
                        client.pipeline([*commands, ("SET", f"item:{i % 900}", "x" * 200)])
            except (OSError, AssertionError):
                continue

    def stop(self):
        self.ended.set()
        self.join(10)


@proxy_only
@unittest.skipIf(CHROMIUM is None, "no chromium (scripts/install-deps --test)")
@unittest.skipIf(not os.path.isdir(MODULES), "no puppeteer (tests/browser/install.sh)")
@unittest.skipIf(shutil.which("node") is None, "no node")
class BrowserTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.port = free_port()
        self.nearkey = Nearkey(self.directory, self.server.url, args=["--set", "slowlog.threshold_ms=1"])
        self.nearkey.command[3] = f"127.0.0.1:{self.port}"
        self.addCleanup(self.nearkey.kill)
        self.nearkey.start(ready=False)
        wait_for(lambda: os.path.exists(self.nearkey.path), 10, "nearkey listens")
        self.browser = Browser(self, f"http://127.0.0.1:{self.port}/")
        self.load = Load(self.nearkey.path)
        self.load.start()
        self.addCleanup(self.load.stop)
        self.browser.do("look", **LOOKS["light"])
        opened = self.browser.do("open")
        self.assertEqual(200, opened["status"])

    def page(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        page = json.loads(connection.getresponse().read())
        connection.close()
        return page

    def read(self):
        return self.browser.do("read")

    def wait_read(self, condition, what, timeout=15):
        last = []

        def holds():
            last[:] = [self.read()]
            return condition(last[0])

        try:
            wait_for(holds, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None
        return last[0]

    def wait_values(self):
        return self.wait_read(
            lambda page: page["state"] == "ready"
            and page["tiles"]["commands"][1] not in ("–", "0")
            and "%" in page["tiles"]["ratio"][1]
            and all(chart["path"] > 20 for chart in page["charts"]),
            "values and lines",
        )

    def keep(self, name):
        folder = os.environ.get("NEARKEY_TEST_SCREENSHOTS")
        if folder:
            path = os.path.join(folder, name.replace(" ", "-") + ".png")
            self.browser.do("shoot", path=path, full=True)

    def assert_no_complaint(self):
        self.assertEqual([], self.browser.do("complaints")["complaints"])

    def test_values_move_and_nothing_complains(self):
        first = self.wait_values()
        self.assertIn("Ready", first["title"])
        self.assertRegex(first["version"], r"^\d")
        self.wait_read(lambda page: page["tiles"] != first["tiles"], "the tiles move")
        self.wait_read(
            lambda page: page["charts"][0]["label"] != first["charts"][0]["label"],
            "the words of a chart move",
        )
        self.assertIn("received: now", first["charts"][0]["label"])
        page = self.wait_read(
            lambda page: page["hot"] and page["latency"], "hot keys and latencies",
            20,
        )
        if "/clients" in self.page("/status")["pages"]:
            self.assertIn("python", page["programs"][0])
        self.assertRegex(page["hot"][0], r"^[0-9a-f]{8,}")  # The hash of a name, not the name.
        self.assertRegex(page["latency"][0], r"^request: string.*[mµ]?s")
        self.assertRegex(page["tiles"]["latency"][1], r"^[\d.]+ [mµ]?s$")
        self.assertIn(socket.gethostname(), page["about"])
        self.assertIn("unix://", page["about"])
        self.assertEqual({"good"}, set(page["flow"].values()), page["flow"])
        for width in WIDTHS:
            self.browser.do("look", width=width, height=900, scheme="light")
            page = self.wait_read(lambda page: not page["clipped"], f"{width}: nothing is clipped")
            self.assertLessEqual(page["overflow"], 0, f"{width}: it scrolls sideways")
        self.assert_no_complaint()
        paths = {"/" + url.split("/", 3)[3] for url in self.browser.do("requests")["requests"]}
        self.assertLessEqual({"/", "/status", "/metrics", "/history?after=0"}, paths)

    def test_a_page_can_be_read_before_its_first_frame(self):
        """The load event comes before the observer of sizes draws the lines."""
        self.wait_values()
        charts = self.browser.do("read", undrawn=True)["charts"]
        self.assertEqual([0] * len(charts), [chart["path"] for chart in charts])
        self.assertGreater(len(charts), 2)
        self.wait_values()

    def test_axe_finds_nothing_in_light_and_dark_and_narrow(self):
        self.wait_values()
        for look, options in LOOKS.items():
            self.browser.do("look", **options)
            self.wait_values()
            result = self.browser.do("axe")
            show_figure(
                f"axe ({look}): {len(result['violations'])} violations, {result['passes']} passes"
            )
            self.assertEqual([], result["violations"])
            self.assertGreater(result["passes"], 20)
            self.keep(look)
        self.assert_no_complaint()

    def test_it_says_that_valkey_is_away_and_back(self):
        self.wait_values()
        self.server.kill()
        page = self.wait_read(lambda page: page["state"] == "not ready", "not ready")
        self.assertIn("start Valkey there", page["words"])
        self.assertIn("Not ready", page["title"])
        result = self.browser.do("axe")
        self.assertEqual([], result["violations"])
        self.assertEqual("bad", page["flow"]["part-valkey"])
        self.keep("not-ready")
        self.assert_no_complaint()
        self.server.start()
        self.wait_read(lambda page: page["state"] == "ready", "ready again")
        self.look_back()

    def look_back(self):
        """A page that is opened now tells of what was before."""
        wait_for(lambda: 0 in self.page("/history")["samples"]["ready"], 20, "it is kept")
        self.browser.do("open")
        page = self.wait_read(lambda page: page["events"] and page["marks"], "the events")
        self.assertRegex(page["events"][0], r"(?s)^\d+\s.*ago.*\sNot ready: unix://")
        self.assertIn("Look at Valkey", page["events"][0])
        self.assertIn("Started", page["events"][1])
        self.assertIn("events are marked", page["charts"][0]["label"])
        self.keep("looked-back")

    def test_it_says_that_nearkey_does_not_answer(self):
        self.wait_values()
        self.nearkey.freeze()
        page = self.wait_read(lambda page: page["state"] == "no answer", "no answer", 20)
        self.assertIn("does not answer", page["words"])
        self.assertIn("does not answer", page["title"])
        self.keep("no-answer")
        self.nearkey.thaw()
        self.wait_read(lambda page: page["state"] == "ready", "it answers again")
        self.nearkey.stop()
        self.nearkey.start(ready=False)
        self.wait_read(lambda page: sum("Started" in event for event in page["events"]) == 2,
                       "what was of the former process stays", 20)

    def test_markup_in_a_reason_is_text(self):
        """What a server says of itself reaches the page; it must do nothing there."""
        self.wait_values()
        markup = "<img src=x onerror=alert(1)><script>alert(2)</script><b id=planted>"
        self.server.kill()
        with FakeServer(self.server.path, f"-ERR {markup}\r\n".encode()):
            page = self.wait_read(lambda page: "onerror" in page["words"], "the reason")
            self.assertIn(markup, page["words"])
            self.assertEqual(0, self.browser.do("find", selector="#planted, #state img")["count"])
        self.assert_no_complaint()

    def test_every_control_is_reached_by_the_tab_key_and_works(self):
        self.wait_values()
        walk = self.browser.do("tab", limit=60)
        self.assertEqual(walk["controls"], len(walk["seen"]), walk)
        self.assertEqual([], [each["what"] for each in walk["seen"] if not each["seen"]])
        self.assertIn("Skip", walk["seen"][0]["what"])
        self.browser.do("press", selector="summary", key="Enter")
        self.wait_read(lambda page: page["tables"] and page["tables"][0] > 1, "the table")
        self.go_from_a_program_to_slow_commands()
        self.browser.do("press", selector="#pause", key="Space")
        self.wait_read(lambda page: page["state"] == "paused", "paused")
        self.assertEqual([], self.requests_meanwhile())
        self.browser.do("press", selector="#pause", key="Space")
        self.wait_read(lambda page: page["state"] == "ready", "resumed")
        self.assert_no_complaint()

    def go_from_a_program_to_slow_commands(self):
        self.browser.do("press", selector="#programs button", key="Enter")
        page = self.wait_read(lambda page: "python" in page["chosen"][0], "its clients")
        session = page["clients"][0].split()[0]
        self.browser.do("press", selector="#sessions button", key="Space")
        page = self.wait_read(
            lambda page: page["chosen"][1] == f"of client {session}" and page["slow"],
            "its slow commands",
        )
        self.assertEqual({session}, {row.split()[1] for row in page["slow"]})
        self.browser.do("press", selector="#programs button", key="Enter")
        self.wait_read(lambda page: "of all programs" in page["chosen"][0], "all clients again")

    def requests_meanwhile(self):
        """What the page asks while a second passes, for the load that goes on."""
        self.browser.do("requests")
        before = self.nearkey_commands()
        wait_for(lambda: self.nearkey_commands() > before + 800, 20, "time passes")
        asked = self.browser.do("requests")["requests"]
        return [url for url in asked if "/metrics" in url]

    def nearkey_commands(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        rows = [line for line in text.splitlines() if line.startswith("nearkey_commands_total")]
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)

    def test_a_hidden_tab_asks_nothing(self):
        self.wait_values()
        if not self.browser.do("hide")["hidden"]:
            self.skipTest("this browser does not hide a tab behind another")
        self.assertLessEqual(len(self.requests_meanwhile()), 1)
        self.browser.do("show")
        self.wait_values()


if __name__ == "__main__":
    unittest.main()
