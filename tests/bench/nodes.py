"""Measures nearkey before a cluster beside nearkey before one server: scripts/bench --nodes.

Processor time of a forwarded GET, a pipeline over nodes that are 0.5 ms away, the map of a cluster of
a thousand primaries, and requests to nodes that are well while another one is not. Exit status: 0;
1 a bar was missed, with --check; 2 something could not be measured; 128 + N ended by signal N.
"""
import argparse
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time

import bars
import measure
import part_runs
import report
import signals
from cluster_field import (ClusterField, SyntheticCluster, ask, slots_reply, start_nearkey,
                           wait_until)
from programs import Bench, BenchError, connect_unix, encode, raise_descriptor_limit

NODES = 3
KEYS = 10_000
USUAL = {"rounds": 5, "seconds": 1.0}
QUICK = {"rounds": 3, "seconds": 0.4}
REFRESH_MS = 100
AWAY_CLIENTS = 8
TITLES = {
    "nodes-get-p1": "GET 100 B, 50 clients, -P 1, forwarded to one server, one node, three nodes",
    "nodes-get-p16": "the same, -P 16",
    "nodes-pipeline": "100 GETs in a pipeline of one client, servers 0.5 ms away",
    "nodes-map": "the map of 1,000 primaries, each with one range of slots",
    "nodes-map-scattered": "the same, slots one by one: 16,384 ranges",
    "nodes-frozen": "GET 100 B by 10 clients from one node, quiet and while another is frozen",
    "nodes-dead": "the same while the other is dead",
}


def load(prefix, **options):
    named = {"command": "get", "keys": KEYS, "prefix": prefix, "value-bytes": 100, **options}
    return [word for name, value in named.items() for word in (f"--{name}", str(value))]


def fill(field, contender, prefix):
    measure.run_load(field, contender, load(
        prefix, command="set", draw="sequence", requests=KEYS, clients=1, pipeline=50))


class Run:
    """What all parts of one run stand on."""

    def __init__(self, field, binary, options):
        self.field = field
        self.binary = binary
        self.options = options
        self.found = []
        self.one = ClusterField(field, "one", 1)
        self.three = ClusterField(field, "three", NODES)

    def note(self, path, contender, number, figures):
        self.found.append(report.Measurement(path, contender, number + 1, figures))

    def rounds(self, contenders):
        """(round, contenders) in an order that changes."""
        for number in range(self.options.rounds):
            shift = number % len(contenders)
            yield number, contenders[shift:] + contenders[:shift]


def measure_gets(run):
    field = run.field
    contenders = [
        start_nearkey(field, "one-server", run.binary,
                      f"valkey://127.0.0.1:{field.valkey_port}", {"upstream.cluster": "off"}),
        run.one.nearkey("one-node", run.binary), run.three.nearkey("nearkey", run.binary)]
    for contender in contenders:
        fill(field, contender, "r100:")
    for pipeline in (1, 16):
        arguments = load("r100:", clients=50, pipeline=pipeline, seconds=run.options.seconds,
                         **{"warm-up": min(0.2, run.options.seconds)})
        for number, order in run.rounds(contenders):
            for contender in order:
                done = measure.run_load(field, contender, arguments, [contender.proxy])
                run.note(f"nodes-get-p{pipeline}", contender.name, number, {
                    "requests_per_s": done["requests_per_s"], "p50_us": done["p50_us"],
                    "p99_us": done["p99_us"], "client_us": done["client_us"],
                    "proxy_us": done["watched_cpu_ns"][0] / 1000 / done["requests"]})
    for contender in contenders:
        contender.proxy.stop()
        field.programs.remove(contender.proxy)


