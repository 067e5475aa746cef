"""TLS to Valkey: certificates that end, that are replaced while nearkey runs, and peers that are not
who they should be. faults.md rows 23, 24 and 65."""

import contextlib
import glob
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import unittest

from harness import SLOW, Nearkey, ValkeyServer, free_port, proxy_only, wait_for
from test_reload import ReloadTest
from test_upstream_access import make_certificates

PASSWORD = "canary-password-51ce"
FAKETIME = shutil.which("faketime")


class TlsReloadTest(ReloadTest):
    def setUp(self):
        super().setUp()
        make_certificates(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start_tls_server(self):
        self.port = free_port()
        server = ValkeyServer(
            self.directory,
            args=[
                *("--tls-port", str(self.port), "--tls-auth-clients", "no"),
                *("--tls-cert-file", self.path("server.crt")),
                *("--tls-key-file", self.path("server.key")),
                *("--tls-ca-cert-file", self.path("ca.crt")),
            ],
        )
        self.addCleanup(server.stop)
        try:
            return server.start()
        except AssertionError:
            self.skipTest("this valkey-server was built without TLS")

    def tls_settings(self, ca="ca.crt", *more):
        return self.settings(
            f"valkeys://127.0.0.1:{self.port}", f'tls_ca_file = "{self.path(ca)}"', *more
        )

    def sign(self, name, days, prefix=()):
        """Signs server.csr anew, as NAME.crt."""
        subprocess.run(
            [
                *prefix,
                *("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.crt"),
                *("-CAkey", "ca.key", "-CAcreateserial", "-days", str(days)),
                *("-extfile", "server.ext", "-out", f"{name}.crt"),
            ],
            cwd=self.directory,
            check=True,
            capture_output=True,
            timeout=30,
        )
        done = subprocess.run(
            ["openssl", "x509", "-in", f"{name}.crt", "-noout", "-enddate", "-dateopt", "iso_8601"],
            cwd=self.directory,
            check=True,
            capture_output=True,
            timeout=30,
            text=True,
        )
        return done.stdout.strip().split("=")[1].replace(" ", "T")  # 2026-11-26T10:00:00Z


@proxy_only
class CertificateTest(TlsReloadTest):
    @unittest.skipIf(FAKETIME is None, "faketime is not installed")
    def test_row_23_an_expired_certificate_is_named_and_connections_that_live_go_on(self):
        server = self.start_tls_server()
        ended = self.sign("expired", 1, (FAKETIME, "-f", "-3d"))
        self.start(self.tls_settings())
        client = self.client()
        self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))
        server.run("CONFIG", "SET", "tls-cert-file", self.path("expired.crt"))
        self.assertEqual(b"+OK\r\n", client.command("SET", "k", "still"))
        other = self.client()
        other.send(b"SELECT 5\r\n")  # Needs a connection of its own, which is refused.
        self.assertTrue(other.read_reply().startswith(b"-UPSTREAM"))
        self.assertEqual(b"+OK\r\n", client.command("SET", "k", "still"))
        server.run("CLIENT", "KILL", "TYPE", "normal")
        self.nearkey.wait_unready()
        wait_for(
            lambda: f"(notAfter {ended})" in self.nearkey.get("/readyz")[1]["reason"],
            5,
            "the reason says when it ended",
        )
        self.nearkey.wait_logged(f"certificate has expired (notAfter {ended})")
        server.run("CONFIG", "SET", "tls-cert-file", self.path("server.crt"))
        self.nearkey.wait_ready()

    def test_row_24_when_the_certificate_ends_is_a_metric(self):
        server = self.start_tls_server()
        self.sign("server", 1)
        server.run("CONFIG", "SET", "tls-cert-file", self.path("server.crt"))
        self.start(self.tls_settings())
        left = (
            self.nearkey.metric("nearkey_tls_server_certificate_expires_seconds") - time.time()
        )
        self.assertTrue(23 * 3600 < left <= 24 * 3600, left)

    def test_an_authority_that_is_replaced_under_its_name_is_taken_under_load(self):
        server = self.start_tls_server()
        self.copy("ca.crt")
        self.start(self.tls_settings("authority.crt"))
        client = self.client()
        self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))
        self.assertEqual("", self.hang_up()["changes"])
        connects = self.nearkey.metric("nearkey_upstream_connects_total")
        with self.load() as wrong:
            # One that did not sign Valkey's certificate: refused, and the former serves on.
            self.copy("other.crt")
            self.nearkey.wait_logged("certificates_refused", timeout=20)
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))
            # Both: proven, and new connections are made by it.
            self.copy("ca.crt", "other.crt")
            self.nearkey.wait_logged("certificates_renewed", timeout=20)
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "w"))
        self.assertEqual([], wrong)
        self.assertGreater(self.nearkey.metric("nearkey_upstream_connects_total"), connects)
        self.assertEqual(b"w", server.run("GET", "k"))
        self.assertEqual("", self.hang_up()["changes"])

    def test_certificates_that_are_refused_are_tried_again_and_are_no_refused_reload(self):
        server = self.start_tls_server()
        self.copy("ca.crt")
        self.start(self.tls_settings("authority.crt"))
        direct = server.client()
        self.addCleanup(direct.close)
        direct.command("CONFIG", "SET", "maxclients", "1")
        self.copy("ca.crt", "other.crt")
        self.nearkey.wait_logged("certificates_refused", timeout=20)
        direct.command("CONFIG", "SET", "maxclients", "1000")
        self.nearkey.wait_logged("certificates_renewed", timeout=20)
        self.assertEqual(1, self.count("certificates_refused"))
        self.assertEqual(1, self.nearkey.metric("nearkey_config_reload_success"))
        self.assertEqual(0, self.count("reload_refused"))
        kinds = [event["kind"] for event in self.nearkey.get("/history")[1]["events"]]
        self.assertEqual(["certificates_refused", "certificates_renewed"], kinds[-2:])

    def test_a_file_that_is_gone_for_a_moment_or_half_of_a_pair_is_nothing(self):
        self.start_tls_server()
        self.copy("ca.crt")
        pair = [f'tls_cert_file = "{self.path("own.crt")}"', f'tls_key_file = "{self.path("own.key")}"']
        for kind in ("crt", "key"):
            shutil.copy(self.path(f"client.{kind}"), self.path(f"own.{kind}"))
        self.start(self.tls_settings("authority.crt", *pair))
        self.copy()
        os.rename(self.path("authority.crt"), self.path("away"))
        time.sleep(1)
        os.rename(self.path("away"), self.path("authority.crt"))
        self.copy("ca.crt")
        shutil.copy(self.path("server.crt"), self.path("own.crt"))
        time.sleep(1)
        shutil.copy(self.path("server.key"), self.path("own.key"))
        self.nearkey.wait_logged("certificates_renewed", timeout=20)
        self.assertEqual(0, self.count("certificates_refused"))

    @contextlib.contextmanager
    def load(self):
        """Requests all the while; yields what was answered wrong."""
        stop, wrong = threading.Event(), []

        def run():
            with self.nearkey.client() as client:
                count = 0
                while not stop.is_set() and not wrong:
                    count += 1
                    reply = client.command("INCR", "count")
                    if reply != b":%d\r\n" % count:
                        wrong.append(reply)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield wrong
        finally:
            stop.set()
            thread.join(30)

    def test_a_replaced_authority_is_read_again_when_a_certificate_is_refused(self):
        self.start_tls_server()
        self.copy("other.crt")
        self.start(self.tls_settings("authority.crt"), ready=False)
        self.nearkey.wait_logged("certificate")
        self.copy("ca.crt")
        self.nearkey.wait_ready()
        self.nearkey.wait_logged("credentials_read_again")
        self.assertEqual(b"+PONG\r\n", self.client().command("PING"))

    def test_without_the_password_nothing_starts_while_an_authority_is_gone(self):
        self.start_tls_server()
        self.copy("ca.crt")
        told = self.path("told")
        wait = f"until [ -e {told} ]; do sleep 0.05; done; echo {PASSWORD}"
        self.start(self.tls_settings("authority.crt", f'password_command = ["sh", "-c", "{wait}"]'),
                   ready=False)
        self.nearkey.wait_logged("admin_listening")
        os.remove(self.path("authority.crt"))
        open(told, "w").close()
        self.nearkey.wait_logged("credentials_unreadable")
        self.assertIn("has told no password", self.nearkey.get("/readyz")[1]["reason"])
        self.copy("ca.crt")
        self.nearkey.wait_ready()
        self.assertEqual(b"+PONG\r\n", self.client().command("PING"))

    def copy(self, *names):
        with open(self.path("authority.new"), "w") as target:
            for name in names:
                with open(self.path(name)) as source:
                    target.write(source.read())
        os.rename(self.path("authority.new"), self.path("authority.crt"))


