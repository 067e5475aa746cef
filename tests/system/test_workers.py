"""server.workers: several event loops, one near cache, one set of limits, and one nearkey for all who
ask, reload or stop it. Many other tests run with two as well (tests/run_all.py)."""

import ctypes
import os
import signal
import threading
import time
import unittest

from harness import SystemTest, wait_for
from near_cache import is_hit, store
from relay import Relay
from resp import encode, parse
from service import NotifySocket

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17


class HeldThread:
    """A thread of another process that does not run while this lives."""

    def __init__(self, tid):
        self.tid = tid
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ptrace(PTRACE_SEIZE)
        self._ptrace(PTRACE_INTERRUPT)
        os.waitpid(tid, 0x40000000)  # __WALL

    def _ptrace(self, what):
        if self._libc.ptrace(what, self.tid, None, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def let_go(self):
        self._ptrace(PTRACE_DETACH)


class WorkersTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()

    def start(self, upstream=None, **settings):
        options = {"server.workers": 2, **{k.replace("__", "."): v for k, v in settings.items()}}
        return self.start_nearkey(upstream or self.server.url, settings=options)

    def folder(self, name):
        path = os.path.join(self.directory, name)
        os.mkdir(path)
        return path

    def client_of(self, nearkey):
        client = nearkey.client()
        self.addCleanup(client.close)
        client.command("PING")
        return client

    def pair(self, nearkey):
        """Two clients on different event loops: each goes to the one with the fewest."""
        return self.client_of(nearkey), self.client_of(nearkey)

    def threads(self, nearkey):
        folder = f"/proc/{nearkey.pid}/task"
        names = {}
        for tid in os.listdir(folder):
            with open(f"{folder}/{tid}/comm", encoding="utf-8") as file:
                names[file.read().strip()] = int(tid)
        return names

    def sessions(self, nearkey):
        """How many clients each shared connection of RESP2 has."""
        _, page = nearkey.get("/connections")
        return sorted(c["sessions"] for c in page["connections"]
                      if c["kind"] == "shared" and c["protocol"] == 2)

    def assert_shared_evenly(self, nearkey, sessions):
        """Over three loops; a loop that waits for the server has them on two connections."""
        found = self.sessions(nearkey)
        self.assertEqual(sessions, sum(found), found)
        self.assertLessEqual(max(found), sessions // 3, found)


class ClientsTest(WorkersTest):
    def test_each_loop_has_its_share_of_the_clients(self):
        nearkey = self.start(server__workers=3)
        self.assertLessEqual({"nearkey-2", "nearkey-3"}, set(self.threads(nearkey)))
        clients = [self.client_of(nearkey) for _ in range(30)]
        for client in clients:
            client.command("INCR", "n")
        # The first connection of each pool is its own, too.
        self.assert_shared_evenly(nearkey, 3 * 11)
        _, page = nearkey.get("/clients?limit=12")
        self.assertEqual(30, page["total"])
        numbers = [client["session"] for client in page["clients"]]
        while page["next"] is not None:
            _, page = nearkey.get(f"/clients?limit=12&after={page['next']}")
            numbers += [client["session"] for client in page["clients"]]
        self.assertEqual(list(range(1, 31)), numbers)
        self.assertEqual(30, nearkey.metric("nearkey_clients"))
        stats = clients[1].command("NEARKEY", "STATS")
        self.assertIn(b"nearkey_clients\r\n:30\r\n", stats)
        for client in clients[:15]:
            client.close()
        wait_for(lambda: nearkey.metric("nearkey_clients") == 15, 5, "half of them are gone")
        for _ in range(15):
            self.client_of(nearkey).command("INCR", "n")
        self.assert_shared_evenly(nearkey, 3 * 11)

    def test_clients_max_holds_for_all_of_them(self):
        nearkey = self.start(limits__clients_max=4)
        clients = [self.client_of(nearkey) for _ in range(4)]
        with nearkey.client() as late:
            self.assertEqual(b"-ERR max number of clients reached\r\n", late.read_reply())
        clients[3].close()
        clients[2].close()
        wait_for(lambda: nearkey.metric("nearkey_clients") == 2, 5, "two are gone")
        for _ in range(2):
            self.client_of(nearkey)
        self.assertEqual(1, nearkey.metric("nearkey_clients_refused_full_total"))

    def test_whoever_is_owed_something_gets_it_before_the_end(self):
        nearkey = self.start()
        one, other = self.pair(nearkey)
        for client in (one, other):
            client.send(encode("BLPOP", "list", "0"))
        wait_for(
            lambda: b"blocked_clients:2" in self.server.run("INFO", "clients"), 5, "both wait"
        )
        stopping = threading.Thread(target=nearkey.stop)
        stopping.start()
        self.server.run("RPUSH", "list", "a", "b")
        replies = {parse(client.read_reply())[1] for client in (one, other)}
        self.assertEqual({b"a", b"b"}, replies)
        stopping.join(20)
        self.assertEqual(0, nearkey.process.returncode)


class NearCacheTest(WorkersTest):
    def test_what_one_has_stored_another_serves(self):
        nearkey = self.start()
        one, other = self.pair(nearkey)
        self.server.run("SET", "k", "1")
        store(nearkey, one, "GET", "k")
        self.assertTrue(is_hit(nearkey, other, "GET", "k"))
        self.server.run("SET", "k", "2")
        wait_for(lambda: other.command("GET", "k") == b"$1\r\n2\r\n", 5, "the new value")
        self.assertEqual(b"$1\r\n2\r\n", one.command("GET", "k"))

    def test_a_write_through_one_is_seen_at_once_through_the_other(self):
        nearkey = self.start()
        one, other = self.pair(nearkey)
        for i in range(300):
            writer, reader = (one, other) if i % 2 else (other, one)
            reader.command("GET", "own")
            writer.command("SET", "own", str(i))
            self.assertEqual(str(i).encode(), parse(reader.command("GET", "own")))

    def joined(self):
        """nearkey, the relay that holds the reply to a GET, the client that asked, and one of another
        event loop that waits for the same."""
        relay = Relay(os.path.join(self.directory, "relay.sock"), self.server.path)
        self.addCleanup(relay.close)
        nearkey = self.start(f"unix://{relay.path}", upstream__request_timeout_ms=60000)
        one, other = self.pair(nearkey)
        for client in (one, other):
            client.command("GET", "elsewhere")  # Both connections are there and tracked.
        store(nearkey, one, "GET", "elsewhere")
        before = nearkey.metric("nearkey_near_cache_joins_total")
        relay.freeze_replies()
        one.send(encode("GET", "k"))
        wait_for(lambda: nearkey.metric("nearkey_in_flight") > 0, 5, "the read is on its way")
        other.send(encode("GET", "k"))
        wait_for(
            lambda: nearkey.metric("nearkey_near_cache_joins_total") > before, 5, "the other waits"
        )
        return nearkey, relay, one, other

    def test_a_read_is_joined_across_loops(self):
        self.server.run("SET", "k", "v")
        _, relay, one, other = self.joined()
        relay.thaw()
        self.assertEqual(b"$1\r\nv\r\n", one.read_reply())
        self.assertEqual(b"$1\r\nv\r\n", other.read_reply())

    def test_who_waits_for_another_loop_may_leave(self):
        nearkey, relay, one, other = self.joined()
        other.close()  # Who waits is not read: it is noticed afterwards.
        relay.thaw()
        self.assertEqual(b"$-1\r\n", one.read_reply())
        wait_for(lambda: nearkey.metric("nearkey_clients") == 1, 5, "the other is gone")
        self.assertEqual(b"$-1\r\n", self.client_of(nearkey).command("GET", "k"))

    def test_a_monitor_sees_the_reads_of_all(self):
        nearkey = self.start()
        one, other = self.pair(nearkey)
        monitor = self.client_of(nearkey)
        self.server.run("SET", "watched", "1")
        store(nearkey, other, "GET", "watched")
        self.assertEqual(b"+OK\r\n", monitor.command("MONITOR"))
        for client in (one, other):
            client.command("GET", "watched")
        seen = 0
        while seen < 2:
            seen += b'"GET" "watched"' in monitor.read_reply()
        monitor.close()
        store(nearkey, other, "GET", "watched")


class OneForAllTest(WorkersTest):
    def test_a_reload_turns_all_to_the_new_upstream_at_once(self):
        second = self.start_server(directory=self.folder("second"))
        config = os.path.join(self.directory, "nearkey.toml")

        def write(server):
            with open(config, "w", encoding="utf-8") as file:
                file.write(f'[upstream]\nurl = "{server.url}"\n[server]\nworkers = 2\n')

        write(self.server)
        nearkey = self.start_nearkey(None, args=["--config", config])
        one, other = self.pair(nearkey)
        self.server.run("SET", "where", "first")
        second.run("SET", "where", "second")
        for client in (one, other):
            self.assertEqual(b"first", parse(client.command("GET", "where")))
        for target, name in ((second, b"second"), (self.server, b"first"), (second, b"second")):
            write(target)
            nearkey.signal(signal.SIGHUP)
            wait_for(lambda: parse(one.command("GET", "where")) == name, 5, f"{name} answers")
            self.assertEqual(name, parse(other.command("GET", "where")))
        # One of them finds nobody: nothing changes.
        second.run("CONFIG", "SET", "maxclients", "3")
        write(self.server)
        self.server.stop()
        nearkey.signal(signal.SIGHUP)
        nearkey.wait_logged("reload_refused")
        for client in (one, other):
            self.assertEqual(b"second", parse(client.command("GET", "where")))

    def test_it_is_ready_when_all_are(self):
        nearkey = self.start()
        self.assertEqual(1, nearkey.metric("nearkey_ready"))
        self.server.stop()
        nearkey.wait_unready()
        self.assertEqual(0, nearkey.metric("nearkey_ready"))
        self.server.start()
        nearkey.wait_ready()
        for client in self.pair(nearkey):
            self.assertEqual(b"+OK\r\n", client.command("SET", "k", "v"))

    def test_row_62_the_watchdog_hears_only_if_every_loop_turns(self):
        """faults.md row 62, of one thread among several."""
        notify = NotifySocket(self.directory)
        self.addCleanup(notify.close)
        nearkey = self.start_nearkey(
            self.server.url,
            settings={"server.workers": 2},
            environment={"NOTIFY_SOCKET": notify.path, "WATCHDOG_USEC": "200000"},
        )
        notify.wait("WATCHDOG", more_than=3)
        held = HeldThread(self.threads(nearkey)["nearkey-2"])
        time.sleep(0.5)  # What had been asked before is told.
        before = notify.count("WATCHDOG")
        time.sleep(1)  # That nothing comes shows only over time.
        self.assertEqual(before, notify.count("WATCHDOG"))
        held.let_go()
        notify.wait("WATCHDOG", more_than=before + 3)

    def test_the_number_of_loops_needs_a_restart(self):
        config = os.path.join(self.directory, "nearkey.toml")
        text = f'[upstream]\nurl = "{self.server.url}"\n[server]\nworkers = '
        with open(config, "w", encoding="utf-8") as file:
            file.write(text + "2\n")
        nearkey = self.start_nearkey(None, args=["--config", config])
        with open(config, "w", encoding="utf-8") as file:
            file.write(text + "3\n")
        nearkey.signal(signal.SIGHUP)
        nearkey.wait_logged("reload_refused")
        self.assertIn("server.workers", "\n".join(nearkey.lines))


if __name__ == "__main__":
    unittest.main()
