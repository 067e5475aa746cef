"""The fields that must differ from run to run, each masked by name and for a reason; everything
else is compared byte by byte."""

import re
from collections import namedtuple

import wire

# `apply` gets the arguments of the call and one whole reply.
Mask = namedtuple("Mask", "command field reason apply")

CLIENT_FIELDS = (
    "id addr laddr fd age idle sub psub ssub qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll omem"
    " tot-mem events tot-net-in tot-net-out tot-cmds"
).split()


def numbers(_args, reply):
    """Any whole number or double, wherever it stands."""
    reply = re.sub(rb"(^|\n):-?\d+", rb"\1:#", reply)
    reply = re.sub(rb"(^|\n)\$\d+\r\n-?[\d.]+(e[-+]?\d+)?\r", rb"\1$#\r", reply)
    return re.sub(rb"(^|\n),[^\r]+", rb"\1,#", reply)


def positive(_args, reply):
    """-1 and -2 are answers of their own."""
    return re.sub(rb"^:[1-9]\d*", b":#", reply)


def relative_time(_args, reply):
    """The pools have absolute times around the year 2100; others were relative to now."""
    return reply if re.match(rb":41024\d{5}(\d{3})?\r", reply) else positive(_args, reply)


def after(*names):
    """The number or text that follows a bulk string with that name."""
    pattern = b"|".join(re.escape(name.encode()) for name in names)
    number = re.compile(rb"(\r\n(?:%b)\r\n[:,])[-\w.+]+" % pattern)
    text = re.compile(rb"(\r\n(?:%b)\r\n)[$=]\d+\r\n[^\r]*" % pattern)

    def apply(_args, reply):
        return text.sub(rb"\1$#", number.sub(rb"\1#", reply))

    return apply


def shape(_args, reply):
    """Each text becomes a sign; how many there are and of which type stays."""
    return wire.without_texts(reply)


def texts_without_values(reply, line_mask):
    """Applies the mask to each line of a text; its length goes with it."""
    head, _, body = reply.partition(b"\r\n")
    if head[:1] not in (b"$", b"="):
        return reply
    return head[:1] + b"#\r\n" + b"\n".join(line_mask(line) for line in body.splitlines())


def info_names(_args, reply):
    """Which commands and errors there were so far is a value too."""
    masked = texts_without_values(reply, lambda line: line.split(b":")[0])
    return re.sub(rb"\n(cmdstat|errorstat|latency_percentiles_usec)_\S*", b"", masked)


def client_fields(_args, reply):
    pattern = re.compile(
        rb"\b(%b)=\S*" % b"|".join(re.escape(name.encode()) for name in CLIENT_FIELDS)
    )
    # Once a connection has had a transaction, Valkey 8.1 says 0 where it said -1: none is open.
    return texts_without_values(
        reply, lambda line: pattern.sub(rb"\1=#", line).replace(b" multi=-1 ", b" multi=0 "))


def client_list(args, reply):
    """The names of the fields: the connections that it lists are nearkey's own."""

    def names(line):
        return re.sub(rb"=\S*", b"=", line).strip()

    masked = texts_without_values(reply, names)
    if any(arg.upper() == b"ID" for arg in args):
        return masked
    return b"\n".join(sorted(set(masked.split(b"\n"))))


def pending_times(args, reply):
    """The third field of each entry of the extended form."""
    if len(args) <= 3:
        return reply
    return re.sub(rb"(\*4\r\n\$\d+\r\n[^\r]*\r\n\$\d+\r\n[^\r]*\r\n:)\d+", rb"\1#", reply)


def stream_full(args, reply):
    """FULL tells when entries were delivered: the last field but one of four, or of three."""
    reply = after("seen-time", "active-time")(args, reply)
    return re.sub(rb":1\d{12}\r\n", b":#\r\n", reply)


def new_entry(args, reply):
    return re.sub(rb"^\$\d+\r\n\d+-\d+", b"$#", reply) if b"*" in args else reply


def whole(_args, reply):
    return reply[:1] + b"#" if reply[:1] in b"$=*%~" else reply


def dump(_args, reply):
    """The first byte of a payload is the type; these are streams."""
    is_stream = reply.partition(b"\r\n")[2][:1] in (b"\x0f", b"\x13", b"\x15")
    return b"$#stream" if is_stream else reply


DEBUG_PUSH = b">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n"


def debug(args, reply):
    if args[1:2] and args[1].upper() == b"OBJECT":
        return re.sub(rb"(at:|lru:|lru_seconds_idle:)\w+", rb"\1#", reply)
    return reply


