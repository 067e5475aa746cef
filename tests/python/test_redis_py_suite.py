"""redis-py's own tests with nearkey's clients through nearkey: each passes that passes with
redis-py's clients through the same nearkey. tests/python/install.sh fetches them."""

import importlib.util
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

from harness import ROOT, SLOWNESS, show_figure
from sharing import SharingTest

SUITE = Path(ROOT) / "build" / "redis-py"
FILES = [
    f"tests/{folder}test_{name}.py"
    for folder in ("", "test_asyncio/")
    for name in ("pipeline", "lock", "encoding", "scripting", "commands")
]
# All of the commands that read, write or move a string, and none that change the server.
COMMANDS = ("mget mset setnx append incr decr strlen expire rename copy delete exists flush swapdb "
            "test_get test_set bit getset getdel getex setrange binary")
NAMES = (
    "(test_pipeline or test_lock or test_encoding or test_scripting or (test_commands and ("
    + " or ".join(COMMANDS.split())
    + "))) and not auth and not acl and not credential and not replica"
)


class RedisPySuiteTest(SharingTest):
    @classmethod
    def setUpClass(cls):
        if not (SUITE / FILES[0]).exists():
            raise unittest.SkipTest("redis-py's own tests are not there (tests/python/install.sh)")
        for module in ("pytest", "pytest_asyncio"):
            if importlib.util.find_spec(module) is None:
                raise unittest.SkipTest(f"python3-{module.replace('_', '-')} is not installed")
        super().setUpClass()

    def run_suite(self, **environment):
        """(how many passed, the names of those that did not, hits of the shared memory)"""
        self.server.run("FLUSHALL")
        path = os.pathsep.join([str(SUITE), os.path.dirname(__file__), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfE",
             "--tb=short", "-p", "nearkey_as_redis", f"--redis-url=unix://{self.path}", "-k", NAMES,
             *FILES],
            cwd=SUITE, env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1",
                            **environment},
            capture_output=True, text=True, timeout=150 * SLOWNESS,
        )
        passed = re.search(r"(\d+) passed", done.stdout)
        hits = re.search(r"^hits: (\d+)$", done.stdout, re.M)
        self.assertTrue(passed and hits, done.stdout[-4000:] + done.stderr[-1000:])
        failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M))
        return int(passed[1]), failed, int(hits[1]), done.stdout

    def test_what_passes_with_redis_py_passes(self):
        expected, failed_anyway, hits, _ = self.run_suite(NEARKEY_TEST_PLAIN="1")
        self.assertEqual(0, hits)
        passed, failed, hits, output = self.run_suite()
        show_figure(
            f"redis-py's own tests: {passed} passed with {hits} hits, {len(failed)} failed "
            f"(with redis-py's clients {expected} and {len(failed_anyway)})"
        )
        self.assertEqual(set(), failed - failed_anyway, output[-6000:])
        self.assertGreater(passed, 300)
        self.assertGreater(hits, 100)


if __name__ == "__main__":
    unittest.main()