def measure_pipelines(run):
    field = run.field
    contenders = [run.one.nearkey("one-node-far", run.binary, is_far=True),
                  run.three.nearkey("nearkey-far", run.binary, is_far=True)]
    for contender in contenders:
        fill(field, contender, "far:")
    arguments = load("far:", clients=1, pipeline=100, seconds=run.options.seconds,
                     **{"warm-up": min(0.2, run.options.seconds)})
    for number, order in run.rounds(contenders):
        for contender in order:
            done = measure.run_load(field, contender, arguments)
            run.note("nodes-pipeline", contender.name.replace("nearkey-far", "nearkey"), number,
                     {name: done[name] for name in ("requests_per_s", "p50_us", "p99_us")})
    for contender in contenders:
        contender.proxy.stop()
        field.programs.remove(contender.proxy)


class Turns:
    """The histogram of the loop's turns at one moment."""

    def __init__(self, field, name):
        with connect_unix(field.socket_path(f"{name}-admin")) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            page = b""
            while more := client.recv(1 << 20):
                page += more
        text = page.decode(errors="replace")
        family = "nearkey_loop_turn_duration_seconds"
        self.below = {float(bound): int(count) for bound, count in re.findall(
            rf'^{family}_bucket{{le="([^"]+)"}} (\d+)', text, re.M)}
        self.sum_s = float(re.search(rf"^{family}_sum (\S+)", text, re.M)[1])
        self.refreshes = int(re.search(r"^nearkey_cluster_maps_total (\d+)", text, re.M)[1])

    def longer_since(self, before, bound):
        def longer(turns):
            return turns.below[float("inf")] - turns.below[bound]
        return longer(self) - longer(before)


def measure_map(run, path, is_scattered):
    """Loop time with a refresh each 100 ms less that without any."""
    field = run.field
    synthetic = SyntheticCluster(field.valkey_path)
    try:
        synthetic.slots = slots_reply(synthetic.port, is_scattered)
        settings = {"upstream.heartbeat_interval_ms": 60_000, "upstream.unready_after_ms": 120_000,
                    "server.workers": 1}
        names = {"busy": REFRESH_MS, "quiet": 3_600_000}
        programs = {name: start_nearkey(
            field, f"map-{name}{'-scattered' * is_scattered}", run.binary,
            f"valkey+cluster://127.0.0.1:{synthetic.port}",
            {**settings, "cluster.refresh_interval_ms": interval_ms}).proxy
            for name, interval_ms in names.items()}
        settle(field, programs, synthetic)
        for number in range(run.options.rounds):
            before = {name: Turns(field, program.name) for name, program in programs.items()}
            time.sleep(max(2.0, 3 * run.options.seconds))
            after = {name: Turns(field, program.name) for name, program in programs.items()}
            run.note(path, "nearkey", number, map_figures(before, after))
        for program in programs.values():
            program.stop()
            field.programs.remove(program)
    finally:
        synthetic.close()


def settle(field, programs, synthetic):
    """All nodes are dialled: until then the map is asked for each second."""
    last = {"asked": -1, "since": time.monotonic()}

    def is_settled():
        field.check_alive()
        quiet = Turns(field, programs["quiet"].name).refreshes
        if quiet != last["asked"]:
            last.update(asked=quiet, since=time.monotonic())
        return synthetic.asked > 0 and time.monotonic() - last["since"] > 2.5

    wait_until(is_settled, "all of the thousand nodes are connected")


def map_figures(before, after):
    busy, quiet = ((after[name], before[name]) for name in ("busy", "quiet"))
    refreshes = busy[0].refreshes - busy[1].refreshes
    if refreshes == 0:
        raise BenchError("the map was not asked for")
    spent_s = busy[0].sum_s - busy[1].sum_s - (quiet[0].sum_s - quiet[1].sum_s)

    def longer(bound):
        """The page of metrics of so many nodes is a long turn, too, of both."""
        return busy[0].longer_since(busy[1], bound) - quiet[0].longer_since(quiet[1], bound)

    # The bound of the longest piece in 95 of 100 refreshes: what else the machine does is a turn, too.
    piece_s = min((bound for bound in busy[0].below if longer(bound) <= refreshes / 20), default=0)
    return {"refresh_ms": spent_s * 1000 / refreshes, "piece_ms": piece_s * 1000,
            "turns_over_1ms": longer(0.001), "refreshes": refreshes}


