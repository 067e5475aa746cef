"""Reads and writes through two nearkeys and directly while things go wrong, and checks that nobody
was shown what a coherent cache can't show (history.py says what that is).

    tests/coherence/run.py [--seconds 40] [--seed N] [--binary build/nearkey]
    tests/coherence/run.py --sabotaged build/nearkey_sabotaged    breaks each rule and must be caught

Prints a line per run, `coherence/NAME: ... ok` or `... FAIL`.
"""

import argparse
import collections
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import unittest
from types import SimpleNamespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "system")]

import failovers  # noqa: E402
import load  # noqa: E402
import reshards  # noqa: E402
import segments  # noqa: E402
import server_world  # noqa: E402

OWNERS = load.OWNERS
STALENESS_S = 1.0
VOID_RUNS_MAX = 2
# By how much more each kind of connection behind the relay lags than the one before.
SPREAD_S = 0.002
Needs = collections.namedtuple("Needs", "faults commands spread_s settings world",
                               defaults=(SPREAD_S, {}, "server"))
# Few keys change far away and are read by several commands: while the news is on its way, the reply
# of one may show the change, and what is stored of another does not.
FAR_KEYS = Needs((), "far")
# Rules of base/sabotage.h, and the load that needs them most: faults (null: all) and commands. With
# GET and HGET alone ("gets") what is wrong stays wrong: no other command's read has the server tell
# of it. "quiet": nor does a pipelined one of a key that changes far away. "own": few writes, so
# that most is stored when one comes, one at a time, and of far keys through a nearkey.
RULES = {
    "own_write": Needs((), "own", 0.01),
    "fill_ticket": Needs((), "all"),
    "lease": Needs(("freeze_replies",), "gets"),
    "generation": Needs(("kill_clients", "cut"), "all"),
    "push": Needs((), "quiet"),
    "null_push": Needs(("flush",), "all"),
    "database": Needs(None, "all"),
    "failover_void": Needs(None, "all", world="sentinels"),
    "owed": Needs((), "owed", world="segments"),  # the clients break it, not nearkey
}
FAILOVERS = Needs(None, "all", world="sentinels")
RESHARDS = Needs(None, "cluster", world="cluster")
SEGMENTS = Needs(None, "all", world="segments")


class Shared(SimpleNamespace):
    """What the processes tell each other without locks: each cell has one writer."""

    def __init__(self):
        super().__init__(
            stop=multiprocessing.Value("b", 0, lock=False),
            pause=multiprocessing.Value("b", 0, lock=False),
            paused=multiprocessing.Array("b", OWNERS, lock=False),
            generations=multiprocessing.Array("i", OWNERS * load.SLOTS, lock=False),
        )


WORLDS = {
    "server": (server_world.World, server_world.Faults),
    "sentinels": (failovers.World, failovers.Failovers),
    "cluster": (reshards.World, reshards.Reshards),
    "segments": (segments.World, segments.Faults),
}


def run(binary, seconds, seed, needs, rule=None):
    shared = Shared()
    with tempfile.TemporaryDirectory(prefix="nearkey-coherence-") as directory:
        make_world, make_faults = WORLDS[needs.world]
        world = make_world(directory, binary, rule, needs)
        context = multiprocessing.get_context("fork")
        pipes, workers = [], []
        try:
            for index in range(OWNERS):
                ours, theirs = context.Pipe()
                worker = context.Process(
                    target=load.main, daemon=True,
                    args=(index, OWNERS, world.addresses(), shared, seed * 100 + index, needs.commands,
                          getattr(world, "library", None), theirs))
                worker.start()
                pipes.append(ours)
                workers.append(worker)
            faults = make_faults(world, shared, pipes, seed)
            faults.run(time.monotonic() + seconds, needs.faults)
            shared.stop.value = 1
            told = [pipe.recv() for pipe in pipes]
            hits = world.sum("nearkey_near_cache_hits_total")
            pushes = world.sum("nearkey_upstream_pushes_total")
        finally:
            for worker in workers:
                if sys.exc_info()[0] is not None:
                    worker.kill()
            world.stop()
        steps = [step for part, _ in told for step in part]
        retired = [each for _, part in told for each in part]
        bounds = {"a": STALENESS_S, "b": STALENESS_S, "direct": 0.0}
        results = []
        for pipe in pipes:
            pipe.send((steps, retired, getattr(faults, "lost", []), bounds))
        for pipe, worker in zip(pipes, workers):
            results.append(pipe.recv())
            worker.join()
    return SimpleNamespace(
        operations=sum(reads for reads, _, _ in results) + len(steps),
        hits=hits,
        segment_hits=sum(count for _, _, count in results),
        pushes=pushes,
        told=[each for _, found, _ in results for each in found],
        violations=[violation for _, found, _ in results for violation, _ in found],
        faults=faults.log,
        retired=len(retired),
    )


