"""Runs the unit tests, the style checks, the system tests and those of the Python package, and
counts their cases.

    tests/run_all.py [-j N] [--only REGEX] [--full | --fast] [--compile asan] [--compile tsan]
                     BUILD_DIR...                                            build unless given
    tests/run_all.py [-j N] --server BUILD_DIR                               what depends on the server

--full adds, for the first build: the comparison with the server (tests/differential), real clients
(tests/clients), both before a cluster as well, the examples, hostile bytes (tests/fuzz/parsers.py), a minute of fuzzing, many
system tests once more with two event loops, and these with the thread sanitizer; for each rule that
tests may break, the case that must fail then; and for each build the simulation, and 20 seconds of
sequences whose replies must come in time (tests/liveness).

The name of a case is SUITE/CASE: `unit/near cache: ...`, `style/layers`,
`system/test_basics/PingTest.test_ping`. --only keeps the cases whose name the regex finds.

--compile builds with a sanitizer first, at the lowest priority and beside the suites that need
another build; build-asan is one of the builds then.

--fast leaves out what takes longest and what needs a machine without other load (LONG, ALONE).

Suites run at the same time, the longest first: each has its own folder, sockets and ports. -j says
how many, if they mostly wait: three for each core; one that keeps a core busy counts as three. Those
whose outcome depends on what else the machine does (ALONE) run after all others, one after the
other. The output of a suite is shown when it has ended and one of its cases failed.

A case with bounds of time that fails while other suites, or other users of the machine, have the
processors says little. So the few that failed (AGAIN) run once more at the end, alone. What passes
then counts as passed and is named in a line that begins with UNSTEADY, with its first output above:
it is to be looked at. What a sanitizer or the history checker found fails at once. The last line is
`N passed, N failed`.
"""
import argparse
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest
import xml.etree.ElementTree as ElementTree
from collections import namedtuple
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from standstill import StandstillWatch

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_TESTS = ROOT / "tests" / "system"
PYTHON_TESTS = ROOT / "tests" / "python"  # of the package in python/
# Of one suite: the longest take two minutes.
TIMEOUT_S = 600
# Of one build, beside tests.
COMPILE_TIMEOUT_S = 2400
# No suite begins after it: then something is wrong, and hours would not make it right.
BEGIN_WITHIN_S = 3600
# Below what the kernel gives to connections (net.ipv4.ip_local_port_range).
PORTS = range(12000, 32000)
# Of include/nearkey/base/sabotage.h, which the simulation finds broken; docs/near_cache.md says how
# soon, and why not the others. The rarest show in one seed in 200, and any change of what is drawn
# makes other runs of them.
RULES = ("own_write", "fill_ticket", "lease", "generation", "null_push", "database", "queued_write",
         "other_loops", "other_connection", "queued_read", "whole_read", "unfilled_part", "ttl_sent",
         "swapdb_asked", "void_fill", "way", "failover_void", "ownership_beat", "suspicion",
         "ownership", "absence", "redirect_void", "gate", "early_reply", "segment_void",
         "segment_source", "segment_epoch")
RULES_SEEDS = "1000"  # at most; it ends with the first that finds it

# Run once more with two event loops (server.workers): all that crosses sessions.
WITH_WORKERS = ("cluster", "cluster_face", "cluster_operating", "cluster_parts", "cluster_pubsub",
                "cluster_replicas",
                "cluster_topology", "drain", "leases", "limits", "near_cache", "near_cache_commands",
                "near_cache_cluster", "near_cache_fields", "near_cache_invalidations", "near_cache_lease",
                "near_cache_nodes", "near_cache_scripts", "near_cache_split", "near_cache_stale",
                "near_cache_ways", "reload", "session_commands", "shared_memory", "slow_clients", "transactions",
                "tunnels", "upgrade", "upstream_loss", "wait")

# What depends on the server most, besides the comparison with it and the history checker: its table
# of commands, which of them name which keys, and what it tells of changes.
SERVER_TESTS = ("command_rules", "command_rules_oracle", "forged_replies", "near_cache",
                "near_cache_commands", "near_cache_fields", "near_cache_keys")

