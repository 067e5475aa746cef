"""An upgrade in place (SIGUSR2): a new nearkey takes the sockets over, no connect is refused, no
request is lost, and nobody is served what another process has overwritten."""

import json
import os
import shutil
import signal
import threading
import unittest

try:
    import redis
    import redis.backoff
    import redis.retry
except ImportError:  # Debian: python3-redis
    redis = None

from harness import BINARY, SLOWNESS, SystemTest, proxy_only, wait_for
from load import IncrementLoad
from near_cache import HITS
from procfs import is_alive
from resp import RespClient, parse
from service import NotifySocket, Service, SocketUnit, adopt_orphans, successor_of

PONG = b"+PONG\r\n"
SUSPENDED = "nearkey_near_cache_suspended"


class UpgradeTest(SystemTest):
    @classmethod
    def setUpClass(cls):
        adopt_orphans()

    def start(self, upstream, *, settings=None, **options):
        """Runs a copy of the program, which a test may replace."""
        nearkey = Service(self.directory, upstream, settings=settings, **options)
        self.program = os.path.join(self.directory, "nearkey")
        if not os.path.exists(self.program):
            os.symlink(BINARY, self.program)
        nearkey.command[0] = self.program
        self.addCleanup(nearkey.kill)
        nearkey.start()
        self.addCleanup(self.kill_successors, nearkey)
        return nearkey

    def replace_program(self, script):
        with open(self.program + ".new", "w") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(self.program + ".new", 0o755)
        os.replace(self.program + ".new", self.program)

    def events(self, nearkey, name):
        return [json.loads(line) for line in list(nearkey.lines) if f'"event":"{name}"' in line]

    def kill_successors(self, nearkey):
        for event in self.events(nearkey, "upgrade_started"):
            if is_alive(event["pid"]):
                os.kill(event["pid"], signal.SIGKILL)

    def begin_upgrade(self, old):
        """SIGUSR2; the pid of what was started."""
        before = len(self.events(old, "upgrade_started"))
        old.signal(signal.SIGUSR2)
        wait_for(
            lambda: len(self.events(old, "upgrade_started")) > before, 5, "a successor is started"
        )
        return self.events(old, "upgrade_started")[-1]["pid"]

    def upgrade(self, old):
        before = len(self.events(old, "upgraded"))
        pid = self.begin_upgrade(old)
        wait_for(
            lambda: len(self.events(old, "upgraded")) > before,
            10,
            f"the successor takes over: {old.lines[-5:]}",
        )
        new = successor_of(old, pid)
        new.wait_ready()
        return new

    def wait_gone(self, nearkey):
        self.assertEqual(0, nearkey.process.wait(20 * SLOWNESS))