def poem(_args, reply):
    """What stands above the empty line, if there is one."""
    return re.sub(rb"\A[$=]\d+\r\n.*?\n\n", b"$#\n\n", reply, flags=re.DOTALL)


def max_level(_args, reply):
    return re.sub(rb"(\bmax-level\r\n:)\d+", rb"\1#", reply)


def hello(_args, reply):
    return re.sub(rb"(\$2\r\nid\r\n:)\d+", rb"\1#", reply)


def in_any_order(_args, reply):
    if reply[:1] != b"*":
        return reply
    return reply[: reply.index(b"\r\n") + 2] + b"".join(sorted(wire.elements(reply)))


def monitor(_args, reply):
    return reply if reply == b"+OK\r\n" else b"+#\r\n"


OWN_ID = "each client has an id of its own; nearkey numbers its clients itself"
RANDOM = "the server chooses at random; the shape of the reply is compared"
CLOCK = "the clock went on between the two runs"
LOAD = "counts the server's work and memory so far; the names of the fields are compared"

ROWS = [
    Mask("hello", "id", OWN_ID, hello),
    Mask("client|id", "the id", OWN_ID, positive),
    Mask(
        "client|info",
        " ".join(CLIENT_FIELDS) + ", and whether multi is -1 or 0",
        "tells of the connection, its buffers and its traffic",
        client_fields,
    ),
    Mask(
        "client|list",
        "all values",
        "lists the server's connections: with nearkey, those are nearkey's; "
        "the names of the fields are compared",
        client_list,
    ),
    Mask("acl|genpass", "the password", RANDOM, shape),
    Mask(
        "acl|log",
        "age-seconds client-info entry-id timestamp-created timestamp-last-updated",
        CLOCK + "; the client is nearkey's connection",
        after(
            "age-seconds",
            "client-info",
            "entry-id",
            "timestamp-created",
            "timestamp-last-updated",
        ),
    ),
    Mask(
        "debug",
        "PROTOCOL push: the push behind the reply",
        "nearkey passes on pushes only to who has subscribed, tracks or monitors",
        debug,
    ),
    Mask("debug", "OBJECT: at lru lru_seconds_idle", "addresses, and the clock", debug),
    Mask("dump", "the payload of a stream", "tells when its consumers were last seen", dump),
    Mask("info", "all values", LOAD, info_names),
    Mask("lastsave", "the time", CLOCK, positive),
    Mask("latency|histogram", "the whole reply", "measured times", whole),
    Mask("lolwut", "a poem", RANDOM, poem),
    Mask("memory|malloc-stats", "the whole reply", "the allocator's report", whole),
    Mask("memory|stats", "all numbers", LOAD, numbers),
    Mask("memory|usage", "the size", "the allocator rounds up to what it has free", positive),
    Mask("object|idletime", "the seconds", CLOCK, numbers),
    Mask("pttl", "a time above 0", CLOCK, positive),
    Mask("ttl", "a time above 0", CLOCK, positive),
    Mask("httl", "a time above 0", CLOCK, numbers),
    Mask("hpttl", "a time above 0", CLOCK, numbers),
    Mask("expiretime", "a time that was set relative to now", CLOCK, relative_time),
    Mask("pexpiretime", "a time that was set relative to now", CLOCK, relative_time),
    Mask("time", "seconds microseconds", CLOCK, shape),
    Mask("randomkey", "the key", RANDOM, shape),
    Mask("hrandfield", "the fields and values", RANDOM, shape),
    Mask("srandmember", "the members", RANDOM, shape),
    Mask("zrandmember", "the members", RANDOM, shape),
    Mask("vrandmember", "the members", RANDOM, shape),
    Mask("vlinks", "the whole reply", "the levels of an element are drawn", whole),
    Mask("vinfo", "max-level", "the levels of an element are drawn", max_level),
    Mask("spop", "the members", RANDOM, shape),
    Mask("xadd", "the id that * stands for", CLOCK, new_entry),
    Mask("xpending", "the idle time of an entry", CLOCK, pending_times),
    Mask("xinfo|consumers", "idle inactive", CLOCK, after("idle", "inactive")),
    Mask(
        "xinfo|stream",
        "FULL: seen-time active-time and delivery times",
        CLOCK,
        stream_full,
    ),
    Mask("monitor", "the lines behind OK", "they tell of the server's own connections", monitor),
]
# Of a server whose table of keys grows, though DEBUG DICT-RESIZING forbids it.
ORDER = "the table of keys grows by the clock (Valkey 8.1) or as keys are looked up (Redis 7.0)"
UNSTEADY_ROWS = [
    Mask("keys", "the order", ORDER, in_any_order),
    Mask("scan", "the whole reply", ORDER, whole),
]


