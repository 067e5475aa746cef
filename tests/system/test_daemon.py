"""The daemon itself: start, drain, stop, sockets, logs, nothing left behind."""

import contextlib
import os
import re
import signal
import socket
import stat
import time
import unittest

from harness import SLOWNESS, Nearkey, SystemTest, free_port, proxy_only, run_nearkey, wait_for
from load import IncrementLoad
from procfs import children, fds
from resp import RespClient, encode

PONG = b"+PONG\r\n"


@proxy_only
class StopTest(SystemTest):
    def test_sigterm_drains_under_load(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        load = IncrementLoad(nearkey.client).start()
        self.addCleanup(load.stop)
        wait_for(lambda: load.total("acknowledged") > 2000, 10, "the load runs")
        begin = time.monotonic()
        nearkey.stop(5)
        self.assertLess(time.monotonic() - begin, 3 * SLOWNESS)
        load.stop()
        self.assertFalse(os.path.exists(nearkey.path), "the socket file is left")
        self.assertFalse(os.path.exists(nearkey.admin_path), "the admin socket file is left")
        with server.client() as direct:
            load.check(self, direct)
        wait_for(lambda: server.clients() == [], 2, "no connection to the server is left")

    def test_what_is_in_flight_at_sigterm_is_finished(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        clients = [nearkey.client() for _ in range(5)]
        for client in clients:
            self.addCleanup(client.close)
            self.assertEqual(PONG, client.command("PING"))
        idle = nearkey.client()
        self.addCleanup(idle.close)
        idle.command("PING")
        with server.client() as sleeper:
            sleeper.send(encode("DEBUG", "SLEEP", "0.6"))
            time.sleep(0.1)  # The server is asleep now; nothing else can be asked of it.
            before = nearkey.metric("nearkey_commands_total")
            for client in clients:
                client.send(encode("INCR", "n") * 20)
            wait_for(
                lambda: nearkey.metric("nearkey_commands_total") >= before + 100,
                2,
                "the commands are taken",
            )
            nearkey.signal(signal.SIGTERM)
            with self.assertRaises(OSError):
                wait_for(lambda: nearkey.client().close(), 0.4, "new clients are refused")
            values = []
            for client in clients:
                data, ended = client.read_to_end()
                self.assertEqual("eof", ended)
                values += [int(line) for line in re.findall(rb":(\d+)\r\n", data)]
        self.assertEqual(list(range(1, 101)), sorted(values))
        self.assertEqual((b"", "eof"), idle.read_to_end())
        self.assertEqual(0, nearkey.process.wait(5 * SLOWNESS))
        self.assertEqual(b"100", server.run("GET", "n"))

    def start_stuck(self, drain_timeout_ms):
        """A nearkey that owes a reply, and a server that does not give it."""
        server = self.start_server()
        nearkey = Nearkey(
            self.directory,
            server.url,
            settings={
                "server.drain_timeout_ms": drain_timeout_ms,
                "upstream.request_timeout_ms": 60000,
                "upstream.tombstone_timeout_ms": 60000,
                "upstream.heartbeat_interval_ms": 60000,
                "upstream.unready_after_ms": 90000,
            },
        )
        self.addCleanup(nearkey.kill)
        nearkey.start()
        client = nearkey.client()
        self.addCleanup(client.close)
        client.command("PING")
        server.freeze()
        before = nearkey.metric("nearkey_commands_total")
        client.send(encode("GET", "k"))
        wait_for(
            lambda: nearkey.metric("nearkey_commands_total") > before, 2, "the command is taken"
        )
        return nearkey

    def test_the_drain_timeout_ends_the_wait(self):
        nearkey = self.start_stuck(500)
        begin = time.monotonic()
        nearkey.stop(5)
        took = time.monotonic() - begin
        self.assertTrue(0.4 < took < 2 * SLOWNESS, took)
        self.assertFalse(os.path.exists(nearkey.path))

    def check_second_signal(self, first, second):
        nearkey = self.start_stuck(20000)
        nearkey.signal(first)
        time.sleep(0.3)  # That it goes on waiting shows only over time.
        self.assertTrue(nearkey.is_running(), "it did not wait for what is in flight")
        nearkey.signal(second)
        nearkey.process.wait(1 * SLOWNESS)

    def test_a_second_sigterm_exits_at_once(self):
        self.check_second_signal(signal.SIGTERM, signal.SIGTERM)

    def test_a_sigterm_after_a_sigint_exits_at_once(self):
        self.check_second_signal(signal.SIGINT, signal.SIGTERM)

    def test_signals_until_the_end_change_nothing(self):
        server = self.start_server()
        for _ in range(5):
            nearkey = self.start_nearkey(server.url)
            while nearkey.is_running():
                nearkey.signal(signal.SIGTERM)
            nearkey.stop()

    def test_sigint_stops_as_sigterm_does(self):
        nearkey = self.start_nearkey(self.start_server().url)
        nearkey.signal(signal.SIGINT)
        self.assertEqual(0, nearkey.process.wait(5 * SLOWNESS))
        self.assertFalse(os.path.exists(nearkey.path))

    def test_sigterm_while_the_server_was_never_there(self):
        nearkey = self.start_nearkey(f"unix://{self.directory}/nobody.sock", ready=False)
        nearkey.wait_unready()
        nearkey.stop(3)


@proxy_only
class SocketTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def test_a_live_socket_is_not_stolen(self):
        nearkey = self.start_nearkey(self.server.url)
        done = run_nearkey(
            self.directory,
            "serve",
            "--upstream",
            self.server.url,
            "--listen",
            nearkey.path,
            "--admin",
            f"{self.directory}/second.sock",
            environment={},
        )
        self.assertNotEqual(0, done.returncode)
        self.assertIn(nearkey.path, done.stderr)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        self.assertEqual(200, nearkey.ready_status())

    def test_a_dead_socket_is_replaced(self):
        for path in (f"{self.directory}/nearkey.sock", f"{self.directory}/admin.sock"):
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(path)
            self.assertTrue(os.path.exists(path))
        nearkey = self.start_nearkey(self.server.url)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))

    def test_after_sigkill_the_next_one_takes_over(self):
        nearkey = self.start_nearkey(self.server.url)
        nearkey.kill()
        self.assertTrue(os.path.exists(nearkey.path))
        nearkey.process = None
        again = self.start_nearkey(self.server.url)
        with again.client() as client:
            self.assertEqual(PONG, client.command("PING"))

    def test_a_file_that_is_no_socket_is_left_alone(self):
        path = f"{self.directory}/precious"
        with open(path, "w") as file:
            file.write("not a socket")
        done = run_nearkey(
            self.directory,
            "serve",
            "--upstream",
            self.server.url,
            "--listen",
            path,
            "--admin",
            f"{self.directory}/second.sock",
        )
        self.assertNotEqual(0, done.returncode)
        self.assertIn(path, done.stderr)
        with open(path) as file:
            self.assertEqual("not a socket", file.read())

    def test_the_mode_of_the_socket(self):
        for mode, settings in (
            (0o660, {}),
            (0o600, {"server.listen_mode": "0600"}),
            (0o666, {"server.listen_mode": "0666"}),
        ):
            with self.subTest(oct(mode)):
                nearkey = self.start_nearkey(self.server.url, settings=settings)
                self.assertEqual(mode, stat.S_IMODE(os.stat(nearkey.path).st_mode))
                # Who may send commands may not, for that, command nearkey.
                self.assertEqual(0o660, stat.S_IMODE(os.stat(nearkey.admin_path).st_mode))
                nearkey.stop()
        nearkey = self.start_nearkey(self.server.url, settings={"server.admin_mode": "0600"})
        self.assertEqual(0o600, stat.S_IMODE(os.stat(nearkey.admin_path).st_mode))

    def test_a_loopback_tcp_listener_beside_the_unix_socket(self):
        port = free_port()
        unix = f"{self.directory}/nearkey.sock"
        nearkey = self.start_nearkey(self.server.url, listen=[unix, f"tcp:127.0.0.1:{port}"])
        with nearkey.client() as first, RespClient(("127.0.0.1", port)) as second:
            self.assertEqual(b"+OK\r\n", first.command("SET", "k", "v"))
            self.assertEqual(b"$1\r\nv\r\n", second.command("GET", "k"))

    def test_only_loopback_addresses_are_listened_on(self):
        done = run_nearkey(
            self.directory,
            "serve",
            "--upstream",
            self.server.url,
            "--listen",
            f"tcp:0.0.0.0:{free_port()}",
            "--admin",
            f"{self.directory}/admin.sock",
        )
        self.assertEqual(2, done.returncode, done.stderr)
        self.assertIn("0.0.0.0", done.stderr)

    def test_an_admin_server_on_loopback_tcp(self):
        port = free_port()
        nearkey = Nearkey(self.directory, self.server.url, args=["--admin", f"127.0.0.1:{port}"])
        at = nearkey.command.index("--admin")
        del nearkey.command[at : at + 2]
        self.addCleanup(nearkey.kill)
        nearkey.start(ready=False)

        def answer():
            try:
                with socket.create_connection(("127.0.0.1", port), 2) as connection:
                    connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                    return (
                        connection.recv(65536).startswith(b"HTTP/1.")
                        and run_nearkey(
                            self.directory, "ready", "--admin", f"127.0.0.1:{port}"
                        ).returncode
                        == 0
                    )
            except OSError:
                return False

        wait_for(answer, 5, "the admin server says that it is ready")
        nearkey.stop()