@proxy_only
class UpgradeUnderLoadTest(UpgradeTest):
    def test_no_connect_is_refused_and_no_request_is_lost(self):
        server = self.start_server()
        old = self.start(server.url, settings={"server.upgrade_drain_timeout_ms": 500})
        path, inode = old.path, os.stat(old.path).st_ino
        refused = []

        def connect():
            try:
                return RespClient(path)
            except OSError as error:
                refused.append(error)
                raise

        load = IncrementLoad(connect).start()
        self.addCleanup(load.stop)
        comers = Comers(path, refused)
        self.addCleanup(comers.stop)
        first = old
        for _ in range(3):
            before = load.total("acknowledged") + comers.count
            wait_for(
                lambda: load.total("acknowledged") + comers.count > before + 1000, 20, "a load"
            )
            new = self.upgrade(old)
            self.wait_gone(old)
            old = new
        before = load.total("acknowledged")
        wait_for(lambda: load.total("acknowledged") > before + 500, 20, "the load goes on")
        load.stop()
        comers.stop()
        self.assertEqual([], refused)
        self.assertEqual([], comers.errors)
        self.assertGreaterEqual(load.connections_lost, 3, "nobody was drained: nothing was tested")
        self.assertEqual(0, load.total("unknown"), "a command was sent and not answered")
        with server.client() as direct:
            load.check(self, direct)
            self.assertEqual(comers.count, int(direct.value("GET", "comers") or 0))
        self.assertEqual(inode, os.stat(path).st_ino)
        print(
            f"3 upgrades: {load.total('acknowledged')} pipelined commands and {comers.count} "
            "connects, 0 refused, 0 lost"
        )
        self.assertIsNot(first, old)
        old.stop()
        for name in ("nearkey.sock", "nearkey.sock.lock", "admin.sock", "admin.sock.lock"):
            self.assertFalse(os.path.exists(os.path.join(self.directory, name)), name)

    @unittest.skipIf(redis is None, "python3-redis is not installed")
    def test_a_pool_of_redis_py_notices_nothing(self):
        server = self.start_server()
        old = self.start(server.url, settings={"server.upgrade_drain_timeout_ms": 300})
        # What can't be sent is sent again; if it had been run, the sums would tell.
        app = redis.Redis(
            unix_socket_path=old.path,
            socket_timeout=20 * SLOWNESS,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1),
            retry_on_error=[redis.ConnectionError],
        )
        self.addCleanup(app.close)
        stopping = threading.Event()
        counts, errors = [0] * 4, []

        def work(index):
            while not stopping.is_set():
                try:
                    app.incr(f"app:{index}")
                    counts[index] += 1
                except redis.RedisError as error:
                    errors.append(error)

        threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: min(counts) > 100, 10, "the app works")
            new = self.upgrade(old)
            self.wait_gone(old)
            before = list(counts)
            wait_for(
                lambda: all(now > then + 100 for now, then in zip(counts, before)),
                20,
                "the app works on",
            )
        finally:
            stopping.set()
            for thread in threads:
                thread.join(30)
        self.assertEqual([], errors)
        for index, count in enumerate(counts):
            self.assertEqual(count, int(server.run("GET", f"app:{index}")))
        new.stop()


class Comers:
    """Connects, increments and leaves, over and over, from two threads."""

    def __init__(self, path, refused):
        self.path = path
        self.refused = refused
        self.counts = [0, 0]
        self.errors = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in (0, 1)]
        for thread in self._threads:
            thread.start()

    @property
    def count(self):
        return sum(self.counts)

    def _run(self, index):
        while not self._stopping.is_set():
            try:
                client = RespClient(self.path)
            except OSError as error:
                self.refused.append(error)
                continue
            with client:
                try:
                    reply = client.command("INCR", "comers")
                    if not reply.startswith(b":"):
                        self.errors.append(reply)
                    self.counts[index] += 1
                except BrokenPipeError:
                    pass  # Drained before it could send: it comes again.
                except Exception as error:  # noqa: BLE001 Whatever it is, it is a lost request.
                    self.errors.append(error)

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)


