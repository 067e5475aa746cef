"""What a tunnel's connection is: its user, name, database and protocol; and how a session comes
into a tunnel and out of it again in the middle of a pipeline (faults.md, row 20;
traps.md, P3, P4)."""

import unittest

from harness import SLOWNESS, SystemTest, proxy_only, wait_for
from leases import LeaseTest, client_row, wait_leased
from resp import encode, mask_ids, parse

OK, PONG = b"+OK\r\n", b"+PONG\r\n"
STATE = ("name", "lib-name", "lib-ver", "db", "resp", "user")
RESET = ("RESET",)
# Each is one pipeline; a reply at the wrong place, or of another session's state, shows.
PIPELINES = [
    [("SET", "k", "0"), ("CLIENT", "NO-EVICT", "ON"), ("GET", "k"), RESET, ("GET", "k")],
    [("SUBSCRIBE", "c"), RESET, ("SET", "k", "1"), ("GET", "k")],
    [("SELECT", "3"), ("SET", "k", "3"), ("CLIENT", "NO-TOUCH", "ON"), ("GET", "k"), RESET,
     ("GET", "k"), ("SELECT", "3"), ("GET", "k")],
    [("HELLO", "3"), ("GET", "none"), ("CLIENT", "NO-EVICT", "ON"), ("GET", "none"), ("HELLO", "2"),
     ("GET", "none"), ("HELLO", "3"), RESET, ("GET", "none")],
    [("CLIENT", "SETNAME", "a"), ("READONLY",), ("CLIENT", "GETNAME"), ("CLIENT", "SETNAME", "b"),
     ("CLIENT", "GETNAME"), RESET, ("CLIENT", "GETNAME")],
    [("AUTH", "limited", "pw"), ("GET", "k"), ("SET", "k", "1"), RESET, ("SET", "k", "1")],
    [("SET", "k", "v"), ("AUTH", "limited", "pw"), ("GET", "k"), ("SELECT", "2"), ("GET", "k"),
     ("HELLO", "3"), ("GET", "none"), RESET, ("GET", "k"), ("GET", "none")],
    [("HELLO", "3", "AUTH", "limited", "pw", "SETNAME", "me"), ("GET", "k"), ("SET", "k", "1"),
     ("HELLO", "2", "AUTH", "default", "any"), ("SET", "k", "1"), ("GET", "k")],
    [RESET, ("READWRITE",), RESET, RESET, ("READONLY",), RESET, ("PING",)],
    [("MULTI",), ("SET", "k", "1"), RESET, ("CLIENT", "NO-EVICT", "ON"), ("EXEC",), RESET,
     ("EXEC",), ("GET", "k")],
    [("WATCH", "k"), ("CLIENT", "NO-EVICT", "ON"), ("SET", "k", "1"), ("MULTI",), ("PING",),
     ("EXEC",), RESET, ("MULTI",), ("PING",), ("EXEC",)],
    [("CLIENT", "NO-EVICT", "ON"), ("MULTI",), ("SELECT", "4"), ("SET", "k", "4"), ("EXEC",),
     ("GET", "k"), RESET, ("GET", "k")],
    [("CLIENT", "NO-EVICT", "ON"), ("RPUSH", "l", "v"), ("BLPOP", "l", "0"), ("BLPOP", "l", "0.01"),
     RESET, ("BLPOP", "l", "0.01"), ("PING",)],
    [("CLIENT", "NO-EVICT", "ON"), ("EVAL", "return {1}", "0"), RESET, ("EVAL", "return 3", "0")],
    [("CLIENT", "NO-EVICT", "ON"), ("RESET", "x"), ("NOSUCH",), ("CLIENT", "GETNAME"), RESET],
    [("ASKING",), ("GET", "k"), ("CLIENT", "TRACKINGINFO"), ("CLIENT", "GETREDIR"), RESET],
    [("AUTH",), ("AUTH", "a", "b", "c", "d"), ("SELECT", "x"), ("AUTH", "any"), ("PING",)],
]  # fmt: skip


