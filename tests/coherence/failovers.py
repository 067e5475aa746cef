"""A primary and its replica behind Sentinels, two nearkeys that follow them, and failovers.

Nobody writes while one takes place, and the replica has all by then: so it is known what each key is
afterwards. What is lost is written here alone: by nobody's client, to a former primary that does not
know yet (SENTINEL FAILOVER). Until both nearkeys have turned it may be seen; whoever is shown it
after that is shown what is lost (LOST), and a value from before an answered write is as old as
without a failover.
"""

import os
import random
import time

from client_processes import check_running
from load import DATABASES, FIELD, HOT, SLOTS
from resp import Closed
from sentinels import SentinelGroup, is_followed, role

TURNS = "nearkey_failovers_total"


class Void(Exception):
    """The Sentinels did not do what the run rests on: it shows nothing, and is made again."""


class World:
    def __init__(self, directory, binary, rule, needs):
        import processes

        processes.BINARY = os.path.abspath(binary)
        # The Sentinels do what they are told here, and nothing by themselves: one who only waits for
        # a processor would be taken for dead, and a replica made the primary that has not everything.
        self.group = SentinelGroup(directory, down_after_ms=60_000).start()
        self.group.hurry()
        self.direct = os.path.join(directory, "direct.sock")
        self.lead_to(self.group.primary())
        self.nearkeys = {}
        for name in ("a", "b"):
            home = os.path.join(directory, name)
            os.mkdir(home)
            self.nearkeys[name] = processes.Nearkey(
                home,
                self.group.url(),
                settings={
                    "server.workers": 2 if name == "b" else 1,
                    "near_cache.thrash_guard": "false",
                    **needs.settings,
                },
                environment={"NEARKEY_SABOTAGE": rule} if rule else None,
            ).start()

    def lead_to(self, server):
        os.symlink(server.path, self.direct + ".new")
        os.replace(self.direct + ".new", self.direct)

    def addresses(self):
        paths = {name: nearkey.path for name, nearkey in self.nearkeys.items()}
        return {**paths, "direct": self.direct}

    def processes(self):
        named = {f"nearkey {name}": nearkey for name, nearkey in self.nearkeys.items()}
        return {**named, **{f"server {each.port}": each for each in self.group.servers}}

    def sum(self, metric):
        return sum(nearkey.metric(metric) for nearkey in self.nearkeys.values())

    def turns(self):
        return [
            sum(value for name, value in nearkey.metrics().items() if name.startswith(TURNS))
            for nearkey in self.nearkeys.values()
        ]

    def stop(self):
        for nearkey in self.nearkeys.values():
            nearkey.stop()
        self.group.stop()


class Failovers:
    def __init__(self, world, clients, seed):
        self.world = world
        self.group = world.group
        self.clients = clients
        self.random = random.Random(seed)
        self.log = []  # (name, start, end)
        self.lost = []  # (key, value, until when it may be seen)
        self.number = 0

    def run(self, until, _):
        kinds = []
        while time.monotonic() < until:
            # Most of them leave a former primary that serves on.
            kinds = kinds or self.random.sample(["order", "order", "kill", "freeze"], 4)
            self.clients.rest(self.random.uniform(0.5, 1.5))
            check_running(self.world.processes())
            kind = kinds.pop()
            start = time.monotonic()
            self.fail_over(kind)
            self.log.append((kind, start, time.monotonic()))
        for count in self.world.turns():
            if count != len(self.log):
                raise Void("not the failovers of this run alone")

    def fail_over(self, kind):
        self.clients.pause()
        former = self.group.primary()
        while not is_followed(former, 1):
            time.sleep(0.01)
        before = self.world.turns()
        if kind != "order":
            getattr(former, kind)()
        self.group.order_failover()
        successor = self.wait_for_sentinels(lambda: self.group.wait_promoted(former, 10))
        lost = self.write_to(former) if kind == "order" else []
        self.world.lead_to(successor)
        # It wakes up before anybody has turned, or after that.
        wakes_first = kind == "freeze" and self.random.random() < 0.5
        if wakes_first:
            former.thaw()
        end = time.monotonic() + 20
        while any(now <= then for now, then in zip(self.world.turns(), before)):
            if time.monotonic() > end:
                self.wait_for_sentinels(lambda: self.group.wait_named(successor, 1))
                if role(successor) != b"master":
                    raise Void("who was promoted is a replica again")
                raise AssertionError(f"a nearkey has not turned: {kind}\n{self.described()}")
            time.sleep(0.005)
        if kind == "freeze" and not wakes_first:
            former.thaw()
        if kind != "kill":
            former.run("CLIENT", "KILL", "TYPE", "normal")
        turned = time.monotonic()
        self.lost += [(key, value, turned) for key, value in lost]
        self.clients.resume(("failover", turned, turned, "nobody"))
        if kind == "kill":
            former.start("--replicaof", "127.0.0.1", str(successor.port))
        # Who becomes a replica ends its connections, those of whoever asks as well.
        while True:
            try:
                self.wait_for_sentinels(self.group.wait_settled)
                return
            except (OSError, Closed):
                time.sleep(0.05)

    def wait_for_sentinels(self, wait):
        try:
            return wait()
        except AssertionError as error:
            raise Void(str(error)) from error

    def described(self):
        """Who thinks what, for whoever has waited for nothing."""
        lines = [f"{each.port}: {role(each)}" for each in self.group.servers]
        lines += [f"{each.address} names {each.names()}" for each in self.group.sentinels]
        for nearkey in self.world.nearkeys.values():
            lines += [str(line) for line in nearkey.logs()[-20:]]
        return "\n".join(lines)

    def write_to(self, server):
        """To the keys that are read most, twice, so that some of it is read, and stored, meanwhile."""
        lost = []
        with server.client() as client:
            for _ in range(2):
                for database in range(DATABASES):
                    client.command("SELECT", str(database))
                    for place, generation in enumerate(self.clients.shared.generations):
                        owner, slot = divmod(place, SLOTS)
                        if slot >= HOT:
                            continue
                        self.number += 1
                        name, value = f"k{owner}:{slot}:{generation}", f"lost={self.number}"
                        put = ("HSET", name, FIELD, value) if slot % 2 else ("SET", name, value)
                        if client.command(*put).startswith(b"-"):
                            return lost  # It knows.
                        lost.append((f"{database}/{name}", value))
                time.sleep(0.02)
        return lost
