"""Who may connect to a listener, and what each listener grants its clients."""

import os
import signal
import stat
import subprocess
import unittest

from harness import proxy_only, run_nearkey, wait_for
from listeners import ListenerTest, ask_as, needs_root
from processes import Nearkey

PONG = "+PONG\r\n"
REFUSED = (
    "-NOPERM this user may not connect to this socket of nearkey (allow_users, allow_groups)\r\n"
)


@proxy_only
class WhoMayConnectTest(ListenerTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    @needs_root
    def test_the_file_has_its_owner_group_and_mode(self):
        self.start_listeners(
            {
                "named": 'owner = "daemon"\ngroup = "daemon"\nmode = "0640"',
                "numbers": 'owner = "12345"\ngroup = "23456"\nmode = "0606"',
                "plain": "",
            }
        )
        found = {name: os.stat(self.path(name)) for name in ("named", "numbers", "plain")}
        self.assertEqual((1, 1), (found["named"].st_uid, found["named"].st_gid))
        self.assertEqual(0o640, stat.S_IMODE(found["named"].st_mode))
        self.assertEqual((12345, 23456), (found["numbers"].st_uid, found["numbers"].st_gid))
        self.assertEqual(0o606, stat.S_IMODE(found["numbers"].st_mode))
        self.assertEqual(
            (os.geteuid(), os.getegid()), (found["plain"].st_uid, found["plain"].st_gid)
        )
        self.assertEqual(0o660, stat.S_IMODE(found["plain"].st_mode))
        # The kernel looks at them: the group of the second may not, its owner may.
        self.assertEqual(PONG, ask_as(self.path("numbers"), 12345, 100))
        self.assertEqual("EACCES", ask_as(self.path("numbers"), 54321, 23456).strip())

    @needs_root
    def test_an_owner_that_cannot_be_given_is_one_clear_line(self):
        config = self.write_config({"a": 'owner = "root"'})
        os.chown(self.directory, 12345, 12345)
        nearkey = Nearkey(self.directory, self.server.url, listen=[], args=["--config", config])
        os.chmod(self.server.path, 0o777)
        nearkey.command = ["setpriv", "--reuid", "12345", "--clear-groups", *nearkey.command]
        self.addCleanup(nearkey.kill)
        nearkey.start(ready=False)
        self.assertEqual(1, nearkey.process.wait(20))
        nearkey._reader.join(5)
        [line] = [entry for entry in nearkey.logs() if entry["event"] == "listen_failed"]
        self.assertIn(f"cannot listen on {self.path('a')}: its owner can't be set to 0", line["reason"])
        self.assertFalse(os.path.exists(self.path("a")), "the file stays behind")

    def test_an_unknown_user_or_group_is_a_mistake_of_the_configuration(self):
        for option, word in (("owner", "user"), ("allow_groups", "group")):
            value = '"no-such-name"' if option == "owner" else '["no-such-name"]'
            config = self.write_config({"a": f"{option} = {value}"})
            for verb in ("check", "serve"):
                with self.subTest(option, verb=verb):
                    done = run_nearkey(self.directory, verb, "--config", config)
                    self.assertEqual(2, done.returncode, done.stderr)
                    self.assertEqual(1, done.stderr.count("\n"), done.stderr)
                    self.assertIn(f"the listener {self.path('a')}: {option}", done.stderr)
                    self.assertIn(f"no such {word}", done.stderr)

    def test_users_that_a_namespace_hides_are_warned_of(self):
        # As under PrivateUsers=yes of a unit: of users only root is there.
        if subprocess.run(["unshare", "--map-root-user", "true"], capture_output=True).returncode:
            self.skipTest("no user namespace can be made here")
        config = self.write_config(
            {"root": 'allow_users = ["0"]', "hidden": 'allow_users = ["0", "12345"]', "all": ""}
        )
        nearkey = Nearkey(self.directory, self.server.url, listen=[], args=["--config", config])
        nearkey.command = ["unshare", "--map-root-user", *nearkey.command]
        self.addCleanup(nearkey.kill)
        nearkey.start()
        nearkey.stop()
        said = [entry for entry in nearkey.logs() if entry["event"] == "accounts_hidden"]
        self.assertEqual([self.path("hidden")], [entry["address"] for entry in said])
        self.assertIn("PrivateUsers=no", said[0]["reason"])

    @needs_root
    def test_only_listed_users_and_groups_come_in(self):
        nearkey = self.start_listeners(
            {
                "users": 'mode = "0666"\nallow_users = ["daemon", "12345"]',
                "groups": 'mode = "0666"\nallow_groups = ["23456"]',
                "both": 'mode = "0666"\nallow_users = ["12345"]\nallow_groups = ["23456"]',
                "all": 'mode = "0666"',
            }
        )
        expected = {  # user, group, supplementary groups: where they come in
            (1, 1, ()): "users all",
            (12345, 1, ()): "users both all",
            (54321, 23456, ()): "groups both all",
            (54321, 1, (3, 23456)): "groups both all",
            (54321, 1, tuple(range(1000, 1200)) + (23456,)): "groups both all",
            (54321, 12345, (12345,)): "all",
            (0, 0, ()): "all",
        }
        refused = 0
        for (user, group, groups), names in expected.items():
            for name in ("users", "groups", "both", "all"):
                with self.subTest(name, user=user, group=group, groups=len(groups)):
                    may = name in names.split()
                    refused += not may
                    answer = ask_as(self.path(name), user, group, groups)
                    self.assertEqual(PONG if may else REFUSED, answer)
        self.assertEqual(refused, nearkey.metric("nearkey_clients_refused_peer_total"))

    @needs_root
    def test_a_refusal_is_logged_with_who_it_was_and_not_without_end(self):
        nearkey = self.start_listeners({"a": 'mode = "0666"\nallow_users = ["12345"]'})
        for _ in range(50):
            with self.connect("a") as client:  # We are root, and not listed.
                self.assertEqual((REFUSED.encode(), "eof"), client.read_to_end())
        nearkey.wait_logged("client_refused")
        lines = [entry for entry in nearkey.logs() if entry["event"] == "client_refused"]
        self.assertLess(len(lines), 50)
        self.assertEqual((0, 0, os.getpid()), tuple(lines[0][key] for key in ("uid", "gid", "pid")))
        self.assertEqual(self.path("a"), lines[0]["address"])
        self.assertIn("allow_users", lines[0]["reason"])
        self.assertEqual(50, nearkey.metric("nearkey_clients_refused_peer_total"))

    def test_tcp_cannot_have_lists(self):
        path = os.path.join(self.directory, "tcp.toml")
        with open(path, "w") as file:
            file.write('[[listener]]\naddress = "tcp:127.0.0.1:7000"\nallow_users = ["root"]\n')
        done = run_nearkey(self.directory, "check", "--config", path)
        self.assertEqual(2, done.returncode)
        self.assertIn("TCP does not tell who connects", done.stderr)


@proxy_only
class WhatListenersGrantTest(ListenerTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def test_each_listener_has_its_database(self):
        self.start_listeners({"zero": "", "three": "database = 3"})
        zero, three = self.connect("zero"), self.connect("three")
        self.assertEqual(b"+OK\r\n", three.command("SET", "k", "three"))
        self.assertEqual(b"$-1\r\n", zero.command("GET", "k"))
        self.assertEqual(b"three", self.server_value(3, "k"))
        self.assertEqual(b"+OK\r\n", three.command("SELECT", "0"))
        self.assertEqual(b"$-1\r\n", three.command("GET", "k"))
        # RESET leads to where the client began, not to where others do.
        self.assertEqual(b"+RESET\r\n", three.command("RESET"))
        self.assertEqual(b"$5\r\nthree\r\n", three.command("GET", "k"))

    def server_value(self, database, key):
        with self.server.client() as client:
            client.command("SELECT", database)
            return client.value("GET", key)

    def test_a_listener_without_a_database_has_that_of_the_upstream(self):
        config = self.write_config({"a": "", "zero": "database = 0"})
        self.start_nearkey(self.server.url + "?db=7", listen=[], args=["--config", config])
        self.connect("a").command("SET", "k", "v")
        self.assertEqual(b"v", self.server_value(7, "k"))
        self.assertEqual(b"$-1\r\n", self.connect("zero").command("GET", "k"))

    def test_one_that_comes_back_stays_while_the_former_has_clients(self):
        nearkey = self.start_listeners({"a": "", "b": ""})
        former = self.connect("b")
        self.assertEqual(b"+PONG\r\n", former.command("PING"))
        for listeners in ({"a": ""}, {"a": "", "b": ""}, {"a": "", "b": "clients_max = 7"}):
            self.write_config(listeners)
            before = nearkey.metric("nearkey_config_reloads_total")
            nearkey.signal(signal.SIGHUP)
            wait_for(lambda: nearkey.metric("nearkey_config_reloads_total") > before
                     and nearkey.get("/reload")[0] == 200, 10, "the reload is over")
        self.assertEqual(b"+PONG\r\n", self.connect("b").command("PING"))
        self.assertEqual(b"+PONG\r\n", former.command("PING"))

    def test_each_listener_has_its_own_clients_max(self):
        nearkey = self.start_listeners({"few": "clients_max = 2", "many": ""})
        few = [self.connect("few") for _ in range(2)]
        many = [self.connect("many") for _ in range(4)]
        for client in few + many:
            self.assertEqual(b"+PONG\r\n", client.command("PING"))
        with self.connect("few") as refused:
            self.assertEqual(
                (b"-ERR max number of clients reached\r\n", "eof"), refused.read_to_end()
            )
        self.assertEqual(b"+PONG\r\n", self.connect("many").command("PING"))
        few.pop().close()
        wait_for(lambda: nearkey.metric("nearkey_clients") == 6, 3, "one has left")
        self.assertEqual(b"+PONG\r\n", self.connect("few").command("PING"))

    def test_each_listener_has_its_own_limits_per_client(self):
        nearkey = self.start_listeners(
            {
                "small": 'input_per_client_max = "1KiB"\noutput_per_client_high_water = "1KiB"\n'
                'output_per_client_max = "64KiB"\nin_flight_per_client_max = 2',
                "large": "",
            }
        )
        value = b"x" * 100_000
        large, small = self.connect("large"), self.connect("small")
        self.assertEqual(b"+OK\r\n", large.command("SET", "k", value))
        self.assertEqual(value, large.value("GET", "k"))
        small.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n" + value[:50_000])
        # A reset, if the rest of the input came too late to be read.
        self.assertIn(small.read_to_end(), ((b"", "eof"), (b"", "reset")))
        self.assertEqual(1, nearkey.metric("nearkey_clients_closed_input_total"))
        with self.connect("small") as client:
            client.send(b"GET k\r\n")
            self.assertEqual("eof", client.read_to_end()[1])
        self.assertEqual(1, nearkey.metric("nearkey_clients_closed_output_total"))
        with self.connect("small") as client:
            self.assertEqual([b"+PONG\r\n"] * 50, client.pipeline([("PING",)] * 50))
        self.assertGreater(nearkey.metric("nearkey_clients_paused_in_flight_total"), 0)


if __name__ == "__main__":
    unittest.main()
