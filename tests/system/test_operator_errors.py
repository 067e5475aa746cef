"""What an operator may do wrong: each gives one line, which says what, where and what to do, and the
documented exit code. The tables are in operator_errors*.py.

Where nearkey must not be allowed something, it runs without root's capabilities. docs/errors.md
shows all lines; NEARKEY_TEST_WRITE_DOCS=1 writes it anew from what was said."""

import http.server
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

from harness import ROOT, SLOWNESS, Nearkey, SystemTest, ValkeyServer, free_port, proxy_only
from harness import show_figure, wait_for
from operator_errors import CONFIGURATION, SECRET
from operator_errors_access import ACCESS
from operator_errors_line import COMMAND_LINE
from operator_errors_secrets import SECRETS
from operator_errors_start import PROBE, STARTING
from operator_errors_upstream import UPSTREAM
from processes import BINARY, program_environment, run_nearkey
from test_upstream_access import make_certificates

UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
QUICK = {
    "upstream.backoff_min_ms": "10",
    "upstream.backoff_max_ms": "50",
    "upstream.connect_timeout_ms": "300",
}


PAGE = os.path.join(ROOT, "docs", "errors.md")
# What stands in the page for the directory and the port of a test.
SHOWN = {"DIR": "/run/nearkey", "PORT": "6380"}
NOT_READY = "not ready"
ROWS = [*CONFIGURATION, *COMMAND_LINE, *STARTING, *ACCESS, *SECRETS, *PROBE, *UPSTREAM]
HEAD = """# What nearkey says to an operator's mistake

Each mistake gives one line: what is wrong, where, and what to do. This page is made from the lines
that the tests of `tests/system/test_operator_errors.py` saw, and a test keeps it true.
A secret never stands in a line.

The exit code is 2 where the command line or the configuration is wrong, whatever the machine is
like, and 1 where the machine refused something. *Not ready* means that nearkey runs on and tries
again: the line is in the log once, and in `/readyz`, `nearkey ready` and the status page for as
long as it is so. Lines that begin with `listen_failed` are the event and the reason of a line of
the log; the others stand on stderr as they are (`nearkey ready` answers on stdout).
"""
SECTIONS = {
    "The configuration file": CONFIGURATION,
    "The command line": COMMAND_LINE,
    "Starting": STARTING,
    "Who may connect": ACCESS,
    "Secrets": SECRETS,
    "Asking a running nearkey": PROBE,
    "Valkey": UPSTREAM,
}
said = {}  # name of a row -> its line, for the page


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass


