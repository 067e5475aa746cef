"""What rules come to for each command of the server: NEARKEY EXPLAIN against ACL DRYRUN of the
server, for a user with the same rules."""

import random
import unittest

from harness import proxy_only
from listeners import ListenerTest
from near_cache import explain
from resp import parse

RULES = [
    "+@all",
    "allcommands -@dangerous",
    "+@all -@admin -@dangerous +info +config|get",
    "nocommands",
    "nocommands +ping",
    "+@read",
    "+@read +@write -@string +get",
    "-@all +@connection -client +client|getname +client|list",
    "+@all -config -acl +config|get +acl|whoami",
    "+config|get -@fast +@slow -config|set",
    "+select|0 +debug|object +eval|x",
    "+select|0 +debug|object -@connection",
    "+@all -select +select|0 +select|9",
    "+@ALL -CONFIG|Set +Client|LIST nocommands +GET",
    "+@keyspace -@keyspace +@transaction +@scripting -evalsha",
    "+@pubsub +@stream +@geo +@hyperloglog +@bitmap +@hash +@list +@set +@sortedset +@blocking",
]
SEED = 20
RANDOM_RULES = 24
# First arguments that rules name, and one that none does.
ARGUMENTS = ["0", "object", "x", "y"]


@proxy_only
class OracleTest(ListenerTest):
    def commands(self):
        """Each command and sub-command, with as few arguments as it takes."""
        for entry in parse(self.client.command("COMMAND")):
            for name, arity, *_ in entry[9] or [entry]:
                words = name.decode().split("|")
                # "At least" may be one more, so that there is a first argument.
                size = arity if arity > 0 else max(-arity, 2)
                for argument in ARGUMENTS if size > len(words) else [""]:
                    yield [*words, *[argument] * (size - len(words))]

    def random_rules(self):
        choose = random.Random(SEED)
        entries = parse(self.client.command("COMMAND"))
        names = [entry[0].decode() for entry in entries]
        names += [child[0].decode() for entry in entries for child in entry[9]]
        categories = [name.decode() for name in parse(self.client.command("ACL", "CAT"))]
        firsts = [f"{name}|{a}" for name in ("get", "set", "select", "eval") for a in ARGUMENTS]
        for _ in range(RANDOM_RULES):
            words = [choose.choice(["+@all", "nocommands", "+@read"])]
            for _ in range(choose.randint(1, 12)):
                kind = choose.random()
                if kind < 0.4:
                    words.append(choose.choice("+-") + "@" + choose.choice(categories))
                elif kind < 0.85:
                    words.append(choose.choice("+-") + choose.choice(names))
                else:
                    words.append("+" + choose.choice(firsts))
            yield " ".join(words)

    def test_every_command_has_the_verdict_of_the_server(self):
        self.server = self.start_server()
        self.client = self.server.client()
        self.addCleanup(self.client.close)
        all_rules = [*RULES, *self.random_rules()]
        # "+nearkey" is for the question itself.
        self.start_listeners(
            {f"l{i}": f'commands = "{rules} +nearkey"' for i, rules in enumerate(all_rules)}
        )
        commands = list(self.commands())
        self.assertGreater(len(commands), 500)
        refused = 0
        for i, rules in enumerate(all_rules):
            limits = ("reset", "on", "nopass", "~*", "&*", *rules.split())
            self.assertEqual(b"+OK\r\n", self.client.command("ACL", "SETUSER", "u", *limits))
            verdicts = self.client.pipeline([("ACL", "DRYRUN", "u", *each) for each in commands])
            asked = self.connect(f"l{i}")
            asked.command("HELLO", "3")
            found = asked.pipeline([("NEARKEY", "EXPLAIN", *each) for each in commands])
            for command, verdict, said in zip(commands, verdicts, found, strict=True):
                is_allowed = verdict == b"+OK\r\n"
                if not is_allowed:
                    self.assertIn(b"has no permissions to run the", verdict, command)
                    refused += 1
                route = parse(said)[b"route"]
                self.assertEqual(
                    is_allowed, route != b"refused by rule", (rules, command, verdict, said)
                )
        print(f"{len(all_rules)} rules, {len(commands)} calls, {refused} refused")


del ListenerTest

if __name__ == "__main__":
    unittest.main()