@proxy_only
class LogTest(SystemTest):
    def test_log_lines_are_json_and_say_nothing_of_the_users_data(self):
        server = self.start_server()
        nearkey = self.start_nearkey(
            server.url, settings={"log.level": "debug", "upstream.queue_timeout_ms": 200}
        )
        client = nearkey.client()
        canary = "canary-7f3a"
        client.pipeline(
            [
                ("SET", f"{canary}-key", f"{canary}-value"),
                ("GET", f"{canary}-key"),
                (f"{canary}-command", "x"),
                ("CLIENT", "SETNAME", f"{canary}-name"),
                ("EVAL", f"return '{canary}'", "0"),
                ("SELECT", canary),
            ]
        )
        client.send(b"*1\r\n$" + canary.encode() + b"\r\n")
        client.read_to_end()
        for bad in (f'"{canary}'.encode() + b"\r\n", b"*1\r\n" + canary.encode() + b"\r\n"):
            other = nearkey.client()
            other.send(bad)
            other.read_to_end()
        server.kill()
        nearkey.wait_unready(3)
        with nearkey.client() as waiting:
            waiting.command("SET", canary, canary)
        nearkey.stop()
        self.assertNotIn(canary, "\n".join(nearkey.lines))
        entries = nearkey.logs()
        self.assertGreaterEqual(len(entries), 3)
        for entry in entries:
            self.assertLessEqual({"time", "level", "event"}, set(entry))
            self.assertRegex(str(entry["time"]), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|^\d+(\.\d+)?$")
            self.assertIn(entry["level"], ("debug", "info", "warn", "warning", "error"))
        times = [str(entry["time"]) for entry in entries]
        self.assertEqual(sorted(times), times)

    def test_the_log_level_is_honoured(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"log.level": "error"})
        nearkey.client().close()
        nearkey.stop()
        self.assertEqual([], nearkey.lines)

    def test_row_63_a_full_disk_under_the_log(self):
        server = self.start_server()
        with open("/dev/full", "w") as full:
            nearkey = Nearkey(self.directory, server.url)
            self.addCleanup(nearkey.kill)
            nearkey.start(stderr=full)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))
            server.kill()
            nearkey.wait_unready(3)
            server.start()
            nearkey.wait_ready(3)
            self.assertEqual(PONG, client.command("PING"))
        self.assertGreater(nearkey.metric("nearkey_log_dropped_total"), 0)
        nearkey.stop()

    def test_row_63_nobody_reads_the_log(self):
        """A pipe that is full must not block the loop."""
        server = self.start_server()
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        os.set_blocking(write_end, False)
        try:
            while True:
                os.write(write_end, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(write_end, True)
        nearkey = Nearkey(self.directory, server.url)
        self.addCleanup(nearkey.kill)
        nearkey.start(stderr=write_end)
        os.close(write_end)
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        nearkey.stop()


@proxy_only
class NothingIsLeftTest(SystemTest):
    def test_no_file_descriptor_is_left_of_clients_that_came_and_went(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"upstream.connections": 1})

        def crowd(size):
            clients = [nearkey.client() for _ in range(size)]
            for number, client in enumerate(clients):
                client.send(
                    encode("HELLO", 2 + number % 2)
                    + encode("SELECT", number % 3)
                    + encode("INCR", "n")
                )
            for number, client in enumerate(clients):
                if number % 5:  # Every fifth leaves without reading its replies.
                    client.read_replies(3)
                client.close()
            wait_for(lambda: nearkey.metric("nearkey_clients") == 0, 5, "they are gone")

        crowd(100)
        before = fds(nearkey.pid)
        for _ in range(5):
            crowd(100)
        wait_for(
            lambda: len(fds(nearkey.pid)) <= len(before), 5, f"{len(before)} descriptors as before"
        )
        self.assertEqual(600, nearkey.metric("nearkey_clients_accepted_total"))

    def test_no_file_descriptor_is_left_of_connections_to_the_server(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        with nearkey.client() as client:
            client.command("PING")
            wait_for(lambda: len(server.clients()) >= 1, 2, "the pool has its connections")
            before = len(fds(nearkey.pid))
            for _ in range(10):
                server.run("CLIENT", "KILL", "TYPE", "normal")
                wait_for(lambda: client.command("PING") == PONG, 3, "it is answered again")
        wait_for(lambda: len(fds(nearkey.pid)) <= before, 5, "as many descriptors as before")

    def test_the_descriptors_of_our_parent_are_not_passed_to_children(self):
        nearkey = self.start_nearkey("managed:")
        links = []
        for child in children(nearkey.pid):
            for fd in fds(child):
                try:
                    links.append(os.readlink(f"/proc/{child}/fd/{fd}"))
                except OSError:
                    pass
        self.assertTrue(links)
        ours = set()
        for fd in fds(nearkey.pid):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                ours.add(os.readlink(f"/proc/{nearkey.pid}/fd/{fd}"))
        shared = {link for link in set(links) & ours if link.startswith("socket:")}
        self.assertEqual(set(), shared, sorted(links))


if __name__ == "__main__":
    unittest.main()
