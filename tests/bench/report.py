"""What the measurements mean: medians with their spread, and ratios of the same round.

All rounds of a figure are kept; a ratio is taken within each round, so that what slows a round
slows both of its sides, and what counts is the median of these ratios.
"""
import statistics
from collections import namedtuple

# One run: `figures` is a dictionary of numbers.
Measurement = namedtuple("Measurement", "path contender round figures")
Spread = namedtuple("Spread", "median min max")

# Heading, figure, its format, width of the column.
COLUMNS = [
    ("requests/s", "requests_per_s", "{:,.0f}", 34),
    ("p50 us", "p50_us", "{:,.1f}", 10),
    ("p99 us", "p99_us", "{:,.1f}", 10),
    ("p99.9 us", "p999_us", "{:,.1f}", 10),
    ("proxy us/request", "proxy_us", "{:.3g}", 24),
    ("server us/request", "server_us", "{:.3g}", 28),
    ("load us", "client_us", "{:.2g}", 8),
    ("proxy MiB", "proxy_mib", "{:.1f}", 10),
    ("ns a read", "ns", "{:,.0f}", 18),
    ("hits", "hits_share", "{:.1%}", 7),
]
WITH_SPREAD = {"requests_per_s", "proxy_us", "server_us", "ns"}


def spread(values):
    """None where there are no values."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def rounds_of(measurements, path, contender, figure):
    """Round -> value."""
    return {measurement.round: measurement.figures[figure] for measurement in measurements
            if (measurement.path, measurement.contender) == (path, contender)
            and measurement.figures.get(figure) is not None}


def figure(measurements, path, contender, name):
    return spread(list(rounds_of(measurements, path, contender, name).values()))


def ratio(measurements, path, ours, theirs):
    """Spread of the rounds' ratios of two (contender, figure); None where one was not measured."""
    upper = rounds_of(measurements, path, *ours)
    lower = rounds_of(measurements, path, *theirs)
    return spread([upper[number] / lower[number] for number in upper
                   if lower.get(number, 0) > 0])


def in_order(values):
    return list(dict.fromkeys(values))


def contenders_of(measurements, path):
    return in_order(m.contender for m in measurements if m.path == path)


def text_of(found, form, has_range):
    if found is None:
        return ""
    text = form.format(found.median)
    return f"{text} ({form.format(found.min)}-{form.format(found.max)})" if has_range else text


def print_table(measurements, path, title):
    contenders = sorted(contenders_of(measurements, path))
    columns = [column for column in COLUMNS
               if any(figure(measurements, path, name, column[1]) for name in contenders)]
    count = len({m.round for m in measurements if m.path == path})
    print(f"\n{path}: {title}; median (min-max) of {count} rounds")
    width = 2 + max(len(name) for name in contenders)
    if not columns:
        print_other_figures(measurements, path, contenders, width)
        return
    print(" " * width + "".join(heading.ljust(size) for heading, _, _, size in columns).rstrip())
    for name in contenders:
        cells = [text_of(figure(measurements, path, name, key), form, key in WITH_SPREAD)
                 .ljust(size) for _, key, form, size in columns]
        print((name.ljust(width) + "".join(cells)).rstrip())


def print_other_figures(measurements, path, contenders, width):
    names = in_order(key for m in measurements if m.path == path for key in m.figures)
    for contender in contenders:
        cells = [f"{name} " + text_of(found, "{:,.1f}", True) for name in names
                 if (found := figure(measurements, path, contender, name))]
        print(contender.ljust(width) + ", ".join(cells))


def summary(measurements):
    """Path -> contender -> figure -> spread, as dictionaries."""
    found = {}
    for path in in_order(m.path for m in measurements):
        for contender in contenders_of(measurements, path):
            names = in_order(key for m in measurements
                             if (m.path, m.contender) == (path, contender) for key in m.figures)
            values = {name: figure(measurements, path, contender, name) for name in names}
            found.setdefault(path, {})[contender] = {
                name: value._asdict() for name, value in values.items() if value}
    return found
