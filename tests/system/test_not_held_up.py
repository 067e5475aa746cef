"""What one client makes wait, or takes for himself, holds up nobody else: a connection that is stuck
or paused, databases that nobody uses any more, file descriptors, places at the admin server."""

import random
import socket
import threading
import time
import unittest

from harness import EVERY_COMMAND, SLOWNESS, SystemTest, proxy_only, wait_for
from processes import Nearkey
from relay import Relay
from resp import RespClient, encode, parse

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
SOON = 1.0 * SLOWNESS


def seconds_of(action):
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


class HoldingRelay(Relay):
    """Holds the requests of the first connection that carries the word, and what follows on it,
    until it is released. With is_armed false: not before it is armed."""

    def __init__(self, path, target, word, is_armed=True):
        self.word = word
        self.is_armed = is_armed
        self.chosen = None
        self.held = False
        self.released = threading.Event()
        super().__init__(path, target)

    def _pump_requests(self, near, far, *_):
        try:
            while data := near.recv(1 << 16):
                if self.chosen is None and self.word in data:
                    self.chosen = near
                if self.chosen is near and self.is_armed:
                    self.held = True
                    self.released.wait()
                far.sendall(data)
        except OSError:
            pass


@proxy_only
class PausedServerTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def start(self, **settings):
        self.nearkey = self.start_nearkey(self.server.url, settings={**EVERY_COMMAND, **settings})

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def assert_others_read_while_writes_wait(self, writers):
        with self.server.client() as direct:
            self.assertEqual(OK, direct.command("CLIENT", "PAUSE", "60000", "WRITE"))
            blocked = []
            for number in range(writers):
                client = self.client()
                client.send(encode("SET", f"w{number}", "1"))
                self.assertTrue(client.is_silent(0.3))
                blocked.append(client)
                reader = self.client()
                reads = (("GET", "k"), ("EXISTS", "k", "l"), ("INFO", "server"), ("PING",))
                for command in reads:
                    taken = seconds_of(lambda: reader.command(*command))
                    self.assertLess(taken, SOON, command)
            self.assertEqual(OK, direct.command("CLIENT", "UNPAUSE"))
        for client in blocked:
            self.assertEqual(OK, client.read_reply())

    def test_who_only_reads_is_not_held_up_by_another_clients_paused_write(self):
        self.start()
        self.assert_others_read_while_writes_wait(writers=1)

    def test_nor_by_those_of_several_clients(self):
        self.start(**{"upstream.request_timeout_ms": 60_000})
        self.assert_others_read_while_writes_wait(writers=5)

    def test_nor_without_a_near_cache(self):
        self.start(**{"near_cache.enabled": "false"})
        self.assert_others_read_while_writes_wait(writers=3)

    def test_reads_that_stand_behind_a_paused_write_already_go_another_way(self):
        self.start(**{"upstream.connections": 1, "upstream.request_timeout_ms": 60_000})
        self.assert_reads_pass(random.Random(20261128))

    def test_they_do_so_without_a_near_cache(self):
        self.start(**{
            "upstream.connections": 1,
            "upstream.request_timeout_ms": 60_000,
            "near_cache.enabled": "false",
        })
        self.assert_reads_pass(random.Random(20261129))

    def assert_reads_pass(self, chance):
        keys = [f"k{number}" for number in range(8)]
        for key in keys:
            self.server.run("SET", key, f"value of {key}")
        reads = [("GET", key) for key in keys] + [("MGET", key, "k0") for key in keys]
        reads += [("TYPE", "k1"), ("STRLEN", "k2"), ("PING",), ("ECHO", "x"), ("DBSIZE",)]
        self.server.run("DEL", "n")
        with self.server.client() as direct:
            self.assertEqual(OK, direct.command("CLIENT", "PAUSE", "60000", "WRITE"))
            writer = self.client()
            writer.send(encode("SET", "k0", "new"))
            owed = []
            for number in range(12):
                commands = [chance.choice(reads) for _ in range(chance.randint(1, 30))]
                client = self.client()
                if number % 3 == 0:
                    # Behind its own write it must wait.
                    client.send(encode("INCR", "n"))
                client.send(b"".join(encode(*command) for command in commands))
                owed.append((client, number % 3 == 0, commands))
            for client, writes, commands in owed:
                if writes:
                    continue
                expected = [direct.command(*command) for command in commands]
                begin = time.monotonic()
                self.assertEqual(expected, client.read_replies(len(commands)))
                self.assertLess(time.monotonic() - begin, SOON)
            self.assertTrue(all(client.is_silent(0) for client, writes, _ in owed if writes))
            self.assertTrue(writer.is_silent(0))
            self.assertEqual(OK, direct.command("CLIENT", "UNPAUSE"))
            self.assertEqual(OK, writer.read_reply())
            counts = []
            for client, writes, commands in owed:
                if writes:
                    counts.append(client.read_reply())
                    self.assert_read(direct, commands, client.read_replies(len(commands)))
                # What was asked twice is answered once.
                self.assertEqual(b"$4\r\nlast\r\n", client.command("ECHO", "last"))
            self.assertEqual([b":1\r\n", b":2\r\n", b":3\r\n", b":4\r\n"], sorted(counts))

    def assert_read(self, direct, commands, replies):
        """What is read now, or k0 as it was: on another connection a write that began later than that
        of k0 may be the first, and so may be what stands behind it."""
        is_new = False
        for command, reply in zip(commands, replies):
            now = direct.command(*command)
            former = now.replace(b"$3\r\nnew\r\n", b"$11\r\nvalue of k0\r\n")
            self.assertIn(reply, [now] if is_new else [now, former], command)
            is_new |= now != former and reply == now

    def test_nor_do_select_and_wrong_calls_wait_there(self):
        self.start(**{"upstream.connections": 1})
        self.server.run("CLIENT", "PAUSE", "60000", "WRITE")
        writer, reader = self.client(), self.client()
        commands = [("GET", "k"), ("GET",), ("ECHO",), ("SELECT", "3"), ("GET", "k"), ("SELECT", "0")]
        with self.server.client() as direct:
            expected = [direct.command(*command) for command in commands]
        writer.send(encode("SET", "k", "1"))
        begin = time.monotonic()
        self.assertEqual(expected, reader.pipeline(commands))
        self.assertLess(time.monotonic() - begin, SOON)
        self.server.run("CLIENT", "UNPAUSE")

    def test_many_paused_writes_leave_a_connection_to_those_who_read(self):
        self.start()
        self.server.run("CLIENT", "PAUSE", "60000", "WRITE")
        reader = self.client()
        writers = []
        for number in range(100):
            writers.append(self.client())
            writers[-1].send(encode("INCR", "n"))
            if number % 5 == 0:
                taken = seconds_of(lambda: reader.command("GET", "k"))
                self.assertLess(taken, SOON, f"beside {number + 1} writes")
                time.sleep(0.02)
        self.assertLess(self.nearkey.metric("nearkey_upstream_connections"), 12)
        self.server.run("CLIENT", "UNPAUSE")
        counts = [parse(writer.read_reply()) for writer in writers]
        self.assertEqual(list(range(1, 101)), sorted(counts))

    def test_a_server_that_is_busy_is_asked_each_thing_once(self):
        self.start(**{"upstream.request_timeout_ms": 60_000, "near_cache.enabled": "false"})
        self.server.run("SET", "a", "abcdefghij" * 40)
        self.server.run("SET", "b", "jihgfedcba" * 40)
        clients = [self.client() for _ in range(20)]
        for client in clients:
            self.assertEqual(PONG, client.command("PING"))
        for client in clients:
            client.send(encode("LCS", "a", "b", "LEN") * 100)
        for client in clients:
            client.read_replies(100)
        stats = self.server.run("INFO", "commandstats").decode()
        calls = int(stats.split("cmdstat_lcs:calls=")[1].split(",")[0])
        self.assertEqual(2000, calls)

    def test_a_server_that_answers_nobody_is_not_given_ever_more_connections(self):
        self.start()
        clients = [self.client() for _ in range(30)]
        for client in clients:
            self.assertEqual(PONG, client.command("PING"))
        before = self.nearkey.metric("nearkey_upstream_connections")
        with self.server.client() as direct:
            direct.send(encode("DEBUG", "SLEEP", "2"))
            for client in clients:
                client.send(encode("INCR", "n"))
                time.sleep(0.06)
            self.assertEqual(OK, direct.read_reply())
        for client in clients:
            client.read_reply()
        self.assertLessEqual(self.nearkey.metric("nearkey_upstream_connections"), before + 2)


