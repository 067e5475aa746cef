"""The bus of a cluster's nodes, through relays, so that some of them can be cut off from the others.
Clients, nearkey among them, reach all of them as before.
"""

from processes import free_port
from relay import Relay

# In a message of the bus (clusterMsg in cluster_legacy.h): the 40 bytes that name its sender.
SENDER = slice(40, 80)


class Bus:
    """Each node announces the port of a relay. Whoever connects to that names itself with its first
    message."""

    def __init__(self):
        self.announced = {}  # by the nodes' ports
        self.relays = {}

    def args(self, port):
        """For Cluster(args=...)."""
        self.announced[port] = free_port()
        return ["--cluster-announce-bus-port", str(self.announced[port])]

    def start(self, nodes):
        """Before the nodes meet."""
        for node in nodes:
            port = int(node.args[node.args.index("--cluster-port") + 1])
            self.relays[node.port] = Relay(("127.0.0.1", self.announced[node.port]),
                                           ("127.0.0.1", port))

    def cut_off(self, minority, id_of):
        """These hear each other, and none of the others, who hear none of them."""
        ports = {node.port for node in minority}
        ids = {id_of(node) for node in minority}
        for port, relay in self.relays.items():
            relay.hold(lambda asked, is_inside=port in ports: (asked[SENDER] in ids) != is_inside,
                       are_requests_held=True)

    def heal(self):
        for relay in self.relays.values():
            relay.thaw()

    def stop(self):
        for relay in self.relays.values():
            relay.close()
