"""A reload from one server to Sentinels, to another name and back; and what `nearkey check` says of
a URL that is wrong."""

import os
import signal
import threading
import unittest

from fake_sentinel import FakeSentinel
from harness import SLOWNESS, SystemTest, proxy_only, run_nearkey, wait_for
from near_cache import store
from resp import encode
from sentinel_case import OK, SentinelWords
from sentinels import HOST, NAME, SentinelGroup
from test_reload import ReloadTest

HELLO_3 = b"%2\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n$4\r\nmode\r\n$8\r\nsentinel\r\n"

# upstream.url, and what is said of it.
WRONG_URLS = {
    "sentinel://": r"Sentinel number 1: the host is missing",
    "sentinel:///mymaster": r"Sentinel number 1: the host is missing",
    "sentinel://127.0.0.1": r"the primary's name must follow the Sentinels, as in sentinel://",
    "sentinel://127.0.0.1/": r"the primary's name must follow the Sentinels, as in sentinel://",
    "sentinel://127.0.0.1/my%20master": r"the primary's name must follow the Sentinels, as in sentinel://",
    "sentinel://127.0.0.1,,127.0.0.2/mymaster": r"Sentinel number 2: the host is missing",
    "sentinel://127.0.0.1,127.0.0.1:26379/mymaster": r"127\.0\.0\.1:26379 is given twice",
    "sentinel://127.0.0.1,127.0.0.2:99999/mymaster": r"number 2: the port must be a number",
    "sentinel://127.0.0.1/mymaster/first": r"database",
    "sentinel://127.0.0.1/mymaster/0/1": r"database",
    "sentinal://127.0.0.1/mymaster": r"a URL starts with .*sentinel://",
}


