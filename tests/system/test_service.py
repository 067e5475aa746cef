"""nearkey as a service of systemd: its sockets (sd_listen_fds), what it says (sd_notify), and that
it is still alive (the watchdog)."""

import os
import shutil
import signal
import socket
import subprocess
import time
import unittest

try:
    import redis
except ImportError:  # Debian: python3-redis
    redis = None

from harness import (
    BINARY,
    SLOWNESS,
    Nearkey,
    SystemTest,
    proxy_only,
    run_nearkey,
    valkey_program,
    wait_for,
)
from load import IncrementLoad
from resp import RespClient
from service import NotifySocket, Service, SocketUnit

PONG = b"+PONG\r\n"


class ServiceTest(SystemTest):
    def start_service(self, upstream, *, ready=True, **options):
        service = Service(self.directory, upstream, **options)
        self.addCleanup(service.kill)
        service.start(ready=ready)
        self.addCleanup(service.stop)
        return service

    def path(self, name):
        return os.path.join(self.directory, name)

    def unit(self, *names, **options):
        unit = SocketUnit(*[self.path(name) for name in names], **options)
        self.addCleanup(unit.close)
        return unit

    def notify(self):
        notify = NotifySocket(self.directory)
        self.addCleanup(notify.close)
        return notify


@proxy_only
class SocketActivationTest(ServiceTest):
    def test_row_60_systemd_socket_activate_with_a_real_client(self):
        """faults.md row 60: the first connection starts nearkey, and is served by it."""
        program = shutil.which("systemd-socket-activate")
        if program is None:
            self.skipTest("systemd-socket-activate is not installed")
        server = self.start_server()
        path = self.path("app.sock")
        activated = Nearkey(self.directory, server.url, listen=[])
        activated.command = [program, "-l", path, *activated.command]
        self.addCleanup(activated.kill)
        activated.start(ready=False)
        wait_for(lambda: os.path.exists(path), 5, "the socket is there")
        done = subprocess.run(
            [valkey_program("cli"), "-s", path, "INCR", "n"],
            capture_output=True,
            text=True,
            timeout=10 * SLOWNESS,
        )
        self.assertEqual(("1", 0), (done.stdout.strip(), done.returncode), done.stderr)
        activated.wait_ready()
        self.assertEqual(b"1", server.run("GET", "n"))
        with RespClient(path) as client:
            self.assertEqual(PONG, client.command("PING"))
        activated.signal(signal.SIGTERM)
        self.assertEqual(0, activated.process.wait(10 * SLOWNESS))
        self.assertTrue(os.path.exists(path), "the socket's file is not nearkey's to remove")
        self.assertFalse(os.path.exists(path + ".lock"))

    def test_row_60_no_connect_is_refused_while_the_service_restarts(self):
        """faults.md row 60: under load, connects wait in the backlog while nobody accepts."""
        server = self.start_server()
        unit = self.unit("nearkey.sock")
        refused = []

        def connect():
            try:
                return RespClient(self.path("nearkey.sock"))
            except OSError as error:
                refused.append(error)
                raise

        service = self.start_service(server.url, unit=unit)
        load = IncrementLoad(connect).start()
        self.addCleanup(load.stop)
        for _ in range(3):
            before = load.total("acknowledged")
            wait_for(lambda: load.total("acknowledged") > before + 500, 10, "the load runs")
            service.stop()
            self.assertTrue(os.path.exists(self.path("nearkey.sock")))
            service = self.start_service(server.url, unit=unit)
        before = load.total("acknowledged")
        wait_for(lambda: load.total("acknowledged") > before + 500, 10, "the load goes on")
        load.stop()
        self.assertEqual([], refused)
        self.assertGreater(load.connections_lost, 0, "no restart was felt: nothing was tested")
        self.assertEqual(0, load.total("unknown"), "a command was sent and not answered")
        with server.client() as direct:
            load.check(self, direct)

    @unittest.skipIf(redis is None, "python3-redis is not installed")
    def test_clients_wait_until_valkey_is_there(self):
        """An inherited socket is accepted on only once Valkey has answered."""
        server = self.start_server()
        server.stop()
        service = self.start_service(server.url, unit=self.unit("nearkey.sock"), ready=False)
        service.wait_unready()
        app = redis.Redis(unix_socket_path=service.path, socket_timeout=20 * SLOWNESS)
        self.addCleanup(app.close)
        connected = socket.socket(socket.AF_UNIX)
        self.addCleanup(connected.close)
        connected.connect(service.path)
        connected.sendall(b"PING\r\n")
        self.assertEqual(0, service.metric("nearkey_clients_accepted_total"))
        server.start()
        self.assertTrue(app.set("k", "v"))
        connected.settimeout(10 * SLOWNESS)
        self.assertEqual(PONG, connected.recv(100))

    def test_options_of_a_listener_hold_for_its_inherited_socket(self):
        server = self.start_server()
        config = self.path("nearkey.toml")
        with open(config, "w") as file:
            file.write(
                f'[[listener]]\naddress = "{self.path("plain.sock")}"\nnear_cache = false\n'
                f'[[listener]]\naddress = "{self.path("near.sock")}"\n'
            )
        unit = self.unit("near.sock", "plain.sock", "extra.sock")
        service = self.start_service(
            server.url, unit=unit, listen=[], args=["--config", config]
        )
        for name, expected in (("plain.sock", b"off for this client"), ("extra.sock", None)):
            with RespClient(self.path(name)) as client:
                reply = client.command("NEARKEY", "EXPLAIN", "GET", "k")
                self.assertEqual(expected is not None, b"off for this client" in reply, name)
        # Beside the first listener, as ever.
        self.assertEqual(200, service.ready_status())

    def test_the_admin_socket_by_its_name(self):
        server = self.start_server()
        unit = self.unit("nearkey.sock", "other.sock", names=["app", "admin"])
        service = Service(self.directory, server.url, unit=unit)
        at = service.command.index("--admin")
        del service.command[at : at + 2]
        service.admin_path = self.path("other.sock")
        self.addCleanup(service.kill)
        service.start()
        self.addCleanup(service.stop)
        with service.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        self.assertEqual(200, service.get("/livez")[0])
        service.stop()
        for name in ("nearkey.sock", "other.sock"):
            self.assertTrue(os.path.exists(self.path(name)))
        self.assertEqual([], [name for name in os.listdir(self.directory) if "lock" in name])

    def refusal(self, listening, *, fds="1"):
        """What nearkey says of what it is started with."""
        done = subprocess.run(
            ["bash", "-c", 'export LISTEN_PID=$$; exec "$@"', "bash", BINARY, "serve"]
            + ["--upstream", f"unix://{self.path('nobody.sock')}"]
            + ["--admin", self.path("admin.sock")],
            env={**os.environ, "LISTEN_FDS": fds, "LISTEN_FDNAMES": "app"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10 * SLOWNESS,
            preexec_fn=lambda: os.dup2(listening.fileno(), 3),
            pass_fds=[3],
        )
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertEqual(1, len(done.stderr.splitlines()), done.stderr)
        return done.stderr

    def test_descriptors_that_are_of_no_use_are_refused(self):
        everywhere = socket.socket()
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        for listening, words in (
            (everywhere, "127.0.0.1:PORT"),
            (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), "Accept=no"),
            (socket.socketpair()[0], "Accept=no"),
        ):
            with self.subTest(words), listening:
                error = self.refusal(listening)
                self.assertIn("descriptor 3 (app)", error)
                self.assertIn(words, error)
        with socket.socket() as unused:
            self.assertIn("LISTEN_FDS=x", self.refusal(unused, fds="x"))

    def test_variables_for_another_process_are_not_for_us(self):
        server = self.start_server()
        service = self.start_service(
            server.url, variables={"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        )
        with service.client() as client:
            self.assertEqual(PONG, client.command("PING"))


@proxy_only
class NotifyTest(ServiceTest):
    def test_states_in_words(self):
        """READY=1 waits for the first PONG; STATUS= follows the state; STOPPING=1 ends it."""
        server = self.start_server()
        server.stop()
        notify = self.notify()
        service = self.start_service(server.url, notify=notify, ready=False)
        service.wait_unready()
        wait_for(lambda: notify.statuses(), 5, "a status")
        self.assertEqual(0, notify.count("READY"))
        self.assertIn("connecting to Valkey", notify.statuses()[0])
        server.start()
        notify.wait("READY")
        service.wait_ready()
        self.assertEqual("ready", notify.statuses()[-1])
        server.stop()
        wait_for(lambda: notify.statuses()[-1].startswith("not ready: "), 10, "not ready, in words")
        server.start()
        wait_for(lambda: notify.statuses()[-1] == "ready", 10, "ready again")
        self.assertEqual(1, notify.count("READY"))
        self.assertEqual(0, notify.count("STOPPING"))
        service.stop()
        notify.wait("STOPPING")
        self.assertTrue(notify.statuses()[-1].startswith("draining"), notify.statuses())
        self.assertEqual({service.pid}, {message["pid"] for message in notify.messages})

    def test_row_62_the_watchdog_hears_from_a_loop_that_turns_only(self):
        """faults.md row 62: a process that is stopped sends no WATCHDOG=1."""
        server = self.start_server()
        notify = self.notify()
        service = self.start_service(
            server.url, notify=notify, variables={"WATCHDOG_USEC": "200000"}
        )
        for _ in range(2):
            notify.wait("WATCHDOG", more_than=notify.count("WATCHDOG") + 3)
            service.freeze()
            # What was sent before it stopped may still be on its way.
            time.sleep(0.3)
            before = notify.count("WATCHDOG")
            time.sleep(1)  # That nothing comes shows only over time.
            self.assertEqual(before, notify.count("WATCHDOG"))
            service.thaw()

    def test_the_watchdog_of_another_process_is_not_ours(self):
        server = self.start_server()
        notify = self.notify()
        self.start_service(
            server.url,
            notify=notify,
            variables={"WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())},
        )
        notify.wait("READY")
        time.sleep(0.5)  # That nothing comes shows only over time.
        self.assertEqual(0, notify.count("WATCHDOG"))

    def test_nobody_listens_to_us(self):
        server = self.start_server()
        service = self.start_service(
            server.url, variables={"NOTIFY_SOCKET": self.path("nobody.sock")}
        )
        with service.client() as client:
            self.assertEqual(PONG, client.command("PING"))


@proxy_only
class CrashTest(ServiceTest):
    def test_row_61_a_crash_and_the_next_one(self):
        """faults.md row 61: clients see EOF; the next one is ready within a second, and takes the
        socket's file over, on which nobody listens."""
        server = self.start_server()
        for number in (signal.SIGSEGV, signal.SIGABRT):
            with self.subTest(number.name):
                # A sanitizer build would turn the signal into an exit code.
                crashing = Nearkey(
                    self.directory,
                    server.url,
                    environment={"ASAN_OPTIONS": "handle_segv=0:handle_abort=0"},
                )
                self.addCleanup(crashing.kill)
                crashing.start()
                client = crashing.client()
                self.addCleanup(client.close)
                self.assertEqual(PONG, client.command("PING"))
                crashing.signal(number)
                self.assertEqual(-number, crashing.process.wait(10 * SLOWNESS))
                self.assertEqual((b"", "eof"), client.read_to_end())
                self.assertTrue(os.path.exists(crashing.path))
                begin = time.monotonic()
                again = self.start_nearkey(server.url)
                self.assertLess(time.monotonic() - begin, 1 * SLOWNESS)
                with again.client() as other:
                    self.assertEqual(PONG, other.command("PING"))
                done = run_nearkey(
                    self.directory,
                    "serve",
                    *("--upstream", server.url, "--listen", again.path),
                    *("--admin", self.path("other.sock")),
                )
                self.assertEqual(1, done.returncode)
                self.assertIn(again.path, done.stderr)
                again.stop()


if __name__ == "__main__":
    unittest.main()
