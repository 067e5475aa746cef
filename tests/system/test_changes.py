"""POST /reload and POST /upgrade, and the verbs that ask for them: what is done, what is awaited,
what is refused and why."""

import os
import unittest

from harness import AdminConnection, SystemTest, proxy_only, run_nearkey, wait_for
from test_admin_pages import post
from test_reload import ReloadTest as Reload
from test_upgrade import UpgradeTest as Upgrade
from service import successor_of

PONG = b"+PONG\r\n"
DEAD = "valkey://127.0.0.1:1"


def run(test, *arguments):
    return run_nearkey(test.directory, *arguments, timeout=40)


@proxy_only
class ReloadPageTest(Reload):
    def setUp(self):
        super().setUp()
        self.server = self.start_server(tcp=True)
        self.start(self.settings(self.server.url))

    def reload(self, *arguments):
        where = [] if "--admin" in arguments else ["--config", self.config]
        return run(self, "reload", *where, *arguments)

    def test_200_says_what_changed_and_422_why_nothing_did(self):
        self.assertEqual("none", self.nearkey.get("/reload")[1]["state"])
        status, page = post(self.nearkey, "/reload")
        self.assertEqual((200, "done", []), (status, page["state"], page["changes"]))
        self.write(self.settings(self.server.url, "queue_timeout_ms = 123"))
        status, page = post(self.nearkey, "/reload")
        self.assertEqual((200, 2), (status, page["number"]))
        self.assertEqual(1, len(page["changes"]))
        self.assertRegex(page["changes"][0], r"^upstream\.queue_timeout_ms: \d+ -> 123$")
        self.write(self.settings(self.server.url, "connections = 0"))
        status, page = post(self.nearkey, "/reload")
        self.assertEqual((422, "refused"), (status, page["state"]))
        self.assertIn(f"{self.config}:3: upstream.connections = 0", page["error"])
        self.assertEqual((200, page["reason"]), (200, self.nearkey.get("/reload")[1]["reason"]))
        self.assertEqual(405, self.nearkey_status("DELETE", "/reload"))
        self.assertEqual(PONG, self.client().command("PING"))

    def nearkey_status(self, method, path):
        connection = AdminConnection(self.nearkey.admin_path, 10)
        self.addCleanup(connection.close)
        connection.request(method, path)
        return connection.getresponse().status

    def test_202_while_the_new_upstream_is_being_proved(self):
        other = self.start_server(tcp=True, name="other")
        other.freeze()
        self.addCleanup(other.thaw)
        self.write(self.settings(other.url))
        status, page = post(self.nearkey, "/reload")
        self.assertEqual((202, "under way"), (status, page["state"]))
        self.assertEqual(f"asking {other.url}", page["reason"].removesuffix("/0"))
        self.assertIn("upstream.url", page["changes"][0])
        other.thaw()
        wait_for(lambda: self.nearkey.get("/reload")[1]["state"] == "done", 10, "it is proven")

    def test_the_verb_says_what_changed(self):
        done = self.reload()
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.assertEqual("reloaded; nothing is different from before\n", done.stdout)
        other = self.start_server(tcp=True, name="other")
        self.write(self.settings(other.url, "queue_timeout_ms = 123"))
        done = self.reload()
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        first, *changes = done.stdout.splitlines()
        self.assertEqual("reloaded:", first)
        self.assertEqual(
            ["  upstream.queue_timeout_ms:", "  upstream.url:"],
            sorted(line.split(": ")[0] + ":" for line in changes),
        )
        client = self.client()
        client.command("SET", "k", "v")
        self.assertEqual(b"v", other.run("GET", "k"), "it waited until the new one served")

    def test_the_verb_says_why_it_was_refused(self):
        self.write(self.settings(self.server.url, "connections = 0"))
        done = run(self, "reload", "--admin", self.nearkey.admin_path)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertRegex(
            done.stderr,
            r"^nearkey: refused, and nothing was changed: .*nearkey\.toml:3: upstream\.connections"
            r" = 0: .*\n$",
        )
        self.write(self.settings(DEAD))
        done = self.reload()
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertIn("the new upstream does not serve", done.stderr)
        self.assertEqual(PONG, self.client().command("PING"))

    def test_no_password_is_in_what_is_said(self):
        """faults.md row 58: what changed and what is wrong is said without secrets."""
        secret = "hunter2-canary"
        self.server.run("ACL", "SETUSER", "app", "on", ">" + secret, "~*", "+@all")
        host = f"{self.server.bind}:{self.server.port}"
        said = []
        for url, code in (
            (f"valkey://app:{secret}@{host}", 0),
            (f"valkey://app:{secret}-wrong@{host}", 1),
            (f"valkey://app:{secret}@{host}/x", 1),
        ):
            self.write(self.settings(url))
            done = self.reload("--admin", self.nearkey.admin_path)
            self.assertEqual(code, done.returncode, done.stderr)
            said += [done.stdout, done.stderr, str(self.nearkey.get("/reload"))]
        self.assertIn("upstream.url", said[0])
        self.assertNotIn(secret, "".join([*said, *self.nearkey.lines]))

    def test_the_verb_does_not_wait_for_ever(self):
        other = self.start_server(tcp=True, name="other")
        other.freeze()
        self.addCleanup(other.thaw)
        self.write(self.settings(other.url, "connect_timeout_ms = 600000"))
        done = self.reload("--timeout-ms", "300")
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertIn("has not ended by now (asking valkey://", done.stderr)


