"""The real programs that the system tests talk to: valkey-server and nearkey.

Only processes that were started here are ever signalled, by pid; each dies with the test process
(setpriv --pdeathsig).
"""

import functools
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

from resp import RespClient

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(os.environ.get("NEARKEY_BINARY", os.path.join(ROOT, "build", "nearkey")))
SLOW = os.environ.get("NEARKEY_TEST_SLOW") == "1"
# Event loops of each nearkey, unless a test says how many.
WORKERS = os.environ.get("NEARKEY_TEST_WORKERS")
# Upper bounds of time are multiplied by it: what else the machine does is not what is tested.
SLOWNESS = 6 if SLOW else 2


# Another server than the one that is installed: scripts/test --server sets it.
SERVER = os.environ.get("NEARKEY_TEST_SERVER")


def valkey_program(name):
    """The path of valkey-NAME, or of redis-NAME where the distribution has no Valkey."""
    if name == "server" and SERVER:
        return SERVER
    for prefix in ("valkey-", "redis-"):
        path = shutil.which(prefix + name)
        if path is not None:
            return path
    raise unittest.SkipTest(f"neither valkey-{name} nor redis-{name} is installed")


@functools.cache
def is_server(version):
    """Whether the tests run with it, as in "Redis server v=7.0.": some say things in other words."""
    said = subprocess.run([valkey_program("server"), "--version"], capture_output=True, text=True)
    return said.stdout.startswith(version)


def is_slowness(entry):
    """Whether a line of nearkey's log says only that its server was silent for some seconds: of a
    busy machine, that is no fault."""
    is_silent = entry["event"] == "not_ready" and entry["reason"].startswith("no PONG for")
    return is_silent or entry["event"] == "upstream_suspect"


