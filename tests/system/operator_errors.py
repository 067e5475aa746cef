"""What an operator may do wrong, and the one line that nearkey says to it.

START: nearkey does not start (or the command fails). UPSTREAM: it starts, stays not ready and says
why, in one line of the log and in /readyz. Both name what is wrong, where, and what to do.
In a pattern, DIR stands for the directory of the test and PORT for a port in use; the pattern is
the whole line. test_operator_errors.py provokes each of them.
"""

from typing import Callable, NamedTuple

SECRET = "hunter2-canary"
OS_DENIED = r"Permission denied; give nearkey's user the right to it, or name another place"
OS_ABSENT = r"No such file or directory; create what is missing, or correct the name"
LOOPBACK = r"allowed is an absolute path, {}127\.0\.0\.1:PORT or {}\[::1\]:PORT \(loopback only\)"
LISTEN = LOOPBACK.format("tcp:", "tcp:").replace("PORT", "P[O]RT")
ADMIN = LOOPBACK.format("", "").replace("PORT", "P[O]RT")
HELP = r" \(see nearkey --help\)"


class StartError(NamedTuple):
    name: str
    arguments: Callable  # (world) -> the arguments of nearkey; may prepare files
    code: int
    line: str


class UpstreamError(NamedTuple):
    name: str
    url: Callable  # (world) -> the URL of the upstream; may start servers and add settings
    reason: str


def config(text):
    return lambda world: ["serve", "--config", world.write("nearkey.toml", text)]


def serve(*arguments):
    return lambda world: ["serve", *(each.replace("DIR", world.directory) for each in arguments)]


def plain(*arguments):
    return lambda world: [each.replace("DIR", world.directory) for each in arguments]


def listening(listen="DIR/nearkey.sock", admin="DIR/admin.sock", prepare=None, more=()):
    """serve for a real server, on these addresses, after `prepare(world)`."""

    def arguments(world):
        if prepare is not None:
            prepare(world)
        words = ["serve", "--upstream", world.server.url, "--listen", listen, "--admin", admin]
        words = [word.replace("PORT", str(world.port)) for word in [*words, *more]]
        return [word.replace("DIR", world.directory) for word in words]

    return arguments


def tls(prepare=None, **files):
    more = []
    for name, value in files.items():
        more += ["--set", f"upstream.{name}={value}"]

    def arguments(world):
        world.make_certificates()
        if prepare is not None:
            prepare(world)
        words = ["serve", "--upstream", "valkeys://127.0.0.1:1", "--listen", "DIR/n.sock", *more]
        return [word.replace("DIR", world.directory) for word in words]

    return arguments


def managed(*more):
    return lambda world: [
        word.replace("DIR", world.directory)
        for word in ["serve", "--upstream", "managed:", "--listen", "DIR/n.sock", *more]
    ]


def in_file(line, message):
    return rf"nearkey: DIR/nearkey\.toml:{line}: {message}"


