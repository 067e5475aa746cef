"""What the measured samples mean: medians with their spread, ratios, and the verdict of --check."""
import statistics
from collections import namedtuple

# -P -> how much of nutcracker's processor time per request nearkey may need.
RATIO_LIMITS = {1: 0.75, 16: 0.4}
TICKS_PRECISE = 100  # With fewer clock ticks in a sample it is coarser than 1 %.
TICKS_TO_JUDGE = 20  # With fewer, --check gives no verdict.

# One run of valkey-benchmark against one target.
Sample = namedtuple("Sample", "pipeline workload target round requests requests_per_s p50_ms p99_ms"
                              " proxy_ticks proxy_us server_ticks server_us")
# Processor time of one proxy for each request, by that of another, over the rounds.
Ratio = namedtuple("Ratio", "pipeline workload target base median min max ticks")

COLUMNS = [("requests/s", "requests_per_s", "{:,.0f}", 28), ("p50 ms", "p50_ms", "{:.3f}", 21),
           ("p99 ms", "p99_ms", "{:.3f}", 21), ("proxy us/req", "proxy_us", "{:.3f}", 21),
           ("server us/req", "server_us", "{:.3f}", 21)]


def spread(values, form):
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    middle, low, high = (form.format(value) for value in
                         (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"


def cases_of(samples):
    """The pairs (pipeline, workload), in the order in which they were measured."""
    return list(dict.fromkeys((sample.pipeline, sample.workload) for sample in samples))


def samples_of(samples, case, target):
    return [sample for sample in samples
            if (sample.pipeline, sample.workload, sample.target) == (*case, target)]


def ratios(samples, pairs):
    """A Ratio for each case and each pair (target, base) of proxies.

    It is the median of the rounds' ratios: what slows a round slows both sides of its ratio.
    """
    found = []
    for case in cases_of(samples):
        for target, base in pairs:
            rounds = [(ours.proxy_us / theirs.proxy_us, min(ours.proxy_ticks, theirs.proxy_ticks))
                      for ours, theirs in zip(samples_of(samples, case, target),
                                              samples_of(samples, case, base))
                      if theirs.proxy_ticks > 0]
            if rounds:
                values, ticks = zip(*rounds)
                found.append(Ratio(*case, target, base, statistics.median(values), min(values),
                                   max(values), min(ticks)))
            else:
                found.append(Ratio(*case, target, base, None, None, None, 0))
    return found


def print_tables(samples, targets, clients):
    for case in cases_of(samples):
        pipeline, workload = case
        rows = {name: samples_of(samples, case, name) for name in targets}
        count = rows[targets[0]]
        print(f"\n{workload} -P {pipeline} -c {clients}: {count[0].requests:,} requests in each of "
              f"{len(count)} rounds, median (min-max)")
        width = 2 + max(len(name) for name in targets)
        print(" " * width + "".join(title.ljust(size) for title, _, _, size in COLUMNS).rstrip())
        for name in targets:
            cells = (spread([getattr(sample, field) for sample in rows[name]], form).ljust(size)
                     for _, field, form, size in COLUMNS)
            print(name.ljust(width) + "".join(cells).rstrip())


def print_ratios(found):
    if not found:
        return
    print("\nprocessor time of the proxy per request, median of the rounds' ratios (min-max)")
    width = 2 + max(len(f"{ratio.target} / {ratio.base}") for ratio in found)
    for ratio in found:
        value = ("not measurable" if ratio.median is None else
                 f"{ratio.median:.3f} ({ratio.min:.3f}-{ratio.max:.3f})")
        coarse = "" if ratio.ticks >= TICKS_PRECISE else f"  coarse: {ratio.ticks} clock ticks"
        print(f"{ratio.workload} -P {ratio.pipeline}".ljust(10)
              + f"{ratio.target} / {ratio.base}".ljust(width) + value + coarse)


def check(found):
    """Prints a verdict on each ratio to nutcracker: 0 all hold, 1 one fails, 2 one is unknown."""
    status = 0
    print("\ncheck")
    for ratio in found:
        if ratio.base != "nutcracker":
            continue
        limit = RATIO_LIMITS[ratio.pipeline]
        if ratio.ticks < TICKS_TO_JUDGE:
            verdict, status = f"unknown: {ratio.ticks} clock ticks are too few", status or 2
        elif ratio.median > limit:
            verdict, status = f"FAIL: {ratio.median:.3f} is above {limit}", 1
        else:
            verdict = f"ok: {ratio.median:.3f} is at most {limit}"
        print(f"{ratio.workload} -P {ratio.pipeline} {ratio.target}: {verdict}")
    return status
