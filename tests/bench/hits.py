"""Measures reads that nearkey answers itself beside Valkey on its own Unix socket: scripts/bench --hits.

50 clients of nearkey_load_client GET keys that are all stored; rounds alternate between the two, so
that what else the machine does falls on both. What is compared: requests per second and processor
time per request, of nearkey and of valkey-server. Exit status: 0; 1 --check found a bar missed; 2
nothing to judge.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

from programs import (KEYS, TICKS_PER_SECOND, VALUE_BYTES, Bench, BenchError, connect_unix, encode,
                      tied_to_us)

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 50
# With two cores: enough that the server is what is busy.
THREADS = 3
# -P -> (least requests per second by Valkey's, most processor time per request by Valkey's)
BARS = {1: (1.1, None), 16: (1.4, 0.6)}
HITS_SHARE_MIN = 0.999

Sample = namedtuple("Sample", "pipeline target requests_per_s p50_us p99_us server_us client_us")


def load(path, pipeline, seconds):
    """requests, seconds, p50 us, p99 us, own processor time per request in us."""
    command = [str(ROOT / "build" / "nearkey_load_client"), path, str(CLIENTS), str(pipeline),
               str(THREADS), str(seconds), str(KEYS), str(VALUE_BYTES)]
    done = subprocess.run(tied_to_us(command), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=seconds + 20, check=False)
    if done.returncode != 0:
        raise BenchError(f"load of {path}: {done.stderr.strip()}")
    return [float(word) for word in done.stdout.split(",")]


def metric(path, name):
    with connect_unix(path) as client:
        client.sendall(encode("NEARKEY", "STATS"))
        text = b""
        while f"{name}\r\n:".encode() not in text or not text.endswith(b"\r\n"):
            text += client.recv(65536)
    return int(text.split(f"{name}\r\n:".encode())[1].split(b"\r\n")[0])


def measure(target, path, program, pipeline, seconds):
    hits = metric(path, "nearkey_near_cache_hits_total") if target == "nearkey" else 0
    ticks = program.cpu_ticks()
    requests, took, p50, p99, client_us = load(path, pipeline, seconds)
    server_us = (program.cpu_ticks() - ticks) * 1e6 / TICKS_PER_SECOND / requests
    if target == "nearkey":
        hits = metric(path, "nearkey_near_cache_hits_total") - hits
        if hits < HITS_SHARE_MIN * requests:
            raise BenchError(f"only {hits} of {requests:.0f} reads were hits")
    return Sample(pipeline, target, requests / took, p50, p99, server_us, client_us)


def run(options):
    with tempfile.TemporaryDirectory(prefix="nearkey-bench-") as directory, \
            contextlib.ExitStack() as stack:
        bench = Bench(directory, stack)
        bench.start_valkey()
        nearkey = bench.start_nearkey("nearkey", options.nearkey)
        targets = {"valkey": (bench.valkey_path, bench.valkey),
                   "nearkey": (nearkey.address[1], nearkey.proxy)}
        for path, _ in targets.values():
            load(path, 16, 2)  # Every key is read many times, and so stored.
        return [measure(name, path, program, pipeline, options.seconds)
                for _ in range(options.rounds)
                for pipeline in BARS
                for name, (path, program) in targets.items()]


def of(samples, pipeline, target, field):
    return [getattr(sample, field) for sample in samples
            if (sample.pipeline, sample.target) == (pipeline, target)]


def ratio(samples, pipeline, field):
    """The median of the rounds' ratios, nearkey's by Valkey's."""
    pairs = zip(of(samples, pipeline, "nearkey", field), of(samples, pipeline, "valkey", field))
    return statistics.median(ours / theirs for ours, theirs in pairs)


def report(samples):
    """Prints the table; whether every bar is reached."""
    is_good = True
    for pipeline, (rps_min, cpu_max) in BARS.items():
        print(f"\nstored GET -P {pipeline} -c {CLIENTS}, {THREADS} load threads, medians")
        print("          requests/s   p50 us   p99 us   server us/request   client us/request")
        for target in ("valkey", "nearkey"):
            row = [statistics.median(of(samples, pipeline, target, field))
                   for field in Sample._fields[2:]]
            print(f"{target:9} {row[0]:11,.0f} {row[1]:8.0f} {row[2]:8.0f} {row[3]:19.3f} {row[4]:19.3f}")
        rps, cpu = ratio(samples, pipeline, "requests_per_s"), ratio(samples, pipeline, "server_us")
        is_good &= rps >= rps_min and (cpu_max is None or cpu <= cpu_max)
        print(f"requests/s nearkey / valkey: {rps:.3f} (bar: at least {rps_min})")
        print(f"processor time per request:  {cpu:.3f}" +
              (f" (bar: at most {cpu_max})" if cpu_max else ""))
    return is_good


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench --hits", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--nearkey", default=str(ROOT / "build" / "nearkey"), metavar="PATH")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args()
    try:
        samples = run(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    is_good = report(samples)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"processors": os.cpu_count(), "samples": [s._asdict() for s in samples]}, file,
                      indent=1)
    return 1 if options.check and not is_good else 0


if __name__ == "__main__":
    sys.exit(main())
