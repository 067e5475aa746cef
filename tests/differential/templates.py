"""Templates of calls: parsed from the tables, filled in by the book or at random."""

import re
from collections import namedtuple

import data_commands
import pools
import server_commands

# One command of a template: its words, each a constant or the name of a pool.
Word = namedtuple("Word", "text pool")
Template = namedtuple("Template", "name commands is_random is_for_multi line")


class Filler:
    """By the book: the first entry of each pool, then the second one where a pool comes twice."""

    def __init__(self, extra=None, key=None):
        self.extra = extra or {}
        self.key = key  # Taken for every key, if set.
        self.seen = {}

    def choose(self, pool):
        if pool in self.extra:
            return self.extra[pool]
        if self.key is not None and pool in pools.KEYS:
            return self.key
        entries = pools.POOLS[pool]
        number = self.seen.get(pool, 0)
        self.seen[pool] = number + 1
        if pool == "new_id":
            return b"%d-1" % (500 + number)
        return entries[number % len(entries)]


class RandomFiller:
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
        return self.random.choice(pools.POOLS[pool])


def fill(command, filler):
    return tuple(word.text if word.pool is None else filler.choose(word.pool) for word in command)


def parse_word(text):
    match = re.fullmatch(r"\{(\w+)\}", text)
    if match is None:
        return Word(text.encode(), None)
    assert match[1] in pools.POOLS or match[1] in RUN_TIME, f"no pool {text}"
    return Word(None, match[1])


# Filled in at run time: what only a server can make, and stream entries in order.
RUN_TIME = ("dump", "functions", "new_id")


def parse_line(line, containers):
    marks, texts = line.partition(" ")[0], line.lstrip("!~ ").split(" ; ")
    marks = marks if set(marks) <= set("!~") else ""
    commands = [[parse_word(text) for text in part.split()] for part in texts]
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
