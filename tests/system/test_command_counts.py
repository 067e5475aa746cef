"""nearkey_commands_total and nearkey_command_errors_total: every command of a client is counted once,
by its name, and every error by its first word."""

import re
import unittest

from harness import AdminConnection, SLOWNESS, SystemTest, proxy_only, wait_for

SERIES = re.compile(r'^(nearkey_command\w+_total)\{command="([^"]*)",(\w+)="([^"]*)"\} (\d+)$', re.M)
CALLS, ERRORS = "nearkey_commands_total", "nearkey_command_errors_total"
ROUTES = {"forwarded": "nearkey_commands_forwarded_total", "local": "nearkey_commands_answered_total"}


@proxy_only
class CommandCountsTest(SystemTest):
    workers = 2

    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.nearkey = self.start_nearkey(
            self.server.url, settings={"server.workers": self.workers, "server.commands": "+@all -@dangerous"}
        )

    def counted(self, family):
        """{(command, route or code): count}, those that are not 0."""
        connection = AdminConnection(self.nearkey.admin_path, 10 * SLOWNESS)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        rows = [(row[1], row[3], int(row[4])) for row in SERIES.findall(text) if row[0] == family]
        self.assertEqual(len(rows), len({row[:2] for row in rows}), "a series twice")
        return {(command, label): count for command, label, count in rows if count > 0}

    def test_each_command_once_whichever_way_it_goes(self):
        with self.nearkey.client() as one, self.nearkey.client() as two:  # one for each event loop
            for client in (one, two):
                client.command("SET", "k", "v")
                for _ in range(5):
                    client.command("GET", "k")
            one.command("MGET", "k", "none")
            one.command("CLIENT", "SETNAME", "me")
            one.command("client", "getname")
            one.command("SELECT", "3")
            one.command("SELECT", "0")
            one.command("EVAL", "return 1", "0")
            one.command("BLPOP", "none", "0.01")
            # A transaction that arrives whole, and one step by step.
            one.pipeline([("MULTI",), ("INCR", "n"), ("INCR", "n"), ("EXEC",)])
            for command in (("WATCH", "k"), ("MULTI",), ("INCR", "n"), ("EXEC",)):
                two.command(*command)
            two.command("SUBSCRIBE", "c")  # a tunnel from here on
            two.command("PING")
            two.command("UNSUBSCRIBE", "c")
        calls = self.counted(CALLS)
        self.assertEqual(10, calls[("get", "local")] + calls[("get", "forwarded")])
        self.assertGreaterEqual(calls[("get", "local")], 1)
        expected = {"set": 2, "mget": 1, "client|setname": 1, "client|getname": 1, "select": 2, "eval": 1,
                    "blpop": 1, "multi": 2, "incr": 3, "exec": 2, "watch": 1, "subscribe": 1, "ping": 1,
                    "unsubscribe": 1}  # fmt: skip
        found = {}
        for (command, _), count in calls.items():
            found[command] = found.get(command, 0) + count
        for command, count in expected.items():
            self.assertEqual(count, found.get(command), command)
        self.assertEqual({*expected, "get"}, set(found))
        for command in ("incr", "multi", "exec", "subscribe", "ping", "eval", "blpop"):
            self.assertNotIn((command, "local"), calls)
        stats = self.nearkey.metrics()
        for route, name in ROUTES.items():
            self.assertEqual(stats[name], sum(n for (_, r), n in calls.items() if r == route))
        self.assertEqual(calls[("get", "local")], stats['nearkey_commands_total{command="get",route="local"}'])
        self.assertEqual({}, self.counted(ERRORS))

    def test_an_error_by_its_command_and_first_word(self):
        with self.nearkey.client() as client:
            client.command("SET", "k", "v")
            self.assertEqual(b"-WRONGTYPE", client.command("LPUSH", "k", "x").split(b" ")[0])
            client.command("LPUSH", "k", "x")
            client.command("SET", "k")
            client.command("NOSUCH", "x")
            client.command("CLIENT", "NOSUCH")
            client.command("EVAL", "return redis.error_reply('MYOWN words')", "0")
            client.command("EVALSHA", "0" * 40, "0")
            client.command("KEYS", "*")  # refused by a rule
            client.command("SELECT", "999")
            client.command("BLPOP", "k", "0.01")
            client.command("MULTI")
            client.command("SET", "k")
            client.command("KEYS", "*")
            client.command("EXEC")
            errors = self.counted(ERRORS)
            self.assertEqual(
                {("lpush", "WRONGTYPE"): 2, ("set", "ERR"): 2, ("unknown", "ERR"): 2, ("eval", "other"): 1,
                 ("evalsha", "NOSCRIPT"): 1, ("keys", "NOPERM"): 2, ("select", "ERR"): 1,
                 ("blpop", "WRONGTYPE"): 1, ("exec", "EXECABORT"): 1},
                errors,
            )  # fmt: skip
            self.server.kill()
            self.nearkey.wait_unready()
            wait_for(lambda: client.command("SET", "k", "v").startswith(b"-UPSTREAM"), 10, "it is away")
        away = {code for command, code in self.counted(ERRORS) if command == "set"} - {"ERR"}
        self.assertTrue(away and all(code.startswith("UPSTREAM") for code in away), away)

    def test_what_clients_make_up_makes_no_series(self):
        with self.nearkey.client() as client:
            for number in range(50):
                client.command(f"made-up-{number}", "x")
                client.command('q"uo\nte', "x")
                client.command("CLIENT", f"what-{number}")
                client.command("EVAL", f"return redis.error_reply('CODE{number} x')", "0")
        self.assertEqual({("unknown", "forwarded"): 150, ("eval", "forwarded"): 50}, self.counted(CALLS))
        self.assertEqual({("unknown", "ERR"): 150, ("eval", "other"): 50}, self.counted(ERRORS))


if __name__ == "__main__":
    unittest.main()
