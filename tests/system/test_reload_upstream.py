"""A reload that names another upstream, another password or other certificates: nothing in flight
is lost, and nothing that the former one said is served afterwards."""

import os
import re
import threading
import time
import unittest

from harness import SLOWNESS, proxy_only, wait_for
from load import IncrementLoad
from resp import Closed, encode
from test_reload import PONG, ReloadTest


PATIENCE = f"queue_timeout_ms = {1000 * SLOWNESS}"


class Readers:
    """Clients that read one key for ever, half of them with RESP3; each reply is kept with the time
    at which it was asked for."""

    def __init__(self, connect, key, count=6):
        self.replies = []
        self.errors = []
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self.run, args=(connect, key, 2 + i % 2), daemon=True)
            for i in range(count)
        ]

    def run(self, connect, key, protocol):
        try:
            with connect() as client:
                client.command("HELLO", str(protocol))
                while not self.stopping.is_set():
                    asked = time.monotonic()
                    self.replies.append((asked, client.command("GET", key)))
        except (OSError, Closed) as error:
            self.errors.append(repr(error))

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(10)


@proxy_only
class AnotherServerTest(ReloadTest):
    def two_servers(self, **options):
        first = self.start_server(name="first", **options)
        second = self.start_server(name="second", **options)
        first.run("SET", "where", "first")
        second.run("SET", "where", "second")
        return first, second

    def former_left(self):
        wait_for(
            lambda: self.nearkey.metric("nearkey_upstream_connections_retired") == 0,
            10,
            "no connection to the former upstream is left",
        )

    def test_under_load_nothing_is_lost_and_no_value_of_the_former_is_served(self):
        first, second = self.two_servers(tcp=True)
        self.start(self.settings(first.url, PATIENCE))
        load = IncrementLoad(self.nearkey.client, workers=4).start()
        self.addCleanup(load.stop)
        readers = Readers(self.nearkey.client, "where").start()
        self.addCleanup(readers.stop)
        wait_for(
            lambda: load.total("acknowledged") > 500
            and self.nearkey.metric("nearkey_near_cache_hits_total") > 500,
            10,
            "the load runs, and reads are answered from the near cache",
        )
        self.write(self.settings(second.url, PATIENCE))
        outcome = self.hang_up()
        switched = time.monotonic()
        self.assertEqual("reloaded", outcome["event"], outcome)
        self.assertIn(f":{first.port}", outcome["changes"])
        self.assertIn(f":{second.port}", outcome["changes"])
        hits = self.nearkey.metric("nearkey_near_cache_hits_total")
        wait_for(
            lambda: load.acknowledged_since(switched) == 4
            and self.nearkey.metric("nearkey_near_cache_hits_total") > hits + 500,
            10,
            "the load goes on, from the near cache again",
        )
        load.stop()
        readers.stop()
        self.assertEqual([], readers.errors)
        late = {reply for asked, reply in readers.replies if asked > switched}
        self.assertEqual({b"$6\r\nsecond\r\n"}, late)
        for counters in self.check_nothing_lost(load, readers, (first, second)):
            self.assertGreater(min(counters), 0)
        self.former_left()
        self.assertEqual([], [row for row in first.clients() if row["name"] == "nearkey"])
        self.assertEqual(0, self.nearkey.metric("nearkey_upstream_lost_total"))

    def check_nothing_lost(self, load, readers, servers):
        """What each worker's counter is on each server: every increment was executed once, by the
        one or by the other, and the readers saw both."""
        self.assertEqual(
            {b"$5\r\nfirst\r\n", b"$6\r\nsecond\r\n"}, {reply for _, reply in readers.replies}
        )
        self.assertEqual(0, load.connections_lost)
        self.assertEqual(0, load.total("refused") + load.total("unknown"))
        every = []
        for worker in load.workers:
            counters = [int(server.run("GET", worker.key) or 0) for server in servers]
            self.assertEqual(worker.acknowledged, sum(counters))
            every.append(counters)
        return every

    def test_twenty_switches_to_and_fro_under_load(self):
        first, second = self.two_servers()
        self.start(self.settings(first.url, PATIENCE))
        load = IncrementLoad(self.nearkey.client, workers=4).start()
        self.addCleanup(load.stop)
        readers = Readers(self.nearkey.client, "where").start()
        self.addCleanup(readers.stop)
        for round_number in range(20):
            seen = load.total("acknowledged")
            wait_for(lambda: load.total("acknowledged") > seen + 50, 10, "the load goes on")
            server, name = ((second, b"second"), (first, b"first"))[round_number % 2]
            self.write(self.settings(server.url, PATIENCE))
            self.assertEqual("reloaded", self.hang_up()["event"])
            with self.nearkey.client() as client:
                self.assertEqual(name, client.value("GET", "where"))
        load.stop()
        readers.stop()
        self.assertEqual([], readers.errors)
        self.check_nothing_lost(load, readers, (first, second))

    def test_one_that_does_not_answer_is_refused_and_the_former_serves_on(self):
        first, second = self.two_servers(tcp=True)
        self.start(self.settings(first.url, "connect_timeout_ms = 300"))
        client = self.client()
        second.freeze()
        self.addCleanup(second.thaw)
        self.write(self.settings(second.url, "connect_timeout_ms = 300", "connections = 2"))
        outcome = self.hang_up()
        self.assertEqual("reload_refused", outcome["event"])
        self.assertIn("the new upstream does not serve", outcome["reason"])
        self.assertEqual(b"first", client.value("GET", "where"))
        self.assertEqual(200, self.nearkey.ready_status())
        second.thaw()
        outcome = self.hang_up()
        self.assertEqual("reloaded", outcome["event"])
        self.assertIn("upstream.connections: 1 -> 2", outcome["changes"])
        self.assertEqual(b"second", client.value("GET", "where"))

    def test_while_the_former_is_away_the_new_one_is_taken_at_once_with_what_waits(self):
        first, second = self.two_servers()
        settings = ("queue_timeout_ms = 20000", "queue_commands_max = 1000")
        self.start(self.settings(first.url, *settings))
        client = self.client()
        self.assertEqual(b"first", client.value("GET", "where"))
        first.kill()
        self.nearkey.wait_unready()
        client.send(encode("SET", "queued", "1"))
        wait_for(lambda: self.nearkey.metric("nearkey_queued") > 0, 5, "it waits")
        self.write(self.settings(second.url, *settings))
        self.assertEqual("reloaded", self.hang_up()["event"])
        self.assertEqual(b"+OK\r\n", client.read_reply())
        self.assertEqual(b"1", second.run("GET", "queued"))
        self.nearkey.wait_ready(5)

    def test_what_can_not_move_stays_until_its_end_or_the_bound(self):
        first, second = self.two_servers()
        self.start(self.settings(first.url, "drain_timeout_ms = 1500"))
        transaction, subscriber, waiting = self.client(), self.client(), self.client()
        self.assertEqual(b"+OK\r\n", transaction.command("WATCH", "where"))
        self.assertEqual(b"+OK\r\n", transaction.command("MULTI"))
        subscriber.command("SUBSCRIBE", "channel")
        waiting.send(encode("BLPOP", "list", "0"))
        wait_for(
            lambda: self.nearkey.metric("nearkey_upstream_dedicated_leased") == 3, 5, "all leased"
        )
        self.write(self.settings(second.url, "drain_timeout_ms = 1500"))
        self.assertEqual("reloaded", self.hang_up()["event"])
        # Within the bound the transaction ends where it began.
        transaction.command("GET", "where")
        self.assertEqual(b"*1\r\n$5\r\nfirst\r\n", transaction.command("EXEC"))
        self.assertEqual(b"second", transaction.value("GET", "where"))
        # After it who waits there is told by the end of the connection: nothing more would come.
        self.assertEqual(b"", subscriber.socket.recv(100))
        self.assertEqual(b"", waiting.socket.recv(100))
        self.former_left()

    def test_a_database_of_the_url_is_where_new_clients_begin(self):
        server = self.start_server()
        self.start(self.settings(server.url))
        old = self.client()
        old.command("SET", "k", "0")
        self.write(self.settings(f"{server.url}?db=3"))
        self.assertEqual("reloaded", self.hang_up()["event"])
        new = self.client()
        new.command("SET", "k", "3")
        self.assertEqual(b"0", old.value("GET", "k"))
        with server.client() as direct:
            direct.command("SELECT", "3")
            self.assertEqual(b"3", direct.value("GET", "k"))


