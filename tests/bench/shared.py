"""Measures hits from shared memory: scripts/bench --paths shared, or --paths shared-c-hot,...

A C process beside a std::unordered_map of its own, beside a writer, and without system calls; a
Python process beside redis-py over the socket; clients that read shared memory first and ask a
Valkey 0.5 ms away for what is not there. Exit status: 0; 1 a bar was missed, with --check; 2
something could not be measured; 128 + N ended by signal N.
"""
import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

import bars
import bench
import measure
import part_runs
import paths
import report
import signals
from programs import Bench, BenchError, connect_unix, raise_descriptor_limit

PREFIX = "user:"
VALUE_BYTES = 100
HOT_KEYS = 1000
ALL_KEYS = 1_000_000
FAR_CLIENTS = 50
USUAL = {"rounds": 5, "seconds": 2.0}
QUICK = {"rounds": 3, "seconds": 0.5}
READS_A_SECOND = 4_000_000  # of a C process, to know how many are some seconds
TITLES = {
    "shared-c-hot": "GET 100 B in C, 1,000 keys",
    "shared-c-zipf": f"GET 100 B in C, Zipf 0.99 over {ALL_KEYS:,} keys",
    "shared-c-writes": "GET 100 B in C, 1,000 keys, each voided and refilled 100 times a second",
    "shared-calls": "system calls of 5,000,000 hits in C (a process that may make none)",
    "shared-python": "GET 100 B in Python, 1,000 keys",
    "shared-far": "GET 100 B by Zipf's law, Valkey 0.5 ms away, 50 clients, -P 1",
}