def wait_for(condition, timeout, what):
    """Polls until the condition is true and returns its value; an assertion failure after `timeout`
    seconds."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout * SLOWNESS} s: {what}")
        time.sleep(0.005)


@functools.cache
def own_ports():
    """What tests/run_all.py gives a suite, from some port on, as a cycle; None: it gives none."""
    first, _, last = os.environ.get("NEARKEY_TEST_PORTS", "").partition("-")
    if not last:
        return None
    ports = list(range(int(first), int(last) + 1))
    start = random.randrange(len(ports))
    return itertools.cycle(ports[start:] + ports[:start])


def free_port():
    """A port of 127.0.0.1 where nobody listens. Of a suite's own range it stays free until it is
    used: neither another suite takes it, nor the kernel for a connection."""
    while True:
        with socket.socket() as probe:
            port = next(own_ports()) if own_ports() else 0
            if port:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]


class Process:
    """A child of ours, signalled by pid only."""

    process = None

    @property
    def pid(self):
        return self.process.pid

    def spawn(self, command, **options):
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, **options
        )

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def freeze(self):
        self.signal(signal.SIGSTOP)
        wait_for(lambda: self._state() == "T", 2, "the process is stopped")

    def thaw(self):
        self.signal(signal.SIGCONT)

    def _state(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]

    def kill(self):
        if self.is_running():
            self.process.kill()
        if self.process is not None:
            self.process.wait(10)


class ValkeyServer(Process):
    """A private valkey-server on a Unix socket, and on a loopback TCP port (plain or TLS) if asked
    to."""

    def __init__(
        self, directory, *, tcp=False, bind="127.0.0.1", port=None, args=(), name="valkey"
    ):
        self.directory = directory
        self.path = os.path.join(directory, f"{name}.sock")
        self.log_path = os.path.join(directory, f"{name}.log")
        self.bind = bind
        self.port = port if port is not None else (free_port() if tcp else 0)
        self.args = list(args)
        self.password = None

    @property
    def address(self):
        return (self.bind, self.port)

    @property
    def url(self):
        return f"unix://{self.path}" if self.port == 0 else f"valkey://{self.bind}:{self.port}"

    def start(self, *extra, wait=True):
        self.spawn(
            [
                valkey_program("server"),
                "--port",
                str(self.port),
                "--bind",
                self.bind,
                "--unixsocket",
                self.path,
                "--dir",
                self.directory,
                "--save",
                "",
                "--daemonize",
                "no",
                "--logfile",
                self.log_path,
                "--enable-debug-command",
                "yes",
                *self.args,
                *extra,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if wait:
            wait_for(self.answers, 10, "valkey-server answers PING")
        return self

    def answers(self):
        """True once PING is answered with PONG (or with a request for the password)."""
        assert self.is_running(), f"valkey-server ended: {self.last_words()}"
        try:
            with RespClient(self.path, timeout=1) as client:
                return client.command("PING")[:5] in (b"+PONG", b"-NOAU")
        except OSError:
            return False

    def last_words(self):
        """The end of its log."""
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-5:])

    def client(self):
        client = RespClient(self.path)
        if self.password is not None:
            assert client.command("AUTH", self.password) == b"+OK\r\n"
        return client

    def run(self, *command):
        with self.client() as client:
            return client.value(*command)

    def clients(self):
        """The connections that others have to the server, as dictionaries: CLIENT LIST without
        ourselves."""
        with self.client() as client:
            own = str(client.value("CLIENT", "ID"))
            lines = client.value("CLIENT", "LIST").decode(errors="replace").splitlines()
        rows = [dict(field.split("=", 1) for field in line.split()) for line in lines if line]
        return [row for row in rows if row["id"] != own]

    def stop(self):
        if self.is_running():
            self.signal(signal.SIGCONT)
            self.process.kill()
        if self.process is not None:
            self.process.wait(10)


class AdminConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("nearkey", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


# The default rules refuse what would hurt everybody on a shared server: no matter here.
EVERY_COMMAND = {"server.commands": "+@all"}


class Nearkey(Process):
    """`nearkey serve` with a private listening socket and admin socket; its log lines are
    collected."""

    def __init__(
        self, directory, upstream=None, *, settings=None, args=(), listen=None, environment=None
    ):
        self.directory = directory
        self.path = os.path.join(directory, "nearkey.sock")
        self.admin_path = os.path.join(directory, "admin.sock")
        self.command = [BINARY, "serve", "--admin", self.admin_path]
        self.command += ["--upstream", upstream] if upstream is not None else []
        for address in listen if listen is not None else [self.path]:
            self.command += ["--listen", address]
        workers = {"server.workers": WORKERS} if WORKERS else {}
        for key, value in {**workers, **(settings or {})}.items():
            self.command += ["--set", f"{key}={value}"]
        self.command += list(args)
        self.environment = program_environment(directory, environment)
        self.lines = []
        self._reader = None
        self._stopped = False

    def start(self, *, ready=True, stderr=subprocess.PIPE):
        self.spawn(self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=stderr)
        if stderr == subprocess.PIPE:
            self._reader = threading.Thread(target=self._read_log, daemon=True)
            self._reader.start()
        if ready:
            self.wait_ready()
        return self

    def _read_log(self):
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))

    def logs(self):
        """The log so far as objects; a line that is not one JSON object is an assertion failure."""
        entries = []
        for line in list(self.lines):
            try:
                entry = json.loads(line)
            except ValueError:
                raise AssertionError(
                    f"not a JSON log line: {line!r}\n" + "\n".join(self.lines[-30:])
                )
            assert isinstance(entry, dict), f"not a JSON object: {line!r}"
            entries.append(entry)
        return entries

    def last_words(self):
        """The end of its log."""
        return "\n".join(self.lines[-40:])

    def wait_logged(self, word, timeout=3):
        """Waits for a log line with the word: lines arrive a little later than what they tell."""
        wait_for(lambda: any(word in line for line in list(self.lines)), timeout, f"{word!r} in the log")

    def get(self, path, timeout=5.0):
        """(status, parsed body) of a GET to the admin server, which closes a connection that takes
        nothing for a second: on a busy machine ours is asked anew."""
        for is_last in (False, False, True):
            connection = AdminConnection(self.admin_path, timeout * SLOWNESS)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            except (http.client.IncompleteRead, ConnectionResetError):
                if is_last:
                    raise
            finally:
                connection.close()

    def ready_status(self):
        """200 or 503; 0 while nobody answers."""
        try:
            return self.get("/readyz")[0]
        except (OSError, http.client.HTTPException):
            return 0

    def wait_ready(self, timeout=10):
        def ready():
            assert (
                self.is_running()
            ), f"nearkey ended with {self.process.poll()}: {self.lines[-20:]}"
            return self.ready_status() == 200

        wait_for(ready, timeout, "nearkey is ready")

    def wait_unready(self, timeout=5):
        wait_for(lambda: self.ready_status() == 503, timeout, "nearkey is not ready")

    def metrics(self):
        return self.get("/stats")[1]

    def metric(self, name):
        return self.metrics()[name]

    def client(self, **options):
        return RespClient(self.path, **options)

    def stop(self, timeout=10):
        """SIGTERM; the exit code must be 0, the log all JSON."""
        if self.process is None or self._stopped:
            return
        self._stopped = True
        if self.is_running():
            self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError("nearkey did not end after SIGTERM")
        if self._reader is not None:
            self._reader.join(5)
        assert code == 0, f"nearkey ended with {code}: {self.last_words()}"
        self.logs()


def program_environment(directory, extra=None):
    """Our environment without what configures nearkey, so that a test says all of it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CACHE_URL", "NEARKEY_CONFIG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
    }
    return {**kept, "XDG_RUNTIME_DIR": directory, **(extra or {})}


def run_nearkey(directory, *args, environment=None, timeout=10):
    """Runs a command of nearkey that ends by itself."""
    return subprocess.run(
        [BINARY, *args],
        env=program_environment(directory, environment),
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout * SLOWNESS,
    )
