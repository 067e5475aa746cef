"""The admin pages with the real daemon: who is connected, what runs upstream, what can be changed.
"""

import json
import os
import socket
import threading
import time
import unittest

from harness import SLOWNESS, AdminConnection, SystemTest, free_port, proxy_only, wait_for
from resp import RespClient, encode


def post(nearkey, path):
    connection = AdminConnection(nearkey.admin_path, 5 * SLOWNESS)
    try:
        connection.request("POST", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def text(nearkey, path):
    connection = AdminConnection(nearkey.admin_path, 5 * SLOWNESS)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@proxy_only
class ClientsPageTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def clients(self, nearkey, query=""):
        status, page = nearkey.get("/clients" + query)
        self.assertEqual(200, status)
        return page

    def test_a_client_is_shown_with_its_process_and_what_it_did(self):
        nearkey = self.start_nearkey(self.server.url)
        with nearkey.client() as client:
            client.command("HELLO", "3")
            client.command("CLIENT", "SETNAME", "shop-1")
            client.command("CLIENT", "SETINFO", "lib-name", "handmade")
            client.command("CLIENT", "SETINFO", "lib-ver", "1.2")
            client.command("SELECT", "3")
            sent = sum(
                len(encode(*words))
                for words in (
                    ("HELLO", "3"),
                    ("CLIENT", "SETNAME", "shop-1"),
                    ("CLIENT", "SETINFO", "lib-name", "handmade"),
                    ("CLIENT", "SETINFO", "lib-ver", "1.2"),
                    ("SELECT", "3"),
                    ("SET", "k", "v"),
                )
            )
            client.command("SET", "k", "v")
            page = self.clients(nearkey)
            self.assertEqual((1, None), (page["total"], page["next"]))
            (found,) = page["clients"]
            self.assertEqual(os.getpid(), found["pid"])
            self.assertEqual((os.getuid(), os.getgid()), (found["uid"], found["gid"]))
            self.assertEqual(os.readlink("/proc/self/exe"), found["executable"])
            with open("/proc/self/comm") as comm:
                self.assertEqual(comm.read().strip(), found["command"])
            with open("/proc/self/cgroup") as cgroup:
                self.assertIn(f"0::{found['cgroup']}\n", cgroup.read() + "0::\n")
            self.assertEqual(nearkey.path, found["listener"])
            self.assertEqual("shop-1", found["name"])
            self.assertEqual(("handmade", "1.2"), (found["library"], found["library_version"]))
            self.assertEqual((3, 3), (found["database"], found["protocol"]))
            self.assertEqual("shared", found["route"])
            self.assertEqual((6, sent), (found["commands"], found["bytes_in"]))
            self.assertGreater(found["bytes_out"], 20)
            self.assertEqual(0, found["in_flight"])
            self.assertGreaterEqual(found["age_seconds"], found["idle_seconds"])
        wait_for(lambda: self.clients(nearkey)["total"] == 0, 3, "the client is gone")

    def test_the_route_of_a_client(self):
        nearkey = self.start_nearkey(self.server.url)
        clients = [nearkey.client() for _ in range(5)]
        for client in clients:
            self.addCleanup(client.close)
        idle, shared, blocked, multi, tunnel = clients
        shared.command("PING")
        blocked.send(encode("BLPOP", "nothing", "0"))
        multi.command("MULTI")
        tunnel.command("SUBSCRIBE", "news")
        want = ["none", "shared", "leased", "transaction", "tunnel"]
        wait_for(
            lambda: [one["route"] for one in self.clients(nearkey)["clients"]] == want, 3, want
        )
        self.assertEqual(1, self.clients(nearkey)["clients"][2]["in_flight"])
        kinds = [one["kind"] for one in nearkey.get("/connections")[1]["connections"]]
        self.assertEqual(2, kinds.count("dedicated"))
        self.assertEqual(1, kinds.count("tunnel"))

    def test_over_tcp_the_address_is_shown(self):
        port = free_port()
        nearkey = self.start_nearkey(self.server.url, listen=[f"tcp:127.0.0.1:{port}"])
        with RespClient(("127.0.0.1", port)) as client:
            client.command("PING")
            (found,) = self.clients(nearkey)["clients"]
            self.assertIsNone(found["pid"])
            own = client.socket.getsockname()
            self.assertEqual(f"127.0.0.1:{own[1]}", found["address"])
            self.assertEqual(f"127.0.0.1:{port}", found["listener"])

    def test_pages_show_every_client_once(self):
        nearkey = self.start_nearkey(self.server.url)
        clients = [nearkey.client() for _ in range(25)]
        for client in clients:
            self.addCleanup(client.close)
            client.command("PING")
        seen, after, pages = [], 0, 0
        while after is not None:
            page = self.clients(nearkey, f"?limit=10&after={after}")
            self.assertEqual(25, page["total"])
            seen += [one["session"] for one in page["clients"]]
            after = page["next"]
            pages += 1
        self.assertEqual((list(range(1, 26)), 3), (seen, pages))
        for query in ("?limit=0", "?limit=201", "?limit=x", "?limit=", "?after=-1", "?after=1x"):
            self.assertEqual(400, nearkey.get("/clients" + query)[0], query)

    def test_thousands_of_clients_do_not_stall_the_loop(self):
        nearkey = self.start_nearkey(self.server.url)
        count = 2000
        crowd = []
        self.addCleanup(lambda: [one.close() for one in crowd])
        for _ in range(count):
            one = socket.socket(socket.AF_UNIX)
            one.connect(nearkey.path)
            crowd.append(one)
        wait_for(lambda: nearkey.metric("nearkey_clients") == count, 10, "all are connected")
        worst, stop = [0.0], threading.Event()

        def ping():
            with nearkey.client() as client:
                while not stop.is_set():
                    begin = time.monotonic()
                    client.command("GET", "k")
                    worst[0] = max(worst[0], time.monotonic() - begin)

        pinger = threading.Thread(target=ping)
        pinger.start()
        begin = time.monotonic()
        for _ in range(20):
            self.assertEqual(200, len(self.clients(nearkey, "?limit=200")["clients"]))
        took = (time.monotonic() - begin) / 20
        stop.set()
        pinger.join()
        print(
            f"/clients?limit=200 of {count} clients: {took * 1000:.1f} ms each, "
            f"longest GET of another client meanwhile {worst[0] * 1000:.1f} ms"
        )
        self.assertLess(worst[0], 0.5 * SLOWNESS)


@proxy_only
class ControlPageTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def test_connections_tell_what_they_carry(self):
        nearkey = self.start_nearkey(self.server.url)
        with nearkey.client() as client:
            client.command("SET", "k", "v" * 5000)
            client.command("GET", "k")

            def carried():
                """Between two heartbeats."""
                status, page = nearkey.get("/connections")
                self.assertEqual(200, status)
                busiest = max(page["connections"], key=lambda one: one["bytes_sent"])
                return (page, busiest) if busiest["in_flight"] == 0 else None

            page, busiest = wait_for(carried, 5, "nothing is in flight")
        self.assertEqual(page["total"], len(page["connections"]))
        self.assertGreater(busiest["bytes_sent"], 5000)
        self.assertGreater(busiest["bytes_received"], 5000)
        self.assertEqual(("shared", "ready"), (busiest["kind"], busiest["state"]))
        self.assertEqual((0, 0), tuple(busiest[k] for k in ("waiting", "tombstones")))
        ids = {int(row["id"]) for row in self.server.clients()}
        self.assertIn(busiest["server_id"], ids)
        self.assertGreaterEqual(busiest["ready_seconds"], 0)
        self.assertEqual(400, nearkey.get("/connections?limit=1001")[0])

    def test_the_configuration_is_shown_without_its_password(self):
        secret = "swordfish-4711"
        path = os.path.join(self.directory, "nearkey.toml")
        with open(path, "w") as file:
            file.write(f'[upstream]\nurl = "redis://user:{secret}@127.0.0.1:1/0"\n')
        nearkey = self.start_nearkey(None, ready=False, args=["--config", path])
        wait_for(lambda: nearkey.ready_status() == 503, 5, "the admin server answers")
        shown = text(nearkey, "/config")
        self.assertIn("127.0.0.1:1", shown)
        self.assertIn("[near_cache]", shown)
        self.assertNotIn(secret, shown)

    def test_the_level_of_the_log_changes_at_run_time(self):
        nearkey = self.start_nearkey(self.server.url)
        self.assertEqual((200, {"level": "info"}), nearkey.get("/log-level"))
        self.assertEqual((200, {"level": "error"}), post(nearkey, "/log-level?level=error"))
        with nearkey.client() as client:
            client.send(b"POST / HTTP/1.1\r\n\r\n")
            client.read_to_end()
        self.assertEqual((200, {"level": "debug"}), post(nearkey, "/log-level?level=debug"))
        nearkey.wait_logged('"event":"log_level","now":"debug"')
        self.assertFalse(any("possible_attack" in line for line in nearkey.lines))
        for query in ("", "?level=", "?level=loud", "?Level=debug"):
            self.assertEqual(400, post(nearkey, "/log-level" + query)[0], query)
        self.assertEqual((200, {"level": "debug"}), nearkey.get("/log-level"))

    def test_the_near_cache_is_cleared(self):
        nearkey = self.start_nearkey(self.server.url)
        with nearkey.client() as client:
            client.command("HELLO", "3")
            client.command("SET", "k", "v")

            def is_hit():
                client.command("GET", "k")
                return nearkey.metric("nearkey_near_cache_hits_total") > 0

            wait_for(is_hit, 5, "a hit")
            entries = nearkey.metric("nearkey_near_cache_entries")
            self.assertEqual((200, {"dropped": entries}), post(nearkey, "/cache/clear"))
            before = nearkey.metric("nearkey_near_cache_misses_total")
            self.assertEqual(b"$1\r\nv\r\n", client.command("GET", "k"))
            self.assertEqual(before + 1, nearkey.metric("nearkey_near_cache_misses_total"))
        nearkey.wait_logged("near_cache_cleared")
        self.assertEqual(405, nearkey.get("/cache/clear")[0])

    def test_without_a_near_cache_there_is_nothing_to_clear(self):
        nearkey = self.start_nearkey(self.server.url, settings={"near_cache.enabled": "false"})
        self.assertEqual(409, post(nearkey, "/cache/clear")[0])


@proxy_only
class SlowlorisTest(SystemTest):
    """faults.md row 68: /metrics or /readyz abused."""

    def test_slow_and_many_http_clients_are_not_felt(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        crowd = []
        self.addCleanup(lambda: [one.close() for one in crowd])
        for number in range(60):
            one = socket.socket(socket.AF_UNIX)
            one.connect(nearkey.admin_path)
            if number % 2:
                one.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
            crowd.append(one)
        stop = threading.Event()

        def drip():
            while not stop.wait(0.2):
                for one in crowd:
                    try:
                        one.sendall(b"a")
                    except OSError:
                        pass

        dripper = threading.Thread(target=drip)
        dripper.start()
        self.addCleanup(dripper.join)
        self.addCleanup(stop.set)
        worst = 0.0
        with nearkey.client() as client:
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                begin = time.monotonic()
                self.assertEqual(b"+PONG\r\n", client.command("PING"))
                worst = max(worst, time.monotonic() - begin)
        print(f"longest PING beside 60 slow HTTP clients: {worst * 1000:.1f} ms")
        self.assertLess(worst, 0.5 * SLOWNESS)
        with open(f"/proc/{nearkey.pid}/stat") as stat:
            ticks = sum(int(field) for field in stat.read().rsplit(")", 1)[1].split()[11:13])
        self.assertLess(ticks / os.sysconf("SC_CLK_TCK"), 4 * SLOWNESS, "no busy loop")
        # Each of them is cut off in its time, however it drips; then everybody is served again.
        wait_for(lambda: nearkey.ready_status() == 200, 20, "the admin server answers")
        self.assertEqual(200, nearkey.get("/stats")[0])


if __name__ == "__main__":
    unittest.main()
