"""The manual: every verb and option that --help knows is in nearkey(1) and no other, and both pages
are sound for their formatters. That nearkey.toml(5) is current is a unit test
(man_page_test.cc)."""

import os
import re
import shutil
import subprocess
import unittest

from harness import ROOT, SystemTest, proxy_only, run_nearkey

PAGES = [os.path.join(ROOT, "man", name) for name in ("nearkey.1", "nearkey.toml.5")]
OPTION = r"--[a-z][a-z-]*"
# Of other programs, in the examples.
FOREIGN = {"--unix-socket"}


def read(path):
    with open(path) as file:
        return file.read()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@proxy_only
class ManualTest(SystemTest):
    def help(self, *verb):
        done = run_nearkey(self.directory, *verb, "--help")
        self.assertEqual(0, done.returncode)
        return done.stdout

    def test_every_verb_and_option_is_in_it_and_no_other(self):
        source = read(PAGES[0])
        text = self.help()
        listed = text.split("Subcommands:\n")[1].split("\n\n")[0]
        verbs = re.findall(r"^  ([a-z-]+) ", listed, re.M)
        self.assertGreaterEqual(len(verbs), 10, text)
        described = re.findall(r"^\.It Cm ([a-z-]+)", source, re.M)
        self.assertEqual(sorted(verbs), sorted(described))
        options = set(re.findall(rf"^  (?:-\w,)?({OPTION})", text, re.M))
        for verb in verbs:
            its_help = self.help(verb)
            self.assertIn("Exit codes: 0 ", its_help, verb)
            its_options = re.findall(rf"^  (?:-\w,)?({OPTION})", its_help, re.M)
            self.assertIn("--help", its_options)
            options |= set(its_options)
        self.assertLessEqual({"--config", "--json", "--limit", "--timeout-ms"}, options)
        explained = set(re.findall(r"^\.It Fl (?:h , )?\\(-[a-z-]+)", source, re.M))
        self.assertEqual(options, {"-" + name for name in explained})
        named = {name.replace("\\", "") for name in re.findall(r"-?\\?-[a-z][a-z-]+", source)}
        named = {name for name in named if re.fullmatch(OPTION, name)}
        self.assertLessEqual(named, options | FOREIGN)

    def test_the_times_that_a_verb_waits_are_those_of_its_help(self):
        page = read(PAGES[0])
        for verb in ("reload", "upgrade", "stats"):
            (waits,) = re.findall(r"--timeout-ms N .*\[(\d+)\]", self.help(verb))
            self.assertIn(waits, page)

    def test_every_option_of_the_configuration_is_in_the_other(self):
        source = read(PAGES[1])
        done = run_nearkey(self.directory, "check")
        table = None
        for line in done.stdout.splitlines():
            if line.startswith("["):
                table = line
                self.assertIn(f".Ss {table}", source)
            elif " = " in line:
                section = source.split(f".Ss {table}")[1].split("\n.Ss ")[0]
                self.assertIn(f"\n.It Ic {line.split(' = ')[0]}\n", section)

    def test_mandoc_finds_nothing(self):
        for page in PAGES:
            said = run("mandoc", "-T", "lint", "-W", "style", page).splitlines()
            # Whether other pages are installed is the machine's matter.
            said = [line for line in said if "manual not found" not in line]
            said = [line for line in said if "outdated mandoc.db" not in line]
            self.assertEqual([], said)

    def test_groff_finds_nothing(self):
        if shutil.which("groff") is None:
            self.skipTest("groff is not installed")
        for page in PAGES:
            done = subprocess.run(
                ["groff", "-mandoc", "-ww", "-Tutf8", page], capture_output=True, text=True
            )
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            self.assertIn("nearkey", done.stdout)


if __name__ == "__main__":
    unittest.main()
