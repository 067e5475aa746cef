"""How nearkey gets in: passwords in the URL, TLS, TCP and Unix sockets, the default database."""

import os
import ssl
import subprocess
import unittest

from harness import SystemTest, ValkeyServer, free_port, proxy_only, run_nearkey, wait_for
from resp import RespClient

PONG = b"+PONG\r\n"
PASSWORD = "pa:ss@w/rd?&#%"
QUOTED = "pa%3Ass%40w%2Frd%3F%26%23%25"


def openssl(directory, *args):
    subprocess.run(["openssl", *args], cwd=directory, check=True, timeout=30, capture_output=True)


def make_certificates(directory):
    """ca.crt signs server.crt (for 127.0.0.1 and valkey.test) and client.crt; other.crt is a CA
    that signed nothing."""
    for name in ("ca", "other"):
        openssl(
            directory,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.crt",
        )
    for name in ("server", "client"):
        openssl(
            directory,
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        with open(os.path.join(directory, f"{name}.ext"), "w") as extensions:
            extensions.write("subjectAltName=IP:127.0.0.1,DNS:valkey.test\n")
        openssl(
            directory,
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            f"{name}.ext",
            "-out",
            f"{name}.crt",
        )


@proxy_only
class PasswordTest(SystemTest):
    def start_locked(self, *extra):
        server = ValkeyServer(self.directory, tcp=True, args=["--requirepass", PASSWORD, *extra])
        self.addCleanup(server.stop)
        server.password = PASSWORD
        return server.start()

    def check(self, url):
        nearkey = self.start_nearkey(url)
        with nearkey.client() as client:
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))
            self.assertEqual([b"$1\r\nv\r\n"], client.pipeline([("HELLO", "3"), ("GET", "k")])[1:])
        self.assertNotIn(PASSWORD, "\n".join(nearkey.lines))
        self.assertNotIn(QUOTED, "\n".join(nearkey.lines))
        self.assertNotIn(PASSWORD, str(nearkey.get("/readyz")))
        return nearkey

    def test_a_password_in_the_url(self):
        server = self.start_locked()
        self.check(f"valkey://:{QUOTED}@127.0.0.1:{server.port}")

    def test_a_user_and_a_password_in_the_url(self):
        server = self.start_locked()
        with server.client() as direct:
            self.assertEqual(
                b"+OK\r\n", direct.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
            )
        nearkey = self.check(f"redis://app:secret@localhost:{server.port}")
        self.assertEqual({"app"}, {row["user"] for row in server.clients()})
        self.assertNotIn("secret", "\n".join(nearkey.lines))

    def test_row_19_a_wrong_password_is_not_ready_and_says_why(self):
        server = self.start_locked()
        nearkey = self.start_nearkey(f"valkey://:wrong-canary@127.0.0.1:{server.port}", ready=False)
        nearkey.wait_unready()
        wait_for(
            lambda: "WRONGPASS" in nearkey.get("/readyz")[1]["reason"], 3, "the reason is named"
        )
        self.assertFalse(os.path.exists(nearkey.path))
        self.assertNotIn("wrong-canary", "\n".join(nearkey.lines) + str(nearkey.get("/readyz")))
        with server.client() as direct:
            direct.command("CONFIG", "SET", "requirepass", "wrong-canary")
        nearkey.wait_ready(3)

    def test_row_19_no_password_for_a_server_that_wants_one(self):
        server = self.start_locked()
        nearkey = self.start_nearkey(f"valkey://127.0.0.1:{server.port}", ready=False)
        nearkey.wait_unready()
        wait_for(lambda: "NOAUTH" in nearkey.get("/readyz")[1]["reason"], 3, "the reason is named")

    def test_check_finds_a_tls_file_that_can_not_be_used(self):
        for absent in ("/nowhere/ca.crt", self.directory):
            done = run_nearkey(
                self.directory, "check", "--upstream", "valkeys://127.0.0.1", "--set",
                f"upstream.tls_ca_file={absent}",
            )  # fmt: skip
            self.assertEqual(2, done.returncode, done.stdout)
            self.assertIn(absent, done.stderr)
            self.assertEqual(1, done.stderr.count("\n"))

    def test_check_prints_no_password(self):
        done = run_nearkey(
            self.directory, "check", "--upstream", f"valkey://app:{QUOTED}@127.0.0.1:6379/3"
        )
        self.assertEqual(0, done.returncode, done.stderr)
        for secret in (PASSWORD, QUOTED):
            self.assertNotIn(secret, done.stdout + done.stderr)
        self.assertIn("127.0.0.1", done.stdout)


