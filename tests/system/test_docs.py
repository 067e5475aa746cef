"""What docs/ say of the program's names: none is missing, none is of yesterday."""

import os
import re
import tomllib
import unittest

from harness import ROOT, AdminConnection, SystemTest, proxy_only, run_nearkey

# An event of the log, as it is written where it is said; `a ? "one" : "other"` are two.
EVENT = re.compile(r'(?:\.(?:debug|info|warning|error)|\bwarn)\(\s*(?:[^";,]*\? )?"([a-z_]+)"([^;]*)')
OTHER = re.compile(r'\s*:\s*"([a-z_]+)"')
PAGES = ("operations.md", "near_cache.md", "compatibility.md", "failover.md", "containers.md", "runbooks.md")


def read(*parts):
    with open(os.path.join(ROOT, *parts)) as file:
        return file.read()


def events():
    found = set()
    for folder, _, names in os.walk(os.path.join(ROOT, "src")):
        for name in names:
            if name.endswith(".cc"):
                for event, rest in EVENT.findall(read(folder, name)):
                    found.add(event)
                    other = OTHER.match(rest)
                    found |= {other[1]} if other else set()
    return found


class EventTest(unittest.TestCase):
    def test_every_event_of_the_log_is_explained(self):
        found = events()
        self.assertLessEqual({"ready", "upstream_lost", "upstream_unreachable"}, found)
        page = read("docs", "operations.md").split("### Events of the log")[1].split("\n## ")[0]
        cells = re.findall(r"^\| (`[^|]*) \|", page, re.M)
        explained = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
        self.assertEqual(found, explained, "in src, and in the table of docs/operations.md")


@proxy_only
class NameTest(SystemTest):
    def test_every_option_that_is_named_is_one(self):
        done = run_nearkey(self.directory, "check")
        self.assertEqual(0, done.returncode, done.stderr)
        tables = tomllib.loads(done.stdout)
        options = {f"{table}.{key}" for table, row in tables.items() for key in row}
        for page in PAGES:
            named = re.findall(rf"`((?:{'|'.join(tables)})\.[a-z_]+)(?: = [^`]*)?`", read("docs", page))
            self.assertTrue(named, page)
            self.assertEqual(set(), set(named) - options, page)

    def test_every_metric_that_is_named_is_one(self):
        nearkey = self.start_nearkey(self.start_server().url)
        with nearkey.client() as client:
            client.command("PING")
        known = set(nearkey.metrics()) | metric_families(nearkey)
        for page in PAGES:
            named = set(re.findall(r"`(nearkey_[a-z_]+)(?:\{[^`]*\})?`", read("docs", page)))
            self.assertEqual(set(), named - known, page)


def metric_families(nearkey):
    connection = AdminConnection(nearkey.admin_path, 10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return set(re.findall(r"^# TYPE (\S+)", text, re.M))


if __name__ == "__main__":
    unittest.main()