class World:
    """What the table's functions prepare things with: one directory and its servers."""

    def __init__(self, test):
        self.test = test
        self.directory = test.directory
        self.server = test.server
        self.settings = {}
        self.environment = {}
        self.descriptors = ()
        self.prefix = list(UNPRIVILEGED)
        listener = self.keep(socket.create_server(("127.0.0.1", 0)))
        self.port = listener.getsockname()[1]  # In use; who connects there hears nothing.

    def keep(self, closeable):
        self.test.addCleanup(closeable.close)
        return closeable

    def need_root(self):
        if os.geteuid() != 0:
            self.test.skipTest("only root can give a folder to another user")

    def write(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def forbid(self, path):
        os.chmod(path, 0)
        return path

    def set(self, name, value):
        self.environment[name] = value

    def limit(self, limit):
        self.prefix += ["prlimit", limit]

    def pass_descriptor(self, what, **variables):
        """nearkey gets a file, or a socket that listens there, as systemd would pass it."""
        if isinstance(what, str):
            file = self.keep(open(what))
        else:
            file = self.keep(socket.create_server(what))
        self.descriptors = (file.fileno(),)
        values = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", **variables}
        words = " ".join(f"{name}={value}" for name, value in values.items())
        script = f'exec 3<&{file.fileno()}; LISTEN_PID=$$ {words} exec "$@"'
        self.prefix = ["sh", "-c", script, "sh"]

    def mount_full(self, name, *options):
        """nearkey sees a file system without room at DIR/name."""
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        options = list(options) or ["-o", "nr_inodes=1"]
        mount = ["mount", "-t", "tmpfs", *options, "none", path]
        self.prefix = ["unshare", "-Urm", "sh", "-c", shlex.join(mount) + ' && exec "$@"', "sh"]
        probe = subprocess.run([*self.prefix, "true"], capture_output=True, text=True, timeout=20)
        if probe.returncode != 0:
            self.test.skipTest(f"no mount in a namespace here: {probe.stderr.strip()[:200]}")

    def make_certificates(self):
        make_certificates(self.directory)

    def start_nearkey(self, upstream=None, **options):
        return self.test.start_nearkey(upstream or self.server.url, **options)

    def start_cacheless(self):
        return self.start_nearkey(settings={"near_cache.enabled": "false"})

    def free_port(self):
        return free_port()

    @property
    def open_port(self):
        return self.server.port

    @property
    def web_port(self):
        web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        self.test.addCleanup(web.server_close)
        self.test.addCleanup(web.shutdown)
        return web.server_port

    def greeter(self, line, hears=2):
        """Says `line` to everybody who has said something, and closes when it has heard him so
        often."""
        listener = self.keep(socket.create_server(("127.0.0.1", 0)))

        def greet():
            while True:
                try:
                    with listener.accept()[0] as peer:
                        peer.recv(1000)
                        peer.sendall(line + b"\r\n")
                        if hears > 1:
                            peer.recv(1000)
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=greet, daemon=True).start()
        return listener.getsockname()[1]

    def start_server(self, **options):
        server = ValkeyServer(self.directory, tcp=True, name="other", **options)
        self.test.addCleanup(server.stop)
        return server.start()

    def locked_port(self):
        server = self.start_server(args=["--requirepass", "right"])
        server.password = "right"
        password = ">" + SECRET
        server.run("ACL", "SETUSER", "mute", "on", password, "~*", "+@all", "-command")
        return server.port

    def tls_port(self):
        self.make_certificates()
        port = free_port()
        path = os.path.join(self.directory, "{}").format
        args = ["--tls-port", str(port), "--tls-cert-file", path("server.crt")]
        args += ["--tls-key-file", path("server.key"), "--tls-ca-cert-file", path("ca.crt")]
        try:
            self.start_server(args=[*args, "--tls-auth-clients", "no"])
        except AssertionError:
            self.test.skipTest("this valkey-server was built without TLS")
        return port

    def foreign_socket(self):
        listener = self.keep(socket.socket(socket.AF_UNIX))
        path = f"{self.directory}/foreign.sock"
        listener.bind(path)
        listener.listen()
        return path

    def alias_of_listener(self):
        port = free_port()
        self.test.listen = [f"tcp:127.0.0.1:{port}"]
        return f"valkey://127.0.0.2:{port}"


def table_tests(rows):
    """A class decorator: one test for each row, named after it."""

    def decorate(case):
        for row in rows:
            name = "test_" + re.sub(r"\W+", "_", row.name).strip("_")
            assert not hasattr(case, name), f"twice: {row.name}"
            setattr(case, name, lambda self, row=row: self.check(row))
        return case

    return decorate


class OperatorTest(SystemTest):
    listen = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="nearkey-test-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.server = ValkeyServer(folder, tcp=True)
        cls.addClassCleanup(cls.server.stop)
        cls.server.start()

    def pattern(self, text, world):
        text = text.replace("DIR", re.escape(self.directory)).replace("PORT", str(world.port))
        return text.replace("P[O]RT", "PORT")

    def assert_line(self, expected, lines, world):
        self.assertEqual(1, len(lines), "\n".join(lines))
        self.assertNotIn(SECRET, lines[0])
        self.assertRegex(lines[0], "^" + self.pattern(expected, world) + "$")
        line = lines[0].replace(self.directory, SHOWN["DIR"])
        line = re.sub(r"(127\.0\.0\.1:)\d+", rf"\g<1>{SHOWN['PORT']}", line)
        return re.sub(r"managed-\d+", "managed-4711", line)


def worded(line):
    """A line of the log as EVENT: REASON, unless it only informs; other lines as they are."""
    if not line.startswith("{"):
        return line
    entry = json.loads(line)
    # That a flag holds a password is another matter (test_secrets.py).
    if entry["level"] in ("debug", "info") or entry["event"] == "password_exposed":
        return None
    return f"{entry['event']}: {entry.get('reason', '')}"


@proxy_only
@table_tests([*CONFIGURATION, *COMMAND_LINE, *STARTING, *ACCESS, *SECRETS, *PROBE])
class StartTest(OperatorTest):
    def check(self, row):
        world = World(self)
        arguments = row.arguments(world)
        done = subprocess.run(
            [*world.prefix, BINARY, *arguments],
            env=program_environment(self.directory, world.environment),
            cwd=self.directory,
            pass_fds=world.descriptors,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=15 * SLOWNESS,
        )
        output = done.stdout if arguments[0] == "ready" and not done.stderr else done.stderr
        lines = [line for line in map(worded, output.splitlines()) if line is not None]
        self.assertEqual(row.code, done.returncode, output)
        said[row.name] = self.assert_line(row.line, lines, world)
        self.assertNotIn(SECRET, done.stdout + done.stderr)


