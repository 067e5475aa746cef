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


class LinkTest(unittest.TestCase):
    def test_every_link_to_a_page_of_ours_leads_to_a_section(self):
        pages = [os.path.join(folder, name) for top in ("docs", "examples", "deploy")
                 for folder, _, names in os.walk(os.path.join(ROOT, top))
                 for name in names if name.endswith(".md") and "node_modules" not in folder]
        pages += [os.path.join(ROOT, name) for name in os.listdir(ROOT) if name.endswith(".md")]
        seen, broken = 0, []
        for page in pages:
            for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
                if re.match(r"\w+:", link):
                    continue
                path, _, section = link.partition("#")
                target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
                seen += 1
                if not os.path.exists(target) or (section and section not in sections_of(target)):
                    broken.append((os.path.relpath(page, ROOT), link))
        self.assertGreater(seen, 300)
        self.assertEqual([], broken)


def without_code(path):
    return re.sub(r"^```.*?^```", "", read(path), flags=re.M | re.S)


def sections_of(path):
    """The names by which links reach the headings of a page."""
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
             for heading in re.findall(r"^#+ (.*)$", without_code(path), re.M)]
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


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