class Run:
    def __init__(self, field, binary, options):
        self.field = field
        self.binary = binary
        self.options = options
        self.found = []

    def note(self, path, contender, number, figures):
        self.found.append(report.Measurement(path, contender, number + 1, figures))

    def start_nearkey(self, name, memory, segment, is_far=False):
        """One whose clients read shared memory of so many bytes."""
        field = self.field
        path = field.socket_path(name)
        settings = {"near_cache.memory": memory, "near_cache.shared_memory": segment}
        command = field.nearkey_command(name, self.binary, settings, is_far=is_far)
        return field.proxy(name, path, field.with_shared_memory(name, command))

    def fill(self, contender, keys):
        """Every key is stored, and in shared memory: somebody must have asked for that first."""
        with connect_unix(contender.address[1]) as client:
            client.sendall(b"NEARKEY SHM\r\n")
            client.recv(4096)
        for _ in range(2):
            self.sweep(contender, "get", keys)

    def sweep(self, contender, command, keys):
        measure.run_load(self.field, contender, [
            "--command", command, "--draw", "sequence", "--requests", str(keys), "--clients", "1",
            "--pipeline", "100", "--keys", str(keys), "--prefix", PREFIX,
            "--value-bytes", str(VALUE_BYTES)])

    def stop(self, contender):
        contender.proxy.stop()
        self.field.programs.remove(contender.proxy)

    def tool(self, *arguments, **options):
        done = subprocess.run([str(argument) for argument in arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True, check=False, timeout=600, **options)
        if done.returncode != 0:
            raise BenchError(f"{arguments[0]} ended with status {done.returncode}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def segment_bench(self, *arguments):
        reads = int(self.options.seconds * READS_A_SECOND)
        return self.tool(self.field.tool("nearkey_segment_bench"), "--rounds", 1, "--reads", reads,
                         *arguments)


def url_of(contender):
    return f"unix://{contender.address[1]}"


def measure_c(run):
    """From a nearkey's segment, which has all keys."""
    contender = run.start_nearkey("nearkey-shared", "512MiB", "384MiB")
    run.fill(contender, ALL_KEYS)
    for number in range(run.options.rounds):
        names = ["shared-c-hot", "map-hot", "shared-c-zipf", "map-zipf"]
        done = run.segment_bench("--url", url_of(contender), *names)
        for figures in done:
            path = "shared-c-" + figures["path"].rsplit("-", 1)[1]
            contender_name = "map" if figures["path"].startswith("map") else "nearkey"
            run.note(path, contender_name, number,
                     {"ns": figures["ns"], "hits_share": figures["hits_percent"] / 100})
    run.stop(contender)


def measure_writes(run):
    for number in range(run.options.rounds):
        done = run.segment_bench("shared-c-hot", "shared-c-hot-writes")
        for figures in done:
            name = "nearkey" if figures["path"].endswith("writes") else "quiet"
            run.note("shared-c-writes", name, number,
                     {"ns": figures["ns"], "hits_share": figures["hits_percent"] / 100})


def measure_calls(run):
    contender = run.start_nearkey("nearkey-calls", "64MiB", "16MiB")
    run.fill(contender, HOT_KEYS)
    done = run.tool(run.field.tool("nearkey_segment_bench"), "--url", url_of(contender), "--calls")
    for number, figures in enumerate(done):
        run.note("shared-calls", "nearkey", number, figures)
    run.stop(contender)


def measure_python(run):
    contender = run.start_nearkey("nearkey-python", "64MiB", "16MiB")
    run.fill(contender, HOT_KEYS)
    environment = dict(os.environ, PYTHONPATH=os.path.join(run.options.tools, "python"))
    for number in range(run.options.rounds):
        done, = run.tool(sys.executable, os.path.join(os.path.dirname(__file__), "shared_python.py"),
                         contender.address[1], int(run.options.seconds * 1_000_000),
                         env=environment)
        run.note("shared-python", "nearkey", number,
                 {"ns": done["nearkey"], "hits_share": done["hits_share"]})
        run.note("shared-python", "socket", number, {"ns": done["socket"]})
    run.stop(contender)


def measure_far(run):
    """The near cache and the segment are as large as makes nine of ten reads hits."""
    field = run.field
    direct = field.direct_far()
    over_socket = field.nearkey("nearkey-zipf", run.binary, paths.NEARKEY_SETTINGS["nearkey-zipf"],
                                is_far=True)
    shared = run.start_nearkey("nearkey-far", paths.ZIPF_MEMORY, "16MiB", is_far=True)
    load = ["--command", "get", "--clients", str(FAR_CLIENTS), "--pipeline", "1",
            "--keys", str(paths.keys_of(VALUE_BYTES)), "--prefix", PREFIX,
            "--value-bytes", str(VALUE_BYTES), "--draw", "zipf", "--zipf", str(paths.ZIPF_EXPONENT)]
    first = ["--segment", url_of(shared)]
    contenders = [("direct-far", direct, []), ("nearkey-zipf", over_socket, []),
                  ("nearkey", shared, first)]
    for _, contender, more in contenders[1:]:
        measure.run_load(field, contender, [*load, *more, "--seconds", "3"])
    for number in range(run.options.rounds):
        shift = number % len(contenders)
        for name, contender, more in contenders[shift:] + contenders[:shift]:
            done = measure.run_load(field, contender, [
                *load, *more, "--warm-up", "0.2", "--seconds", str(run.options.seconds)])
            answered = done["requests"] + done["segment_hits"]
            run.note("shared-far", name, number, {
                "requests_per_s": answered / done["seconds"],
                "hits_share": done["segment_hits"] / answered, "p50_us": done["p50_us"]})
    run.stop(shared)
    run.stop(over_socket)


PARTS = {
    ("shared-c-hot", "shared-c-zipf"): measure_c,
    ("shared-c-writes",): measure_writes,
    ("shared-calls",): measure_calls,
    ("shared-python",): measure_python,
    ("shared-far",): measure_far,
}


def measure_all(binary, options):
    with tempfile.TemporaryDirectory(prefix="nearkey-bench-") as directory, \
            contextlib.ExitStack() as stack:
        try:
            field = Bench(directory, stack, options.tools)
            field.start_valkey()
            run = Run(field, binary, options)
            run.sweep(field.direct_unix(), "set", ALL_KEYS)
            for names, part in PARTS.items():
                if set(names) & set(options.paths):
                    started = time.monotonic()
                    part(run)
                    print(f"{', '.join(names)}: {time.monotonic() - started:.0f} s", file=sys.stderr,
                          flush=True)
            return run.found
        finally:
            signals.ignore_signals()


def path_names(text):
    names = text.split(",")
    if names == ["shared"]:
        return list(TITLES)
    if set(names) - set(TITLES):
        raise argparse.ArgumentTypeError(f"the paths are {', '.join(TITLES)}, or shared for all")
    return names


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--paths", type=path_names, default=list(TITLES), metavar="NAME,...",
                        help=", ".join(TITLES) + "; shared: all")
    part_runs.add_options(parser)
    return part_runs.parse(parser, arguments, USUAL, QUICK)


def main():
    options = parse_arguments(sys.argv[1:])
    signals.end_by_signals()
    raise_descriptor_limit()
    load_before = bench.load_now()
    try:
        found = measure_all(options.nearkey[1], options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    part_runs.print_tables(found, TITLES)
    judged = [verdict for verdict in bars.verdicts(found, lambda family: family, bars.SHARED_BARS)
              if verdict["path"] in options.paths]
    print(f"\nload of the machine before {load_before[0]}, after {bench.load_now()[0]}")
    bars.print_verdicts(judged)
    if options.json:
        part_runs.write_json(options.json, found, judged, [load_before, bench.load_now()])
    return bars.exit_status(judged) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
