"""The benchmark: its parts, and one short run of everything, of which the shape is checked and
never the figures."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ElementTree

from harness import (
    BINARY,
    DIRECT,
    ROOT,
    SLOW,
    SystemTest,
    free_port,
    valkey_program,
    wait_for,
)
from procfs import children, is_alive
from resp import RespClient, parse

sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))
import bars  # noqa: E402
import bench  # noqa: E402
import chart  # noqa: E402
import cluster_field  # noqa: E402
import instructions  # noqa: E402
import measure  # noqa: E402
import nodes  # noqa: E402
import paths  # noqa: E402
import programs  # noqa: E402
import report  # noqa: E402

TOOLS = os.path.dirname(BINARY)


def measurement(path, contender, number, **figures):
    return report.Measurement(path, contender, number, figures)


class ReportTest(unittest.TestCase):
    def setUp(self):
        self.found = [
            measurement("p", "ours", 1, speed=10, cost=None),
            measurement("p", "ours", 2, speed=30, cost=4),
            measurement("p", "ours", 3, speed=40, cost=6),
            measurement("p", "theirs", 1, speed=10, cost=2),
            measurement("p", "theirs", 2, speed=20, cost=2),
            measurement("p", "theirs", 3, speed=10, cost=2),
            measurement("q", "ours", 1, speed=1000, cost=1),
        ]

    def test_ratios_are_taken_within_a_round_and_then_their_median(self):
        found = report.ratio(self.found, "p", ("ours", "speed"), ("theirs", "speed"))
        self.assertEqual(found, (1.5, 1, 4))

    def test_a_round_without_a_figure_has_no_ratio(self):
        found = report.ratio(self.found, "p", ("ours", "cost"), ("theirs", "cost"))
        self.assertEqual(found, (2.5, 2, 3))

    def test_what_was_not_measured_has_no_ratio(self):
        self.assertIsNone(report.ratio(self.found, "p", ("ours", "speed"), ("none", "speed")))
        self.assertIsNone(report.ratio(self.found, "none", ("ours", "speed"), ("theirs", "speed")))
        self.assertIsNone(report.figure(self.found, "p", "ours", "no such figure"))

    def test_the_summary_has_medians_by_path_and_contender(self):
        summary = report.summary(self.found)
        self.assertEqual(summary["p"]["ours"]["speed"], {"median": 30, "min": 10, "max": 40})
        self.assertEqual(list(summary), ["p", "q"])


class BarsTest(unittest.TestCase):
    def judge(self, value, base=1.0):
        found = [
            measurement("get-p1", "new", 1, proxy_us=value, requests_per_s=1),
            measurement("get-p1", "nutcracker", 1, proxy_us=base, requests_per_s=1),
        ]
        return bars.verdicts(found, lambda family: family.replace("nearkey", "new"))

    def test_a_bar_is_met_up_to_its_limit_and_missed_above(self):
        self.assertIs(self.judge(0.65)[0]["is_met"], True)
        self.assertIs(self.judge(0.66)[0]["is_met"], False)
        self.assertIs(self.judge(1.3, base=2.0)[0]["is_met"], True)

    def test_a_missed_bar_is_status_1_and_an_unmeasured_one_is_2(self):
        met, missed, unknown = {"is_met": True}, {"is_met": False}, {"is_met": None}
        self.assertEqual(bars.exit_status([met, met]), 0)
        self.assertEqual(bars.exit_status([met, unknown]), 2)
        self.assertEqual(bars.exit_status([unknown, missed, met]), 1)

    def test_what_was_not_measured_is_neither_met_nor_missed(self):
        verdicts = self.judge(0.1)
        self.assertEqual([row["is_met"] for row in verdicts if row["path"] == "idle"], [None])

    def test_every_bar_is_about_a_path_and_its_contenders(self):
        by_name = {path.name: path for path in paths.PATHS}
        for bar in bars.BARS:
            if bar.path in paths.PROBES:
                self.assertIn(bar.family, paths.PROBES[bar.path][1])
                continue
            path = by_name[bar.path]
            self.assertTrue(path.has_bar, bar.path)
            self.assertIn(bar.family, path.contenders)
            self.assertIn(bar.base[0], path.contenders)
        judged = {bar.path for bar in bars.BARS}
        self.assertEqual(judged, {p.name for p in paths.PATHS if p.has_bar} | set(paths.PROBES))


class NodesTest(unittest.TestCase):
    """The parts of scripts/bench --nodes."""

    def turns(self, below, sum_s, refreshes):
        turns = object.__new__(nodes.Turns)
        turns.below, turns.sum_s, turns.refreshes = below, sum_s, refreshes
        return turns

    def test_a_refresh_costs_what_is_spent_beyond_a_quiet_loop(self):
        inf = float("inf")
        before = {"busy": self.turns({0.0005: 10, 0.001: 10, inf: 10}, 1.0, 100),
                  "quiet": self.turns({0.0005: 10, 0.001: 10, inf: 10}, 1.0, 5)}
        after = {"busy": self.turns({0.0005: 300, 0.001: 307, inf: 310}, 1.3, 200),
                 "quiet": self.turns({0.0005: 90, 0.001: 90, inf: 90}, 1.1, 5)}
        found = nodes.map_figures(before, after)
        self.assertAlmostEqual(2.0, found["refresh_ms"])
        self.assertEqual((1.0, 3, 100),
                         (found["piece_ms"], found["turns_over_1ms"], found["refreshes"]))
        after["busy"].below = {0.0005: 300, 0.001: 304, inf: 310}
        self.assertEqual(inf, nodes.map_figures(before, after)["piece_ms"])
        after["busy"].refreshes = 100
        with self.assertRaises(programs.BenchError):
            nodes.map_figures(before, after)

    def test_the_map_of_a_thousand_primaries(self):
        for is_scattered, ranges in ((False, 1000), (True, 16384)):
            reply = parse(cluster_field.slots_reply(7000, is_scattered))
            self.assertEqual(ranges, len(reply))
            owned = sorted(slot for first, last, *_ in reply for slot in range(first, last + 1))
            self.assertEqual(list(range(16384)), owned)
            self.assertEqual(1000, len({server[2] for _, _, server in reply}))

    def test_commands_are_taken_off_one_by_one_however_they_are_cut(self):
        sent = programs.encode("GET", "k") + programs.encode("PING")
        for cut in range(len(sent) + 1):
            data, found = bytearray(), []
            for piece in (sent[:cut], sent[cut:]):
                data.extend(piece)
                while command := cluster_field.take_command(data):
                    found.append(command)
            self.assertEqual([programs.encode("GET", "k"), programs.encode("PING")], found, cut)

    def test_each_path_has_a_title_and_each_bar_a_path(self):
        self.assertLessEqual({bar.path for bar in bars.NODES_BARS}, set(nodes.TITLES))


class CommandLineTest(unittest.TestCase):
    def refusal(self, *arguments):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as ended:
            bench.parse_arguments([*arguments])
        self.assertEqual(ended.exception.code, 2)
        return errors.getvalue()

    def test_mistakes_are_named(self):
        self.assertIn("there is no path nonsense", self.refusal("--paths", "get-p1,nonsense"))
        self.assertIn("--rounds", self.refusal("--rounds", "0"))
        self.assertIn("--seconds", self.refusal("--seconds", "-1"))
        self.assertIn("is not a program", self.refusal("--nearkey", "a=/no/such/program"))
        self.assertIn("is taken", self.refusal("--nearkey", f"haproxy={BINARY}"))
        self.assertIn("is no label", self.refusal("--nearkey", f"a b={BINARY}"))
        self.assertIn("same label", self.refusal("--nearkey", BINARY, "--nearkey", BINARY))

    def test_quick_and_check_take_the_paths_that_have_a_bar(self):
        for flags, names in (([], ["all"]), (["--quick"], ["bars"]), (["--check"], ["bars"]),
                             (["--check", "--paths", "mget"], ["mget"])):
            options = bench.parse_arguments(["--nearkey", BINARY, *flags])
            self.assertEqual(options.paths, names)
        chosen, chosen_probes = paths.choose(["bars"])
        self.assertEqual([path.name for path in chosen], [p.name for p in paths.PATHS if p.has_bar])
        self.assertEqual(chosen_probes, list(paths.PROBES))

    def test_a_load_of_ones_own_is_a_path(self):
        (path,), chosen_probes = paths.choose(["set:1024:1000:8"])
        self.assertEqual((path.command, path.value_bytes, path.clients, path.pipeline),
                         ("set", 1024, 1000, 8))
        self.assertEqual(chosen_probes, [])
        for name in ("set:1024:1000", "del:1:1:1", "get:0:1:1", "get:1:0:1", "get:1:1:257",
                     "get:1048577:1:1", "set:1:1:1:1"):
            with self.assertRaises(ValueError, msg=name):
                paths.choose([name])

    def test_a_contender_that_is_not_installed_is_left_out_with_a_line(self):
        options = bench.parse_arguments(["--nearkey", BINARY])
        field = bench.Field(None, options)
        found, bench.find_program = bench.find_program, lambda *names: None
        self.addCleanup(setattr, bench, "find_program", found)
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            self.assertEqual(field.family("haproxy") + field.family("haproxy"), [])
        self.assertEqual(errors.getvalue(), "haproxy is not installed; going on without it\n")

    def test_a_void_run_is_noted_and_the_others_go_on(self):
        field = bench.Field(None, bench.parse_arguments(["--nearkey", BINARY]))
        with contextlib.redirect_stderr(io.StringIO()), field.noting_void_runs():
            raise programs.RunVoid("a wrong reply")
        self.assertEqual(field.void, ["a wrong reply"])
        with self.assertRaises(programs.BenchError), field.noting_void_runs():
            raise programs.BenchError("nothing can be measured")

    def test_a_run_whose_hits_are_not_those_of_its_path_does_not_count(self):
        figures = {"requests_per_s": 5.0, "hits_share": 0.5}
        with contextlib.redirect_stderr(io.StringIO()):
            measure.check_hits(figures, (0.88, 0.92), "a run")
        self.assertEqual(figures, {"requests_per_s": None, "hits_share": 0.5})


@unittest.skipIf(DIRECT, "NEARKEY_TEST_DIRECT: this is about the benchmark")
class ToolsTest(SystemTest):
    def load(self, server, *arguments):
        return subprocess.run(
            [os.path.join(TOOLS, "nearkey_load_client"), "--unix", server.path, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    def result(self, server, *arguments):
        done = self.load(server, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_a_sequence_writes_each_key_once_and_every_command_finds_its_replies(self):
        server = self.start_server()
        keys = ["--keys", "1000", "--prefix", "k:", "--value-bytes", "5000"]
        for depth in ("1", "8"):
            server.run("FLUSHALL")
            result = self.result(server, "--command", "set", "--draw", "sequence", "--requests",
                                 "1000", "--clients", "3", "--pipeline", depth, *keys)
            self.assertEqual(result["requests"], 1000)
            with server.client() as client:
                self.assertEqual(client.value("DBSIZE"), 1000)
                self.assertEqual(client.value("STRLEN", "k:000000000999"), 5000)
        for command in ("get", "set", "mixed", "mget", "alternate"):
            result = self.result(server, "--command", command, "--seconds", "0.05", "--pipeline",
                                 "4", "--draw", "zipf", *keys, "--watch", str(server.pid))
            self.assertGreater(result["requests"], 0)
            self.assertGreater(result["watched_cpu_ns"][0], 0)
            self.assertLessEqual(result["p50_us"], result["p999_us"])
        self.result(server, "--command", "incr", "--seconds", "0.05", "--prefix", "n:")

    def test_a_reply_that_is_not_the_expected_one_voids_the_run(self):
        server = self.start_server()
        with server.client() as client:
            client.command("LPUSH", "k:000000000000", "x")
            client.command("SET", "short:000000000000", "x")
        for prefix in ("k:", "short:", "absent:"):
            done = self.load(server, "--seconds", "5", "--keys", "1", "--prefix", prefix)
            self.assertEqual(done.returncode, 1)
            self.assertIn("not the expected reply", done.stderr)
            self.assertEqual(done.stdout, "")

    def test_a_lost_connection_voids_the_run(self):
        server = self.start_server()
        with server.client() as client:
            client.command("SET", "k:000000000000", "x" * 100)
        child = subprocess.Popen(
            [os.path.join(TOOLS, "nearkey_load_client"), "--unix", server.path, "--seconds", "600",
             "--keys", "1", "--prefix", "k:"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(child.kill)
        with server.client() as client:
            wait_for(lambda: client.command("CLIENT", "LIST").count(b"cmd=get") >= 50, 10,
                     "all clients have sent a GET")
        server.kill()
        _, errors = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 1)
        self.assertRegex(errors, "the connection was closed|recv: |send: ")

    def test_the_relay_delays_keeps_every_byte_and_passes_on_the_end(self):
        server = self.start_server()
        port = free_port()
        relay = subprocess.Popen(
            [os.path.join(TOOLS, "nearkey_delay_relay"), str(port), server.path, "20000"],
            stdin=subprocess.DEVNULL)
        self.addCleanup(relay.wait)
        self.addCleanup(relay.kill)

        def connects():
            try:
                return RespClient(("127.0.0.1", port), timeout=30)
            except OSError:
                return None

        client = wait_for(connects, 10, "the relay listens")
        self.addCleanup(client.close)
        value = os.urandom(20 << 20)  # More than the relay holds at a time.
        self.assertEqual(client.command("SET", "k", value), b"+OK\r\n")
        self.assertEqual(client.value("GET", "k"), value)
        client.send(b"*1\r\n$4\r\nPING\r\n")
        client.shutdown_write()
        self.assertEqual(client.read_to_end()[0], b"+PONG\r\n")
        self.assertIsNone(relay.poll())


@unittest.skipIf(DIRECT, "NEARKEY_TEST_DIRECT: this is about the benchmark")
class RunTest(SystemTest):
    def start_bench(self, *arguments):
        child = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "tests", "bench", "bench.py"), "--nearkey", BINARY,
             "--tools", TOOLS, "--results", self.directory, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # Whoever runs us in the background may have it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(child.kill)
        return child

    def contenders(self, families):
        return {family for family in families
                if family not in bench.OPTIONAL or programs.find_program(family)}

    @unittest.skipIf(SLOW, "a sanitizer build: the other tests run its tools")
    def test_one_short_run_of_everything(self):
        child = self.start_bench("--rounds", "1", "--seconds", "0.02", "--bulk-mib", "4",
                                 "--check", "--paths", "all")
        output, errors = child.communicate(timeout=400)
        self.assertIn(child.returncode, (0, 1, 2), errors)
        self.assertIn("the bars of nearkey", output, errors)
        with open(os.path.join(self.directory, "bench.json")) as file:
            document = json.load(file)
        self.assertEqual(document["void_runs"], [])
        self.check_measurements(document)
        self.assertEqual([(row["path"], row["limit"]) for row in document["bars"]["nearkey"]],
                         [(bar.path, bar.limit) for bar in bars.BARS])
        self.assertEqual(document["machine"]["processors"], os.cpu_count())
        picture = ElementTree.parse(os.path.join(self.directory, "bench.svg"))
        titles = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
        self.assertLessEqual({path.title for path in paths.PATHS}, titles)

    def check_measurements(self, document):
        by_path = {}
        for row in document["measurements"]:
            by_path.setdefault(row["path"], {})[row["contender"]] = row["figures"]
        self.assertEqual(set(by_path), set(paths.titles()))
        for path in paths.PATHS:
            rows = by_path[path.name]
            self.assertEqual(set(rows), self.contenders(path.contenders), path.name)
            for name, figures in rows.items():
                self.assertEqual("proxy_us" in figures, not name.startswith("direct"), figures)
                settings = paths.NEARKEY_SETTINGS.get(name, {"near_cache.enabled": "false"})
                self.assertEqual("hits_share" in figures,
                                 settings.get("near_cache.enabled") != "false", name)
                for value in figures.values():
                    # None: not the hits that the path is about, which says nothing in such a run.
                    self.assertTrue(value is None or value >= 0, (path.name, name, figures))
        for name, (_, families) in paths.PROBES.items():
            self.assertEqual(set(by_path[name]), self.contenders(families))

    @unittest.skipIf(SLOW, "a sanitizer build does not run under valgrind")
    @unittest.skipUnless(programs.find_program("valgrind"), "valgrind is not installed")
    def test_instructions_are_counted_for_each_build(self):
        for name, value in (("CASES", instructions.CASES[:1]), ("REQUESTS", {1: (100, 10_100)})):
            self.addCleanup(setattr, instructions, name, getattr(instructions, name))
            setattr(instructions, name, value)
        found = instructions.run([("a", BINARY)], TOOLS)
        self.assertEqual(list(found), ["forwarded GET -P 1"])
        self.assertGreater(found["forwarded GET -P 1"]["a"], 100)

    @unittest.skipIf(SLOW, "a sanitizer build: nothing of it is measured there")
    def test_one_short_run_before_a_cluster(self):
        path = os.path.join(self.directory, "nodes.json")
        done = subprocess.run(
            [sys.executable, os.path.join(ROOT, "tests", "bench", "nodes.py"), "--nearkey", BINARY,
             "--tools", TOOLS, "--rounds", "1", "--seconds", "0.05", "--check", "--json", path],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400, check=False)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        self.assertEqual(set(nodes.TITLES), {row["path"] for row in document["measurements"]})
        self.assertEqual([(bar.path, bar.limit) for bar in bars.NODES_BARS],
                         [(row["path"], row["limit"]) for row in document["bars"]])
        self.assertNotIn(None, [row["is_met"] for row in document["bars"]])
        compared = {row["contender"] for row in document["measurements"]
                    if row["path"] == "nodes-get-p1"}
        self.assertEqual({"one-server", "one-node", "nearkey"}, compared)

    def test_an_interrupt_leaves_nothing_running_and_no_file(self):
        child = self.start_bench("--paths", "get-p1", "--rounds", "1000", "--seconds", "0.05")
        started = wait_for(lambda: len(found := children(child.pid)) >= 4 and found, 30,
                           "the contenders run")
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        self.assertEqual(child.returncode, 128 + signal.SIGINT)
        self.assertEqual([pid for pid in started if is_alive(pid)], [])
        self.assertFalse(os.path.exists(os.path.join(self.directory, "bench.json")))


class ChartTest(unittest.TestCase):
    def test_a_name_is_escaped_and_a_path_without_requests_is_left_out(self):
        spread = {"median": 2.0, "min": 1.0, "max": 3.0}
        picture = chart.draw(
            {"p": {"a<b": {"requests_per_s": spread, "proxy_us": spread}},
             "idle": {"a<b": {"bytes_per_client": spread}}},
            {"p": "P & Q", "idle": "Idle"}, lambda name: True)
        texts = {text.text for text in
                 ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")}
        self.assertLessEqual({"P & Q", "a<b", "2; 2.00 µs proxy"}, texts)
        self.assertNotIn("Idle", texts)


if __name__ == "__main__":
    valkey_program("server")
    unittest.main()
