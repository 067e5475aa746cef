"""What the machine refuses nearkey when it starts, and what a probe may ask wrongly: see
operator_errors."""

import os
import socket

from operator_errors import ADMIN, HELP, OS_ABSENT, OS_DENIED, StartError, listening, managed, tls
from operator_errors import plain

IN_USE = (
    r"Address already in use; stop the process that uses it \(ss -ltnp shows it\), or choose "
    r"another port"
)
FOREIGN = (
    r"it belongs to another user, who could replace nearkey's files; choose a folder of "
    r"nearkey's own or of root's"
)
NO_SOCKET = r"a file that is no socket stands there; remove it or choose another path"


def folder(name, mode, owner=None):
    def prepare(world):
        path = os.path.join(world.directory, name)
        os.mkdir(path)
        os.chmod(path, mode)
        if owner is not None:
            world.need_root()
            os.chown(path, owner, owner)

    return prepare


def foreign_in_sticky(world):
    folder("sticky", 0o1777)(world)
    folder("sticky/theirs", 0o777, 12345)(world)


def live_socket(world):
    listener = world.keep(socket.socket(socket.AF_UNIX))
    listener.bind(f"{world.directory}/taken.sock")
    listener.listen()


def second_nearkey(world):
    world.start_nearkey()


STARTING = [
    StartError(
        "a port in use",
        listening("tcp:127.0.0.1:PORT"),
        1,
        r"listen_failed: cannot listen on tcp:127\.0\.0\.1:PORT: " + IN_USE,
    ),
    StartError(
        "an admin port in use",
        listening(admin="127.0.0.1:PORT"),
        1,
        r"nearkey: cannot listen on 127\.0\.0\.1:PORT: " + IN_USE,
    ),
    StartError(
        "a socket on which a process answers",
        listening("DIR/taken.sock", prepare=live_socket),
        1,
        r"listen_failed: cannot listen on DIR/taken\.sock: a running process answers there; stop it "
        r"or choose another path",
    ),
    StartError(
        "a second nearkey on the same sockets",
        listening("DIR/nearkey.sock", "DIR/admin.sock", prepare=second_nearkey),
        1,
        r"nearkey: cannot listen on DIR/admin\.sock: a running process holds "
        r"DIR/admin\.sock\.lock; stop that nearkey or choose another path",
    ),
    StartError(
        "a second nearkey on the same listening socket",
        listening("DIR/nearkey.sock", "DIR/other.sock", prepare=second_nearkey),
        1,
        r"listen_failed: cannot listen on DIR/nearkey\.sock: a running process holds "
        r"DIR/nearkey\.sock\.lock; stop that nearkey or choose another path",
    ),
    StartError(
        "a file that is no socket",
        listening("DIR/file", prepare=lambda world: world.write("file", "precious")),
        1,
        r"listen_failed: cannot listen on DIR/file: " + NO_SOCKET,
    ),
    StartError(
        "a file that is no socket, for the admin server",
        listening(admin="DIR/file", prepare=lambda world: world.write("file", "precious")),
        1,
        r"nearkey: cannot listen on DIR/file: " + NO_SOCKET,
    ),
    StartError(
        "a folder that may not be written to",
        listening("DIR/closed/nearkey.sock", prepare=folder("closed", 0o500)),
        1,
        r"listen_failed: cannot lock DIR/closed/nearkey\.sock\.lock: " + OS_DENIED,
    ),
    StartError(
        "a folder that may not be read",
        listening("DIR/closed/nearkey.sock", prepare=folder("closed", 0)),
        1,
        r"listen_failed: cannot lock DIR/closed/nearkey\.sock\.lock: " + OS_DENIED,
    ),
    StartError(
        "a folder in a folder that is not there",
        listening("DIR/a/b/nearkey.sock"),
        1,
        r"listen_failed: cannot create DIR/a/b: " + OS_ABSENT,
    ),
    StartError(
        "a file where the folder should be",
        listening("DIR/file/n.sock", prepare=lambda world: world.write("file", "")),
        1,
        r"listen_failed: DIR/file is not a directory; choose a path in one",
    ),
    StartError(
        "a folder of another user in a sticky folder",
        listening("DIR/sticky/theirs/n.sock", prepare=foreign_in_sticky),
        1,
        r"listen_failed: cannot use DIR/sticky/theirs: " + FOREIGN,
    ),
    StartError(
        "a folder where the lock file should be",
        listening(prepare=folder("nearkey.sock.lock", 0o700)),
        1,
        r"listen_failed: cannot lock DIR/nearkey\.sock\.lock: Is a directory; correct the name: a "
        r"folder stands where a file should",
    ),
    StartError(
        "a link where the lock file should be",
        listening(prepare=lambda w: os.symlink("/etc/passwd", f"{w.directory}/nearkey.sock.lock")),
        1,
        r"listen_failed: cannot lock DIR/nearkey\.sock\.lock: Too many levels of symbolic links; "
        r"name the file itself, not a symbolic link",
    ),
    StartError(
        "no room for the lock file",
        lambda world: world.mount_full("full") or listening("DIR/full/nearkey.sock")(world),
        1,
        r"listen_failed: cannot lock DIR/full/nearkey\.sock\.lock: No space left on device; make "
        r"room on that file system, or name another place",
    ),
    StartError(
        "a file system that is read only",
        lambda world: world.mount_full("full", "-o", "ro") or listening("DIR/full/n.sock")(world),
        1,
        r"listen_failed: cannot lock DIR/full/n\.sock\.lock: Read-only file system; name a place "
        r"that can be written to \(ReadWritePaths= in a unit\)",
    ),
    StartError(
        "too few file descriptors",
        lambda world: world.limit("--nofile=32") or listening()(world),
        1,
        r"nearkey: only 32 file descriptors are allowed, and 64 are the least; raise LimitNOFILE= "
        r"of the unit \(ulimit -n\)",
    ),
    StartError(
        "LISTEN_FDS that is no number",
        lambda world: world.pass_descriptor("/dev/null", LISTEN_FDS="many") or listening()(world),
        1,
        r"nearkey: LISTEN_FDS=many is no number of descriptors; only systemd should set it",
    ),
    StartError(
        "a descriptor of systemd's that is no socket",
        lambda world: world.pass_descriptor("/dev/null") or listening()(world),
        1,
        r"nearkey: descriptor 3 \(web\) of LISTEN_FDS: it is no listening stream socket "
        r"\(ListenStream= and Accept=no\)",
    ),
    StartError(
        "a socket of systemd's for the whole network",
        lambda world: world.pass_descriptor(("0.0.0.0", 0)) or listening()(world),
        1,
        r"nearkey: descriptor 3 \(web\) of LISTEN_FDS: allowed is an absolute path, "
        r"127\.0\.0\.1:P[O]RT or \[::1\]:P[O]RT",
    ),
    StartError(
        "a log format that is none",
        listening(more=["--set", "log.format=xml"]),
        2,
        r'nearkey: --set: log\.format = "xml": allowed is one of .*',
    ),
    StartError(
        "a missing CA file",
        tls(tls_ca_file="DIR/absent.crt"),
        1,
        r"nearkey: upstream\.tls_ca_file DIR/absent\.crt: " + OS_ABSENT,
    ),
    StartError(
        "a CA file that holds no certificate",
        tls(lambda world: world.write("file", "none"), tls_ca_file="DIR/file"),
        1,
        r"nearkey: upstream\.tls_ca_file DIR/file: no certificate or crl found; name a file with "
        r"certificates in PEM",
    ),
    StartError(
        "a folder for a CA file",
        tls(tls_ca_file="DIR"),
        1,
        r"nearkey: upstream\.tls_ca_file DIR: Is a directory; correct the name: a folder stands "
        r"where a file should",
    ),
    StartError(
        "a certificate that is none",
        tls(
            lambda world: world.write("file", "none"),
            tls_cert_file="DIR/file",
            tls_key_file="DIR/client.key",
        ),
        1,
        r"nearkey: upstream\.tls_cert_file DIR/file: .+; name a file with a certificate in PEM",
    ),
    StartError(
        "a key of another certificate",
        tls(tls_cert_file="DIR/client.crt", tls_key_file="DIR/server.key"),
        1,
        r"nearkey: upstream\.tls_key_file DIR/server\.key: key values mismatch; name a file with "
        r"the unencrypted key of upstream\.tls_cert_file in PEM",
    ),
    StartError(
        "a key that may not be read",
        tls(
            lambda world: world.forbid(f"{world.directory}/client.key"),
            tls_cert_file="DIR/client.crt",
            tls_key_file="DIR/client.key",
        ),
        1,
        r"nearkey: upstream\.tls_key_file DIR/client\.key: " + OS_DENIED,
    ),
    StartError(
        "a managed server that is not there",
        managed("--set", "managed.server=/absent/valkey-server"),
        1,
        r"nearkey: managed: there is no /absent/valkey-server; install valkey-server, or name a "
        r"Valkey with --upstream",
    ),
    StartError(
        "a managed folder that may not be written to",
        lambda world: folder("closed", 0o500)(world)
        or managed("--set", "managed.directory=DIR/closed")(world),
        1,
        r"nearkey: cannot lock DIR/closed/managed-\d+\.lock: " + OS_DENIED,
    ),
]

