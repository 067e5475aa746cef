#!/usr/bin/env python3
"""Runs real clients against nearkey, each as its users write it.

    tests/clients/run.py [--only REGEX] [--direct] [BUILD_DIR]

--only keeps the cases whose name, CLIENT/CASE, the regex finds; --direct runs the same programs
against valkey-server itself, to check them against the oracle. Prints `CLIENT/CASE: ok`, `FAIL` or
`skipped` with the reason; the last line is `clients: N passed, N failed, N skipped`.
tests/clients/install.sh installs the clients; one that is not there is skipped.

A client program gets the address (a socket's path, or host:port) and a list of cases, `a,b,c`.
It prints a line for each, `CASE: ok`, `CASE: FAIL why` or `CASE: skipped (why)`. When it prints
`restart`, the valkey-server is stopped and started again, and then the program reads `done`.
"""

import argparse
import collections
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from clients import HERE, ROOT, Missing, all_clients, environment, prepare

TIMEOUT_S = 60
# redigo's own suite comes over TCP, and says CONFIG SET. The others do with the default rules.
CONFIG = """
[[listener]]
address = "{path}"
[[listener]]
address = "tcp:127.0.0.1:{port}"
commands = "+@all"
"""
LEFT_BEHIND_S = 5
LOG_LINES = 30


class Servers:
    """A private valkey-server and, unless the clients talk to that one, a nearkey before it."""

    def __init__(self, directory, direct):
        from processes import Nearkey, ValkeyServer, free_port, wait_for

        self._wait_for = wait_for
        self.server = ValkeyServer(directory, tcp=True).start()
        self.nearkey = None
        if not direct:
            port = free_port()
            config = os.path.join(directory, "nearkey.toml")
            with open(config, "w") as file:
                file.write(CONFIG.format(path=os.path.join(directory, "nearkey.sock"), port=port))
            self.nearkey = Nearkey(
                directory, f"unix://{self.server.path}", listen=[], args=["--config", config]
            )
            self.nearkey.start()
        self.path = self.server.path if direct else self.nearkey.path
        self.tcp = f"127.0.0.1:{self.server.port if direct else port}"

    def clear(self):
        """An empty server for the next client; an assertion fails where nearkey has ended."""
        if self.nearkey and not self.nearkey.is_running():
            raise AssertionError(f"nearkey has ended: {self.nearkey.process.poll()}")
        self.server.run("FLUSHALL")
        self.server.run("SCRIPT", "FLUSH")
        self.server.run("FUNCTION", "FLUSH")

    def restart(self):
        self.server.stop()
        if self.nearkey:
            self.nearkey.wait_unready()
        self.server.start()
        if self.nearkey:
            self.nearkey.wait_ready()

    def left_behind(self):
        """What the server still keeps for clients that are gone: "" once it is nothing."""

        def rows():
            return [row for row in self.server.clients() if is_busy(row)]

        try:
            self._wait_for(lambda: not rows(), LEFT_BEHIND_S, "")
            return ""
        except AssertionError:
            return f"CLIENT LIST of the server: {rows()}"

    def log_lines(self, start=0):
        return self.nearkey.lines[start:] if self.nearkey else []

    def stop(self):
        """nearkey must end with exit code 0 and without a word that is not a log line."""
        if self.nearkey:
            self.nearkey.stop()

    def kill(self):
        if self.nearkey:
            self.nearkey.kill()
        self.server.stop()


def is_busy(row):
    """Whether a connection is a subscriber or a monitor, is blocked, or has or watches for a
    transaction: nothing of that may outlive the client it was for."""
    watches = int(row.get("watch", 0))
    return set("PObx") & set(row["flags"]) or watches > 0


