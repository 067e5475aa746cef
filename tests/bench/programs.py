"""Starts and stops the programs of the benchmark: Valkey, the proxies, the echo server, the relay.

Each is a child that is signalled by pid only, sits in a session of its own (a ^C is for us alone),
and dies with us (setpriv --pdeathsig), whatever happens to us.
"""
import contextlib
import os
import resource
import shutil
import socket
import struct
import subprocess
import time
from dataclasses import dataclass

import signals

START_TIMEOUT_S = 15
STOP_TIMEOUT_S = 8  # More than nearkey's server.drain_timeout_ms.
UNIX_PATH_MAX = 107
# From a client to Valkey and back; the relay adds half of it to each way.
FAR_RTT_US = 500

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

HAPROXY_CONFIG = """\
global
  nbthread 1
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen bench
  bind unix@{listen} mode 700
  server valkey unix@{upstream}
"""


class BenchError(Exception):
    """Nothing can be measured; the message says why."""


class RunVoid(BenchError):
    """One run has no result, as a reply was an error; the others may have one."""


@dataclass
class Contender:
    """One way to the data: where clients connect, and the programs whose processor time it takes.
    `proxy` is None where clients reach Valkey itself."""
    name: str
    address: list  # Of nearkey_load_client: --unix PATH or --port PORT.
    proxy: object = None
    is_near_cache: bool = False


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

    @property
    def pid(self):
        return self.process.pid

    def rss_bytes(self):
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
                return int(statm.read().split()[1]) * resource.getpagesize()
        except (FileNotFoundError, IndexError):
            raise self.death() from None

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


def raise_descriptor_limit():
    """For us and for what we start: a thousand clients need more than the usual 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tied_to_us(command):
    return ["setpriv", "--pdeathsig", "KILL", *command]


@contextlib.contextmanager
def child(command, **options):
    """A process that does not outlive the `with`."""
    process = None
    try:
        with signals.deferred():
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True,
                                       **options)
        yield process
    finally:
        if process is not None:
            process.kill()
            process.wait()


def find_program(*names):
    """The path of the first of these programs that is installed, or None."""
    # nutcracker and haproxy are in a folder that is not on every user's PATH.
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
    # settimeout() would have connect() fail at once where others wait to be accepted.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 5, 0))
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    client.settimeout(5)
    return client


def encode(*words):
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


class Bench:
    """Valkey and all that stands in front of it, in one private directory."""

    def __init__(self, directory, stack, tools):
        self.directory = directory
        self.stack = stack  # An ExitStack: stops what was started, also when the next start fails.
        self.tools = tools  # The folder of nearkey_load_client and its like.
        self.programs = []
        self.valkey_path = self.socket_path("valkey")
        self.valkey_port = free_port()
        self.far_port = None
        self.valkey = None

    def socket_path(self, name):
        path = os.path.join(self.directory, f"{name}.sock")
        if len(path.encode()) > UNIX_PATH_MAX:
            raise BenchError(f"too long for a Unix socket, set a shorter TMPDIR: {path}")
        return path

    def start(self, name, command):
        with signals.deferred():
            program = Program(name, self.directory, command)
            self.stack.callback(program.stop)
        self.programs.append(program)
        return program

    def check_alive(self):
        for program in self.programs:
            program.check_alive()

    def tool(self, name):
        path = os.path.join(self.tools, name)
        if not os.path.exists(path):
            raise BenchError(f"{path} is not built; see scripts/build")
        return path

    def start_valkey(self):
        self.valkey = self.start("valkey", [
            need_program("valkey-server", "redis-server"), "--bind", "127.0.0.1",
            "--port", str(self.valkey_port), "--unixsocket", self.valkey_path,
            "--unixsocketperm", "700", "--dir", self.directory, "--daemonize", "no",
            "--save", "", "--appendonly", "no"])
        self.valkey.wait_until_answers(lambda: connect_unix(self.valkey_path), ["PING"], b"+PONG")

    def start_far(self):
        """Valkey as if on another host: TCP, and so much later."""
        if self.far_port is not None:
            return
        self.far_port = free_port()
        relay = self.start("relay", [self.tool("nearkey_delay_relay"), str(self.far_port),
                                     self.valkey_path, str(FAR_RTT_US // 2)])
        relay.wait_until_answers(
            lambda: socket.create_connection(("127.0.0.1", self.far_port), 5), ["PING"], b"+PONG")

    def direct_unix(self):
        return Contender("direct-unix", ["--unix", self.valkey_path])

    def direct_tcp(self):
        return Contender("direct-tcp", ["--port", str(self.valkey_port)])

    def direct_far(self):
        self.start_far()
        return Contender("direct-far", ["--port", str(self.far_port)])

    def nutcracker(self):
        path = self.socket_path("nutcracker")
        config = self.write("nutcracker.yml", NUTCRACKER_CONFIG.format(
            listen=path, upstream=self.valkey_path))
        # It answers PING itself; a GET shows that it reaches our Valkey.
        return self.proxy("nutcracker", path, [
            need_program("nutcracker"), "-c", config, "-a", "127.0.0.1", "-s", str(free_port()),
            "-o", os.path.join(self.directory, "nutcracker-own.log"),
            "-p", os.path.join(self.directory, "nutcracker.pid")])

    def haproxy(self):
        path = self.socket_path("haproxy")
        config = self.write("haproxy.cfg", HAPROXY_CONFIG.format(
            listen=path, upstream=self.valkey_path))
        return self.proxy("haproxy", path, [need_program("haproxy"), "-db", "-f", config])

    def echo(self, request_bytes, value_bytes):
        path = self.socket_path("echo")
        program = self.start("echo", [self.tool("nearkey_echo_server"), path,
                                      str(request_bytes), str(value_bytes)])
        program.wait_until_answers(lambda: connect_unix(path), ["x" * request_bytes], b"$")
        return Contender("echo", ["--unix", path], program)

    def nearkey(self, name, binary, settings, **options):
        path = self.socket_path(name)
        contender = self.proxy(name, path, self.nearkey_command(name, binary, settings, **options))
        contender.is_near_cache = settings.get("near_cache.enabled") != "false"
        return contender

    def nearkey_command(self, name, binary, settings, is_far=False):
        if is_far:
            self.start_far()
        upstream = (f"valkey://127.0.0.1:{self.far_port}" if is_far
                    else f"unix://{self.valkey_path}?db=0")
        command = [binary, "serve", "--upstream", upstream, "--listen", self.socket_path(name),
                   "--admin", self.socket_path(f"{name}-admin")]
        for option, value in settings.items():
            command += ["--set", f"{option}={value}"]
        return command

    def with_shared_memory(self, name, command):
        """The same nearkey, whose clients may have its shared memory."""
        at = command.index("--listen")
        config = self.write(f"{name}.toml", f"""[[listener]]
address = "{command[at + 1]}"
shared_memory = true
""")
        return [*command[:at], "--config", config, *command[at + 2:]]

    def proxy(self, name, path, command):
        program = self.start(name, command)
        program.wait_until_answers(lambda: connect_unix(path), ["GET", "no such key"], b"$-1\r\n")
        return Contender(name, ["--unix", path], program)

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path
