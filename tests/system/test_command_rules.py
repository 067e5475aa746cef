"""Which commands a listener's rules refuse (server.commands, [[listener]] commands), wherever they
come from: alone, in pipelines, transactions, tunnels and scripts, behind AUTH, on a near-cache hit.

The oracle is Valkey itself: a second server whose default user has the same rules."""

import unittest

from harness import EVERY_COMMAND, is_server, proxy_only, wait_for
from listeners import ListenerTest
from near_cache import explain
from resp import RespClient, encode, mask_ids, parse
from test_reload import ReloadTest

REDIS_7_0 = "Redis server v=7.0."
OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
RULES = "+@all -flushall -getset -config|set -object -select +select|0 -acl|deluser -psubscribe"


def noperm(name, user="default"):
    who = "this user" if is_server(REDIS_7_0) else f"User {user}"
    return f"-NOPERM {who} has no permissions to run the '{name}' command\r\n".encode()


def in_one_write(client, commands):
    return client.pipeline(commands)


def step_by_step(client, commands):
    return [client.command(*command) for command in commands]


@proxy_only
class RulesTest(ListenerTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.oracle = self.start_server(name="oracle")

    def start(self, rules=RULES, **settings):
        self.nearkey = self.start_nearkey(
            self.server.url, settings={"server.commands": rules, **settings}
        )
        self.limit_oracle(rules)

    def limit_oracle(self, rules):
        """All connections from now on have these rules, but for the one that says so."""
        with self.oracle.client() as client:
            limits = ("reset", "on", "nopass", "~*", "&*", *rules.split())
            self.assertEqual(OK, client.command("ACL", "SETUSER", "default", *limits))

    def client(self, address=None):
        client = RespClient(address or self.nearkey.path)
        self.addCleanup(client.close)
        return client

    def assert_same(self, commands, after=(("PING",), ("GET", "k"))):
        """The same bytes as from the oracle, in RESP2 and RESP3, in one write and step by step."""
        replies = None
        for protocol in ("2", "3"):
            for way in (in_one_write, step_by_step):
                with self.subTest(commands, protocol=protocol, way=way.__name__):
                    talk = [("HELLO", protocol), ("DEL", "k", "l"), *commands, *after]
                    expected = way(self.client(self.oracle.path), talk)
                    replies = way(self.client(), talk)
                    for right, reply in zip(expected[2:], replies[2:], strict=True):
                        self.assertEqual(mask_ids(right), mask_ids(reply))
        return replies[2:]


class PlacesTest(RulesTest):
    def test_a_refused_command_has_the_words_of_the_server(self):
        self.start()
        for name, *commands in (
            ("flushall", ("FLUSHALL",), ("flushALL", "ASYNC")),
            ("config|set", ("CONFIG", "SET", "hz", "11"), ("config", "sEt", "nosuch", "1")),
            ("object", ("OBJECT",)),
            ("object|help", ("OBJECT", "HELP"), ("object", "help")),
            ("object|encoding", ("OBJECT", "ENCODING", "k")),
            ("select", ("SELECT", "1"), ("SELECT", "00"), ("select", "x")),
            ("psubscribe", ("PSUBSCRIBE", "a")),
        ):
            for command in commands:
                reply = self.assert_same([command])[0]
                if command != ("OBJECT",):  # Its arity is wrong: the server says so first.
                    self.assertEqual(noperm(name), reply)
        self.assert_same([("SELECT", "0"), ("CONFIG", "GET", "hz"), ("FLUSHDB",)])
        self.assert_same([("FLUSHALL", "a", "b", "c"), ("GETSET", "k"), ("CONFIG", "SET")])
        self.assert_same([("NOSUCH", "x"), ("CONFIG", "NOSUCH"), ("OBJECT", "NOSUCH", "x")][:2])

    def test_a_pipeline_keeps_its_order(self):
        self.start()
        self.assert_same(
            [("SET", "k", "1"), ("GETSET", "k", "2"), ("GET", "k"), ("FLUSHALL",), ("INCR", "k")]
        )
        # Between commands that go over connections of their own.
        self.assert_same(
            [("GETSET", "k", "2"), ("EVAL", "return 1", "0"), ("GETSET", "k", "2")]
            + [("LPUSH", "l", "a"), ("BLPOP", "l", "0"), ("FLUSHALL",), ("INCR", "k")]
        )
        client = self.client()
        many = [("INCR", "k"), ("FLUSHALL",)] * 2000
        replies = client.pipeline(many)
        self.assertEqual({noperm("flushall")}, set(replies[1::2]))
        first = int(replies[0][1:])
        self.assertEqual([b":%d\r\n" % (first + i) for i in range(2000)], replies[::2])

    def test_a_transaction_with_a_refused_command_does_not_run(self):
        self.start()
        inside = [("SET", "k", "1"), ("GETSET", "k", "2"), ("SET", "k", "3")]
        replies = self.assert_same([("MULTI",), *inside, ("EXEC",)])
        self.assertEqual(noperm("getset"), replies[2])
        self.assertTrue(replies[4].startswith(b"-EXECABORT "), replies)
        self.assertEqual(b"$-1\r\n" if replies[-1][:1] == b"$" else b"_\r\n", replies[-1])
        self.assert_same([("MULTI",), *inside, ("DISCARD",), ("INCR", "k")])
        self.assert_same([("MULTI",), ("SELECT", "3"), ("EXEC",), ("MULTI",), ("PING",), ("EXEC",)])
        self.assert_same([("MULTI",), ("SELECT", "0"), ("SET", "k", "1"), ("EXEC",)])
        self.assert_same([("MULTI",), ("FLUSHALL",), ("RESET",), ("SET", "k", "1")], [("PING",)])
        self.assert_same([("WATCH", "k"), ("GETSET", "k", "1"), ("MULTI",), ("PING",), ("EXEC",)])
        self.assert_same([("WATCH", "k"), ("INCR", "k"), ("MULTI",), ("FLUSHALL",), ("EXEC",)])

    def test_a_refused_step_of_a_transaction(self):
        for word in ("multi", "exec", "discard", "watch", "unwatch"):
            with self.subTest(word):
                self.oracle = self.start_server(name=f"oracle-{word}")
                self.server.run("FLUSHALL")
                self.start(f"+@all -{word}")
                self.assert_same(
                    [("WATCH", "k"), ("EXEC",), ("INCR", "k"), ("MULTI",), ("PING",), ("EXEC",)]
                    + [("WATCH", "k"), ("MULTI",), ("SET", "k", "1"), ("EXEC",), ("EXEC",)]
                    + [("UNWATCH",), ("MULTI",), ("SET", "k", "2"), ("DISCARD",), ("INCR", "l")]
                    + [("EXEC",), ("DISCARD",)],
                    [("PING",)],
                )
                self.nearkey.stop()

    def test_in_a_tunnel_it_is_refused_at_its_place(self):
        self.start()
        for before in (
            [("CLIENT", "NO-EVICT", "ON")],
            [("SUBSCRIBE", "a")],
            [("SUBSCRIBE", "a"), ("UNSUBSCRIBE", "a")],
            [("CLIENT", "NO-EVICT", "ON"), ("MULTI",), ("SET", "k", "1")],
        ):
            self.assert_same(
                [*before, ("GETSET", "k", "1"), ("FLUSHALL",), ("PSUBSCRIBE", "b")]
                + [("EXEC",), ("NOSUCH",), ("CONFIG", "SET", "a", "b")]
            )
        self.assert_same(
            [("CLIENT", "NO-EVICT", "ON"), ("FLUSHALL",), ("RESET",), ("FLUSHALL",)], [("PING",)]
        )
        for client in (self.client(self.oracle.path), self.client()):
            client.send(
                b"".join(
                    encode(*command)
                    for command in (
                        ("CLIENT", "REPLY", "OFF"), ("FLUSHALL",), ("SET", "k", "9"),
                        ("CLIENT", "REPLY", "ON"), ("FLUSHALL",), ("CLIENT", "REPLY", "SKIP"),
                        ("FLUSHALL",), ("GET", "k"),
                    )
                )
            )  # fmt: skip
            self.assertEqual(
                [OK, noperm("flushall"), b"$1\r\n9\r\n"], client.read_replies(3)
            )

    def test_a_monitor_may_not_either(self):
        self.start("+@all -flushall -get")
        monitor, client = self.client(), self.client()
        self.assertEqual(OK, monitor.command("MONITOR"))
        monitor.send(encode("FLUSHALL"))

        def next_of(condition):
            """What nearkey asks for itself is monitored, too."""
            while not condition(reply := monitor.read_reply()):
                self.assertTrue(reply.startswith(b"+"), reply)
            return reply

        self.assertEqual(noperm("flushall"), next_of(lambda reply: reply.startswith(b"-")))
        self.assertEqual(noperm("get"), client.command("GET", "k"))
        client.command("SET", "k", "1")
        next_of(lambda reply: b'"SET" "k" "1"' in reply)

    def test_a_message_may_stand_before_the_refusal(self):
        self.start()
        subscriber = self.client()
        subscriber.command("HELLO", "3")
        subscriber.command("SUBSCRIBE", "a")
        refused = 0
        for number in range(200):
            self.server.run("PUBLISH", "a", str(number)) if number % 10 == 0 else None
            subscriber.send(encode("FLUSHALL"))
        messages = []
        while refused < 200 or len(messages) < 20:
            reply = subscriber.read_reply()
            if reply.startswith(b">"):
                messages.append(reply)
            else:
                self.assertEqual(noperm("flushall"), reply)
                refused += 1
        self.assertEqual(200, self.nearkey.metric("nearkey_commands_refused_total"))

    def test_a_script_runs_what_the_server_lets_it(self):
        """nearkey does not read scripts: the log says so of the rules, and a user of the server
        without the rights is what holds."""
        self.start("+@all -flushall -subscribe")
        client = self.client()
        self.nearkey.wait_logged('"event":"rules_do_not_hold_in_scripts"')
        [warning] = [
            e for e in self.nearkey.logs() if e["event"] == "rules_do_not_hold_in_scripts"
        ]
        self.assertEqual("flushall", warning["commands"])
        script = ("EVAL", "return redis.call('FLUSHALL')", "0")
        client.command("SET", "k", "1")
        self.assertEqual(noperm("flushall"), client.command("FLUSHALL"))
        self.assertEqual(b"$1\r\n1\r\n", client.command("GET", "k"))
        self.assertEqual(OK, client.command(*script))
        self.assertEqual(b"$-1\r\n", client.command("GET", "k"))
        self.server.run("ACL", "SETUSER", "default", "-flushall")
        self.addCleanup(self.server.run, "ACL", "SETUSER", "default", "+@all")
        client.command("SET", "k", "1")
        words = b"The user executing the script" if is_server(REDIS_7_0) else b"ACL failure"
        self.assertTrue(client.command(*script).startswith(b"-ERR " + words))
        self.assertEqual(b"$1\r\n1\r\n", client.command("GET", "k"))

    def test_a_refused_script_command_leaves_no_way(self):
        self.start("+@all -flushall -@scripting")
        for command in (("EVAL", "return 1", "0"), ("SCRIPT", "LOAD", "return 1"),
                        ("FCALL", "f", "0"), ("FUNCTION", "LIST")):  # fmt: skip
            self.assert_same([command])
        self.assertFalse(
            any(e["event"] == "rules_do_not_hold_in_scripts" for e in self.nearkey.logs())
        )

    def test_row_20_who_has_authenticated_is_under_both_rules(self):
        """faults.md row 20: AUTH is answered by the server, whose rules hold; so do ours."""
        self.server.run("ACL", "SETUSER", "boss", "on", ">pw", "~*", "&*", "+@all")
        self.server.run("ACL", "SETUSER", "guest", "on", ">pw", "~*", "+get", "+flushall")
        self.start("+@all -flushall -getset")
        for login in (("AUTH", "boss", "pw"), ("HELLO", "3", "AUTH", "boss", "pw")):
            client = self.client()
            self.assertFalse(client.command(*login).startswith(b"-"))
            self.assertEqual(OK, client.command("SET", "k", "1"))
            self.assertEqual(noperm("flushall"), client.command("FLUSHALL"))
            self.assertEqual(b"boss", client.value("ACL", "WHOAMI"))
            client.command("RESET")
            self.assertEqual(noperm("flushall"), client.command("FLUSHALL"))
        guest = self.client()
        self.assertEqual(OK, guest.command("AUTH", "guest", "pw"))
        self.assertEqual(noperm("flushall"), guest.command("FLUSHALL"))
        self.assertEqual(noperm("set", "guest"), guest.command("SET", "k", "2"))
        self.assertEqual(b"$1\r\n1\r\n", guest.command("GET", "k"))

    def test_the_user_of_the_upstream_is_named(self):
        self.server.run("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
        self.nearkey = self.start_nearkey(
            f"unix://app:pw@{self.server.path}", settings={"server.commands": "+@all -flushall"}
        )
        client = self.client()
        self.assertEqual(b"app", client.value("ACL", "WHOAMI"))
        self.assertEqual(noperm("flushall", "app"), client.command("FLUSHALL"))

    def test_auth_hello_reset_and_quit_are_always_allowed(self):
        self.start("nocommands")
        self.assert_same([("PING",), ("GET", "k"), ("NOAUTH",)][:2])
        self.assert_same([("AUTH", "default", "x"), ("RESET",)], [("GET", "k")])
        self.assert_same([("HELLO", "3"), ("GET", "k"), ("HELLO", "2"), ("QUIT",)], [])


class DefaultTest(RulesTest):
    def test_the_default_refuses_what_hurts_everybody(self):
        self.nearkey = self.start_nearkey(self.server.url)
        client = self.client()
        for name, command in (
            ("shutdown", ("SHUTDOWN",)),
            ("debug", ("DEBUG", "SLEEP", "0")),
            ("config|set", ("CONFIG", "SET", "maxmemory", "1")),
            ("acl|setuser", ("ACL", "SETUSER", "eve", "on")),
            ("module|load", ("MODULE", "LOAD", "/x.so")),
            ("replicaof", ("REPLICAOF", "127.0.0.1", "1")),
            ("slaveof", ("SLAVEOF", "127.0.0.1", "1")),
            ("failover", ("FAILOVER",)),
            ("sync", ("SYNC",)),
            ("psync", ("PSYNC", "?", "-1")),
            ("cluster|meet", ("CLUSTER", "MEET", "127.0.0.1", "1")),
            ("save", ("SAVE",)),
        ):
            self.assertEqual(noperm(name), client.command(*command), command)
        self.assertEqual(12, self.nearkey.metric("nearkey_commands_refused_total"))
        for command in (("CONFIG", "GET", "hz"), ("FLUSHALL",), ("KEYS", "*"), ("CLIENT", "LIST"),
                        ("INFO",), ("ACL", "WHOAMI"), ("BGREWRITEAOF",)):  # fmt: skip
            self.assertFalse(client.command(*command).startswith(b"-NOPERM"), command)
        events = {e["event"] for e in self.nearkey.logs()}
        self.assertFalse(events & {"rules_without_effect", "rules_do_not_hold_in_scripts"}, events)

    def test_everything_may_be_allowed(self):
        self.nearkey = self.start_nearkey(self.server.url, settings=EVERY_COMMAND)
        client = self.client()
        self.assertEqual(OK, client.command("CONFIG", "SET", "hz", "20"))
        self.assertEqual(OK, client.command("DEBUG", "SLEEP", "0"))

    def test_a_name_that_the_server_does_not_know_is_said_once(self):
        self.start_nearkey(
            self.server.url,
            settings={"server.commands": "+@all -flush_all -@json -config|sett -select|0"},
        )
        [nearkey] = [self._cleanups[-1][0].__self__]
        entry = wait_for(
            lambda: [e for e in nearkey.logs() if e["event"] == "rules_without_effect"], 10, "it"
        )
        self.assertEqual(1, len(entry))
        self.assertEqual("flush_all @json config|sett select|0", entry[0]["names"])


class OtherServerTest(RulesTest):
    def test_a_server_with_other_commands_is_under_the_same_rules(self):
        """All commands behind those that are missing have another place in the table."""
        self.start("+@all -getset -config|set -@scripting +evalsha")
        client = self.client()
        names = [entry[0].decode() for entry in parse(client.command("COMMAND"))]

        def refused():
            asked = [("NEARKEY", "EXPLAIN", name, *["x"] * 9) for name in names]
            replies = client.pipeline(asked)
            return [n for n, reply in zip(names, replies) if b"refused by rule" in reply]

        before = refused()
        self.assertIn("eval", before)
        self.server.stop()
        gone = ("append", "blpop", "copy", "decr", "echo", "expire", "get", "hget", "incr")
        self.server.start(*[word for name in gone for word in ("--rename-command", name, "")])
        self.nearkey.wait_ready()

        def is_learned():
            client.command("GET", "k")
            return b"does not know" in client.command("NEARKEY", "EXPLAIN", "GET", "k")

        wait_for(is_learned, 10, "the commands of this server are known")
        self.assertEqual(before, refused())
        self.assertEqual(noperm("getset"), client.command("GETSET", "k", "1"))
        self.assertEqual(noperm("config|set"), client.command("CONFIG", "SET", "hz", "1"))
        self.assertEqual(b":1\r\n", client.command("SETNX", "k", "1"))


class CacheTest(RulesTest):
    def test_a_hit_is_refused_as_well(self):
        """What nearkey answers itself is under the rules: near-cache hits, its own commands."""
        self.start_listeners({"full": 'commands = "+@all"', "less": 'commands = "+@all -get -mget -nearkey -client|setname"'})
        full, less = self.connect("full"), self.connect("less")
        full.command("SET", "k", "1")
        wait_for(
            lambda: full.command("GET", "k") and explain(full, "GET", "k")["cache"] == b"hit",
            10,
            "k is stored",
        )
        self.assertEqual(b"$1\r\n1\r\n", full.command("GET", "k"))
        for name, command in (
            ("get", ("GET", "k")),
            ("mget", ("MGET", "k", "l")),
            ("nearkey", ("NEARKEY", "EXPLAIN", "GET", "k")),
            ("client|setname", ("CLIENT", "SETNAME", "me")),
        ):
            self.assertEqual(noperm(name), less.command(*command))
        self.assertEqual(b"$1\r\n1\r\n", less.command("GETRANGE", "k", "0", "-1"))

    def test_explain_says_which_commands_are_refused(self):
        self.start("+@all -get -config|set")
        client = self.client()
        for command in (("GET", "k"), ("CONFIG", "SET", "a", "b")):
            self.assertEqual(b"refused by rule", explain(client, *command)["route"])
            self.assertEqual(b"bypassed", explain(client, *command)["cache"])
        self.assertEqual(b"dedicated", explain(client, "CONFIG", "GET", "a")["route"])


class ListenersTest(RulesTest):
    def test_two_listeners_on_one_upstream_have_rules_of_their_own(self):
        self.start_listeners(
            {"reader": 'commands = "+@read +@connection"', "plain": "", "all": 'commands = "+@all"'}
        )
        reader, plain, everything = (self.connect(name) for name in ("reader", "plain", "all"))
        self.assertEqual(OK, plain.command("SET", "k", "1"))
        self.assertEqual(b"$1\r\n1\r\n", reader.command("GET", "k"))
        self.assertEqual(noperm("set"), reader.command("SET", "k", "2"))
        self.assertEqual(noperm("multi"), reader.command("MULTI"))
        self.assertEqual(noperm("config|set"), plain.command("CONFIG", "SET", "hz", "20"))
        self.assertEqual(OK, everything.command("CONFIG", "SET", "hz", "20"))

    def test_a_listener_without_rules_has_those_of_the_server_table(self):
        self.start_listeners(
            {"plain": "", "own": 'commands = "+@all -flushdb"'},
            settings={"server.commands": "+@all -flushall"},
        )
        plain, own = self.connect("plain"), self.connect("own")
        self.assertEqual(noperm("flushall"), plain.command("FLUSHALL"))
        self.assertEqual(OK, plain.command("FLUSHDB"))
        self.assertEqual(noperm("flushdb"), own.command("FLUSHDB"))
        self.assertEqual(OK, own.command("FLUSHALL"))


@proxy_only
class ReloadedRulesTest(ReloadTest):
    def rules(self, server, text):
        return self.settings(server.url, f'commands = "{text}"\n')

    def test_changed_rules_hold_for_all_clients_at_once(self):
        server = self.start_server()
        self.start(self.rules(server, "+@all"))
        old, tunnel, inside = self.client(), self.client(), self.client()
        self.assertEqual(OK, old.command("SET", "k", "1"))
        wait_for(
            lambda: old.command("GET", "k") and explain(old, "GET", "k")["cache"] == b"hit",
            10,
            "k is stored",
        )
        self.assertEqual(OK, tunnel.command("CLIENT", "NO-EVICT", "ON"))
        self.assertEqual(OK, inside.command("MULTI"))
        self.assertEqual(b"+QUEUED\r\n", inside.command("GET", "k"))
        self.write(self.rules(server, "+@all -get"))
        reloaded = self.hang_up()
        self.assertEqual("reloaded", reloaded["event"])
        self.assertEqual("server.commands: \"+@all\" -> \"+@all -get\"", reloaded["changes"])
        for client in (old, tunnel, inside, self.client()):
            self.assertEqual(noperm("get"), client.command("GET", "k"))
        self.assertTrue(inside.command("EXEC").startswith(b"-EXECABORT "))
        self.write(self.rules(server, "+@all"))
        self.hang_up()
        for client in (old, tunnel, inside, self.client()):
            self.assertEqual(b"$1\r\n1\r\n", client.command("GET", "k"))

    def test_bad_rules_change_nothing(self):
        server = self.start_server()
        self.start(self.rules(server, "+@all -get"))
        client = self.client()
        self.write(self.rules(server, "+@all -@dangerus"))
        refused = self.hang_up()
        self.assertEqual("reload_refused", refused["event"])
        self.assertIn('"-@dangerus" names no category of commands', refused["reason"])
        self.assertEqual(noperm("get"), client.command("GET", "k"))


del ListenerTest, ReloadTest, RulesTest

if __name__ == "__main__":
    unittest.main()
