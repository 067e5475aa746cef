"""faults.md, rows 9, 11, 12, 17, 19 and 21, an upstream that is absent, and the queue while it is
away."""

import os
import threading
import time
import unittest

from fake_valkey import FakeValkey
from harness import SLOWNESS, SystemTest, proxy_only, wait_for
from resp import encode

PONG = b"+PONG\r\n"


@proxy_only
class BusyServerTest(SystemTest):
    def start(self, *server_args, **settings):
        self.server = self.start_server(*server_args)
        self.nearkey = self.start_nearkey(
            self.server.url, settings={"upstream.connections": 1, **settings}
        )

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def test_row_9_a_slow_server_is_waited_for_and_readiness_does_not_flap(self):
        self.start()
        clients = [self.client() for _ in range(10)]
        for client in clients:
            self.assertEqual(PONG, client.command("PING"))
        self.nearkey.wait_logged("listening")  # The last line of a start.
        lines = len(self.nearkey.logs())
        with self.server.client() as sleeper:
            sleeper.send(encode("DEBUG", "SLEEP", "0.5"))
            time.sleep(0.05)  # It is asleep now; nothing else can be asked of it.
            begin = time.monotonic()
            for number, client in enumerate(clients):
                client.send(
                    encode("SET", f"k{number}", number)
                    + encode("INCR", f"k{number}")
                    + encode("GET", f"k{number}")
                )
            statuses = set()
            while time.monotonic() < begin + 0.6:
                statuses.add(self.nearkey.ready_status())
        self.assertEqual({200}, statuses)
        for number, client in enumerate(clients):
            text = b"%d" % (number + 1)
            self.assertEqual(
                [b"+OK\r\n", b":%s\r\n" % text, b"$%d\r\n%s\r\n" % (len(text), text)],
                client.read_replies(3),
            )
        self.assertEqual(lines, len(self.nearkey.logs()), "a change of state was logged")
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_reconnects_total"))

    def test_row_11_maxclients_is_said_and_nothing_is_written_to_another_database(self):
        self.start()
        client = self.client()
        self.assertEqual(b"+OK\r\n", client.command("SET", "k", "zero"))
        other = self.client()
        with self.server.client() as direct:
            count = (
                direct.value("INFO", "clients").split(b"connected_clients:")[1].split(b"\r\n")[0]
            )
            self.assertEqual(b"+OK\r\n", direct.command("CONFIG", "SET", "maxclients", count))
            other.send(encode("SELECT", "5") + encode("SET", "k", "five"))
            selected, reply = other.read_replies(2)
            self.assertTrue(selected.startswith(b"-ERR max number of clients"), selected)
            self.assertEqual(
                b"$4\r\nzero\r\n", client.command("GET", "k"), "written to the wrong database"
            )
            self.assertTrue(reply.startswith(b"-UPSTREAMDOWN"), reply)
            self.assertEqual(b"+OK\r\n", direct.command("CONFIG", "SET", "maxclients", "1000"))
        wait_for(
            lambda: other.pipeline([("SELECT", "5"), ("SET", "k", "five")]) == [b"+OK\r\n"] * 2,
            3,
            "the connection is dialled again",
        )
        self.assertEqual(b"$4\r\nfive\r\n", other.command("GET", "k"))

    def test_row_11_started_while_the_server_is_full(self):
        self.server = self.start_server()
        with self.server.client() as direct:
            direct.command("CONFIG", "SET", "maxclients", "1")
            nearkey = self.start_nearkey(self.server.url, ready=False)
            nearkey.wait_unready()
            wait_for(
                lambda: "max number of clients" in nearkey.get("/readyz")[1]["reason"],
                3,
                "the reason is named",
            )
            self.assertFalse(os.path.exists(nearkey.path))
            direct.command("CONFIG", "SET", "maxclients", "1000")
        nearkey.wait_ready(3)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))

    def test_row_12_a_server_that_is_loading_is_not_ready(self):
        self.start(**{"upstream.queue_timeout_ms": 200})
        client = self.client()
        self.server.run("DEBUG", "POPULATE", "3000")
        client.command("SET", "k", "value")
        self.assertEqual(b"OK", self.server.run("SAVE"))
        self.server.kill()
        self.nearkey.wait_unready(3)
        self.server.start(
            "--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024", wait=False
        )
        wait_for(self.is_loading, 3, "the server listens, and is loading")
        wait_for(lambda: "LOADING" in self.nearkey.get("/readyz")[1]["reason"], 3, "it is reached")
        statuses, answers = [], set()
        while not self.loaded():
            status, reply = self.nearkey.get("/readyz")[0], client.command("GET", "k")
            if not self.loaded():
                statuses.append(status)
                answers.add(reply.split(b" ")[0])
        self.assertGreater(
            len(statuses),
            2,
            "the server was not loading long enough for this test to mean anything",
        )
        self.assertEqual({503}, set(statuses))
        self.assertEqual({b"-LOADING"}, answers)
        self.nearkey.wait_ready(3)
        wait_for(
            lambda: client.command("GET", "k") == b"$5\r\nvalue\r\n", 2, "it is answered again"
        )

    def is_loading(self):
        try:
            return not self.loaded()
        except OSError:
            return False

    def loaded(self):
        with self.server.client() as direct:
            return direct.command("PING") == PONG

    def test_row_12_started_while_the_server_is_loading(self):
        server = self.start_server()
        server.run("DEBUG", "POPULATE", "2000")
        server.run("SAVE")
        server.kill()
        server.start(
            "--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024", wait=False
        )
        nearkey = self.start_nearkey(server.url, ready=False)
        nearkey.wait_unready()
        wait_for(
            lambda: "LOADING" in str(nearkey.get("/readyz")[1]).upper(), 3, "the reason is named"
        )
        self.assertFalse(
            os.path.exists(nearkey.path), "the socket is bound while the server is loading"
        )
        nearkey.wait_ready(10)
        with nearkey.client() as client:
            self.assertEqual(b":2000\r\n", client.command("DBSIZE"))

    def test_row_17_busy_is_passed_through_and_script_kill_reaches_the_server(self):
        self.start("--busy-reply-threshold", "200")
        runner, client, killer = self.client(), self.client(), self.client()
        for each in (client, killer):
            self.assertEqual(PONG, each.command("PING"))
        self.addCleanup(self.server.kill)
        runner.send(encode("EVAL", "while true do end", "0"))
        with self.server.client() as direct:
            oracle = wait_for(lambda: self.busy_reply(direct), 3, "the server is busy")
            self.assertEqual(oracle, client.command("GET", "k"))
            self.assertEqual(oracle, client.command("SET", "k", "v"))
            self.assertEqual(b"+OK\r\n", killer.command("SCRIPT", "KILL"))
        self.assertRegex(runner.read_reply(), b"^-ERR .*[Ss]cript.*killed")
        wait_for(lambda: client.command("GET", "k") == b"$-1\r\n", 2, "it is answered again")
        self.nearkey.wait_ready(2)

    def busy_reply(self, direct):
        reply = direct.command("GET", "k")
        return reply if reply.startswith(b"-BUSY") else None

    def test_row_21_the_servers_idle_timeout_does_not_cost_us_the_pool(self):
        self.start("--timeout", "1")
        client = self.client()
        self.assertEqual(PONG, client.command("PING"))
        ids = {row["id"] for row in self.server.clients()}
        for _ in range(
            2
        ):  # A connection that says nothing shows when the server has looked for idle ones.
            with self.server.client() as canary:
                self.assertEqual((b"", "eof"), canary.read_to_end())
        self.assertEqual(b"$-1\r\n", client.command("GET", "k"))
        self.assertLessEqual(ids, {row["id"] for row in self.server.clients()})
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_reconnects_total"))


