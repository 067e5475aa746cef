"""Reading the configuration again while serving: SIGHUP. faults.md row 58, and the switch to
another upstream under load."""

import os
import signal
import threading
import unittest

from harness import Nearkey, SystemTest, proxy_only, wait_for
from load import IncrementLoad
from resp import Closed, RespClient

PONG = b"+PONG\r\n"


class ReloadTest(SystemTest):
    """nearkey with a file that the test writes, and SIGHUP."""

    def write(self, text):
        # As an editor or a deployment does: never half a file.
        with open(self.config + ".new", "w") as file:
            file.write(text)
        os.replace(self.config + ".new", self.config)

    def start(self, text, *, ready=True, **options):
        self.config = os.path.join(self.directory, "nearkey.toml")
        self.write(text)
        nearkey = Nearkey(
            self.directory, None, args=["--config", self.config], listen=[], **options
        )
        self.addCleanup(nearkey.kill)
        nearkey.start(ready=ready)
        self.addCleanup(nearkey.stop)
        self.nearkey = nearkey
        return nearkey

    def settings(self, url, *more):
        return "\n".join(
            [
                "[upstream]",
                f'url = "{url}"',
                *[line for line in more if not line.startswith("[") and "\n" not in line],
                "[server]",
                f'listen = ["{os.path.join(self.directory, "nearkey.sock")}"]',
                *[line for line in more if "\n" in line],
                "",
            ]
        )

    def count(self, event):
        return sum(entry["event"] == event for entry in self.nearkey.logs())

    def hang_up(self):
        """SIGHUP, and what came of it: the log line."""
        before = self.count("reloaded") + self.count("reload_refused")
        self.nearkey.signal(signal.SIGHUP)
        wait_for(
            lambda: self.count("reloaded") + self.count("reload_refused") > before,
            10,
            "the reload has ended",
        )
        return [e for e in self.nearkey.logs() if e["event"] in ("reloaded", "reload_refused")][-1]

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client


