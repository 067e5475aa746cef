"""Transactions before a Valkey Cluster: what they read is what a server that is none says, whatever
comes before the first key, and wherever that is."""

from harness import proxy_only
from processes import EVERY_COMMAND
from resp import encode
from test_cluster import ClusterCase

KEYS = [f"key:{number}" for number in range(6)]
# Behind MULTI and before the first key.
WITHOUT_NODE = (
    ("GET",), ("NOSUCH", "x"), ("",), ("MULTI",), ("MULTI", "x"), ("WATCH", "other"), ("UNWATCH",),
    ("EXEC", "x"), ("DISCARD", "x"), ("RESET", "x"), ("SAVE",), ("SHUTDOWN", "ABORT"),
    ("MODULE", "UNLOAD", "x"), ("CONFIG", "GET", "hz"), ("PUBLISH", "channel", "x"), ("PING",),
    ("EVAL", "return 1", "0"), ("EVAL_RO", "return {1, 'x'}", "0"), ("FCALL", "nosuch", "0"),
    ("EVAL", "return 1", "x", "other"), ("LMPOP", "0", "other", "LEFT"), ("ZUNION", "9", "other"),
    ("SUBSCRIBE",), ("CLIENT", "NOSUCH"),
)
NOT_HERE = {
    ("SELECT", "1"): b"-ERR select needs a connection to one server, which nearkey can't give before"
                     b" a cluster\r\n",
    ("CLIENT", "SETNAME", "x"): b"-ERR client|setname needs a connection to one server, which nearkey"
                                b" can't give before a cluster\r\n",
    ("DBSIZE",): b"-ERR dbsize would have to ask every node of the cluster, which nearkey can't do in"
                 b" a transaction\r\n",
    ("ACL", "DELUSER", "x"): b"-ERR acl|deluser would have to ask every node of the cluster, which"
                             b" nearkey can't do yet\r\n",
    ("CLUSTER", "INFO"): b"-ERR This instance has cluster support disabled\r\n",
}


@proxy_only
class TransactionsTest(ClusterCase):
    SETTINGS = EVERY_COMMAND

    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def check_both(self, commands):
        """The same bytes as from a server, one by one and in one write."""
        for is_pipeline in (False, True):
            replies = []
            for client in (self.server.client(), self.nearkey.client()):
                self.addCleanup(client.close)
                if is_pipeline:
                    replies.append(client.pipeline(commands))
                else:
                    replies.append([client.command(*command) for command in commands])
                client.close()
            self.assertEqual(*replies, commands)

    def test_no_command_without_a_key_decides_about_the_node(self):
        for command in WITHOUT_NODE:
            for number, key in enumerate(KEYS[:3]):
                block = [("SET", key, "1"), ("INCR", key), ("EXEC",), ("GET", key)]
                self.check_both([("MULTI",), command, *block])
                self.check_both([("MULTI",), ("PING",), command, command, *block])
                self.check_both([("WATCH", key), ("MULTI",), command, *block])
                self.check_both([("MULTI",), command, ("DISCARD",), ("GET", KEYS[number + 3])])

    def test_a_number_of_keys_that_is_none_is_judged_by_the_node_where_the_server_sees_a_key(self):
        for count in ("0", "-1", "1.5", "x", "", "100", " 1", "1x", "4294967297"):
            for key in KEYS:
                for command in (("EVAL", "return 1", count, key), ("LMPOP", count, key, "LEFT"),
                                ("ZUNION", count, key), ("SINTERCARD", count, key),
                                ("BLMPOP", "0.01", count, key, "LEFT")):
                    self.check_both([command, ("MULTI",), command, ("EXEC",)])
                    self.check_both([("MULTI",), ("GET", key), command, ("EXEC",), ("GET", key)])

    def test_what_is_refused_says_why_and_the_transaction_fails(self):
        for command, words in NOT_HERE.items():
            for before in ((), (("SET", "key", "1"),)):
                client = self.client()
                client.command("MULTI")
                for each in before:
                    self.assertEqual(b"+QUEUED\r\n", client.command(*each))
                self.assertEqual(words, client.command(*command))
                self.assertTrue(client.command("EXEC").startswith(b"-EXECABORT"), command)
                self.assertEqual(b"$-1\r\n", client.command("GET", "key"))
            if command[0] in ("CLUSTER", "ACL"):
                continue
            client = self.client()
            client.command("WATCH", "key")
            self.assertEqual(words, client.command(*command))
            self.assertEqual(b"+OK\r\n", client.command("MULTI"))
            self.assertEqual(b"*0\r\n", client.command("EXEC"))

    def test_what_comes_behind_exec_in_the_same_write_is_not_of_the_transaction(self):
        block = [("MULTI",), ("SET", "key", "1"), ("EXEC",)]
        for command in (("DBSIZE",), ("KEYS", "k*"), ("CLIENT", "GETNAME"), ("CLIENT", "REPLY", "ON"),
                        ("CLIENT", "SETNAME", "x"), ("SELECT", "0"), ("SCRIPT", "EXISTS", "x"),
                        ("PUBSUB", "NUMPAT"), ("CLUSTER", "INFO")):
            self.check_both([*block, command, ("GET", "key")])
            self.check_both([("WATCH", "key"), *block, command, ("DEL", "key")])

    def test_discard_leaves_nothing_of_what_was_before_multi(self):
        for key in KEYS:
            self.check_both([("EVAL", "return 1", "1", key), ("MULTI",), ("DISCARD",), ("GET", key),
                             ("BLPOP", key, "0.01"), ("MULTI",), ("PING",), ("DISCARD",), ("PING",)])

    def test_passwords_are_not_shown_by_what_is_queued_before_the_first_key(self):
        nearkey = self.start_nearkey(self.cluster.url(), directory=self.folder("rules"))
        for key in (), (("GET", "key"),):
            with nearkey.client() as client:
                client.command("MULTI")
                self.assertEqual(b"+QUEUED\r\n", client.command("CONFIG", "GET", "*"))
                for each in key:
                    self.assertEqual(b"+QUEUED\r\n", client.command(*each))
                reply = client.command("EXEC")
            self.assertIn(b"maxmemory", reply)
            self.assertNotIn(b"masterauth", reply)
            self.assertNotIn(b"requirepass", reply)

    def test_more_than_is_kept_goes_to_a_node(self):
        large = "x" * 65536
        for count in (1, 2, 40):
            self.check_both([("MULTI",), *[("PUBLISH", "channel", large)] * count, ("EXEC",), ("PING",)])
            self.check_both([("MULTI",), ("PING",), ("EVAL", "return 1", "0", large), ("GET",), ("EXEC",)])

    def test_a_script_that_is_queued_before_the_first_key_writes_what_is_seen_at_once(self):
        client, other = self.client(), self.client()
        for key in KEYS:
            other.command("SET", key, "old")
            self.assertEqual(b"$3\r\nold\r\n", other.command("GET", key))
            client.send(b"".join(encode(*command) for command in (
                ("MULTI",), ("EVAL", "return 1", "0"), ("SET", key, "new"), ("EXEC",))))
            self.assertEqual([b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n", b"*2\r\n:1\r\n+OK\r\n"],
                             client.read_replies(4))
            self.assertEqual(b"$3\r\nnew\r\n", other.command("GET", key))