@proxy_only
class UpgradeCoherenceTest(UpgradeTest):
    def test_no_stale_read_while_both_serve(self):
        """A writer through either process, readers through both; every read that begins after the
        write was acknowledged shows it."""
        server = self.start_server()
        old = self.start(server.url)
        through_old = [old.client() for _ in range(2)]
        for client in through_old:
            self.addCleanup(client.close)
        for _ in range(3):
            for client in through_old:
                client.command("SET", "k", "0")
                client.command("GET", "k")
        wait_for(lambda: self.hits(old, through_old[0]) > 0, 5, "the near cache serves")
        new = self.upgrade(old)
        self.assertEqual(1, new.metric(SUSPENDED))
        before = self.hits_of(through_old[0])
        through_new = [new.client() for _ in range(2)]
        for client in through_new:
            self.addCleanup(client.close)
        clients = through_old + through_new
        for number in range(1, 1501):
            writer = clients[number % 4]
            value = str(number).encode()
            self.assertEqual(b"+OK\r\n", writer.command("SET", "k", value))
            for reader in clients:
                self.assertEqual(value, reader.value("GET", "k"))
                self.assertEqual(value, reader.value("GET", "k"))
        self.assertEqual(0, new.metric(HITS))
        self.assertEqual(before, self.hits_of(through_old[0]))
        self.assertIn(b"suspended", through_new[0].command("NEARKEY", "EXPLAIN", "GET", "k"))
        self.assertIn(b"suspended", through_old[0].command("NEARKEY", "EXPLAIN", "GET", "k"))
        for client in through_old:
            client.close()
        self.wait_gone(old)
        wait_for(lambda: new.metric(SUSPENDED) == 0, 5, "the near cache is used again")
        wait_for(lambda: self.hits(new, through_new[0]) > 0, 5, "it serves")
        new.stop()

    def hits_of(self, client):
        """Of a nearkey whose admin socket another one has by now."""
        words = parse(client.command("NEARKEY", "STATS"))
        return dict(zip(words[::2], words[1::2]))[HITS.encode()]

    def hits(self, nearkey, client):
        client.command("GET", "k")
        return nearkey.metric(HITS)

    def test_the_old_one_is_killed_while_both_serve(self):
        server = self.start_server()
        old = self.start(server.url)
        client = old.client()
        self.addCleanup(client.close)
        client.command("SET", "k", "v")
        new = self.upgrade(old)
        self.assertEqual(1, new.metric(SUSPENDED))
        old.signal(signal.SIGKILL)
        wait_for(lambda: new.metric(SUSPENDED) == 0, 5, "the near cache is used again")
        with new.client() as other:
            wait_for(lambda: self.hits(new, other) > 0, 5, "it serves")
        new.stop()

    def test_sigterm_ends_the_old_one_before_its_time(self):
        server = self.start_server()
        old = self.start(server.url)
        client = old.client()
        self.addCleanup(client.close)
        self.assertEqual(PONG, client.command("PING"))
        new = self.upgrade(old)
        self.assertEqual(PONG, client.command("PING"))
        old.signal(signal.SIGTERM)
        self.wait_gone(old)
        self.assertEqual((b"", "eof"), client.read_to_end())
        with new.client() as other:
            self.assertEqual(PONG, other.command("PING"))
        events = new.get("/history")[1]["events"]
        self.assertEqual("upgraded", events[0]["kind"], events)
        new.stop()


CLOSE_ALL = "exec " + " ".join(f"{fd}>&-" for fd in range(3, 10))


