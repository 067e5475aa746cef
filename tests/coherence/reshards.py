"""A Valkey Cluster, two nearkeys with a near cache before it, and one without as whoever writes from
elsewhere. Slots move, nodes fail over by plan, are killed, frozen and cut off from the others for less
and for more than a failover takes, and lose their connections, all under load.

Nobody writes while an unplanned failover takes place, and the replica has all by then: so it is known
what each key is afterwards. Slots move, and planned failovers run, while everybody writes.
"""

import os
import random
import signal
import time

from client_processes import check_running
from failovers import Void
from load import tags
from partitions import Bus

WAIT_S = 30
NODE_TIMEOUT_MS = 2000


class World:
    def __init__(self, directory, binary, rule, needs):
        import processes
        from clusters import Cluster

        processes.BINARY = os.path.abspath(binary)
        self.bus = Bus()
        self.cluster = Cluster(directory, replicas=1, node_timeout_ms=NODE_TIMEOUT_MS,
                               args=self.bus.args)
        self.bus.start(self.cluster.nodes)
        self.cluster.start()
        self.nearkeys = {}
        for name in ("a", "b", "direct"):
            home = os.path.join(directory, name)
            os.mkdir(home)
            self.nearkeys[name] = processes.Nearkey(
                home,
                self.cluster.url(),
                settings={
                    "server.workers": 2 if name == "b" else 1,
                    "near_cache.thrash_guard": "false",
                    "near_cache.enabled": "false" if name == "direct" else "true",
                    **needs.settings,
                },
                environment={"NEARKEY_SABOTAGE": rule} if rule else None,
            ).start()

    def addresses(self):
        return {name: nearkey.path for name, nearkey in self.nearkeys.items()}

    def processes(self):
        named = {f"nearkey {name}": nearkey for name, nearkey in self.nearkeys.items()}
        return {**named, **{f"node {each.port}": each for each in self.cluster.nodes}}

    def sum(self, metric):
        return sum(nearkey.metric(metric) for nearkey in self.nearkeys.values())

    def stop(self):
        for nearkey in self.nearkeys.values():
            nearkey.stop()
        self.cluster.stop()
        self.bus.stop()


