"""Clusters for scripts/bench --nodes: a real one of a few primaries, and one of a thousand that
there are only in an answer to CLUSTER SLOTS."""
import os
import selectors
import socket
import threading
import time

from programs import (FAR_RTT_US, START_TIMEOUT_S, BenchError, Contender, connect_unix, encode,
                      free_port, need_program)

SLOTS = 16384
PRIMARIES = 1000
# What is measured is nearkey before nodes that answer: no other question may be late.
SETTINGS = {"near_cache.enabled": "false", "upstream.request_timeout_ms": 60000}


def connect_tcp(port):
    return socket.create_connection(("127.0.0.1", port), 5)


def ask(path, *words):
    """The first bytes of the reply of the server at this socket."""
    with connect_unix(path) as client:
        client.sendall(encode(*map(str, words)))
        return client.recv(65536)


def wait_until(is_so, what):
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise BenchError(f"not after {START_TIMEOUT_S} s: {what}")
        time.sleep(0.02)


class Node:
    """A valkey-server of the cluster. `is_far`: also reached through a relay, at far_port."""

    def __init__(self, bench, name):
        self.bench = bench
        self.name = name
        self.path = bench.socket_path(name)
        self.port = free_port()
        self.bus_port = free_port()
        self.far_port = None
        directory = os.path.join(bench.directory, f"{name}-data")
        os.mkdir(directory)
        self.program = bench.start(name, [
            need_program("valkey-server", "redis-server"), "--bind", "127.0.0.1",
            "--port", str(self.port), "--unixsocket", self.path, "--unixsocketperm", "700",
            "--dir", directory, "--daemonize", "no", "--save", "", "--appendonly", "no",
            "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port),
            "--cluster-require-full-coverage", "no"])
        self.program.wait_until_answers(lambda: connect_unix(self.path), ["PING"], b"+PONG")

    def start_relay(self):
        if self.far_port is not None:
            return
        self.far_port = free_port()
        relay = self.bench.start(f"{self.name}-relay", [
            self.bench.tool("nearkey_delay_relay"), str(self.far_port), self.path,
            str(FAR_RTT_US // 2)])
        relay.wait_until_answers(lambda: connect_tcp(self.far_port), ["PING"], b"+PONG")


class ClusterField:
    """Primaries that own all slots in equal parts."""

    def __init__(self, bench, name, count):
        self.bench = bench
        self.nodes = [Node(bench, f"{name}-{number}") for number in range(count)]
        each = SLOTS // count
        for number, node in enumerate(self.nodes):
            last = SLOTS - 1 if number == count - 1 else (number + 1) * each - 1
            ask(node.path, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            ask(node.path, "CLUSTER", "ADDSLOTSRANGE", number * each, last)
        for node in self.nodes[1:]:
            ask(self.nodes[0].path, "CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        for node in self.nodes:
            wait_until(lambda node=node: self.is_whole(node), f"{node.name} knows the cluster")

    def is_whole(self, node):
        said = ask(node.path, "CLUSTER", "INFO")
        return (b"cluster_state:ok" in said and b"cluster_slots_ok:16384" in said
                and b"cluster_known_nodes:%d\r\n" % len(self.nodes) in said)

    def tag_of(self, node):
        """A hash tag whose slot this node owns."""
        number = self.nodes.index(node)
        each = SLOTS // len(self.nodes)
        for tag in range(10_000):
            slot = int(ask(node.path, "CLUSTER", "KEYSLOT", tag)[1:].split(b"\r")[0])
            if min(slot // each, len(self.nodes) - 1) == number:
                return f"{{{tag}}}"
        raise BenchError(f"no tag is of {node.name}")

    def nearkey(self, name, binary, is_far=False, **settings):
        if is_far:
            for node in self.nodes:
                node.start_relay()
            settings["cluster.addresses"] = ",".join(
                f"127.0.0.1:{node.port}=127.0.0.1:{node.far_port}" for node in self.nodes)
        ports = [node.far_port if is_far else node.port for node in self.nodes]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return start_nearkey(self.bench, name, binary, f"valkey+cluster://{hosts}", settings)


def start_nearkey(bench, name, binary, upstream, settings):
    path = bench.socket_path(name)
    command = [binary, "serve", "--upstream", upstream, "--listen", path,
               "--admin", bench.socket_path(f"{name}-admin")]
    for option, value in {**SETTINGS, **settings}.items():
        command += ["--set", f"{option}={value}"]
    program = bench.start(name, command)
    # A script or PING may be answered before all nodes are there; keys of all are then.
    program.wait_until_answers(lambda: connect_unix(path), ["PING"], b"+PONG")
    return Contender(name, ["--unix", path], program)


def slots_reply(port, is_scattered):
    """CLUSTER SLOTS of a thousand primaries at one address, each with a range of its own, or with
    slots one by one."""
    ranges = [(slot, slot, slot % PRIMARIES) for slot in range(SLOTS)] if is_scattered else [
        (SLOTS * number // PRIMARIES, SLOTS * (number + 1) // PRIMARIES - 1, number)
        for number in range(PRIMARIES)]
    parts = [f"*{len(ranges)}\r\n"]
    for first, last, number in ranges:
        parts.append(f"*3\r\n:{first}\r\n:{last}\r\n*4\r\n$9\r\n127.0.0.1\r\n:{port}\r\n"
                     f"$40\r\n{number:040x}\r\n*0\r\n")
    return "".join(parts).encode()


class SyntheticCluster(threading.Thread):
    """One socket that stands for all nodes: it tells of a thousand primaries, and gives every other
    command the answer that a real server gave once."""

    def __init__(self, server_path):
        super().__init__(daemon=True)
        self.server_path = server_path
        self.answers = {}
        self.asked = 0  # CLUSTER SLOTS
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.slots = b""
        self.is_over = False
        self.start()

    def answer(self, command):
        if b"\r\nSLOTS\r\n" in command:
            self.asked += 1
            return self.slots
        if command not in self.answers:
            with connect_unix(self.server_path) as client:
                client.sendall(command + encode("ECHO", "the end"))
                reply = b""
                while not reply.endswith(b"$7\r\nthe end\r\n"):
                    reply += client.recv(1 << 20)
            self.answers[command] = reply.removesuffix(b"$7\r\nthe end\r\n")
        return self.answers[command]

    def run(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            while not self.is_over:
                for key, _ in selector.select(0.1):
                    if key.fileobj is self.listener:
                        client = self.listener.accept()[0]
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        selector.register(client, selectors.EVENT_READ, bytearray())
                    else:
                        self.serve(selector, key)
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def serve(self, selector, key):
        try:
            read = key.fileobj.recv(65536)
            if read:
                key.data.extend(read)
                while command := take_command(key.data):
                    key.fileobj.sendall(self.answer(command))
                return
        except OSError:
            pass
        selector.unregister(key.fileobj)
        key.fileobj.close()

    def close(self):
        self.is_over = True
        self.join(START_TIMEOUT_S)


def take_command(data):
    """The first command, taken off; empty: it is not whole yet."""
    end = data.find(b"\r\n")
    if end < 0:
        return b""
    at = end + 2
    for _ in range(int(data[1:end])):
        end = data.find(b"\r\n", at)
        if end < 0:
            return b""
        at = end + 2 + int(data[at + 1:end]) + 2
    if len(data) < at:
        return b""
    command = bytes(data[:at])
    del data[:at]
    return command
