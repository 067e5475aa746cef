"""Measures nearkey beside nutcracker, HAProxy and Valkey itself, in one run: scripts/bench.

One Valkey serves all contenders. In each round every path is measured once with each of its
contenders, in an order that changes from round to round, so that what else the machine does falls
on all of them. Exit status: 0; 1 --check found a bar missed; 2 something could not be measured, or
a wrong command line; 128 + N ended by signal N.
"""
import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bars
import chart
import measure
import paths
import probes
import report
import signals
from programs import (Bench, BenchError, RunVoid, find_program, need_program,
                      raise_descriptor_limit)

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ["direct-unix", "direct-tcp", "direct-far", "nutcracker", "haproxy", "echo", "valkey",
          "relay"]
OPTIONAL = ("nutcracker", "haproxy")
ROUNDS_TO_JUDGE = 5
# What --quick takes where nothing else is said: two minutes on an idle machine.
QUICK = {"rounds": 3, "seconds": 0.4, "warm_up": 0.1, "fill_seconds": 2.0, "bulk_seconds": 1.0}
USUAL = {"rounds": 5, "seconds": 1.0, "warm_up": 0.2, "fill_seconds": 3.0, "bulk_seconds": 3.0}


class Field:
    """The contenders of a run, started when a path first asks for them."""

    def __init__(self, bench, options):
        self.bench = bench
        self.options = options
        self.started = {}  # name -> Contender
        self.left_out = set()
        self.void = []  # Why runs have no result.

    @contextlib.contextmanager
    def noting_void_runs(self):
        try:
            yield
        except RunVoid as error:
            print(f"void: {error}", file=sys.stderr, flush=True)
            self.void.append(str(error))

    def of(self, families):
        """Pairs (family, contender) of these families; several for each build of nearkey."""
        return [(family, contender) for family in families for contender in self.family(family)]

    def family(self, family):
        if family in paths.NEARKEY_SETTINGS:
            return [self.nearkey(family, label, binary) for label, binary in self.options.nearkey]
        if family in OPTIONAL and not find_program(family):
            if family not in self.left_out:
                print(f"{family} is not installed; going on without it", file=sys.stderr)
            self.left_out.add(family)
            return []
        if family not in self.started:
            self.started[family] = self.start_other(family)
        return [self.started[family]]

    def start_other(self, family):
        if family == "echo":
            size = 100
            return self.bench.echo(paths.request_bytes(size), size)
        return getattr(self.bench, family.replace("-", "_"))()

    def nearkey(self, family, label, binary):
        name = contender_name(family, label)
        if name not in self.started:
            self.started[name] = self.bench.nearkey(
                name, binary, paths.NEARKEY_SETTINGS[family], is_far=family == "nearkey-zipf")
        return self.started[name]


def contender_name(family, label):
    """nearkey-stored of the build `new` is new-stored."""
    return label + family.removeprefix("nearkey")


def fill(bench, chosen, chosen_probes):
    """Every key that a load can draw exists, so that no GET is a cheap miss."""
    keys = {(path.prefix, path.value_bytes) for path in chosen if path.command != "incr"}
    if "beside-bulk" in chosen_probes:
        keys.add((paths.prefix_of("get", 100), 100))
    for prefix, size in sorted(keys):
        measure.sweep(bench, bench.direct_unix(), "set", prefix, size)


def measure_all(bench, chosen, chosen_probes, options):
    field = Field(bench, options)
    fill(bench, chosen, chosen_probes)
    for path in chosen:
        for family, contender in field.of(path.contenders):
            measure.warm_up(bench, contender, family, path, options)
    found = []
    for number in range(options.rounds):
        started = time.monotonic()
        for path in chosen if number % 2 == 0 else chosen[::-1]:
            found += measure_path(field, path, number, options)
        for name in chosen_probes:
            with field.noting_void_runs():
                for contender, figures in run_probe(field, name, number, options):
                    found.append(report.Measurement(name, contender, number + 1, figures))
        print(f"round {number + 1} of {options.rounds}: {time.monotonic() - started:.0f} s",
              file=sys.stderr, flush=True)
    return found, field.void


def measure_path(field, path, number, options):
    contenders = field.of(path.contenders)
    shift = number % len(contenders)
    for family, contender in contenders[shift:] + contenders[:shift]:
        with field.noting_void_runs():
            figures = measure.measure(field.bench, contender, family, path, options)
            yield report.Measurement(path.name, contender.name, number + 1, figures)


def run_probe(field, name, number, options):
    if name == "beside-bulk":
        contenders = [contender for _, contender in field.of(paths.PROBES[name][1])]
        return probes.beside_bulk(field.bench, contenders, options, number)
    return getattr(probes, name)(field.bench, options.nearkey, options, number)


def describe_machine(options):
    """What one must know to compare this run with another."""
    commands = {"valkey": [need_program("valkey-server", "redis-server"), "--version"]}
    for name, flag in (("nutcracker", "--version"), ("haproxy", "-v")):
        if find_program(name):
            commands[name] = [find_program(name), flag]
    for label, path in options.nearkey:
        commands[label] = [path, "--version"]
    facts = {"kernel": os.uname().release, "processors": os.cpu_count(), "load": load_now()}
    for name, command in commands.items():
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"{name}: {error}") from None
        facts[name] = (done.stdout.strip().splitlines() or ["unknown"])[0]
    return facts


def load_now():
    return [round(load, 2) for load in os.getloadavg()]