@proxy_only
class StuckConnectionTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.server.run("SET", "stuck", "v")

    def start(self, word=b"stuck", is_armed=True, **settings):
        path = f"{self.directory}/relay.sock"
        self.relay = HoldingRelay(path, self.server.path, word, is_armed)
        self.addCleanup(self.relay.close)
        self.addCleanup(self.relay.released.set)
        settings = {**EVERY_COMMAND, "upstream.connections": 2, **settings}
        self.nearkey = self.start_nearkey(f"unix://{self.relay.path}", settings=settings)
        self.first, self.second = self.nearkey.client(), self.nearkey.client()
        for client in (self.first, self.second):
            self.addCleanup(client.close)
            self.assertEqual(PONG, client.command("PING"))
        tracking = "nearkey_near_cache_tracking"
        wait_for(lambda: self.nearkey.metric(tracking) == 1, 3, "tracking")

    def hold_the_first(self):
        self.first.send(encode("GET", "stuck"))
        wait_for(lambda: self.relay.held, 3, "the read is held")

    def test_who_waits_for_anothers_equal_read_goes_his_own_way_soon(self):
        self.start()
        self.hold_the_first()
        taken = seconds_of(
            lambda: self.assertEqual(b"$1\r\nv\r\n", self.second.command("GET", "stuck"))
        )
        self.assertLess(taken, 0.5 * SLOWNESS)
        self.relay.released.set()
        self.assertEqual(b"$1\r\nv\r\n", self.first.read_reply())

    def store(self):
        # What is stored may be older than what a script has read.
        self.server.run("SET", "other", "1")
        self.assertEqual(b"$1\r\n1\r\n", self.second.command("GET", "other"))

    def assert_scripts_go_on(self):
        script = ("EVAL", "return redis.call('INCR', 'n')", "1", "n")
        times = [seconds_of(lambda: self.second.command(*script)) for _ in range(20)]
        self.assertLess(times[0], 0.5 * SLOWNESS)
        self.assertLess(sorted(times[1:])[10], 0.05 * SLOWNESS, times)

    def test_a_script_waits_for_a_stuck_connection_once_and_briefly(self):
        self.start()
        self.store()
        self.hold_the_first()
        self.assert_scripts_go_on()
        self.relay.released.set()
        self.assertEqual(b"$1\r\nv\r\n", self.first.read_reply())

    def test_nor_for_one_that_is_told_of_all_longer_than_that(self):
        self.start(b"BCAST", is_armed=False, **{"near_cache.tracking": "broadcast"})
        self.store()
        self.relay.is_armed = True
        wait_for(lambda: self.relay.held, 3, "a heartbeat is held")
        self.assert_scripts_go_on()