@proxy_only
class UrlTest(SystemTest):
    def test_tcp_and_unix_upstreams_and_their_database(self):
        server = self.start_server(tcp=True)
        urls = [
            (f"valkey://127.0.0.1:{server.port}/3", "3"),
            (f"redis://localhost:{server.port}", "0"),
            (f"unix://{server.path}?db=4", "4"),
            (f"unix://{server.path}", "0"),
        ]
        for url, database in urls:
            with self.subTest(url):
                directory = os.path.join(self.directory, f"near{urls.index((url, database))}")
                os.mkdir(directory)
                nearkey = self.start_nearkey(url, directory=directory)
                with nearkey.client() as client, server.client() as direct:
                    self.assertEqual(b"+OK\r\n", client.command("SET", "where", database))
                    direct.command("SELECT", database)
                    self.assertEqual(database.encode(), direct.value("GET", "where"))
                    direct.command("FLUSHALL")
                nearkey.stop()

    def test_the_upstream_may_come_from_the_environment(self):
        server = self.start_server()
        nearkey = self.start_nearkey(None, environment={"CACHE_URL": server.url})
        with nearkey.client() as client:
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "from the environment"))
        self.assertEqual(b"from the environment", server.run("GET", "k"))


@proxy_only
class TlsTest(SystemTest):
    def setUp(self):
        super().setUp()
        make_certificates(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start_tls_server(self, *, clients="no"):
        self.port = free_port()
        server = ValkeyServer(
            self.directory,
            args=[
                "--tls-port",
                str(self.port),
                "--tls-cert-file",
                self.path("server.crt"),
                "--tls-key-file",
                self.path("server.key"),
                "--tls-ca-cert-file",
                self.path("ca.crt"),
                "--tls-auth-clients",
                clients,
            ],
        )
        self.addCleanup(server.stop)
        try:
            return server.start()
        except AssertionError:
            self.skipTest("this valkey-server was built without TLS")

    def tls(self, *, ready=True, scheme="valkeys", host="127.0.0.1", **settings):
        return self.start_nearkey(
            f"{scheme}://{host}:{self.port}",
            ready=ready,
            settings={f"upstream.{name}": value for name, value in settings.items()},
        )

    def check_works(self, nearkey, server):
        with nearkey.client() as client:
            for protocol in ("2", "3"):
                client.command("HELLO", protocol)
                value = os.urandom(3_000_000)  # More than one TLS record, more than one turn.
                self.assertEqual(b"+OK\r\n", client.command("SET", "k", value))
                self.assertEqual(value, client.value("GET", "k"))
                self.assertEqual([PONG] * 500, client.pipeline([("PING",)] * 500))
        self.assertEqual(value, server.run("GET", "k"))

    def test_tls_with_a_known_ca(self):
        server = self.start_tls_server()
        nearkey = self.tls(tls_ca_file=self.path("ca.crt"))
        self.check_works(nearkey, server)
        server.kill()
        nearkey.wait_unready(3)
        server.start()
        nearkey.wait_ready(3)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))

    def test_tls_with_a_client_certificate(self):
        server = self.start_tls_server(clients="yes")
        nearkey = self.tls(
            scheme="rediss",
            tls_ca_file=self.path("ca.crt"),
            tls_cert_file=self.path("client.crt"),
            tls_key_file=self.path("client.key"),
        )
        self.check_works(nearkey, server)
        shown = subprocess.check_output(
            ("openssl", "x509", "-noout", "-enddate", "-in", self.path("client.crt")), text=True
        )
        self.assertEqual(
            ssl.cert_time_to_seconds(shown.strip().removeprefix("notAfter=")),
            nearkey.metric("nearkey_tls_client_certificate_expires_seconds"),
        )

    def check_refused(self, nearkey):
        nearkey.wait_unready()
        wait_for(
            lambda: "verify failed" in nearkey.get("/readyz")[1]["reason"]
            or "certificate" in nearkey.get("/readyz")[1]["reason"].lower(),
            3,
            "the reason is named",
        )
        self.assertFalse(os.path.exists(nearkey.path))

    def test_tls_with_an_unknown_ca_is_refused(self):
        self.start_tls_server()
        self.check_refused(self.tls(ready=False, tls_ca_file=self.path("other.crt")))

    def test_tls_without_a_ca_trusts_the_system_and_not_everybody(self):
        self.start_tls_server()
        self.check_refused(self.tls(ready=False))

    def test_tls_for_another_name_is_refused(self):
        self.start_tls_server()
        self.check_refused(
            self.tls(ready=False, tls_ca_file=self.path("ca.crt"), tls_server_name="other.test")
        )

    def test_tls_server_name_says_who_is_expected(self):
        server = self.start_tls_server()
        self.check_works(
            self.tls(
                host="localhost", tls_ca_file=self.path("ca.crt"), tls_server_name="valkey.test"
            ),
            server,
        )

    def test_tls_a_host_name_that_is_not_in_the_certificate_is_refused(self):
        self.start_tls_server()
        self.check_refused(self.tls(ready=False, host="localhost", tls_ca_file=self.path("ca.crt")))

    def test_tls_to_a_server_that_speaks_plain_is_not_ready(self):
        server = self.start_server(tcp=True)
        self.port = server.port
        nearkey = self.tls(ready=False, tls_ca_file=self.path("ca.crt"))
        nearkey.wait_unready()
        self.assertFalse(os.path.exists(nearkey.path))
        with RespClient(server.address) as direct:
            self.assertEqual(PONG, direct.command("PING"))


if __name__ == "__main__":
    unittest.main()
