"""Hits that other processes read in shared memory: what enters, what voids it, who may have it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from harness import BINARY, SLOWNESS, proxy_only, run_nearkey, wait_for
from listeners import ListenerTest, needs_root
from near_cache import explain
from resp import RespClient, parse
from segments import Library, Segment, ask, ask_over
from test_cluster import ClusterCase
from test_upgrade import UpgradeTest as OneUpgradeTest

SHARED = "shared_memory = true"
OFF = b"-ERR shared memory is off (listener.shared_memory)\r\n"


class SegmentTest(ListenerTest):
    def start(self, *, listener=SHARED, settings=None, server_args=()):
        self.server = self.start_server(*server_args)
        self.nearkey = self.start_listeners({"a": listener}, settings=settings)
        self.direct = self.server.client()
        self.addCleanup(self.direct.close)
        return self.nearkey

    def segment(self, name="a"):
        segment = Segment(self.path(name))
        self.addCleanup(segment.close)
        return segment

    def read_until(self, segment, key, expected, what, database=0):
        wait_for(lambda: segment.read(key, database) == expected, 10, what)

    def fill(self, client, segment, key, value):
        """Sets the key and reads it until it is in the segment."""
        client.command("SET", key, value)
        self.enter(client, segment, key, value.encode())

    def enter(self, client, segment, key, expected, database=0):
        """Reads the key until it is in the segment: not each reply may be stored."""

        def is_there():
            client.command("GET", key)
            return segment.read(key, database) == expected

        wait_for(is_there, 10, f"{key} is in the segment")


@proxy_only
class ReadTest(SegmentTest):
    def test_a_read_over_the_socket_enters_and_is_read_without_it(self):
        self.start()
        segment, client = self.segment(), self.connect("a")
        self.assertEqual("miss", segment.read("k"))
        for version in ("2", "3"):
            client.command("HELLO", version)
            self.fill(client, segment, f"k{version}", "value")
            self.enter(client, segment, f"nil{version}", "nil")
            client.command("MGET", f"m{version}", f"k{version}")
            self.assertEqual("miss", segment.read(f"m{version}"))  # GET might say WRONGTYPE.
            keys = [f"m{version}", f"k{version}"]
            wait_for(lambda: segment.read_all(keys) == [None, b"value"], 10, "MGET's enter")
        self.assertEqual("miss", segment.read("k2", database=1))
        client.command("SELECT", "1")
        client.command("SET", "k2", "other")
        self.enter(client, segment, "k2", b"other", database=1)
        self.assertEqual("miss", segment.read("k2"))  # Its namesake was written.
        self.assertEqual(b"yes", explain(client, "GET", "k2")["shared"])
        client.command("SET", "large", "x" * 4097)
        client.command("GET", "large")
        client.command("GET", "large")
        self.assertEqual("miss", segment.read("large", database=1))
        self.assertEqual(b"no", explain(client, "GET", "large")["shared"])
        self.assertGreater(self.nearkey.metric("nearkey_shared_items"), 0)
        self.assertEqual(1, self.nearkey.metric("nearkey_shared_handed_out_total"))

    def test_a_write_is_void_before_it_is_answered(self):
        self.start()
        segment, client = self.segment(), self.connect("a")
        hits = 0
        for i in range(300):
            client.command("GET", "own")
            self.assertEqual(b"+OK\r\n", client.command("SET", "own", str(i)))
            self.assertIn(segment.read("own"), ("miss", str(i).encode()))
            client.command("GET", "own")
            shown = segment.read("own")
            self.assertIn(shown, (str(i).encode(), "miss", "stale"))  # Not each reply is stored.
            hits += shown == str(i).encode()
        self.assertGreater(hits, 100)

    def test_changes_from_elsewhere_and_of_everything_void_it(self):
        self.start()
        segment, client = self.segment(), self.connect("a")
        self.fill(client, segment, "k", "1")
        self.direct.command("SET", "k", "2")
        self.read_until(segment, "k", "miss", "the push")
        for command in (("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1")):
            self.fill(client, segment, "k", "1")
            client.command(*command)
            self.assertIn(segment.read("k"), ("miss", "stale"))
        self.fill(client, segment, "k", "1")
        self.direct.command("FLUSHALL")
        wait_for(lambda: segment.read("k") in ("miss", "stale"), 10, "the push without keys")
        self.fill(client, segment, "k", "1")
        client.command("NEARKEY", "CACHE", "CLEAR")
        self.assertIn(segment.read("k"), ("miss", "stale"))

        def is_there():
            client.command("SET", "short", "1", "PX", "500")
            client.command("GET", "short")
            return segment.read("short") == b"1"

        wait_for(is_there, 10, "it is in the segment before its time is over")
        wait_for(lambda: segment.read("short") in ("stale", "miss"), 10, "its time is over")
        client.command("SET", "k", "1")
        client.command("NEARKEY", "CACHE", "OFF")
        client.command("GET", "k")
        client.command("GET", "k")
        self.assertNotEqual(b"1", segment.read("k"))

    def test_a_client_of_another_listener_neither_feeds_nor_gets_it(self):
        self.server = self.start_server()
        self.nearkey = self.start_listeners({"a": SHARED, "b": ""})
        self.assertEqual((OFF, []), ask(self.path("b")))
        segment, other, client = self.segment(), self.connect("b"), self.connect("a")
        other.command("SET", "k", "1")
        wait_for(lambda: explain(other, "GET", "k").get("cache") == b"hit"
                 or not other.command("GET", "k"), 10, "it is stored")
        self.assertEqual("miss", segment.read("k"))
        self.enter(client, segment, "k", b"1")
        other.command("SET", "k", "2")
        self.assertEqual("miss", segment.read("k"))

    def test_monitor_and_the_loss_of_valkey_stop_it(self):
        self.start()
        segment, client = self.segment(), self.connect("a")
        self.fill(client, segment, "k", "1")
        monitor = self.connect("a")
        self.assertEqual(b"+OK\r\n", monitor.command("MONITOR"))
        self.assertEqual("off", segment.read("k"))
        monitor.close()
        self.read_until(segment, "k", "miss", "nobody monitors")
        self.fill(client, segment, "k", "1")
        self.server.freeze()
        self.read_until(segment, "k", "stale", "Valkey has proven nothing for max_staleness_ms")
        self.server.thaw()
        self.fill(client, segment, "k", "2")

    def test_it_is_refused_in_a_transaction_and_a_tunnel_and_behind_what_is_owed(self):
        self.start()
        client = self.connect("a")
        client.command("MULTI")
        self.assertEqual(
            b"-ERR NEARKEY SHM is not allowed in a transaction\r\n", client.command("NEARKEY", "SHM")
        )
        tunnel = self.connect("a")
        tunnel.command("CLIENT", "TRACKING", "ON")
        self.assertTrue(tunnel.command("NEARKEY", "SHM").startswith(b"-ERR"))
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(10)
            other.connect(self.path("a"))
            other.sendall(b"GET k\r\n")
            self.assertEqual(b"$-1\r\n", other.recv(100))
            reply, fds = ask_over(other)
            self.assertTrue(reply.startswith(b"+OK 1 "), reply)
            self.addCleanup(os.close, fds[0])
            # Over the same connection again; it is one segment.
            again, more = ask_over(other)
            self.addCleanup(os.close, more[0])
            self.assertEqual(reply.split()[2], again.split()[2])
            self.assertEqual(os.fstat(fds[0]).st_ino, os.fstat(more[0]).st_ino)
            other.sendall(b"PING\r\nNEARKEY SHM\r\n")
            both = b""
            while both.count(b"\r\n") < 2:
                both += other.recv(1000)
            self.assertIn(b"-ERR NEARKEY SHM is sent alone", both)


@proxy_only
class HitsTest(SegmentTest):
    def test_hits_that_a_client_tells_of_are_counted_for_it_and_its_next_key(self):
        self.start(settings={"hotkeys.show_names": "true"})
        segment, client = self.segment(), self.connect("a")
        self.fill(client, segment, "hot", "1")
        client.command("SET", "cold", "1")
        for _ in range(50):
            client.command("GET", "cold")
        self.assertEqual(b"+OK\r\n", client.command("NEARKEY", "HITS", "1024"))
        client.command("GET", "hot")
        client.pipeline([("NEARKEY", "HITS", "1000"), ("GET", "hot")])
        self.assertEqual(2024, self.nearkey.metric("nearkey_shared_hits_total"))
        listed = self.nearkey.get("/clients")[1]["clients"]
        self.assertEqual(2024, sum(each["shared_hits"] for each in listed))
        hot = self.nearkey.get("/hotkeys")[1]
        first = hot["hits"][0]
        self.assertEqual("hot", first["name"])
        self.assertGreater(first["count"], 2000)
        for wrong in ("0", "-1", "x", "1000001"):
            reply = client.command("NEARKEY", "HITS", wrong)
            self.assertTrue(reply.startswith(b"-ERR NEARKEY HITS is followed by"), reply)


class Asker:
    """A client that asks for the segment again and again; stop() tells which it was given."""

    def __init__(self, path):
        self.is_over = False
        self.incarnations = set()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(15)
        self.socket.connect(path)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.is_over:
            reply, fds = ask_over(self.socket)
            for fd in fds:
                os.close(fd)
            if fds:
                self.incarnations.add(reply.split()[2])

    def stop(self):
        self.is_over = True
        self.thread.join()
        self.socket.close()
        return self.incarnations


@proxy_only
class EndTest(SegmentTest):
    def assert_over(self, segment, secret):
        wait_for(segment.is_over, 10, "it is over")
        self.assertEqual("off", segment.read("k"))
        wait_for(lambda: secret not in segment.contents(), 10, "its contents are wiped")

    def test_a_daemon_that_is_killed_is_over_when_its_sockets_close(self):
        self.start()
        segment, client = self.segment(), self.connect("a")
        self.fill(client, segment, "k", "old")
        for _ in range(10):
            self.fill(client, segment, "k", "old")
            self.assertEqual(b"old", segment.read("k"))
            self.nearkey.signal(signal.SIGKILL)
            self.assertEqual(b"", client.read_to_end()[0])
            self.assertTrue(segment.is_over())
            self.assertEqual("off", segment.read("k"))
            self.nearkey.kill()
            self.nearkey.start()
            client = self.connect("a")
            client.command("SET", "k", "new")
            self.assertEqual("off", segment.read("k"))
            segment = self.segment()

    def test_one_that_hangs_is_not_believed_longer_than_the_bound(self):
        self.start(settings={"near_cache.max_staleness_ms": "300"})
        segment, client = self.segment(), self.connect("a")
        self.fill(client, segment, "k", "old")
        self.nearkey.freeze()
        self.addCleanup(self.nearkey.thaw)
        frozen = time.monotonic()
        self.direct.command("SET", "k", "new")
        while segment.read("k") == b"old":
            self.assertLess(time.monotonic() - frozen, 0.3 + 0.1 * SLOWNESS)
        self.assertEqual("stale", segment.read("k"))
        self.nearkey.thaw()
        wait_for(lambda: segment.read("k") != "stale", 10, "it has heard of the change")
        self.assertEqual("miss", segment.read("k"))

    def test_a_stop_ends_it_and_wipes_what_readers_have_mapped(self):
        self.start()
        segment, client = self.segment(), self.connect("a")
        self.fill(client, segment, "k", "very secret indeed")
        self.assertIn(b"very secret indeed", segment.contents())
        self.nearkey.signal(signal.SIGTERM)
        self.assert_over(segment, b"very secret indeed")

    def reload(self, listeners, near_cache=""):
        path = self.write_config(listeners)
        with open(path, "a") as file:
            file.write(near_cache)
        before = self.nearkey.metric("nearkey_config_reloads_total")
        self.nearkey.signal(signal.SIGHUP)
        wait_for(
            lambda: self.nearkey.metric("nearkey_config_reloads_total") > before
            and self.nearkey.get("/reload")[0] == 200,
            10,
            "the reload is over",
        )

    def test_a_reload_ends_it_if_it_changes_what_its_readers_rely_on(self):
        self.start()
        segment, client = self.segment(), self.connect("a")
        self.fill(client, segment, "k", "secret value")
        self.reload({"a": SHARED, "b": ""})
        self.assertEqual(b"secret value", segment.read("k"))
        self.reload({"a": SHARED, "b": ""}, "[near_cache]\nmax_staleness_ms = 60000\n")
        self.assertFalse(segment.is_over())
        for changed, near_cache in (
            (SHARED + '\nallow_users = ["root"]\nmode = "0600"', ""),
            (SHARED, ""),
            (SHARED, '[near_cache]\nshared_memory = "2MiB"\n'),
            (SHARED + '\ncommands = "+@all -@dangerous"', ""),
        ):
            self.reload({"a": changed, "b": ""}, near_cache)
            self.assert_over(segment, b"secret value")
            segment = self.segment()
            self.assertEqual("miss", segment.read("k"))
            self.fill(client, segment, "k", "secret value")
        self.assertEqual(16 << 20, segment.size)
        self.reload({"a": "", "b": ""})
        self.assert_over(segment, b"secret value")
        self.assertEqual((OFF, []), ask(self.path("a")))
        self.assertEqual(0, self.nearkey.metric("nearkey_shared_bytes"))

    def test_who_was_connected_before_a_reload_turned_it_on_feeds_it_too(self):
        self.start(listener="")
        client = self.connect("a")
        client.command("SET", "k", "1")
        self.reload({"a": SHARED})
        self.enter(client, self.segment(), "k", b"1")

    def test_clients_of_a_listener_that_was_closed_are_not_given_the_next_one(self):
        self.start()
        self.reload({"a": SHARED, "b": SHARED})
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(15)
            client.connect(self.path("b"))
            client.sendall(b"PING\r\n")
            self.assertEqual(b"+PONG\r\n", client.recv(100))
            self.reload({"a": SHARED})
            self.assertEqual((OFF, []), ask_over(client))
        self.segment()

    def test_nor_are_those_of_other_event_loops_that_ask_meanwhile(self):
        self.start(settings={"server.workers": 3})
        for _ in range(20):
            self.reload({"a": SHARED, "b": SHARED})
            clients = [Asker(self.path("b")) for _ in range(6)]
            self.reload({"a": SHARED})
            reply, fds = ask(self.path("a"))
            for fd in fds:
                os.close(fd)
            for client in clients:
                self.assertNotIn(reply.split()[2], client.stop())


@proxy_only
class LibraryTest(SegmentTest):
    def library(self, url):
        library = Library(url)
        self.addCleanup(library.close)
        return library

    def test_the_library_reads_what_this_daemon_writes_and_finds_the_next_one(self):
        self.start()
        url = f"unix://{self.path('a')}"
        one, other, client = self.library(url), self.library(url + "?db=1"), self.connect("a")
        self.assertEqual(Library.MISS, one.get("k"))
        for size in (0, 1, 7, 8, 100, 4096):
            client.command("SET", "k", "x" * size)
            self.assertEqual(Library.MISS, one.get("k"))
            client.command("GET", "k")
            wait_for(lambda: client.command("GET", "k") and one.get("k") != Library.MISS, 10, "it")
            self.assertEqual(b"x" * size, one.get("k"))
            self.assertEqual(Library.MISS, other.get("k"))
        client.command("GET", "nil")
        self.assertEqual(Library.NIL, one.get("nil"))
        self.nearkey.kill()
        self.assertEqual(Library.OFF, one.get("k"))
        self.nearkey.start()
        self.assertEqual(Library.OFF, one.get("k"))
        wait_for(one.refresh, 10, "the next one's memory")
        self.assertEqual(Library.MISS, one.get("k"))
        client = self.connect("a")
        client.command("SET", "k", "next")
        wait_for(lambda: client.command("GET", "k") and one.get("k") == b"next", 10, "it is there")
        self.nearkey.signal(signal.SIGTERM)
        wait_for(lambda: one.get("k") == Library.OFF, 10, "it is over")


    def test_the_library_begins_in_the_listeners_database(self):
        self.start(listener=SHARED + "\ndatabase = 3")
        url = f"unix://{self.path('a')}"
        client = self.connect("a")
        client.command("SET", "k", "three")
        one, other = self.library(url), self.library(url + "?db=0")
        wait_for(lambda: client.command("GET", "k") and one.get("k") == b"three", 10, "it enters")
        self.assertEqual(Library.MISS, other.get("k"))
        reply = client.command("NEARKEY", "SHM")
        self.assertTrue(reply.endswith(b" 3\r\n"), reply)


@proxy_only
class UpgradeTest(OneUpgradeTest):
    def test_an_upgrade_ends_it_and_the_next_one_has_its_own(self):
        server = self.start_server()
        config = os.path.join(self.directory, "nearkey.toml")
        path = os.path.join(self.directory, "nearkey.sock")
        with open(config, "w") as file:
            file.write(f'[[listener]]\naddress = "{path}"\n{SHARED}\n')
        old = self.start(server.url, listen=[], args=["--config", config])

        def fill(client, segment, value):
            client.command("SET", "k", value)
            client.command("GET", "k")
            return segment.read("k") == value.encode()

        stayer = RespClient(path)
        self.addCleanup(stayer.close)
        former = Segment(path)
        self.addCleanup(former.close)
        wait_for(lambda: fill(stayer, former, "secret value"), 10, "it is there")
        new = self.upgrade(old)
        self.assertTrue(former.is_over())
        self.assertEqual("off", former.read("k"))
        self.assertNotIn(b"secret value", former.contents())
        # While the old one has clients neither serves anything itself.
        next_one = Segment(path)
        self.addCleanup(next_one.close)
        self.assertNotEqual(former.incarnation, next_one.incarnation)
        newcomer = RespClient(path)
        self.addCleanup(newcomer.close)
        self.assertFalse(fill(newcomer, next_one, "1"))
        self.assertFalse(next_one.is_over())
        self.assertTrue(stayer.command("NEARKEY", "SHM").startswith(b"-ERR shared memory is off"))
        stayer.close()
        wait_for(lambda: fill(newcomer, next_one, "2"), 20, "the old one is gone")
        new.stop()
        self.assertTrue(next_one.is_over())


@proxy_only
class ClusterTest(ClusterCase):
    def start_nearkey(self, upstream, **options):
        """Its one listener hands shared memory out."""
        self.path = os.path.join(self.directory, "nearkey.sock")
        config = os.path.join(self.directory, "shared.toml")
        with open(config, "w") as file:
            file.write(f'[[listener]]\naddress = "{self.path}"\n{SHARED}\n')
        options["args"] = [*options.get("args", ()), "--config", config]
        return super().start_nearkey(upstream, listen=[], **options)

    def test_what_is_there_of_a_slot_that_moves_is_void(self):
        client, segment = self.client(), Segment(self.path)
        self.addCleanup(segment.close)
        keys = [f"{{moves}}{index}" for index in range(5)]
        slot = self.cluster.slot_of(keys[0])
        for round_ in range(3):
            value = str(round_)

            def is_there(key, value=value):
                client.command("GET", key)
                return segment.read(key) == value.encode()

            for key in keys:
                client.command("SET", key, value)
            for key in keys:
                wait_for(lambda key=key: is_there(key), 20, f"{key} is there")
            source = self.cluster.owner_of(slot)
            target = next(node for node in self.cluster.nodes if node is not source)
            self.cluster.move(slot, target)
            for key in keys:
                target.run("SET", key, "new")

            def is_old(key, value=value):
                return segment.read(key) == value.encode()

            deadline = time.monotonic() + 1.0 + 0.3 * SLOWNESS
            while any(is_old(key) for key in keys):
                self.assertLess(time.monotonic(), deadline, "an old value is served")
                time.sleep(0.002)


@proxy_only
class AccessTest(SegmentTest):
    # Tries with the descriptor that it was given; prints what worked.
    ATTEMPTS = """
