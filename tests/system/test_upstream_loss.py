"""faults.md, rows 1 to 4, 8 and 22: the server freezes, dies, restarts, kills our connections, or
its replies are cut."""

import time
import unittest

from harness import SLOWNESS, SystemTest, proxy_only, wait_for
from load import IncrementLoad
from procfs import cpu_seconds
from relay import Relay
from resp import Closed, encode, parse

PONG = b"+PONG\r\n"
FAILED = (b"-UPSTREAMTIMEOUT", b"-UPSTREAMLOST", b"-UPSTREAMDOWN")
# With these an acknowledged write is on its way to the disk before it is acknowledged: SIGKILL
# loses none of them.
DURABLE = ("--appendonly", "yes", "--appendfsync", "no")


@proxy_only
class KilledServerTest(SystemTest):
    def test_rows_2_and_3_killed_under_load_and_restarted(self):
        server = self.start_server(args=DURABLE)
        nearkey = self.start_nearkey(server.url)
        load = IncrementLoad(nearkey.client).start()
        self.addCleanup(load.stop)
        for _ in range(3):
            before = load.total("acknowledged")
            wait_for(lambda: load.total("acknowledged") > before + 2000, 10, "the load runs")
            server.kill()
            nearkey.wait_unready(3)
            server.start()
            back = time.monotonic()
            wait_for(
                lambda: load.acknowledged_since(back) == len(load.workers),
                1.2,
                "traffic is back within a second",
            )
            nearkey.wait_ready(2)
        load.stop()
        self.assertGreater(load.total("unknown"), 0, "the server was not killed under load")
        self.assertEqual(
            0, load.connections_lost, "clients were thrown out although the errors say it all"
        )
        with server.client() as direct:
            load.check(self, direct)
        metrics = nearkey.metrics()
        self.assertGreaterEqual(metrics["nearkey_upstream_reconnects_total"], 3)
        self.assertGreater(metrics["nearkey_upstream_lost_total"], 0)

    def test_row_2_clients_are_told_what_happened(self):
        server = self.start_server()
        nearkey = self.start_nearkey(
            server.url, settings={"upstream.connections": 1, "upstream.queue_timeout_ms": 300}
        )
        client, later = nearkey.client(), nearkey.client()
        self.addCleanup(client.close)
        self.addCleanup(later.close)
        self.assertEqual(PONG, later.command("PING"))
        client.command("SET", "k", "v")
        server.freeze()
        before = nearkey.metric("nearkey_commands_total")
        client.send(encode("INCR", "n"))
        # With a ready connection a command is sent in the turn in which it is counted.
        wait_for(
            lambda: nearkey.metric("nearkey_commands_total") > before,
            2,
            "the command is on its way",
        )
        server.kill()
        self.assertTrue(client.read_reply().startswith(b"-UPSTREAMLOST"))
        begin = time.monotonic()
        reply = later.command("INCR", "n")
        self.assertTrue(reply.startswith(b"-UPSTREAMDOWN"), reply)
        took = time.monotonic() - begin
        self.assertTrue(0.2 < took < 1 * SLOWNESS, took)
        metrics = nearkey.metrics()
        self.assertEqual(1, metrics["nearkey_upstream_lost_total"])
        self.assertGreaterEqual(metrics["nearkey_upstream_down_total"], 1)

    def test_row_2_a_read_in_flight_is_retried_once_and_a_write_never(self):
        """The relay swallows requests, then the connection is cut: what had been sent was never
        answered."""
        server = self.start_server()
        relay = Relay(f"{self.directory}/relay.sock", server.path)
        self.addCleanup(relay.close)
        nearkey = self.start_nearkey(f"unix://{relay.path}", settings={"upstream.connections": 1})
        client = nearkey.client()
        self.addCleanup(client.close)
        client.command("SET", "k", "value")
        relay.freeze_replies()
        client.send(encode("GET", "k") + encode("INCR", "n") + encode("GET", "k"))
        wait_for(lambda: server.run("GET", "n") == b"1", 3, "the commands were executed")
        relay.cut_all()
        relay.thaw()
        first, write, last = client.read_replies(3)
        self.assertEqual([b"$5\r\nvalue\r\n"] * 2, [first, last])
        self.assertTrue(write.startswith(b"-UPSTREAMLOST"), write)
        self.assertEqual(b"1", server.run("GET", "n"))
        self.assertEqual(2, nearkey.metric("nearkey_reads_retried_total"))

    def test_row_3_restart_restores_the_protocol_and_the_database_of_each_client(self):
        server = self.start_server(args=DURABLE)
        nearkey = self.start_nearkey(server.url)
        clients = []
        for protocol, database in (("2", "0"), ("3", "0"), ("2", "5"), ("3", "5")):
            client = nearkey.client()
            self.addCleanup(client.close)
            client.pipeline(
                [("HELLO", protocol), ("SELECT", database), ("HSET", "h", "where", f"{database}")]
            )
            clients.append((client, protocol, database))
        server.kill()
        nearkey.wait_unready(3)
        server.start()
        nearkey.wait_ready(3)
        for client, protocol, database in clients:
            header = b"%1\r\n" if protocol == "3" else b"*2\r\n"
            self.assertEqual(
                header + b"$5\r\nwhere\r\n$1\r\n" + database.encode() + b"\r\n",
                client.command("HGETALL", "h"),
            )

    def test_row_3_many_connections_are_lost_at_once_again_and_again(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        clients = [nearkey.client() for _ in range(6)]
        for _ in range(4):
            for number, client in enumerate(clients):
                client.pipeline([("HELLO", 2 + number % 2), ("SELECT", number % 3)])
                wait_for(lambda: client.command("PING") == PONG, 3, "it is answered")
            server.kill()
            nearkey.wait_unready(3)
            used = cpu_seconds(nearkey.pid)
            time.sleep(0.3)  # A busy loop shows only over time.
            self.assertLess(cpu_seconds(nearkey.pid) - used, 0.2)
            server.start()
            nearkey.wait_ready(2)
        for client in clients:
            client.close()

    def test_row_4_connections_killed_under_load(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"upstream.connections": 2})
        load = IncrementLoad(nearkey.client).start()
        self.addCleanup(load.stop)
        killed = 0
        while killed < 20:
            moment = time.monotonic()
            wait_for(
                lambda: load.acknowledged_since(moment) == len(load.workers),
                3,
                "everybody is answered again",
            )
            killed += server.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        moment = time.monotonic()
        wait_for(
            lambda: load.acknowledged_since(moment) == len(load.workers),
            3,
            "everybody is answered again",
        )
        load.stop()
        self.assertEqual(0, load.connections_lost)
        with server.client() as direct:
            load.check(self, direct)


