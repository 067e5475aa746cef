"""Runs tests with a build that has gcov's counters, and sums up by layer what they have run.

    tests/coverage/run.py [--only REGEX] [--report] BUILD_DIR     as scripts/coverage does

A process writes its counters when it ends by itself; gcov adds them to those of others, under a
lock. One that a test ends with SIGKILL, or that aborts, writes nothing.
"""
import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import run_all  # noqa: E402

# Percent of lines, at least.
LIMITS = {"session": 92.0, "upstream": 92.0, "cache": 92.0, "resp": 92.0}

# They measure (costs, memory, time), or try what is no part of the program: packages, units, the
# benchmark, documents.
WITHOUT = ("bench", "costs", "memory", "near_cache_memory", "docs", "liveness_oracles", "man",
           "package", "progress", "redis_py", "service", "soak", "units")


def suites(build):
    """Pairs of (name, function that runs it)."""
    python = sys.executable
    yield "simulation", functools.partial(
        run_all.run_program, name="simulation", pattern=r"^(simulation(?:/[\w ]+)?): .*\b(ok|FAIL)$",
        command=[str(build / "nearkey_simulation"), "--seeds", "20"])
    yield "differential", functools.partial(
        run_all.run_program, name="differential",
        command=[python, "tests/differential/run.py", "--seed", "20261123", "--commands", "3000",
                 "--binary", str(build / "nearkey")],
        pattern=r"^(\d+ of \d+ commands of the server).*?; \d+ commands.*(compared).*$")
    yield "liveness", functools.partial(
        run_all.run_program, name="liveness", pattern=r"^(liveness): .*: (ok|FAIL)$",
        command=[python, "tests/liveness/run.py", "--seconds", "20", "--seed", "20261123",
                 "--binary", str(build / "nearkey")])
    yield "unit", run_all.run_unit
    modules = [path.stem for path in sorted(run_all.SYSTEM_TESTS.glob("test_*.py"))]
    for module in modules:
        if module.removeprefix("test_") not in WITHOUT:
            yield "system/" + module, functools.partial(run_all.run_system, module=module)


def clear_counters(build):
    """Tests run nearkey as other users, too: these may write as well, or it complains in its log."""
    for path in build.rglob("*.gcda"):
        path.unlink()
    for path in build.rglob("*.gcno"):
        counters = path.with_suffix(".gcda")
        counters.touch()
        counters.chmod(0o666)


def run_suites(build, only):
    """How many suites there were, and what failed. As many at a time as there are cores."""
    def run(suite):
        name, function = suite
        started = time.monotonic()
        outcome = function(build, None)
        print(f"{name}: {outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped "
              f"in {time.monotonic() - started:.1f} s", flush=True)
        if outcome.failed:
            print(outcome.output.rstrip()[-8000:], flush=True)
        failed = [case for case in outcome.names if " skipped: " not in case]
        return [f"{name}: {', '.join(failed)}"] if outcome.failed else []

    clear_counters(build)
    chosen = [suite for suite in suites(build) if re.search(only or "", suite[0])]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return len(chosen), [what for found in pool.map(run, chosen) for what in found]


def measure(build):
    """gcovr's list of files; build/coverage/index.html shows them."""
    for path in build.rglob("*.gcda"):
        if path.stat().st_size == 0:
            path.unlink()
    pages = build / "coverage"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir()
    summary = pages / "coverage.json"
    subprocess.run(
        ["gcovr", "-r", str(ROOT), "-j", str(len(os.sched_getaffinity(0))),
         "--object-directory", str(build), "--filter", "src/", "--filter", "include/",
         # Every call may throw, and a CHECK that fails ends the process.
         "--exclude-throw-branches", "--exclude-unreachable-branches",
         "--exclude-branches-by-pattern", r".*\bCHECK\(.*",
         "--json", str(summary), "--html-details", str(pages / "index.html"),
         "--html-title", "nearkey", *(str(build / part) for part in
           ("libnearkey_core.a.p", "libnearkey_system.a.p", "nearkey.p"))],
        cwd=ROOT, check=True)
    return json.loads(summary.read_text())["files"]


def layer_of(path):
    return "daemon" if path == "src/main.cc" else re.sub(r"^(src|include/nearkey)/", "", path).split("/")[0]


def percent(part, whole):
    return 100.0 * part / whole if whole else 100.0


def print_table(files):
    """Prints a line for each layer, and returns the percentages of lines."""
    counts = {}
    for file in files:
        count = counts.setdefault(layer_of(file["file"]), Counter())
        for line in file["lines"]:
            if line.get("gcovr/noncode"):
                continue
            count["lines"] += 1
            count["run"] += line["count"] > 0
            count["branches"] += len(line["branches"])
            count["taken"] += sum(branch["count"] > 0 for branch in line["branches"])
    layers = ["base", "loop", "resp", "cache", "upstream", "session", "server", "daemon", "cli"]
    print(f"{'layer':10}{'lines %':>9}{'branches %':>12}{'uncovered lines':>17}{'of':>7}")
    for layer in layers + sorted(set(counts) - set(layers)) + ["all"]:
        count = sum(counts.values(), Counter()) if layer == "all" else counts.get(layer, Counter())
        print(f"{layer:10}{percent(count['run'], count['lines']):9.1f}"
              f"{percent(count['taken'], count['branches']):12.1f}"
              f"{count['lines'] - count['run']:17}{count['lines']:7}")
    return {layer: percent(count["run"], count["lines"]) for layer, count in counts.items()}


def main():
    parser = argparse.ArgumentParser(description="Sums up by layer what the tests run.")
    parser.add_argument("--only", metavar="REGEX", help="the suites whose name matches")
    parser.add_argument("--report", action="store_true", help="of what ran before")
    parser.add_argument("build", metavar="BUILD_DIR")
    options = parser.parse_args()
    build = (ROOT / options.build).resolve()
    count, failed = (0, []) if options.report else run_suites(build, options.only)
    lines = print_table(measure(build))
    print(f"every line: {build / 'coverage' / 'index.html'}")
    limits = {} if options.only else LIMITS
    for layer, limit in limits.items():
        if lines.get(layer, 0.0) < limit:
            failed.append(f"{layer}: {lines.get(layer, 0.0):.1f} % of its lines, not {limit:g}")
    for what in failed:
        print(f"    FAILED {what}")
    print(f"{count + len(limits) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
