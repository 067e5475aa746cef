"""The bars that nearkey has to reach: --check holds each against its figure of this run."""
from dataclasses import dataclass

import report


@dataclass(frozen=True)
class Bar:
    """`figure` of nearkey's contender, by `base` (contender, figure) unless that is None, is at
    least or at most `limit`."""
    path: str
    what: str
    family: str
    figure: str
    base: tuple
    sense: str  # "at least" or "at most"
    limit: float
    unit: str = ""

    def is_met(self, value):
        return value >= self.limit if self.sense == "at least" else value <= self.limit


def cost(path, base, limit):
    return Bar(path, f"processor time by {base}'s", "nearkey", "proxy_us", (base, "proxy_us"),
               "at most", limit)


def speed(path, base, limit, family="nearkey"):
    return Bar(path, f"requests/s by {base}'s", family, "requests_per_s",
               (base, "requests_per_s"), "at least", limit)


BARS = [
    *(bar for path in ("get-p1", "set-p1") for bar in (
        cost(path, "nutcracker", 0.65), speed(path, "nutcracker", 1.05))),
    *(bar for path in ("get-p16", "set-p16") for bar in (
        cost(path, "nutcracker", 0.28), speed(path, "nutcracker", 1.4),
        speed(path, "direct-tcp", 0.75))),
    Bar("one-client", "p50 by nutcracker's", "nearkey", "p50_us", ("nutcracker", "p50_us"),
        "at most", 0.9),
    *(bar for path in ("get-16k", "set-16k") for bar in (
        cost(path, "nutcracker", 0.85), cost(path, "haproxy", 1.0))),
    speed("stored-p1", "direct-unix", 1.15, "nearkey-stored"),
    speed("stored-p1", "direct-tcp", 1.4, "nearkey-stored"),
    Bar("stored-p1", "processor time by the echo server's", "nearkey-stored", "proxy_us",
        ("echo", "proxy_us"), "at most", 1.15),
    speed("stored-p16", "direct-unix", 1.4, "nearkey-stored"),
    Bar("stored-p16", "processor time by valkey-server's", "nearkey-stored", "proxy_us",
        ("direct-unix", "server_us"), "at most", 0.55),
    speed("zipf-far", "direct-far", 5.0, "nearkey-zipf"),
    Bar("idle", "resident memory of a client", "nearkey", "bytes_per_client", None, "at most",
        2.5 * 1024, "bytes"),
    Bar("start", "from exec to the first PONG", "nearkey", "start_ms", None, "at most", 30, "ms"),
    Bar("beside-bulk", "p99 by the quiet p99", "nearkey", "p99_ratio", None, "at most", 3.0),
]

# Of scripts/bench --nodes.
NODES_BARS = [
    *(Bar(path, "processor time over three nodes by one server's", "nearkey", "proxy_us",
          ("one-server", "proxy_us"), "at most", 1.1) for path in ("nodes-get-p1", "nodes-get-p16")),
    Bar("nodes-pipeline", "100 GETs over three nodes by over one", "nearkey", "p50_us",
        ("one-node-far", "p50_us"), "at most", 1.5),
    Bar("nodes-map", "loop time of a refresh", "nearkey", "refresh_ms", None, "at most", 5, "ms"),
    Bar("nodes-map", "longest turn of 95 % of refreshes", "nearkey", "piece_ms", None, "at most", 1,
        "ms"),
    Bar("nodes-frozen", "p99 by the quiet p99", "nearkey", "p99_ratio", None, "at most", 2.0),
    Bar("nodes-dead", "p99 by the quiet p99", "nearkey", "p99_ratio", None, "at most", 2.0),
]

# Of scripts/bench --paths shared.
SHARED_BARS = [
    Bar("shared-c-hot", "a hit", "nearkey", "ns", None, "at most", 60, "ns"),
    Bar("shared-c-zipf", "a hit by std::unordered_map's", "nearkey", "ns", ("map", "ns"), "at most",
        1.1),
    Bar("shared-c-writes", "a hit beside a writer by the quiet one", "nearkey", "ns",
        ("quiet", "ns"), "at most", 1.5),
    Bar("shared-calls", "system calls of all hits", "nearkey", "calls", None, "at most", 0),
    Bar("shared-python", "a hit", "nearkey", "ns", None, "at most", 250, "ns"),
    Bar("shared-python", "a hit by redis-py's through the socket", "nearkey", "ns",
        ("socket", "ns"), "at most", 0.02),
    Bar("shared-far", "requests/s by direct-far's", "nearkey", "requests_per_s",
        ("direct-far", "requests_per_s"), "at least", 20),
]


def verdicts(measurements, contender_of, judged=None):
    """For each bar a dictionary; `is_met` is None where it could not be measured.

    `contender_of(family)` names the contender that is judged; `judged`: other bars than BARS.
    """
    found = []
    for bar in BARS if judged is None else judged:
        ours = contender_of(bar.family)
        if bar.base:
            value = report.ratio(measurements, bar.path, (ours, bar.figure), bar.base)
        else:
            value = report.figure(measurements, bar.path, ours, bar.figure)
        found.append({"path": bar.path, "what": bar.what, "contender": ours, "sense": bar.sense,
                      "limit": bar.limit, "unit": bar.unit,
                      "value": value._asdict() if value else None,
                      "is_met": bar.is_met(value.median) if value else None})
    return found


def print_verdicts(found):
    words = {True: "met", False: "MISSED", None: "not measured"}
    width = 2 + max(len(f"{row['path']}: {row['what']}") for row in found)
    for row in found:
        bar = f"{row['sense']} {row['limit']:g} {row['unit']}".rstrip()
        value = row["value"]
        text = f"{value['median']:.3g} ({value['min']:.3g}-{value['max']:.3g})" if value else ""
        if row["unit"] == "bytes" and value:
            text = f"{value['median']:,.0f} ({value['min']:,.0f}-{value['max']:,.0f})"
        print(f"{row['path'] + ': ' + row['what']:{width}}{bar:24}{text:24}{words[row['is_met']]}")


def exit_status(found):
    """1: a bar is missed; 2: none is, but not all were measured; else 0."""
    if any(row["is_met"] is False for row in found):
        return 1
    return 2 if any(row["is_met"] is None for row in found) else 0