import mmap, os, sys
fd = int(sys.argv[1])
def attempt(name, what):
    try:
        what()
        print(name)
    except (OSError, PermissionError, ValueError):
        pass
attempt("write", lambda: os.write(fd, b"x"))
attempt("truncate", lambda: os.ftruncate(fd, 0))
attempt("map to write", lambda: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_WRITE))
attempt("open again to write", lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
attempt("open again to read", lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
attempt("mode", lambda: os.fchmod(fd, 0o666))
attempt("punch", lambda: os.posix_fallocate(fd, 0, 4096))
attempt("read", lambda: os.pread(fd, 1, 0))
"""

    @needs_root
    def test_another_user_can_read_what_it_was_given_and_nothing_else(self):
        self.start()
        segment = self.segment()
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
            + [sys.executable, "-c", self.ATTEMPTS, str(segment.fd)],
            capture_output=True,
            pass_fds=[segment.fd],
            timeout=20 * SLOWNESS,
        )
        self.assertEqual(b"", done.stderr)
        self.assertEqual(b"read\n", done.stdout)

    def test_nearkey_leaves_it_out_of_core_dumps_and_hands_out_a_read_only_one(self):
        self.start()
        segment = self.segment()
        flags = []
        with open(f"/proc/{self.nearkey.pid}/smaps") as file:
            for line in file:
                if "-" in line.split()[0]:
                    is_segment = "nearkey-segment" in line
                if is_segment and line.startswith("VmFlags:"):
                    flags.append(line.split()[1:])
        self.assertEqual(1, len(flags))
        self.assertIn("dd", flags[0])
        self.assertEqual(0, os.fstat(segment.fd).st_mode & 0o777)

    def check(self, listener):
        path = os.path.join(self.directory, "checked.toml")
        with open(path, "w") as file:
            file.write(listener)
        return run_nearkey(self.directory, "check", "--config", path)

    def test_a_listener_that_contradicts_it_is_refused_by_check(self):
        unix = f'[[listener]]\naddress = "{self.directory}/x.sock"\n{SHARED}\n'
        for listener, word in (
            (f'[[listener]]\naddress = "tcp:127.0.0.1:1"\n{SHARED}\n', "needs a Unix socket"),
            (unix + "near_cache = false\n", "near_cache is false"),
            (unix + 'commands = "+@all -get"\n', '\\"get\\"'),
            (unix + 'commands = "+@all -hgetall"\n', '\\"hgetall\\"'),
            (unix + 'commands = "+@all -@fast"\n', '\\"get\\"'),
            (unix + 'commands = "+@all -select"\n', '\\"select\\"'),
            (unix + 'commands = "+@read +nearkey"\n', '\\"select\\"'),
            (unix + 'commands = "+@all -@admin"\n', '\\"nearkey\\"'),
        ):
            done = self.check(listener)
            self.assertEqual(2, done.returncode, listener)
            self.assertIn(word.replace("\\", ""), done.stderr)
        for commands in ("+@all", "+@read +select +nearkey", "+@all -@dangerous -@write -debug"):
            done = self.check(unix + f'commands = "{commands}"\n')
            self.assertEqual(0, done.returncode, done.stderr)