@proxy_only
class SentinelReloadTest(SentinelWords, ReloadTest):
    def start_group(self, name):
        folder = os.path.join(self.directory, f"group-{name}")
        os.mkdir(folder)
        group = SentinelGroup(folder, name=name, sentinels=2)
        self.addCleanup(group.stop)
        return group.start()

    def reload(self, url):
        self.write(self.settings(url))
        outcome = self.hang_up()
        self.assertEqual("reloaded", outcome["event"], outcome)

    def test_to_sentinels_to_another_name_and_back_to_one_server(self):
        lone = self.start_server(tcp=True)
        first, second = self.start_group("first"), self.start_group("second")
        places = [(lone, lone.url), (first.servers[0], first.url()),
                  (second.servers[0], second.url()), (first.servers[0], first.url()),
                  (lone, lone.url), (lone, lone.url)]  # fmt: skip
        self.start(self.settings(lone.url))
        client = self.client()
        for server, url in places:
            server.run("SET", "where", server.port)
            self.reload(url)
            wait_for(
                lambda: client.value("GET", "where") == b"%d" % server.port, 3, f"reads by {url}"
            )
            self.assertEqual(OK, client.command("SET", "written", server.port))
            self.assertEqual(b"%d" % server.port, server.run("GET", "written"))
            store(self.nearkey, client, "GET", "where")
        self.assertEqual(0, self.failovers(), "a reload is no failover")
        # Nobody asks the Sentinels any more, and nothing is said of them.
        self.assertEqual(0, self.metric("sentinels_known"))
        self.assertEqual([], self.nearkey.get("/readyz")[1].get("sentinels", []))
        for group in (first, second):
            for sentinel in group.sentinels:
                wait_for(lambda: self.is_left(sentinel), 3, "no connection is left")

    def is_left(self, sentinel):
        rows = sentinel.run("CLIENT", "LIST").decode().splitlines()
        return not any("name=nearkey" in row for row in rows)

    def test_a_failover_after_the_reload_is_followed(self):
        lone, group = self.start_server(tcp=True), self.start_group("mymaster")
        self.start(self.settings(lone.url))
        client = self.client()
        self.reload(group.url())
        self.wait_writes_at(group.servers[0], client)
        former, new = group.fail_over()
        self.wait_writes_at(new, client)
        self.wait_failovers(1)
        # The former Sentinels change nothing any more.
        self.reload(lone.url)
        self.wait_writes_at(lone, client)
        group.wait_named(new)
        group.hurry()
        group.wait_settled()
        group.fail_over()
        self.assert_served_by(lone, client)
        self.assertEqual(1, self.failovers())

    def test_a_reload_to_sentinels_that_are_down_is_told_and_found_out_of(self):
        lone, group = self.start_server(tcp=True), self.start_group("mymaster")
        self.start(self.settings(lone.url))
        client = self.client()
        for sentinel in group.sentinels:
            sentinel.kill()
        self.write(self.settings(group.url()))
        self.hang_up()
        for sentinel in group.sentinels:
            sentinel.start()
        for sentinel in group.sentinels:
            wait_for(sentinel.answers, 10, "a Sentinel answers PING")
        if self.count("reloaded") == 0:
            self.reload(group.url())
        self.wait_writes_at(group.servers[0], client, timeout=5)


    def test_a_primary_that_was_silent_is_confirmed_to_the_sentinels_of_a_reload(self):
        """What it holds back waits for a Sentinel's word. The one that was asked refuses, and a
        reload brings the password."""
        primary = self.start_server(tcp=True)
        sentinel = FakeSentinel({NAME: (HOST, primary.port)}, epoch=1)
        self.addCleanup(sentinel.close)
        url = f"sentinel://{sentinel.address}/{NAME}"
        patient = ["unready_after_ms = 60000", "connect_timeout_ms = 20000"]
        self.start(self.settings(url, *patient))
        client = self.client()
        self.wait_writes_at(primary, client)
        primary.freeze()
        self.addCleanup(primary.thaw)
        sentinel.password = "right"
        sentinel.drop()
        wait_for(lambda: self.metric("upstream_suspects_total") > 0, 10, "it is suspect")
        self.wait_state(sentinel, "NOAUTH")
        primary.thaw()
        client.send(encode("SET", "held", "back"))
        with self.assertRaises(TimeoutError):
            client.read_reply(1)
        file = os.path.join(self.directory, "password")
        with open(file, "w") as password:
            password.write("right\n")
        os.chmod(file, 0o600)
        self.write(self.settings(url, *patient, f'\n[sentinel]\npassword_file = "{file}"'))
        self.assertEqual("reloaded", self.hang_up()["event"])
        self.assertEqual(OK, client.read_reply(5 * SLOWNESS))

    def test_what_was_sought_for_the_former_sentinels_is_over_with_a_reload(self):
        primary = self.start_server(tcp=True, name="primary")
        other = self.start_server(tcp=True, name="other")
        sentinel = FakeSentinel({NAME: (HOST, primary.port)}, epoch=1)
        self.addCleanup(sentinel.close)
        url = f"sentinel://{sentinel.address}/{NAME}"
        self.start(self.settings(url))
        client = self.client()
        self.wait_writes_at(primary, client)
        other.freeze()
        self.addCleanup(other.thaw)
        # Whom the reload asks is slow to say who it is; meanwhile the former names another.
        may_answer = threading.Event()

        def hello(_command):
            may_answer.wait(20)
            for conversation in sentinel.conversations:
                conversation.protocol = 3
            return HELLO_3

        sentinel.answers["hello"] = hello
        self.write(self.settings(url, "\n[sentinel]\nusername = \"somebody\""))
        self.nearkey.signal(signal.SIGHUP)
        wait_for(lambda: sentinel.asked("somebody"), 5, "the reload has asked")
        sentinel.names, sentinel.epoch = {NAME: (HOST, other.port)}, 5
        sentinel.publish("+switch-master", NAME)
        self.wait_state(sentinel, f"names {HOST}:{other.port}")
        # It is dialled by now, and does not answer.
        sentinel.names = {NAME: (HOST, primary.port)}
        may_answer.set()
        wait_for(lambda: self.count("reloaded") == 1, 3, "the reload is done")
        other.thaw()
        wait_for(lambda: other.run("PING") == b"PONG", 5, "it is awake")
        self.wait_writes_at(primary, client)
        self.assertEqual(0, self.failovers())


class CheckTest(SystemTest):
    def test_each_part_of_the_url_that_is_wrong_is_named(self):
        for url, words in WRONG_URLS.items():
            with self.subTest(url=url):
                done = run_nearkey(self.directory, "check", "--upstream", url)
                self.assertNotEqual(0, done.returncode, done)
                self.assertRegex(done.stderr, words)
                self.assertIn("upstream", done.stderr)

    def test_what_is_right_is_so(self):
        for url in ("sentinel://s1,s2:26380,[::1]:26381/mymaster/3",
                    "sentinels://user:secret@s1/my-master.1",
                    "redis+sentinel://127.0.0.1/a_b"):  # fmt: skip
            with self.subTest(url=url):
                done = run_nearkey(self.directory, "check", "--upstream", url)
                self.assertEqual(0, done.returncode, done)
                self.assertNotIn("secret", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
