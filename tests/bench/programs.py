"""Starts and stops the programs that the benchmark measures: Valkey, nutcracker and nearkey.

Each is a child that is signalled by pid only, sits in a session of its own (a ^C is for us alone),
and dies with us (setpriv --pdeathsig), whatever happens to us.
"""
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 15
STOP_TIMEOUT_S = 8  # More than nearkey's server.drain_timeout_ms.
UNIX_PATH_MAX = 107

KEYS = 100_000
VALUE_BYTES = 100
FILL_BATCH = 1000

NUTCRACKER_CONFIG = """\
bench:
  listen: {listen}
  redis: true
  hash: fnv1a_64
  distribution: ketama
  auto_eject_hosts: false
  preconnect: true
  servers:
   - {upstream}:1
"""


class BenchError(Exception):
    """Nothing can be measured; the message says why."""


@dataclass
class Target:
    """What valkey-benchmark is pointed at; `proxy` is None where that is Valkey itself."""
    name: str
    address: list
    proxy: object


class Program:
    """A child of ours and its log."""

    def __init__(self, name, directory, command):
        self.name = name
        self.log_path = os.path.join(directory, f"{name}.log")
        # A CACHE_URL of the caller's would not win over our flags; a NEARKEY_CONFIG would count.
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("CACHE_URL", "NEARKEY_CONFIG")}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                tied_to_us(command), cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True)

    def cpu_ticks(self):
        """Clock ticks of user and system time so far, of all threads."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            raise self.death() from None
        return int(fields[11]) + int(fields[12])

    def check_alive(self):
        if self.process.poll() is not None:
            raise self.death()

    def death(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            tail = "".join(log.readlines()[-10:]).rstrip()
        return BenchError(f"{self.name} ended (status {self.process.poll()}):\n{tail}")

    def wait_until_answers(self, connect, command, expected):
        deadline = time.monotonic() + START_TIMEOUT_S
        answer = "no connection"
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                with connect() as client:
                    client.sendall(encode(*command))
                    answer = client.recv(4096)
                if answer.startswith(expected):
                    return
            except OSError as error:
                answer = error
            time.sleep(0.02)
        raise BenchError(f"{self.name} does not serve after {START_TIMEOUT_S} s: {answer!r}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def tied_to_us(command):
    return ["setpriv", "--pdeathsig", "KILL", *command]


def find_program(*names):
    """The path of the first of these programs that is installed, or None."""
    # nutcracker is in a folder that is not on every user's PATH.
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    return next(filter(None, (shutil.which(name, path=places) for name in names)), None)


def need_program(*names):
    path = find_program(*names)
    if path is None:
        raise BenchError(f"{' or '.join(names)} is not installed; see scripts/install-deps --test")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect_unix(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def encode(*words):
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


class Bench:
    """Valkey, filled, and the proxies in front of it, all in one private directory."""

    def __init__(self, directory, stack):
        self.directory = directory
        self.stack = stack  # An ExitStack: stops what was started, also when the next start fails.
        self.programs = []
        self.valkey_path = self.socket_path("valkey")
        self.valkey_port = free_port()
        self.valkey = None

    def socket_path(self, name):
        path = os.path.join(self.directory, f"{name}.sock")
        if len(path.encode()) > UNIX_PATH_MAX:
            raise BenchError(f"too long for a Unix socket, set a shorter TMPDIR: {path}")
        return path

    def start(self, name, command):
        program = Program(name, self.directory, command)
        self.stack.callback(program.stop)
        self.programs.append(program)
        return program

    def start_valkey(self):
        self.valkey = self.start("valkey", [
            need_program("valkey-server", "redis-server"), "--bind", "127.0.0.1",
            "--port", str(self.valkey_port), "--unixsocket", self.valkey_path,
            "--unixsocketperm", "700", "--dir", self.directory, "--daemonize", "no",
            "--save", "", "--appendonly", "no"])
        self.valkey.wait_until_answers(lambda: connect_unix(self.valkey_path), ["PING"], b"+PONG")
        self.fill()

    def fill(self):
        """Every key that valkey-benchmark can draw exists, so that no GET is a cheap miss."""
        expected = b"+OK\r\n" * FILL_BATCH
        with connect_unix(self.valkey_path) as client, client.makefile("rb") as replies:
            for first in range(0, KEYS, FILL_BATCH):
                client.sendall(b"".join(
                    encode("SET", f"key:{key:012}", "x" * VALUE_BYTES)
                    for key in range(first, first + FILL_BATCH)))
                if replies.read(len(expected)) != expected:
                    raise BenchError("Valkey refused to be filled")

    def check_filled(self):
        """Valkey still has exactly the keys of fill(): the benchmark wrote to no others."""
        with connect_unix(self.valkey_path) as client:
            client.sendall(encode("DBSIZE"))
            answer = client.recv(100)
        if answer != b":%d\r\n" % KEYS:
            raise BenchError(f"Valkey has {answer!r} keys after the benchmark, not {KEYS}")

    def direct_targets(self):
        return [Target("direct-unix", ["-s", self.valkey_path], None),
                Target("direct-tcp", ["-h", "127.0.0.1", "-p", str(self.valkey_port)], None)]

    def start_nutcracker(self):
        path = self.socket_path("nutcracker")
        config = os.path.join(self.directory, "nutcracker.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(NUTCRACKER_CONFIG.format(listen=path, upstream=self.valkey_path))
        return self.start_proxy("nutcracker", path, [
            need_program("nutcracker"), "-c", config, "-a", "127.0.0.1", "-s", str(free_port()),
            "-o", os.path.join(self.directory, "nutcracker-own.log"),
            "-p", os.path.join(self.directory, "nutcracker.pid")])

    def start_nearkey(self, label, binary):
        path = self.socket_path(label)
        return self.start_proxy(label, path, [
            binary, "serve", "--upstream", f"unix://{self.valkey_path}?db=0", "--listen", path,
            "--admin", self.socket_path(f"{label}-admin")])

    def start_proxy(self, name, path, command):
        program = self.start(name, command)
        # Not PING, which nutcracker answers itself: this shows that the proxy reaches our Valkey.
        program.wait_until_answers(lambda: connect_unix(path), ["GET", f"key:{KEYS - 1:012}"],
                                   b"$%d\r\n" % VALUE_BYTES)
        return Target(name, ["-s", path], program)
