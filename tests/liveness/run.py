"""Generated sequences, to Valkey directly and through nearkey: the bytes must be Valkey's, and each
reply must be there within a second of when Valkey gives it.

    tests/liveness/run.py [--seconds N] [--seed N]      sequences of a random seed
    tests/liveness/run.py --seed N --only 17            one sequence again
    tests/liveness/run.py --replay FILE                 one that was saved in its findings
    tests/liveness/run.py --setting small               before a nearkey with small limits alone
    tests/liveness/run.py --cluster                     nearkey is before a cluster

Arguments have 0 B to 8 MiB, give or take a few bytes, in any place; commands are cut anywhere, with
pauses; pipelines are deeper than every buffer; clients write all before they read, read slowly,
close half, leave; in RESP2, RESP3 and inline, in transactions and in tunnels, behind CLIENT REPLY.
What fails is played again, made small, printed and saved. A late reply counts if it is late each
time, a hang and a difference always.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

# The stage comes first: it says where the other modules are.
from stage import CRASH_SECONDS, SCALES, SETTINGS, SILENCE_SECONDS, Stage, processes

import kept  # noqa: I100
from cluster_stage import ClusterStage
from judge import Finding, GeneratorError, judge
from making import Generator
from resp import Closed
from sequences import loaded, saved
from shrinking import shrunk

FINDINGS = Path(__file__).resolve().parent / "findings"
AGAIN = 2  # So often is played again what failed.
FINDINGS_MAX = 5
SHRINK_SILENCE_SECONDS = 1.5


class Run:
    def __init__(self, options, stage):
        self.options = options
        self.stage = stage
        self.found = Counter()
        self.sequences = self.commands = self.bytes = 0

    def sequences_to_play(self):
        if self.options.replay:
            yield from (loaded(Path(path).read_text()) for path in self.options.replay)
            return
        generator = Generator(self.options.seed, self.stage.paths, self.stage.tags)
        if self.options.only is not None:
            named = [sequence for sequence in self.kept() if sequence.name == self.options.only]
            yield from named or [generator.make(int(self.options.only))]
            return
        if not self.options.without_kept:
            yield from self.kept()
        deadline, number = time.monotonic() + self.options.seconds, 0
        while time.monotonic() < deadline:
            yield generator.make(number)
            number += 1

    def kept(self):
        for setting in self.stage.paths:
            for sequence in kept.sequences(SCALES.get(setting, 1)):
                yield replace(sequence, setting=setting, name=f"{sequence.name}-{setting}")

    def finding(self, sequence, silence_seconds=SILENCE_SECONDS):
        """What is wrong with it, played once each way."""
        direct = self.stage.play(sequence, directly=True)
        try:
            through = self.stage.play(sequence, directly=False, silence_seconds=silence_seconds)
            self.bytes += sum(len(outcome.data) + outcome.sent for outcome in through.outcomes)
            finding = judge(sequence, direct, through)
        except (OSError, Closed, AssertionError) as error:
            finding = Finding("hang", f"no client is served: {error!r}")
        text = self.stage.crash(sequence.setting, 0.0 if finding is None else CRASH_SECONDS)
        return Finding("crash", text) if text else finding

    def check(self, sequence):
        self.sequences += 1
        self.commands += sequence.commands()
        try:
            finding = self.finding(sequence)
            if finding is None:
                return
            again = [self.finding(sequence) for _ in range(AGAIN)]
        except GeneratorError as error:
            finding, again = Finding("generator", str(error)), []
        # What somebody who left has sent may still be under way, and a machine may be slow.
        if finding.kind not in ("late", "state") or all(again):
            self._report(sequence, finding, again)

    def _report(self, sequence, finding, again):
        self.found[finding.kind] += 1
        seen = 1 + sum(1 for other in again if other is not None)
        print(f"\n{finding.kind.upper()} in sequence {sequence.name}, seed {self.options.seed}")
        print(f"seen {seen} of {1 + len(again)} times: {finding.text}", flush=True)
        if seen == 1 + AGAIN and not sequence.name.startswith("kept/"):
            seconds = self.options.shrink_seconds
            sequence = shrunk(sequence, lambda s: self._fails(s, finding.kind), seconds)
        print(f"again: tests/liveness/run.py --replay {self._save(sequence)}")
        print(sequence.shown(), flush=True)

    def _fails(self, sequence, kind):
        try:
            finding = self.finding(sequence, SHRINK_SILENCE_SECONDS)
        except GeneratorError:
            return False
        return finding is not None and finding.kind == kind

    def _save(self, sequence):
        FINDINGS.mkdir(exist_ok=True)
        path = FINDINGS / f"{self.options.seed}-{sequence.name.replace('/', '-')}.json"
        path.write_text(saved(sequence))
        return os.path.relpath(path)

    def run(self):
        for sequence in self.sequences_to_play():
            if self.options.verbose:
                counts = f"{sequence.commands()} commands, {sequence.bytes()} bytes"
                print(f"{sequence.name} ({sequence.setting}): {counts}", flush=True)
            self.check(sequence)
            if self.found.total() >= FINDINGS_MAX:
                print(f"stopped after {FINDINGS_MAX} findings")
                break
        for problem in self.stage.stop():
            self.found["log"] += 1
            print(problem)

    def summary(self, seconds):
        hangs = self.found["hang"] + self.found["late"]
        differences = self.found["difference"] + self.found["state"]
        others = self.found.total() - hangs - differences
        print(
            f"liveness: {self.sequences} sequences, {self.commands} commands, {self.bytes} bytes, "
            f"{hangs} hangs, {differences} differences, {others} others in {seconds:.0f} s, "
            f"seed {self.options.seed}: {'FAIL' if self.found else 'ok'}"
        )


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", metavar="NAME", help="this sequence of the seed")
    parser.add_argument("--without-kept", action="store_true", help="random sequences alone")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="saved sequences")
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="of nearkey")
    parser.add_argument("--cluster", action="store_true", help="nearkey is before a cluster")
    parser.add_argument("--binary", default=processes.BINARY, help="default: build/nearkey")
    parser.add_argument("--shrink-seconds", type=float, default=20.0)
    parser.add_argument("--verbose", action="store_true", help="say which sequence is running")
    return parser.parse_args()


def main():
    options = arguments()
    started = time.monotonic()
    print(f"liveness: {options.binary}, seed {options.seed}", flush=True)
    make_stage = ClusterStage if options.cluster else Stage
    stage = make_stage(os.path.abspath(options.binary), options.setting or tuple(SETTINGS))
    try:
        run = Run(options, stage)
        run.run()
        run.summary(time.monotonic() - started)
    finally:
        stage.close()
    return 1 if run.found else 0


if __name__ == "__main__":
    sys.exit(main())
