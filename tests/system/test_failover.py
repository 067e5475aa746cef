"""A failover by name: the server that was the primary lives on as a replica, and the name, the path
or the port leads to another one. A client that connects anew can write at once; so can a client of
nearkey, which connects for it."""

import os
import time
import unittest

from harness import EVERY_COMMAND, SystemTest, free_port, proxy_only, wait_for
from namespaces import bind_over, in_namespace

OK = b"+OK\r\n"
NAMES = ("-Urnm", "ip link set lo up && mount --bind /dev/null /etc/hosts")


@proxy_only
class FailoverTest(SystemTest):
    def start_pair(self, *, tcp=False):
        """A primary, and a replica of it that has all its data."""
        self.first = self.start_server(tcp=tcp, name="first")
        if tcp:
            self.second = self.start_server(bind="127.0.0.2", port=self.first.port, name="second")
        else:
            self.second = self.start_server(name="second")
        self.primary_port = self.first.port if tcp else free_port()
        if not tcp:
            self.first.run("CONFIG", "SET", "port", str(self.primary_port))
            self.second_port = free_port()
            self.second.run("CONFIG", "SET", "port", str(self.second_port))
        self.first.run("SET", "k", "before")
        self.second.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        self.first.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        self.second.run("REPLICAOF", "127.0.0.1", str(self.primary_port))
        wait_for(lambda: self.second.run("GET", "k") == b"before", 10, "the replica has caught up")

    def fail_over(self, host="127.0.0.1"):
        self.second.run("REPLICAOF", "NO", "ONE")
        port = self.first.port or self.second_port
        self.first.run("REPLICAOF", host, str(port))

    def start_at(self, url, **settings):
        self.nearkey = self.start_nearkey(url, settings={**EVERY_COMMAND, **settings})
        return self.client()

    def client(self):
        client = self.nearkey.client()
        self.addCleanup(client.close)
        return client

    def link_to(self, server):
        link = os.path.join(self.directory, "upstream.sock")
        os.symlink(server.path, link + ".new")
        os.replace(link + ".new", link)
        return link

    def assert_writes_soon(self, client, value="after"):
        """A direct client would have to connect anew; until then it reads READONLY as well. A write
        that is on its way while a heartbeat finds the replica may have run, as far as is known."""
        replies = set()

        def is_written():
            replies.add(client.command("SET", "k", value))
            self.assertEqual(200, self.nearkey.ready_status(), "reads were answered all the time")
            return OK in replies

        wait_for(is_written, 2, "the new primary is found")
        self.assertLessEqual(
            {reply.split(b" ")[0] for reply in replies}, {b"-READONLY", b"-UPSTREAMLOST", OK}, replies
        )
        self.assertEqual(value.encode(), self.second.run("GET", "k"))

    def failovers(self):
        return self.nearkey.metric("nearkey_failovers_demoted_total")

    @in_namespace(*NAMES)
    def test_a_name_that_leads_to_the_new_primary_is_followed(self):
        self.hosts = os.path.join(self.directory, "hosts")
        with open(self.hosts, "w") as hosts:
            hosts.write("127.0.0.1 localhost valkey.test\n")
        bind_over("/etc/hosts", self.hosts)
        self.start_pair(tcp=True)
        client = self.start_at(f"valkey://valkey.test:{self.first.port}")
        other = self.client()
        other.command("SELECT", "5")
        self.assertEqual(OK, other.command("SET", "k", "five"))
        self.assertEqual(b"$6\r\nbefore\r\n", client.command("GET", "k"))
        self.fail_over("127.0.0.2")
        with open(self.hosts, "w") as hosts:
            hosts.write("127.0.0.1 localhost\n127.0.0.2 valkey.test\n")
        self.assert_writes_soon(client)
        self.assertEqual(b"$5\r\nafter\r\n", client.command("GET", "k"))
        self.assertEqual(OK, other.command("SET", "k", "six"))
        self.assertEqual(1, self.failovers())
        self.nearkey.wait_logged("upstream_demoted")
        self.nearkey.wait_logged("upstream_failover")

    def test_a_path_that_leads_to_the_new_primary_is_followed(self):
        """The address stays the same, and another process listens behind it."""
        self.start_pair()
        client = self.start_at(f"unix://{self.link_to(self.first)}")
        subscriber, popper, watcher = self.client(), self.client(), self.client()
        subscriber.command("SUBSCRIBE", "c")
        self.assertEqual(b"*-1\r\n", popper.command("BLPOP", "none", "0.01"))
        self.assertEqual(b"$6\r\nbefore\r\n", client.command("GET", "k"))
        self.assertEqual(OK, watcher.command("WATCH", "k"))
        self.fail_over()
        self.link_to(self.second)
        self.assert_writes_soon(client)
        for _ in range(100):
            self.assertEqual(b"$5\r\nafter\r\n", client.command("GET", "k"), "an old value")
        self.assertEqual(b"*-1\r\n", popper.command("BLPOP", "none", "0.01"))
        self.assertEqual(OK, popper.command("SET", "j", "v"))
        # What a client had on the server that was the primary is over, or has moved.
        self.assertEqual(b"", watcher.read_to_end()[0])
        wait_for(lambda: self.second.run("PUBLISH", "c", "news") == 1, 5, "it has subscribed anew")
        self.assertEqual(
            b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\nnews\r\n", subscriber.read_reply(5)
        )
        self.assertEqual(1, self.failovers())

    def test_a_write_in_a_tunnel_is_enough(self):
        self.start_pair()
        self.start_at(f"unix://{self.link_to(self.first)}")
        tunnel = self.client()
        self.assertEqual(OK, tunnel.command("CLIENT", "NO-TOUCH", "ON"))
        self.fail_over()
        self.link_to(self.second)
        self.assertTrue(tunnel.command("SET", "k", "w").startswith(b"-READONLY"))
        wait_for(lambda: self.failovers() == 1, 2, "the new primary is found")
        with self.nearkey.client() as client:  # As a client does that reads READONLY.
            self.assertEqual(OK, client.command("CLIENT", "NO-TOUCH", "ON"))
            self.assertEqual(OK, client.command("SET", "k", "after"))

    def test_all_event_loops_turn(self):
        self.start_pair()
        self.start_at(f"unix://{self.link_to(self.first)}", **{"server.workers": 2})
        clients = [self.client() for _ in range(6)]
        for client in clients:
            self.assertEqual(b"$6\r\nbefore\r\n", client.command("GET", "k"))
        self.fail_over()
        self.link_to(self.second)
        self.assert_writes_soon(clients[0])
        for client in clients:
            self.assertEqual(b"$5\r\nafter\r\n", client.command("GET", "k"))
            self.assertEqual(OK, client.command("SET", "k", "after"))
        self.assertEqual(1, self.failovers())

    def test_where_there_is_no_primary_all_stays_as_it_is(self):
        self.start_pair()
        client = self.start_at(f"unix://{self.second.path}")
        begin = int(self.statistic(self.second, b"total_connections_received"))
        asked = 0
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            self.assertTrue(client.command("SET", "k", "w").startswith(b"-READONLY"))
            self.assertEqual(b"$6\r\nbefore\r\n", client.command("GET", "k"))
            asked += 1
            time.sleep(0.002)
        dialled = int(self.statistic(self.second, b"total_connections_received")) - begin
        self.assertGreater(asked, 50)
        self.assertLessEqual(dialled, 8, "a storm of attempts")
        self.assertEqual(0, self.failovers())
        self.assertEqual(200, self.nearkey.ready_status())
        self.assertEqual(
            1, [line["event"] for line in self.nearkey.logs()].count("upstream_demoted")
        )
        # It becomes the primary where it is.
        self.second.run("REPLICAOF", "NO", "ONE")
        self.assertEqual(OK, client.command("SET", "k", "w"))

    def test_a_script_that_says_readonly_turns_nothing(self):
        server = self.start_server()
        client = self.start_at(server.url)
        ids = {row["id"] for row in server.clients()}
        for _ in range(20):
            reply = client.command("EVAL", "return redis.error_reply('READONLY mine')", "0")
            self.assertEqual(b"-READONLY mine\r\n", reply)
        time.sleep(0.1)  # That nothing is dialled shows only over time.
        self.assertEqual(0, self.failovers())
        self.assertLessEqual(ids, {row["id"] for row in server.clients()})

    def statistic(self, server, name):
        return server.run("INFO", "stats").split(name + b":")[1].split(b"\r\n")[0]


