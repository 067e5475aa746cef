"""What is measured: each path is one kind of load on the contenders that it is about.

A contender's family is what it is called where there is one build of nearkey; with several, each
has contenders of its own, named after its label.
"""
import re
from dataclasses import dataclass

KEYS_MAX = 100_000
DATA_BYTES_MAX = 64 << 20
VALUE_BYTES_MAX = 1 << 20
PIPELINE_MAX = 256  # Of nearkey_load_client.
FORWARDED = ("direct-unix", "direct-tcp", "nutcracker", "haproxy", "nearkey")
STORED = ("direct-unix", "direct-tcp", "echo", "nearkey-stored")
BOTH = FORWARDED + ("nearkey-stored",)
FAR = ("direct-far", "nearkey-zipf")
TWO = ("nearkey", "nearkey-two")  # event loops: server.workers
STORED_TWO = ("nearkey-stored", "nearkey-stored-two")
# nearkey-zipf's near cache is too small for all keys; with so much memory, found by trying, it has
# some 90 % hits. A run with more or fewer than ZIPF_HITS does not count.
ZIPF_EXPONENT = 1.0
ZIPF_MEMORY = "7MiB"
ZIPF_HITS = (0.88, 0.92)
STORED_HITS = (0.999, 1.0)
STORED_BYTES_MAX = 100  # Of a value: all keys of longer ones together need more than the default.
NEARKEY_SETTINGS = {
    "nearkey": {"near_cache.enabled": "false", "upstream.request_timeout_ms": 60000},
    "nearkey-stored": {},
    "nearkey-zipf": {"near_cache.memory": ZIPF_MEMORY},
    "nearkey-two": {"near_cache.enabled": "false", "upstream.request_timeout_ms": 60000,
                    "server.workers": 2},
    "nearkey-stored-two": {"server.workers": 2},
}


@dataclass(frozen=True)
class Path:
    name: str
    title: str
    contenders: tuple
    command: str = "get"
    value_bytes: int = 100
    clients: int = 50
    pipeline: int = 1
    draw: str = "uniform"
    # Where one client waits for one request, what is measured is whether the scheduler has put the
    # programs on one processor or on several, and that differs by four times from run to run. So
    # they are put `together` on one, or `apart`: the proxy on another one than client and server.
    placement: str = None
    has_bar: bool = False

    @property
    def prefix(self):
        return prefix_of(self.command, self.value_bytes)

    @property
    def keys(self):
        return keys_of(self.value_bytes)

    def load_arguments(self):
        arguments = ["--command", self.command, "--clients", self.clients,
                     "--pipeline", self.pipeline, "--keys", self.keys, "--prefix", self.prefix,
                     "--value-bytes", self.value_bytes, "--draw", self.draw]
        if self.draw == "zipf":
            arguments += ["--zipf", ZIPF_EXPONENT]
        return [str(argument) for argument in arguments]

    def hits_range(self, family):
        """The share of hits that a near cache must have here for the run to count, or None."""
        if self.command not in ("get", "mget") or self.value_bytes > STORED_BYTES_MAX:
            return None
        return {"nearkey-stored": STORED_HITS, "nearkey-stored-two": STORED_HITS,
                "nearkey-zipf": ZIPF_HITS}.get(family)


def prefix_of(command, value_bytes):
    """Keys that are only read are others than those that are written: they stay stored."""
    if command == "incr":
        return "count:"
    return f"{'r' if command in ('get', 'mget') else 'w'}{value_bytes}:"