def unordered(_args, reply):
    """What is in aggregates, however deep, in any order."""
    return wire.parsed(reply, lambda head, parts: head + b"".join(sorted(parts)))


def unordered_pairs(_args, reply):
    """The same of names and values, in RESP2 too."""
    if reply[:1] not in b"*%":
        return reply
    parts = wire.elements(reply)
    pairs = sorted(a + b for a, b in zip(parts[::2], parts[1::2]))
    return reply[: reply.index(b"\r\n") + 2] + b"".join(pairs)


def page(args, reply):
    return unordered(args, reply) if args[2:3] == (b"0",) else whole(args, reply)


def config_names(_args, reply):
    return unordered(_args, b"*0\r\n" + b"".join(wire.elements(reply)[::2]))


def dump_of_table(args, reply):
    """Sets and hashes are tables, too, whose order is the node's own."""
    is_table = reply.partition(b"\r\n")[2][:1] in (b"\x02", b"\x04")
    return b"$#table" if is_table else dump(args, reply)


def last_channels(args, reply):
    """All that there are end in the order of a table."""
    if len(args) > 1:
        return reply
    return re.sub(rb"(unsubscribe\r\n)\$\d+\r\n.*(\r\n:)", rb"\1#\2", reply, flags=re.DOTALL)


def info_names_of_node(args, reply):
    """A node without keys tells of no database."""
    return re.sub(rb"\ndb0\b", b"", info_names(args, reply))


HASH_SEED = "each server has tables in an order of its own"
ONE_NODE = "one node tells of itself"
# Before a cluster.
CLUSTER_ROWS = [
    *(
        Mask(name, "the order", HASH_SEED, unordered)
        for name in (
            "keys acl|cat command command|docs command|info command|list function|list"
            " pubsub|channels pubsub|shardchannels smembers sunion sinter sdiff hkeys hvals"
            " eval eval_ro evalsha evalsha_ro"
        ).split()
    ),
    *(
        Mask(name, "the order; behind a cursor, the whole reply", HASH_SEED, page)
        for name in ("hscan", "sscan", "zscan")
    ),
    Mask("hgetall", "the order", HASH_SEED, unordered_pairs),
    Mask("scan", "the whole reply", "its cursor is that of a node", whole),
    Mask("info", "all values", LOAD, info_names_of_node),
    Mask("config|get", "values", ONE_NODE, config_names),
    Mask("memory|stats", "the whole reply", ONE_NODE, whole),
    Mask("dump", "the payload of a stream, of a set and a hash that are large", HASH_SEED,
         dump_of_table),
    *(
        Mask(name, "without names: their order", HASH_SEED, last_channels)
        for name in ("unsubscribe", "punsubscribe", "sunsubscribe")
    ),
]
MASKS = {row.command: row for row in ROWS}


def mask_reply(name, args, reply):
    """The reply without what must differ; an error is left as it is."""
    row = MASKS.get(name)
    if row is None or reply[:1] == b"-":
        return reply
    return row.apply(args, reply)


def mask_exec(queued, reply):
    """EXEC's reply: each element is masked as the reply of its command."""
    parts = wire.elements(reply)
    if sum(not wire.is_out_of_band(part) for part in parts) != len(queued):
        return reply
    head = reply[: reply.index(b"\r\n") + 2]
    calls = iter(queued)
    return head + b"".join(
        part if wire.is_out_of_band(part) else mask_reply(*next(calls), part) for part in parts
    )


def mask_answers(name_of, commands, answers):
    """The answers to each command, masked and joined."""
    masked, queued = [], []
    if any(name_of(args) == "debug" for args in commands):
        # Before its reply (Redis 7.0) or behind.
        answers = [[frame for frame in frames if frame != DEBUG_PUSH] for frames in answers]
    for args, frames in zip(commands, answers):
        name = name_of(args)
        if name == "exec" and frames and frames[0][:1] == b"*" and queued:
            behind = [mask_reply(name, args, frame) for frame in frames[1:]]
            masked.append(mask_exec(queued, frames[0]) + b"".join(behind))
        else:
            masked.append(b"".join(mask_reply(name, args, frame) for frame in frames))
        if name in ("exec", "discard", "reset"):
            queued = []
        elif frames == [b"+QUEUED\r\n"]:
            queued.append((name, args))
    return masked
