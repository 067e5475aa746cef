#!/usr/bin/env python3
"""Runs the commands of the examples' READMEs against a real nearkey and a real Valkey.

    tests/examples/run.py [--only REGEX] [--as-written] [BUILD_DIR]

A README's ```sh blocks are typed into one shell, which starts in the repository; a ```sh terminal
block gets a terminal of its own, which stays open. Each command must succeed, and print what the
```text block behind it says, where `...` stands for any text. Prints `examples/NAME: ok`, `FAIL` or
`skipped` with the reason; the last line is `examples: N passed, N failed, N skipped`.

nearkey shares its memory at its listener. The client library in C is the build's.

Two things are not typed as they stand there: /run/nearkey and port 8000 are a folder and a port of
this run. And what `apt-get install` names must be there already, or the example is skipped
(scripts/install-deps --test installs it). --as-written, for a machine that is used for nothing
else: word for word, as root, with nearkey in /run/nearkey, and a yes to apt-get's question.
"""

import argparse
import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "system"))

BLOCK = re.compile(r"^```(sh|sh terminal|text)\n(.*?)^```$", re.M | re.S)
INSTALL = re.compile(r"^sudo apt-get install (.*)\n", re.M)
FOLDER = "/run/nearkey"
PORT = "8000"
TIMEOUT_S = 300
ANY_LINES = "(?:.*\n)*"
END = "--- end of block"


class Missing(Exception):
    """Something is not installed; its text says what."""


class Terminal:
    """A shell that is typed into; what it prints on stdout and stderr is kept apart."""

    def __init__(self, directory, name):
        self._output = open(os.path.join(directory, f"{name}.out"), "w+", errors="replace")
        self._errors = open(os.path.join(directory, f"{name}.err"), "w+", errors="replace")
        self._shell = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "bash", "-e"],
            cwd=ROOT,
            env=environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._errors,
            start_new_session=True,
        )

    def type(self, text):
        # Braces: the commands run in this shell, but do not read what is typed later.
        self._shell.stdin.write(f"{{\n{text}}} </dev/null\necho '{END}'\n")
        self._shell.stdin.flush()

    def is_running(self):
        return self._shell.poll() is None

    def run(self, text):
        """What the commands print on stdout; an assertion fails where one of them does."""
        before = len(self.output())
        self.type(text)
        deadline = time.monotonic() + TIMEOUT_S
        while END not in self.output()[before:]:
            assert self.is_running(), f"failed:\n{text}\n{self.output()}\n{self.errors()}"
            assert time.monotonic() < deadline, f"no end:\n{text}\n{self.errors()}"
            time.sleep(0.02)
        return self.output()[before:].split(END)[0]

    def output(self):
        return read(self._output)

    def errors(self):
        return read(self._errors)

    def close(self):
        """Asks everything in it to end, as closing a terminal does, and then makes it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._shell.pid, number)
                wait_for_group(self._shell)
            except ProcessLookupError:
                break
        self._shell.stdin.close()
        self._shell.wait()


def wait_for_group(shell):
    """Up to ten seconds for the processes of the shell's group."""
    for _ in range(500):
        shell.poll()
        os.killpg(shell.pid, 0)
        time.sleep(0.02)


def read(file):
    with open(file.name, errors="replace") as again:
        return again.read()


