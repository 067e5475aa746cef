"""upstream.password_command: a program tells the password, which changes while clients go on."""

import os
import signal
import subprocess
import threading
import time
import unittest

from clusters import Cluster
from harness import BINARY, SLOWNESS, ValkeyServer, proxy_only, run_nearkey, wait_for
from sentinels import SentinelGroup
from test_reload import PONG, ReloadTest

FIRST = "canary-first-3f9a"


class PasswordTest(ReloadTest):
    def start_locked(self):
        self.password_file = os.path.join(self.directory, "told")
        self.tell(FIRST)
        server = ValkeyServer(self.directory, tcp=True, args=["--requirepass", FIRST])
        self.addCleanup(server.stop)
        server.password = FIRST
        self.server = server.start()

    def tell(self, password):
        """What the command says from now on."""
        with open(self.password_file + ".new", "w") as file:
            file.write(password + "\n")
        os.rename(self.password_file + ".new", self.password_file)

    def program(self, text):
        path = os.path.join(self.directory, "program")
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + text + "\n")
        os.chmod(path, 0o700)
        return path

    def start(self, command, *, ready=True, url=None, workers=None, **settings):
        words = ", ".join(f'"{word}"' for word in command)
        config = os.path.join(self.directory, "command.toml")
        with open(config, "w") as file:
            file.write(f"[upstream]\npassword_command = [{words}]\n")
        self.nearkey = self.start_nearkey(
            url or f"valkey://127.0.0.1:{self.server.port}", args=["--config", config], ready=ready,
            settings={**{f"upstream.{name}": value for name, value in settings.items()},
                      **({} if workers is None else {"server.workers": workers})})

    def assert_nothing_told(self):
        self.assertNotIn("canary", "\n".join(self.nearkey.lines))


