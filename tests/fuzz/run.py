"""Builds the fuzz targets with clang's libFuzzer, AddressSanitizer and UBSan, and runs them.

    tests/fuzz/run.py [--seconds N] [--replay] [--jobs N] [TARGET...]     (see scripts/fuzz)

Each target first runs its seeds (seeds/TARGET/), then new inputs for its share of the seconds. New
inputs that reach new code go to corpus-TARGET/ and are started from the next time; an input that
fails goes to findings/. A line for each target is `fuzz/TARGET: N executions, ok|FAIL`; what a
failed target printed stands before it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parents[1]
BUILD = ROOT / "build-fuzz"
COMPILER = ["clang++", "-std=c++20", "-O1", "-g1", "-fno-omit-frame-pointer", "-Wall", "-Wextra"]
# What libnearkey-client is made of. Between any two steps of the reader the target does something.
C_COMPILER = ["clang", "-std=c11", "-DSEGMENT_PAUSE=fuzz_segment_pause",
              *COMPILER[2:]]
SANITIZERS = "address,undefined"
# What the targets need: the pure parts, behind which are no libraries but toml11 and fmt.
SOURCES = (
    "src/base/check.cc",
    "src/base/command_counts.cc",
    "src/base/os_error.cc",
    "src/resp/*.cc",
    "src/daemon/config*.cc",
    "src/upstream/address_map.cc",
    "src/upstream/handshake.cc",
    "src/upstream/url.cc",
    "src/cli/http_answer.cc",
    "src/cli/text.cc",
    "src/cli/latency.cc",
)
# And what only one of them needs.
OWN_SOURCES = {
    "segment_reader": (
        "src/client/client_url.c",
        "src/client/segment_reader.c",
        "tests/client/segment_writer.c",
    ),
}
DICTIONARIES = {
    "command_parser": "commands",
    "inline_command": "inline",
    "reply_scanner": "replies",
    "handshake": "replies",
    "command_table": "replies",
    "config_file": "config",
    "access_rules": "commands",
    "upstream_url": "config",
}
# Longer inputs find little more, slowly. Seeds may be longer.
INPUT_BYTES_MAX = 4096
# One input that runs for so long is a failure.
INPUT_SECONDS_MAX = 10
DIFFERENTIAL = "differential"


class BuildError(Exception):
    pass


def targets():
    names = [path.stem.removeprefix("fuzz_") for path in sorted(FUZZ.glob("fuzz_*.cc"))]
    return [*names, DIFFERENTIAL]


def run_compiler(command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout.decode(errors='replace')}")


def is_current(product, command, inputs):
    """Whether `product` was made by this command, after the last change to what went into it."""
    stamp = product.with_suffix(".command")
    if not product.exists() or not stamp.exists() or json.loads(stamp.read_text()) != command:
        return False
    made = product.stat().st_mtime_ns
    return all(path.exists() and path.stat().st_mtime_ns < made for path in inputs)


def make(product, command, inputs):
    """Runs the command that makes `product`, unless nothing has changed."""
    if is_current(product, command, inputs):
        return
    product.parent.mkdir(parents=True, exist_ok=True)
    stamp = product.with_suffix(".command")
    stamp.unlink(missing_ok=True)
    run_compiler(command)
    stamp.write_text(json.dumps(command))


def headers_of(dependencies):
    """The files that a compilation read, as the compiler wrote them down (-MMD)."""
    if not dependencies.exists():
        return []
    words = dependencies.read_text().replace("\\\n", " ").split(": ", 1)[1]
    return [ROOT / word for word in words.split()]


def compile_source(source):
    product = BUILD / source.relative_to(ROOT).with_suffix(".o")
    dependencies = product.with_suffix(".d")
    compiler = C_COMPILER if source.suffix == ".c" else COMPILER
    command = [*compiler, f"-fsanitize=fuzzer-no-link,{SANITIZERS}", "-fno-sanitize-recover=all"]
    command += ["-Iinclude", "-Isrc/client", "-Itests/client", "-MMD", "-MF", str(dependencies), "-c", str(source)]
    command += ["-o", str(product)]
    make(product, command, [source, *headers_of(dependencies)])
    return product


def link(name, objects):
    program = BUILD / f"fuzz_{name}"
    command = ["clang++", f"-fsanitize=fuzzer,{SANITIZERS}", *map(str, objects)]
    make(program, [*command, "-lfmt", "-o", str(program)], objects)


def build(names, jobs):
    library = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    sources = {name: [FUZZ / f"fuzz_{name}.cc", *map(ROOT.joinpath, OWN_SOURCES.get(name, ()))]
               for name in names}
    wanted = [*library, *(source for own in sources.values() for source in own)]
    with ThreadPoolExecutor(jobs) as pool:
        objects = dict(zip(wanted, pool.map(compile_source, wanted)))
        common = [objects[source] for source in library]
        own = [[objects[source] for source in sources[name]] for name in names]
        list(pool.map(lambda name, mine: link(name, [*mine, *common]), names, own))


def execute(command):
    """Exit status and output."""
    environment = dict(
        os.environ,
        ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1",
        UBSAN_OPTIONS="print_stacktrace=1",
    )
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def replay(name):
    """(executions, whether all were well, what was printed)."""
    seeds = sorted(str(path) for path in (FUZZ / "seeds" / name).iterdir())
    limits = [f"-timeout={INPUT_SECONDS_MAX}"]
    status, output = execute([str(BUILD / f"fuzz_{name}"), *limits, *seeds])
    return len(re.findall(r"^Executed ", output, re.M)), status == 0, output


def fuzz(name, seconds):
    corpus, findings = FUZZ / f"corpus-{name}", FUZZ / "findings"
    for folder in (corpus, findings):
        folder.mkdir(exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-artifact_prefix={findings}/{name}-",
        "-print_final_stats=1",
    ]
    if name in DICTIONARIES:
        options.append(f"-dict={FUZZ}/dictionaries/{DICTIONARIES[name]}.dict")
    folders = [str(corpus), str(FUZZ / "seeds" / name)]
    status, output = execute([str(BUILD / f"fuzz_{name}"), *options, *folders])
    executed = re.search(r"^stat::number_of_executed_units:\s*(\d+)", output, re.M)
    return int(executed[1]) if executed else 0, status == 0, output


def run_differential(*options):
    status, output = execute([sys.executable, str(FUZZ / "differential.py"), *options])
    executed = re.search(r"^(\d+) executions", output, re.M)
    return int(executed[1]) if executed else 0, status == 0, output


def run_target(name, seconds):
    """Seeds first; new inputs only where they are well. seconds 0: the seeds alone."""
    if name == DIFFERENTIAL:
        phases = [lambda: run_differential("--replay")]
        phases += [lambda: run_differential("--seconds", str(seconds))] if seconds else []
    else:
        phases = [lambda: replay(name)]
        phases += [lambda: fuzz(name, seconds)] if seconds else []
    executions, is_well, output = 0, True, ""
    for phase in phases:
        if is_well:
            count, is_well, output = phase()
            executions += count
    return executions, is_well and executions > 0, output


def parse_arguments():
    parser = argparse.ArgumentParser(description="Builds and runs the fuzz targets.")
    parser.add_argument(
        "--seconds", type=int, default=120, help="of new executions, all targets together"
    )
    parser.add_argument("--replay", action="store_true", help="run the seeds alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=" ".join(targets()))
    options = parser.parse_args()
    unknown = set(options.targets) - set(targets())
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are: {' '.join(targets())}")
    if options.seconds < 1:
        parser.error("--seconds: at least 1 (--replay runs the seeds alone)")
    return options


def main():
    options = parse_arguments()
    names = [name for name in targets() if not options.targets or name in options.targets]
    try:
        build([name for name in names if name != DIFFERENTIAL], options.jobs)
    except BuildError as error:
        print(f"fuzz: the targets could not be built: {error}")
        return 1
    share = 0 if options.replay else max(1, options.seconds // len(names))
    total = failures = 0
    for name in names:
        executions, is_well, output = run_target(name, share)
        if not is_well:
            print(output[-20000:].rstrip())
        print(f"fuzz/{name}: {executions} executions, {'ok' if is_well else 'FAIL'}", flush=True)
        total, failures = total + executions, failures + (not is_well)
    print(f"fuzz: {len(names)} targets, {total} executions, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
