"""Each rule that keeps a hit true, broken in a copy of the package: a test must find it."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import nearkey

PACKAGE = Path(nearkey.__file__).parent
TESTS = Path(__file__).parent

# The rule, the file, what stands there, what stands there when it is broken, and who finds it.
RULES = [
    ("asyncio: what is owed", "asyncio.py", "value = MISS if self._owed else", "value =",
     "test_asyncio.NothingOwedTest.test_a_write"),
    ("asyncio: what is owed, of mget", "asyncio.py", "values = MISS if self._owed else", "values =",
     "test_asyncio.NothingOwedTest.test_a_read"),
    ("asyncio: commands count", "asyncio.py", "        self._owed += 1\n", "",
     "test_asyncio.NothingOwedTest.test_two_of_them"),
    ("asyncio: commands that are cancelled", "asyncio.py", "            self._owed -= 1\n",
     "            pass\n", "test_asyncio.NothingOwedTest.test_a_command_that_is_cancelled"),
    ("asyncio: pipelines", "asyncio.py", "async def execute(", "async def _execute(",
     "test_asyncio.NothingOwedTest.test_a_pipeline"),
    ("asyncio: WATCH", "asyncio.py", "async def immediate_execute_command(",
     "async def _immediate_execute_command(", "test_asyncio.NothingOwedTest.test_a_transaction"),
    ("asyncio: commands in a pipeline", "asyncio.py",
     "        self._client._note_command(args, STATE_OF_CONNECTION)\n", "",
     "test_asyncio.ReadTest.test_what_changes_a_connection"),
    ("asyncio: commands", "asyncio.py", "        self._note_command(args, STATE_OF_CLIENT)\n", "",
     "test_asyncio.ReadTest.test_what_changes_a_connection"),
    ("asyncio: refreshing in a thread", "asyncio.py",
     "get_running_loop().run_in_executor(None, self._refresh_segment)", "self._refresh_segment()",
     "test_asyncio.RefreshTest.test_others_run_while_nearkey_does_not_answer"),
    ("asyncio: samples", "asyncio.py", "if value is SAMPLE:", "if value is OFF:",
     "test_asyncio.SampleTest.test_samples"),
    ("commands", "_client.py", "        self._note_command(args, STATE_OF_CLIENT)\n", "",
     "test_states.OffForGoodTest.test_commands"),
    ("commands in a pipeline", "_client.py",
     "        self._client._note_command(args, STATE_OF_CONNECTION)\n", "",
     "test_states.OffForGoodTest.test_commands_in_a_pipeline"),
    ("WATCH of a pipeline", "_client.py", "_note_command(args, STATE_OF_CONNECTION)",
     "_note_command(args, STATE_OF_CLIENT)",
     "test_states.NothingOwedTest.test_watch_reads_over_the_socket"),
    ("what is told of hits", "_client.py",
     '("NEARKEY", "HITS", self._segment.take_hits())', '("NEARKEY", "HITS", 1)',
     "test_states.SampleTest.test_get"),
    ("keys are read once", "_client.py", "return super().mget(names)", "return super().mget(keys)",
     "test_hits.MgetTest.test_none_is_a_hit_unless_all_are"),
    ("passwords", "_shared.py", '    "password": "the client has a password",\n', "",
     "test_states.OffForGoodTest.test_clients_that_never_read_it"),
    ("connections of its own", "_shared.py", "if client.connection is not None or", "if",
     "test_states.OffForGoodTest.test_clients_that_never_read_it"),
    ("encodings", "_shared.py", "why_no_encoding(settings) or ", "",
     "test_hits.DecodingTest.test_other_encodings_go_over_the_socket"),
    ("overrides", "_shared.py", '(type(client), METHODS_OF_CLIENT), ', "",
     "test_states.OverridesTest.test_classes_that_change_keys_or_replies"),
    ("overrides of a class behind", "_shared.py", "for each in cls.__mro__:",
     "for each in cls.__mro__[:1]:",
     "test_states.OverridesTest.test_classes_that_change_keys_or_replies"),
    ("each class says for itself that it only adds", "_shared.py", "not own.get(ONLY_ADD)",
     "not getattr(cls, ONLY_ADD, False)",
     "test_states.OverridesTest.test_classes_that_change_keys_or_replies"),
    ("overrides of a pool", "_shared.py", ", (type(pool), METHODS_OF_POOL)", ",",
     "test_states.OverridesTest.test_classes_that_change_keys_or_replies"),
    ("overrides that only add", "_shared.py", "not own.get(ONLY_ADD) and ", "",
     "test_states.OverridesTest.test_classes_that_only_add"),
    ("what is replaced", "_shared.py", "if name in REPLACEABLE and", "if name == '' and",
     "test_states.OverridesTest.test_what_is_replaced_on_a_client"),
    ("settings that change", "_client.py", "        self._check_settings()\n", "",
     "test_states.ChangedSettingsTest.test_settings_of_the_pool"),
    ("asyncio: overrides", "_shared.py", '(type(client), METHODS_OF_CLIENT), ', "",
     "test_asyncio.OverridesTest.test_a_class_that_changes_keys"),
    ("databases", "_shared.py", "?db={database}", "?db=0",
     "test_hits.GetTest.test_databases"),
] + [
    (f"state: {name}", "_shared.py", f'    "{name}": (', f'    "{name}X": (',
     "test_states.OffForGoodTest.test_what_changes_a_connection")
    for name in ("AUTH", "CLIENT", "HELLO", "MONITOR", "NEARKEY", "PSUBSCRIBE", "PSYNC", "RESET",
                 "SELECT", "SSUBSCRIBE", "SUBSCRIBE", "SYNC")
]


class BrokenRulesTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="nearkey-broken-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.package = Path(self.directory) / "nearkey"
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__", "*.p"))

    def outcome_of(self, test):
        path = os.pathsep.join([self.directory, *filter(None, sys.path)])
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "unittest", test],
            cwd=TESTS, env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=120,
        )

    def test_each_is_found(self):
        for rule, name, whole, broken, test in RULES:
            with self.subTest(rule):
                source = self.package / name
                text = source.read_text()
                self.assertIn(whole, text, "the rule stands elsewhere now")
                source.write_text(text.replace(whole, broken))
                outcome = self.outcome_of(test)
                source.write_text(text)
                self.assertRegex(outcome.stderr, r"(?m)^(FAIL|ERROR): test_", "not found")
                self.assertNotIn("_FailedTest", outcome.stderr, "the package can't be imported")

    def test_unbroken_they_pass(self):
        for test in sorted({row[-1] for row in RULES}):
            outcome = self.outcome_of(test)
            self.assertEqual(0, outcome.returncode, outcome.stderr)


if __name__ == "__main__":
    unittest.main()