def run(options):
    machine = describe_machine(options)
    print(", ".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    chosen, chosen_probes = paths.choose(options.paths)
    raise_descriptor_limit()
    os.makedirs(options.results, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nearkey-bench-") as directory, \
            contextlib.ExitStack() as stack:
        try:
            bench = Bench(directory, stack, options.tools)
            bench.start_valkey()
            found, void = measure_all(bench, chosen, chosen_probes, options)
        finally:
            signals.ignore_signals()  # A second ^C does not disturb the clearing up.
    signals.end_by_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Nothing is left to clear up: `| head` is fine.
    machine.update(load_after=load_now(), seconds=round(time.monotonic() - started))
    return tell(machine, found, void, options)


def tell(machine, found, void, options):
    """Prints the tables, writes the files; the exit status."""
    titles = paths.titles(paths.choose(options.paths)[0])
    for path in report.in_order(measurement.path for measurement in found):
        report.print_table(found, path, titles[path])
    labels = [label for label, _ in options.nearkey]
    judged = {label: bars.verdicts(
        found, lambda family, label=label: contender_name(family, label)) for label in labels}
    summary = report.summary(found)
    picture = chart.draw(summary, titles, our_contenders(labels).__contains__)
    write_results(options.results, picture, {
        "machine": machine,
        "options": {"rounds": options.rounds, "seconds": options.seconds, "quick": options.quick},
        "titles": titles, "summary": summary, "bars": judged, "void_runs": void,
        "measurements": [measurement._asdict() for measurement in found]})
    print(f"\n{machine['seconds']} s; load before {machine['load'][0]}, after "
          f"{machine['load_after'][0]}; written: {options.results}/bench.json, bench.svg")
    for reason in void:
        print(f"void: {reason}")
    statuses = {2} if void else {0}
    if options.check:
        statuses |= tell_verdicts(judged, options)
    return next(status for status in (1, 2, 0) if status in statuses)


def tell_verdicts(judged, options):
    if options.rounds < ROUNDS_TO_JUDGE:
        print(f"fewer than {ROUNDS_TO_JUDGE} rounds: these verdicts are no more than a try")
    for label, verdicts in judged.items():
        print(f"\nthe bars of {label}: median of the rounds (min-max)")
        bars.print_verdicts(verdicts)
    return {bars.exit_status(verdicts) for verdicts in judged.values()}


def our_contenders(labels):
    return {contender_name(family, label) for family in paths.NEARKEY_SETTINGS for label in labels}


def write_results(folder, picture, document):
    with open(os.path.join(folder, "bench.json"), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    with open(os.path.join(folder, "bench.svg"), "w", encoding="utf-8") as file:
        file.write(picture)


def nearkey_build(text):
    """LABEL=PATH or PATH, which must be a program."""
    label, separator, path = text.partition("=")
    if not separator or "/" in label:
        label, path = "nearkey", text
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label):
        raise argparse.ArgumentTypeError(f"{label!r} is no label: letters, digits, . _ -")
    if label in OTHERS:
        raise argparse.ArgumentTypeError(f"the label {label} is taken")
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{path} is not a program")
    return label, os.path.abspath(path)


def number_of(kind):
    def positive(text):
        value = kind(text)
        if not 0 < value < 1e6:
            raise ValueError
        return value
    positive.__name__ = f"positive {kind.__name__}"  # argparse names it in its message.
    return positive


def path_names(text):
    names = text.split(",")
    try:
        paths.choose(names)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures direct Unix, direct TCP, nutcracker, HAProxy, "
        "a bare echo server and nearkey side by side.")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--quick", action="store_true",
                        help="the paths that have a bar, two minutes")
    parser.add_argument("--paths", type=path_names, metavar="NAME,...",
                        help="all (default), bars (default with --check and --quick), of "
                        + ", ".join(paths.titles()) + "; or a load of your own as "
                        "COMMAND:BYTES:CLIENTS:DEPTH, like set:1024:1000:8")
    parser.add_argument("--rounds", type=number_of(int), help=f"default {USUAL['rounds']}, "
                        f"{QUICK['rounds']} with --quick")
    parser.add_argument("--seconds", type=number_of(float), help="of one measurement, default "
                        f"{USUAL['seconds']}, {QUICK['seconds']} with --quick")
    parser.add_argument("--nearkey", type=nearkey_build, action="append", metavar="[LABEL=]PATH",
                        help="the program to measure; repeatable, to compare builds")
    parser.add_argument("--results", metavar="DIR", default=str(ROOT / "bench" / "results"),
                        help="where bench.json and bench.svg go; default bench/results")
    parser.add_argument("--bulk-mib", type=number_of(int), default=256, metavar="N",
                        help="MiB of a value of beside-bulk, default 256")
    parser.add_argument("--tools", default=str(ROOT / "build"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else USUAL).items():
        if getattr(options, name, None) is None:
            setattr(options, name, value)
    # A try with short measurements is short altogether.
    options.warm_up = min(options.warm_up, options.seconds)
    options.fill_seconds = min(options.fill_seconds, options.seconds * 6)
    options.bulk_seconds = min(options.bulk_seconds, options.seconds * 3)
    options.paths = options.paths or (["bars"] if options.check or options.quick else ["all"])
    if options.nearkey is None:
        try:
            options.nearkey = [nearkey_build(str(ROOT / "build" / "nearkey"))]
        except argparse.ArgumentTypeError as error:
            parser.error(f"{error}; see scripts/build")
    labels = [label for label, _ in options.nearkey]
    if len(set(labels)) < len(labels):
        parser.error("two --nearkey with the same label; use LABEL=PATH")
    return options


def main():
    options = parse_arguments(sys.argv[1:])
    signals.end_by_signals()
    try:
        return run(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
