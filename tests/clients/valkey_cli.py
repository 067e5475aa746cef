"""valkey-cli as people use it, by script and by hand: valkey_cli.py SOCKET [CASE,CASE...]"""

import os
import re
import subprocess
import sys
import tempfile
import time

from cases import TIMEOUT_S, equal, restart_server, run, until
from terminal import Terminal

BINARY = bytes(range(256))
CLI = ["valkey-cli", "-s", sys.argv[1]]


def cli(*arguments, stdin=b"", binary=False):
    """Runs valkey-cli to its end and returns what it printed."""
    done = subprocess.run(
        [*CLI, *arguments], input=stdin, capture_output=True, timeout=TIMEOUT_S
    )
    output = done.stdout if binary else done.stdout.decode()
    assert done.returncode == 0, f"{arguments}: {done.returncode}, {output[-300:]}{done.stderr}"
    return output


def lines(*arguments, stdin=b""):
    return cli(*arguments, stdin=stdin).splitlines()


class Running:
    """A valkey-cli that goes on: its lines are read as they come."""

    def __init__(self, *arguments):
        self.child = subprocess.Popen(
            [*CLI, *arguments], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()

    def line(self):
        """The next line; the runner ends a program that waits here for too long."""
        line = self.child.stdout.readline()
        assert line, "valkey-cli has ended"
        return line.rstrip("\n")

    def lines(self, count):
        return [self.line() for _ in range(count)]


def blocked(count):
    line = f"blocked_clients:{count}"
    until(lambda: line in lines("INFO", "clients"), f"{count} blocked clients")


def connect():
    equal("PONG\n", cli("PING"))
    equal("OK\n", cli("SET", "connect:name", "value", "EX", "100"))
    equal("value\n", cli("GET", "connect:name"))
    equal("(nil)\n", cli("--no-raw", "GET", "connect:absent"))
    equal("2\n", cli("HSET", "connect:hash", "a", "1", "b", "zwei"))
    equal(["a", "1", "b", "zwei"], lines("HGETALL", "connect:hash"))
    assert "not an integer" in cli("INCR", "connect:name")
    assert "unknown command" in cli("NOSUCHCOMMAND", "x")
    assert "used_memory" in cli("INFO")
    assert int(cli("CLIENT", "ID")) > 0
    assert "connect:name" in cli("KEYS", "*")


def command_line():
    equal("OK\n", cli("-x", "SET", "cl:stdin", stdin=b"from stdin"))
    equal("from stdin\n", cli("GET", "cl:stdin"))
    equal(["1", "2", "3"], lines("-r", "3", "INCR", "cl:n"))
    equal('"a","b"\n', cli("--csv", "EVAL", "return {'a', 'b'}", "0"))
    equal(b'{"a":"1"}\n', cli("-3", "--json", "EVAL", MAP, "0", binary=True))
    failed = subprocess.run([*CLI, "-e", "INCR", "cl:stdin"], capture_output=True)
    equal(1, failed.returncode)
    equal(["1) (integer) 1", "2) (nil)"], lines("--no-raw", "EVAL", "return {1, false}", "0"))


MAP = "redis.setresp(3); return {map={a='1'}}"


def databases():
    equal("OK\n", cli("-n", "5", "SET", "db:key", "five"))
    equal("\n", cli("GET", "db:key"))
    equal("five\n", cli("-n", "5", "GET", "db:key"))
    equal(["OK", "five"], lines(stdin=b"SELECT 5\nGET db:key\n"))


def pipe():
    commands = [(b"SET", b"pipe:%d" % i, b"%d" % i) for i in range(20000)]
    commands.append((b"SET", BINARY, BINARY))
    output = cli("--pipe", stdin=b"".join(map(encoded, commands)))
    assert "errors: 0, replies: 20001" in output, output
    equal("19999\n", cli("GET", "pipe:19999"))
    wrong = encoded((b"INCR", BINARY)) + encoded((b"SET", b"pipe:last", b"1"))
    done = subprocess.run([*CLI, "--pipe"], input=wrong, capture_output=True, timeout=TIMEOUT_S)
    assert b"errors: 1, replies: 2" in done.stdout, done
    equal("1\n", cli("GET", "pipe:last"))


def encoded(words):
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def bigkeys():
    cli("SET", "big:text", "x" * 5000)
    cli("RPUSH", "big:list", *map(str, range(100)))
    output = cli("--bigkeys")
    assert re.search(r'Biggest +string found .*big:text.* has 5000 bytes', output), output
    assert re.search(r'Biggest +list found .*big:list.* has 100 items', output), output
    assert "big:text" in cli("--memkeys")


def stat():
    with Running("--stat", "-i", "0.02") as running:
        header = running.lines(2)
        assert "keys" in header[1], header
        assert all(re.match(r"\d+ ", line) for line in running.lines(5))
    assert re.search(r"^\d", cli("--latency", "--raw", "-i", "0.1"))


def scan():
    names = sorted(f"scan:{i}" for i in range(1000))
    cli("MSET", *[word for name in names for word in (name, "1")])
    equal(names, sorted(set(lines("--scan", "--pattern", "scan:*", "--count", "100"))))


def monitor():
    with Running("MONITOR") as running:
        equal("OK", running.line())
        cli("SET", "mon:key", "a b")
        cli("GET", "mon:key")
        seen = []
        while len(seen) < 2:
            line = running.line()
            if "mon:key" in line:
                seen.append(line.split("] ", 1)[1])
        equal(['"SET" "mon:key" "a b"', '"GET" "mon:key"'], seen)


def subscribe():
    with Running("SUBSCRIBE", "ps:a", "ps:b") as running:
        equal("subscribe ps:a 1 subscribe ps:b 2".split(), running.lines(6))
        equal("1\n", cli("PUBLISH", "ps:a", "hello"))
        equal("message ps:a hello".split(), running.lines(3))
    with Running("-3", "PSUBSCRIBE", "ps:*") as running:
        equal("psubscribe ps:* 1".split(), running.lines(3))
        equal("1\n", cli("PUBLISH", "ps:c", "world"))
        equal("pmessage ps:* ps:c world".split(), running.lines(4))
    until(lambda: cli("PUBLISH", "ps:c", "nobody") == "0\n", "the subscription is gone")


def resp3():
    cli("HSET", "r3:hash", "a", "1")
    cli("ZADD", "r3:zset", "1.5", "m")
    equal(['1# "a" => "1"'], lines("-3", "--no-raw", "HGETALL", "r3:hash"))
    equal("(double) 1.5\n", cli("-3", "--no-raw", "ZSCORE", "r3:zset", "m"))
    assert "(integer) 3" in cli("-3", "--no-raw", "HELLO")
    equal(['1) "a"', '2) "1"'], lines("-2", "--no-raw", "HGETALL", "r3:hash"))


def pipeline():
    commands = "".join(f"SET pl:{i} {i}\nGET pl:{i}\n" for i in range(500))
    expected = [answer for i in range(500) for answer in ("OK", str(i))]
    equal(expected, lines(stdin=commands.encode()))


def transaction():
    text = b"MULTI\nSET tx:n 1\nINCR tx:n\nEXEC\nMULTI\nSET tx:n 9\nDISCARD\nGET tx:n\n"
    equal("OK QUEUED QUEUED OK 2 OK QUEUED OK 2".split(), lines(stdin=text))
    text = b"WATCH tx:n\nMULTI\nGET tx:n\nEXEC\n"
    equal("OK OK QUEUED 2".split(), lines(stdin=text))


def blocking_pop():
    with Running("BLPOP", "bp:a", "bp:b", str(TIMEOUT_S)) as running:
        blocked(1)
        cli("RPUSH", "bp:b", "1", "2")
        equal(["bp:b", "1"], running.lines(2))
    with Running("BLPOP", "bp:none", str(TIMEOUT_S)):
        blocked(1)
    blocked(0)  # It was killed, and the server knows.


def streams():
    equal("OK\n", cli("XGROUP", "CREATE", "st", "group", "0", "MKSTREAM"))
    ids = [cli("XADD", "st", "*", "n", str(i)).strip() for i in range(3)]
    read = ("XREADGROUP", "GROUP", "group", "one")
    equal(["st", ids[0], "n", "0"], lines(*read, "COUNT", "1", "STREAMS", "st", ">"))
    equal("1\n", cli("XACK", "st", "group", ids[0]))
    equal(ids[1], lines(*read, "STREAMS", "st", ">")[1])
    with Running(*read, "BLOCK", "20000", "STREAMS", "st", ">") as running:
        blocked(1)
        last = cli("XADD", "st", "*", "n", "late").strip()
        equal(["st", last, "n", "late"], running.lines(4))


def scripts():
    equal("b\n", cli("EVAL", "return ARGV[1]", "0", "b"))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], ARGV[1]}")
        script.flush()
        equal(["sc:key", "7"], lines("--eval", script.name, "sc:key", ",", "7"))
    sha = cli("SCRIPT", "LOAD", "return 5").strip()
    equal("5\n", cli("EVALSHA", sha, "0"))
    code = b"#!lua name=mine\nredis.register_function('f', function(k, a) return a[1] end)"
    equal("mine\n", cli("-x", "FUNCTION", "LOAD", "REPLACE", stdin=code))
    equal("hello\n", cli("FCALL", "f", "0", "hello"))


