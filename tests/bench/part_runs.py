"""What the runs have in common that are made of parts (nodes.py, shared.py): options, and a file with
what was found.
"""
import argparse
import json

import bench
import report


def add_options(parser):
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--rounds", type=bench.number_of(int))
    parser.add_argument("--seconds", type=bench.number_of(float), help="of one measurement")
    parser.add_argument("--nearkey", type=bench.nearkey_build, metavar="PATH")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--tools", default=str(bench.ROOT / "build"), help=argparse.SUPPRESS)


def parse(parser, arguments, usual, quick):
    """The options, and where they say nothing those of a usual or a quick run."""
    options = parser.parse_args(arguments)
    for name, value in (quick if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.nearkey is None:
        options.nearkey = bench.nearkey_build(str(bench.ROOT / "build" / "nearkey"))
    return options


def print_tables(found, titles):
    for path in report.in_order(measurement.path for measurement in found):
        report.print_table(found, path, titles[path])


def write_json(path, found, judged, load):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"load": load, "summary": report.summary(found), "bars": judged,
                   "measurements": [each._asdict() for each in found]}, file, indent=1)
        file.write("\n")
