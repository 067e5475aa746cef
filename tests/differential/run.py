"""Sends the same sequences to Valkey directly and through nearkey, and compares the replies.

    tests/differential/run.py                       every command of the server, and random ones
    tests/differential/run.py --commands 1000000    more random ones
    tests/differential/run.py --seed 7 --only random/12$     one sequence again
    tests/differential/run.py --direct              the server with itself: nothing may differ
    tests/differential/run.py --cluster             a server, and nearkey before a cluster
    tests/differential/run.py --cluster --moving    the same while slots move
    tests/differential/run.py --self-check          with replies that are spoilt on the way
    tests/differential/run.py --table               what is not compared, for the documentation

The exit status is 0 if nothing differs. The last lines say what was compared, and the seed.
"""

import argparse
import os
import random
import re
import sys
import time
from collections import Counter

from cluster_world import REST_SECONDS, ClusterWorld  # First: it says where the others are.

import cluster_rules  # noqa: I100
import exceptions
import masks
import scenarios
import systematic
from compare import TRIES, Comparer, shown
from generator import Generator
from sequence import Plan
from world import FlippingRelay, World, processes

SHOWN_MAX = 20
SHOWN_COMMANDS = 15
SHRUNK_MAX = 10
# Where the log says what Valkey refused.
BUSY_EVENTS = ("upstream_refuses", "cluster_map_refused")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--commands", type=int, default=100_000, help="how many random commands")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    parser.add_argument("--binary", default=processes.BINARY, help="default: build/nearkey")
    parser.add_argument("--only", metavar="REGEX", default="", help="the sequences so named")
    parser.add_argument("--direct", action="store_true", help="compare the server with itself")
    parser.add_argument("--cluster", action="store_true", help="nearkey is before a cluster")
    parser.add_argument("--moving", action="store_true", help="with --cluster: slots move")
    parser.add_argument("--self-check", action="store_true", help="spoil replies: must be found")
    parser.add_argument("--table", action="store_true", help="print what is not compared")
    parser.add_argument("--verbose", action="store_true", help="say which sequence is running")
    return parser.parse_args()