def environment():
    """What the READMEs call python3 is Debian's, for which they install packages."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CACHE_URL",)}
    return {**kept, "PATH": f"/usr/bin:/bin:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


class Example:
    """One README: its blocks, and whether what it needs is there."""

    def __init__(self, readme, folder, port, as_written):
        self.name = f"examples/{readme.parent.name}"
        self._as_written = as_written
        text = readme.read_text().replace(FOLDER, folder).replace(f":{PORT}", f":{port}")
        text = text.replace(f"--port {PORT}", f"--port {port}")
        self._port = port if f":{port}" in text else None
        self._blocks = BLOCK.findall(text)

    def prepare(self):
        if self._as_written:
            return
        for kind, text in self._blocks:
            for packages in INSTALL.findall(text):
                missing = [name for name in packages.split() if not is_installed(name)]
                if missing:
                    raise Missing(f"not installed: {', '.join(missing)}")

    def run(self, directory):
        """Runs all blocks; what is printed goes to our stdout as well."""
        terminals = [Terminal(directory, "first")]
        printed = ""
        try:
            for kind, text in self._blocks:
                if kind == "text":
                    assert matches(text, printed), f"expected:\n{text}\nprinted:\n{printed}"
                elif kind == "sh terminal":
                    terminals.append(Terminal(directory, f"terminal-{len(terminals)}"))
                    terminals[-1].type(text)
                    self._wait_for_port(terminals[-1])
                else:
                    printed = terminals[0].run(self._typed(text))
                    print(printed + terminals[0].errors(), flush=True)
        except AssertionError:
            for terminal in terminals[1:]:
                print(terminal.output() + terminal.errors(), flush=True)
            raise
        finally:
            for terminal in reversed(terminals):
                terminal.close()

    def _typed(self, text):
        if self._as_written:
            return INSTALL.sub(r"sudo apt-get install -y \1 >&2\n", text)
        return INSTALL.sub("", text) or "true\n"

    def _wait_for_port(self, terminal):
        deadline = time.monotonic() + 30
        while self._port and not answers(self._port):
            assert terminal.is_running(), "the server has ended"
            assert time.monotonic() < deadline, f"nobody listens on port {self._port}"
            time.sleep(0.05)


def answers(port):
    try:
        socket.create_connection(("localhost", int(port)), 1).close()
        return True
    except OSError:
        return False


def is_installed(package):
    """Node.js may come from elsewhere, with an npm of its own."""
    command = {"nodejs": "node", "npm": "npm"}.get(package)
    if command and shutil.which(command):
        return True
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True).stdout == "installed"


def matches(expected, printed):
    """`...` in a line stands for any text, a line of `...` for any lines."""
    pattern = "".join(
        ANY_LINES if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in expected.splitlines()
    )
    return re.fullmatch(pattern, printed.strip() + "\n")


class Servers:
    """A private valkey-server, and the nearkey before it that the examples talk to."""

    def __init__(self, directory, folder):
        from processes import Nearkey, ValkeyServer

        self.server = ValkeyServer(directory).start()
        config = Path(directory) / "nearkey.toml"
        config.write_text(
            f'[[listener]]\naddress = "{folder}/nearkey.sock"\nshared_memory = true\n'
        )
        self.nearkey = Nearkey(folder, self.server.url, listen=[], args=["--config", str(config)])

    def __enter__(self):
        self.nearkey.start()
        return self

    def __exit__(self, *_):
        self.nearkey.kill()
        self.server.stop()


def offer_client_library(build, directory):
    """pkg-config finds the build's, as if libnearkey-client-dev were installed."""
    packaged = build / "meson-private" / "nearkey-client.pc"
    text = re.sub(r"^includedir=.*", f"includedir={ROOT}/include", packaged.read_text(), flags=re.M)
    text = re.sub(r"^libdir=.*", f"libdir={build}", text, flags=re.M)
    Path(directory, packaged.name).write_text(text)
    for name, folder in (("PKG_CONFIG_PATH", directory), ("LD_LIBRARY_PATH", str(build))):
        os.environ[name] = os.pathsep.join(filter(None, [folder, os.environ.get(name)]))


def run_example(example, servers):
    """`ok`, or what was wrong, or why it was not run."""
    try:
        example.prepare()
    except Missing as why:
        return f"skipped ({why})"
    servers.server.run("FLUSHALL")
    with tempfile.TemporaryDirectory(prefix="nearkey-example-") as directory:
        try:
            example.run(directory)
            assert servers.nearkey.is_running(), f"nearkey: {servers.nearkey.lines[-20:]}"
        except AssertionError as error:
            return f"FAIL {error}"
    return "ok"


def run_all(options, directory):
    from processes import free_port

    folder, port = (FOLDER, PORT) if options.as_written else (directory, str(free_port()))
    os.makedirs(folder, exist_ok=True)
    counts = collections.Counter()
    with Servers(directory, folder) as servers:
        for readme in sorted((ROOT / "examples").glob("*/README.md")):
            example = Example(readme, folder, port, options.as_written)
            if options.only and not re.search(options.only, example.name):
                continue
            started = time.monotonic()
            verdict = run_example(example, servers)
            counts[verdict.split()[0]] += 1
            print(f"{example.name}: {verdict}", flush=True)
            print(f"    {time.monotonic() - started:.1f} s", flush=True)
        servers.nearkey.stop()
    return counts


def main():
    parser = argparse.ArgumentParser(description="Runs the commands of the examples' READMEs.")
    parser.add_argument("--only", metavar="REGEX", help="the examples whose name matches")
    parser.add_argument("--as-written", action="store_true", help="word for word, as root")
    parser.add_argument("build", nargs="?", metavar="BUILD_DIR", default=str(ROOT / "build"))
    options = parser.parse_args()
    build = Path(options.build).resolve()
    os.environ["NEARKEY_BINARY"] = str(build / "nearkey")
    with tempfile.TemporaryDirectory(prefix="nearkey-examples-") as directory:
        offer_client_library(build, directory)
        counts = run_all(options, directory)
    print(f"examples: {counts['ok']} passed, {counts['FAIL']} failed, {counts['skipped']} skipped")
    return 1 if counts["FAIL"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
