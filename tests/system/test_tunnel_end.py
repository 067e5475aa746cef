"""RESET ends a tunnel in whatever state the connection is: silenced, a subscriber, in a transaction,
behind replies that are no RESP, while the server refuses PING. And AUTH reaches a server that
refuses nearkey's own password."""

import os
import socket
import unittest

from harness import SystemTest, proxy_only, wait_for
from leases import LeaseTest, wait_leased
from resp import encode, mask_ids, parse

OK, PONG, RESET_REPLY = b"+OK\r\n", b"+PONG\r\n", b"+RESET\r\n"
RESET = ("RESET",)
RAW_ERROR = (
    "EVAL",
    "return redis.error_reply('ERR raw\\r\\nline ends\\r\\n$99\\r\\nand more')",
    "0",
)
BEGINNINGS = {
    "nothing": [("CLIENT", "NO-EVICT", "ON")],
    "skip": [("CLIENT", "REPLY", "SKIP")],
    "skip, then a reply": [("CLIENT", "REPLY", "SKIP"), ("GET", "k"), ("CLIENT", "REPLY", "SKIP")],
    "off": [("CLIENT", "REPLY", "OFF"), ("SET", "k", "silent")],
    "an error with raw line ends": [("CLIENT", "NO-EVICT", "ON"), RAW_ERROR],
    "a status that looks like the end": [
        ("CLIENT", "NO-EVICT", "ON"),
        ("EVAL", "return redis.status_reply('RESET')", "0"),
        ("EVAL", "return redis.status_reply('OK')", "0"),
    ],
    "a value that looks like the end": [
        ("CLIENT", "NO-EVICT", "ON"),
        ("ECHO", "+RESET\r\n+OK\r\n"),
    ],
    "a subscriber": [("SUBSCRIBE", "a", "b"), ("PSUBSCRIBE", "c*")],
    "a subscriber of RESP3": [("HELLO", "3"), ("SUBSCRIBE", "a")],
    "a transaction": [("CLIENT", "NO-EVICT", "ON"), ("MULTI",), ("SET", "k", "never")],
    "a tracking client": [("HELLO", "3"), ("CLIENT", "TRACKING", "ON"), ("GET", "k")],
    "a large reply": [("CLIENT", "NO-EVICT", "ON"), ("ECHO", "x" * (9 << 20))],
    "another user": [("AUTH", "limited", "pw"), ("GET", "k"), ("SET", "k", "refused")],
}
AFTER = [("GET", "k"), ("SET", "k", "after"), ("GET", "k"), ("ECHO", "last")]


class ResetTest(LeaseTest):
    def setUp(self):
        super().setUp()
        self.server.run("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+get", "+reset", "+ping")

    def talk(self, address, commands):
        client = self.client_of(address)
        client.send(b"".join(encode(*command) for command in commands))
        data = b""
        while not data.endswith(b"$4\r\nlast\r\n"):
            self.assertTrue(client.receive_some())
            data += bytes(client.buffer)
            client.buffer.clear()
        client.close()
        return mask_ids(data)

    def test_it_ends_the_tunnel_in_every_state(self):
        for state, begin in BEGINNINGS.items():
            with self.subTest(state):
                commands = [*begin, RESET, *AFTER]
                self.server.run("SET", "k", "v")
                expected = self.talk(self.server.path, commands)
                self.server.run("SET", "k", "v")
                self.assert_bytes(expected, self.talk(self.address, commands), state.encode())
                self.wait_leased(0)

    def test_several_states_and_resets_in_one_write(self):
        commands = []
        for begin in BEGINNINGS.values():
            commands += [*begin, RESET, ("SET", "k", "v")]
        self.server.run("SET", "k", "v")
        expected = self.talk(self.server.path, commands + AFTER)
        self.server.run("SET", "k", "v")
        self.assert_bytes(expected, self.talk(self.address, commands + AFTER), b"all of them")

    def test_a_blocked_client_is_reset_when_it_has_its_reply(self):
        client = self.client()
        client.pipeline([("CLIENT", "NO-EVICT", "ON")])
        client.send(encode("BLPOP", "l", "0") + encode(*RESET) + encode("ECHO", "x"))
        self.wait_blocked(1)
        self.assertTrue(client.is_silent(0.2))
        self.direct.command("RPUSH", "l", "v")
        expected = [b"*2\r\n$1\r\nl\r\n$1\r\nv\r\n", RESET_REPLY, b"$1\r\nx\r\n"]
        self.assertEqual(expected, client.read_replies(3))

    def test_a_blocked_client_that_leaves_behind_reset_is_ended(self):
        client = self.client()
        client.pipeline([("CLIENT", "NO-EVICT", "ON")])
        client.send(encode("BLPOP", "l", "0") + encode(*RESET))
        self.wait_blocked(1)
        client.close()
        self.wait_blocked(0)

    @proxy_only
    def test_it_is_no_loss_of_a_connection(self):
        lost = 'nearkey_upstream_lost_total{reason="socket"}'
        before = self.nearkey.metrics().get(lost, 0)
        for _ in range(5):
            self.client().pipeline([("CLIENT", "NO-EVICT", "ON"), RESET, ("GET", "k")])
        self.assertEqual(before, self.nearkey.metrics().get(lost, 0))


