"""Where the password for Valkey may stand, and where it must never be seen: faults.md row 19 and
the canaries of issue 5 (a planted password, key and value never appear in logs, metrics, pages, ps
or a core)."""

import glob
import http.client
import os
import signal
import subprocess
import unittest

from harness import SystemTest, ValkeyServer, proxy_only, run_nearkey, wait_for
from processes import BINARY, AdminConnection, program_environment
from resp import RespClient
from test_reload import PONG, ReloadTest

PASSWORD = "canary-password-3f9a"
KEY = "canary-key-77b1"
VALUE = "canary-value-c02e"


@proxy_only
class PlacesTest(SystemTest):
    """The places of a password, and mistakes with them."""

    def start_locked(self):
        server = ValkeyServer(self.directory, tcp=True, args=["--requirepass", PASSWORD])
        self.addCleanup(server.stop)
        server.password = PASSWORD
        return server.start()

    def file(self, content, name="password", mode=0o600):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def check_serves(self, server, **options):
        nearkey = self.start_nearkey(f"valkey://127.0.0.1:{server.port}", **options)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        nearkey.stop()
        self.assertNotIn(PASSWORD, "\n".join(nearkey.lines))
        return nearkey

    def test_a_file_a_credential_and_the_environment(self):
        server = self.start_locked()
        path = self.file(PASSWORD + "\n")
        nearkey = self.check_serves(server, settings={"upstream.password_file": path})
        self.assertNotIn("password_exposed", "\n".join(nearkey.lines))
        self.check_serves(
            server,
            settings={"upstream.password_credential": "password", "upstream.username": "default"},
            environment={"CREDENTIALS_DIRECTORY": self.directory},
        )
        self.check_serves(server, environment={"NEARKEY_UPSTREAM_PASSWORD": PASSWORD})

    def test_who_else_can_read_a_secret_is_said(self):
        config = self.file(f'[upstream]\nurl = "valkey://:{PASSWORD}@10.0.0.1"\n', "n.toml", 0o644)
        done = run_nearkey(self.directory, "check", "--config", config)
        self.assertEqual(0, done.returncode)
        self.assertIn(f"warning: {config} holds the password of upstream.url", done.stderr)
        os.chmod(config, 0o640)
        self.assertEqual("", run_nearkey(self.directory, "check", "--config", config).stderr)
        path = self.file(PASSWORD, mode=0o644)
        config = self.file(f'[upstream]\nurl = "valkey://h"\npassword_file = "{path}"\n', "n.toml")
        done = run_nearkey(self.directory, "check", "--config", config)
        self.assertIn(f"warning: {path} (upstream.password_file) can be read by", done.stderr)
        done = run_nearkey(self.directory, "check", "--upstream", f"valkey://:{PASSWORD}@h")
        self.assertIn("warning: the command line holds the password", done.stderr)


