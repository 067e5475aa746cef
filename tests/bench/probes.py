"""What is measured otherwise than by a load on contenders side by side: memory of idle clients,
the time of a start, and a client beside one that moves large values.

Each probe yields (contender, figures) for one round.
"""
import contextlib
import ctypes
import os
import signal
import statistics
import subprocess
import time

import measure
import signals
from paths import keys_of, prefix_of
from programs import START_TIMEOUT_S, BenchError, Program, child, connect_unix, encode

IDLE_CLIENTS = 1000
# Resident memory is taken when it has not fallen for so long.
SETTLE_S = 1.0
SETTLE_S_MAX = 10
STARTS = 10  # In all rounds together, at least.
BULK_KEY_PREFIX = "bulk:"
BULK_LEAD_S = 0.5
# A single client would be a matter of where the scheduler puts the programs: paths.py, placement.
BULK_OTHERS = 10
PR_SET_PDEATHSIG = 1


def idle(bench, builds, _options, _round):
    """Clients that have sent one PING each, as a library does when it connects."""
    for label, binary in builds:
        name = f"{label}-idle"
        with contextlib.ExitStack() as stack:
            with signals.deferred():
                program = Program(name, bench.directory, bench.nearkey_command(name, binary, {}))
                stack.callback(program.stop)
            path = bench.socket_path(name)
            program.wait_until_answers(lambda path=path: connect_unix(path), ["PING"], b"+PONG")
            before = settled_rss(program)
            clients = [stack.enter_context(connect_unix(path)) for _ in range(IDLE_CLIENTS)]
            connected = settled_rss(program)
            for client in clients:
                client.sendall(encode("PING"))
            for client in clients:
                if client.recv(64) != b"+PONG\r\n":
                    raise BenchError(f"{name} does not answer PING")
            after = settled_rss(program)
        yield label, {"bytes_per_client": (after - before) / IDLE_CLIENTS,
                      "bytes_if_silent": (connected - before) / IDLE_CLIENTS,
                      "mib_without_clients": before / 2**20}


def settled_rss(program):
    """The resident memory once it no longer falls."""
    least, since = program.rss_bytes(), time.monotonic()
    started = since
    while time.monotonic() - since < SETTLE_S and time.monotonic() - started < SETTLE_S_MAX:
        time.sleep(0.1)
        now = program.rss_bytes()
        if now < least:
            since = time.monotonic()
        least = now
    return least


def start(bench, builds, options, _round):
    count = max(1, -(-STARTS // options.rounds))
    for label, binary in builds:
        times = [start_once(bench, f"{label}-start", binary) for _ in range(count)]
        yield label, {"start_ms": statistics.median(times), "slowest_ms": max(times)}


def start_once(bench, name, binary):
    """Milliseconds from exec to the first PONG: connecting is tried again and again."""
    path = bench.socket_path(name)
    command = bench.nearkey_command(name, binary, {})
    libc = ctypes.CDLL(None)
    clock_out, clock_in = os.pipe()

    def just_before_exec():
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.write(clock_in, str(time.monotonic_ns()).encode())

    with open(os.path.join(bench.directory, f"{name}.log"), "wb") as log, \
            child(command, cwd=bench.directory, stdout=log, stderr=log,
                  preexec_fn=just_before_exec) as process:
        os.close(clock_in)
        with open(clock_out, "rb") as clock:
            started_ns = int(clock.read())
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_ponging(path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{name} does not serve: {' '.join(command)}")
            time.sleep(0.0005)
        took_ms = (time.monotonic_ns() - started_ns) / 1e6
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(START_TIMEOUT_S)
    return took_ms


def is_ponging(path):
    try:
        with connect_unix(path) as client:
            client.sendall(encode("PING"))
            return client.recv(64) == b"+PONG\r\n"
    except OSError:
        return False


def beside_bulk(bench, contenders, options, round_number):
    """GETs of 100 bytes by a few clients: quiet, then while another SETs and GETs large values."""
    seconds = max(options.seconds, options.bulk_seconds)
    load = ["--command", "get", "--clients", str(BULK_OTHERS), "--prefix", prefix_of("get", 100),
            "--keys", str(keys_of(100)), "--value-bytes", "100", "--seconds", str(seconds)]
    shift = round_number % len(contenders)
    for contender in contenders[shift:] + contenders[:shift]:
        quiet = measure.run_load(bench, contender, load)
        stream_s = seconds + 2 * BULK_LEAD_S
        with stream(bench, contender, stream_s, options.bulk_mib) as streamer:
            time.sleep(BULK_LEAD_S)
            busy = measure.run_load(bench, contender, load)
            measure.result_of(bench, streamer, f"stream of {contender.name}", stream_s)
        yield contender.name, {
            "quiet_p99_us": quiet["p99_us"], "busy_p99_us": busy["p99_us"],
            "p99_ratio": busy["p99_us"] / quiet["p99_us"],
            "quiet_requests_per_s": quiet["requests_per_s"],
            "busy_requests_per_s": busy["requests_per_s"], "busy_max_us": busy["max_us"]}
        bench.check_alive()
    with connect_unix(bench.valkey_path) as client:
        client.sendall(encode("UNLINK", BULK_KEY_PREFIX + "0" * 12))
        client.recv(64)


def stream(bench, contender, seconds, mib):
    return measure.load_process([
        bench.tool("nearkey_load_client"), *contender.address, "--command", "alternate",
        "--clients", "1", "--keys", "1", "--prefix", BULK_KEY_PREFIX,
        "--value-bytes", str(mib << 20), "--seconds", str(seconds)])