@proxy_only
class RefusedPingTest(SystemTest):
    def test_it_ends_the_tunnel_while_the_server_says_misconf_to_ping(self):
        server = self.start_server()
        # Nothing can be saved there.
        os.mkdir(os.path.join(self.directory, "dump.rdb"))
        nearkey = self.start_nearkey(server.url)
        client, oracle = nearkey.client(), server.client()
        self.addCleanup(client.close)
        self.addCleanup(oracle.close)
        for each in (client, oracle):
            self.assertEqual(OK, each.command("CLIENT", "NO-EVICT", "ON"))
        server.run("CONFIG", "SET", "save", "3600 1")
        oracle.command("BGSAVE")
        wait_for(lambda: oracle.command("PING").startswith(b"-MISCONF"), 10, "PING is refused")
        commands = [("GET", "k"), RESET, ("GET", "k")]
        expected = oracle.pipeline(commands)
        self.assertEqual(RESET_REPLY, expected[1])
        self.assertEqual(expected, client.pipeline(commands))
        server.run("CONFIG", "SET", "save", "")


# Some 4 ms. TIME stands still in a script.
SLOW = "redis.call('INCR', 'n') for i = 1, 600000 do end"


@proxy_only
class FrozenServerTest(SystemTest):
    def test_a_server_that_is_slow_to_take_what_was_sent_gets_all_of_it(self):
        server = self.start_server()
        # A pipe of the kernel's holds some 25 of them, a tenth of the bound; all take four times it.
        bounds = {"upstream.request_timeout_ms": 300, "upstream.tombstone_timeout_ms": 700,
                  "limits.output_per_client_high_water": "16MiB",
                  "limits.output_per_client_max": "32MiB"}
        nearkey = self.start_nearkey(server.url, settings=bounds)
        client = nearkey.client()
        self.addCleanup(client.close)
        client.send(encode("CLIENT", "REPLY", "OFF") + encode("EVAL", SLOW, "0", "x" * 8192) * 1000)
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual((b"", "eof"), client.read_to_end(timeout=60))
        # What the kernel holds is run after the end.
        wait_for(lambda: server.run("GET", "n") == b"1000", 20, "all have run")

    def test_who_leaves_gives_the_place_back_though_the_server_does_not_answer(self):
        server = self.start_server()
        bounds = {"upstream.request_timeout_ms": 300, "upstream.tombstone_timeout_ms": 700}
        nearkey = self.start_nearkey(server.url, settings=bounds)
        begins = [
            [("SUBSCRIBE", "a")],
            [("HELLO", "3"), ("PSUBSCRIBE", "a*")],
            [("MONITOR",)],
            [("CLIENT", "REPLY", "OFF")],
            [("CLIENT", "NO-EVICT", "ON"), ("MULTI",), ("SET", "k", "never")],
        ]
        clients = []
        for commands in begins:
            clients.append(nearkey.client())
            self.addCleanup(clients[-1].close)
            clients[-1].send(b"".join(encode(*command) for command in commands))
        silent = nearkey.client()
        self.addCleanup(silent.close)
        silent.command("SUBSCRIBE", "b")
        wait_leased(nearkey, len(begins) + 1)
        wait_for(lambda: nearkey.metric("nearkey_upstream_tunnels") == len(begins) + 1, 5, "tunnels")
        server.freeze()
        # One that stays does not end because nothing comes.
        for client in clients:
            client.close()
        wait_leased(nearkey, 1)
        server.thaw()
        wait_for(lambda: int(server.run("PUBLISH", "b", "x")) == 1, 5, "one subscriber is left")
        self.assertEqual(b"x", parse(silent.read_reply())[2])
        self.assertIsNone(server.run("GET", "k"))
        nearkey.wait_ready(5)


@proxy_only
class OwnPasswordTest(SystemTest):
    """The server has got a password that nearkey does not know; its clients do."""

    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(self.server.url)
        self.clients = [self.server.client(), self.nearkey.client()]
        for client in self.clients:
            self.addCleanup(client.close)
            self.assertEqual(PONG, client.command("PING"))

    def begin(self, *prepare):
        for client in self.clients:
            client.pipeline(prepare)
        self.server.run("CONFIG", "SET", "requirepass", "secret")
        self.server.password = "secret"

    def assert_same(self, *command):
        oracle, client = self.clients
        expected = oracle.command(*command)
        self.assertEqual(expected, client.command(*command, timeout=3), command)
        return expected

    def test_the_clients_auth_reaches_the_server(self):
        self.begin(("SELECT", "3"), ("CLIENT", "SETNAME", "me"), ("SET", "k", "3"))
        self.assertTrue(self.assert_same("AUTH", "wrong").startswith(b"-WRONGPASS "))
        self.assert_same("GET", "k")
        self.assertTrue(self.assert_same("AUTH", "nobody", "secret").startswith(b"-WRONGPASS "))
        self.assertEqual(OK, self.assert_same("AUTH", "secret"))
        for command in (("GET", "k"), ("CLIENT", "GETNAME"), ("ACL", "WHOAMI"), ("SUBSCRIBE", "c")):
            self.assert_same(*command)
        self.assertEqual(RESET_REPLY, self.clients[1].command("RESET"))
        wait_leased(self.nearkey, 0)

    def test_with_its_user_and_protocol(self):
        self.begin(("HELLO", "3"), ("SELECT", "3"), ("SET", "k", "3"))
        self.assertEqual(OK, self.assert_same("AUTH", "default", "secret"))
        self.assert_same("GET", "none")
        self.assert_same("GET", "k")

    def test_hello_with_auth_too(self):
        self.begin(("SELECT", "3"), ("SET", "k", "3"))
        wrong = ("HELLO", "3", "AUTH", "default", "wrong")
        self.assertTrue(self.assert_same(*wrong).startswith(b"-WRONGPASS "))
        self.assert_same("GET", "none")
        for client in self.clients:
            hello = client.command("HELLO", "3", "AUTH", "default", "secret", "SETNAME", "x")
            self.assertTrue(hello.startswith(b"%7\r\n"), hello)
        for command in (("GET", "none"), ("GET", "k"), ("CLIENT", "GETNAME"), ("ACL", "WHOAMI")):
            self.assert_same(*command)


if __name__ == "__main__":
    unittest.main()