class Run:
    """One run of one client program: what its cases came to, and all that it printed."""

    def __init__(self, client, command, cases, servers):
        self.client = client
        self.servers = servers
        self.verdicts = {}
        self.lines = []
        self.timed_out = False
        self.status = None
        address = servers.tcp if client.tcp else servers.path
        self._run([*command, address, ",".join(cases)])
        for case in cases:
            if case not in self.verdicts:
                self._take(case, f"FAIL {self._end()}")
        if self.status != 0 and not self.failed():
            self._take("end", f"FAIL {self._end()}")
        left = servers.left_behind()
        self._take("left-behind", f"FAIL {left}" if left else "ok")

    def failed(self):
        return [case for case, verdict in self.verdicts.items() if verdict.startswith("FAIL")]

    def skipped(self):
        return [case for case, verdict in self.verdicts.items() if verdict.startswith("skipped")]

    def _end(self):
        return f"no end after {TIMEOUT_S} s" if self.timed_out else f"the program: {self.status}"

    def _run(self, command):
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], cwd=HERE, env=environment(),
                text=True, errors="replace", bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,
            )
            timer = threading.Timer(TIMEOUT_S, self._stop, [child])
            timer.start()
            try:
                for line in child.stdout:
                    self._read(line.rstrip("\n"), child)
                self.status = child.wait()
            finally:
                timer.cancel()
                kill_group(child)
                child.wait()
            errors.seek(0)
            self.lines += errors.read().splitlines()

    def _read(self, line, child):
        self.lines.append(line)
        match = re.fullmatch(r"([\w-]+): ((?:ok|FAIL|skipped)\b.*)", line)
        if match:
            self._take(match[1], match[2])
        elif line == "restart":
            try:
                self.servers.restart()
                child.stdin.write("done\n")
            except AssertionError as error:
                self.lines.append(f"the restart of the server: {error}")
                kill_group(child)
            except BrokenPipeError:
                pass  # It has ended meanwhile; its status tells.

    def _take(self, case, verdict):
        self.verdicts[case] = verdict
        print(f"{self.client.name}/{case}: {verdict}", flush=True)

    def _stop(self, child):
        self.timed_out = True
        kill_group(child)


def kill_group(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def matches(client, case, only):
    return not only or re.search(only, f"{client.name}/{case}")


def run_client(client, servers, only):
    """Runs the cases of one client that are wanted; returns how many passed, failed, ..."""
    if isinstance(client.cases, list) and not any(matches(client, c, only) for c in client.cases):
        return {}
    try:
        command, cases = prepare(client)
    except Missing as why:
        print(f"{client.name}: skipped ({why})", flush=True)
        return {"skipped": 1}
    except subprocess.SubprocessError as error:
        print(f"{client.name}/build: FAIL {error}", flush=True)
        return {"failed": 1}
    cases = [case for case in cases if matches(client, case, only)]
    if not cases:
        return {}
    servers.clear()
    started = time.monotonic()
    logged = len(servers.log_lines())
    run = Run(client, command, cases, servers)
    failed, skipped = len(run.failed()), len(run.skipped())
    print(f"{client.name}: {time.monotonic() - started:.1f} s", flush=True)
    if failed:
        lines = run.lines[-100:] + servers.log_lines(logged)[-LOG_LINES:]
        print("\n".join("    " + line for line in lines), flush=True)
    passed = len(run.verdicts) - failed - skipped
    return {"passed": passed, "failed": failed, "skipped": skipped}


def run_all(servers, only):
    """Runs every client, and counts; what ends nearkey or the server ends the run as well."""
    counts = collections.Counter()
    try:
        for client in all_clients():
            counts.update(run_client(client, servers, only))
        servers.stop()
    except (AssertionError, OSError) as error:
        counts["failed"] += 1
        print(f"servers: FAIL {error}")
        print("\n".join("    " + line for line in servers.log_lines()[-LOG_LINES:]))
    finally:
        servers.kill()
    return counts


def main():
    parser = argparse.ArgumentParser(description="Runs real clients against nearkey.")
    parser.add_argument("--only", metavar="REGEX", help="the cases whose CLIENT/CASE matches")
    parser.add_argument("--direct", action="store_true", help="without nearkey")
    parser.add_argument("build", nargs="?", metavar="BUILD_DIR", default=str(ROOT / "build"))
    options = parser.parse_args()
    os.environ["NEARKEY_BINARY"] = str(Path(options.build).resolve() / "nearkey")
    sys.path.insert(0, str(ROOT / "tests" / "system"))
    with tempfile.TemporaryDirectory(prefix="nearkey-clients-") as directory:
        counts = run_all(Servers(directory, options.direct), options.only)
    totals = [f"{counts[what]} {what}" for what in ("passed", "failed", "skipped")]
    print(f"clients: {', '.join(totals)}")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