@proxy_only
class UpgradeFailureTest(UpgradeTest):
    def check_failure(self, script, reason, *, settings=None):
        server = self.start_server()
        nearkey = self.start(server.url, settings=settings)
        client = nearkey.client()
        self.addCleanup(client.close)
        self.replace_program(script)
        pid = self.begin_upgrade(nearkey)
        wait_for(lambda: self.events(nearkey, "upgrade_failed"), 10, "it is given up")
        self.assertIn(reason, self.events(nearkey, "upgrade_failed")[-1]["reason"])
        self.assertFalse(is_alive(pid))
        self.assertEqual(1, nearkey.metric("nearkey_upgrade_failures_total"))
        # What another program has said is none of ours.
        nearkey.lines[:] = [line for line in nearkey.lines if line.startswith("{")]
        self.assertEqual(PONG, client.command("PING"))
        with nearkey.client() as other:
            self.assertEqual(PONG, other.command("PING"))
        # The near cache is as it was, and the next upgrade can succeed.
        self.assertEqual(0, nearkey.metric(SUSPENDED))
        self.replace_program(f'exec {BINARY} "$@"\n')
        new = self.upgrade(nearkey)
        client.close()
        self.wait_gone(nearkey)
        new.stop()

    def test_a_successor_that_ends(self):
        self.check_failure("exit 3\n", "status 3")

    def test_a_successor_that_takes_its_time_to_end(self):
        self.check_failure(f"{CLOSE_ALL}\nsleep 0.5\nexit 3\n", "status 3")

    def test_a_successor_that_goes_on_without_us(self):
        self.check_failure(f"{CLOSE_ALL}\nexec sleep 1000\n", "it closed the channel")

    def test_a_successor_that_is_killed(self):
        self.check_failure("kill -SEGV $$\n", "signal 11")

    def test_a_successor_with_a_mistaken_configuration(self):
        self.check_failure(f'exec {BINARY} "$@" --set server.nothing=1\n', "status 2")

    def test_a_successor_that_can_not_listen(self):
        self.check_failure(
            f'exec {BINARY} "$@" --listen /proc/nowhere/nearkey.sock\n', "status 1"
        )

    def test_a_successor_that_does_not_get_ready(self):
        # The one that gets ready at last needs less than that, on a busy machine, too.
        limit_ms = 1500 * SLOWNESS
        self.check_failure(
            "exec sleep 1000\n",
            f"not ready within {limit_ms} ms",
            settings={"server.upgrade_start_timeout_ms": limit_ms},
        )

    def test_a_program_that_is_gone(self):
        server = self.start_server()
        nearkey = self.start(server.url)
        os.unlink(self.program)
        nearkey.signal(signal.SIGUSR2)
        wait_for(lambda: self.events(nearkey, "upgrade_refused"), 5, "it is refused")
        self.assertIn(self.program, self.events(nearkey, "upgrade_refused")[-1]["reason"])
        nearkey.stop()

    def test_managed_mode_is_refused(self):
        if shutil.which("valkey-server") is None and shutil.which("redis-server") is None:
            self.skipTest("no server is installed")
        nearkey = self.start("managed:")
        nearkey.signal(signal.SIGUSR2)
        wait_for(lambda: self.events(nearkey, "upgrade_refused"), 5, "it is refused")
        self.assertIn("managed", self.events(nearkey, "upgrade_refused")[-1]["reason"])
        nearkey.stop()

    def test_sockets_that_refused_go_over_listening(self):
        server = self.start_server()
        nearkey = self.start(server.url, settings={"server.when_down": "close"})
        server.kill()
        wait_for(lambda: nearkey.metric("nearkey_ready") == 0, 10, "not ready")
        with self.assertRaises(ConnectionRefusedError):
            nearkey.client()
        self.begin_upgrade(nearkey)
        # While both have them, who comes is let in and closed.
        with nearkey.client() as client:
            self.assertEqual((b"", "eof"), client.read_to_end(timeout=10))
        server.start()
        wait_for(lambda: self.events(nearkey, "upgraded"), 20, "the successor takes over")
        new = successor_of(nearkey, self.events(nearkey, "upgrade_started")[-1]["pid"])
        new.wait_ready()
        self.wait_gone(nearkey)
        for _ in range(2):
            with new.client() as client:
                self.assertEqual(b"+PONG\r\n", client.command("PING"))
            server.kill()
            wait_for(lambda: self.is_refused(new), 10, "the new one refuses by itself")
            server.start()
            wait_for(lambda: not self.is_refused(new), 10, "and listens again")
        new.signal(signal.SIGTERM)

    def test_a_socket_that_can_not_be_bound_anew_is_handed_to_nobody(self):
        server = self.start_server()
        folder = os.path.join(self.directory, "sockets")
        os.mkdir(folder)
        path = os.path.join(folder, "app.sock")
        nearkey = self.start(server.url, settings={"server.when_down": "close"}, listen=[path])
        server.kill()
        wait_for(lambda: nearkey.metric("nearkey_ready") == 0, 10, "not ready")
        os.rename(folder, folder + ".away")
        with open(folder, "w"):
            pass
        server.start()
        wait_for(lambda: nearkey.metric("nearkey_sockets_lost") == 1, 10, "it is lost")
        nearkey.signal(signal.SIGUSR2)
        wait_for(lambda: self.events(nearkey, "upgrade_refused"), 10, "the upgrade is refused")
        self.assertIn("app.sock", self.events(nearkey, "upgrade_refused")[0]["reason"])
        os.remove(folder)
        os.rename(folder + ".away", folder)
        wait_for(lambda: nearkey.metric("nearkey_sockets_lost") == 0, 10, "it is bound anew")
        with RespClient(path) as client:
            self.assertEqual(b"+PONG\r\n", client.command("PING"))
        nearkey.stop()

    def is_refused(self, nearkey):
        try:
            nearkey.client().close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True  # There is no file for a moment, while one socket takes another's place.
        return False

    def test_one_at_a_time(self):
        server = self.start_server()
        old = self.start(server.url)
        client = old.client()
        self.addCleanup(client.close)
        client.command("PING")
        new = self.upgrade(old)
        os.kill(new.pid, signal.SIGUSR2)
        wait_for(lambda: self.events(old, "upgrade_refused"), 5, "the new one refuses")
        self.assertIn("before this one", self.events(old, "upgrade_refused")[-1]["reason"])
        client.close()
        self.wait_gone(old)
        new.stop()

    def test_the_old_one_is_killed_before_the_new_one_is_ready(self):
        """The new one then is alone, and has the sockets."""
        server = self.start_server()
        old = self.start(server.url)
        go = os.path.join(self.directory, "go")
        self.replace_program(
            f'while [ ! -e {go} ]; do sleep 0.05; done; exec {BINARY} "$@"\n'
        )
        pid = self.begin_upgrade(old)
        old.signal(signal.SIGKILL)
        old.process.wait(10)
        with open(go, "w"):
            pass
        new = successor_of(old, pid)
        new.wait_ready()
        with new.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        self.assertEqual(0, new.metric(SUSPENDED))
        new.stop()
        self.assertFalse(os.path.exists(old.path))

    def test_both_are_stopped_before_the_new_one_is_ready(self):
        server = self.start_server()
        old = self.start(server.url)
        self.replace_program("exec sleep 1000\n")
        pid = self.begin_upgrade(old)
        old.signal(signal.SIGTERM)
        self.wait_gone(old)
        wait_for(lambda: not is_alive(pid), 5, "the successor ended with it")
        self.assertFalse(os.path.exists(old.path))