class PipelineTest(LeaseTest):
    def setUp(self):
        super().setUp()
        self.server.run("ACL", "SETUSER", "limited", "on", ">pw", "~*", "+get", "+ping", "+reset",
                        "+hello", "+select", "+auth")  # fmt: skip

    def in_one_write(self, address, commands):
        client = self.client_of(address)
        try:
            return client.pipeline(commands)
        finally:
            client.close()

    def step_by_step(self, address, commands):
        client = self.client_of(address)
        try:
            return [client.command(*command) for command in commands]
        finally:
            client.close()

    def repeated(self, address, commands):
        return self.in_one_write(address, (commands + [("DEL", "k", "l"), RESET]) * 5)

    def test_trap_P4_in_and_out_of_a_tunnel_keeps_the_order_of_replies(self):
        for commands in PIPELINES:
            for way in (self.in_one_write, self.step_by_step):
                with self.subTest(commands, way=way.__name__):
                    self.assert_same_talk(way, commands)

    def test_trap_P4_in_and_out_again_and_again(self):
        for commands in PIPELINES:
            with self.subTest(commands):
                self.assert_same_talk(self.repeated, commands)

    def test_what_follows_reset_may_come_later_or_byte_by_byte(self):
        data = b"".join(
            encode(*command)
            for command in [("SUBSCRIBE", "c"), RESET, ("SET", "k", "v"), ("GET", "k"), RESET]
        )
        expected = self.client_of(self.server.path).pipeline(
            [("SUBSCRIBE", "c"), RESET, ("SET", "k", "v"), ("GET", "k"), RESET]
        )
        for cut in range(1, len(data)):
            client = self.client()
            client.send(data[:cut])
            if cut > len(encode("SUBSCRIBE", "c")):
                self.assertEqual(expected[0], client.read_reply())
                client.send(data[cut:])
                self.assertEqual(expected[1:], client.read_replies(4))
            else:
                client.send(data[cut:])
                self.assertEqual(expected, client.read_replies(5))
            client.close()


class StateTest(LeaseTest):
    def state(self, address, prepare, enter):
        """The state of the connection as CLIENT INFO tells it."""
        client = self.client_of(address)
        client.pipeline(prepare)
        client.pipeline(enter)
        text = client.value("CLIENT", "INFO").decode()
        client.close()
        row = dict(field.split("=", 1) for field in text.split())
        return {name: row[name] for name in STATE}

    def test_a_tunnel_has_exactly_the_state_of_the_session(self):
        self.server.run("ACL", "SETUSER", "other", "on", ">pw", "allkeys", "allcommands")
        name, library = ("CLIENT", "SETNAME", "me"), ("CLIENT", "SETINFO", "lib-name", "mine")
        version, select = ("CLIENT", "SETINFO", "lib-ver", "1.2"), ("SELECT", "7")
        hello = ("HELLO", "3", "SETNAME", "hello")
        for prepare in (
            [],
            [name],
            [name, library, version, select],
            [library, version, hello, select],
            [hello, ("HELLO", "2"), ("CLIENT", "SETNAME", "")],
            [name, library, version, select, RESET],
            [name, ("CLIENT", "ID"), ("CLIENT", "SETNAME", "in tunnel".replace(" ", "-"))],
            [name, library, ("CLIENT", "ID"), RESET],
            [hello, ("WATCH", "k"), select, name],
        ):
            for enter in (
                [("CLIENT", "ID")],
                [("CLIENT", "NO-EVICT", "ON"), ("SELECT", "5")],
                [("AUTH", "other", "pw")],
                [("HELLO", "3", "AUTH", "other", "pw", "SETNAME", "x")],
            ):
                with self.subTest(prepare, enter=enter):
                    oracle = self.state(self.server.path, prepare, enter)
                    self.assertEqual(oracle, self.state(self.address, prepare, enter))
                    if ("CLIENT", "ID") not in prepare:
                        self.wait_leased(0)

    @proxy_only
    def test_a_lease_has_the_name_of_its_client_and_nothing_of_the_one_before(self):
        for number in range(5):
            client = self.client()
            if number % 2:
                client.pipeline(
                    [
                        ("CLIENT", "SETNAME", f"n{number}"),
                        ("CLIENT", "SETINFO", "lib-name", "lib"),
                        ("CLIENT", "SETINFO", "lib-ver", "9"),
                    ]
                )
            client.send(encode("BLPOP", "l", "0"))
            self.wait_blocked(1)
            row = client_row(self.server, cmd="blpop")
            expected = (f"n{number}", "lib", "9") if number % 2 else ("", "", "")
            self.assertEqual(expected, (row["name"], row["lib-name"], row["lib-ver"]))
            self.direct.command("RPUSH", "l", "v")
            client.read_reply()
            self.wait_leased(0)

    def test_reset_gives_the_connection_back_and_the_session_goes_on(self):
        client = self.client()
        client.pipeline([("HELLO", "3", "SETNAME", "me"), ("SELECT", "2"), ("SET", "k", "two")])
        self.direct.command("SET", "k", "zero")
        for _ in range(10):
            client.command("CLIENT", "NO-EVICT", "ON")
            self.wait_leased(1)
            self.assertEqual(b"+RESET\r\n", client.command("RESET"))
            self.wait_leased(0)
            self.assertEqual(
                [b"$-1\r\n", b"$4\r\nzero\r\n", b"$-1\r\n"],
                client.pipeline([("CLIENT", "GETNAME"), ("GET", "k"), ("GET", "none")]),
            )
            self.assertEqual(OK, client.pipeline([("SELECT", "2"), ("HELLO", "3")])[0])
            self.assertEqual(b"two", client.value("GET", "k"))