def keys_of(value_bytes):
    return min(KEYS_MAX, DATA_BYTES_MAX // value_bytes)


def request_bytes(value_bytes):
    """Of a GET as nearkey_load_client sends it."""
    key = prefix_of("get", value_bytes) + "0" * 12
    return len(f"*2\r\n$3\r\nGET\r\n${len(key)}\r\n{key}\r\n")


KIB = 1024
# The paths that the bars are about come first: bars.py.
PATHS = [
    Path("get-p1", "GET 100 B, 50 clients, -P 1", FORWARDED, has_bar=True),
    Path("set-p1", "SET 100 B, 50 clients, -P 1", FORWARDED, "set", has_bar=True),
    Path("get-p16", "GET 100 B, 50 clients, -P 16", FORWARDED, pipeline=16, has_bar=True),
    Path("set-p16", "SET 100 B, 50 clients, -P 16", FORWARDED, "set", pipeline=16, has_bar=True),
    Path("one-client", "GET 100 B, 1 client, -P 1, all on one processor", FORWARDED, clients=1,
         placement="together", has_bar=True),
    Path("get-16k", "GET 16 KiB, 50 clients, -P 8", FORWARDED, value_bytes=16 * KIB, pipeline=8,
         has_bar=True),
    Path("set-16k", "SET 16 KiB, 50 clients, -P 8", FORWARDED, "set", value_bytes=16 * KIB,
         pipeline=8, has_bar=True),
    Path("stored-p1", "stored GET 100 B, 50 clients, -P 1", STORED, has_bar=True),
    Path("stored-p16", "stored GET 100 B, 50 clients, -P 16", STORED, pipeline=16, has_bar=True),
    Path("zipf-far", "GET 100 B by Zipf's law, Valkey 0.5 ms away, 50 clients, -P 1", FAR,
         draw="zipf", has_bar=True),

    Path("one-client-apart", "GET 100 B, 1 client, -P 1, the proxy on a processor of its own",
         FORWARDED, clients=1, placement="apart"),
    Path("get-p8", "GET 100 B, 50 clients, -P 8", BOTH, pipeline=8),
    Path("get-p64", "GET 100 B, 50 clients, -P 64", BOTH, pipeline=64),
    Path("get-1000", "GET 100 B, 1,000 clients, -P 1", BOTH, clients=1000),
    Path("get-16b", "GET 16 B, 50 clients, -P 1", FORWARDED, value_bytes=16),
    Path("get-1k", "GET 1 KiB, 50 clients, -P 1", FORWARDED, value_bytes=KIB),
    Path("set-1k", "SET 1 KiB, 50 clients, -P 1", FORWARDED, "set", value_bytes=KIB),
    Path("get-256k", "GET 256 KiB, 50 clients, -P 1", FORWARDED, value_bytes=256 * KIB),
    Path("set-256k", "SET 256 KiB, 50 clients, -P 1", FORWARDED, "set", value_bytes=256 * KIB),
    Path("mixed-p1", "9 GET : 1 SET, 100 B, 50 clients, -P 1", BOTH, "mixed"),
    Path("mixed-p16", "9 GET : 1 SET, 100 B, 50 clients, -P 16", BOTH, "mixed", pipeline=16),
    Path("mget", "MGET of 20, 100 B, 50 clients, -P 1", BOTH, "mget"),
    Path("incr-p1", "INCR, 50 clients, -P 1", FORWARDED, "incr"),
    Path("incr-p16", "INCR, 50 clients, -P 16", FORWARDED, "incr", pipeline=16),
    Path("workers-get-p1", "GET 100 B, 50 clients, -P 1, one and two event loops", TWO),
    Path("workers-get-p16", "GET 100 B, 50 clients, -P 16, one and two event loops", TWO,
         pipeline=16),
    Path("workers-stored-p1", "stored GET 100 B, 200 clients, -P 1, one and two event loops",
         STORED_TWO, clients=200),
    Path("workers-stored-p16", "stored GET 100 B, 200 clients, -P 16, one and two event loops",
         STORED_TWO, clients=200, pipeline=16),
]

# What is not a load on contenders side by side: probes.py. Name -> (title, families).
PROBES = {
    "idle": ("1,000 idle clients", ("nearkey",)),
    "start": ("start to the first PONG", ("nearkey",)),
    "beside-bulk": ("GET 100 B by 10 clients beside one that streams values of 256 MiB",
                    ("direct-unix", "haproxy", "nearkey")),
}


def path_of(name):
    """The path of a name like set:1024:1000:8 (command, bytes, clients, depth), or None."""
    match = re.fullmatch(r"(get|set|mixed|mget|incr):(\d{1,7}):(\d{1,4}):(\d{1,3})", name)
    if not match:
        return None
    value_bytes, clients, pipeline = (int(number) for number in match.groups()[1:])
    if not (0 < value_bytes <= VALUE_BYTES_MAX and clients > 0 and 0 < pipeline <= PIPELINE_MAX):
        return None
    title = f"{match[1].upper()} {value_bytes} B, {clients} clients, -P {pipeline}"
    return Path(name, title, FORWARDED if match[1] in ("set", "incr") else BOTH, match[1],
                value_bytes, clients, pipeline)


def choose(names):
    """(paths, probes) of these names; `all` and `bars` stand for several. ValueError names what
    there is not."""
    known = [path.name for path in PATHS] + list(PROBES)
    own = {name: path_of(name) for name in names if name not in (*known, "all", "bars")}
    for name, path in own.items():
        if path is None:
            raise ValueError(f"there is no path {name}; there are {', '.join(known)}")
    paths = [path for path in PATHS
             if "all" in names or path.name in names or ("bars" in names and path.has_bar)]
    probes = [name for name in PROBES if {"all", "bars", name} & set(names)]
    return paths + list(own.values()), probes


def titles(chosen=()):
    """Of all paths, and of these."""
    return {**{path.name: path.title for path in [*PATHS, *chosen]},
            **{name: title for name, (title, _) in PROBES.items()}}
