"""What a client sees of a Valkey that is away, lost or silent: an error (when_down = "error"), or
what it would see directly, the end of its connection. Blocking commands end it in any case."""

import os
import random
import signal
import time

from harness import SLOWNESS, free_port, proxy_only, wait_for
from listeners import ListenerTest
from resp import RespClient, encode
from service import Service, SocketUnit

OK, PONG = b"+OK\r\n", b"+PONG\r\n"
CLOSE = {"server.when_down": "close"}


@proxy_only
class WhenDownTest(ListenerTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def start(self, listen=None, **settings):
        settings = {"upstream.backoff_max_ms": 50, "near_cache.enabled": "false", **settings}
        options = {} if listen is None else {"listen": listen}
        self.nearkey = self.start_nearkey(self.server.url, settings=settings, **options)

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def assert_ends(self, client, expected=b""):
        self.assertEqual((expected, "eof"), client.read_to_end(timeout=10))

    def is_unready(self):
        return self.nearkey.metric("nearkey_ready") == 0

    def reloads(self):
        return sum('"reloaded"' in line for line in list(self.nearkey.lines))

    def closed(self):
        return self.nearkey.metric("nearkey_clients_closed_down_total")

    def stop_server(self):
        self.server.freeze()

    def test_by_default_a_command_that_is_lost_is_an_error_and_the_client_goes_on(self):
        self.start()
        client = self.client()
        self.assertEqual(PONG, client.command("PING"))
        self.stop_server()
        client.send(encode("INCR", "n") + encode("PING"))
        self.server.kill()
        first, second = client.read_replies(2)
        self.assertTrue(first.startswith(b"-UPSTREAMLOST "), first)
        self.assertTrue(second.startswith(b"-UPSTREAM"), second)
        self.assertTrue(client.command("GET", "n").startswith(b"-UPSTREAMDOWN "))
        self.server.start()
        wait_for(lambda: client.command("PING") == PONG, 10, "the same client is served again")
        self.assertEqual(0, self.closed())

    def test_with_close_it_is_the_end_of_the_connection_behind_what_was_answered(self):
        self.start(**CLOSE)
        chance = random.Random(20261128)
        ends = []
        for _ in range(12):
            client = self.client()
            answered = chance.randint(0, 5)
            client.send(encode("ECHO", "before") * answered)
            self.assertEqual([b"$6\r\nbefore\r\n"] * answered, client.read_replies(answered))
            ends.append(client)
        self.stop_server()
        for client in ends:
            # What nearkey answers itself stands behind what is lost, and is lost with it.
            words = [("INCR", "n"), ("GET", "k"), ("NEARKEY", "VERSION"), ("NOSUCH",), ("MULTI",)]
            chosen = [("INCR", "n")] + [chance.choice(words) for _ in range(chance.randint(0, 4))]
            client.send(b"".join(encode(*command) for command in chosen))
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") >= 12, 5, "all are on their way")
        self.server.kill()
        for client in ends:
            self.assert_ends(client)
        self.assertEqual(12, self.closed())

    def assert_refused(self, addresses):
        begin = time.monotonic()
        for address in addresses * 5:
            with self.assertRaises(ConnectionRefusedError, msg=address):
                RespClient(address)
        self.assertLess(time.monotonic() - begin, 0.5 * SLOWNESS)

    def answered_by(self, addresses):
        for address in addresses:
            client = RespClient(address)
            self.addCleanup(client.close)
            self.assertEqual(PONG, client.command("PING"))

    def test_with_close_connects_are_refused_while_valkey_is_away(self):
        port = free_port()
        path = os.path.join(self.directory, "nearkey.sock")
        self.start(**CLOSE, listen=[path, f"tcp:127.0.0.1:{port}"])
        addresses = [path, ("127.0.0.1", port)]
        idle = self.client()
        self.assertEqual(PONG, idle.command("PING"))
        mode = os.stat(path).st_mode
        for _ in range(3):
            self.server.kill()
            wait_for(self.is_unready, 10, "not ready")
            self.assert_refused(addresses)
            reloads = self.reloads()
            self.nearkey.signal(signal.SIGHUP)  # A reload opens nothing.
            wait_for(lambda: self.reloads() > reloads, 5, "reloaded")
            self.assert_refused(addresses)
            self.server.start()
            wait_for(lambda: not self.is_unready(), 10, "ready")
            self.answered_by(addresses)
            self.assertEqual(mode, os.stat(path).st_mode)
            # Who was idle has seen nothing of it.
            self.assertEqual(PONG, idle.command("PING"))
        self.assertEqual(0, self.nearkey.metric("nearkey_clients_refused_down_total"))

    def test_with_close_a_socket_of_systemd_accepts_and_closes(self):
        path = os.path.join(self.directory, "app.sock")
        unit = SocketUnit(path, names=["app"])
        self.addCleanup(unit.close)
        self.nearkey = Service(
            self.directory, self.server.url, unit=unit, settings=CLOSE, listen=[]
        )
        self.addCleanup(self.nearkey.kill)
        self.nearkey.start()
        self.addCleanup(self.nearkey.stop)
        self.server.kill()
        wait_for(self.is_unready, 10, "not ready")
        for _ in range(5):
            client = RespClient(path)
            self.addCleanup(client.close)
            self.assert_ends(client)
        self.assertEqual(5, self.nearkey.metric("nearkey_clients_refused_down_total"))
        self.server.start()
        wait_for(lambda: not self.is_unready(), 10, "ready")
        self.answered_by([path])

    def test_with_close_it_refuses_until_valkey_is_there_again_and_stops_as_ever(self):
        self.start(**CLOSE)
        path = self.nearkey.path
        self.server.kill()
        wait_for(self.is_unready, 10, "not ready")
        self.assert_refused([path])
        self.nearkey.stop()
        self.assertFalse(os.path.exists(path))
        self.assertFalse(os.path.exists(path + ".lock"))

    def test_with_close_a_server_that_says_nothing_ends_the_connection_too(self):
        self.start(**CLOSE, **{"upstream.request_timeout_ms": 300})
        client = self.client()
        self.assertEqual(PONG, client.command("PING"))
        self.stop_server()
        client.send(encode("GET", "k") + encode("NEARKEY", "VERSION"))
        self.assert_ends(client)

    def test_with_close_a_transaction_ends_without_a_word(self):
        self.start(**CLOSE)
        client = self.client()
        self.assertEqual([OK, b"+QUEUED\r\n"], client.pipeline([("MULTI",), ("INCR", "n")]))
        self.stop_server()
        client.send(encode("EXEC"))
        wait_for(lambda: self.nearkey.metric("nearkey_in_flight") >= 1, 5, "it is on its way")
        self.server.kill()
        self.assert_ends(client)

    def test_a_blocking_command_that_is_lost_ends_the_connection_as_directly(self):
        self.start()
        commands = [
            ("BLPOP", "q", "0"),
            ("BRPOPLPUSH", "q", "r", "0"),
            ("XREAD", "BLOCK", "0", "STREAMS", "s", "$"),
            ("BZPOPMIN", "z", "0"),
            ("WAIT", "1", "0"),
        ]
        waiting = []
        for command in commands:
            for address in (self.nearkey.path, self.server.path):
                client = RespClient(address)
                self.addCleanup(client.close)
                client.send(encode("PING") + encode(*command))
                self.assertEqual(PONG, client.read_reply())
                waiting.append(client)
        wait_for(lambda: self.blocked_clients() == 2 * len(commands), 10, "all wait")
        self.server.kill()
        for client in waiting:
            self.assert_ends(client)
        # And while it is away.
        client = self.client()
        client.send(encode("BLPOP", "q", "1"))
        self.assert_ends(client)
        self.assertTrue(self.client().command("GET", "k").startswith(b"-UPSTREAMDOWN "))

    def blocked_clients(self):
        with self.server.client() as direct:
            info = direct.command("INFO", "clients").decode()
        return int(info.split("blocked_clients:")[1].split()[0])

    def test_each_listener_has_its_own(self):
        self.nearkey = self.start_listeners({"error": "", "close": 'when_down = "close"'})
        client, other = (RespClient(self.path(name)) for name in ("error", "close"))
        self.addCleanup(client.close)
        self.addCleanup(other.close)
        for each in (client, other):
            self.assertEqual(PONG, each.command("PING"))
        self.server.kill()
        wait_for(self.is_unready, 10, "not ready")
        for each in (client, other):
            each.send(encode("GET", "k"))
        self.assertTrue(client.read_reply().startswith(b"-UPSTREAMDOWN "))
        self.assert_ends(other)
