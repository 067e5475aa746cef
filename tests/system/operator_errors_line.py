"""Errors on the command line: see operator_errors."""

from operator_errors import ADMIN, HELP, LISTEN, SECRET, StartError, plain, serve

COMMAND_LINE = [
    StartError(
        "--set without =",
        serve("--set", "log.level"),
        2,
        r"nearkey: --set: write it as --set table\.key=value",
    ),
    StartError(
        "--set of a key that is none",
        serve("--set", "upstream.nope=1"),
        2,
        r"nearkey: --set: unknown key upstream\.nope; the nearest known one is upstream\.\w+",
    ),
    StartError(
        "--set of a table",
        serve("--set", "upstream=1"),
        2,
        r"nearkey: --set: upstream is a table of options, not a value; set upstream\.KEY",
    ),
    StartError(
        "an unknown flag",
        serve("--fast"),
        2,
        r"nearkey: The following argument was not expected: --fast" + HELP,
    ),
    StartError(
        "an unknown verb",
        plain("serv"),
        2,
        r"nearkey: The following argument was not expected: serv" + HELP,
    ),
    StartError(
        "a flag without its value",
        serve("--upstream"),
        2,
        r"nearkey: --upstream needs a value" + HELP,
    ),
    StartError(
        "a flag with = and nothing",
        serve("--upstream="),
        2,
        r"nearkey: --upstream= needs a value" + HELP,
    ),
    StartError(
        "a flag twice",
        serve("--upstream", "valkey://a", "--upstream", f"valkey://:{SECRET}@b"),
        2,
        r"nearkey: --upstream is given twice; name it once" + HELP,
    ),
    StartError(
        "a URL without its flag",
        serve(f"valkey://u:{SECRET}@h"),
        2,
        r"nearkey: a URL was not expected here: it belongs after --upstream" + HELP,
    ),
    StartError(
        "a URL of another scheme",
        serve("--upstream", f"http://u:{SECRET}@h"),
        2,
        r'nearkey: --upstream: upstream\.url = "\*\*\*": a URL starts with valkey://, redis://, '
        r"valkeys://, rediss://, valkey\+cluster://, valkeys\+cluster://, sentinel://, sentinels:// or unix:///, or it is managed:",
    ),
    StartError(
        "a host without a scheme",
        serve("--upstream", "localhost:6379"),
        2,
        r'nearkey: --upstream: upstream\.url = "\*\*\*": a URL starts with valkey://.*',
    ),
    StartError(
        "a port out of range",
        serve("--upstream", "valkey://h:99999"),
        2,
        r'nearkey: --upstream: upstream\.url = "valkey://h:99999": the port must be a number from 1 to 65535'
        r" .*",
    ),
    StartError(
        "a password with an unquoted slash",
        serve("--upstream", f"valkey://u:{SECRET}/x@h"),
        2,
        r'nearkey: --upstream: upstream\.url = "\*\*\*": the port .* write / as %2F, .*',
    ),
    StartError(
        "a bad URL in the environment",
        lambda world: world.set("CACHE_URL", f"valkey://u:{SECRET}@h:x") or ["serve"],
        2,
        r'nearkey: CACHE_URL: upstream\.url = "\*\*\*": the port must be a number .*',
    ),
    StartError(
        "a database that is no number",
        serve("--upstream", "valkey://h/sessions"),
        2,
        r'nearkey: --upstream: upstream\.url = "valkey://h/sessions": the database must be a number from 0 to '
        r"2147483647",
    ),
    StartError(
        "a URL of Sentinels without the primary's name",
        serve("--upstream", "redis+sentinel://h:26379"),
        2,
        r'nearkey: --upstream: upstream\.url = "redis\+sentinel://h:26379": the primary\'s name '
        r"must follow the Sentinels, as in sentinel://HOST:26379/mymaster \(letters, digits, dot, dash and underscore\)",
    ),
    StartError(
        "a URL of Sentinels with the primary's name behind a #",
        serve("--upstream", "redis-sentinel://h:26379#mymaster"),
        2,
        r'nearkey: --upstream: upstream\.url = "\*\*\*": the primary\'s name stands in the path, as in '
        r"sentinel://HOST:26379/mymaster",
    ),
    StartError(
        "a URL of Sentinels with a wrong port",
        serve("--upstream", "sentinel://s1,s2:0/mymaster"),
        2,
        r'nearkey: --upstream: upstream\.url = "sentinel://s1,s2:0/mymaster": Sentinel number '
        r"2: the port must be a number from 1 to 65535 .*",
    ),
    StartError(
        "a URL that names a Sentinel twice",
        serve("--upstream", "sentinel://s1,s1:26379/mymaster"),
        2,
        r'nearkey: --upstream: upstream\.url = "sentinel://s1,s1:26379/mymaster": the Sentinel '
        r"s1:26379 is given twice",
    ),
    StartError(
        "a URL of a cluster by another name",
        serve("--upstream", f"cluster://:{SECRET}@h:7000"),
        2,
        r'nearkey: --upstream: upstream\.url = "\*\*\*": the URL of a cluster starts with '
        r"valkey\+cluster:// or valkeys\+cluster://",
    ),
    StartError(
        "a URL of a cluster that names a node twice",
        serve("--upstream", "valkey+cluster://a,b,a:6379"),
        2,
        r'nearkey: --upstream: upstream\.url = "valkey\+cluster://a,b,a:6379": the node a:6379 '
        r"is given twice",
    ),
    StartError(
        "a password without its host",
        serve("--upstream", f"valkey://u:{SECRET}"),
        2,
        r'nearkey: --upstream: upstream\.url = "\*\*\*": the port must be a number .*',
    ),
    StartError(
        "a URL without a host",
        serve("--upstream", "valkey://"),
        2,
        r'nearkey: --upstream: upstream\.url = "valkey://": the host is missing',
    ),
    StartError(
        "a socket's URL with two slashes",
        serve("--upstream", "unix://run/valkey.sock"),
        2,
        r'nearkey: --upstream: upstream\.url = "unix://run/valkey\.sock": a Unix socket needs an absolute path, '
        r"with three slashes: unix:///run/valkey\.sock",
    ),
    StartError(
        "the upstream is nearkey itself",
        serve("--upstream", "unix://DIR/a.sock", "--listen", "DIR/./a.sock"),
        2,
        r'nearkey: --upstream: upstream\.url = "unix://DIR/a\.sock": this is nearkey\'s own '
        r"listening address; upstream\.url must be Valkey's own URL .*",
    ),
    StartError(
        "a listening address twice",
        serve("--upstream", "valkey://h", "--listen", "DIR/a.sock", "--listen", "DIR/./a.sock"),
        2,
        r"nearkey: --listen: server\.listen: DIR/\./a\.sock is given twice; name it once",
    ),
    StartError(
        "the admin address is a listening address",
        serve("--upstream", "valkey://h", "--listen", "DIR/a.sock", "--admin", "DIR/a.sock"),
        2,
        r"nearkey: --admin: server\.admin: DIR/a\.sock is also a listening address or the "
        r"upstream; it needs one of its own",
    ),
    StartError(
        "a listening address for the whole network",
        serve("--upstream", "valkey://h", "--listen", "tcp:0.0.0.0:6379"),
        2,
        r'nearkey: --listen: server\.listen = \["tcp:0\.0\.0\.0:6379"\]: ' + LISTEN,
    ),
    StartError(
        "a relative path to listen on",
        serve("--upstream", "valkey://h", "--listen", "nearkey.sock"),
        2,
        r'nearkey: --listen: server\.listen = \["nearkey\.sock"\]: ' + LISTEN,
    ),
    StartError(
        "a folder to listen on",
        serve("--upstream", "valkey://h", "--listen", "DIR/"),
        2,
        r'nearkey: --listen: server\.listen = \["DIR/"\]: this is a directory: name a file in it',
    ),
    StartError(
        "a path that is too long for a socket",
        serve("--upstream", "valkey://h", "--listen", "/run/" + "a" * 120),
        2,
        r'nearkey: --listen: server\.listen = \["/run/a+\.\.\.: the path of a Unix socket has at '
        r"most 107 bytes, this one has 125; choose a shorter one",
    ),
    StartError(
        "a bare port as admin address",
        serve("--upstream", "valkey://h", "--admin", "8080"),
        2,
        r'nearkey: --admin: server\.admin = "8080": ' + ADMIN,
    ),
    StartError(
        "a bare port for other hosts' scrapes",
        plain("check", "--upstream", "valkey://h", "--set", "server.metrics=9121"),
        2,
        r'nearkey: --set: server\.metrics = "9121": allowed is the address of an interface and a '
        r"port: 0\.0\.0\.0:9121, \[::\]:9121 \(all\) or ADDRESS:\w+, in numbers",
    ),
    StartError(
        "the port for scrapes is the admin server's, too",
        plain("check", "--upstream", "valkey://h", "--admin", "127.0.0.1:9121", "--set",
              "server.metrics=0.0.0.0:9121"),
        2,
        r'nearkey: --set: server\.metrics = "0\.0\.0\.0:9121": 127\.0\.0\.1:\d+ listens on that '
        r"port; it needs one of its own",
    ),
]