@proxy_only
@table_tests(UPSTREAM)
class UpstreamTest(OperatorTest):
    def check(self, row):
        world = World(self)
        url = row.url(world)
        nearkey = Nearkey(
            self.directory, url, settings={**QUICK, **world.settings}, listen=self.listen
        )
        nearkey.command = [*world.prefix, *nearkey.command]
        self.addCleanup(nearkey.kill)
        nearkey.start(ready=False)

        def warnings():
            lines = [(line, worded(line)) for line in list(nearkey.lines)]
            return [line for line, words in lines if words is not None]

        wait_for(warnings, 10, "a line in the log")
        # It goes on trying, and says no more.
        failures = nearkey.metrics()["nearkey_upstream_dial_failures_total"]
        if failures > 0:
            wait_for(
                lambda: nearkey.metric("nearkey_upstream_dial_failures_total") >= failures + 2,
                10,
                "further attempts",
            )
        line = self.assert_line(
            r"\w+: " + row.reason, [worded(line) for line in warnings()], world
        )
        said[row.name] = line.split(": ", 1)[1]
        entry = json.loads(warnings()[0])
        self.assertRegex(entry["upstream"], r"^(valkeys?|unix)://")
        status, state = nearkey.get("/readyz")
        self.assertEqual((503, "not ready"), (status, state["state"]))
        self.assertEqual(f"{entry['upstream']}: {entry['reason']}", state["reason"])
        probe = run_nearkey(self.directory, "ready", "--admin", nearkey.admin_path)
        self.assertEqual(1, probe.returncode)
        self.assertEqual(1, len(probe.stdout.splitlines()), probe.stdout)
        self.assertIn(entry["reason"], probe.stdout)
        everything = "\n".join([*nearkey.lines, json.dumps(state), probe.stdout])
        self.assertNotIn(SECRET, everything)
        nearkey.stop()


@proxy_only
class WarningTest(OperatorTest):
    def test_fewer_descriptors_than_the_limits_ask_for(self):
        """It serves, and says so."""
        nearkey = Nearkey(self.directory, self.server.url)
        nearkey.command = ["prlimit", "--nofile=512", *nearkey.command]
        self.addCleanup(nearkey.kill)
        nearkey.start()
        lines = [line for line in map(worded, nearkey.lines) if line is not None]
        self.assert_line(
            r"few_descriptors: limits\.clients_max and upstream\.\*_max together need more file "
            r"descriptors; raise LimitNOFILE= of the unit \(ulimit -n\), or lower "
            r"limits\.clients_max",
            lines,
            World(self),
        )
        nearkey.stop()


@proxy_only
class CountTest(unittest.TestCase):
    def test_there_are_enough_of_them_and_each_has_a_name_of_its_own(self):
        show_figure(f"operator errors: {len(ROWS)} kinds, one line each")
        self.assertGreaterEqual(len(ROWS), 90)
        self.assertEqual(len(ROWS), len({row.name for row in ROWS}))

    def test_the_page_shows_each_of_them(self):
        with open(PAGE) as file:
            cells = [line.strip().strip("|").split(" | ") for line in file if line.startswith("| ")]
        page = {cell[0].strip(): cell for cell in cells if len(cell) == 3}
        for row in ROWS:
            _, line, code = page[row.name]
            expected = row.reason if row in UPSTREAM else row.line
            for word, shown in SHOWN.items():
                expected = re.sub(rf"\b{word}\b", re.escape(shown), expected)
            expected = expected.replace("P[O]RT", "PORT")
            self.assertRegex(unquoted(line), f"^{expected}$", row.name)
            self.assertEqual(str(getattr(row, "code", NOT_READY)), code.strip())
        self.assertLessEqual(set(page) - {"mistake", "---"}, {row.name for row in ROWS})


def quoted(line):
    """As code in a cell of a table."""
    fence = "``" if "`" in line else "`"
    return f"{fence}{line}{fence}".replace("|", "\\|")


def unquoted(cell):
    return cell.strip().strip("`").replace("\\|", "|")


def tearDownModule():
    if os.environ.get("NEARKEY_TEST_WRITE_DOCS") != "1" or len(said) != len(ROWS):
        return
    with open(PAGE, "w") as file:
        file.write(HEAD)
        for title, rows in SECTIONS.items():
            file.write(f"\n## {title}\n| mistake | line | exit code |\n| --- | --- | --- |\n")
            for row in rows:
                code = getattr(row, "code", NOT_READY)
                file.write(f"| {row.name} | {quoted(said[row.name])} | {code} |\n")


if __name__ == "__main__":
    unittest.main()
