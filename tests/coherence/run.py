"""Reads and writes through two nearkeys and directly while things go wrong, and checks that nobody
was shown what a coherent cache can't show (history.py says what that is).

    tests/coherence/run.py [--seconds 25] [--seed N] [--binary build/nearkey]
    tests/coherence/run.py --sabotaged build/nearkey_sabotaged    breaks each rule and must be caught

Prints a line per run, `coherence/NAME: ... ok` or `... FAIL`.
"""

import argparse
import collections
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
from client_processes import ClientProcesses, describe  # noqa: E402

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

WORLDS = {
    "server": (server_world.World, server_world.Faults),
    "sentinels": (failovers.World, failovers.Failovers),
    "cluster": (reshards.World, reshards.Reshards),
    "segments": (segments.World, segments.Faults),
}


def run(binary, seconds, seed, needs, rule=None):
    clients = ClientProcesses(OWNERS, load.SLOTS)
    with tempfile.TemporaryDirectory(prefix="nearkey-coherence-") as directory:
        make_world, make_faults = WORLDS[needs.world]
        world = make_world(directory, binary, rule, needs)
        try:
            for index in range(OWNERS):
                clients.start(load.main, index, OWNERS, world.addresses(), clients.shared,
                              seed * 100 + index, needs.commands, getattr(world, "library", None))
            faults = make_faults(world, clients, seed)
            faults.run(time.monotonic() + seconds, needs.faults)
            clients.shared.stop.value = 1
            told = clients.hear()
            hits = world.sum("nearkey_near_cache_hits_total")
            pushes = world.sum("nearkey_upstream_pushes_total")
        except BaseException as error:
            clients.kill()
            if not isinstance(error, (failovers.Void, KeyboardInterrupt)):
                print(describe(world.processes()), flush=True)
            raise
        finally:
            world.stop()
        steps = [step for part, _ in told for step in part]
        retired = [each for _, part in told for each in part]
        bounds = {"a": STALENESS_S, "b": STALENESS_S, "direct": 0.0}
        clients.tell((steps, retired, getattr(faults, "lost", []), bounds))
        results = clients.hear()
        clients.join()
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
    for number in range(VOID_RUNS_MAX + 1):
        try:
            return run(*arguments)
        except failovers.Void as why:
            is_last = number == VOID_RUNS_MAX
            print(f"coherence/{name}{': skipped:' if is_last else ' is made again:'} {why}", flush=True)
        except Exception:
            print(f"coherence/{name}: FAIL", flush=True)
            raise
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
    parser.add_argument("--seconds", type=float, help="15 to 25, or 3 for each rule, and then 10")
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
    unit_tests = unittest.defaultTestLoader.loadTestsFromNames(["test_history", "test_client_processes"])
    if not unittest.TextTestRunner(sys.stdout).run(unit_tests).wasSuccessful():
        return 1
    names = None if options.faults is None else [n for n in options.faults.split(",") if n]
    runs = [("all faults", Needs(names, options.commands, settings=dict(options.set)), 25)]
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
