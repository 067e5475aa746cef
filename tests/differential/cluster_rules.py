"""What a client before a cluster can't have, or has otherwise: docs/cluster.md says so, with the
reasons.

A command that is refused there is no less compared: the server itself gets one in its place that it
refuses as well, and all else must be the same (EXEC fails, the state of the client stays). What can't
be compared at all is taken out of its sequence.
"""

import re
from collections import namedtuple

from cluster_world import slot_of  # First: it says where the others are.

from resp import parse

# commands: their names, as a pattern; when: "always" or "multi" (and behind WATCH); words: what is said, as a pattern;
# stand_in: what the server itself gets.
Refusal = namedtuple("Refusal", "commands when words stand_in is_meant")

# What no server knows: in MULTI it refuses it, and EXEC with it.
UNKNOWN = (b"nearkey:refused",)
# What a server takes into a transaction, and refuses when it is run.
NO_DATABASE = (b"SELECT", b"99")
NO_DATABASE_WORDS = b"-ERR DB index is out of range"
NOT_IN_CLUSTER = re.compile(
    rb"-ERR (?:\w+ is not allowed in cluster mode|\w+ not allowed in cluster mode\.[^\r]*)"
)

ONE_SERVER = rb"-ERR \S+ needs a connection to one server, which nearkey can't give before a cluster"
EVERY_NODE = rb"-ERR \S+ would have to ask every node of the cluster, which nearkey can't do"
OTHER_USER = rb"-ERR before a cluster all clients of nearkey are its user"
NO_CLUSTER = rb"-ERR This instance has cluster support disabled"

OWN_USERS = (b"default",)


def _says_on(args):
    return args[2].upper() == b"ON"


def _is_silenced(args):
    return args[2].upper() in (b"OFF", b"SKIP")


def _is_other_user(args):
    if args[0].upper() == b"AUTH":
        return len(args) == 3 and args[1] not in OWN_USERS
    at = next((at for at in range(2, len(args)) if args[at].upper() == b"AUTH"), None)
    return at is not None and at + 2 < len(args) and args[at + 1] not in OWN_USERS


def _is_other_database(args):
    return _is_number_of_other(args[-1])


def _copies_elsewhere(args):
    return any(a.upper() == b"DB" and _is_number_of_other(b) for a, b in zip(args[3:], args[4:]))


def _is_number_of_other(word):
    return re.fullmatch(rb"-?\d{1,9}", word) is not None and int(word) != 0


def _always(args):
    return True


REFUSALS = [
    Refusal(r"acl\|(setuser|deluser|save)", "always", EVERY_NODE, UNKNOWN, _always),
    Refusal(
        r"client\|(caching|info|trackinginfo)|replconf|script\|debug",
        "always", ONE_SERVER, UNKNOWN, _always,
    ),
    Refusal(r"client\|(tracking|no-touch)", "always", ONE_SERVER, UNKNOWN, _says_on),
    Refusal(r"client\|reply", "always", ONE_SERVER, UNKNOWN, _is_silenced),
    Refusal(
        r"auth|hello|select|readonly|readwrite|monitor|p?sync|[ps]?(un)?subscribe"
        r"|client\|(capa|id|getname|setname|setinfo|getredir|no-evict|no-touch|tracking|reply)",
        "multi", ONE_SERVER, UNKNOWN, _always,
    ),
    Refusal(r"auth|hello", "always", OTHER_USER, UNKNOWN, _is_other_user),
    Refusal(
        r"dbsize|flushall|flushdb|keys|randomkey|scan|wait|waitaof|pubsub\|(?!help).*"
        r"|function\|(delete|flush|kill|load|restore|stats)|script\|(exists|flush|kill|load)",
        "multi", EVERY_NODE, UNKNOWN, _always,
    ),
    Refusal(r"cluster\|.*|asking", "multi", NO_CLUSTER, UNKNOWN, _always),
    # There is one database, and no replication but the cluster's own.
    Refusal(r"select", "always", b"", NO_DATABASE, _is_other_database),
    Refusal(r"move|swapdb|replicaof|slaveof|failover", "always", b"", NO_DATABASE, _always),
    Refusal(r"copy", "always", b"", NO_DATABASE, _copies_elsewhere),
]

# Keys of these may be of many slots.
SPREAD = (b"MGET", b"MSET", b"DEL", b"UNLINK", b"EXISTS", b"TOUCH")
# A script that names no key finds none but those of the node where it happens to run.
USES_KEYS = re.compile(rb"redis.call\('(GET|HGETALL|ZRANGE|LPUSH|SET)'")
OF_ONE_NODE = re.compile(rb"(OBJECT|DIGEST|HTSTATS)\Z", re.I)