class Impostor:
    """Listens where Valkey should be, with a certificate of another authority (or none), and keeps
    every byte that it is told: as they come, and deciphered."""

    def __init__(self, directory, *, tls):
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(
                os.path.join(directory, "other.crt"), os.path.join(directory, "other.key")
            )
            self.context.sni_callback = lambda _, name, __: self.names.append(name)
        self.names = []  # By which it was asked for.
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.told = b""
        self.attempts = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.attempts += 1
            with client:
                client.settimeout(1)
                try:
                    if self.context is not None:
                        client = self.context.wrap_socket(client, server_side=True)
                    self.told += client.recv(65536)
                except OSError:
                    pass


@proxy_only
class ImpostorTest(TlsReloadTest):
    def check(self, tls, *settings):
        impostor = Impostor(self.directory, tls=tls)
        self.addCleanup(impostor.listener.close)
        nearkey = self.start(
            self.settings(
                f"valkeys://app:{PASSWORD}@127.0.0.1:{impostor.port}",
                f'tls_ca_file = "{self.path("ca.crt")}"',
                "connect_timeout_ms = 500",
                *settings,
            ),
            ready=False,
        )
        wait_for(lambda: impostor.attempts >= 3, 10, "it was dialled")
        nearkey.wait_unready()
        return impostor

    def test_no_secret_and_no_command_is_sent_to_who_shows_a_wrong_certificate(self):
        self.assertEqual(b"", self.check(tls=True).told)

    def test_the_name_that_is_expected_is_asked_for(self):
        impostor = self.check(True, 'tls_server_name = "valkey.test"')
        self.assertEqual({"valkey.test"}, set(impostor.names))

    def test_who_speaks_no_tls_is_told_nothing_but_the_beginning_of_tls(self):
        told = self.check(tls=False).told
        self.assertEqual(b"\x16\x03", told[:2])
        for word in (b"HELLO\r\n", b"AUTH", PASSWORD.encode(), b"PING"):
            self.assertNotIn(word, told)


