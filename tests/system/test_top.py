"""`nearkey top` in a real terminal (tmux): numbers move, keys work, the window may change, the
daemon may go and come, and the terminal is as before in the end."""

import os
import re
import shutil
import subprocess
import threading
import time
import unittest

from harness import BINARY, SLOWNESS, SystemTest, proxy_only, run_nearkey, wait_for


class Tmux:
    """One window of a tmux server of its own, with a shell in it."""

    def __init__(self, directory, columns=100, rows=32):
        self.socket = os.path.join(directory, "tmux.sock")
        environment = {
            **{name: value for name, value in os.environ.items() if name != "TMUX"},
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
        }
        self.environment = environment
        self.run("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "sh")

    def run(self, *arguments):
        done = subprocess.run(
            ["tmux", "-S", self.socket, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=20 * SLOWNESS,
        )
        if done.returncode != 0:
            raise AssertionError(f"tmux {arguments}: {done.stderr}")
        return done.stdout

    def keys(self, *keys):
        self.run("send-keys", *keys)

    def screen(self):
        return self.run("capture-pane", "-p")

    def state(self, name):
        return self.run("display-message", "-p", f"#{{{name}}}").strip()

    def resize(self, columns, rows):
        self.run("resize-window", "-x", str(columns), "-y", str(rows))

    def wait_for(self, pattern, what):
        """The match of the pattern on the screen, once it is there."""
        last = [""]

        def found():
            last[0] = self.screen()
            return re.search(pattern, last[0], re.M)

        try:
            return wait_for(found, 10, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{last[0]}") from None

    def end(self):
        subprocess.run(
            ["tmux", "-S", self.socket, "kill-server"], env=self.environment, capture_output=True
        )


@proxy_only
class TopTest(SystemTest):
    def setUp(self):
        super().setUp()
        if shutil.which("tmux") is None:
            self.skipTest("tmux is not installed")
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(self.server.url)

    def open(self, **size):
        self.tmux = Tmux(self.directory, **size)
        self.addCleanup(self.tmux.end)
        self.tmux.wait_for(r"^[$#] *$", "a shell")

    def start_top(self, *arguments):
        command = [BINARY, "top", "--interval-ms", "100", "--admin", self.nearkey.admin_path]
        line = " ".join([*command, *arguments])
        self.tmux.keys(f"clear; echo as-before; {line}; echo exit=$?; stty -a", "Enter")
        self.tmux.wait_for(r"^latency +p50", "a page")

    def load(self):
        stopping = threading.Event()
        client = self.nearkey.client()

        def work():
            number = 0
            while not stopping.is_set():
                number += 1
                client.command("GET", f"hot-{number % 3}")
                client.command("GET", f"cold-{number}")
                time.sleep(0.002)

        worker = threading.Thread(target=work)
        worker.start()
        self.addCleanup(client.close)
        self.addCleanup(worker.join)
        self.addCleanup(stopping.set)

    def cursor_and_screen(self):
        """Whether the cursor is seen, and whether it is the other screen."""
        return self.tmux.state("cursor_flag"), self.tmux.state("alternate_on")

    def check_restored(self):
        """The end of the program, and the terminal as it was."""
        self.assertEqual("0", self.tmux.wait_for(r"^exit=(\d+)$", "it has ended")[1])
        self.tmux.wait_for(r"\bicanon\b", "what stty says")
        screen = self.tmux.screen()
        self.assertIn("as-before\n", screen)
        self.assertNotIn("latency", screen)
        self.assertNotRegex(screen, r"-icanon|-echo\b")
        self.assertEqual(("1", "0"), self.cursor_and_screen())

    def test_rates_move_under_a_load_and_q_ends_it(self):
        self.open()
        self.start_top()
        self.tmux.wait_for(r"^commands +0/s", "nothing moves yet")
        self.assertEqual(("0", "1"), self.cursor_and_screen())
        self.load()
        self.tmux.wait_for(r"^commands +[1-9]\d*/s +here [1-9]\d*/s +Valkey [1-9]\d*/s", "commands")
        self.tmux.wait_for(r"^near cache +hit ratio [1-9]\d*\.\d % +hits [1-9]\d*/s", "hits")
        self.tmux.wait_for(r"^hit +[\d.]+ [mu]s +[\d.]+ [mu]s +[1-9]\d*/s", "latency of hits")
        self.tmux.wait_for(r"^[0-9a-f]{16} +[\d.]+/s +[0-9a-f]{16} +[\d.]+/s", "hot keys")
        self.tmux.wait_for(r"^clients +1 of 10\.0k", "clients")
        self.assertRegex(self.tmux.screen(), r"^ready for [\d.]+ m?s +nearkey \d+\.\d+\.\d+ at ")
        self.tmux.keys("q")
        self.check_restored()

    def test_the_last_hour_is_a_row_of_blocks(self):
        self.load()
        wait_for(lambda: self.nearkey.get("/history")[1]["next"] > 0, 15, "a sample")
        self.open(columns=100, rows=40)
        self.start_top()
        self.tmux.wait_for(r"^  commands +[▁-█]+ +max [1-9]", "the commands of the last hour")
        self.tmux.wait_for(r"^  p99 +[▁-█]+ +max [\d.]+ [mu]?s", "latency")
        self.tmux.wait_for(r"^  [\d.]+ \w+ +ago: started, nearkey \d", "an event")

    def test_ctrl_c_ends_it_as_well(self):
        self.open()
        self.start_top()
        self.tmux.keys("C-c")
        self.check_restored()

    def test_a_small_window_and_a_large_one(self):
        self.open(columns=40, rows=10)
        self.start_top()
        screen = self.tmux.screen()
        lines = screen.rstrip("\n").split("\n")
        self.assertEqual(10, len(lines), screen)
        self.assertTrue(lines[0].startswith("ready for ") and lines[0].endswith("~"), screen)
        self.assertEqual(40, len(lines[0]))
        self.assertTrue(lines[1].startswith("commands "), screen)
        self.tmux.resize(120, 40)
        self.tmux.wait_for(r"^ready for .* at .*admin\.sock, up ", "the whole line")
        self.tmux.wait_for(r"^turn of the loop ", "the whole page")
        self.tmux.resize(3, 2)
        self.tmux.wait_for(r"\A\w+~\n\w+~\n\Z", "a tiny one")
        self.tmux.resize(100, 30)
        self.tmux.wait_for(r"^turn of the loop ", "the whole page again")
        self.tmux.keys("q")
        self.check_restored()

    def test_the_daemon_goes_and_comes_back(self):
        self.open()
        self.start_top()
        self.nearkey.stop()
        self.tmux.wait_for(r"^nearkey does not answer; trying again", "it is away")
        self.tmux.wait_for(r"^nobody answers at .*", "why")
        self.assertNotIn("latency", self.tmux.screen())
        self.start_nearkey(self.server.url)
        self.tmux.wait_for(r"^latency +p50", "it is back")
        self.tmux.wait_for(r"^commands +0/s", "rates of the new one")
        self.tmux.keys("q")
        self.check_restored()

    def test_valkey_goes_away(self):
        self.open()
        self.start_top()
        self.server.kill()
        self.tmux.wait_for(r"^not ready for [\d.]+ m?s: ", "why it is not ready")
        self.tmux.keys("q")
        self.check_restored()

    def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(self):
        self.open()
        self.start_top()
        self.tmux.keys("C-z")
        self.tmux.wait_for(r"Stopped", "the shell says so")
        self.assertEqual(("1", "0"), self.cursor_and_screen())
        self.tmux.keys("clear; echo as-before; fg; echo exit=$?; stty -a", "Enter")
        self.tmux.wait_for(r"^latency +p50", "the page")
        self.tmux.keys("q")
        self.check_restored()

    def test_where_stdout_is_no_terminal_it_is_one_page(self):
        self.load()
        arguments = ["--admin", self.nearkey.admin_path, "--interval-ms", "200"]
        for more in ([], ["--once"]):
            done = run_nearkey(self.directory, "top", *arguments, *more)
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            self.assertNotIn("\x1b", done.stdout)
            self.assertRegex(done.stdout, r"\ncommands +[1-9]\d*/s ")
            self.assertEqual(1, done.stdout.count("\nlatency "))

    def test_once_in_a_terminal_and_a_terminal_that_can_do_nothing(self):
        self.open()
        for before in ("", "TERM=dumb "):
            last = "" if before else "--once"
            end = "dumb" if before else "once"  # Its own: the other's may still be on the screen.
            line = f"{BINARY} top {last} --interval-ms 50 --admin {self.nearkey.admin_path}"
            self.tmux.keys(f"clear; {before}{line}; echo {end}=$?", "Enter")
            self.tmux.wait_for(rf"^{end}=0$", "it has ended")
            self.assertIn("\nlatency ", self.tmux.screen())

    def test_once_without_a_daemon(self):
        done = run_nearkey(self.directory, "top", "--once", "--admin", f"{self.directory}/no.sock")
        self.assertEqual((2, ""), (done.returncode, done.stdout))
        self.assertRegex(done.stderr, r"^nearkey: nobody answers at .*: No such file .*\n$")


if __name__ == "__main__":
    unittest.main()
