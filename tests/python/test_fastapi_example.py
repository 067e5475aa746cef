"""examples/fastapi with one changed import: its own tests pass, and its reports become hits."""

import importlib.util
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from harness import ROOT, SLOWNESS
from sharing import SharingTest

IMPORT, CHANGED = "from redis.asyncio import Redis\n", "from nearkey.asyncio import Redis\n"
PROGRAM = """
import asyncio, sys
from app.core.cache import open_cache
from app.core.settings import Settings

async def make():
    return {"made": "once"}

async def run(url):
    async with open_cache(Settings(cache_url=url, cache_timeout_s=15)) as cache:
        for _ in range(1000):
            assert await cache.get_or_make("report", 60, make) == {"made": "once"}
            if cache.shared_memory_info().hits > 10:
                print("hits")
                return
            await asyncio.sleep(0.001)
        print(cache.shared_memory_info())

asyncio.run(run(sys.argv[1]))
"""


class FastApiTest(SharingTest):
    @classmethod
    def setUpClass(cls):
        for module in ("fastapi", "uvicorn"):
            if importlib.util.find_spec(module) is None:
                raise unittest.SkipTest(f"python3-{module} is not installed")
        super().setUpClass()
        cls.example = Path(cls.directory) / "fastapi"
        shutil.copytree(Path(ROOT) / "examples" / "fastapi", cls.example)
        cache = cls.example / "app" / "core" / "cache.py"
        text = cache.read_text()
        assert text.count(IMPORT) == 1, "the import stands elsewhere now"
        cache.write_text(text.replace(IMPORT, CHANGED))

    def run_python(self, *arguments):
        path = os.pathsep.join(filter(None, [str(self.example), *sys.path]))
        return subprocess.run(
            [sys.executable, "-W", "ignore", *arguments], cwd=self.example, text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, timeout=120 * SLOWNESS,
        )

    def test_reports_become_hits(self):
        done = self.run_python("-c", PROGRAM, f"unix://{self.path}")
        self.assertEqual("hits\n", done.stdout, done.stderr)

    def test_its_own_tests(self):
        done = self.run_python("-m", "unittest", "tests.test_cache", "tests.test_app")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertRegex(done.stderr, r"Ran \d\d+ tests")


if __name__ == "__main__":
    unittest.main()