class Run:
    def __init__(self, options, world):
        self.options = options
        self.world = world
        self.seed = options.seed
        if self.seed is None:
            self.seed = random.SystemRandom().getrandbits(32)
        self.specs, self.containers = world.command_table()
        if not world.is_steady:
            masks.MASKS.update({row.command: row for row in masks.UNSTEADY_ROWS})
        self.comparer = Comparer(world, self.containers)
        if options.cluster:
            masks.MASKS.update({row.command: row for row in masks.CLUSTER_ROWS})
            self.comparer.rules = cluster_rules.Rules(
                self.specs, self.comparer.name_of, world.admin
            )
        self.only = re.compile(options.only)
        self.differences = Counter()
        self.covered = set()
        self.random_commands = 0

    def moves(self):
        """The slots move to the end."""
        mover = getattr(self.world, "mover", None)
        if mover is not None and mover.problem is not None:
            self.differences[mover.problem] += 1

    def systematic(self):
        sequences, unknown = systematic.build(
            self.specs, self.containers, self.world.extra, self.world.interrupts, self.world.tags
        )
        for sequence in sequences:
            if self.only.search(sequence.name):
                self._check(sequence)
                self.covered.add(sequence.covers)
        if unknown:
            print(f"not on this server, so not compared: {' '.join(unknown)}")

    def scenarios(self):
        for number, (name, lines) in enumerate(scenarios.parse()):
            tag = self.world.tags[number % len(self.world.tags)]
            for protocol in systematic.PROTOCOLS:
                full_name = f"scenario/resp{protocol}/{name}"
                if not self.only.search(full_name):
                    continue
                if self.options.cluster and not cluster_rules.is_scenario_comparable(
                    lines, is_moving=self.options.moving
                ):
                    continue
                if self.options.verbose:
                    print(full_name, flush=True)
                for _ in range(TRIES):
                    difference, commands, count = scenarios.compare(
                        self.world, full_name, lines, protocol, tag
                    )
                    # What docs/cluster.md lets a client read while its slot moves.
                    if difference is None or "'-TRYAGAIN slot" not in difference.text:
                        break
                    self.comparer.tries += 1
                    time.sleep(2 * REST_SECONDS)
                self.comparer.commands += commands
                self.comparer.sequences += 1
                self.comparer.bytes += count
                if difference is not None:
                    self._report(difference)

    def random(self):
        generator = Generator(self.seed, self.specs, self.containers, self.world)
        number = 0
        while self.random_commands < self.options.commands:
            sequence = generator.make(number)
            number += 1
            self.random_commands += len(sequence.commands)
            if self.only.search(sequence.name):
                self._check(sequence)

    def _check(self, sequence):
        if self.options.verbose:
            print(sequence.name, flush=True)
        sequence = self.comparer.comparable(sequence)
        if not sequence.commands:
            return
        plan = Plan(random.Random(f"{self.seed}/{sequence.name}"), sequence)
        if self.options.direct:
            plan.is_half_closed = False  # The server itself may drop what it still owes.
        difference = self.comparer.compare(sequence, plan)
        if difference is not None:
            self._report(difference)

    def _report(self, difference):
        self.differences[difference.command] += 1
        count = self.differences.total()
        if self.differences[difference.command] > 2 or count > SHOWN_MAX:
            return
        sequence = difference.sequence
        is_long = sequence.name.startswith("random") and not self.options.self_check
        if is_long and count <= SHRUNK_MAX:
            difference = self.comparer.shrink(difference)
        print(f"\nDIFFERENCE in {sequence.name} (seed {self.seed})")
        commands = difference.sequence.commands
        for args in commands[:3]:
            print(f"    {shown(args)}")
        if len(commands) > SHOWN_COMMANDS:
            print("    ...")
        for args in commands[3:][-SHOWN_COMMANDS + 3 :]:
            print(f"    {shown(args)}")
        print(difference.text, flush=True)

    def log(self):
        """nearkey has nothing to warn of: no reply was malformed, no connection was lost. (That
        Valkey was busy with a script is the sequences' own doing, and that it was slow the machine's
        or PFSELFTEST's.)"""
        entries = self.world.nearkey.logs() if self.world.nearkey is not None else []
        for entry in entries:
            is_busy = entry["event"] in BUSY_EVENTS and entry["reason"].startswith("BUSY ")
            is_known = is_busy or self._is_of_moves(entry) or processes.is_slowness(entry)
            if entry["level"] in ("warning", "error") and not is_known:
                self.differences["a line in the log"] += 1
                print(f"\nnearkey logged {entry}")
        slow = sum(map(processes.is_slowness, entries))
        if slow:
            print(f"nearkey found its server silent {slow} times")

    def _is_of_moves(self, entry):
        """Subscribers go on elsewhere while slots move, and nearkey says so."""
        return self.options.moving and entry["event"] == "subscriber_moved"

    def is_complete(self):
        """Every command of COMMAND was exercised in each way, in both protocols."""
        kinds = ("good", "multi", "arity")
        lacking = []
        for spec in self.specs:
            if spec.name in self.containers:
                continue
            for protocol in systematic.PROTOCOLS:
                for kind in kinds + (("type",) if spec.has_keys else ()):
                    if (spec.name, protocol, kind) not in self.covered:
                        if (spec.name, kind) not in exceptions.OMITTED:
                            lacking.append(f"{kind}/resp{protocol}/{spec.name}")
        if lacking and not self.options.only:
            print(f"not exercised: {' '.join(lacking)}")
        return not lacking or bool(self.options.only)

    def summary(self, seconds):
        comparer = self.comparer
        names = {name for name, _, _ in self.covered}
        if self.differences:
            print("\ndifferences by command:")
            for command, count in self.differences.most_common():
                print(f"    {count:6} {command}")
        if comparer.unaligned and self.options.verbose:
            print(f"replies not matched with their commands: {' '.join(comparer.unaligned[:20])}")
        print(
            f"{len(names)} of {len(self.specs)} commands of the server; {comparer.commands} "
            f"commands ({self.random_commands} random), {comparer.sequences} sequences, "
            f"{comparer.bytes} bytes compared in {seconds:.1f} s"
        )
        if self.options.cluster:
            mover = self.world.mover
            print(f"{comparer.redirects} MOVED or ASK; {mover.moved if mover else 0} slots moved, "
                  f"{comparer.tries} sequences tried again for that")
        print(f"seed {self.seed}; {self.differences.total()} sequences differ")


def run(options, relay=None):
    """The number of sequences that differ, and whether every command was exercised."""
    started = time.monotonic()
    if options.cluster:
        world = ClusterWorld(options.binary, is_moving=options.moving)
    else:
        world = World(options.binary, direct=options.direct, relay=relay)
    try:
        this = Run(options, world)
        this.systematic()
        this.scenarios()
        this.random()
        this.moves()
        this.log()
        is_complete = this.is_complete()
        this.summary(time.monotonic() - started)
        return this.differences.total(), is_complete
    finally:
        world.close()


def self_check(options):
    """The comparison must find one changed bit."""
    options.only = options.only or "random|good/resp3/get"
    options.commands = min(options.commands, 3000)
    options.direct = True
    differing, _ = run(options, FlippingRelay)
    print("self-check: " + ("the changed bits were found" if differing else "NOTHING was found"))
    return 0 if differing else 1


def main():
    options = arguments()
    if options.table:
        print(exceptions.markdown_table(masks.ROWS + masks.UNSTEADY_ROWS))
        return 0
    options.binary = os.path.abspath(options.binary)
    if options.self_check:
        return self_check(options)
    try:
        differing, is_complete = run(options)
    except systematic.MissingExamples as error:
        print(error)
        return 1
    return 0 if differing == 0 and is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
