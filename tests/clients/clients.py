"""The client programs of this folder: how each is started, and what it needs to be installed."""

import collections
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "clients"  # install.sh fills it: node_modules, compiled tests.
BUILD_TIMEOUT_S = 300

CASES = (
    "connect pool pipeline transaction watch pubsub blocking-pop streams scripts scan binary "
    "reconnect"
).split()
CLI_CASES = (
    "connect command-line databases pipe bigkeys stat scan monitor subscribe resp3 pipeline "
    "transaction blocking-pop streams scripts binary interactive interactive-transaction "
    "interactive-subscribe reconnect"
).split()

# name: what the lines of output call it. probe: a command that succeeds where the client is
# installed. command: the address and the cases are appended to it. cases: their names, or a
# function for them. tcp: it gets host:port instead of a socket's path. face: the same, of a listener
# that looks like a cluster.
Client = collections.namedtuple(
    "Client", "name probe command cases tcp face", defaults=(CASES, False, False)
)
CLUSTER_CASES = "connect pipeline transaction pubsub blocking-pop scripts several-keys".split()


class Missing(Exception):
    """Something is not installed; its text says what."""


def all_clients():
    yield from python_clients()
    yield from node_clients()
    yield from script_clients()
    yield Client("hiredis", ["cc", "--version"], hiredis_program, [*CASES, "async"])
    yield Client("redigo", ["go", "version"], python("redigo.py"), redigo_tests, tcp=True)
    yield Client("valkey-cli", ["valkey-cli", "--version"], python("valkey_cli.py"), CLI_CASES)


def python_clients():
    probe = ["/usr/bin/python3", "-c", "import redis"]
    yield Client("redis-py", probe, python("redis_py.py"), [*CASES, "monitor"])
    yield Client("redis-py-asyncio", probe, python("redis_py_asyncio.py"))


def cluster_clients():
    """Those that insist on a cluster, and send each command to the node that they believe in."""
    probe = ["/usr/bin/python3", "-c", "import redis.cluster"]
    yield Client("redis-py-cluster", probe, python("redis_py_cluster.py"), CLUSTER_CASES, face=True)
    for name, package, program in (("node-redis-cluster", "redis", "node_redis_cluster.js"),
                                   ("ioredis-cluster", "ioredis", "ioredis_cluster.js")):
        yield Client(name, node_probe(package), ["node", program], CLUSTER_CASES, face=True)
    yield Client("valkey-cli-cluster", ["valkey-cli", "--version"], python("valkey_cli_cluster.py"),
                 ["connect", "follows", "check", "scripts"], face=True)


def python(program):
    return ["/usr/bin/python3", program]


def node_clients():
    probe = node_probe("redis")
    yield Client("node-redis", probe, ["node", "node_redis.js", "2"])
    cases = [*CASES, "client-cache"]
    yield Client("node-redis-resp3", probe, ["node", "node_redis.js", "3"], cases)
    for name in ("ioredis", "iovalkey"):
        yield Client(name, node_probe(name), ["node", "ioredis.js", name], [*CASES, "monitor"])
    cases = [*CASES, "monitor", "client-cache"]
    yield Client("glide", node_probe("@valkey/valkey-glide"), ["node", "glide.js"], cases, tcp=True)


def node_probe(package):
    return ["node", "-e", f"require('{package}')"]


def script_clients():
    probe = ["php", "-r", "exit((int) !class_exists('Redis'));"]
    yield Client("phpredis", probe, ["php", "phpredis.php"])
    probe = ["php", "-r", "require 'Predis/autoload.php';"]
    yield Client("predis", probe, ["php", "predis.php"])
    yield Client("redis-rb", ["ruby", "-e", "require 'redis'"], ["ruby", "redis_rb.rb"])
    for name, module in (("perl", "Redis"), ("perl-fast", "Redis::Fast")):
        probe = ["perl", f"-M{module}", "-e", "1"]
        yield Client(name, probe, ["perl", "redis_perl.pl", module])
    probe = ["lua5.1", "-e", "require 'redis' require 'socket.unix'"]
    yield Client("redis-lua", probe, ["lua5.1", "redis_lua.lua"])


def environment():
    return dict(
        os.environ, NODE_PATH=str(CACHE / "node_modules"), NEARKEY_CLIENTS_CACHE=str(CACHE)
    )


def prepare(client):
    """(command, cases) of a client; Missing where it is not installed."""
    if shutil.which(client.probe[0]) is None:
        raise Missing(f"{client.probe[0]} is not installed")
    if not succeeds(client.probe):
        raise Missing(f"not installed: `{' '.join(client.probe)}` fails")
    CACHE.mkdir(parents=True, exist_ok=True)
    cases = client.cases() if callable(client.cases) else client.cases
    return client.command() if callable(client.command) else client.command, cases


def succeeds(command):
    return subprocess.run(command, env=environment(), capture_output=True).returncode == 0


def hiredis_program():
    """Compiles the C program with the hiredis that nearkey itself is built with."""
    source = HERE / "hiredis_client.c"
    program = CACHE / "hiredis_client"
    copy = ROOT / "subprojects" / "hiredis-1.2.0"
    if succeeds(["pkg-config", "--atleast-version=1.2.0", "hiredis"]):
        flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", "hiredis"], text=True)
        sources = flags.split()
    elif copy.is_dir():
        names = ("alloc", "async", "hiredis", "net", "read", "sds", "sockcompat")
        sources = [f"-I{copy / 'include'}", *(str(copy / f"{name}.c") for name in names)]
    else:
        raise Missing("neither the distribution nor subprojects/ has hiredis 1.2.0")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        new = program.with_suffix(f".{os.getpid()}")
        command = ["cc", "-O1", "-o", str(new), str(source), *sources]
        subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
        new.rename(program)
    return [str(program)]


def redigo_tests():
    """Compiles redigo's tests where that is still to be done, and returns their names."""
    sources = Path("/usr/share/gocode/src/github.com")
    for path in ("gomodule/redigo", "stretchr/testify"):
        if not (sources / path).is_dir():
            raise Missing(f"golang-github-{path.replace('/', '-')}-dev is not installed")
    command = [*python("redigo.py"), "--list"]
    return subprocess.run(
        command, cwd=HERE, env=environment(), check=True, timeout=BUILD_TIMEOUT_S, text=True,
        stdout=subprocess.PIPE,
    ).stdout.split()
