"""Measures nearkey beside nutcracker and Valkey itself, in one run: scripts/bench calls it.

One Valkey serves all targets. Each round measures every target once in every case (-P 1 and 16,
get and set), in an order that changes from round to round, so that what else the machine does
falls on all of them. Exit status: 0; 1 --check found nearkey too expensive; 2 nothing to judge or
a wrong command line; 128 + N ended by signal N.
"""
import argparse
import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
from programs import (KEYS, TICKS_PER_SECOND, VALUE_BYTES, Bench, BenchError, find_program,
                      need_program, tied_to_us)

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 50
# -P -> requests of a run: enough for a second of the proxy's time, 100 clock ticks, and more.
REQUESTS = {1: 300_000, 16: 2_000_000}
WORKLOADS = ["get", "set"]
WARM_UP_SHARE = 0.05
# A run slower than this is given up, and the benchmark with it.
REQUESTS_PER_S_MIN = 3000
# What a run leaves to do, as closing its connections, belongs to its own processor time.
SETTLE_S = 0.05
# A signal that our caller ignores, as nohup does, stays ignored.
ENDING_SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
                  if signal.getsignal(number) != signal.SIG_IGN]
OTHER_TARGETS = ["direct-unix", "direct-tcp", "nutcracker"]


def run_benchmark(target, pipeline, workload, requests):
    """One run of valkey-benchmark; its row of the CSV as a dictionary."""
    command = [need_program("valkey-benchmark", "redis-benchmark"), *target.address, "--csv",
               "-t", workload, "-c", str(CLIENTS), "-P", str(pipeline), "-n", str(requests),
               "-r", str(KEYS), "-d", str(VALUE_BYTES)]
    timeout_s = 20 + requests / REQUESTS_PER_S_MIN
    what = f"{workload} -P {pipeline} at {target.name}"
    try:
        done = subprocess.run(tied_to_us(command), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout_s, start_new_session=True, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{what}: no end after {timeout_s:.0f} s") from None
    rows = list(csv.DictReader(done.stdout.splitlines()))
    if done.returncode != 0 or len(rows) != 1 or "p99_latency_ms" not in rows[0]:
        raise BenchError(f"{what}: status {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return rows[0]


def measure(bench, target, case, round_number):
    pipeline, workload, requests = case
    measured = [target.proxy, bench.valkey]
    before = [program.cpu_ticks() if program else None for program in measured]
    try:
        row = run_benchmark(target, pipeline, workload, requests)
    except BenchError:
        for program in bench.programs:
            program.check_alive()  # The end of one of them is the better explanation.
        raise
    time.sleep(SETTLE_S)
    times = []
    for program, start in zip(measured, before):
        ticks = program.cpu_ticks() - start if program else None
        times += [ticks, ticks * 1e6 / TICKS_PER_SECOND / requests if program else None]
    return report.Sample(pipeline, workload, target.name, round_number, requests,
                         float(row["rps"]), float(row["p50_latency_ms"]),
                         float(row["p99_latency_ms"]), *times)


def measure_all(bench, targets, options):
    cases = [(pipeline, workload, scaled(requests, options.requests_scale))
             for pipeline, requests in REQUESTS.items() for workload in WORKLOADS]
    for pipeline, workload, requests in cases:
        for target in targets:
            run_benchmark(target, pipeline, workload, scaled(requests, WARM_UP_SHARE))
    samples = []
    for number in range(options.rounds):
        started = time.monotonic()
        shift = number % len(targets)
        for case in cases:
            for target in targets[shift:] + targets[:shift]:
                samples.append(measure(bench, target, case, number + 1))
        print(f"round {number + 1} of {options.rounds}: {time.monotonic() - started:.0f} s",
              file=sys.stderr)
    bench.check_filled()
    return samples


def scaled(requests, scale):
    return max(1000, round(requests * scale))


def start_targets(bench, options):
    """Starts Valkey and the proxies that --only leaves; the targets in the order of the tables."""
    bench.start_valkey()
    targets = [target for target in bench.direct_targets() if is_wanted(target.name, options)]
    if is_wanted("nutcracker", options):
        if find_program("nutcracker") or options.check or options.only:
            targets.append(bench.start_nutcracker())
        else:
            print("nutcracker is not installed; going on without it", file=sys.stderr)
    targets += [bench.start_nearkey(label, path) for label, path in wanted_builds(options)]
    return targets


def is_wanted(name, options):
    return not options.only or name in options.only


def wanted_builds(options):
    return [(label, path) for label, path in options.nearkey
            if is_wanted(label, options) or is_wanted("nearkey", options)]


def pairs_to_compare(targets, options):
    """Each build of nearkey by nutcracker, then each further build by the first one."""
    names = [target.name for target in targets]
    builds = [label for label, _ in wanted_builds(options)]
    pairs = [(label, "nutcracker") for label in builds if "nutcracker" in names]
    return pairs + [(label, builds[0]) for label in builds[1:]]


def describe_machine(options):
    """What one must know to compare this run with another."""
    commands = {"valkey": [need_program("valkey-server", "redis-server"), "--version"]}
    if find_program("nutcracker"):
        commands["nutcracker"] = [find_program("nutcracker"), "--version"]
    for label, path in wanted_builds(options):
        commands[label] = [path, "--version"]
    facts = {"processors": os.cpu_count(), "load": [round(load, 2) for load in os.getloadavg()]}
    for name, command in commands.items():
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"{name}: {error}") from None
        facts[name] = (done.stdout.strip().splitlines() or ["unknown"])[0]
    return facts


def write_json(path, machine, samples, found):
    document = {"machine": machine, "clients": CLIENTS, "keys": KEYS, "value_bytes": VALUE_BYTES,
                "samples": [sample._asdict() for sample in samples],
                "ratios": [ratio._asdict() for ratio in found]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def run(options):
    machine = describe_machine(options)
    print(", ".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="nearkey-bench-") as directory, \
            contextlib.ExitStack() as stack:
        try:
            bench = Bench(directory, stack)
            targets = start_targets(bench, options)
            samples = measure_all(bench, targets, options)
        finally:
            handle_signals(signal.SIG_IGN)  # A second ^C does not disturb the clearing up.
    handle_signals(end_by_signal)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Nothing is left to clear up: `| head` is fine.
    machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
    found = report.ratios(samples, pairs_to_compare(targets, options))
    if options.json:
        write_json(options.json, machine, samples, found)
    report.print_tables(samples, [target.name for target in targets], CLIENTS)
    report.print_ratios(found)
    print(f"\nload before {machine['load'][0]}, after {machine['load_after'][0]}")
    return report.check(found) if options.check else 0


def handle_signals(handler):
    for number in ENDING_SIGNALS:
        signal.signal(number, handler)


def end_by_signal(number, _frame):
    raise SystemExit(128 + number)


def nearkey_build(text):
    """LABEL=PATH or PATH, which must be a program."""
    label, separator, path = text.partition("=")
    if not separator or "/" in label:
        label, path = "nearkey", text
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label):
        raise argparse.ArgumentTypeError(f"{label!r} is no label: letters, digits, . _ -")
    if label in (*OTHER_TARGETS, "valkey"):
        raise argparse.ArgumentTypeError(f"the label {label} is taken")
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{path} is not a program")
    return label, os.path.abspath(path)


def output_file(text):
    """A path that can be written to, told now and not after the measurement."""
    folder = os.path.dirname(os.path.abspath(text))
    if os.path.isdir(text) or not os.access(text if os.path.exists(text) else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} can't be written")
    return text


def number_of(kind):
    def positive(text):
        value = kind(text)
        if not 0 < value < 1e6:
            raise ValueError
        return value
    positive.__name__ = f"positive {kind.__name__}"  # argparse names it in its message.
    return positive


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures direct Unix, direct TCP, nutcracker and "
        "nearkey side by side: requests/s, latency and processor time per request.")
    parser.add_argument("--rounds", type=number_of(int), default=5, help="default 5")
    parser.add_argument("--requests-scale", type=number_of(float), default=1.0, metavar="FACTOR",
                        help="of the usual number of requests; 0.02 for a quick try")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,...",
                        help=f"of {', '.join(OTHER_TARGETS)}, nearkey, and the labels of --nearkey")
    parser.add_argument("--nearkey", type=nearkey_build, action="append", metavar="[LABEL=]PATH",
                        help="the program to measure; repeatable, to compare builds")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="writes every sample")
    limits = " or ".join(f"{limit} at -P {depth}" for depth, limit in report.RATIO_LIMITS.items())
    parser.add_argument("--check", action="store_true", help="exit 1 if nearkey's processor time "
                        f"per request, by nutcracker's, is above {limits}")
    options = parser.parse_args()
    if options.nearkey is None:
        try:
            options.nearkey = [nearkey_build(str(ROOT / "build" / "nearkey"))]
        except argparse.ArgumentTypeError as error:
            parser.error(f"{error}; see scripts/build")
    labels = [label for label, _ in options.nearkey]
    if len(set(labels)) < len(labels):
        parser.error("two --nearkey with the same label; use LABEL=PATH")
    for name in options.only or []:
        if name not in (*OTHER_TARGETS, *labels, "nearkey"):
            parser.error(f"--only: there is no {name}")
    if options.check and not (is_wanted("nutcracker", options) and wanted_builds(options)):
        parser.error("--check compares nearkey with nutcracker; --only leaves one of them out")
    return options


def main():
    options = parse_arguments()
    handle_signals(end_by_signal)
    try:
        return run(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
