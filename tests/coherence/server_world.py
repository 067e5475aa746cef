"""A server and two nearkeys before it, one straight and one behind a relay, and the faults of this
world: connections that are lost or stand still, a server that is gone, everything changed at once.
"""

import os
import random
import time

from client_processes import check_running
from relay import Relay


class World:
    """A server, nearkey `a` straight at it and nearkey `b` behind a relay that lets each
    connection lag by another time, so that news and answers overtake each other."""

    def __init__(self, directory, binary, rule, needs):
        import processes

        processes.BINARY = os.path.abspath(binary)
        self.server = processes.ValkeyServer(directory).start()
        self.relay = Relay(os.path.join(directory, "relay.sock"), self.server.path)
        self.relay.spread_seconds = needs.spread_s
        environment = {"NEARKEY_SABOTAGE": rule} if rule else None
        self.nearkeys = {}
        for name, upstream in (("a", self.server.path), ("b", self.relay.path)):
            home = os.path.join(directory, name)
            os.mkdir(home)
            self.nearkeys[name] = self.make_nearkey(
                home,
                f"unix://{upstream}",
                settings={
                    "upstream.connections": 2 if name == "b" else 1,
                    # So many writes would have every key leave the cache.
                    "near_cache.thrash_guard": "false",
                    **needs.settings,
                },
                environment=environment,
            ).start()

    def make_nearkey(self, home, *arguments, **options):
        import processes

        return processes.Nearkey(home, *arguments, **options)

    def addresses(self):
        paths = {name: nearkey.path for name, nearkey in self.nearkeys.items()}
        return {**paths, "direct": self.server.path}

    def processes(self):
        named = {f"nearkey {name}": nearkey for name, nearkey in self.nearkeys.items()}
        return {**named, "server": self.server}

    def sum(self, metric):
        return sum(nearkey.metric(metric) for nearkey in self.nearkeys.values())

    def stop(self):
        for nearkey in self.nearkeys.values():
            nearkey.stop()
        self.relay.close()
        self.server.stop()


class Faults:
    def __init__(self, world, clients, seed):
        self.world = world
        self.clients = clients
        self.random = random.Random(seed)
        self.log = []  # (name, start, end)

    def faults(self):
        return [self.kill_clients, self.kill_clients, self.stop_server, self.restart_server,
                self.flush, self.swap, self.forget_tracking, self.freeze_replies,
                self.freeze_requests, self.cut]

    def run(self, until, names):
        faults = self.faults() if names is None else [getattr(self, name) for name in names]
        queue = []
        while time.monotonic() < until:
            if not queue:
                queue = self.random.sample(faults, len(faults))
            self.clients.rest(self.random.uniform(0.1, 0.6))
            check_running(self.world.processes())
            if not queue:
                continue
            fault = queue.pop()
            start = time.monotonic()
            fault()
            self.log.append((fault.__name__, start, time.monotonic()))

    def kill_clients(self):
        """About half of all connections, ours and others'."""
        with self.world.server.client() as client:
            own = client.value("CLIENT", "ID")
            ids = [row["id"] for row in self.world.server.clients() if int(row["id"]) != own]
            for each in ids:
                if self.random.random() < 0.5:
                    client.command("CLIENT", "KILL", "ID", each)

    def stop_server(self):
        self.world.server.freeze()
        time.sleep(self.random.uniform(0.2, 1.4))
        self.world.server.thaw()

    def freeze_replies(self):
        self.world.relay.freeze_replies()
        time.sleep(self.random.uniform(0.3, 2.5))
        self.world.relay.thaw()

    def freeze_requests(self):
        self.world.relay.freeze_requests()
        time.sleep(self.random.uniform(0.3, 1.2))
        self.world.relay.thaw()

    def cut(self):
        self.world.relay.cut_all()

    def forget_tracking(self):
        """The server has no room left to remember who read what."""
        with self.world.server.client() as client:
            client.command("CONFIG", "SET", "tracking-table-max-keys", "5")
            time.sleep(1)
            client.command("CONFIG", "SET", "tracking-table-max-keys", "1000000")

    # --- of all keys at once: nobody writes meanwhile ---

    def restart_server(self):
        def restart():
            self.world.server.kill()
            self.world.server.start()
            return "server"

        self.at_once("wipe", restart)

    def flush(self):
        self.at_once("wipe", lambda: self.command_anywhere("FLUSHALL"))

    def swap(self):
        self.at_once("swap", lambda: self.command_anywhere("SWAPDB", "0", "1"))

    def command_anywhere(self, *command):
        from resp import RespClient

        channel, path = self.random.choice(list(self.world.addresses().items()))
        with RespClient(path) as client:
            reply = client.command(*command)
        if reply != b"+OK\r\n":
            # Not known whether it happened: the run would be worth nothing.
            raise RuntimeError(f"{command} through {channel}: {reply}")
        return channel

    def at_once(self, kind, action):
        self.clients.pause()
        start = time.monotonic()
        channel = action()
        end = time.monotonic()
        self.clients.resume((kind, start, end, channel))