def reload_of(line):
    """A reload after that line was written into the file of a nearkey that serves."""

    def arguments(world):
        path = world.write("nearkey.toml", "")
        nearkey = world.start_nearkey(args=["--config", path])
        table, assignment = line.split(".", 1)
        world.write("nearkey.toml", f"[{table}]\n{assignment}\n")
        return ["reload", "--admin", nearkey.admin_path]

    return arguments


PROBE = [
    StartError(
        "ready: nobody answers",
        plain("ready", "--admin", "DIR/absent.sock"),
        2,
        r"nobody answers at DIR/absent\.sock: No such file or directory; is nearkey running, and "
        r"is --admin its address\?",
    ),
    StartError(
        "ready: nobody listens on the port",
        lambda world: ["ready", "--admin", f"127.0.0.1:{world.free_port()}"],
        2,
        r"nobody answers at 127\.0\.0\.1:\d+: Connection refused; is nearkey running, .*",
    ),
    StartError(
        "ready: the answer takes too long",
        lambda world: ["ready", "--timeout-ms", "100", "--admin", f"127.0.0.1:{world.port}"],
        2,
        r"nobody answers at 127\.0\.0\.1:PORT: no answer in time; is nearkey running, .*",
    ),
    StartError(
        "ready: a web server answers",
        lambda world: ["ready", "--admin", f"127.0.0.1:{world.web_port}"],
        2,
        r"something that is not nearkey answers at 127\.0\.0\.1:\d+; name nearkey's own admin "
        r"address with --admin",
    ),
    StartError(
        "ready: an address that is none",
        plain("ready", "--admin", "nearkey"),
        2,
        r"nearkey: --admin nearkey: " + ADMIN + HELP,
    ),
    StartError(
        "ready: a time that is none",
        plain("ready", "--timeout-ms", "soon"),
        2,
        r"nearkey: --timeout-ms: soon is no integer from 1 to 3600000" + HELP,
    ),
    StartError(
        "ready: the socket may not be opened",
        lambda world: world.forbid(world.foreign_socket())
        and ["ready", "--admin", f"{world.directory}/foreign.sock"],
        2,
        r"DIR/foreign\.sock may not be opened: Permission denied; ask as a member of the socket's "
        r"group, or as root",
    ),
    StartError(
        "ready: the answer ends too early",
        lambda world: [
            *["ready", "--admin"],
            f"127.0.0.1:{world.greeter(b'HTTP/1.1 200 OK', hears=1)}",
        ],
        2,
        r"the answer from 127\.0\.0\.1:\d+ ended too early; ask again, and look into nearkey's log "
        r"if it happens again",
    ),
    StartError(
        "reload: nobody answers",
        plain("reload", "--admin", "DIR/absent.sock"),
        2,
        r"nearkey: nobody answers at DIR/absent\.sock: No such file or directory; is nearkey "
        r"running, and is --admin its address\?",
    ),
    StartError(
        "reload: the configuration that says where to ask is wrong",
        lambda world: ["reload", "--config", world.write("nearkey.toml", "[log]\nlevel = 'loud'\n")],
        2,
        r'nearkey: DIR/nearkey\.toml:2: log\.level = "loud": allowed is one of debug, info, '
        r"warning, error" + HELP,
    ),
    StartError(
        "reload: two places that say where to ask",
        plain("reload", "--admin", "DIR/admin.sock", "--config", "DIR/nearkey.toml"),
        2,
        r"nearkey: --admin and --config both say where to ask; name one of them" + HELP,
    ),
    StartError(
        "reload: what was changed needs a restart",
        reload_of("managed.memory = '1GiB'"),
        1,
        r"nearkey: refused, and nothing was changed: this needs a restart: managed\.memory: .*",
    ),
    StartError(
        "upgrade: the upstream is managed",
        lambda world: ["upgrade", "--admin", world.start_nearkey("managed:").admin_path],
        1,
        r"nearkey: refused, and nothing was changed: managed: its valkey-server is nearkey's child, and "
        r"ends with it",
    ),
    StartError(
        "cache-clear: there is no near cache",
        lambda world: ["cache-clear", "--admin", world.start_cacheless().admin_path],
        1,
        r"nearkey: the near cache is switched off",
    ),
    StartError(
        "log-level: a level that is none",
        plain("log-level", "loud"),
        2,
        r"nearkey: LEVEL: allowed is one of debug, info, warning, error" + HELP,
    ),
]