# One after the other, when nothing else runs, and why.
ALONE = (
    r"system/test_costs",  # system calls and wake-ups that other load would move
    r"(system|two workers)/test_not_held_up",  # medians of milliseconds
    r"(system|two workers)/test_slow_clients",  # compares tails of latency, milliseconds again
    r"system/test_memory",  # what one connection costs, of a process at rest
    r"system/test_sentinel_load",  # how long a failover takes, to 20 ms
    # Load from four processes and more, for a given time: with half of the cores it would find half.
    r"coherence.*",
    r"threads/coherence",
    r"liveness.*",  # a reply is late after a second
    r"python/test_redis_py_suite",  # has bounds of time that are redis-py's, of some milliseconds
)
# A sanitizer build has six times the time for everything: nothing of it needs to be alone.

# Not with the address sanitizer: what they look at is not memory, and others run the same code.
NOT_SANITIZED = (r"test_(bench|deploy|docs|image|near_cache_memory|package|soak|standstill|status_page"
                 r"|units)")

# These keep a core busy all the time.
BUSY = (r"unit", r"rules", r"torn reads.*", r"threads of the client", r"model", r"simulation.*", r"differential.*", r"parsers", r"fuzz", r"liveness.*",
        r"clients.*", r"examples", r"system/test_(bench|soak|status_page|near_cache_memory)")
PLACES_OF_A_CORE = 3

# Begun first, the longest first, so that no long one is left at the end.
LONGEST = ("fuzz", "simulation", "system/test_memory_ways", "system/test_status_page", "system/test_sentinel_lies",
           "system/test_cluster_pubsub", "system/test_cluster", "system/test_cluster_parts",
           "system/test_cluster_topology", "clients", "clients before a cluster", "examples", "unit",
           "differential before a cluster", "differential while slots move",
           "differential", "system/test_sentinel", "system/test_bench", "parsers",
           "system/test_forged_replies", "system/test_liveness_oracles", "system/test_package",
           "system/test_image", "system/test_units", "system/test_operator_errors", "system/test_server_secrets",
           "system/test_upstream_network", "system/test_words_of_a_live_server",
           "system/test_upstream_loss", "system/test_upstream_state", "python/test_broken_rules")

# Not with --fast: half a minute and more each, and half of the time of all.
LONG = (r"system/test_(memory_ways|near_cache_memory|status_page|sentinel|sentinel_lies|bench"
        r"|forged_replies|image|liveness_oracles|package|soak)",
        r"python/test_(broken_rules|redis_py_suite)")

# Run once more alone, if not more than AGAIN_MAX cases failed: more would have one cause, and not
# that. On two cores a sanitizer's suites beside another build have failed ten, all of time.
BY_CASE = (r"unit", r"client", r"(system|two workers|python)/.*")
AGAIN = (*BY_CASE, r"clients.*", r"examples")
AGAIN_MAX = 20
# The same, and not counted, where the machine stood still meanwhile (standstill.py).
AGAIN_AFTER_STANDSTILL = (*AGAIN, r"liveness.*", r"differential.*", r"parsers")
# Of what failed and was not run again, once more at the end, in characters.
TOLD_AGAIN = 3000
# Never run again: a finding is one, also if it comes once in a hundred runs.
FINDINGS = r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: "

TORN_CASE = r"^(torn reads/[\w -]+): .*\b(ok|FAIL)$"
COHERENCE_CASE = r"^(coherence/[\w ]+): (?:.* )?(ok|FAIL|skipped: .*)$"

Suite = namedtuple("Suite", "name build run")
Failure = namedtuple("Failure", "suite outcome stood_still")
COMPILE = "compile"  # the name of a suite that makes its build
# Counts of one suite, the names of its cases that failed or were skipped, what it printed, and what
# of it is shown even where all is well.
Outcome = namedtuple("Outcome", "passed failed skipped names output shown", defaults=([], "", ""))


# What a suite finds in its environment besides, by the thread that runs it.
place = threading.local()


