"""valkey-cli in its cluster mode, and its checks of a cluster: valkey_cli_cluster.py HOST:PORT
[CASE,CASE...]"""

import subprocess
import sys

from cases import TIMEOUT_S, equal, run

HOST, PORT = sys.argv[1].rsplit(":", 1)


def cli(*arguments, stdin=""):
    """valkey-cli to its end: what it printed."""
    done = subprocess.run(
        ["valkey-cli", *arguments], input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{arguments}: {done.returncode}, {done.stdout}{done.stderr}"
    return done.stdout


def in_cluster(*arguments, stdin=""):
    return cli("-c", "-h", HOST, "-p", PORT, *arguments, stdin=stdin)


def connect():
    equal("PONG\n", in_cluster("PING"))
    equal("OK\n", in_cluster("SET", "key", "value"))
    equal("value\n", in_cluster("GET", "key"))


def follows():
    """There is nothing to follow: each key is at the first node."""
    lines = [f"SET key:{number} {number}" for number in range(200)]
    lines += [f"GET key:{number}" for number in range(200)]
    said = in_cluster(stdin="\n".join(lines) + "\n")
    equal(["OK"] * 200 + [str(number) for number in range(200)], said.splitlines())
    assert "Redirected" not in said


def check():
    said = cli("--cluster", "check", f"{HOST}:{PORT}")
    assert "[OK] All 16384 slots covered." in said, said
    assert "1 primaries" in said or "1 masters" in said or f"{HOST}:{PORT}" in said, said


def scripts():
    equal("7\n", in_cluster("EVAL", "return redis.call('INCRBY', KEYS[1], 7)", "1", "sum"))


run({"connect": connect, "follows": follows, "check": check, "scripts": scripts})
