"""One run of nearkey_load_client against one contender, and what the programs took for it."""
import contextlib
import json
import os
import re
import subprocess
import sys

from paths import keys_of
from programs import BenchError, RunVoid, child, connect_unix, encode, tied_to_us

# What a run may take beyond its measurement: connecting, the warm-up, the replies that are owed.
RUN_GRACE_S = 60
FILL_BATCH = 50
MGET_KEYS = 20
# One client has one thread; more threads than processors would only take turns.
THREADS = max(1, min(4, os.cpu_count() or 1))


def run_load(bench, contender, arguments, watched=()):
    """The result of a run as a dictionary."""
    command = [bench.tool("nearkey_load_client"), *contender.address, *arguments,
               "--threads", str(THREADS)]
    if watched:
        command += ["--watch", ",".join(str(program.pid) for program in watched)]
    seconds = float(arguments[arguments.index("--seconds") + 1]) if "--seconds" in arguments else 0
    with load_process(command) as load:
        return result_of(bench, load, f"load of {contender.name} ({' '.join(arguments)})", seconds)


def load_process(command):
    return child(tied_to_us(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result_of(bench, load, what, seconds):
    """What the load printed when it ended, which it does after so many seconds."""
    try:
        output, errors = load.communicate(timeout=seconds + RUN_GRACE_S)
    except subprocess.TimeoutExpired:
        raise RunVoid(f"{what}: no end") from None
    if load.returncode != 0:
        bench.check_alive()  # The end of one of them is the better explanation.
        raise RunVoid(f"{what}: {errors.strip()}")
    return json.loads(output)


def sweep(bench, contender, command, prefix, value_bytes):
    """Each key of that prefix once."""
    keys = keys_of(value_bytes)
    requests = keys // MGET_KEYS if command == "mget" else keys
    run_load(bench, contender, [
        "--command", command, "--draw", "sequence", "--requests", str(requests), "--clients", "1",
        "--pipeline", str(FILL_BATCH if value_bytes < 4096 else 2), "--keys", str(keys),
        "--prefix", prefix, "--value-bytes", str(value_bytes)])


def metrics(contender):
    with connect_unix(contender.address[1]) as client:
        client.sendall(encode("NEARKEY", "STATS"))
        client.settimeout(10)
        text = b""
        # The names come in their order; both of ours are complete with what follows them.
        while not (found := re.findall(rb"nearkey_near_cache_(hits|misses)_total\r\n:(\d+)\r\n",
                                       text)) or len(found) < 2:
            more = client.recv(65536)
            if not more:
                raise BenchError(f"{contender.name} does not tell its hits")
            text += more
    return {name.decode(): int(value) for name, value in found}


def measure(bench, contender, family, path, options):
    """The figures of one run."""
    watched = [program for program in (contender.proxy, bench.valkey) if program]
    before = metrics(contender) if contender.is_near_cache else None
    with placed(path.placement, watched):
        result = run_load(bench, contender, [
            *path.load_arguments(), "--seconds", str(options.seconds),
            "--warm-up", str(options.warm_up)], watched)
    bench.check_alive()
    per_request = [ns / 1000 / result["requests"] for ns in result.pop("watched_cpu_ns")]
    figures = {name: result[name] for name in
               ("requests_per_s", "p50_us", "p99_us", "p999_us", "client_us")}
    figures["server_us"] = per_request[-1]
    figures["server_mib"] = bench.valkey.rss_bytes() / 2**20
    if contender.proxy:
        figures["proxy_us"] = per_request[0]
        figures["proxy_mib"] = contender.proxy.rss_bytes() / 2**20
    if before:
        figures["hits_share"] = hits_share(before, metrics(contender))
        check_hits(figures, path.hits_range(family), f"{path.name} at {contender.name}")
    return figures


@contextlib.contextmanager
def placed(placement, programs):
    """Keeps the programs, and what we start meanwhile, to one processor (`together`), or the first
    of them to another one (`apart`)."""
    everywhere = os.sched_getaffinity(0)
    if placement is None:
        yield
        return
    first, last = min(everywhere), max(everywhere)
    try:
        os.sched_setaffinity(0, {first})
        for index, program in enumerate(programs):
            keep_to(program, {last if placement == "apart" and index == 0 else first})
        yield
    finally:
        os.sched_setaffinity(0, everywhere)
        for program in programs:
            keep_to(program, everywhere)


def keep_to(program, processors):
    for thread in os.listdir(f"/proc/{program.pid}/task"):
        os.sched_setaffinity(int(thread), processors)


def hits_share(before, after):
    hits = after["hits"] - before["hits"]
    misses = after["misses"] - before["misses"]
    return hits / max(hits + misses, 1)


def check_hits(figures, wanted, what):
    """Not another load than the one that is told: what has too few hits is no result."""
    if wanted is None:
        return
    share = figures["hits_share"]
    if not wanted[0] <= share <= wanted[1]:
        print(f"{what}: {share:.1%} hits are not within {wanted[0]:.1%} to {wanted[1]:.1%}; "
              "this run does not count", file=sys.stderr)
        for name in list(figures):
            if name != "hits_share":
                figures[name] = None


def warm_up(bench, contender, family, path, options):
    """Before the first round: what is to be stored is stored, by being read again and again."""
    if not contender.is_near_cache:
        return
    if family == "nearkey-zipf":
        run_load(bench, contender, [*path.load_arguments(), "--seconds",
                                    str(options.fill_seconds)])
        return
    command = "mget" if path.command == "mget" else "get"
    for _ in range(3):
        sweep(bench, contender, command, path.prefix, path.value_bytes)
