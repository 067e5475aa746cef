"""Templates of calls: parsed from the tables, filled in by the book or at random."""

import re
from collections import namedtuple

import data_commands
import pools
import server_commands

# One command of a template: its words, each a constant or the name of a pool.
Word = namedtuple("Word", "text pool is_key", defaults=(False,))
Template = namedtuple("Template", "name commands is_random is_for_multi line")


def tagged(key, tag):
    """In a pattern of SORT the tag must come before the *."""
    if key.startswith(b"weight_"):
        return key.replace(b"weight_", b"weight" + tag + b"_")
    return key + tag


class Tagger:
    """Gives keys a hash tag behind their names, which says what slot they are of."""

    tag = b""

    def tagged(self, key):
        return tagged(key, self.tag)

    def constant(self, text):
        """A constant of a template that is a key, or stands for keys."""
        before, arrow, field = text.partition(b"->")
        return self.tagged(before) + arrow + field

    def in_script(self, text):
        return KEYS_IN_SCRIPTS.sub(lambda match: b"'" + self.tagged(match[1]) + b"'", text)

    def chosen(self, pool, entry):
        """An entry of a pool, as a command has it."""
        if pool in pools.KEYS:
            return self.tagged(entry)
        return self.in_script(entry) if pool == "lua" else entry


class Filler(Tagger):
    """By the book: the first entry of each pool, then the second one where a pool comes twice."""

    def __init__(self, extra=None, key=None, tag=b""):
        self.extra = extra or {}
        self.key = key  # Taken for every key, if set.
        self.tag = tag
        self.seen = {}

    def choose(self, pool):
        if pool in self.extra:
            return self.extra[pool]
        if self.key is not None and pool in pools.KEYS:
            return self.tagged(self.key)
        entries = pools.POOLS[pool]
        number = self.seen.get(pool, 0)
        self.seen[pool] = number + 1
        if pool == "new_id":
            return b"%d-1" % (500 + number)
        return self.chosen(pool, entries[number % len(entries)])


class RandomFiller(Tagger):
    """Any entry of a pool. New stream entries mostly come in order."""

    def __init__(self, random, extra):
        self.random = random
        self.extra = extra
        self.stream_id = 100

    def choose(self, pool):
        if pool == "new_id":
            self.stream_id += 1
            return b"%d-1" % (self.stream_id if self.random.random() < 0.9 else 50)
        if pool in self.extra:
            return self.extra[pool]
        return self.chosen(pool, self.random.choice(pools.POOLS[pool]))


def fill(command, filler):
    return tuple(fill_word(word, filler) for word in command)


def fill_word(word, filler):
    if word.pool is not None:
        return filler.choose(word.pool)
    return filler.constant(word.text) if word.is_key else word.text


def parse_command(texts):
    words = [parse_word(text) for text in texts]
    if words[0].text in NAMING_COMMANDS:
        return [word._replace(is_key=False) for word in words]
    return words


def parse_word(text):
    match = re.fullmatch(r"\{(\w+)\}", text)
    if match is None:
        return Word(text.encode(), None, text.encode() in CONSTANT_KEYS)
    assert match[1] in pools.POOLS or match[1] in RUN_TIME, f"no pool {text}"
    return Word(None, match[1], match[1] in pools.KEYS)


# Constants of templates that are keys, or stand for some.
CONSTANT_KEYS = {row[1] if isinstance(row[1], bytes) else row[1].encode() for row in pools.DATA}
CONSTANT_KEYS |= {key for keys in pools.KEYS.values() for key in keys}
CONSTANT_KEYS |= {b"missing%d" % number for number in range(2, 6)}
CONSTANT_KEYS |= {b"other", b"monitored", b"weight_*", b"hash->f", b"__keyspace@0__:str"}
# Their words are names of commands: "set" is one.
NAMING_COMMANDS = (b"COMMAND", b"LATENCY")
KEYS_IN_SCRIPTS = re.compile(rb"'(hash|zset|missing|str)'")


# Filled in at run time: what only a server can make, and stream entries in order.
RUN_TIME = ("dump", "functions", "new_id")


def parse_line(line, containers):
    marks, texts = line.partition(" ")[0], line.lstrip("!~ ").split(" ; ")
    marks = marks if set(marks) <= set("!~") else ""
    commands = [parse_command(part.split()) for part in texts]
    return Template(name_of([w.text for w in commands[0][:2]], containers), commands,
                    "!" not in marks, "~" not in marks, line)


def name_of(words, containers):
    """The name that COMMAND has for a call, as in "get" or "client|list"."""
    name = (words[0] or b"").decode(errors="replace").lower()
    if name in containers and len(words) > 1 and words[1] is not None:
        return f"{name}|{words[1].decode(errors='replace').lower()}"
    return name


def all_templates(containers):
    text = data_commands.TEXT + server_commands.TEXT
    return [parse_line(line.strip(), containers) for line in text.splitlines() if line.strip()]


def fallback_template(command):
    """HELP needs no example. Neither does CLUSTER: a server that is not in a cluster refuses all of
    it with the same words."""
    if not (command.name.endswith("|help") or command.name.startswith("cluster|")):
        return None
    words = command.name.upper().split("|")
    words += ["1"] * (abs(command.arity) - len(words))
    return Template(command.name, [[Word(word.encode(), None) for word in words]], False, True,
                    " ".join(words))