@proxy_only
class PlacesTest(SystemTest):
    def test_databases_that_nobody_uses_leave_their_connections_to_others(self):
        server = self.start_server("--databases", "64")
        nearkey = self.start_nearkey(server.url, settings={"upstream.connections_max": 8})
        with nearkey.client() as wanderer, nearkey.client() as other:
            for database in range(1, 64):
                self.assertEqual(OK, wanderer.command("SELECT", str(database)))
                self.assertEqual(OK, wanderer.command("SET", "k", str(database)))
            self.assertEqual(OK, other.command("SELECT", "3"))
            self.assertEqual(b"$1\r\n3\r\n", other.command("GET", "k"))
            self.assertEqual(b"$2\r\n63\r\n", wanderer.command("GET", "k"))
        self.assertEqual(0, nearkey.metric("nearkey_upstream_shared_refused_total"))

    def test_clients_leave_descriptors_to_valkey_and_to_the_admin_server(self):
        server = self.start_server()
        nearkey = self.prepared_nearkey(server.url)
        nearkey.command = ["prlimit", "--nofile=128", *nearkey.command]
        nearkey.start()
        clients = [nearkey.client() for _ in range(140)]
        for client in clients:
            self.addCleanup(client.close)
        answers = [self.ask(client) for client in clients]
        self.assertGreater(answers.count(PONG), 70)
        self.assertIn(b"-ERR max number of clients reached\r\n", answers)
        self.assertEqual({PONG, b"-ERR max number of clients reached\r\n"}, set(answers))
        server.stop()
        server.start()
        served = clients[answers.index(PONG)]
        wait_for(lambda: served.command("PING") == PONG, 5 * SLOWNESS, "Valkey is back")
        self.assertEqual(200, nearkey.get("/readyz")[0])

    def prepared_nearkey(self, url):
        nearkey = Nearkey(self.directory, url)
        self.addCleanup(nearkey.kill)
        self.addCleanup(nearkey.stop)
        return nearkey

    def ask(self, client):
        try:
            return client.command("PING", timeout=5)
        except (BrokenPipeError, ConnectionResetError):
            return client.read_to_end()[0]

    def test_a_probe_is_answered_beside_many_connections_that_ask_nothing(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        crowd = []
        self.addCleanup(lambda: [one.close() for one in crowd])
        for _ in range(120):
            one = socket.socket(socket.AF_UNIX)
            one.connect(nearkey.admin_path)
            one.sendall(b"GET /livez HT")
            crowd.append(one)
        for _ in range(5):
            taken = seconds_of(lambda: self.assertEqual(200, self.get_livez(nearkey)))
            self.assertLess(taken, 0.3 * SLOWNESS)


    def get_livez(self, nearkey):
        while True:
            try:
                return nearkey.get("/livez")[0]
            except BlockingIOError:  # The backlog is full: a connect that waits would wait.
                time.sleep(0.01)


if __name__ == "__main__":
    unittest.main()
