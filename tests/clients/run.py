#!/usr/bin/env python3
"""Runs real clients against nearkey, each as its users write it.

    tests/clients/run.py [--only REGEX] [--direct | --cluster] [BUILD_DIR]

--only keeps the cases whose name, CLIENT/CASE, the regex finds; --direct runs the same programs
against valkey-server itself, to check them against the oracle; --cluster runs them, and clients
that know clusters, before a cluster of three (before_cluster.py lists what is expected to fail).
Prints `CLIENT/CASE: ok`, `FAIL` or
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

import before_cluster
from clients import HERE, ROOT, Missing, all_clients, cluster_clients, environment, prepare

TIMEOUT_S = 60
# redigo's own suite comes over TCP, and says CONFIG SET. The others do with the default rules.
CONFIG = """
[[listener]]
address = "{path}"
[[listener]]
address = "tcp:127.0.0.1:{port}"
commands = "+@all"
"""
# Another one that clients of clusters are shown.
FACE = """
[[listener]]
address = "tcp:127.0.0.1:{face}"
face = "cluster"
"""
LEFT_BEHIND_S = 5
LOG_LINES = 30


class Servers:
    """A private valkey-server and, unless the clients talk to that one, a nearkey before it."""

    def __init__(self, directory, direct=False):
        from processes import ValkeyServer, wait_for

        self._wait_for = wait_for
        self.nearkey = None
        self.nodes = self._start_nodes(directory, ValkeyServer)
        if not direct:
            self._start_nearkey(directory)
        self.path = self.nodes[0].path if direct else self.nearkey.path
        self.tcp = f"127.0.0.1:{self.nodes[0].port if direct else self.port}"

    def _start_nodes(self, directory, valkey_server):
        return [valkey_server(directory, tcp=True).start()]

    def _url(self):
        return f"unix://{self.nodes[0].path}"

    def _start_nearkey(self, directory):
        from processes import Nearkey, free_port

        self.port, face = free_port(), free_port()
        text = CONFIG + (FACE if self.is_cluster else "")
        config = os.path.join(directory, "nearkey.toml")
        with open(config, "w") as file:
            path = os.path.join(directory, "nearkey.sock")
            file.write(text.format(path=path, port=self.port, face=face))
        self.face = f"127.0.0.1:{face}"
        self.nearkey = Nearkey(directory, self._url(), listen=[], args=["--config", config])
        self.nearkey.start()

    is_cluster = False

    def expected_failure(self, client, case):
        """Why a case must fail; "" where it must pass."""
        return ""

    def reason_not_to_run(self, client, case):
        return ""

    def clear(self):
        """An empty server for the next client; an assertion fails where nearkey has ended."""
        if self.nearkey and not self.nearkey.is_running():
            raise AssertionError(f"nearkey has ended: {self.nearkey.process.poll()}")
        for node in self.nodes:
            node.run("FLUSHALL")
            node.run("SCRIPT", "FLUSH")
            node.run("FUNCTION", "FLUSH")

    def restart(self):
        for node in self.nodes:
            node.stop()
        if self.nearkey:
            self.nearkey.wait_unready()
        for node in self.nodes:
            node.start()
        if self.nearkey:
            self.nearkey.wait_ready()

    def left_behind(self):
        """What the server still keeps for clients that are gone: "" once it is nothing."""

        def rows():
            return [row for node in self.nodes for row in node.clients() if is_busy(row)]

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
        for node in self.nodes:
            node.stop()


class ClusterServers(Servers):
    """A cluster of three, and a nearkey before it that looks like one server, or like a cluster."""

    is_cluster = True

    def _start_nodes(self, directory, valkey_server):
        from clusters import Cluster

        self._cluster = Cluster(directory).start()
        return self._cluster.nodes

    def _url(self):
        return self._cluster.url()

    def restart(self):
        super().restart()
        self._cluster.wait_until_ok()

    def expected_failure(self, client, case):
        return before_cluster.reason(client, case)

    def reason_not_to_run(self, client, case):
        return before_cluster.reason_not_to_run(client, case)


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
        self.has_failed_as_expected = False
        self.status = None
        address = servers.face if client.face else servers.tcp if client.tcp else servers.path
        self._run([*command, address, ",".join(cases)])
        for case in cases:
            if case not in self.verdicts:
                self._take(case, f"FAIL {self._end()}")
        # A case that failed as expected makes the program end with another status than 0.
        if self.status != 0 and not self.failed() and not self.has_failed_as_expected:
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
        why = self.servers.expected_failure(self.client.name, case)
        if why and verdict.startswith("FAIL"):
            self.has_failed_as_expected = True
            verdict = f"skipped ({why})"
        elif why and verdict == "ok":
            verdict = f"FAIL it passes: take it off before_cluster.py ({why})"
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
    wanted = [case for case in cases if matches(client, case, only)]
    cases, left_out = [], 0
    for case in wanted:
        if why := servers.reason_not_to_run(client.name, case):
            print(f"{client.name}/{case}: skipped ({why})", flush=True)
            left_out += 1
        else:
            cases.append(case)
    if not cases:
        return {"skipped": left_out}
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
    return {"passed": passed, "failed": failed, "skipped": skipped + left_out}


def run_all(servers, only):
    """Runs every client, and counts; what ends nearkey or the server ends the run as well."""
    counts = collections.Counter()
    try:
        clients = [*all_clients(), *(cluster_clients() if servers.is_cluster else [])]
        for client in clients:
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
    parser.add_argument("--cluster", action="store_true", help="before a Valkey Cluster")
    parser.add_argument("build", nargs="?", metavar="BUILD_DIR", default=str(ROOT / "build"))
    options = parser.parse_args()
    os.environ["NEARKEY_BINARY"] = str(Path(options.build).resolve() / "nearkey")
    sys.path.insert(0, str(ROOT / "tests" / "system"))
    with tempfile.TemporaryDirectory(prefix="nearkey-clients-") as directory:
        servers = ClusterServers(directory) if options.cluster else Servers(directory, options.direct)
        counts = run_all(servers, options.only)
    totals = [f"{counts[what]} {what}" for what in ("passed", "failed", "skipped")]
    print(f"clients: {', '.join(totals)}")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
