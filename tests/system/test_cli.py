"""The command line: `check`, `ready`, --version, --help, the order of precedence, and what is said
about mistakes."""

import http.client
import os
import tomllib
import unittest

from harness import ROOT, AdminConnection, SystemTest, proxy_only, run_nearkey


@proxy_only
class CheckTest(SystemTest):
    def write(self, text):
        path = os.path.join(self.directory, "nearkey.toml")
        with open(path, "w") as file:
            file.write(text)
        return path

    def check(self, *args, environment=None):
        return run_nearkey(self.directory, "check", *args, environment=environment)

    def effective(self, *args, environment=None):
        done = self.check(*args, environment=environment)
        self.assertEqual(0, done.returncode, done.stderr)
        return tomllib.loads(done.stdout)

    def test_it_prints_the_effective_configuration_as_toml(self):
        config = self.effective(
            "--upstream", "valkey://10.1.2.3:6380/2", "--set", "upstream.request_timeout_ms=1234"
        )
        self.assertEqual(1234, config["upstream"]["request_timeout_ms"])
        self.assertIn("10.1.2.3", str(config))
        self.assertLessEqual({"upstream", "server", "limits", "managed", "log"}, set(config))

    def test_what_it_prints_is_a_configuration_that_means_the_same(self):
        done = self.check(
            "--upstream", "valkey://127.0.0.1:6380/2", "--set", "limits.clients_max=77"
        )
        self.assertEqual(0, done.returncode, done.stderr)
        again = self.check("--config", self.write(done.stdout))
        self.assertEqual(0, again.returncode, again.stderr)
        self.assertEqual(done.stdout, again.stdout)

    def test_the_commented_configuration_equals_the_defaults(self):
        path = os.path.join(ROOT, "config", "nearkey.toml")
        self.assertEqual(self.effective(), self.effective("--config", path))
        with open(path, "rb") as file:
            written = tomllib.load(file)
        effective = self.effective()
        for table, options in effective.items():
            if isinstance(options, dict):
                self.assertEqual(
                    set(options), set(written[table]), f"[{table}] does not list every option"
                )

    def test_flags_then_environment_then_file_then_defaults(self):
        path = self.write("[upstream]\nrequest_timeout_ms = 1\nconnect_timeout_ms = 2\n")
        self.assertEqual(1, self.effective("--config", path)["upstream"]["request_timeout_ms"])
        self.assertEqual(
            1,
            self.effective(environment={"NEARKEY_CONFIG": path})["upstream"]["request_timeout_ms"],
        )
        config = self.effective("--config", path, "--set", "upstream.request_timeout_ms=3")
        self.assertEqual(
            (3, 2),
            (config["upstream"]["request_timeout_ms"], config["upstream"]["connect_timeout_ms"]),
        )
        environment = {"CACHE_URL": "valkey://environment.test:1"}
        self.assertIn("environment.test", str(self.effective(environment=environment)))
        text = str(self.effective("--upstream", "valkey://flag.test:1", environment=environment))
        self.assertIn("flag.test", text)
        self.assertNotIn("environment.test", text)
        other = self.write('[upstream]\nurl = "valkey://file.test:1"\n')
        self.assertIn(
            "environment.test", str(self.effective("--config", other, environment=environment))
        )

    def check_refused(self, *named, args=(), text=None):
        """Exit 2; the message names all of `named` and, for a file, its line."""
        path = self.write(text) if text is not None else None
        done = self.check(*args, *(["--config", path] if path else []))
        self.assertEqual(2, done.returncode, done.stdout + done.stderr)
        for name in named + ((path,) if path else ()):
            self.assertIn(name, done.stderr)
        return done.stderr

    def test_an_unknown_key_names_the_file_the_line_and_the_nearest_known_one(self):
        message = self.check_refused(
            "request_timeout_mss",
            "request_timeout_ms",
            text="# a comment\n\n[upstream]\nrequest_timeout_mss = 5\n",
        )
        self.assertIn(os.path.join(self.directory, "nearkey.toml") + ":4", message)
        self.assertRegex(message, r"request_timeout_ms\b(?!s)")

    def test_an_unknown_table(self):
        self.check_refused("upstreem", "upstream.", text="[upstreem]\nrequest_timeout_ms = 5\n")

    def test_values_of_the_wrong_type_or_out_of_range(self):
        self.check_refused(
            ":2", "request_timeout_ms", text='[upstream]\nrequest_timeout_ms = "soon"\n'
        )
        self.check_refused(":2", "request_timeout_ms", text="[upstream]\nrequest_timeout_ms = -1\n")
        self.check_refused(":3", "clients_max", text="[limits]\n# none at all\nclients_max = 0\n")

    def test_a_file_that_is_not_toml(self):
        self.check_refused(":2", text="[upstream]\nrequest_timeout_ms = = 5\n")

    def test_a_file_that_is_not_there(self):
        done = self.check("--config", f"{self.directory}/absent.toml")
        self.assertEqual(2, done.returncode)
        self.assertIn("absent.toml", done.stderr)

    def test_a_file_with_two_hundred_thousand_brackets(self):
        path = self.write("[upstream]\nx = " + "[" * 200_000)
        self.assertEqual(2, self.check("--config", path).returncode)

    def test_mistakes_on_the_command_line(self):
        self.check_refused("upstream.no_such", args=["--set", "upstream.no_such=1"])
        self.check_refused("request_timeout_ms", args=["--set", "upstream.request_timeout_ms=soon"])
        self.check_refused("--upstream", "valkey://", args=["--upstream", "gopher://x:1"])
        self.check_refused("--upstream", "port", args=["--upstream", "valkey://127.0.0.1:99999"])
        self.check_refused("--set", args=["--set", "no_equals"])
        done = run_nearkey(self.directory, "serve", "--set", "upstream.no_such=1")
        self.assertEqual(2, done.returncode)

    def test_secrets_are_redacted(self):
        path = self.write('[upstream]\nurl = "valkeys://user:hunter2-canary@127.0.0.1:6380/1"\n')
        done = self.check("--config", path)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertNotIn("hunter2-canary", done.stdout + done.stderr)
        self.assertIn("user", done.stdout)
        broken = self.check("--upstream", "valkey://user:hunter2-canary@127.0.0.1:notaport")
        self.assertEqual(2, broken.returncode)
        self.assertNotIn("hunter2-canary", broken.stdout + broken.stderr)

    def test_version_and_help(self):
        version = run_nearkey(self.directory, "--version")
        self.assertEqual(0, version.returncode)
        self.assertRegex(version.stdout, r"nearkey.*\d+\.\d+")
        for args in (["--help"], ["serve", "--help"], ["check", "--help"], ["ready", "--help"]):
            done = run_nearkey(self.directory, *args)
            self.assertEqual(0, done.returncode)
        self.assertIn("--upstream", run_nearkey(self.directory, "serve", "--help").stdout)
        self.assertNotEqual(0, run_nearkey(self.directory, "no-such-command").returncode)


