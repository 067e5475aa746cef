"""/metrics as Prometheus reads it, what is measured, and what is made of it: dashboard and alerts.

promtool is in Debian's package prometheus, the parser in python3-prometheus-client.
"""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import AdminConnection, ROOT, SharedSystemTest, proxy_only, show_figure, wait_for

try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
except ImportError:
    text_string_to_metric_families = None

PROMTOOL = shutil.which("promtool")
needs_promtool = unittest.skipIf(PROMTOOL is None, "promtool is not installed")
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# What a program of Prometheus' makes of histograms and of their families.
SUFFIX = re.compile(r"_(bucket|sum|count)$")
NAME = re.compile(r"\b((?:nearkey|process)_[a-z_]+)\b")
CONFIG = Path(ROOT) / "config"


def promtool(*arguments, text=None):
    return subprocess.run(
        [PROMTOOL, *arguments], input=text, text=True, capture_output=True, timeout=120
    )


@proxy_only
class MetricsTest(SharedSystemTest):
    # Scripts are slow enough to be entered, other commands are not.
    settings = {"slowlog.threshold_ms": 100, "slowlog.entries_max": 4}

    def page(self, path, accept="text/plain"):
        connection = AdminConnection(self.nearkey.admin_path, 10)
        try:
            connection.request("GET", path, headers={"Accept": accept})
            response = connection.getresponse()
            return response.getheader("Content-Type"), response.read().decode()
        finally:
            connection.close()

    def some_of_everything(self):
        with self.client() as client:
            for command in (
                ("SET", "a", "1"), ("GET", "a"), ("GET", "a"), ("HGETALL", "h"), ("ZADD", "z", "1", "m"),
                ("PING",), ("EVAL", "return 1", "0"), ("MULTI",), ("INCR", "n"), ("EXEC",),
                ("CLIENT", "GETNAME"), ("GEOADD", "g", "1", "1", "x"), ("EXPIRE", "a", "100"),
            ):
                client.command(*command)

    def value(self, name, **labels):
        """Of the series of that name with those labels and maybe others, the sum."""
        total = 0.0
        for line in self.page("/metrics")[1].splitlines():
            match = re.match(r"([a-z_]+)(?:\{(.*)\})? (\S+)$", line)
            if not match or match[1] != name:
                continue
            found = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            if all(found.get(label) == wanted for label, wanted in labels.items()):
                total += float(match[3])
        return total

    @needs_promtool
    def test_promtool_is_content_with_a_live_page(self):
        self.some_of_everything()
        kind, text = self.page("/metrics")
        self.assertEqual("text/plain; version=0.0.4; charset=utf-8", kind)
        verdict = promtool("check", "metrics", text=text)
        show_figure(
            f"{len(re.findall('^# TYPE ', text, re.M))} metrics, "
            f"{len([line for line in text.splitlines() if line[:1] != '#'])} series; "
            f"promtool check metrics: exit code {verdict.returncode}, "
            f"{(verdict.stdout + verdict.stderr).strip() or 'nothing to say'}"
        )
        self.assertEqual((0, ""), (verdict.returncode, verdict.stdout + verdict.stderr))

    @unittest.skipIf(text_string_to_metric_families is None, "python3-prometheus-client is missing")
    def test_open_metrics_is_what_its_parser_takes(self):
        self.some_of_everything()
        kind, text = self.page("/metrics", OPEN_METRICS)
        self.assertEqual("application/openmetrics-text; version=1.0.0; charset=utf-8", kind)
        families = {family.name: family for family in text_string_to_metric_families(text)}
        show_figure(f"OpenMetrics: {len(families)} families read")
        self.assertEqual("counter", families["nearkey_commands"].type)
        self.assertEqual("info", families["nearkey_build"].type)
        self.assertEqual("seconds", families["nearkey_request_duration_seconds"].unit)
        self.assertEqual("bytes", families["nearkey_near_cache_bytes"].unit)

    def test_requests_are_counted_by_family_and_outcome(self):
        with self.client() as client:
            self.direct.command("SET", "key", "value")

            def is_hit():
                before = self.value("nearkey_request_duration_seconds_count", outcome="hit")
                client.command("GET", "key")
                return self.value("nearkey_request_duration_seconds_count", outcome="hit") > before

            wait_for(is_hit, 10, "a hit is counted as one")
            counts = {}
            for command, family, outcome in (
                (("GET", "no such key"), "string", "miss"), (("HSET", "h", "f", "v"), "hash", "forwarded"),
                (("EVAL", "return 1", "0"), "scripting", "forwarded"),
                (("CLIENT", "GETNAME"), "connection", "local"), (("ZCARD", "z"), "sortedset", "miss"),
                (("NEARKEY", "HELP"), "other", "local"), (("GEOADD", "g", "1", "1", "m"), "geo", "forwarded"),
                (("RPUSH", "list", "x"), "list", "forwarded"), (("DEL", "x"), "keyspace", "forwarded"),
            ):
                series = {"family": family, "outcome": outcome}
                counts[command] = self.value("nearkey_request_duration_seconds_count", **series)
                client.command(*command)
                self.assertEqual(
                    counts[command] + 1,
                    self.value("nearkey_request_duration_seconds_count", **series),
                    command,
                )
        self.assertGreater(self.value("nearkey_upstream_duration_seconds_sum"), 0)
        self.assertGreater(self.value("nearkey_own_duration_seconds_sum"), 0)
        self.assertGreater(self.value("nearkey_loop_turn_duration_seconds_count"), 0)

    def test_commands_that_wait_because_they_are_told_to_are_no_latency(self):
        with self.client() as client:
            before = self.value("nearkey_request_duration_seconds_count", family="list")
            self.assertEqual(b"*-1\r\n", client.command("BLPOP", "nothing", "0.2"))
            after = self.value("nearkey_request_duration_seconds_count", family="list")
            self.assertEqual(before, after)

    def test_a_slow_request_is_seen_with_where_its_time_went(self):
        busy = "local i = 0 while i < tonumber(ARGV[1]) do i = i + 1 end return 1"
        loops = 1_000_000
        with self.client() as client:
            client.command("CLIENT", "GETNAME")  # request 0
            self.assertEqual(b"+OK\r\n", client.command("NEARKEY", "TAG", "trace-1"))

            def is_entered():
                nonlocal loops
                loops *= 2
                client.command("EVAL", busy, "1", "planted:key", str(loops))
                return self.nearkey.get("/slowlog")[1]["entries"]

            wait_for(is_entered, 60, "a script of more than 100 ms is in the slow log")
        page = self.nearkey.get("/slowlog")[1]
        entry = page["entries"][0]
        self.assertEqual(100_000, page["threshold_us"])
        self.assertEqual("eval", entry["command"])
        self.assertEqual("trace-1", entry["tag"])
        self.assertEqual("dedicated", entry["route"])
        self.assertFalse(entry["failed"])
        self.assertGreater(entry["request"], 0)
        self.assertGreater(entry["upstream_us"], 90_000)
        parts = entry["queue_us"] + entry["upstream_us"] + entry["write_us"]
        self.assertGreaterEqual(entry["total_us"], parts)
        self.assertNotIn("planted", json.dumps(page))
        self.assertLessEqual(len(page["entries"]), 4)
        self.assertGreater(self.nearkey.metric("nearkey_slow_requests_total"), 0)

    def test_hot_keys_are_found_and_hashed(self):
        with self.client() as client:
            client.command("SET", "planted:hot", "1")
            for _ in range(300):
                client.command("GET", "planted:hot")
            for i in range(100):
                client.command("GET", f"planted:cold:{i}")
        page = self.nearkey.get("/hotkeys?count=3")[1]
        self.assertFalse(page["names_shown"])
        self.assertNotIn("planted", json.dumps(page))
        both = page["hits"] + page["misses"]
        self.assertLessEqual(len(page["misses"]), 3)
        hottest = max(both, key=lambda entry: entry["count"])
        self.assertRegex(hottest["key"], "^[0-9a-f]{16}$")
        self.assertGreater(hottest["count"], 100)

    def test_dashboard_and_alerts_name_only_metrics_that_there_are(self):
        # Every name that is ever printed: those with labels are there from the beginning but for
        # histograms, whose families are.
        known = set(re.findall(r"^# TYPE ([a-z_]+) ", self.page("/metrics")[1], re.M))
        dashboard = json.loads((CONFIG / "grafana-dashboard.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"]
                       for target in panel.get("targets", [])]
        self.assertGreater(len(expressions), 30)
        rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
        self.assertEqual(["Overview", "Latency", "Near cache", "Upstream", "Clients", "Limits"], rows)
        rules = re.sub(r"#.*", "", (CONFIG / "alerts.yml").read_text())
        rules = re.sub(r"(summary|description|job=~).*", "", rules)
        for text in (*expressions, rules):
            for name in NAME.findall(text):
                self.assertIn(SUFFIX.sub("", name) if name not in known else name, known, text)

    def test_each_alert_has_a_runbook_and_each_runbook_an_alert(self):
        rules = (CONFIG / "alerts.yml").read_text()
        alerts = [(name, re.findall(r'^ +runbook_url: "(.*)"$', rest, re.M))
                  for name, rest in re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", rules, re.S)]
        self.assertGreater(len(alerts), 20)
        page = (Path(ROOT) / "docs" / "runbooks.md").read_text()
        sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
        self.assertEqual([name for name, _ in alerts], list(sections))
        for name, links in alerts:
            self.assertEqual([f"https://nearkey.invalid/docs/runbooks.md#{name.lower()}"], links)
            # Something to look at, and something to do.
            self.assertRegex(sections[name], r"(?m)^1\. ", name)
        links = re.findall(r"\]\(#(\w+)\)", page)
        self.assertLessEqual(set(links), {name.lower() for name in sections})

    @needs_promtool
    def test_alerts_fire_when_they_should_and_not_before(self):
        rules = CONFIG / "alerts.yml"
        verdict = promtool("check", "rules", str(rules))
        self.assertEqual(0, verdict.returncode, verdict.stdout + verdict.stderr)
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as tests:
            source = Path(__file__).with_name("alerts_test.yml").read_text()
            tests.write(source.replace("RULES", str(rules)))
            tests.flush()
            fired = promtool("test", "rules", tests.name)
        show_figure(
            f"promtool check rules: {verdict.stdout.splitlines()[1].strip()}; "
            f"test rules: {fired.stdout.split()[-1]}"
        )
        self.assertEqual(0, fired.returncode, fired.stdout + fired.stderr)


if __name__ == "__main__":
    unittest.main()