@proxy_only
class FewerDatabasesTest(SystemTest):
    def test_a_server_that_comes_back_with_fewer_databases_says_so(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        clients = [nearkey.client() for _ in range(3)]
        for client in clients:
            self.addCleanup(client.close)
            self.assertEqual(OK, client.command("SELECT", "10"))
            self.assertEqual(OK, client.command("SET", "k", "v"))
        clients[2].command("SELECT", "0")
        server.kill()
        nearkey.wait_unready(3)
        server.start("--databases", "4")
        nearkey.wait_ready(3)
        with server.client() as direct:
            words = direct.command("SELECT", "10")
        self.assertTrue(words.startswith(b"-ERR DB index is out of range"), words)
        # Anew, and back from another database.
        with nearkey.client() as client:
            for each in (client, clients[2]):
                self.assertEqual(words, each.command("SELECT", "10"))
                self.assertEqual(OK, each.command("SET", "k", "v"))
                self.assertEqual(OK, each.command("SELECT", "3"))
                self.assertEqual(b"$-1\r\n", each.command("GET", "k"))
        # Those who are in it: each command, over each kind of connection, until they leave it.
        for client in clients[:2]:
            for command in (("GET", "k"), ("SET", "k", "v"), ("BLPOP", "l", "0.01"),
                            ("EVAL", "return 1", "0"), ("GET", "k")):  # fmt: skip
                self.assertEqual(words, client.command(*command))
            self.assertEqual(OK, client.command("SELECT", "0"))
            self.assertEqual(OK, client.command("SET", "k", "v"))
        server.kill()
        nearkey.wait_unready(3)
        server.start()
        nearkey.wait_ready(3)
        self.assertEqual(OK, clients[0].command("SELECT", "10"))
        self.assertEqual(b"$-1\r\n", clients[0].command("GET", "k"))


if __name__ == "__main__":
    unittest.main()
