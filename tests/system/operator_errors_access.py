"""Mistakes with who may connect, and what a listener grants: see operator_errors."""

from operator_errors import StartError, config, in_file

ABSENT = "nearkey-absent"


def listener(*lines, upstream=()):
    """serve for a real server with one [[listener]] at DIR/nearkey.sock, or where a line says.
    `upstream`: more lines about it."""

    def arguments(world):
        text = ["[upstream]", f"url = '{world.server.url}'", *upstream, "[[listener]]"]
        if not any(line.startswith("address") for line in lines):
            text.append("address = 'DIR/nearkey.sock'")
        text += lines
        path = world.write("nearkey.toml", "\n".join(text).replace("DIR", world.directory) + "\n")
        return ["serve", "--config", path]

    return arguments


ACCESS = [
    StartError(
        "a list of users for a TCP listener",
        listener("address = 'tcp:127.0.0.1:6380'", "allow_users = ['root']"),
        2,
        r"nearkey: .*allow_users and allow_groups need a Unix socket: TCP does not tell who "
        r"connects",
    ),
    StartError(
        "the face of a cluster at a Unix socket",
        listener("face = 'cluster'"),
        2,
        r'nearkey: .*face = "cluster" needs an address tcp:127\.0\.0\.1:P[O]RT or tcp:\[::1\]:P[O]RT: '
        r"clients of a cluster dial the host and port that a node tells",
    ),
    StartError(
        "reads from replicas where there is no cluster",
        listener("read_from = 'replica'", upstream=["cluster = 'off'"]),
        2,
        r'nearkey: .*upstream\.cluster = "off": no cluster is used with it, so that read_from = '
        r'"replica" of a \[\[listener\]\] has no effect; take that out, or write valkey\+cluster://',
    ),
    StartError(
        "a user that the system does not know",
        listener(f"allow_users = ['{ABSENT}']"),
        2,
        rf'nearkey: the listener DIR/nearkey\.sock: allow_users = "{ABSENT}": this system knows no '
        r"such user; correct the name, or create it",
    ),
    StartError(
        "a group that the system does not know",
        listener(f"allow_groups = ['{ABSENT}']"),
        2,
        rf'nearkey: the listener DIR/nearkey\.sock: allow_groups = "{ABSENT}": this system knows '
        r"no such group; correct the name, or create it",
    ),
    StartError(
        "a socket for an owner that the system does not know",
        listener(f"owner = '{ABSENT}'"),
        2,
        rf'nearkey: the listener DIR/nearkey\.sock: owner = "{ABSENT}": this system knows no such '
        r"user; correct the name, or create it",
    ),
    StartError(
        "a socket for another user, without root",
        listener("owner = '12345'"),
        1,
        r"listen_failed: cannot listen on DIR/nearkey\.sock: its owner can't be set to 12345 "
        r"\(group unchanged\): only root can; without root, leave the owner out and name a group "
        r"that nearkey's user is in",
    ),
    StartError(
        "two users in one text",
        listener("allow_users = ['web, worker']"),
        2,
        in_file(
            5,
            r'allow_users = \["web, worker"\]: allowed is a name of at most 64 characters, or a '
            r"number",
        ),
    ),
    StartError(
        "a command rule that is none",
        listener("commands = '+@all get'"),
        2,
        in_file(
            5,
            r'commands = "\+@all get": "get" is no rule about commands, such as \+get, '
            r"-config\|set or \+@read",
        ),
    ),
    StartError(
        "a command rule about keys",
        config("[server]\ncommands = '+@all ~app:*'\n"),
        2,
        in_file(
            2,
            r'server\.commands = "\+@all ~app:\*": "~app:\*" is no rule about commands, such as '
            r"\+get, -config\|set or \+@read",
        ),
    ),
    StartError(
        "a command rule with a typo in its category",
        config("[server]\ncommands = '+@all -@dangerus'\n"),
        2,
        in_file(
            2,
            r'server\.commands = "\+@all -@dangerus": "-@dangerus" names no category of commands '
            r"\(ACL CAT lists them\)",
        ),
    ),
    StartError(
        "no command rule at all",
        config("[server]\ncommands = ''\n"),
        2,
        in_file(
            2,
            r'server\.commands = "": it must not be empty; \+@all allows everything',
        ),
    ),
    StartError(
        "limits of a listener that contradict",
        listener("output_per_client_max = '1KiB'"),
        2,
        r"nearkey: .*output_per_client_high_water = .*: must not be above output_per_client_max = "
        r"1KiB",
    ),
    StartError(
        "a database of a listener that is no number",
        config("[[listener]]\naddress = '/run/n.sock'\ndatabase = 'sessions'\n"),
        2,
        in_file(3, r'database = "sessions": allowed is an integer from 0 to 2147483647'),
    ),
]