def environment(build):
    env = dict(os.environ, NEARKEY_BINARY=str(build / "nearkey"), PYTHONPATH=str(ROOT),
               PYTHONUNBUFFERED="1", NEARKEY_TEST_PORTS=getattr(place, "ports", ""))
    if is_sanitized(build):
        env.update(NEARKEY_TEST_SLOW="1",
                   ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1",
                   UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
    return env


def is_sanitized(build):
    if build.name in ("build-asan", "build-tsan"):
        return True  # It may not be there yet.
    options = build / "meson-info" / "intro-buildoptions.json"
    if not options.exists():
        return False
    values = {option["name"]: option["value"] for option in json.loads(options.read_text())}
    return values.get("b_sanitize", "none") != "none"


def run(command, build, directory=ROOT, variables=(), timeout_s=TIMEOUT_S):
    """Exit status and output of a command; whatever it leaves running ends with it."""
    if build.name == "build-tsan" or command[0].endswith("_tsan"):
        command = [*at_fixed_addresses(), *command]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        child = subprocess.Popen(command, cwd=directory, stdout=output,
                                 env={**environment(build), **dict(variables)},
                                 stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
                                 start_new_session=True)
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = f"no end after {timeout_s} s"
        finally:
            kill_group(child.pid)
            child.wait()
        output.seek(0)
        text = output.read()
    return status, text if status == 0 else f"{text}\n(exit status: {status})"


@functools.cache
def at_fixed_addresses():
    """The thread sanitizer's own memory has a fixed place, where a kernel that spreads programs
    widely (vm.mmap_rnd_bits) now and then has put one."""
    command = ["setarch", "-R"]
    return command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else []


def kill_group(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def with_status(outcome, status):
    """A suite that ended badly has failed, even where none of its cases says so."""
    if status != 0 and outcome.failed == 0:
        return outcome._replace(failed=1, names=outcome.names + ["the suite itself"])
    return outcome


def run_unit(build, only, suite="unit", name=None):
    """A program of doctest's cases."""
    program = str(build / (name or f"nearkey_{suite}_tests"))
    if not os.path.exists(program):
        return Outcome(0, 1, 0, ["the suite itself"], f"{program} is not built")
    arguments = []
    if only:
        status, listing = run([program, "--list-test-cases", "--reporters=xml"], build)
        if status != 0:
            return Outcome(0, 1, 0, ["the list of cases"], listing)
        names = [case.get("name") for case in ElementTree.fromstring(listing).iter("TestCase")]
        names = [name for name in names if re.search(only, f"{suite}/{name}")]
        if not names:
            return Outcome(0, 0, 0)
        # A comma would end the name; in doctest's patterns a ? stands for any character.
        arguments = ["--test-case=" + ",".join(re.sub(r'[,*"\\]', "?", name) for name in names)]
    status, output = run([program, "--no-colors", *arguments], build)
    match = re.search(r"test cases: *\d+ *\| *(\d+) passed *\| *(\d+) failed", output)
    passed, failed = (int(match[1]), int(match[2])) if match else (0, 0)
    names = re.findall(r"^TEST CASE: +(.*)$", output, re.M) if failed else []
    return with_status(Outcome(passed, failed, 0, list(dict.fromkeys(names)), output), status)


def run_style(build, only):
    status, output = run([sys.executable, "tests/style/check_style.py"], build)
    cases = re.findall(r"^([\w-]+): (ok|FAIL)$", output, re.M)
    cases = [case for case in cases if not only or re.search(only, "style/" + case[0])]
    failed = [name for name, verdict in cases if verdict == "FAIL"]
    outcome = Outcome(len(cases) - len(failed), len(failed), 0, failed, output)
    return outcome if cases else with_status(outcome, 0 if only else status)


def run_system(build, only, module, variables=(), folder=SYSTEM_TESTS):
    """Runs one file of system tests in a process of its own, which is run_module below."""
    if only and not may_name(only, module):
        return Outcome(0, 0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        status, output = run([sys.executable, __file__, "--module", module, str(report),
                              *(["--only", only] if only else [])], build, folder, variables)
        if not report.exists():
            return Outcome(0, 1, 0, ["the suite itself"], output)
        return with_status(Outcome(**json.loads(report.read_text()), output=output), status)


def may_name(only, module):
    """False where the regex begins with the name of another module: it need not be loaded then."""
    named = re.match(r"\^?(?:system|python)/(\w+)\w", only)
    return not named or "|" in only or module.startswith(named[1])


def cases_of(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases_of(test)
        else:
            yield test


def run_python(build, only, module):
    """The same of the Python package, as it is in the build."""
    path = os.pathsep.join(map(str, (build / "python", SYSTEM_TESTS, ROOT)))
    return run_system(build, only, module, {"PYTHONPATH": path}, PYTHON_TESTS)


def run_module(module, report, only):
    """In the folder of the module, which is the working one."""
    sys.path[:0] = dict.fromkeys([os.getcwd(), str(SYSTEM_TESTS)])
    suite = unittest.TestSuite(
        case for case in cases_of(unittest.defaultTestLoader.loadTestsFromName(module))
        if not only or re.search(only, f"{Path.cwd().name}/{name_in(module, case)}"))
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=CountingResult)
    result = runner.run(suite)
    # One case can fail more than once, in its subtests; a class that can't be set up is one, too.
    failed = {name_in(module, getattr(test, "test_case", test))
              for test, _ in result.failures + result.errors}
    failed |= {name_in(module, test) for test in result.unexpectedSuccesses}
    skipped = [f"{name_in(module, test)} skipped: {why}" for test, why in result.skipped]
    Path(report).write_text(json.dumps({
        "passed": result.passed, "failed": len(failed), "skipped": len(skipped),
        "names": sorted(failed) + skipped}))


def run_program(build, only, name, command, pattern):
    """A suite that is a program: it prints its cases as the pattern says, `(name): (verdict)`."""
    if only and not re.search(only, name):
        return Outcome(0, 0, 0)
    status, output = run(command, build)
    cases = re.findall(pattern, output, re.M)
    failed = [case for case, verdict in cases if verdict.startswith(("FAIL", "ERROR"))]
    skipped = [f"{case} skipped: {verdict[8:]}" for case, verdict in cases if verdict.startswith("skipped")]
    passed = len(cases) - len(failed) - len(skipped)
    last = "\n".join(output.rstrip().splitlines()[-2:])
    return with_status(
        Outcome(passed, len(failed), len(skipped), failed + skipped, output, last), status)


def coherence(build, *options):
    """The command; options may name another program."""
    return [sys.executable, "tests/coherence/run.py", "--binary", str(build / "nearkey"), *options]


def programs(build):
    """Triples of (name, command, pattern of a case)."""
    python = sys.executable
    # Always the same commands here; any other seed is a command away.
    yield ("differential", [python, "tests/differential/run.py", "--seed", "20261123",
                            "--binary", str(build / "nearkey")],
           r"^(\d+ of \d+ commands of the server).*?; \d+ commands.*(compared).*$")
    compared = r"^(\d+ of \d+ commands of the server).*?; \d+ commands.*(compared).*$"
    before_cluster = [python, "tests/differential/run.py", "--cluster", "--seed", "20261129",
                      "--binary", str(build / "nearkey")]
    yield "differential before a cluster", [*before_cluster, "--commands", "12000"], compared
    yield ("differential while slots move",
           [*before_cluster, "--moving", "--commands", "8000", "--only", "random|scenario|multi/resp2"],
           compared)
    yield ("liveness before a cluster",
           [python, "tests/liveness/run.py", "--cluster", "--seconds", "20",
            "--binary", str(build / "nearkey")],
           r"^(liveness): .*: (ok|FAIL)$")
    yield "coherence", coherence(build, "--seconds", "10"), COHERENCE_CASE
    yield ("coherence with two workers",
           coherence(build, "--set", "server.workers=2", "--seconds", "6"), COHERENCE_CASE)
    yield ("coherence/sabotaged",
           coherence(build, "--sabotaged", str(build / "nearkey_sabotaged")),
           COHERENCE_CASE)
    simulation = str(build / "nearkey_simulation_sabotaged")
    for rule in RULES:
        # Ends with the first seed that finds what is wrong then.
        yield (f"simulation/without {rule}",
               ["env", f"NEARKEY_SABOTAGE={rule}", simulation, "--expect-violations",
                "--seeds", RULES_SEEDS],
               r"^(simulation/without \w+): .*(ok|FAIL)$")
    yield ("model", [python, "tests/model/segment.py"],
           r"^(model/\w+: .*?): \d+ states, .*: (ok|FAIL)$")
    torn_reads = str(build / "nearkey_torn_reads")
    for rule in broken_orders():
        # Ends with the first read that is wrong then.
        yield (f"torn reads/without {rule}",
               [torn_reads, "--broken", rule, "--seconds", "120"], TORN_CASE)
    clients = [python, "tests/clients/run.py", str(build)]
    yield "clients", clients, r"^(\S+/\S+): (ok|FAIL|skipped.*)"
    yield "clients before a cluster", [*clients, "--cluster"], r"^(\S+/\S+): (ok|FAIL|skipped.*)"
    yield ("examples", [python, "tests/examples/run.py", str(build)],
           r"^(examples/[\w-]+|test_\w+)(?::| .*\.\.\.) (ok|FAIL|ERROR|skipped.*)")
    yield ("parsers", [python, "tests/fuzz/parsers.py", "--seconds", "30"],
           r"^(parsers): .*: (ok|FAIL)$")
    yield ("fuzz", ["env", "-u", "NEARKEY_SKIP_DEPS", "scripts/fuzz", "--seconds", "50"],
           r"^(fuzz/\w+): .*(ok|FAIL)")


def run_compile(build, only):
    status, output = run(["nice", "-n", "19", "scripts/build-sanitized",
                          build.name.removeprefix("build-")], build, timeout_s=COMPILE_TIMEOUT_S)
    return Outcome(0, 0 if status == 0 else 1, 0, [] if status == 0 else [COMPILE], output)


def build_of(suite):
    """The folder of the programs that a suite runs."""
    return suite.build.parent / "build-tsan" if suite.name.startswith("threads/") else suite.build


def run_with_tsan(build, only, run):
    """run(build, only) of the build with the thread sanitizer, which not every kernel lets run."""
    build = build.parent / "build-tsan"
    if only and not (build / "nearkey").exists():
        return Outcome(0, 0, 0)  # scripts/test builds it where the name says so.
    probe = subprocess.run([*at_fixed_addresses(), build / "nearkey", "--version"],
                           capture_output=True)
    if probe.returncode != 0:
        return Outcome(0, 0, 1, ["the thread sanitizer does not run here: skipped: "
                                 + probe.stderr.decode(errors="replace")[:200]])
    return run(build, only)


def run_liveness(build, only):
    """Other sequences each time: the seed is in the last line."""
    seconds = "20" if is_sanitized(build) else "20"
    return run_program(build, only, "liveness",
                       [sys.executable, "tests/liveness/run.py", "--seconds", seconds,
                        "--binary", str(build / "nearkey")],
                       r"^(liveness): .*: (ok|FAIL)$")


def rules():
    """The names of all rules that can be broken."""
    return re.findall(r'"([a-z_]+)"', (ROOT / "src" / "base" / "sabotage.cc").read_text())


def broken_orders():
    """The rules of the order in which a segment is read and written (nearkey_torn_reads --list)."""
    text = (ROOT / "tests" / "client" / "torn_reads.c").read_text()
    names = re.search(r"kNames\[RULES\] = \{(.*?)\}", text, re.S)[1]
    return re.findall(r'"([a-z-]+)"', names)[1:]


def run_client_with_tsan(build, only):
    """The client library's cases and its torn reads, which not every kernel lets run with it."""
    if is_sanitized(build):
        return Outcome(0, 0, 0)  # Only the normal build has these programs.
    probe = subprocess.run([*at_fixed_addresses(), build / "nearkey_torn_reads_tsan", "--list"],
                           capture_output=True)
    if probe.returncode != 0:
        return Outcome(0, 0, 1, ["the thread sanitizer does not run here: skipped: "
                                 + probe.stderr.decode(errors="replace")[:200]])
    command = [str(build / "nearkey_torn_reads_tsan"), "--seconds", "20"]
    torn = run_program(build, only, "threads/torn reads", command, TORN_CASE)
    unit = run_unit(build, only, "client", "nearkey_client_tests_tsan")
    return Outcome(torn.passed + unit.passed, torn.failed + unit.failed, 0,
                   torn.names + unit.names, torn.output + unit.output)


def run_rules(build, only):
    """Of nearkey_rule_tests each case passes, and that of a rule fails where the rule is broken."""
    program = str(build / "nearkey_rule_tests")
    passed, failed, outputs = 0, [], []
    for name in ["rules/unbroken"] + [f"rules/without {rule}" for rule in rules()]:
        if only and not re.search(only, name):
            continue
        rule = name.removeprefix("rules/without ")
        is_broken = rule != name
        filters = [f"--test-case=rule {rule}:*"] if is_broken else []
        status, output = run([program, "--no-colors", *filters], build,
                             variables={"NEARKEY_SABOTAGE": rule} if is_broken else {})
        is_found = f"TEST CASE:  rule {rule}: " in output and " ERROR: " in output
        if is_found if is_broken else status == 0:
            passed += 1
        else:
            failed.append(name)
            outputs.append(f"{name}:\n{output}")
    return Outcome(passed, len(failed), 0, failed, "\n".join(outputs))


def run_simulation(build, only):
    seeds = "3" if is_sanitized(build) else "400"
    return run_program(build, only, "simulation",
                       [str(build / "nearkey_simulation"), "--seeds", seeds],
                       r"^(simulation(?:/[\w ]+)?): .*\b(ok|FAIL)$")


class CountingResult(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.passed += 1


def name_in(module, case):
    return module + "/" + case.id().removeprefix(module + ".")


def suites(builds, is_full):
    """Style once, everything else for each build."""
    yield Suite("style", builds[0], run_style)
    for build in builds:
        yield Suite("unit", build, run_unit)
        yield Suite("client", build, functools.partial(run_unit, suite="client"))
    for build in builds:
        for path in sorted(SYSTEM_TESTS.glob("test_*.py")):
            if is_sanitized(build) and re.fullmatch(NOT_SANITIZED, path.stem):
                continue
            yield Suite("system/" + path.stem, build,
                        functools.partial(run_system, module=path.stem))
    # The interpreter does not load what needs a sanitizer's library.
    for build in builds:
        for path in sorted(PYTHON_TESTS.glob("test_*.py")) if not is_sanitized(build) else ():
            yield Suite("python/" + path.stem, build,
                        functools.partial(run_python, module=path.stem))
    for name in WITH_WORKERS if is_full else ():
        module = "test_" + name
        yield Suite(f"two workers/{module}", builds[0], functools.partial(
            run_system, module=module, variables={"NEARKEY_TEST_WORKERS": "2"}))
    if is_full:
        threads = [("threads/test_workers", functools.partial(run_system, module="test_workers")),
                   ("threads/coherence", functools.partial(
                       run_program, name="threads/coherence", pattern=COHERENCE_CASE,
                       command=["env", f"NEARKEY_CLIENT_LIBRARY={builds[0]}/libnearkey-client.so.0",
                                *coherence(builds[0].parent / "build-tsan", "--seconds", "6",
                                           "--set", "server.workers=3")]))]
        for name, function in threads:
            yield Suite(name, builds[0], functools.partial(run_with_tsan, run=function))
        yield Suite("threads of the client", builds[0], run_client_with_tsan)
        yield Suite("rules", builds[0], run_rules)
    for build in builds if is_full else ():
        yield Suite("simulation", build, run_simulation)
        yield Suite("liveness", build, run_liveness)
        yield Suite("torn reads", build, functools.partial(
            run_program, name="torn reads/right order", pattern=TORN_CASE,
            command=[str(build / "nearkey_torn_reads"), "--seconds", "30"]))
    for name, command, pattern in programs(builds[0]) if is_full else ():
        yield Suite(name, builds[0], functools.partial(
            run_program, name=name, command=command, pattern=pattern))


def suites_of_server(build):
    for name in SERVER_TESTS:
        module = "test_" + name
        yield Suite("system/" + module, build, functools.partial(run_system, module=module))
    for name, command, pattern in programs(build):
        if name in ("differential", "coherence"):
            yield Suite(name, build, functools.partial(
                run_program, name=name, command=command, pattern=pattern))


def is_one_of(suite, patterns):
    return any(re.fullmatch(pattern, suite.name) for pattern in patterns)


class Runner:
    """Runs suites, tells of each when it has ended, and counts."""

    def __init__(self, only):
        self.only = only
        self.passed = self.failed = self.skipped = 0
        self.began = time.monotonic()
        self.failures = []  # Of suites: Failure.
        self.standstills = StandstillWatch().start()

    def run_alone(self, suites):
        for suite in suites:
            self.end(suite, *self.outcome_of(suite, ports_of(0, 1)))

    def run_together(self, suites, places, compiles):
        """As many at the same time as there are places; a busy one takes those of a core. Beside
        them `compiles`, one after the other; a suite waits for that of its build."""
        waiting = sorted(suites, key=lambda suite: LONGEST.index(suite.name)
                         if suite.name in LONGEST else len(LONGEST))
        free = list(range(places))
        running = {}
        missing = {compile.build for compile in compiles}
        with ThreadPoolExecutor(places) as pool, ThreadPoolExecutor(1) as compiling:
            for suite in compiles:
                running[compiling.submit(self.outcome_of, suite, "")] = suite, []
            while waiting or running:
                for suite in list(waiting):
                    if build_of(suite) in missing:
                        continue
                    size = min(places, PLACES_OF_A_CORE if is_one_of(suite, BUSY) else 1)
                    if size <= len(free):
                        waiting.remove(suite)
                        taken = [free.pop() for _ in range(size)]
                        future = pool.submit(self.outcome_of, suite, ports_of(taken[0], places))
                        running[future] = suite, taken
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    suite, taken = running.pop(future)
                    free += taken
                    self.end(suite, *future.result())
                    if suite.name == COMPILE:
                        missing.remove(suite.build)
                        if not (suite.build / "nearkey").exists():
                            waiting = [one for one in waiting if build_of(one) != suite.build]

    def run_again(self):
        """Those that failed, alone now."""
        failed = sum(each.outcome.failed for each in self.failures if not each.stood_still)
        for suite, outcome, stood_still in self.failures:
            if not may_run_again(suite, outcome, stood_still):
                continue
            if failed > AGAIN_MAX and not stood_still:
                continue
            names = [name for name in outcome.names if " skipped: " not in name]
            # Of programs, and where a suite or a class could not begin, all cases.
            is_whole = not is_one_of(suite, BY_CASE) or not all(map(is_case, names))
            only = self.only if is_whole else names_as_regex(names)
            begin = time.monotonic()
            again = suite.run(suite.build, only)
            if again.failed == 0 and again.passed > 0:
                self.failed -= outcome.failed
                self.passed += outcome.failed
                for name in names:
                    print(f"UNSTEADY {suite.build.name}: {suite.name}: {name}: failed, and passed"
                          f" when run again in {time.monotonic() - begin:.1f} s")
            else:
                print(again.output.rstrip())
                print(f"{suite.build.name}: {suite.name}: failed again: {', '.join(again.names)}")

    def tell_again(self):
        """The end of what failed and was not run again, for a log whose middle was cut."""
        for suite, outcome, stood_still in self.failures:
            if not may_run_again(suite, outcome, stood_still):
                print(outcome.output.rstrip()[-TOLD_AGAIN:])
                print(f"{suite.build.name}: {suite.name}: failed: {', '.join(outcome.names)}")

    def outcome_of(self, suite, ports):
        """And when it began and ended."""
        begin = time.monotonic()
        if begin - self.began > BEGIN_WITHIN_S:
            late = f"not begun within {BEGIN_WITHIN_S} s"
            return Outcome(0, 1, 0, ["the suite itself"], late), begin, begin
        place.ports = ports
        try:
            outcome = suite.run(suite.build, self.only)
        except Exception:  # Of a suite, not of all: the others still tell.
            outcome = Outcome(0, 1, 0, ["the suite itself"], traceback.format_exc())
        return outcome, begin, time.monotonic()

    def end(self, suite, outcome, begin, end):
        self.tell(suite, outcome, end - begin)
        if outcome.failed:
            stood_still = self.standstills.was_between(begin, end)
            self.failures.append(Failure(suite, outcome, stood_still))

    def tell(self, suite, outcome, seconds):
        if outcome.passed + outcome.failed + outcome.skipped == 0 and suite.name != COMPILE:
            return
        self.passed += outcome.passed
        self.failed += outcome.failed
        self.skipped += outcome.skipped
        said = outcome.output.rstrip() if outcome.failed else outcome.shown
        if said:
            print(said)
        print(f"{suite.build.name}: {suite.name}: {outcome.passed} passed, {outcome.failed} failed, "
              f"{outcome.skipped} skipped in {seconds:.1f} s")
        for figure in re.findall(r"figure: (.*)", outcome.output):
            print(f"    {figure}")
        for case in outcome.names:
            print(f"    {case}" if " skipped: " in case else f"    FAILED {case}")
        sys.stdout.flush()


def may_run_again(suite, outcome, stood_still):
    allowed = AGAIN_AFTER_STANDSTILL if stood_still else AGAIN
    return is_one_of(suite, allowed) and not re.search(FINDINGS, outcome.output)


def is_case(name):
    """Not the suite itself, nor a class that could not be set up."""
    return name != "the suite itself" and not name.endswith(")")


def names_as_regex(names):
    """Of the names of cases as an outcome has them, which are without the name of the suite."""
    return "/(" + "|".join(re.escape(name) for name in names) + ")$"


def ports_of(number, places):
    """The first and the last port of the range of one place."""
    size = len(PORTS) // places
    first = PORTS.start + number * size
    return f"{first}-{first + size - 1}"


def main():
    parser = argparse.ArgumentParser(description="Runs all suites and counts their cases.")
    parser.add_argument("-j", "--jobs", metavar="N", type=int, default=PLACES_OF_A_CORE * (os.cpu_count() or 1),
                        help="how many suites at the same time, if they mostly wait")
    parser.add_argument("--only", metavar="REGEX", help="run the cases whose name matches")
    parser.add_argument("--full", action="store_true", help="and what takes minutes")
    parser.add_argument("--fast", action="store_true", help="without what takes longest")
    parser.add_argument("--server", action="store_true",
                        help="only what depends on the server: NEARKEY_TEST_SERVER names another")
    parser.add_argument("--module", nargs=2, metavar=("MODULE", "REPORT"), help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="append", choices=["asan", "tsan"], default=[],
                        help="build with this sanitizer first")
    parser.add_argument("builds", nargs="*", metavar="BUILD_DIR")
    options = parser.parse_args()
    if options.module:
        run_module(*options.module, options.only)
        return 0
    compiles = [Suite(COMPILE, ROOT / f"build-{name}", run_compile) for name in options.compile]
    builds = [(ROOT / build).resolve() for build in options.builds]
    builds += [suite.build for suite in compiles if suite.build.name == "build-asan"]
    builds = builds or [ROOT / "build"]
    wanted = list(suites_of_server(builds[0]) if options.server else suites(builds, options.full))
    alone = [suite for suite in wanted
             if is_one_of(suite, ALONE) and not is_sanitized(suite.build)]
    if options.fast:
        wanted = [suite for suite in wanted
                  if suite not in alone and not is_one_of(suite, LONG)]
        alone = []
    runner = Runner(options.only)
    runner.run_together([suite for suite in wanted if suite not in alone], max(1, options.jobs), compiles)
    runner.run_alone(alone)
    runner.run_again()
    runner.tell_again()
    if runner.skipped:
        print(f"{runner.skipped} skipped")
    print(f"{runner.passed} passed, {runner.failed} failed")
    return 1 if runner.failed or runner.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
