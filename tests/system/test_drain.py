"""faults.md row 59: SIGTERM under load. Over a Unix socket no request is lost: what a client could
send is answered, what it could not send it knows of (EPIPE)."""

import errno
import signal
import time
import unittest

from harness import SLOWNESS, Nearkey, SystemTest, free_port, proxy_only, wait_for
from load import IncrementLoad
from resp import RespClient, encode

PONG = b"+PONG\r\n"


@proxy_only
class DrainTest(SystemTest):
    def test_row_59_no_command_is_lost_under_load(self):
        """faults.md row 59: every command that was sent is answered, every other one fails with
        EPIPE or finds nobody."""
        server = self.start_server()
        for _ in range(3):
            nearkey = self.start_nearkey(server.url, settings={"server.drain_timeout_ms": 20000})
            load = IncrementLoad(nearkey.client, workers=12, depth=20).start()
            self.addCleanup(load.stop)
            wait_for(lambda: load.total("acknowledged") > 3000, 10, "the load runs")
            begin = time.monotonic()
            nearkey.stop()
            took = time.monotonic() - begin
            # On a busy machine a client notices later than we do.
            wait_for(lambda: load.connections_lost > 0, 10, "somebody was drained")
            load.stop()
            self.assertLess(took, 5 * SLOWNESS, "it waited for something that nobody owed")
            self.assertEqual(0, load.total("unknown"))
            with server.client() as direct:
                load.check(self, direct)
            server.run("FLUSHALL")

    def stopped_with(self, nearkey, number, *, before):
        """Does `before` while the process is stopped, so that nearkey sees it and the signal at
        the same time."""
        nearkey.freeze()
        before()
        nearkey.signal(number)
        nearkey.thaw()

    def test_who_waits_in_the_backlog_is_answered(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        waiting = []

        def connect():
            for number in range(20):
                client = nearkey.client()
                self.addCleanup(client.close)
                client.send(encode("INCR", "n") + encode("PING"))
                waiting.append(client)

        self.stopped_with(nearkey, signal.SIGTERM, before=connect)
        for client in waiting:
            data, end = client.read_to_end()
            self.assertTrue(data.startswith(b":") and data.endswith(PONG), data)
            self.assertEqual("eof", end)
        self.assertEqual(0, nearkey.process.wait(10 * SLOWNESS))
        self.assertEqual(b"20", server.run("GET", "n"))

    def test_what_was_sent_is_run_and_what_comes_later_can_not_be_sent(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"limits.in_flight_per_client_max": 10})
        client = nearkey.client()
        self.addCleanup(client.close)
        client.command("PING")
        count = 2000
        self.stopped_with(
            nearkey,
            signal.SIGTERM,
            before=lambda: client.send(encode("INCR", "n") * count + b"*2\r\n$4\r\nINCR\r\n"),
        )
        data, end = client.read_to_end()
        self.assertEqual("eof", end)
        self.assertEqual([b":%d" % n for n in range(1, count + 1)], data.split(b"\r\n")[:-1])
        with self.assertRaises(OSError) as refused:
            client.send(b"$1\r\nn\r\n")
        self.assertEqual(errno.EPIPE, refused.exception.errno)
        self.assertEqual(str(count).encode(), server.run("GET", "n"))

    def check_blocked_client_is_served(self, server, nearkey, client):
        """It waits in BLPOP when the drain begins, gets its reply, and only then its end."""
        client.send(encode("BLPOP", "l", "0"))
        wait_for(
            lambda: any(row["cmd"] == "blpop" for row in server.clients()), 5, "it is waiting"
        )
        nearkey.signal(signal.SIGTERM)
        nearkey.wait_logged("draining")
        server.run("RPUSH", "l", "x")
        self.assertEqual(b"*2\r\n$1\r\nl\r\n$1\r\nx\r\n", client.read_reply())
        self.assertEqual((b"", "eof"), client.read_to_end())

    def test_a_client_in_a_blocking_command_is_waited_for(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url, settings={"server.drain_timeout_ms": 30000})
        client = nearkey.client()
        self.addCleanup(client.close)
        self.check_blocked_client_is_served(server, nearkey, client)
        self.assertEqual(0, nearkey.process.wait(10 * SLOWNESS))

    def test_a_tunnel_and_a_transaction_end(self):
        server = self.start_server()
        nearkey = Nearkey(self.directory, server.url, settings={"server.drain_timeout_ms": 30000})
        self.addCleanup(nearkey.kill)
        nearkey.start()
        subscriber, queuing = nearkey.client(), nearkey.client()
        for client in (subscriber, queuing):
            self.addCleanup(client.close)
        subscriber.command("SUBSCRIBE", "c")
        queuing.command("MULTI")
        queuing.command("SET", "k", "v")
        begin = time.monotonic()
        nearkey.stop()
        self.assertLess(time.monotonic() - begin, 5 * SLOWNESS)
        self.assertEqual((b"", "eof"), subscriber.read_to_end())
        self.assertEqual((b"", "eof"), queuing.read_to_end())
        self.assertIsNone(server.run("GET", "k"))

    def test_over_tcp_what_is_owed_is_delivered(self):
        server = self.start_server()
        port = free_port()
        nearkey = self.start_nearkey(
            server.url, listen=[f"{self.directory}/nearkey.sock", f"tcp:127.0.0.1:{port}"]
        )
        client = RespClient(("127.0.0.1", port))
        self.addCleanup(client.close)
        self.assertEqual(PONG, client.command("PING"))
        self.check_blocked_client_is_served(server, nearkey, client)


if __name__ == "__main__":
    unittest.main()