# Scripts for several clients that have one of these are left out: what is refused, ids of clients
# (which are nearkey's own), and the order of a table.
NOT_IN_SCENARIOS = re.compile(
    r"SELECT [1-9]|SWAPDB|AUTH |ACL (SETUSER|DELUSER)|UNSUBSCRIBE$"
    r"|CLIENT (REPLY|TRACKING|CACHING|PAUSE|KILL|UNBLOCK|GETNAME)",
    re.MULTILINE,
)


def is_scenario_comparable(lines, *, is_moving):
    """A slot can't be moved while a node is busy with a script."""
    text = "\n".join(lines)
    is_busy = "busy-reply-threshold" in text
    return not NOT_IN_SCENARIOS.search(text) and not (is_busy and is_moving)


class Rules:
    def __init__(self, specs, name_of, admin):
        self.arities = {spec.name: spec.arity for spec in specs}
        self.name_of = name_of
        self.admin = admin  # A client of the server that says what keys a command has.

    def refusal(self, args, *, in_transaction):
        name = self.name_of(args)
        if not self._is_call(name, args):
            return None
        for row in REFUSALS:
            if re.fullmatch(row.commands, name) and (row.when == "always" or in_transaction):
                if row.is_meant(args):
                    return row
        return None

    def _is_call(self, name, args):
        arity = self.arities.get(name)
        if arity is None:
            return False
        return len(args) == arity if arity > 0 else len(args) >= -arity

    def _slots(self, commands):
        """The slots of the keys of each command, by the word of the server."""
        asked = [args for args in commands if args and args[0].upper() != b"COMMAND"]
        asked = [(b"COMMAND", b"GETKEYS", *args) for args in asked]
        replies = map(parse, self.admin.pipeline(asked))
        found = []
        for args in commands:
            keys = next(replies) if args and args[0].upper() != b"COMMAND" else None
            if args and args[0].upper() == b"SPUBLISH":
                keys = list(args[1:2])  # No key, but it has a slot.
            found.append({slot_of(key) for key in keys} if isinstance(keys, list) else set())
        return found

    def applied(self, sequence):
        """The sequence as it can be compared."""
        slots = self._slots(sequence.commands)
        commands, wires, reference, refused = [], [], [], {}
        state = _State()
        for args, data, of in zip(sequence.commands, sequence.wires, slots):
            if not self._is_comparable(args, of, state):
                continue
            row = self.refusal(args, in_transaction=state.is_bound()) if args else None
            if row is not None:
                refused[len(commands)] = row
            else:
                state.note(args, of)
            commands.append(args)
            wires.append(data)
            reference.append(args if row is None else row.stand_in)
        return sequence.with_reference(commands, wires, reference, refused)

    def _is_comparable(self, args, slots, state):
        """Not what has keys of many slots where that can't be, nor what asks one node. PFSELFTEST
        keeps a node busy for seconds."""
        name = args[0].upper() if args else b""
        if state.is_bound():
            if len(slots | state.slots) > 1:
                return False
        elif len(slots) > 1 and name not in SPREAD:
            return False
        if name in (b"EVAL", b"EVAL_RO") and args[2:3] == (b"0",):
            return not USES_KEYS.search(args[1])
        if name in (b"SORT", b"SORT_RO"):
            return _sorts_one_slot(args)
        if name == b"PFSELFTEST":
            return False
        if name == b"DEBUG":
            return not any(OF_ONE_NODE.match(arg) for arg in args[1:2])
        return not (name == b"PSUBSCRIBE" and b"*" in args[1:])


def _sorts_one_slot(args):
    """What GET names must be of the slot of the key; to Valkey 8.0 a # is of one, too."""
    named = [b for a, b in zip(args[2:], args[3:]) if a.upper() == b"GET"]
    named += [b for a, b in zip(args[2:], args[3:]) if a.upper() == b"BY" and b"*" in b]
    return all(slot_of(each) == slot_of(args[1]) for each in named)


class _State:
    """Of a client, as far as it decides where its commands may run."""

    def __init__(self):
        self.in_multi = self.is_watching = False
        self.slots = set()  # Of the transaction, or of what is watched.

    def is_bound(self):
        return self.in_multi or self.is_watching

    def note(self, args, slots):
        name = args[0].upper() if args else b""
        if name in (b"EXEC", b"DISCARD", b"RESET", b"UNWATCH") and len(args) == 1:
            self.is_watching = False
            self.in_multi = self.in_multi and name == b"UNWATCH"
        elif name == b"MULTI" and len(args) == 1:
            self.in_multi = True
        elif name == b"WATCH" and len(args) > 1 and not self.in_multi:
            self.is_watching = True
        self.slots = self.slots | slots if self.is_bound() else set()


def in_words_of_one_server(frames):
    """What is refused since there are several servers, as if there were no such database."""
    return [NOT_IN_CLUSTER.sub(NO_DATABASE_WORDS, frame) for frame in frames]


