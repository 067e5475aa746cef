"""A Valkey Cluster of real processes: some primaries, and replicas if wanted."""

import contextlib
import os
import tempfile
import time

from processes import ValkeyServer, free_port, wait_for

SLOTS = 16384


class Cluster:
    """Starts in two seconds, with replicas in up to five: that long a node waits before it serves. So
    one for a class, emptied between its tests. A node that only waits for a processor must not be
    taken for dead: the time for that is long, unless a test kills some."""

    def __init__(self, directory, primaries=3, replicas=0, node_timeout_ms=15000,
                 bind="127.0.0.1", args=lambda port: ()):
        """`args`: further ones of a node, by its port."""
        self.nodes = []
        for number in range(primaries * (1 + replicas)):
            folder = os.path.join(directory, f"node{number}")
            os.mkdir(folder)
            port = free_port()
            self.nodes.append(
                ValkeyServer(
                    folder, name="node", bind=bind, port=port,
                    args=[
                        "--cluster-enabled", "yes", "--cluster-port", str(free_port()),
                        "--cluster-node-timeout", str(node_timeout_ms),
                        "--repl-diskless-sync-delay", "0", *args(port),
                    ],
                )
            )
        self.primaries = primaries

    def start(self):
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            wait_for(node.answers, 10, "a node answers")
        each = SLOTS // self.primaries
        for number, node in enumerate(self.nodes[: self.primaries]):
            last = SLOTS - 1 if number == self.primaries - 1 else (number + 1) * each - 1
            assert node.run("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1)) == b"OK"
            assert node.run("CLUSTER", "ADDSLOTSRANGE", str(number * each), str(last)) == b"OK"
        for node in self.nodes[1:]:
            self.meet(self.nodes[0], node)
        count = b"cluster_known_nodes:%d\r\n" % len(self.nodes)
        for node in self.nodes:
            wait_for(lambda node=node: count in node.run("CLUSTER", "INFO"), 15, "all nodes met")
        for number, node in enumerate(self.nodes[self.primaries :]):
            self.replicate(node, self.nodes[number % self.primaries])
        self.wait_until_ok()
        for node in self.nodes[self.primaries :]:
            self.wait_until_replicated(node)
        return self

    @staticmethod
    def meet(known, new):
        known.run("CLUSTER", "MEET", new.bind, str(new.port), bus_port_of(new))

    def replicate(self, node, primary):
        primary_id = self.id_of(primary)
        wait_for(
            lambda: node.run("CLUSTER", "REPLICATE", primary_id) == b"OK", 15, "a replica follows"
        )

    @staticmethod
    def wait_until_replicated(node):
        wait_for(
            lambda: b"master_link_status:up" in node.run("INFO", "replication"),
            15, "a replica is up to date",
        )

    def replace(self, dead, primary):
        """A node that was killed begins anew, as a replica: the file of the cluster that it has left
        may have been cut in the middle."""
        os.remove(os.path.join(dead.directory, "nodes.conf"))
        dead.start()
        primary_id = self.id_of(primary)

        def follows():
            if dead.run("CLUSTER", "REPLICATE", primary_id) == b"OK":
                return True
            # A handshake that takes longer than the nodes' timeout is forgotten.
            self.meet(primary, dead)
            time.sleep(0.05)
            return False

        wait_for(follows, 15, "a replica follows")
        self.wait_until_replicated(dead)

    def stop(self):
        for node in self.nodes:
            node.kill()

    def wait_until_ok(self):
        for node in self.nodes:
            if node.is_running():
                wait_for(
                    lambda node=node: b"cluster_state:ok" in node.run("CLUSTER", "INFO"),
                    20, "a node serves",
                )

    @staticmethod
    def id_of(node):
        return node.run("CLUSTER", "MYID")

    def url(self, *nodes, scheme="valkey+cluster"):
        """Of all nodes, or of some, in that order."""
        hosts = ",".join(address_of(node) for node in nodes or self.nodes)
        return f"{scheme}://{hosts}"

    def flush(self):
        for node in self.nodes:
            if node.is_running() and b"role:master" in node.run("INFO", "replication"):
                node.run("FLUSHALL")

    def epochs(self):
        """Each current epoch that a node knows."""
        told = [node.run("CLUSTER", "INFO") for node in self.nodes if node.is_running()]
        return {
            line for each in told for line in each.split() if line.startswith(b"cluster_current_epoch")
        }

    def slot_of(self, key):
        return self.a_running_node().run("CLUSTER", "KEYSLOT", key)

    def a_running_node(self):
        return next(node for node in self.nodes if node.is_running())

    def owner_of(self, slot, asked=None):
        """The node that owns it, by the word of `asked`, or of the first that runs."""
        asked = asked or self.a_running_node()
        for first, last, owner, *_ in asked.run("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                of_port = next((node for node in self.nodes if node.port == owner[1]), None)
                # What it announces may be another port.
                return of_port or next(node for node in self.nodes
                                       if node.is_running() and self.id_of(node) == owner[2])
        return None

    def move(self, slot, target, *, while_moving=lambda: None,
             migrating=contextlib.nullcontext()):
        """Moves a slot with its keys, as valkey-cli --cluster reshard does. `migrating` is entered
        while keys are on their way."""
        # A node that does not know the newest epoch yet would claim its slot by an older one.
        wait_for(lambda: len(self.epochs()) == 1, 10, "all know the newest epoch")
        source = self.owner_of(slot)
        if source is target:
            return
        target_id, source_id = self.id_of(target), self.id_of(source)
        number = str(slot)
        target.run("CLUSTER", "SETSLOT", number, "IMPORTING", source_id)
        source.run("CLUSTER", "SETSLOT", number, "MIGRATING", target_id)
        while_moving()
        while True:
            keys = source.run("CLUSTER", "GETKEYSINSLOT", number, "100")
            if not keys:
                break
            with source.client() as client, migrating:
                reply = client.command(
                    "MIGRATE", target.bind, str(target.port), "", "0", "5000", "KEYS", *keys
                )
                if reply.startswith(b"-CLUSTERDOWN"):
                    wait_for(lambda: b"cluster_state:ok" in source.run("CLUSTER", "INFO"), 20,
                             "the cluster serves again")
                    continue
                # Or somebody has deleted them meanwhile.
                assert reply in (b"+OK\r\n", b"+NOKEY\r\n"), reply
        for node in (target, source, *self.nodes):
            if node.is_running() and b"role:master" in node.run("INFO", "replication"):
                node.run("CLUSTER", "SETSLOT", number, "NODE", target_id)
        for node in self.nodes:
            if node.is_running():
                wait_for(
                    lambda node=node: self.owner_of(slot, node) is target, 10, "all know of it"
                )


def bus_port_of(node):
    """Where the other nodes reach it: what it announces, if it does."""
    announces = "--cluster-announce-bus-port" in node.args
    option = "--cluster-announce-bus-port" if announces else "--cluster-port"
    return node.args[node.args.index(option) + 1]


def address_of(node):
    """As in a URL, and as nearkey shows it."""
    host = f"[{node.bind}]" if ":" in node.bind else node.bind
    return f"{host}:{node.port}"


def cluster_of(case, **options):
    """For setUpClass: one that ends with the class."""
    directory = tempfile.mkdtemp()
    cluster = Cluster(directory, **options)
    case.addClassCleanup(cluster.stop)
    return cluster.start()