@proxy_only
class CommandTest(PasswordTest):
    def test_what_it_says_is_the_password(self):
        self.start_locked()
        self.start(["cat", self.password_file])
        self.assertEqual(PONG, self.client().command("PING"))
        self.assertEqual(1, self.nearkey.metric("nearkey_password_command_runs_total"))
        # With the next reload it is run again, and live connections say what it told.
        self.server.run("ACL", "SETUSER", "default", ">canary-next")
        self.tell("canary-next")
        self.assertEqual("reloaded", self.hang_up()["event"])
        self.assertEqual(PONG, self.client().command("PING"))
        self.assert_nothing_told()

    def test_a_lease_that_is_free_does_not_outlive_its_password(self):
        self.start_locked()
        self.start(["cat", self.password_file])
        client = self.client()
        client.command("WATCH", "k")
        client.command("UNWATCH")

        def leases():
            """Those connections that run transactions, by the server's word."""
            return {row["id"] for row in self.server.clients() if row["cmd"] in ("unwatch", "watch")}

        former = wait_for(leases, 10, "it is there")
        self.server.run("ACL", "SETUSER", "default", ">canary-next")
        self.tell("canary-next")
        self.assertEqual("reloaded", self.hang_up()["event"])
        wait_for(lambda: not former & {row["id"] for row in self.server.clients()}, 10, "its end")
        self.assertEqual(b"+OK\r\n", client.command("WATCH", "k"))

    def start_by_file(self, server, *more):
        """The address stands in the file, so that a reload may have another one."""
        command = f'password_command = ["cat", "{self.password_file}"]'
        ReloadTest.start(self, self.settings(f"valkey://127.0.0.1:{server.port}", command, *more))

    def test_a_reload_goes_by_what_the_command_tells_now(self):
        self.start_locked()
        other = ValkeyServer(self.directory, name="other", tcp=True, args=["--requirepass", "canary-other"])
        self.addCleanup(other.stop)
        other.password = "canary-other"
        other.start()
        self.start_by_file(self.server)
        self.tell("canary-other")
        command = f'password_command = ["cat", "{self.password_file}"]'
        self.write(self.settings(f"valkey://127.0.0.1:{other.port}", command))
        self.assertEqual("reloaded", self.hang_up()["event"])
        self.assertEqual(b"+OK\r\n", self.client().command("SET", "k", "v"))
        self.assertEqual(b"v", other.run("GET", "k"))

    def test_a_reload_says_where_the_command_tells_none(self):
        self.start_locked()
        self.start([self.program(f"cat {self.password_file}")])
        self.program("exit 3")
        done = self.hang_up()
        self.assertEqual("reloaded", done["event"])
        self.assertIn("upstream.password_command: it ended with exit status 3; the password that it "
                      "told before is used", done["changes"])
        self.assertEqual(PONG, self.client().command("PING"))

    def test_a_reload_that_is_refused_leaves_the_password_as_well(self):
        self.start_locked()
        self.start_by_file(self.server)
        self.tell("canary-wrong")
        refused = self.hang_up()
        self.assertEqual("reload_refused", refused["event"])
        self.assertIn("WRONGPASS", refused["reason"])
        self.assertEqual(0, self.nearkey.metric("nearkey_reauthentications_total"))
        self.server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        # Nothing else is told either: the former one still serves.
        self.tell(FIRST)
        wait_for(lambda: self.client().command("SET", "k", "v") == b"+OK\r\n", 20, "it serves")

    def test_a_reload_waits_for_a_run_that_begins_after_it_was_asked_for(self):
        self.start_locked()
        self.start([self.program(f"cat {self.password_file}; sleep 1")])
        self.nearkey.signal(signal.SIGHUP)
        runs = self.nearkey.metric("nearkey_password_command_runs_total")
        wait_for(lambda: self.nearkey.metric("nearkey_password_command_runs_total") > runs, 10, "it runs")
        time.sleep(0.3)
        self.server.run("ACL", "SETUSER", "default", "resetpass", ">canary-next")
        self.server.password = "canary-next"
        self.tell("canary-next")
        self.hang_up()
        self.server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_for(lambda: self.client().command("SET", "k", "v") == b"+OK\r\n", 3, "it serves at once")

    def test_behind_sentinels_one_that_is_refused_is_asked_for_anew(self):
        group = SentinelGroup(self.directory, password=FIRST)
        self.addCleanup(group.stop)
        group.start()
        self.password_file = os.path.join(self.directory, "told")
        self.tell("canary-wrong")
        self.start(["cat", self.password_file], ready=False, url=group.url(user=""))
        self.nearkey.wait_logged("admin_listening")
        wait_for(lambda: self.nearkey.metric("nearkey_auth_failures_total") > 0, 10, "it was refused")
        self.tell(FIRST)
        self.nearkey.wait_ready(20)
        self.assertEqual(PONG, self.client().command("PING"))

    def test_wrong_ones_that_differ_are_no_storm(self):
        self.start_locked()
        self.start([self.program(f"cat {self.password_file}")], password_lifetime_ms=1000)
        self.program("echo canary-$(date +%s%N)")
        begin = self.nearkey.metric("nearkey_password_command_runs_total")
        wait_for(lambda: self.nearkey.metric("nearkey_auth_failures_total") > 0, 10, "it was refused")
        self.assertEqual(PONG, self.client().command("PING"))
        self.assertLess(self.nearkey.metric("nearkey_password_command_runs_total") - begin, 5)

    def test_a_lifetime_comes_into_force_with_a_reload_and_is_no_storm(self):
        self.start_locked()
        self.start_by_file(self.server)
        command = f'password_command = ["cat", "{self.password_file}"]'
        self.write(self.settings(f"valkey://127.0.0.1:{self.server.port}", command,
                                 "password_lifetime_ms = 5"))
        self.assertEqual("reloaded", self.hang_up()["event"])
        runs = self.nearkey.metric("nearkey_password_command_runs_total")
        began = time.monotonic()
        wait_for(lambda: self.nearkey.metric("nearkey_password_command_runs_total") >= runs + 2, 20, "runs")
        self.assertGreater(time.monotonic() - began, 0.9)

    def test_while_none_is_told_it_says_since_when(self):
        self.start_locked()
        self.start([self.program("exit 1")], ready=False)
        self.nearkey.wait_logged("it ended with exit status 1")
        self.assertLess(self.nearkey.get("/readyz")[1]["since_seconds"], 60)
        wait_for(lambda: {"not_ready", "access_refused"} <= {
            event["kind"] for event in self.nearkey.get("/history")[1]["events"]}, 10, "events")

    @unittest.skipIf(os.geteuid() != 0, "namespaces need root")
    def test_as_the_first_process_it_reaps_what_the_program_leaves(self):
        self.start_locked()
        program = self.program(f"sleep 0.2 & cat {self.password_file}")
        path = os.path.join(self.directory, "first.sock")
        config = os.path.join(self.directory, "first.toml")
        with open(config, "w") as file:
            file.write(f'[upstream]\nurl = "valkey://127.0.0.1:{self.server.port}"\n'
                       f'password_command = ["{program}"]\npassword_lifetime_ms = 1000\n'
                       f'[server]\nlisten = ["{path}"]\nadmin = "{path}.admin"\n')
        outer = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
                                  BINARY, "serve", "--config", config],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(outer.wait)
        self.addCleanup(outer.kill)
        wait_for(lambda: os.path.exists(path), 20, "it serves")
        (first,) = children_of(outer.pid)
        seen = set()

        def all_reaped():
            seen.update(children_of(first))
            return len(seen) >= 6 and not any(is_zombie(pid) for pid in children_of(first))

        wait_for(all_reaped, 30, "what was left is reaped")

    def test_one_that_is_refused_is_asked_for_anew(self):
        self.start_locked()
        self.start(["cat", self.password_file])
        self.server.run("ACL", "SETUSER", "default", "resetpass", ">canary-next")
        self.server.password = "canary-next"
        self.tell("canary-next")
        self.server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_for(lambda: self.client().command("SET", "k", "v") == b"+OK\r\n", 20, "it serves")
        self.assertGreater(self.nearkey.metric("nearkey_password_command_runs_total"), 1)
        self.assert_nothing_told()

    def test_what_fails_is_said_and_tried_again(self):
        self.start_locked()
        good = f"cat {self.password_file}"
        cases = (
            ("echo canary >&2; exit 3", "it ended with exit status 3"),
            ("kill -9 $$", "it was ended by signal 9"),
            ("true", "its output: it is empty"),
            ("echo canary; echo canary", "its output: it holds more than one line"),
            ("head -c 5000 /dev/zero", "it said more than a password"),
            ("yes canary", "it said more than a password"),
            ("sleep 1000", "it took longer than 500 ms"),
        )
        for text, reason in cases:
            with self.subTest(text):
                program = self.program(text)
                self.start([program], ready=False, password_command_timeout_ms=500)
                self.nearkey.wait_logged(reason)
                self.assertEqual(503, self.nearkey.get("/readyz")[0])
                refused = self.hang_up()
                self.assertIn("has told no password yet", refused["reason"])
                self.program(good)
                self.nearkey.wait_ready()
                self.assertEqual(PONG, self.client().command("PING"))
                self.assert_nothing_told()
                self.nearkey.stop()
        self.start(["/no/such/program"], ready=False)
        self.nearkey.wait_logged("it can't be run: No such file or directory")
        self.nearkey.signal(signal.SIGTERM)
        self.assertEqual(0, self.nearkey.process.wait(10 * SLOWNESS))

    def test_one_that_takes_too_long_leaves_no_process(self):
        self.start_locked()
        pids = os.path.join(self.directory, "pids")
        self.start([self.program(f"sleep 1000 & echo $$ $! > {pids}; wait")], ready=False,
                   password_command_timeout_ms=300)
        self.nearkey.wait_logged("it took longer than 300 ms")
        with open(pids) as file:
            numbers = [int(word) for word in file.read().split()]
        for number in numbers:
            wait_for(lambda: is_gone(number), 10, f"process {number} is gone")

    def test_neither_a_run_nor_the_next_one_holds_up_the_end(self):
        self.start_locked()
        pids = os.path.join(self.directory, "pids")
        took = []
        for _ in range(3):
            self.start(["cat", self.password_file], password_lifetime_ms=60000)
            took.append(self.time_of_stop())
        # What is left over is waited for, 200 ms.
        self.assertLess(min(took), 0.15 * SLOWNESS / 2)
        self.start([self.program(f"sleep 1000 & echo $$ $! > {pids}; wait")], ready=False)
        wait_for(lambda: os.path.exists(pids) and os.path.getsize(pids), 10, "it runs")
        self.nearkey.stop()
        with open(pids) as file:
            for number in map(int, file.read().split()):
                wait_for(lambda: is_gone(number), 10, f"process {number} is gone")

    def test_nor_do_event_loops_that_have_not_begun(self):
        self.start_locked()
        pids = os.path.join(self.directory, "pids")
        self.start([self.program(f"echo > {pids}; exit 1")], ready=False, workers=3)
        wait_for(lambda: os.path.exists(pids), 10, "it has run")
        self.assertLess(self.time_of_stop(), 2 * SLOWNESS)
        self.assertNotIn("drain_timeout", "\n".join(self.nearkey.lines))

    def time_of_stop(self):
        began = time.monotonic()
        self.nearkey.stop()
        return time.monotonic() - began

    def test_a_second_place_for_a_password_is_refused(self):
        for settings, words in (
            ({"upstream.password_file": "/x"}, "upstream.password_file gives a password, too"),
            ({"upstream.url": "managed:"}, "managed: takes no user and no password"),
        ):
            arguments = [f"--set={key}={value}" for key, value in settings.items()]
            done = run_nearkey(self.directory, "check", "--set=upstream.url=valkey://h",
                               "--set=upstream.password_command=x", *arguments)
            self.assertEqual(2, done.returncode)
            self.assertIn(words, done.stderr)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return False


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}") or is_zombie(pid)