def run_until_it_counts(name, *arguments):
    """A violation is never passed over: of a run that is void nobody knows what may be seen. None:
    each was, for the servers and Sentinels themselves did not do what they were told."""
    for _ in range(VOID_RUNS_MAX):
        try:
            return run(*arguments)
        except failovers.Void as why:
            print(f"coherence/{name} is made again: {why}", flush=True)
    try:
        return run(*arguments)
    except failovers.Void as why:
        print(f"coherence/{name}: skipped: {why}", flush=True)
        return None


def show(name, result, is_ok):
    rules = collections.Counter(violation.rule for violation in result.violations)
    print(f"coherence/{name}: {result.operations} operations checked, {result.hits} hits, "
          f"{result.segment_hits} from shared memory, "
          f"{result.pushes} pushes, "
          f"{len(result.faults)} faults, {result.retired} keys retired, "
          f"{len(result.violations)} violations {dict(rules) or ''} {'ok' if is_ok else 'FAIL'}",
          flush=True)


def tell(result):
    for violation, lines in result.told[:20]:
        print("   ", violation)
        near = [f"{name} from {start - violation.start:+.3f} to {end - violation.start:+.3f} s"
                for name, start, end in result.faults
                if start < violation.end and end > violation.start - 2]
        print("        after:", ", ".join(near))
        for line in lines:
            print("       ", line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, help="40, or 3 for each rule, and then 10")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", choices=load.WRITES, default="all")
    parser.add_argument("--binary", default="build/nearkey")
    parser.add_argument("--faults", metavar="NAMES", help="only these, with commas between; may be empty")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[],
                        type=lambda text: text.split("=", 1), help="an option of both nearkeys")
    parser.add_argument("--only", choices=("all faults", "far keys", "failovers", "reshards",
                                                      "shared memory"),
                        help="one of the runs")
    parser.add_argument("--sabotaged", metavar="BINARY")
    parser.add_argument("--rule", choices=RULES, action="append", help="of --sabotaged: only these")
    options = parser.parse_args()
    failed = False
    unit_tests = unittest.defaultTestLoader.loadTestsFromName("test_history")
    if not unittest.TextTestRunner(sys.stdout).run(unit_tests).wasSuccessful():
        return 1
    names = None if options.faults is None else [n for n in options.faults.split(",") if n]
    runs = [("all faults", Needs(names, options.commands, settings=dict(options.set)), 40)]
    if names is None and options.commands == "all":
        runs.append(("far keys", FAR_KEYS._replace(settings=dict(options.set)), 15))
        runs.append(("failovers", FAILOVERS._replace(settings=dict(options.set)), 15))
        runs.append(("reshards", RESHARDS._replace(settings=dict(options.set)), 20))
        runs.append(("shared memory", SEGMENTS._replace(settings=dict(options.set)), 20))
    if options.only:
        runs = [each for each in runs if each[0] == options.only]
    for name, needs, seconds in () if options.sabotaged else runs:
        result = run_until_it_counts(name, options.binary, options.seconds or seconds, options.seed,
                                     needs)
        if result is None:
            continue
        failed |= bool(result.violations)
        tell(result)
        show(name, result, not result.violations)
    for rule in (options.rule or RULES) if options.sabotaged else ():
        # Most show within a second; then there is no need to look on.
        for seconds in (options.seconds,) if options.seconds else (3, 10):
            result = run_until_it_counts(f"without {rule}", options.sabotaged, seconds, options.seed,
                                         RULES[rule], rule if rule != "owed" else None)
            if result is None or result.violations:
                break
        if result is None:
            continue
        failed |= not result.violations
        show(f"without {rule}", result, bool(result.violations))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