def binary():
    value = os.urandom(1 << 20)
    equal("OK\n", cli("-x", "SET", "bin:key", stdin=value))
    assert cli("GET", "bin:key", binary=True) == value + b"\n"
    equal("OK\n", cli("-x", "SET", "bin:empty", stdin=b""))
    equal("0\n", cli("STRLEN", "bin:empty"))
    equal("OK\n", cli("--quoted-input", "SET", r'"\x00\r\n\xff"', "quoted"))
    equal([r'"\x00\r\n\xff"'], lines("--no-raw", "EVAL", r"return '\0\r\n\255'", "0"))
    read = "\"return redis.call('get', KEYS[1])\""
    equal("quoted\n", cli("--quoted-input", "EVAL", read, "1", r'"\x00\r\n\xff"'))


def by_hand(*arguments):
    prompt = "(?:" + re.escape(sys.argv[1]) + r"[^\n>]*|not connected)>"
    return Terminal([*CLI, *arguments], prompt, TIMEOUT_S)


def interactive():
    with by_hand() as terminal:
        terminal.enter("SET hand:key value", r"\nOK\r?\n")
        terminal.enter("GET hand:key", r'\n"value"\r?\n')
        terminal.enter("SELECT 3", r"\nOK\r?\n")
        terminal.enter("GET hand:key", r"\[3\]> .*\n\(nil\)\r?\n")
        terminal.enter("INCR hand:text extra", r"\n\(error\) ERR wrong number")
        terminal.enter("HELLO 3", r'\d+# "proto" => \(integer\) 3\r?\n')
        terminal.enter("CONFIG GET maxmemory", r'\n1# "maxmemory" => "\d+"\r?\n')
        terminal.enter("3 INCR hand:n", r"\(integer\) 1\r?\n.*\(integer\) 2\r?\n.*\(integer\) 3")
        terminal.enter("HELP GET", r"summary: ")
        terminal.enter("quit")
        equal(0, terminal.end())


