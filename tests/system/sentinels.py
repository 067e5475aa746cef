"""A primary, replicas and Sentinels: the real programs, each on a loopback port of its own.

A group is up and knows itself after about 1 s: its Sentinels are told to greet each other more often
than every 2 s. What else they do keeps its time, unless hurry() is called.
"""

import os

from processes import Process, ValkeyServer, free_port, valkey_program, wait_for
from resp import Closed, RespClient, RespError

NAME = "mymaster"
HOST = "127.0.0.1"


def pairs(values):
    """The dictionary of a flat list of names and values, as Sentinel answers with RESP2."""
    return {values[i].decode(): values[i + 1].decode() for i in range(0, len(values), 2)}


class Sentinel(Process):
    """One `valkey-server CONF --sentinel`; it writes its state into its file, so that it knows
    everything when it is started again."""

    def __init__(self, directory, *, port=None, lines=(), credentials=()):
        self.port = port if port is not None else free_port()
        self.directory = os.path.join(directory, f"sentinel-{self.port}")
        self.config = os.path.join(self.directory, "sentinel.conf")
        self.path = os.path.join(self.directory, "sentinel.sock")
        self.credentials = list(credentials)
        os.mkdir(self.directory)
        with open(self.config, "w") as file:
            own = [
                f"port {self.port}",
                f"bind {HOST}",
                f"unixsocket {self.path}",
                f"dir {self.directory}",
                f"logfile {self.directory}/log",
            ]
            file.write("\n".join([*own, *lines, ""]))

    @property
    def address(self):
        return f"{HOST}:{self.port}"

    def start(self):
        self.spawn([valkey_program("server"), self.config, "--sentinel"])
        return self

    def monitor_anew(self, server):
        """What it will think, once it is started again: that server is the primary, and nobody else
        is known."""
        with open(self.config) as file:
            lines = [line for line in file if not line.startswith("sentinel known-")]
        for at, line in enumerate(lines):
            if line.startswith("sentinel monitor "):
                words = line.split()
                lines[at] = " ".join([*words[:4], str(server.port), words[5], "\n"])
        with open(self.config, "w") as file:
            file.writelines(lines)

    def client(self):
        client = RespClient(self.path, timeout=5)
        if self.credentials:
            reply = client.command("AUTH", *self.credentials)
            assert reply == b"+OK\r\n", reply
        return client

    def run(self, *command):
        with self.client() as client:
            return client.value(*command)

    def answers(self):
        try:
            return self.run("PING") == b"PONG"
        except (OSError, Closed):
            assert self.is_running(), f"a Sentinel ended; see {self.directory}/log"
            return False

    def master(self, name=NAME):
        """What it knows of the primary, as a dictionary; empty while it knows nothing."""
        reply = self.run("SENTINEL", "MASTER", name)
        return {} if isinstance(reply, RespError) else pairs(reply)

    def names(self, name=NAME):
        """The address that it gives to clients, as "host:port"."""
        reply = self.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        return reply and b":".join(reply).decode()