@proxy_only
@unittest.skipIf(SLOW, "a sanitizer's runtime and libfaketime do not go together")
class ClockTest(ReloadTest):
    def test_row_65_with_a_wall_clock_that_is_wrong_by_an_hour_all_times_are_kept(self):
        server = self.start_server()
        # Not by the program faketime, which would stand between us and nearkey's pid.
        library = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        if not library:
            self.skipTest("libfaketime is not installed")
        nearkey = Nearkey(
            self.directory,
            server.url,
            environment={
                "LD_PRELOAD": library[0],
                "FAKETIME": "+1h",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )
        self.addCleanup(nearkey.kill)
        nearkey.start()
        self.addCleanup(nearkey.stop)
        with nearkey.client() as client:
            # A key that expires is not served longer for it, and not forgotten earlier.
            client.command("SET", "k", "v", "PX", "1500")
            end = time.monotonic() + 1.5
            hits = nearkey.metric("nearkey_near_cache_hits_total")
            wait_for(
                lambda: client.value("GET", "k") == b"v"
                and nearkey.metric("nearkey_near_cache_hits_total") > hits,
                1,
                "it is served from the near cache",
            )
            wait_for(lambda: client.value("GET", "k") is None, 5, "it expires")
            self.assertGreater(time.monotonic(), end - 0.05)
            # A timeout comes when it is due.
            nearkey_time = json.loads(nearkey.lines[0])["time"]
            shown = time.mktime(time.strptime(nearkey_time[:19], "%Y-%m-%dT%H:%M:%S"))
            self.assertAlmostEqual(3600, shown - time.mktime(time.gmtime()), delta=120)
            server.freeze()
            self.addCleanup(server.thaw)
            begin = time.monotonic()
            self.assertTrue(client.command("SET", "k", "v").startswith(b"-UPSTREAMTIMEOUT"))
            self.assertGreater(time.monotonic() - begin, 4.5)
            server.thaw()
        nearkey.wait_ready()


if __name__ == "__main__":
    unittest.main()
