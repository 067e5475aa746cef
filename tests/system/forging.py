"""Calls that try to make a server say more than one reply: every command that COMMAND lists, with
line ends in every argument, and what a server compiles, which reports its errors in its own way."""

import os
import sys

from harness import ROOT
from resp import Framer, RespClient, encode

sys.path.append(os.path.join(ROOT, "tests", "differential"))

import pools  # noqa: E402
import systematic  # noqa: E402
from world import spec_of  # noqa: E402

FORGED = b"\r\n:-1\r\n+forged"
# As it is, and in the quotes that CONFIG, ACL and the first line of a script unescape.
HOSTILE = [b"a" + FORGED, FORGED, b"1" + FORGED, b'"a\\r\\n:-1\\r\\n+forged"', b"a\n+forged\rx"]
# They send a stream or no reply, or end the server. What waits is not tried either: it has a
# connection of its own in any case.
NOT_TRIED = {"sync", "psync", "monitor", "client|reply", "shutdown", "failover", "wait", "waitaof"}
NOT_TRIED |= {"subscribe", "psubscribe", "ssubscribe", "multi", "debug"}
# Of CONFIG SET: we would not get back in.
KEPT_OPTIONS = {b"requirepass", b"maxclients", b"dir", b"bind", b"timeout", b"maxmemory"}

ESCAPED = b'"a\\r\\n:-1\\r\\n+forged"'
NAMES = [b"a" + FORGED, ESCAPED]
# First lines of libraries and scripts.
SHEBANGS = [b"#!lua name=%s", b"#!lua name=x %s", b"#!lua name=x %s=1", b"#!lua name=x flags=%s"]
SHEBANGS += [b"#!%s name=x", b"#!lua flags=%s", b"#!lua %s", b"#!lua %s=1", b"#!lua flags=%s,%s"]
# Inside Lua the text is a Lua string, with its escapes.
LUA = '"a\\r\\n:-1\\r\\n+forged"'
BODIES = [
    f"error({LUA})",
    f"error({{err={LUA}}})",
    f"return {{err={LUA}}}",
    f"return {{ok={LUA}}}",
    f"return {{1, {{err={LUA}}}, {{ok={LUA}}}}}",
    f"return redis.error_reply({LUA})",
    f"return redis.status_reply({LUA})",
    f"return redis.call({LUA})",
    f"return redis.pcall({LUA})",
    f"return redis.call('SET', {LUA})",
    f"return redis.call('FUNCTION', 'LIST', {LUA})",
    f"return redis.pcall('FUNCTION', 'LIST', {LUA})",
    f"return redis.call('CONFIG', 'SET', {LUA}, 1)",
    f"redis.setresp(3) return {{big_number={LUA}}}",
    f"redis.setresp(3) return {{verbatim_string={{format={LUA}, string={LUA}}}}}",
    f"redis.setresp(3) return {{double={LUA}}}",
    f"redis.setresp(3) return {{map={{[{LUA}]={{err={LUA}}}}}}}",
    f"redis.setresp({LUA})",
    f"local x = nil; return x[{LUA}]",
    f"return tonumber({LUA}) + 1",
    f"return _G[{LUA}]",
    f"_G[{LUA}] = 1",
    f"return cjson.decode({LUA})",
    f"return cmsgpack.unpack({LUA})",
    f"return struct.pack({LUA})",
    f"return loadstring({LUA})()",
    f"return redis.sha1hex({LUA}, 1)",
    "this is no Lua\r\n:-1\r\n+forged",
    "x = 'a\r\n:-1\r\n+forged",
    "goto a\r\n:-1\r\n+forged",
]
REGISTRATIONS = [
    f"redis.register_function({LUA}, function() return 1 end)",
    f"redis.register_function({LUA}, {LUA})",
    f"redis.register_function{{function_name={LUA}, callback=function() return 1 end}}",
    f"redis.register_function{{[{LUA}]=1}}",
    f"redis.register_function{{function_name='f', callback=print, flags={{{LUA}}}}}",
    f"redis.register_function{{function_name='f', callback=print, description={LUA}, x=1}}",
    f"redis.register_function('f', function() {BODIES[0]} end)",
]