@proxy_only
class UpgradePageTest(Upgrade):
    def test_the_verb_waits_for_the_new_one_and_the_page_tells_of_it(self):
        server = self.start_server()
        old = self.start(server.url)
        self.assertEqual("none", old.get("/upgrade")[1]["state"])
        with old.client() as friend:
            self.assertEqual(PONG, friend.command("PING"))
            done = run(self, "upgrade", "--admin", old.admin_path)
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            pid = old.get("/upgrade")[1]["pid"]
            self.assertNotEqual(old.pid, pid)
            self.assertEqual(
                f"upgraded: process {pid} serves; process {old.pid} serves its clients until they "
                "leave\n",
                done.stdout,
            )
            self.assertEqual(PONG, friend.command("PING"), "a client of the old one")
            again = run(self, "upgrade", "--admin", old.admin_path)
            self.assertEqual(1, again.returncode)
            self.assertIn("clients of the nearkey before this one are still served", again.stderr)
        self.wait_gone(old)
        successor_of(old, pid).stop()

    def test_202_then_409_while_it_is_under_way_and_a_failure_is_told(self):
        server = self.start_server()
        old = self.start(server.url)
        self.replace_program(f'while [ ! -e "{self.directory}/go" ]; do sleep 0.05; done; exit 3\n')
        status, page = post(old, "/upgrade")
        self.assertEqual((202, "under way", old.pid), (status, page["state"], page["pid"]))
        status, refusal = post(old, "/upgrade")
        self.assertEqual(409, status)
        self.assertEqual("an upgrade is under way", refusal["error"])
        self.assertEqual("under way", old.get("/upgrade")[1]["state"])
        open(f"{self.directory}/go", "w").close()
        wait_for(lambda: old.get("/upgrade")[1]["state"] == "refused", 10, "it failed")
        done = run(self, "upgrade", "--admin", old.admin_path)
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertRegex(
            done.stderr, r"^nearkey: the upgrade failed, and the old nearkey goes on: .+\n$"
        )
        self.assertEqual(200, old.ready_status())

    def test_the_verb_does_not_wait_for_ever(self):
        server = self.start_server()
        old = self.start(server.url)
        self.replace_program(f'while [ ! -e "{self.directory}/go" ]; do sleep 0.05; done\n')
        self.addCleanup(lambda: open(f"{self.directory}/go", "w").close())
        done = run(self, "upgrade", "--admin", old.admin_path, "--timeout-ms", "400")
        self.assertEqual((1, ""), (done.returncode, done.stdout))
        self.assertRegex(done.stderr, r"has not ended by now \(process \d+ gets ready\)")

    def test_managed_is_refused_with_its_reason(self):
        nearkey = self.start("managed:")
        done = run(self, "upgrade", "--admin", nearkey.admin_path)
        self.assertEqual(1, done.returncode)
        self.assertIn("refused, and nothing was changed: managed:", done.stderr)


@proxy_only
class ControlVerbsTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(self.server.url)

    def ask(self, *arguments):
        return run(self, *arguments, "--admin", self.nearkey.admin_path)

    def test_the_level_of_the_log(self):
        done = self.ask("log-level")
        self.assertEqual((0, "log level: info\n"), (done.returncode, done.stdout))
        done = self.ask("log-level", "debug")
        self.assertEqual((0, "log level: debug\n"), (done.returncode, done.stdout))
        self.assertEqual("debug", self.nearkey.get("/log-level")[1]["level"])
        done = self.ask("log-level", "loud")
        self.assertEqual((2, ""), (done.returncode, done.stdout))
        self.assertIn("debug, info, warning, error", done.stderr)

    def test_the_near_cache_is_cleared(self):
        with self.nearkey.client() as client:
            client.command("HELLO", "3")
            client.command("SET", "k", "v")

            def is_stored():
                client.command("GET", "k")
                return self.nearkey.metric("nearkey_near_cache_entries") > 0

            wait_for(is_stored, 5, "a stored reply")
            done = self.ask("cache-clear")
            before = self.nearkey.metric("nearkey_near_cache_misses_total")
            client.command("GET", "k")
            self.assertEqual(before + 1, self.nearkey.metric("nearkey_near_cache_misses_total"))
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.assertRegex(done.stdout, r"^the near cache is empty; it had \d+ replies\n$")
        self.nearkey.wait_logged("near_cache_cleared")

    def test_what_nearkey_refuses_is_said(self):
        other = os.path.join(self.directory, "other")
        os.mkdir(other)
        nearkey = self.start_nearkey(
            self.server.url, directory=other, settings={"near_cache.enabled": "false"}
        )
        done = run(self, "cache-clear", "--admin", nearkey.admin_path)
        self.assertEqual(
            (1, "", "nearkey: the near cache is switched off\n"),
            (done.returncode, done.stdout, done.stderr),
        )

    def test_a_frozen_daemon_is_not_waited_for(self):
        self.nearkey.freeze()
        self.addCleanup(self.nearkey.thaw)
        done = self.ask("log-level", "--timeout-ms", "200")
        self.assertEqual((2, ""), (done.returncode, done.stdout))
        self.assertIn("no answer in time", done.stderr)


if __name__ == "__main__":
    unittest.main()