@proxy_only
class FrozenServerTest(SystemTest):
    def ask_tagged(self, clients):
        """Every client asks for its own value: its own reply, or an honest error. Gives the number
        of errors."""
        errors = 0
        for number, client in enumerate(clients):
            client.send(encode("GET", f"tag:{number}") + encode("SET", f"own:{number}", number))
        for number, client in enumerate(clients):
            value, written = client.read_replies(2)
            for reply, right in ((value, f"value of {number}".encode()), (written, b"OK")):
                if reply.startswith(FAILED):
                    errors += 1
                else:
                    self.assertEqual(right, parse(reply))
        return errors

    def test_row_1_frozen_for_three_seconds(self):
        server = self.start_server()
        for number in range(20):
            server.run("SET", f"tag:{number}", f"value of {number}")
        nearkey = self.start_nearkey(
            server.url,
            settings={
                "upstream.request_timeout_ms": 500,
                "upstream.unready_after_ms": 800,
                "upstream.connections": 1,
            },
        )
        clients = [nearkey.client() for _ in range(20)]
        for client in clients:
            self.addCleanup(client.close)
        self.assertEqual(0, self.ask_tagged(clients))
        # What it does before its first read is stored is no part of this.
        wait_for(lambda: nearkey.metric("nearkey_near_cache_tracking") == 1, 5, "changes are told")
        clock = nearkey.client()
        self.addCleanup(clock.close)
        server.freeze()
        frozen_at = time.monotonic()
        # The same key, never read before: one asks, the others wait for its reply.
        for client in clients:
            client.send(encode("GET", "unread") + encode("INCR", "n"))
        # Time is told by nearkey's own time-outs, so that a slow machine slows down both. GET has
        # one, and an INCR that waited behind GET has one more; the third is for what lies between.
        for _ in range(3):
            self.assertTrue(clock.command("ECHO", "tick").startswith(b"-UPSTREAMTIMEOUT"))
        self.assertGreater(time.monotonic() - frozen_at, 3 * 0.45)
        for client in clients:
            for reply in client.read_replies(2, timeout=0.1):
                self.assertTrue(reply.startswith(b"-UPSTREAMTIMEOUT"), reply)
        self.assertEqual(200, nearkey.get("/livez")[0])
        nearkey.wait_unready(1.5)
        rounds = 0
        while time.monotonic() < frozen_at + 3:
            rounds += self.ask_tagged(clients) // 40  # 40: every single command failed.
        self.assertGreaterEqual(rounds, 1)
        server.thaw()
        thawed_at = time.monotonic()
        wait_for(
            lambda: self.ask_tagged(clients) == 0,
            1.2,
            "everybody is answered within a second after SIGCONT",
        )
        nearkey.wait_ready(1)
        while time.monotonic() < thawed_at + 1:
            self.assertEqual(0, self.ask_tagged(clients))
        self.assertLessEqual(int(server.run("GET", "n") or 0), 20, "a write was sent twice")
        self.assertGreaterEqual(nearkey.metric("nearkey_upstream_timeout_total"), 40)

    def test_row_1_a_timeout_costs_no_other_request_anything(self):
        """A pause shorter than what tears a connection down: late replies are dropped, and the
        connection lives on."""
        server = self.start_server()
        nearkey = self.start_nearkey(
            server.url,
            settings={
                "upstream.request_timeout_ms": 300,
                "upstream.connections": 1,
                "near_cache.enabled": "false",  # What it asks for itself may be late, too.
                "upstream.heartbeat_interval_ms": 1000,
            },
        )
        early, late = nearkey.client(), nearkey.client()
        self.addCleanup(early.close)
        self.addCleanup(late.close)
        server.run("SET", "tag", "late")
        self.assertEqual([PONG, PONG], [early.command("PING"), late.command("PING")])
        ids = sorted(row["id"] for row in server.clients())
        with server.client() as sleeper:
            sleeper.send(encode("DEBUG", "SLEEP", "0.6"))
            time.sleep(0.1)  # The server is asleep now; nothing else can be asked of it.
            early.send(encode("SET", "tag", "early") * 50)
            for reply in early.read_replies(50):
                self.assertTrue(reply.startswith(b"-UPSTREAMTIMEOUT"), reply)
            self.assertEqual(50, nearkey.metric("nearkey_tombstones"))
            late.send(
                encode("INCR", "n") + encode("GET", "tag")
            )  # Answered within its own time, behind the tombstones.
            self.assertEqual([b":1\r\n", b"$5\r\nearly\r\n"], late.read_replies(2))
            self.assertEqual(b"+OK\r\n", sleeper.read_reply())
        wait_for(
            lambda: nearkey.metric("nearkey_tombstones") == 0, 2, "the late replies were dropped"
        )
        self.assertEqual(b"$5\r\nearly\r\n", early.command("GET", "tag"))
        # None was lost; one more may have been made for those who would have to wait.
        self.assertLessEqual(set(ids), {row["id"] for row in server.clients()})
        metrics = nearkey.metrics()
        self.assertEqual(50, metrics["nearkey_upstream_timeout_total"])
        self.assertEqual(0, metrics["nearkey_upstream_lost_total"])

    def test_row_1_a_connection_whose_tombstones_are_too_old_is_replaced(self):
        server = self.start_server()
        relay = Relay(f"{self.directory}/relay.sock", server.path)
        self.addCleanup(relay.close)
        nearkey = self.start_nearkey(
            f"unix://{relay.path}",
            settings={
                "upstream.request_timeout_ms": 200,
                "upstream.tombstone_timeout_ms": 500,
                "upstream.connections": 1,
            },
        )
        client = nearkey.client()
        self.addCleanup(client.close)
        self.assertEqual(PONG, client.command("PING"))
        before = relay.accepted
        relay.freeze_replies()
        self.assertTrue(client.command("GET", "k").startswith(b"-UPSTREAMTIMEOUT"))
        wait_for(lambda: relay.accepted > before, 4, "a new connection is dialled")
        relay.thaw()
        wait_for(lambda: client.command("GET", "k") == b"$-1\r\n", 4, "it is answered again")


