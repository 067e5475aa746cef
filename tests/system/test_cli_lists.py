"""What a person is shown of a running nearkey: `nearkey stats`, clients, connections, hotkeys and
slowlog, against a real daemon; and that no name of a client's reaches the terminal raw."""

import json
import os
import subprocess
import unittest

from harness import (
    BINARY,
    EVERY_COMMAND,
    Nearkey,
    SystemTest,
    free_port,
    proxy_only,
    run_nearkey,
    wait_for,
)
from processes import program_environment


@proxy_only
class ListsTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(
            self.server.url,
            settings={"slowlog.threshold_ms": "20", "limits.clients_max": "1234", **EVERY_COMMAND},
        )

    def ask(self, *arguments, environment=None):
        done = run_nearkey(
            self.directory,
            *[*arguments, "--admin", self.nearkey.admin_path],
            environment={"LC_ALL": "C.UTF-8", **(environment or {})},
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        text = done.stdout.replace("\n", "")
        self.assertEqual([], [character for character in text if not character.isprintable()])
        return done.stdout

    def json(self, *arguments):
        text = self.ask(*arguments, "--json")
        self.assertTrue(text.isascii())
        self.assertEqual(1, text.count("\n"))
        return json.loads(text)

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def test_stats_is_a_page_for_people_and_json_for_programs(self):
        client = self.client()
        client.command("SET", "k", "v")

        def is_hit():
            client.command("GET", "k")
            return self.json("stats")["nearkey_near_cache_hits_total"] > 0

        wait_for(is_hit, 5, "a hit")
        page = self.ask("stats")
        self.assertRegex(page, r"^nearkey \d+\.\d+\.\d+ at \S+admin\.sock, up [\d.]+ \w+\n")
        self.assertRegex(page, r"\nready for [\d.]+ \w+\n")
        self.assertRegex(page, r"\n  connected +1 of 1\.2k\n")
        self.assertRegex(page, r"\n  hit ratio +\d+\.\d % of \d+ reads\n")
        self.assertRegex(page, r"\n  hit +[\d.]+ [mu]?s +[\d.]+ [mu]?s +\d+\n")
        self.assertRegex(page, r"\n  in Valkey +[\d.]+ [mu]?s")
        for section in ("Clients", "Commands", "Near cache", "Valkey", "Latency since the start"):
            self.assertIn(f"\n{section}\n", page)
        self.assertEqual(self.nearkey.metrics().keys(), self.json("stats").keys())
        self.server.kill()
        self.nearkey.wait_unready()
        self.assertRegex(self.ask("stats"), r"\nnot ready for [\d.]+ \w+: .+\n")

    def test_clients_are_a_table_and_a_process_name_moves_no_cursor(self):
        self.assertEqual("0 clients\n", self.ask("clients"))
        client = self.client()
        client.command("CLIENT", "SETNAME", "shop-1")
        client.command("CLIENT", "SETINFO", "LIB-NAME", "handmade")
        client.command("CLIENT", "SETINFO", "LIB-VER", "1.2")
        client.command("GET", "k")
        text = self.ask("clients")
        self.assertRegex(
            text, rf"\n +1 +\S+\[{os.getpid()}\] .* shop-1 +handmade 1\.2 +0 +2 +shared +4 .*\n"
        )
        self.assertTrue(text.endswith("\n1 client\n"), text)
        page = self.json("clients")
        self.assertEqual((1, 1), (page["total"], len(page["clients"])))
        with open("/proc/self/comm") as comm:
            name = comm.read().strip()
        self.addCleanup(self.rename, name)
        self.rename("ö\x1b[2J\x9b31m\u202e")
        self.assertIn(f" ö?[2J?31m?[{os.getpid()}] ", self.ask("clients"))
        in_c = self.ask("clients", environment={"LC_ALL": "C"})
        self.assertIn(f" ???[2J??31m???[{os.getpid()}] ", in_c)

    def rename(self, name):
        with open("/proc/self/comm", "wb") as comm:
            comm.write(name.encode())

    def test_clients_up_to_the_limit_over_several_pages(self):
        crowd = [self.client() for _ in range(250)]
        crowd[-1].command("PING")
        wait_for(lambda: self.nearkey.metric("nearkey_clients") == 250, 10, "all are there")
        self.assertTrue(self.ask("clients").endswith("\n100 of 250 clients, more with --limit\n"))
        text = self.ask("clients", "--limit", "1000")
        self.assertTrue(text.endswith("\n250 clients\n"))
        sessions = [int(line.split()[0]) for line in text.splitlines()[1:-1]]
        self.assertEqual(list(range(1, 251)), sessions)
        page = self.json("clients", "--limit", "230")
        self.assertEqual((250, 230), (page["total"], len(page["clients"])))

    def test_connections(self):
        self.client().command("GET", "k")
        text = self.ask("connections")
        self.assertRegex(text, r"^KIND +STATE +RESP +DB +TO +CLIENT ID .*\n")
        self.assertRegex(text, r"\nshared +ready +2 +0 +Unix socket +\d+ .*\n")
        self.assertRegex(text, r"\n\d connections\n$")
        self.assertIn("connections", self.json("connections"))
        self.assertIn("1 of ", self.ask("connections", "--limit", "1"))

    def test_hot_keys_are_hashes(self):
        client = self.client()
        client.command("SET", "very-secret-key", "v")

        def hits():
            client.command("GET", "very-secret-key")
            return self.json("hotkeys")["hits"]

        wait_for(hits, 5, "a hot key")
        text = self.ask("hotkeys")
        self.assertNotIn("very-secret-key", text)
        self.assertRegex(text, r"^hits:\nKEY +RATE +COUNT +ERROR\n[0-9a-f]{16} +[\d.]+/s ")
        self.assertRegex(text, r"\n(no )?misses")

    def test_a_key_that_is_shown_by_name_moves_no_cursor(self):
        directory = os.path.join(self.directory, "named")
        os.mkdir(directory)
        named = self.start_nearkey(
            self.server.url, directory=directory, settings={"hotkeys.show_names": "true"}
        )
        self.nearkey = named
        client = self.client()
        client.command("GET", b"\x1b]0;owned\x07\x1b[2J\xc2\x9b\xff\r\nk")
        text = self.ask("hotkeys")
        self.assertRegex(
            text, r"\nmisses:\nKEY +NAME +RATE .*\n[0-9a-f]{16} +\?\]0;owned\?\?\[2J\?\S+k +"
        )
        self.assertIn("\\u001b]0;owned", self.ask("hotkeys", "--json"))

    def test_slow_requests(self):
        self.assertIn("0 requests\n", self.ask("slowlog"))
        client = self.client()
        self.assertTrue(client.command("DEBUG", "SLEEP", "0.1").startswith(b"+OK"))
        text = self.ask("slowlog")
        self.assertRegex(text, r"^TIME +SESSION +REQUEST +COMMAND ")
        self.assertRegex(text, r"\n20\S+Z +\d+ +\d+ +debug .* \d+\.\d ms +")
        self.assertIn("\nkept are those that took longer than 20.0 ms", text)
        self.assertEqual(1, len(self.json("slowlog")["entries"]))

    def test_nothing_answers(self):
        for verb in ("stats", "clients", "connections", "hotkeys", "slowlog"):
            done = run_nearkey(self.directory, verb, "--admin", f"{self.directory}/absent.sock")
            self.assertEqual((2, ""), (done.returncode, done.stdout))
            self.assertRegex(done.stderr, r"^nearkey: nobody answers at .*: No such file .*\n$")

    def test_output_that_can_not_be_written_is_a_failure(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [BINARY, "stats", "--admin", self.nearkey.admin_path],
                env=program_environment(self.directory),
                stdin=subprocess.DEVNULL,
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=20,
            )
        self.assertEqual((1, b"nearkey: the answer could not be written\n"),
                         (done.returncode, done.stderr))

    def test_over_tcp(self):
        directory = os.path.join(self.directory, "tcp")
        os.mkdir(directory)
        address = f"127.0.0.1:{free_port()}"
        other = Nearkey(directory, self.server.url)
        other.command[other.command.index(other.admin_path)] = address
        self.addCleanup(other.kill)
        other.start(ready=False)

        def run(verb):
            return run_nearkey(directory, verb, "--admin", address)

        wait_for(lambda: run("ready").returncode == 0, 10, "it is ready")
        for verb, words in (("stats", "ready for"), ("reload", "reloaded; nothing is different")):
            done = run(verb)
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            self.assertIn(words, done.stdout)
        other.stop()

    def test_where_to_ask_is_read_from_the_configuration(self):
        path = os.path.join(self.directory, "where.toml")
        with open(path, "w") as file:
            file.write(f'[server]\nadmin = "{self.nearkey.admin_path}"\n')
        # What an application has in its environment is not where nearkey's Valkey is.
        environment = {"CACHE_URL": f"unix://{self.nearkey.path}"}
        for arguments, more in ((["--config", path], {}), ([], {"NEARKEY_CONFIG": path})):
            done = run_nearkey(
                self.directory, "stats", *arguments, environment={**environment, **more}
            )
            self.assertEqual((0, ""), (done.returncode, done.stderr))


if __name__ == "__main__":
    unittest.main()