class SentinelGroup:
    """Servers in `servers`, of which the first is the primary at the start, and `sentinels`.

    Always called by the test: start(), and stop() in the end. `password` is that of the servers,
    `sentinel_lines` go into the file of each Sentinel and `sentinel_credentials` are what AUTH gets
    there. With `certificates`, the folder of make_certificates(), everybody speaks TLS only.
    """

    def __init__(self, directory, *, replicas=1, sentinels=3, quorum=2, down_after_ms=600, name=NAME,
                 password=None, server_args=(), sentinel_lines=(),
                 sentinel_credentials=(), certificates=None):  # fmt: skip
        self.directory = directory
        self.name = name
        self.password = password
        self.certificates = certificates
        self.server_args = [*server_args]
        if password is not None:
            self.server_args += ["--requirepass", password, "--masterauth", password]
        self.servers = []
        for index in range(1 + replicas):
            folder = os.path.join(directory, f"server-{index}")
            os.mkdir(folder)
            server = ValkeyServer(folder, tcp=True)
            server.password = password
            self.servers.append(server)
        lines = [
            f"sentinel monitor {name} {HOST} {self.servers[0].port} {quorum}",
            f"sentinel down-after-milliseconds {name} {down_after_ms}",
            f"sentinel failover-timeout {name} 5000",
            f"sentinel parallel-syncs {name} 1",
        ]
        if password is not None:
            lines.append(f"sentinel auth-pass {name} {password}")
        self.sentinels = []
        for port in (free_port() for _ in range(sentinels)):
            more = [*self._tls_lines(port), *lines, *sentinel_lines]
            sentinel = Sentinel(directory, port=port, lines=more, credentials=sentinel_credentials)
            self.sentinels.append(sentinel)

    def _tls_lines(self, port):
        """What makes a server or a Sentinel listen and dial with TLS alone."""
        if self.certificates is None:
            return []
        return [
            *("port 0", f"tls-port {port}", "tls-replication yes", "tls-auth-clients no"),
            f"tls-cert-file {self.certificates}/server.crt",
            f"tls-key-file {self.certificates}/server.key",
            f"tls-ca-cert-file {self.certificates}/ca.crt",
        ]

    def start(self):
        for index, server in enumerate(self.servers):
            replica_of = ["--replicaof", HOST, str(self.servers[0].port)] if index else []
            tls = [word for line in self._tls_lines(server.port) for word in f"--{line}".split()]
            server.start("--repl-diskless-sync", "no", *tls, *replica_of, *self.server_args)
        wait_for(
            lambda: is_followed(self.servers[0], replicas=len(self.servers) - 1), 10, "replicas"
        )
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            wait_for(sentinel.answers, 10, "a Sentinel answers PING")
        self.hurry()
        self.wait_known()
        self.dawdle()
        return self

    def wait_known(self, timeout=15):
        """Until each Sentinel that runs knows all replicas and all other Sentinels."""
        expected = (str(len(self.servers) - 1), str(len(self.sentinels) - 1))

        def is_known(sentinel):
            known = sentinel.master(self.name)
            return (known.get("num-slaves"), known.get("num-other-sentinels")) == expected

        for sentinel in self.running_sentinels():
            wait_for(lambda: is_known(sentinel), timeout, "the Sentinels know each other")

    def stop(self):
        for process in [*self.sentinels, *self.servers]:
            if process.is_running():
                process.thaw()
            process.kill()

    # Addresses.

    def url(self, *, sentinels=None, database=None, user=None, scheme="sentinel", name=None):
        """nearkey's upstream.url; `sentinels` are those that are named in it (default all)."""
        hosts = ",".join(each.address for each in sentinels or self.sentinels)
        if user is None and self.password is not None:
            user = f":{self.password}"
        text = f"{scheme}://{f'{user}@' if user else ''}{hosts}/{name or self.name}"
        return text if database is None else f"{text}/{database}"

    # Who is who.

    def running_sentinels(self):
        return [each for each in self.sentinels if each.is_running()]

    def server_at(self, address):
        return next(each for each in self.servers if address_of(each) == address)

    def primary(self):
        """The server that most of the Sentinels that run name."""
        words = [each.names(self.name) for each in self.running_sentinels()]
        return self.server_at(max(set(words), key=words.count))

    def replicas(self):
        primary = self.primary()
        return [each for each in self.servers if each is not primary]

    # What is done to it.

    def fail_over(self):
        """SENTINEL FAILOVER at a Sentinel; (the former primary, the new one) once that one says
        that it is it."""
        former = self.primary()
        self.order_failover()
        return former, self.wait_promoted(former)

    def order_failover(self):
        reply = self.running_sentinels()[0].run("SENTINEL", "FAILOVER", self.name)
        assert reply == b"OK", reply

    def wait_promoted(self, former, timeout=20):
        """The server other than `former` whose own word is that it is the primary."""

        def promoted():
            others = [each for each in self.servers if each is not former and each.is_running()]
            return next((each for each in others if role(each) == b"master"), None)

        return wait_for(promoted, timeout, "a replica is promoted")

    def wait_named(self, server, timeout=20):
        """Until each Sentinel that runs names it to clients."""
        wait_for(
            lambda: {each.names(self.name) for each in self.running_sentinels()}
            == {address_of(server)},
            timeout,
            "all Sentinels name the new primary",
        )

    def hurry(self):
        """The Sentinels look at the servers five times a second instead of every 10 s, so that a
        former primary is a replica after 1 s instead of 11 s."""
        self._set_periods(info_ms=200, publish_ms=200)

    def dawdle(self):
        """Takes hurry() back."""
        self._set_periods(info_ms=10000, publish_ms=2000)

    def _set_periods(self, *, info_ms, publish_ms):
        for sentinel in self.running_sentinels():
            sentinel.run(
                *("SENTINEL", "DEBUG", "INFO-PERIOD", info_ms, "PUBLISH-PERIOD", publish_ms)
            )

    def wait_settled(self, timeout=30):
        """Until one is the primary, all others are replicas of it with its data, and the Sentinels
        would do another failover."""

        def is_settled():
            primary = self.primary()
            replicas = [each for each in self.servers if each is not primary]
            return (
                role(primary) == b"master"
                and all(info(each, "master_port") == str(primary.port) for each in replicas)
                and is_followed(primary, len(replicas))
            )

        wait_for(is_settled, timeout, "all others are replicas of the new primary")
        for sentinel in self.running_sentinels():
            wait_for(
                lambda: self._is_quiet(sentinel),
                timeout,
                "the Sentinels are done with the failover",
            )

    def _is_quiet(self, sentinel):
        replicas = sentinel.run("SENTINEL", "REPLICAS", self.name)
        return sentinel.master(self.name)["flags"] == "master" and all(
            pairs(each)["flags"] == "slave" and pairs(each)["master-link-status"] == "ok"
            for each in replicas
        )


def address_of(server):
    return f"{HOST}:{server.port}"


def ask(server, *command):
    """A question may meet the moment at which the server changes its role: it closes all its
    connections then."""
    for _ in range(3):
        try:
            return server.run(*command)
        except (OSError, Closed):
            assert server.is_running(), f"a server ended; see {server.log_path}"
    return server.run(*command)


def info(server, field):
    for line in ask(server, "INFO", "all").decode().splitlines():
        if line.startswith(field + ":"):
            return line.split(":", 1)[1]
    return None


def is_followed(server, replicas):
    """Whether so many replicas have a write of now: "link up" says only that they were sent a
    snapshot, and one that is promoted then has nothing newer."""
    try:
        with server.client() as client:
            client.pipeline([("SET", "followed", 1), ("DEL", "followed")])
            return client.value("WAIT", replicas, 300) >= replicas
    except (OSError, Closed):
        return False


def role(server):
    """b"master" or b"slave" as the server says; None while it does not answer."""
    try:
        return server.run("ROLE")[0]
    except (OSError, Closed):
        return None


def calls(server, *names):
    """How often the server has run each command, its primary's and its own clients' together."""
    stats = ask(server, "INFO", "commandstats").decode()
    found = dict(line.split(":", 1) for line in stats.splitlines() if line.startswith("cmdstat_"))
    return {
        name: int(found.get(f"cmdstat_{name}", "calls=0").split("calls=")[1].split(",")[0])
        for name in names
    }