@proxy_only
class CutRepliesTest(SystemTest):
    def start_relayed(self, **settings):
        self.server = self.start_server()
        self.relay = Relay(f"{self.directory}/relay.sock", self.server.path)
        self.addCleanup(self.relay.close)
        self.nearkey = self.start_nearkey(
            f"unix://{self.relay.path}", settings={"upstream.connections": 1, **settings}
        )
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def test_row_8_replies_in_one_byte_slices(self):
        client = self.start_relayed()
        self.server.run("HSET", "h", "field", b"\r\n$-1\r\n*0\r\n")
        self.relay.slice_bytes = 1
        commands = [
            ("HGETALL", "h"),
            ("GET", "none"),
            ("ECHO", "x"),
            ("EVAL", "return {1, {2, {'three'}}}", "0"),
            ("GET", "h"),
        ]
        with self.server.client() as direct:
            oracle = direct.pipeline(commands)
        self.assertEqual(oracle, client.pipeline(commands))

    def test_row_8_latency_keeps_the_order(self):
        client = self.start_relayed()
        self.relay.latency_seconds = 0.03
        for i in range(20):
            self.assertEqual(
                [b"+OK\r\n", b"$%d\r\n%d\r\n" % (len(str(i)), i)],
                client.pipeline([("SET", "k", i), ("GET", "k")]),
            )

    def test_row_8_a_reply_cut_in_the_middle_is_never_padded(self):
        client = self.start_relayed()
        self.server.run("SET", "large", b"x" * 300_000)
        for cut in (1, 5, 9, 100, 70_000, 299_999):
            with self.subTest(cut):
                self.relay.cut_after_bytes = cut
                # The read may be retried on the next connection; the cut strikes once.
                try:
                    reply = client.command("GET", "large")
                except Closed:  # Honest as well.
                    client = self.nearkey.client()
                    self.addCleanup(client.close)
                    reply = b"-UPSTREAM"
                if not reply.startswith(b"-UPSTREAM"):
                    self.assertEqual(b"$300000\r\n" + b"x" * 300_000 + b"\r\n", reply)
                self.relay.cut_after_bytes = None
                wait_for(lambda: client.command("PING") == PONG, 3, "it is answered again")

    def test_replies_that_stop_though_the_connection_stays_open_are_noticed(self):
        """TCP_USER_TIMEOUT can't see this: the peer's kernel acknowledges. The heartbeat must,
        within 2 s."""
        client = self.start_relayed()
        self.assertEqual(PONG, client.command("PING"))
        self.relay.freeze_replies()
        self.nearkey.wait_unready(2.5)
        self.relay.thaw()
        self.relay.cut_all()
        self.nearkey.wait_ready(2)

    def test_row_22_the_server_closes_us_for_our_output_buffer(self):
        server = self.start_server("--client-output-buffer-limit", "normal 1mb 0 0")
        nearkey = self.start_nearkey(server.url, settings={"upstream.connections": 1})
        client, bystander = nearkey.client(), nearkey.client()
        self.addCleanup(client.close)
        self.addCleanup(bystander.close)
        keys = [f"part:{i}" for i in range(50)]
        for key in keys:
            server.run("SET", key, b"x" * 100_000)
        server.run("SET", "mine", "yes")
        for _ in range(3):
            bystander.send(encode("GET", "mine"))
            client.send(encode("MGET", *keys) + encode("CLIENT", "SETNAME", "next"))
            reply = bystander.read_reply()
            self.assertTrue(reply == b"$3\r\nyes\r\n" or reply.startswith(b"-UPSTREAM"), reply)
            large, following = client.read_replies(2)
            self.assertTrue(large.startswith(b"-UPSTREAM"), large[:80])
            self.assertEqual(b"+OK\r\n", following)
            wait_for(
                lambda: bystander.command("GET", "mine") == b"$3\r\nyes\r\n",
                3,
                "the bystander goes on",
            )
        for reply in client.pipeline(
            [("GET", keys[0])] * 100
        ):  # Some are answered before the server closes us.
            self.assertTrue(
                reply == b"$100000\r\n" + b"x" * 100_000 + b"\r\n"
                or reply.startswith(b"-UPSTREAM"),
                reply[:80],
            )


if __name__ == "__main__":
    unittest.main()