CONFIGURATION = [
    StartError(
        "a typo in a key",
        config("[upstream]\nurll = 'valkey://h'\n"),
        2,
        in_file(2, r"unknown key upstream\.urll; the nearest known one is upstream\.url"),
    ),
    StartError(
        "a key without its table",
        config("memory = '1GiB'\n"),
        2,
        in_file(1, r"unknown key memory; the nearest known one is \w+\.memory"),
    ),
    StartError(
        "an unknown table",
        config("[upstreem]\n"),
        2,
        in_file(1, r"unknown table upstreem; the nearest known key is \w+\.\w+"),
    ),
    StartError(
        "a text for a number",
        config("[upstream]\nconnections = 'two'\n"),
        2,
        in_file(2, r'upstream\.connections = "two": allowed is an integer from 1 to 64'),
    ),
    StartError(
        "a number out of range",
        config("[limits]\n\nclients_max = 0\n"),
        2,
        in_file(3, r"limits\.clients_max = 0: allowed is an integer from 1 to 1000000"),
    ),
    StartError(
        "a unit that is none",
        config("[near_cache]\nmemory = '64MB'\n"),
        2,
        in_file(2, r'near_cache\.memory = "64MB": allowed is 1MiB to 1TiB, as 65536, .*"1GiB"'),
    ),
    StartError(
        "an unknown log level",
        config("[log]\nlevel = 'verbose'\n"),
        2,
        in_file(2, r'log\.level = "verbose": allowed is one of debug, info, warning, error'),
    ),
    StartError(
        "yes for true",
        config("[near_cache]\nenabled = 'yes'\n"),
        2,
        in_file(2, r'near_cache\.enabled = "yes": allowed is true or false'),
    ),
    StartError(
        "a file mode without quotes",
        config("[server]\nlisten_mode = 660\n"),
        2,
        in_file(2, r"server\.listen_mode = 660: allowed is a string of octal digits, .*"),
    ),
    StartError(
        "two options that contradict",
        config("[upstream]\nbackoff_min_ms = 5000\nbackoff_max_ms = 100\n"),
        2,
        in_file(
            2, r"upstream\.backoff_min_ms = 5000: must not be above upstream\.backoff_max_ms = 100"
        ),
    ),
    StartError(
        "a certificate without its key",
        config("[upstream]\ntls_cert_file = '/x'\n"),
        2,
        in_file(
            2,
            r'upstream\.tls_cert_file = "/x": goes together with upstream\.tls_key_file = ""; '
            r"name both or neither",
        ),
    ),
    StartError(
        "a CA for a URL without TLS",
        config("[upstream]\nurl = 'valkey://h'\ntls_ca_file = '/x'\n"),
        2,
        in_file(
            3,
            r'upstream\.tls_ca_file = "/x": has no effect, for upstream\.url = "valkey://h:6379" is '
            r"without TLS; write valkeys:// or sentinels:// there, or take this out",
        ),
    ),
    StartError(
        "a user of Sentinels for a URL without any",
        config("[upstream]\nurl = 'valkey://h'\n[sentinel]\nusername = 'x'\n"),
        2,
        in_file(
            4,
            r'sentinel\.username = "x": has no effect, for upstream\.url = "valkey://h:6379" names no '
            r"Sentinel; write sentinel://HOST/NAME there, or take this out",
        ),
    ),
    StartError(
        "prefixes without broadcast",
        config("[near_cache]\nprefixes = ['a:']\n"),
        2,
        in_file(
            2,
            r'near_cache\.prefixes = \["a:"\]: goes only together with '
            r'near_cache\.tracking = "broadcast"',
        ),
    ),
    StartError(
        "prefixes that overlap",
        config("[near_cache]\ntracking = 'broadcast'\nprefixes = ['a:', 'a:b']\n"),
        2,
        in_file(
            3,
            r'near_cache\.prefixes = \["a:", "a:b"\]: they must not overlap, and "a:b" begins '
            r'with "a:"',
        ),
    ),
    StartError(
        "a cluster's address with a port on one side",
        config("[cluster]\naddresses = ['10.0.0.1:6379=203.0.113.5']\n"),
        2,
        in_file(
            2,
            r'cluster\.addresses = \["10\.0\.0\.1:6379=203\.0\.113\.5"\]: both sides need a port, or '
            r"neither",
        ),
    ),
    StartError(
        "a key twice",
        config("[upstream]\nconnections = 1\nconnections = 2\n"),
        2,
        in_file(3, r'not TOML: .*already exists; name it once'),
    ),
    StartError(
        "a table twice",
        config("[upstream]\nconnections = 1\n[upstream]\nidle_timeout_ms = 50\n"),
        2,
        in_file(3, r'not TOML: .*already (exists|defined); name it once'),
    ),
    StartError(
        "a file that is not TOML",
        config("[upstream]\nurl = \n"),
        2,
        in_file(2, r'not TOML: .+; write key = "text", key = 5 or key = true'),
    ),
    StartError(
        "a text without quotes, with a secret in it",
        config(f"[upstream]\nurl = valkey://u:{SECRET}@h\n"),
        2,
        in_file(2, r'not TOML: .+; write key = "text", key = 5 or key = true'),
    ),
    StartError(
        "a file that is not UTF-8",
        config(b"[upstream]\nclient_name = '\xff'\n"),
        2,
        in_file(2, r"is not UTF-8; save the file as UTF-8"),
    ),
    StartError(
        "a file with a NUL",
        config(b"[upstream]\nclient_name = '\0'\n"),
        2,
        in_file(2, r"holds a NUL byte; is it the right file\?"),
    ),
    StartError(
        "a file of two megabytes",
        config("#" * 2_000_000),
        2,
        r"nearkey: DIR/nearkey\.toml: cannot read this configuration file \(named by --config\): "
        r"it is larger than 1MiB; is it the right file\?",
    ),
    StartError(
        "a file nested without end",
        config("x = " + "[" * 200_000),
        2,
        in_file(1, r"nested more than 64 levels deep"),
    ),
    StartError(
        "a folder for a file",
        serve("--config", "DIR"),
        2,
        r"nearkey: DIR: cannot read this configuration file \(named by --config\): it is a "
        r"directory; name a file in it",
    ),
    StartError(
        "a file that is not there",
        serve("--config", "DIR/absent.toml"),
        2,
        r"nearkey: DIR/absent\.toml: cannot read this configuration file \(named by --config\): "
        + OS_ABSENT,
    ),
    StartError(
        "a file that may not be read",
        lambda world: ["serve", "--config", world.forbid(world.write("nearkey.toml", ""))],
        2,
        r"nearkey: DIR/nearkey\.toml: cannot read this configuration file \(named by --config\): "
        + OS_DENIED,
    ),
    StartError(
        "a file of the environment that is not there",
        lambda world: world.set("NEARKEY_CONFIG", f"{world.directory}/absent.toml") or ["serve"],
        2,
        r"nearkey: DIR/absent\.toml: cannot read this configuration file \(named by "
        r"NEARKEY_CONFIG\): " + OS_ABSENT,
    ),
    StartError(
        "a listener without an address",
        config("[[listener]]\nnear_cache = false\n"),
        2,
        in_file(2, r"\[\[listener\]\] number 1 has no address; give it one, as in server\.listen"),
    ),
    StartError(
        "a typo in a listener",
        config("[[listener]]\nadress = '/run/x.sock'\n"),
        2,
        in_file(2, r"unknown key adress in \[\[listener\]\]; the nearest known one is address"),
    ),
]