@proxy_only
class AnotherUserTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.set_user("on", ">pw", "~mine:*", "&*", "+get", "+set", "+ping")
        self.nearkey = self.start_nearkey(self.server.url, settings={"upstream.connections": 1})
        self.oracle = self.server.client()
        self.addCleanup(self.oracle.close)

    def set_user(self, *rules):
        self.assertEqual(b"OK", self.server.run("ACL", "SETUSER", "limited", *rules))

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def assert_same(self, client, *command):
        expected = self.oracle.command(*command)
        self.assertEqual(mask_ids(expected), mask_ids(client.command(*command)))
        return expected

    def test_row_20_the_rules_of_another_user_hold_for_that_session_alone(self):
        client, other = self.client(), self.client()
        self.assertEqual(OK, other.command("SET", "theirs", "v"))
        self.assertEqual(OK, self.assert_same(client, "AUTH", "limited", "pw"))
        self.assertEqual(OK, self.assert_same(client, "SET", "mine:k", "v"))
        for command in (("GET", "theirs"), ("DEL", "mine:k"), ("FLUSHALL",), ("CLIENT", "ID"),
                        ("EVAL", "return 1", "0"), ("MULTI",), ("SUBSCRIBE", "c")):  # fmt: skip
            self.assertTrue(self.assert_same(client, *command).startswith(b"-NOPERM "), command)
            self.assertEqual(b"v", other.value("GET", "theirs"))
        self.assertEqual(1, other.value("DEL", "theirs"))
        self.assert_same(client, "GET", "mine:k")
        wait_leased(self.nearkey, 1)
        client.close()
        wait_leased(self.nearkey, 0)
        self.assertEqual(b":1\r\n", self.client().command("EVAL", "return 1", "0"))

    def test_row_20_a_revoked_right_is_gone_at_once(self):
        clients = [self.client() for _ in range(3)]
        for client in [self.oracle, *clients]:
            client.command("AUTH", "limited", "pw")
            self.assertEqual(b"$-1\r\n", client.command("GET", "mine:k"))
        self.set_user("-get")
        expected = self.oracle.command("GET", "mine:k")
        self.assertTrue(expected.startswith(b"-NOPERM "), expected)
        for client in clients:
            self.assertEqual(expected, client.command("GET", "mine:k"))
            self.assertEqual(OK, client.command("SET", "mine:k", "v"))
        self.assertEqual(b"v", self.client().value("GET", "mine:k"))

    def test_row_20_a_deleted_user_is_disconnected(self):
        clients, other = [self.client() for _ in range(3)], self.client()
        for client in clients:
            self.assertEqual(OK, client.command("AUTH", "limited", "pw"))
        self.assertEqual(1, self.server.run("ACL", "DELUSER", "limited"))
        for client in clients:
            self.assertEqual((b"", "eof"), client.read_to_end())
        wait_leased(self.nearkey, 0)
        self.assertEqual(PONG, other.command("PING"))
        self.assertTrue(other.command("AUTH", "limited", "pw").startswith(b"-WRONGPASS "))

    def test_a_wrong_password_is_refused_in_the_words_of_the_server(self):
        for command in (
            ("AUTH", "limited", "wrong"),
            ("AUTH", "nobody", "pw"),
            ("AUTH", "pw"),
            ("AUTH", "default", "any"),
            ("HELLO", "3", "AUTH", "limited", "wrong"),
            ("HELLO", "3", "AUTH", "limited", "wrong", "SETNAME", "me"),
            ("HELLO", "2", "AUTH", "nobody"),
            ("HELLO", "3", "AUTH", "limited", "pw", "SETNAME", "a b"),
            ("HELLO", "3", "AUTH", "limited", "pw", "NOSUCH"),
            ("HELLO", "4", "AUTH", "limited", "pw"),
        ):
            with self.subTest(command):
                self.oracle.command("RESET")
                client = self.client()
                self.assert_same(client, *command)
                self.assert_same(client, "GET", "none")
                self.assert_same(client, "CLIENT", "GETNAME")
        self.assertEqual(0, self.nearkey.metric("nearkey_auth_failures_total"), "they are not ours")
        self.assertEqual(200, self.nearkey.ready_status())

    def test_trap_P3_a_failing_auth_in_a_pipeline_shifts_nothing(self):
        """The server may swallow an error; what it sends is what the client gets."""
        commands = [("SET", "mine:k", "1"), ("AUTH", "limited", "wrong"), ("GET", "mine:k")]
        commands += [("AUTH", "limited", "pw"), ("GET", "mine:k"), ("GET", "theirs"), ("PING",)]
        for count in range(1, len(commands) + 1):
            client, other = self.client(), self.client()
            replies = []
            for command in commands[:count]:
                replies.append(self.oracle.command(*command))
            self.assertEqual(replies, [client.command(*command) for command in commands[:count]])
            self.assertEqual(PONG, other.command("PING"))
            self.oracle.command("RESET")

    def test_trap_P3_a_failing_auth_after_what_nearkey_says_before_it(self):
        """On its way into a tunnel a connection is told the client's name, and a write was before:
        no reply may be pending when the server refuses, or it says nothing."""
        for prepare in (
            [("CLIENT", "SETNAME", "me")],
            [("CLIENT", "SETINFO", "lib-name", "mine")],
            [("SET", "k", "v")],
            [("SELECT", "3"), ("SET", "k", "v"), ("CLIENT", "SETNAME", "me")],
        ):
            for command in (("AUTH", "limited", "wrong"), ("HELLO", "3", "AUTH", "nobody", "no")):
                with self.subTest(prepare, command=command):
                    # One that is ready is kept for the next.
                    self.assertEqual(b":1\r\n", self.client().command("EVAL", "return 1", "0"))
                    wait_leased(self.nearkey, 0)
                    with self.nearkey.client(timeout=2 * SLOWNESS) as client:
                        client.pipeline(prepare)
                        self.assert_same(client, *command)
                    wait_leased(self.nearkey, 0)

    def test_row_19_a_password_of_its_own_is_asked_for_by_nearkey_not_by_the_clients(self):
        """With requirepass, a client that gives the right password is let in as directly."""
        rules = ("on", ">own", "allkeys", "allchannels", "+@all")
        self.assertEqual(b"OK", self.server.run("ACL", "SETUSER", "nearkey", *rules))
        self.nearkey.stop()
        url = self.server.url.replace("unix://", "unix://nearkey:own@")
        self.nearkey = self.start_nearkey(url)
        self.assertEqual(b"OK", self.server.run("CONFIG", "SET", "requirepass", "secret"))
        self.server.password = "secret"
        client = self.client()
        self.assertEqual(PONG, client.command("PING"))
        self.assertTrue(client.command("AUTH", "wrong").startswith(b"-WRONGPASS "))
        self.assertEqual(OK, client.command("AUTH", "secret"))
        self.assertEqual(b"default", client.value("ACL", "WHOAMI"))
        client.command("RESET")
        wait_leased(self.nearkey, 0)
        self.assertEqual(b"nearkey", client.value("ACL", "WHOAMI"))
        self.assertEqual([b"x"], parse(client.pipeline([("MULTI",), ("ECHO", "x"), ("EXEC",)])[2]))
        wait_for(lambda: self.nearkey.ready_status() == 200, 5, "it stays ready")


if __name__ == "__main__":
    unittest.main()