@proxy_only
class ChangingTest(PasswordTest):
    CLIENTS = 4
    CHANGES = 8

    def load(self, index, stop, wrong):
        client = self.nearkey.client()
        count = 0
        while not stop.is_set() and not wrong:
            count += 1
            # Of a cluster, slots of all nodes.
            for key in (f"{index}:{number}" for number in range(8)):
                reply = client.command("INCR", key)
                if reply != b":%d\r\n" % count:
                    wrong.append(reply)
                    break
        client.close()

    def change_under_load(self, servers):
        stop, wrong = threading.Event(), []
        threads = [threading.Thread(target=self.load, args=(i, stop, wrong))
                   for i in range(self.CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            old = FIRST
            for number in range(self.CHANGES):
                new = f"canary-{number}"
                for server in servers:
                    server.run("ACL", "SETUSER", "default", f">{new}")
                before = self.nearkey.metric("nearkey_reauthentications_total")
                self.tell(new)
                time.sleep(1)
                wait_for(lambda before=before: self.nearkey.metric("nearkey_reauthentications_total")
                         >= before + len(servers), 20, "it was told to each")
                for server in servers:
                    server.password = new
                    server.run("ACL", "SETUSER", "default", f"<{old}")
                old = new
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        self.assertEqual([], wrong)
        self.assertEqual(0, self.nearkey.metric("nearkey_auth_failures_total"))
        for server in servers:
            failed = server.run("INFO", "commandstats").decode().split("cmdstat_auth:")[1]
            self.assertIn("rejected_calls=0,failed_calls=0", failed.split("\r\n")[0])
            # And the last one is that of new connections.
            server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for key in map(str, range(8)):
            wait_for(lambda key=key: self.client().command("SET", key, "v") == b"+OK\r\n", 20,
                     "it serves")
        self.assert_nothing_told()

    def test_a_password_that_changes_each_second_loses_no_request(self):
        self.start_locked()
        self.start(["cat", self.password_file], password_lifetime_ms=1000)
        self.change_under_load([self.server])

    def test_nor_does_that_of_all_nodes_of_a_cluster(self):
        cluster = Cluster(self.directory)
        self.addCleanup(cluster.stop)
        cluster.start()
        for node in cluster.nodes:
            node.run("CONFIG", "SET", "requirepass", FIRST)
            node.password = FIRST
        self.password_file = os.path.join(self.directory, "told")
        self.tell(FIRST)
        self.start(["cat", self.password_file], url=cluster.url(), password_lifetime_ms=1000)
        self.change_under_load(cluster.nodes)