@proxy_only
class UpgradeServiceTest(UpgradeTest):
    def test_what_systemd_hears(self):
        """MAINPID= from the old one before READY=1 from the new one; nothing from the old one
        afterwards."""
        server = self.start_server()
        notify = NotifySocket(self.directory)
        self.addCleanup(notify.close)
        old = self.start(
            server.url,
            notify=notify,
            variables={"WATCHDOG_USEC": "200000"},
        )
        client = old.client()
        self.addCleanup(client.close)
        client.command("PING")
        new = self.upgrade(old)
        notify.wait("MAINPID", str(new.pid))
        notify.wait("READY", more_than=1)
        before = notify.count("WATCHDOG")
        notify.wait("WATCHDOG", more_than=before + 2)
        messages = list(notify.messages)
        handed_over = next(i for i, message in enumerate(messages) if "MAINPID" in message)
        self.assertEqual(old.pid, messages[handed_over]["pid"])
        spoke_before = {m["pid"] for m in messages[:handed_over] if "READY" in m or "STATUS" in m}
        self.assertEqual({old.pid}, spoke_before)
        self.assertEqual({new.pid}, {m["pid"] for m in messages[handed_over + 1 :]})
        self.assertIn("until the old one is gone", notify.statuses()[-1])
        client.close()
        self.wait_gone(old)
        wait_for(lambda: notify.statuses()[-1] == "ready", 5, "alone, and ready")
        new.stop()
        notify.wait("STOPPING")
        self.assertEqual(1, notify.count("STOPPING"))

    def test_the_sockets_of_systemd_stay(self):
        server = self.start_server()
        unit = SocketUnit(
            os.path.join(self.directory, "nearkey.sock"),
            os.path.join(self.directory, "admin.sock"),
            names=["app", "admin"],
        )
        self.addCleanup(unit.close)
        nearkey = self.start(server.url, unit=unit)
        for _ in range(2):
            new = self.upgrade(nearkey)
            self.wait_gone(nearkey)
            nearkey = new
        with nearkey.client() as client:
            self.assertEqual(PONG, client.command("PING"))
        nearkey.stop()
        self.assertTrue(os.path.exists(nearkey.path))
        self.assertTrue(os.path.exists(nearkey.admin_path))

    def test_the_new_one_has_its_own_configuration(self):
        """A listener that is configured no more goes, one that is new comes."""
        server = self.start_server()
        config = os.path.join(self.directory, "nearkey.toml")

        def configure(*names):
            with open(config, "w") as file:
                for name in names:
                    file.write(f'[[listener]]\naddress = "{self.directory}/{name}.sock"\n')

        configure("nearkey", "before")
        old = self.start(server.url, listen=[], args=["--config", config])
        configure("nearkey", "after")
        new = self.upgrade(old)
        self.wait_gone(old)
        names = sorted(n for n in os.listdir(self.directory) if n.endswith(".sock"))
        self.assertEqual(["admin.sock", "after.sock", "nearkey.sock", "valkey.sock"], names)
        for name in ("nearkey", "after"):
            with RespClient(f"{self.directory}/{name}.sock") as client:
                self.assertEqual(PONG, client.command("PING"))
        new.stop()


if __name__ == "__main__":
    unittest.main()