def crc64(data):
    """The checksum at the end of what DUMP gives (Jones, reflected)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
    return crc


def dumped(code, version):
    """A library as FUNCTION DUMP gives it, whatever it holds."""
    size = len(code)
    length = bytes([size]) if size < 64 else bytes([0x40 | size >> 8, size & 255])
    payload = b"\xf5" + length + code + version
    return payload + crc64(payload).to_bytes(8, "little")


def libraries():
    for shebang in SHEBANGS:
        for name in NAMES:
            yield shebang.replace(b"%s", name) + b"\nreturn 1"
            yield shebang.replace(b"%s", name) + b"\n" + REGISTRATIONS[-1].encode()
    for body in BODIES + REGISTRATIONS:
        yield b"#!lua name=x\n" + body.encode()


def compiled_calls(version):
    """What the server compiles. `version` is the end of a FUNCTION DUMP before its checksum."""
    for body in BODIES:
        for command in (b"EVAL", b"EVAL_RO"):
            yield (command, body.encode(), b"0")
    for code in list(libraries()) + [body.encode() for body in BODIES]:
        yield (b"EVAL", code, b"0")
        yield (b"SCRIPT", b"LOAD", code)
        yield (b"FUNCTION", b"LOAD", code)
        yield (b"FUNCTION", b"LOAD", b"REPLACE", code)
        yield (b"FCALL", b"f", b"0")
        for policy in ((), (b"REPLACE",), (b"FLUSH",), (b"APPEND",)):
            yield (b"FUNCTION", b"RESTORE", dumped(code, version), *policy)
        yield (b"FUNCTION", b"FLUSH")


def hostile_calls(call, first):
    """The call with a hostile text in place of each argument from the first on, behind each, and
    between them."""
    for text in HOSTILE:
        for i in range(first, len(call)):
            yield call[:i] + (text,) + call[i + 1 :]
            yield call[:i] + (call[i] + text,) + call[i + 1 :]
        for i in range(first, len(call) + 1):
            yield call[:i] + (text,) + call[i:]
        yield call[:first] + (text,) * max(1, len(call) - first)


def option_calls(names):
    for name in names:
        if name in KEPT_OPTIONS:
            continue
        for text in HOSTILE:
            yield (b"CONFIG", b"SET", name, text)


class Prober:
    """Sends calls to the server itself and looks how many replies come."""

    def __init__(self, server):
        self.server = server
        self.admin = server.client()
        self.probe = None
        self.number = 0
        self.calls = 0
        self.forging = {}  # name: a call
        self.not_tried = set(NOT_TRIED)

    def close(self):
        self.admin.close()
        if self.probe is not None:
            self.probe.close()

    def table(self):
        """Names of all commands, and of those that have sub-commands."""
        specs = []
        for row in self.admin.value("COMMAND"):
            specs.append(spec_of(row))
            if b"blocking" in row[2] and not row[0].startswith(b"x"):
                self.not_tried.add(row[0].decode())
            specs += [spec_of(sub) for sub in row[9]]
        containers = {spec.name.split("|")[0] for spec in specs if "|" in spec.name}
        return sorted(specs), containers

    def set_up(self):
        for command in pools.DATA + pools.SERVER_STATE:
            self.admin.command(*command)
        dump = self.admin.value("FUNCTION", "DUMP")
        return {"dump": self.admin.value("DUMP", "zset"), "functions": dump}, dump[-10:-8]

    def search(self):
        specs, containers = self.table()
        extra, version = self.set_up()
        sequences, _ = systematic.build(specs, containers, extra)
        for sequence in sequences:
            name, _, kind = sequence.covers
            if kind != "good" or name in self.not_tried:
                continue
            if any(word.upper() == b"BLOCK" for word in sequence.commands[-1]):
                continue
            self.admin.command("FLUSHALL")
            for command in pools.DATA:
                self.admin.command(*command)
            first = 2 if "|" in name else 1
            for number, call in enumerate(sequence.commands):
                if name.split("|")[0] != call[0].decode().lower():
                    continue
                before = sequence.commands[:number]
                for hostile in hostile_calls(call, first):
                    self.try_call(name, hostile, before)
        for name in [spec.name for spec in specs if "|" in spec.name or spec.name in containers]:
            words = tuple(word.upper().encode() for word in name.split("|"))
            for text in HOSTILE:
                self.try_call(name, (words[0], text))
                self.try_call(name, words + (text,))
                self.try_call(name, words + (text, text))
        for call in compiled_calls(version):
            self.try_call(self.name_of(call, containers), call)
        for call in option_calls(list(self.admin.value("CONFIG", "GET", "*"))[::2]):
            self.try_call("config|set", call)

    def name_of(self, call, containers):
        name = call[0].decode().lower()
        return f"{name}|{call[1].decode().lower()}" if name in containers else name

    def try_call(self, name, call, before=()):
        """Whether one reply, and nothing else, comes before that to a later command."""
        self.calls += 1
        if self.probe is None or before:
            self.renew()
        self.number += 1
        end = b"$%d\r\nend-%d\r\n" % (4 + len(str(self.number)), self.number)
        if before:  # Pushes may be among what comes.
            self.probe.send(b"".join(encode(*each) for each in (*before, ("ECHO", "begun"))))
            self.receive_until(b"begun\r\n")
        self.probe.send(encode(*call) + encode("ECHO", f"end-{self.number}"))
        data, is_whole = self.receive_until(end)
        if is_whole and count_replies(data) == 1:
            return
        self.renew()
        if is_whole:
            self.forging.setdefault(name, call)

    def receive_until(self, end):
        data = b""
        self.probe.socket.settimeout(0.3)
        try:
            while not data.endswith(end):
                piece = self.probe.socket.recv(1 << 18)
                if not piece:
                    break
                data += piece
        except OSError:
            pass
        return data.removesuffix(end), data.endswith(end)

    def renew(self):
        if self.probe is not None:
            self.probe.close()
        self.probe = RespClient(self.server.path)


def count_replies(data):
    """As a strict client counts them, without pushes; -1 if it is not RESP."""
    count = 0
    rest = bytearray(data)
    while rest:
        try:
            end = Framer().end(rest)
        except (AssertionError, ValueError):
            return -1
        if end is None:
            return -1
        count += rest[:1] != b">"
        del rest[:end]
    return count