class Reshards:
    def __init__(self, world, clients, seed):
        self.world = world
        self.cluster = world.cluster
        self.clients = clients
        self.random = random.Random(seed)
        self.log = []  # (name, start, end)

    def run(self, until, names):
        faults = {"move": 6, "move_apart": 1, "plan": 1, "kill": 1, "freeze": 1, "cut_off": 2,
                  "cut_shard_off": 1, "blink": 2, "cut_briefly": 2, "kill_clients": 2}
        names = names or faults
        queue = []
        while time.monotonic() < until:
            queue = queue or self.random.sample(
                [name for name in names for _ in range(faults[name])],
                sum(faults[name] for name in names))
            self.clients.rest(self.random.uniform(0.05, 0.3))
            check_running(self.world.processes())
            name = queue.pop()
            start = time.monotonic()
            getattr(self, name)()
            self.log.append((name, start, time.monotonic()))

    # --- while everybody writes ---

    def move(self):
        """Some of the slots that are used go to other primaries."""
        slots = [self.cluster.slot_of(tag) for tag in tags()]
        for slot in self.random.sample(slots, 4):
            self.cluster.move(slot, self.random.choice(self.primaries()))

    def move_apart(self):
        """One, and meanwhile one of its two nodes hears nothing of the others for a moment."""
        slot = self.cluster.slot_of(self.random.choice(tags()))
        node = self.random.choice(self.primaries())
        self.cluster.move(slot, node, while_moving=lambda: self.part(
            [self.random.choice([node, self.cluster.owner_of(slot)])], 0.1, 1.0))

    def cut_briefly(self):
        """Some nodes, for less than makes a failover."""
        nodes = self.random.sample(self.cluster.nodes, self.random.randrange(1, 4))
        self.part(nodes, 0.1, 0.6 * NODE_TIMEOUT_MS / 1000)

    def cut_shard_off(self):
        """A primary and its replica: nobody takes over, and its slots, or all, are not served. What
        the primary has acknowledged stays."""
        self.part(self.pair(), 1.1 * NODE_TIMEOUT_MS / 1000, 2.0 * NODE_TIMEOUT_MS / 1000)
        self.cluster.wait_until_ok()

    def part(self, nodes, shortest_s, longest_s):
        self.world.bus.cut_off(nodes, self.cluster.id_of)
        time.sleep(self.random.uniform(shortest_s, longest_s))
        self.world.bus.heal()

    def plan(self):
        primary, replica = self.pair()
        replica.run("CLUSTER", "FAILOVER")
        self.wait_for_turn(replica)
        self.wait_until_replicated(replica, primary)

    def blink(self):
        node = self.random.choice(self.cluster.nodes)
        node.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.1, 1.0))
        node.signal(signal.SIGCONT)

    def kill_clients(self):
        node = self.random.choice(self.primaries())
        with node.client() as client:
            own = client.value("CLIENT", "ID")
            for row in node.clients():
                if int(row["id"]) != own and row["flags"] in "Nt" and self.random.random() < 0.5:
                    client.command("CLIENT", "KILL", "ID", row["id"])

    # --- while nobody writes ---

    def kill(self):
        self.fail_over(lambda node: (node.signal(signal.SIGKILL), node.process.wait(10)),
                       lambda node, heir: self.cluster.replace(node, heir))

    def freeze(self):
        self.fail_over(lambda node: node.signal(signal.SIGSTOP),
                       lambda node, heir: node.signal(signal.SIGCONT))

    def cut_off(self):
        """A primary, which serves on until it knows; clients reach it all the time."""
        def begin(node):
            self.world.bus.cut_off([node], self.cluster.id_of)
            self.wait(lambda: b"cluster_state:fail" in node.run("CLUSTER", "INFO"),
                      "the primary does not know that it is cut off")

        self.fail_over(begin, lambda node, heir: self.world.bus.heal())

    def fail_over(self, begin, end):
        self.clients.pause()
        primary, replica = self.pair()
        self.wait_for_offset(primary, replica)
        begin(primary)
        self.wait_for_turn(replica)
        # Whoever was paused goes on before the former primary comes back, or after that.
        wakes_first = self.random.random() < 0.5
        if wakes_first:
            end(primary, replica)
            # Until it knows, it acknowledges writes that will be lost.
            self.wait(lambda: self.role(primary) == b"slave", "the former primary stays one")
        self.clients.resume(("failover", 0, 0, None))
        if not wakes_first:
            time.sleep(self.random.uniform(0, 1.5))
            end(primary, replica)
        self.wait_until_replicated(replica, primary)
        self.cluster.wait_until_ok()

    # --- what the nodes are ---

    def role(self, node):
        return node.run("ROLE")[0]

    def primaries(self):
        return [node for node in self.cluster.nodes if self.role(node) == b"master"]

    def pair(self):
        """A primary that has a replica, and that one."""
        primaries = self.random.sample(self.primaries(), len(self.primaries()))
        for primary in primaries:
            of_primary = b"myself,slave " + self.cluster.id_of(primary)
            for node in self.cluster.nodes:
                if of_primary in node.run("CLUSTER", "NODES"):
                    return primary, node
        raise Void("no primary has a replica")

    def wait(self, condition, what):
        end = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end:
                raise Void(what)
            time.sleep(0.01)

    def wait_for_turn(self, replica):
        self.wait(lambda: self.role(replica) == b"master", "the replica was not promoted")

    def wait_for_offset(self, primary, replica):
        self.wait(lambda: primary.run("ROLE")[1] <= replica.run("ROLE")[4],
                  "the replica does not catch up")

    def wait_until_replicated(self, primary, replica):
        self.wait(lambda: primary.run("ROLE")[2] and replica.run("ROLE")[3] == b"connected",
                  "the former primary does not follow")