@proxy_only
class PasswordRotationTest(ReloadTest):
    def password_file(self, password):
        path = os.path.join(self.directory, "password")
        with open(path + ".new", "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(password + "\n")
        os.replace(path + ".new", path)
        return path

    def start_locked(self, password):
        server = self.start_server("--requirepass", "admin-only")
        server.password = "admin-only"
        server.run("ACL", "SETUSER", "app", "on", f">{password}", "~*", "&*", "+@all")
        return server

    def test_a_password_is_rotated_under_load_without_an_error(self):
        server = self.start_locked("old-password")
        path = self.password_file("old-password")
        credentials = ('username = "app"', f'password_file = "{path}"')
        self.start(self.settings(server.url, *credentials))
        load = IncrementLoad(self.nearkey.client, workers=4).start()
        self.addCleanup(load.stop)
        wait_for(lambda: load.total("acknowledged") > 500, 10, "the load runs")
        server.run("ACL", "SETUSER", "app", ">new-password")
        self.password_file("new-password")
        self.assertEqual("reloaded", self.hang_up()["event"])
        server.run("ACL", "SETUSER", "app", "<old-password")
        seen = load.total("acknowledged")
        wait_for(lambda: load.total("acknowledged") > seen + 500, 10, "the load goes on")
        load.stop()
        self.assertEqual(0, load.connections_lost)
        self.assertEqual(0, load.total("refused") + load.total("unknown"))
        with server.client() as direct:
            load.check(self, direct)
        self.assertEqual(0, self.nearkey.metric("nearkey_auth_failures_total"))

    def start_with_an_old_password(self):
        """(server, client): nearkey is connected, and its file still has the former password."""
        server = self.start_locked("old-password")
        path = self.password_file("old-password")
        self.start(
            self.settings(server.url, 'username = "app"', f'password_file = "{path}"')
        )
        client = self.client()
        self.assertEqual(PONG, client.command("PING"))
        server.run("ACL", "SETUSER", "app", "resetpass", ">new-password")
        return server, client

    def test_row_19_a_rotated_file_heals_by_itself_without_a_storm(self):
        server, client = self.start_with_an_old_password()
        server.run("CLIENT", "KILL", "TYPE", "normal")
        self.nearkey.wait_unready()
        wait_for(
            lambda: "WRONGPASS" in self.nearkey.get("/readyz")[1]["reason"], 5, "it says why"
        )
        before = self.nearkey.metric("nearkey_auth_failures_total")
        time.sleep(2)  # Backoff shows only over time.
        tries = self.nearkey.metric("nearkey_auth_failures_total") - before
        self.assertTrue(1 <= tries <= 20 * SLOWNESS, f"{tries} attempts in 2 s")
        self.password_file("new-password")
        self.nearkey.wait_ready(10)
        self.assertEqual(PONG, client.command("PING"))
        self.assertEqual(1, self.count("credentials_read_again"))

    def test_the_first_to_be_refused_is_one_that_nobody_has_taken(self):
        _, client = self.start_with_an_old_password()
        self.password_file("new-password")
        # A dedicated connection is made for a value of this size while it comes.
        command = encode("SET", "large", b"x" * (3 << 20))
        client.send(command[: 3 << 19])
        wait_for(lambda: self.count("credentials_read_again"), 5, "it is refused")
        client.send(command[3 << 19 :])
        self.assertEqual(b"+OK\r\n", client.read_reply())
        self.assertEqual(1, self.nearkey.metric("nearkey_auth_failures_total"))
        self.assertEqual(b"*-1\r\n", client.command("BLPOP", "none", "0.01"))

    def test_a_wrong_password_is_refused_at_the_first_attempt(self):
        server = self.start_locked("right-password")
        path = self.password_file("right-password")
        text = self.settings(server.url, 'username = "app"', f'password_file = "{path}"')
        self.start(text)
        self.password_file("wrong-password")
        outcome = self.hang_up()
        self.assertEqual("reload_refused", outcome["event"])
        self.assertIn("WRONGPASS", outcome["reason"])
        # One attempt, which was the reload's: what serves was not refused.
        failed = re.search(r"cmdstat_hello:.*failed_calls=(\d+)", server.run("INFO", "commandstats").decode())
        self.assertEqual("1", failed[1])
        self.assertEqual(0, self.nearkey.metric("nearkey_auth_failures_total"))
        self.assertEqual(PONG, self.client().command("PING"))


if __name__ == "__main__":
    unittest.main()