def interactive_transaction():
    with by_hand() as terminal:
        terminal.enter("SET hand:n 1", r"\nOK\r?\n")
        terminal.enter("WATCH hand:n", r"\nOK\r?\n")
        terminal.enter("MULTI", r"\nOK\r?\n")
        terminal.enter("INCR hand:n", r"\(TX\)> .*\nQUEUED\r?\n")
        terminal.enter("EXEC", r"\n1\) \(integer\) 2\r?\n")
        terminal.enter("WATCH hand:n", r"\nOK\r?\n")
        cli("SET", "hand:n", "7")
        terminal.enter("MULTI", r"\nOK\r?\n")
        terminal.enter("INCR hand:n", r"\(TX\)> .*\nQUEUED\r?\n")
        terminal.enter("EXEC", r"\n\(nil\)\r?\n")
        terminal.enter("MULTI", r"\nOK\r?\n")
        terminal.enter("DISCARD", r"\nOK\r?\n")
        terminal.enter("GET hand:n", r'\n"7"\r?\n')


def interactive_subscribe():
    with by_hand() as terminal:
        terminal.enter("SUBSCRIBE hand:news", r'\n1\) "subscribe"\r?\n2\) "hand:news"\r?\n')
        equal("1\n", cli("PUBLISH", "hand:news", "hello"))
        terminal.expect(r'\r1\) "message"\r?\n2\) "hand:news"\r?\n3\) "hello"\r?\n')
        terminal.any_key()
        terminal.enter("UNSUBSCRIBE hand:news", r'"unsubscribe"\r?\n2\) "hand:news"\r?\n')
        terminal.any_key()
        terminal.enter("PING", r"\nPONG\r?\n")
    with by_hand() as terminal:
        terminal.enter("MONITOR", r"\nOK\r?\n")
        cli("SET", "hand:seen", "x")
        terminal.expect(r'"SET" "hand:seen" "x"\r?\n')


def reconnect():
    with by_hand() as terminal:
        terminal.enter("SET rc:key old", r"\nOK\r?\n")
        restart_server()
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = r"\n(OK|\(error\)[^\n]*|Error:[^\n]*)\r?\n"
            if terminal.enter("SET rc:key new", answer) == "OK":
                break
            assert time.monotonic() < deadline, "no SET works"
        terminal.enter("GET rc:key", r'\n"new"\r?\n')
    equal("new\n", cli("GET", "rc:key"))


run(
    {
        "connect": connect,
        "command-line": command_line,
        "databases": databases,
        "pipe": pipe,
        "bigkeys": bigkeys,
        "stat": stat,
        "scan": scan,
        "monitor": monitor,
        "subscribe": subscribe,
        "resp3": resp3,
        "pipeline": pipeline,
        "transaction": transaction,
        "blocking-pop": blocking_pop,
        "streams": streams,
        "scripts": scripts,
        "binary": binary,
        "interactive": interactive,
        "interactive-transaction": interactive_transaction,
        "interactive-subscribe": interactive_subscribe,
        "reconnect": reconnect,
    }
)