class AwayClients:
    """Clients that ask the node that is away for something, whatever they are told."""

    def __init__(self, contender, key):
        self.is_over = False
        self.threads = [threading.Thread(target=self.run, args=(contender.address[1], key))
                        for _ in range(AWAY_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def run(self, path, key):
        with connect_unix(path) as client:
            client.settimeout(0.1)
            while not self.is_over:
                client.sendall(encode("GET", key))
                while not self.is_over:
                    with contextlib.suppress(socket.timeout):
                        client.recv(4096)
                        break
                time.sleep(0.01)

    def stop(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()


def measure_away(run):
    """Last, for it ends a node."""
    field = run.field
    well, away = run.three.nodes[0], run.three.nodes[2]
    contender = run.three.nearkey("nearkey", run.binary,
                                  **{"upstream.request_timeout_ms": 2000})
    prefix = run.three.tag_of(well)
    fill(field, contender, prefix)
    arguments = load(prefix, clients=10, seconds=max(run.options.seconds, 1.0))
    key = run.three.tag_of(away)
    for path, signal_number in (("nodes-frozen", signal.SIGSTOP), ("nodes-dead", signal.SIGKILL)):
        for number in range(run.options.rounds):
            quiet = measure.run_load(field, contender, arguments)
            away.program.process.send_signal(signal_number)
            clients = AwayClients(contender, key)
            try:
                time.sleep(0.3)
                busy = measure.run_load(field, contender, arguments)
            finally:
                clients.stop()
                away.program.process.send_signal(signal.SIGCONT)
            run.note(path, "nearkey", number, {
                "quiet_p99_us": quiet["p99_us"], "away_p99_us": busy["p99_us"],
                "p99_ratio": busy["p99_us"] / quiet["p99_us"],
                "quiet_requests_per_s": quiet["requests_per_s"],
                "away_requests_per_s": busy["requests_per_s"]})
            if signal_number == signal.SIGKILL:
                break
            wait_until(lambda: ask(away.path, "PING").startswith(b"+PONG"), "the node is awake")
            time.sleep(0.5)
    field.programs.remove(away.program)


PARTS = {
    "get": measure_gets,
    "pipeline": measure_pipelines,
    "map": lambda run: measure_map(run, "nodes-map", False),
    "scattered": lambda run: measure_map(run, "nodes-map-scattered", True),
    "away": measure_away,
}


def measure_all(binary, options):
    with tempfile.TemporaryDirectory(prefix="nearkey-bench-") as directory, \
            contextlib.ExitStack() as stack:
        try:
            field = Bench(directory, stack, options.tools)
            field.start_valkey()
            run = Run(field, binary, options)
            for name, part in PARTS.items():
                if name in options.parts:
                    started = time.monotonic()
                    part(run)
                    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            return run.found
        finally:
            signals.ignore_signals()


def part_names(text):
    names = text.split(",")
    if set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"the parts are {', '.join(PARTS)}")
    return names


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="scripts/bench --nodes",
                                     description=__doc__.split("\n\n")[0])
    part_runs.add_options(parser)
    parser.add_argument("--parts", type=part_names, default=list(PARTS), metavar="NAME,...",
                        help=", ".join(PARTS) + "; default all")
    return part_runs.parse(parser, arguments, USUAL, QUICK)


def main():
    options = parse_arguments(sys.argv[1:])
    signals.end_by_signals()
    raise_descriptor_limit()
    try:
        found = measure_all(options.nearkey[1], options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    part_runs.print_tables(found, TITLES)
    judged = bars.verdicts(found, lambda family: family, bars.NODES_BARS)
    print()
    bars.print_verdicts(judged)
    if options.json:
        part_runs.write_json(options.json, found, judged, os.getloadavg())
    return bars.exit_status(judged) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
