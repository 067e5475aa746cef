"""Runs redigo's own test suite: redigo.py HOST:PORT [TEST,TEST...], or --list for their names.

Debian's golang-github-gomodule-redigo-dev has redigo's source with its tests. Those start a
redis-server of their own; redigo_server.py stands in for it, so that they talk to HOST:PORT.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from cases import report

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ["NEARKEY_CLIENTS_CACHE"])
PROGRAM = CACHE / "redigo.test"
PACKAGE = "github.com/gomodule/redigo/redis"

# TestPushed wants the two replies to PUNSUBSCRIBE in the order of its PSUBSCRIBEs. Valkey's order
# is that of a hash table with a random seed: with valkey-server itself it fails every other time.
RANDOM_ORDER = "its order of two replies is not Valkey's"


def build():
    """Compiles the tests; the Go cache makes a second time short."""
    settings = {
        "GOPATH": "/usr/share/gocode",
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOCACHE": str(CACHE / "go"),
    }
    command = ["go", "test", "-c", "-o", str(PROGRAM), PACKAGE]
    subprocess.run(command, env={**os.environ, **settings}, check=True)


def tests_run(address, names):
    """Runs the tests and yields (name, passed, what it printed)."""
    host, port = address.rsplit(":", 1)
    command = [str(PROGRAM), "-test.v", "-test.count=1"]
    command += ["-redis-server", str(HERE / "redigo_server.py")]
    command += ["-redis-address", host, "-redis-port", port]
    if names:
        command += ["-test.run", f"^({'|'.join(names)})$"]
    child = subprocess.Popen(
        command, cwd=CACHE, text=True, errors="replace", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    lines = []
    for line in child.stdout:
        lines.append(line.rstrip("\n"))
        match = re.match(r"--- (PASS|FAIL|SKIP): (\w+) ", line)
        if match:
            yield match[2], match[1], lines
            lines = []
    sys.stderr.write("\n".join(lines) + "\n")
    if child.wait() not in (0, 1):
        report("end", f"FAIL the tests ended with {child.returncode}")


def has_random_order(name, lines):
    """Whether nothing but that order failed."""
    complaints = [line for line in lines if re.search(r"_test\.go:\d+: ", line)]
    return name == "TestPushed" and all("unsubscribe(" in line.lower() for line in complaints)


def main():
    if sys.argv[1:] == ["--list"]:
        build()
        listing = subprocess.check_output([str(PROGRAM), "-test.list", "."], text=True)
        print("\n".join(re.findall(r"^(?:Test|Example)\w*$", listing, re.M)))
        return 0
    names = sys.argv[2].split(",") if len(sys.argv) > 2 else []
    failed = False
    for name, verdict, lines in tests_run(sys.argv[1], names):
        if verdict == "PASS":
            report(name, "ok")
        elif verdict == "SKIP":
            report(name, "skipped (redigo's own test says so)")
        elif has_random_order(name, lines):
            report(name, f"skipped ({RANDOM_ORDER})")
        else:
            failed = True
            sys.stderr.write("\n".join(lines) + "\n")
            report(name, f"FAIL {' '.join(' '.join(lines[-4:]).split())[:300]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