@proxy_only
class CanaryTest(ReloadTest):
    def everything_said(self, nearkey):
        """All pages, the log, the arguments and the environment of the process."""
        said = ["\n".join(nearkey.lines)]
        for path in (
            "/livez", "/readyz", "/metrics", "/stats", "/config", "/clients", "/connections",
            "/hotkeys", "/slowlog", "/status", "/history", "/",
        ):  # fmt: skip
            connection = AdminConnection(nearkey.admin_path, 10)
            try:
                connection.request("GET", path)
                said.append(connection.getresponse().read().decode(errors="replace"))
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
        for name in ("cmdline", "environ"):
            with open(f"/proc/{nearkey.pid}/{name}", "rb") as file:
                said.append(file.read().decode(errors="replace"))
        return "\n".join(said)

    def assert_silent(self, said, *canaries):
        for canary in canaries:
            at = said.find(canary)
            self.assertEqual(-1, at, f"{canary} in ...{said[max(at - 200, 0) : at + 60]}...")

    def use(self, nearkey):
        """Keys and values in all kinds of traffic, errors among them."""
        with nearkey.client() as client:
            for protocol in ("2", "3"):
                client.command("HELLO", protocol)
                client.command("SET", KEY, VALUE)
                for _ in range(3):
                    client.command("GET", KEY)
                client.command("LPUSH", KEY, VALUE)
                client.command("EVAL", f"return redis.error_reply('ERR {VALUE}')", "1", KEY)
                client.command("NOSUCHCOMMAND", KEY, VALUE)
                client.command("AUTH", VALUE)
        for garbage in (f"*2\r\n$-7{KEY}\r\n{VALUE}", f"POST /{KEY} HTTP/1.1\r\nHost: {VALUE}\r\n"):
            with nearkey.client() as client:
                client.send(garbage.encode())
                client.read_to_end()
        with nearkey.client() as client:
            client.send(f"*3\r\n$3\r\nSET\r\n$15\r\n{KEY}".encode())

    def test_a_password_a_key_and_a_value_are_seen_nowhere(self):
        server = self.locked_server()
        for level in ("debug", "error"):
            for environment, text in (
                ({}, self.settings(f"valkey://:{PASSWORD}@127.0.0.1:{server.port}")),
                (
                    {"NEARKEY_UPSTREAM_PASSWORD": PASSWORD},
                    self.settings(f"valkey://127.0.0.1:{server.port}"),
                ),
            ):
                with self.subTest(level, environment=environment):
                    more = f'[log]\nlevel = "{level}"\n[slowlog]\nthreshold_ms = 0\n'
                    nearkey = self.start(text + more, environment=environment)
                    self.use(nearkey)
                    self.provoke(nearkey, server, text + more)
                    self.assert_silent(self.everything_said(nearkey), PASSWORD, KEY, VALUE)
                    nearkey.stop()
                    self.assert_silent("\n".join(nearkey.lines), PASSWORD, KEY, VALUE)

    def locked_server(self):
        server = ValkeyServer(self.directory, tcp=True, args=["--requirepass", PASSWORD])
        self.addCleanup(server.stop)
        server.password = PASSWORD
        return server.start()

    def provoke(self, nearkey, server, good):
        """Reloads that are refused, and a password that is refused while running."""
        seen = nearkey.metric("nearkey_config_reloads_total")
        broken = [
            f'[upstream]\nurl = "valkey://:{PASSWORD}@127.0.0.1:0"\n',
            f'[upstream]\nurl = "http://:{PASSWORD}@127.0.0.1"\n',
            f'[upstream]\nurl = valkey://:{PASSWORD}@h\n',
            f'[upstream]\npassword = "{PASSWORD}"\n',
            good.replace("[upstream]", '[upstream]\npassword_file = "/none"'),
            good.replace(f":{server.port}", ":1"),
        ]
        for text in broken:
            self.write(text)
            nearkey.signal(signal.SIGHUP)
            seen += 1
            wait_for(
                lambda: nearkey.metric("nearkey_config_reloads_total") == seen, 10, "it was read"
            )
        wait_for(
            lambda: nearkey.metric("nearkey_config_reload_success") == 0, 10, "it was refused"
        )
        self.write(good)
        server.run("CONFIG", "SET", "requirepass", "other")
        server.password = "other"
        server.run("CLIENT", "KILL", "TYPE", "normal")
        wait_for(lambda: nearkey.metric("nearkey_auth_failures_total") > 0, 10, "refused")
        self.assert_silent(self.everything_said(nearkey), PASSWORD, KEY, VALUE)
        server.run("CONFIG", "SET", "requirepass", PASSWORD)
        server.password = PASSWORD
        nearkey.wait_ready()

    def test_the_command_line_is_covered_up(self):
        server = self.locked_server()
        nearkey = self.start_nearkey(f"valkey://default:{PASSWORD}@127.0.0.1:{server.port}")
        self.assert_silent(self.everything_said(nearkey), PASSWORD)
        with open(f"/proc/{nearkey.pid}/cmdline", "rb") as file:
            self.assertIn(b"valkey://default:***", file.read())
        nearkey.wait_logged("password_exposed")

    def crash(self, *settings):
        """What a nearkey that aborts leaves in its folder."""
        server = self.locked_server()
        folder = os.path.join(self.directory, "crash")
        os.mkdir(folder)
        args = [BINARY, "serve", "--upstream", f"valkey://:{PASSWORD}@127.0.0.1:{server.port}"]
        path = os.path.join(folder, "nearkey.sock")
        args += ["--listen", path]
        for setting in settings:
            args += ["--set", setting]
        program = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "bash", "-c", 'ulimit -Sc unlimited; exec "$@"', "-"]
            + args,
            cwd=folder,
            env=program_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        wait_for(lambda: os.path.exists(path), 10, "it serves")
        with RespClient(path) as client:
            client.command("SET", KEY, VALUE)
            client.command("GET", KEY)
            with open(f"/proc/{program.pid}/limits") as limits:
                self.core_limit = next(line for line in limits if line.startswith("Max core"))
            program.send_signal(signal.SIGABRT)
            self.assertEqual(-signal.SIGABRT, program.wait(20))
        return glob.glob(os.path.join(folder, "core*"))

    def test_a_crash_leaves_no_core(self):
        self.assertEqual([], self.crash())
        self.assertEqual(["0"], self.core_limit.split()[4:5])

    def test_a_crash_leaves_a_core_if_it_is_asked_for(self):
        with open("/proc/sys/kernel/core_pattern") as file:
            if file.read().startswith(("|", "/")):
                self.skipTest("cores do not go into the working folder here")
        cores = self.crash("server.core_dumps=true")
        self.assertEqual(1, len(cores), "the test that there is none could not fail")
        with open(cores[0], "rb") as core:
            self.assertIn(PASSWORD.encode(), core.read())


if __name__ == "__main__":
    unittest.main()