@proxy_only
class SighupTest(ReloadTest):
    def test_row_58_twenty_reloads_under_load_drop_nothing(self):
        server = self.start_server()
        self.start(self.settings(server.url))
        old_friend = self.client()
        self.assertEqual(b"+OK\r\n", old_friend.command("SET", "k", "v"))
        failed_connects = []
        stopping = threading.Event()

        def connect_anew():
            while not stopping.is_set():
                try:
                    with self.nearkey.client() as client:
                        if client.command("PING") != PONG:
                            failed_connects.append("no PONG")
                except (OSError, Closed) as error:
                    failed_connects.append(repr(error))

        newcomer = threading.Thread(target=connect_anew, daemon=True)
        newcomer.start()
        load = IncrementLoad(self.nearkey.client, workers=4).start()
        self.addCleanup(load.stop)
        wait_for(lambda: load.total("acknowledged") > 500, 10, "the load runs")
        for round_number in range(20):
            self.write(
                self.settings(server.url, f"request_timeout_ms = {4000 + round_number}")
            )
            seen = load.total("acknowledged")
            outcome = self.hang_up()
            self.assertEqual("reloaded", outcome["event"], outcome)
            wait_for(lambda: load.total("acknowledged") > seen, 10, "the load goes on")
        load.stop()
        stopping.set()
        newcomer.join(10)
        self.assertEqual([], failed_connects)
        self.assertEqual(0, load.connections_lost)
        self.assertEqual(0, load.total("refused") + load.total("unknown"))
        with server.client() as direct:
            load.check(self, direct)
        self.assertEqual(b"$1\r\nv\r\n", old_friend.command("GET", "k"))
        self.assertEqual(20, self.nearkey.metric("nearkey_config_reloads_total"))
        self.assertEqual(1, self.nearkey.metric("nearkey_config_reload_success"))

    def test_row_58_a_broken_file_keeps_the_old_configuration(self):
        server = self.start_server()
        self.start(self.settings(server.url, "queue_timeout_ms = 123"))
        client = self.client()
        self.write(self.settings(server.url, "queue_timeout_ms = 0", "connections = 0"))
        outcome = self.hang_up()
        self.assertEqual("reload_refused", outcome["event"])
        self.assertIn(f"{self.config}:4: upstream.connections = 0", outcome["reason"])
        self.assertEqual(PONG, client.command("PING"))
        self.assertEqual(0, self.nearkey.metric("nearkey_config_reload_success"))
        self.assertEqual(0, self.nearkey.metric("nearkey_config_reload_success_timestamp_seconds"))
        self.write(self.settings(server.url, "queue_timeout_ms = 0"))
        outcome = self.hang_up()
        self.assertEqual("upstream.queue_timeout_ms: 123 -> 0", outcome["changes"])
        self.assertEqual(1, self.nearkey.metric("nearkey_config_reload_success"))
        self.assertLess(
            1_700_000_000, self.nearkey.metric("nearkey_config_reload_success_timestamp_seconds")
        )
        # It is in force: while Valkey is away, a command fails at once.
        server.kill()
        self.nearkey.wait_unready()
        self.assertTrue(client.command("SET", "k", "v").startswith(b"-UPSTREAMDOWN"))

    def test_what_needs_a_restart_refuses_all_of_it_and_names_the_key(self):
        server = self.start_server()
        self.start(self.settings(server.url))
        self.write(
            self.settings(
                server.url, "connections = 2", "[near_cache]\nenabled = false\n[log]\nlevel='debug'"
            )
        )
        outcome = self.hang_up()
        self.assertEqual("reload_refused", outcome["event"])
        self.assertIn("restart: near_cache.enabled: true -> false", outcome["reason"])
        self.write(self.settings(server.url))
        self.assertEqual("", self.hang_up()["changes"], "nothing of it was applied")

    def test_listeners_come_and_go_and_their_clients_stay(self):
        server = self.start_server()
        second = os.path.join(self.directory, "second.sock")
        listener = f'[[listener]]\naddress = "{second}"\nnear_cache = true'
        self.start(self.settings(server.url))
        self.write(self.settings(server.url, listener))
        self.assertEqual(f"listener {second}: added", self.hang_up()["changes"])
        with RespClient(second) as early:
            self.assertEqual(PONG, early.command("PING"))
            self.write(self.settings(server.url, listener.replace("true", "false")))
            self.assertEqual(
                f"listener {second} near_cache: true -> false", self.hang_up()["changes"]
            )
            with RespClient(second) as late:
                for _ in range(3):
                    late.command("GET", "uncached")
                self.assertEqual(0, self.nearkey.metric("nearkey_near_cache_hits_total"))
            self.write(self.settings(server.url))
            self.assertEqual(f"listener {second}: removed", self.hang_up()["changes"])
            with self.assertRaises(OSError):
                RespClient(second)
            self.assertFalse(os.path.exists(second))
            self.assertEqual(PONG, early.command("PING"), "a client of a closed listener stays")

    def test_a_listener_that_cannot_be_opened_refuses_all_of_it(self):
        server = self.start_server()
        self.start(self.settings(server.url))
        taken = f'[[listener]]\naddress = "{server.path}"'
        self.write(self.settings(f"unix://{server.path}?db=3", taken, "connections = 2"))
        outcome = self.hang_up()
        self.assertEqual("reload_refused", outcome["event"])
        other = self.start_server(name="other")
        self.write(
            self.settings(server.url, f'[[listener]]\naddress = "{other.path}"', "connections = 2")
        )
        outcome = self.hang_up()
        self.assertEqual("reload_refused", outcome["event"])
        self.assertIn(other.path, outcome["reason"])
        self.write(self.settings(server.url))
        self.assertEqual("", self.hang_up()["changes"])

    def test_the_mode_of_a_socket_and_the_log_level_change(self):
        server = self.start_server()
        self.start(self.settings(server.url))
        socket = os.path.join(self.directory, "nearkey.sock")
        for option, path in (("listen_mode", socket), ("admin_mode", self.nearkey.admin_path)):
            self.assertEqual(0o660, os.stat(path).st_mode & 0o777)
            self.write(
                self.settings(server.url).replace("[server]", f'[server]\n{option} = "0600"')
                + '[log]\nlevel = "error"\n'
            )
            self.nearkey.signal(signal.SIGHUP)
            wait_for(lambda path=path: os.stat(path).st_mode & 0o777 == 0o600, 5, option)
        # "reloaded" itself is below the new level.
        self.write(self.settings(server.url))
        self.assertIn('log.level: "error" -> "info"', self.hang_up()["changes"])


if __name__ == "__main__":
    unittest.main()