@proxy_only
class ReadyTest(SystemTest):
    def ready(self, *args):
        done = run_nearkey(
            self.directory, "ready", "--admin", f"{self.directory}/admin.sock", *args
        )
        self.assertEqual(
            1, len((done.stdout + done.stderr).strip().splitlines()), "one line says why"
        )
        return done.returncode

    def test_0_ready_1_not_ready_2_nobody_answers(self):
        self.assertEqual(2, self.ready())
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        self.assertEqual(0, self.ready())
        server.kill()
        nearkey.wait_unready(3)
        self.assertEqual(1, self.ready())
        nearkey.freeze()
        self.addCleanup(nearkey.thaw)
        self.assertEqual(2, self.ready("--timeout-ms", "300"))
        nearkey.thaw()
        server.start()
        nearkey.wait_ready(3)
        self.assertEqual(0, self.ready())

    def test_the_admin_pages(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        for path in ("/readyz", "/livez"):
            status, body = nearkey.get(path)
            self.assertEqual(200, status)
            self.assertLessEqual({"state", "reason", "since"}, set(body))
        metrics = nearkey.metrics()
        self.assertEqual(1, metrics["nearkey_ready"])
        for name, value in metrics.items():
            self.assertRegex(name, r"^nearkey_[a-z_]+(\{[a-z]+=.*\})?$")
            self.assertIsInstance(value, (int, float), name)
        server.kill()
        nearkey.wait_unready(3)
        self.assertEqual(0, nearkey.metric("nearkey_ready"))
        self.assertEqual(200, nearkey.get("/livez")[0])
        self.assertIn(self.raw_status(nearkey, "/no-such-page"), (404,))

    def raw_status(self, nearkey, path):
        connection = AdminConnection(nearkey.admin_path, 5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except http.client.HTTPException:
            return 0
        finally:
            connection.close()


if __name__ == "__main__":
    unittest.main()
