"""Counts the instructions of nearkey for one request: scripts/bench --instructions.

What else a machine does is not in it, so that a change of one percent shows; nor is what the kernel
does. nearkey runs under callgrind, once with few and once with many requests of the same load; the
difference is what the requests cost, without the start. Exit status: 0; 2 nothing was counted.
"""
import argparse
import contextlib
import json
import re
import sys
import tempfile

import bench
import measure
import paths
import signals
from programs import Bench, BenchError, Contender, connect_unix, need_program

# By -P. Of pipelines of many clients it is chance how their replies mix, and what that costs.
CLIENTS = {1: 50, 16: 1}
KEYS = 1000
VALUE_BYTES = 100
SHARED = "-shared"  # the end of a label
# -P -> (few, many) requests. The few are as many as the sample of hot keys needs to thin out.
REQUESTS = {1: (40_000, 100_000), 16: (80_000, 240_000)}
CASES = [("forwarded GET", "nearkey", "get"), ("forwarded SET", "nearkey", "set"),
         ("stored GET", "nearkey-stored", "get")]


def run_load(field, contender, command, pipeline, requests):
    measure.run_load(field, contender, [
        "--command", command, "--requests", str(requests), "--clients", str(CLIENTS[pipeline]),
        "--pipeline", str(pipeline), "--keys", str(KEYS), "--prefix",
        paths.prefix_of(command, VALUE_BYTES), "--value-bytes", str(VALUE_BYTES)])


def sweep(field, contender, command, prefix):
    measure.run_load(field, contender, [
        "--command", command, "--draw", "sequence", "--requests", str(KEYS), "--clients", "1",
        "--keys", str(KEYS), "--prefix", prefix, "--value-bytes", str(VALUE_BYTES)])


def count(field, label, binary, family, command, pipeline, requests):
    """The instructions of a whole life of nearkey with so many requests."""
    name = f"{label}-counted"
    runner = [need_program("valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    started = field.nearkey_command(name, binary, paths.NEARKEY_SETTINGS[family])
    if label.endswith(SHARED):
        started = field.with_shared_memory(name, started)
    program = field.start(name, runner + started)
    path = field.socket_path(name)
    program.wait_until_answers(lambda: connect_unix(path), ["PING"], b"+PONG")
    contender = Contender(name, ["--unix", path], program)
    if family == "nearkey-stored":
        for _ in range(3):
            sweep(field, contender, command, paths.prefix_of(command, VALUE_BYTES))
    run_load(field, contender, command, pipeline, requests)
    program.stop()
    field.programs.remove(program)
    with open(program.log_path, encoding="utf-8", errors="replace") as log:
        found = re.search(r"Collected : (\d+)", log.read())
    if not found:
        raise BenchError(f"callgrind counted nothing, see {program.log_path}")
    return int(found[1])


def run(builds, tools):
    """Case -> label -> instructions of one request."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="nearkey-bench-") as directory, \
            contextlib.ExitStack() as stack:
        field = Bench(directory, stack, tools)
        field.start_valkey()
        for command in ("get", "set"):
            sweep(field, field.direct_unix(), "set", paths.prefix_of(command, VALUE_BYTES))
        for title, family, command in CASES:
            for pipeline, (few, many) in REQUESTS.items():
                row = found.setdefault(f"{title} -P {pipeline}", {})
                for label, binary in builds:
                    counts = [count(field, label, binary, family, command, pipeline, requests)
                              for requests in (few, many)]
                    row[label] = (counts[1] - counts[0]) / (many - few)
    return found


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench --instructions",
                                     description=__doc__.split("\n\n")[0])
    parser.add_argument("--nearkey", type=bench.nearkey_build, action="append",
                        metavar="[LABEL=]PATH", help="the program; repeatable, to compare builds")
    parser.add_argument("--shared-memory", action="store_true",
                        help="each once more with shared memory that nobody reads")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    builds = options.nearkey or [bench.nearkey_build(str(bench.ROOT / "build" / "nearkey"))]
    if options.shared_memory:
        builds += [(label + SHARED, binary) for label, binary in builds]
    signals.end_by_signals()
    try:
        found = run(builds, str(bench.ROOT / "build"))
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    labels = [label for label, _ in builds]
    print(f"{'instructions of a request':28}" + "".join(f"{label:>12}" for label in labels))
    for title, row in found.items():
        by_first = "".join(f"{row[label] / row[labels[0]]:10.3f}" for label in labels[1:])
        print(f"{title:28}" + "".join(f"{row[label]:12,.0f}" for label in labels) + by_first)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