@proxy_only
class PasswordRotatedTest(SystemTest):
    def test_row_19_a_password_that_the_server_no_longer_takes(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        client = nearkey.client()
        self.addCleanup(client.close)
        self.assertEqual(PONG, client.command("PING"))
        with server.client() as direct:
            direct.command("CONFIG", "SET", "requirepass", "new")
            direct.command("AUTH", "new")
            direct.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            nearkey.wait_unready(3)
            begin = int(self.statistic(direct, b"total_connections_received"))
            reply = client.command("GET", "k")
            self.assertEqual(b"-NOAUTH Authentication required.\r\n", reply)
            self.assertEqual(1, nearkey.metric("nearkey_upstream_down_total"))  # It was never sent.
            time.sleep(1)  # Backoff shows only over time.
            dialled = int(self.statistic(direct, b"total_connections_received")) - begin
            self.assertLess(dialled, 25, "a storm of attempts to log in")
            self.assertEqual(503, nearkey.get("/readyz")[0])
            direct.command("CONFIG", "SET", "requirepass", "")
        nearkey.wait_ready(3)
        self.assertEqual(b"$-1\r\n", client.command("GET", "k"))

    def test_leases_that_the_server_refuses(self):
        for refusal in ("maxclients", "requirepass"):
            for command in (("BLPOP", "none", "0.1"), ("WATCH", "k"), ("XREAD", "BLOCK", "10", "STREAMS", "s", "$"),
                            ("SUBSCRIBE", "c")):
                with self.subTest(f"{refusal} {command}"):
                    folder = os.path.join(self.directory, f"{refusal}-{command[0]}")
                    os.mkdir(folder)
                    server = self.start_server(directory=folder)
                    nearkey = self.start_nearkey(server.url, directory=folder)
                    with server.client() as direct, nearkey.client() as other:
                        self.assertEqual(PONG, other.command("PING"))
                        direct.command("CONFIG", "SET", refusal, "1")
                        for _ in range(3):
                            # The client of a WATCH is closed behind its reply.
                            with nearkey.client() as client:
                                reply = client.command(*command)
                            self.assertTrue(reply.startswith((b"-ERR max", b"-NOAUTH", b"-UPSTREAM")), reply)
                        self.assertEqual(PONG, other.command("PING"))
                        direct.command("AUTH", "1")
                        direct.command("CONFIG", "SET", refusal, "1000" if refusal == "maxclients" else "")

    def statistic(self, direct, name):
        return direct.value("INFO", "stats").split(name + b":")[1].split(b"\r\n")[0]


@proxy_only
class AbsentServerTest(SystemTest):
    def test_an_upstream_that_is_absent_at_start(self):
        server = self.start_server()
        server.kill()
        nearkey = self.start_nearkey(server.url, ready=False)
        nearkey.wait_unready()
        self.assertEqual(200, nearkey.get("/livez")[0])
        before = nearkey.get("/readyz")[1]
        self.assertLessEqual({"state", "reason", "since"}, set(before))
        self.assertTrue(before["reason"])
        time.sleep(1.5)  # Many tries, all failing.
        self.assertFalse(
            os.path.exists(nearkey.path), "the socket is bound before the server was ever there"
        )
        self.assertLessEqual(
            len([line for line in nearkey.logs() if line["level"] != "debug"]),
            6,
            "logged per try instead of once per change",
        )
        events = [(line["event"], line["level"]) for line in nearkey.logs()]
        self.assertEqual(len(set(events)), len(events), events)
        lines = len(events)
        server.start()
        nearkey.wait_ready(1.6)
        after = nearkey.get("/readyz")[1]
        self.assertNotEqual(before["state"], after["state"])
        self.assertNotEqual(before["since"], after["since"])
        self.assertGreater(
            len(nearkey.logs()), lines, "becoming ready is a change of state that nobody logged"
        )
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))

    def test_a_server_that_goes_and_comes_is_logged_once_for_each(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        nearkey.wait_logged("listening")  # The last line of a start.
        lines = len(nearkey.logs())
        server.kill()
        nearkey.wait_unready(3)
        time.sleep(1.2)  # Several tries.
        self.assertLessEqual(len(nearkey.logs()) - lines, 4, nearkey.lines[lines:])
        self.assertGreaterEqual(len(nearkey.logs()) - lines, 1)
        server.start()
        nearkey.wait_ready(2)

    def test_a_server_that_accepts_and_never_answers_is_not_ready(self):
        fake = FakeValkey(f"{self.directory}/fake.sock")
        self.addCleanup(fake.close)
        fake.answers = {
            "hello": None,
            "ping": None,
            "command": None,
            "client": None,
            "select": None,
        }
        nearkey = self.start_nearkey(
            fake.url, ready=False, settings={"upstream.connect_timeout_ms": 300}
        )
        wait_for(lambda: fake.connections >= 3, 5, "it gives up and tries again")
        self.assertEqual(503, nearkey.ready_status())
        self.assertFalse(os.path.exists(nearkey.path))

    def test_rows_1_and_3_nothing_is_sent_before_the_handshake_is_answered(self):
        """Lock-step: a server that is asked the next thing before it has answered would swallow a
        failing AUTH (P3)."""
        fake = FakeValkey(f"{self.directory}/fake.sock")
        self.addCleanup(fake.close)
        gate = threading.Event()
        order = []

        def slow_pong(args):
            order.append("ping")
            gate.wait(5)
            return PONG if len(args) == 1 else b"$%d\r\n%s\r\n" % (len(args[1]), args[1])

        def get(args):
            order.append("get")
            return b"$-1\r\n"

        gate.set()
        fake.answers = {"ping": slow_pong, "get": get}
        nearkey = self.start_nearkey(fake.url, settings={"upstream.connections": 1})
        gate.clear()
        client = nearkey.client()
        self.addCleanup(client.close)
        client.send(encode("SELECT", "7") + encode("GET", "k"))  # Needs a connection of its own.
        time.sleep(0.2)  # That nothing is sent shows only over time.
        self.assertNotIn("get", order)
        gate.set()
        self.assertEqual([b"+OK\r\n", b"$-1\r\n"], client.read_replies(2))
        self.assertIn("get", order)


@proxy_only
class QueueTest(SystemTest):
    def start(self, **settings):
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(
            self.server.url,
            settings={f"upstream.{name}": value for name, value in settings.items()},
        )
        self.first, self.second = self.nearkey.client(), self.nearkey.client()
        for client in (self.first, self.second):
            self.addCleanup(client.close)
            self.assertEqual(PONG, client.command("PING"))
        self.server.kill()
        self.nearkey.wait_unready(3)

    def test_commands_wait_for_the_server_and_are_then_executed(self):
        self.start(queue_timeout_ms=20000)
        self.first.send(encode("SET", "k", "v") + encode("INCR", "n"))
        self.assertTrue(self.first.is_silent(0.3))
        self.server.start()
        self.assertEqual([b"+OK\r\n", b":1\r\n"], self.first.read_replies(2))
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_down_total"))

    def test_commands_fail_after_the_queue_timeout_and_were_never_sent(self):
        self.start(queue_timeout_ms=300)
        begin = time.monotonic()
        replies = self.first.pipeline([("INCR", "n")] * 20)
        took = time.monotonic() - begin
        self.assertTrue(0.25 < took < 1 * SLOWNESS, took)
        for reply in replies:
            self.assertTrue(reply.startswith(b"-UPSTREAMDOWN "), reply)
        self.assertGreaterEqual(self.nearkey.metric("nearkey_upstream_down_total"), 20)
        self.server.start()
        wait_for(lambda: self.first.command("PING") == PONG, 3, "it is answered again")
        self.assertIsNone(self.server.run("GET", "n"))

    def test_the_queue_is_bounded_in_commands(self):
        self.start(queue_timeout_ms=5000, queue_commands_max=10)
        self.first.send(encode("SET", "k", "v") * 10)
        self.assertTrue(self.first.is_silent(0.1))
        begin = time.monotonic()
        reply = self.second.command("SET", "k", "v")
        self.assertTrue(reply.startswith(b"-UPSTREAMDOWN"), reply)
        self.assertLess(time.monotonic() - begin, 1.0, "a full queue answers at once")
        self.assertEqual(1, self.nearkey.metric("nearkey_queue_full_total"))
        self.server.start()
        self.assertEqual([b"+OK\r\n"] * 10, self.first.read_replies(10))

    def test_the_queue_is_bounded_in_bytes(self):
        self.start(queue_timeout_ms=5000, queue_bytes_max=100_000)
        self.first.send(encode("SET", "k", "v" * 90_000))
        self.assertTrue(self.first.is_silent(0.1))
        begin = time.monotonic()
        reply = self.second.command("SET", "k", "v" * 20_000)
        self.assertTrue(reply.startswith(b"-UPSTREAMDOWN"), reply)
        self.assertLess(time.monotonic() - begin, 1.0, "a full queue answers at once")
        self.assertGreaterEqual(self.nearkey.metric("nearkey_queue_full_total"), 1)
        self.server.start()
        self.assertEqual(b"+OK\r\n", self.first.read_reply())


if __name__ == "__main__":
    unittest.main()
