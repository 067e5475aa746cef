"""Every command of the server's COMMAND table, in both protocols: with good arguments, with a wrong
number of them, on keys of the wrong type, with a number of keys that is none, and inside MULTI. Each
sequence starts anew."""

import pools
import templates
from exceptions import INTERRUPTING, OMITTED
from sequence import Sequence

PROTOCOLS = (2, 3)
# Calls that change the server itself, besides the data.
THOROUGH = {"script", "function", "acl", "config", "client", "bgsave", "bgrewriteaof", "save"}
THOROUGH |= {"slowlog", "latency", "auth", "hello"}
BLOCKING = {"wait", "waitaof", "xread", "xreadgroup", "pfselftest"}

# In place of a number of keys; atoi() makes 1 of some.
COUNTS = (b"0", b"-1", b"1.5", b"abc", b"", b"1000", b" 1", b"+1", b"01", b"2x", b"4294967297",
          b"99999999999999999999")


class MissingExamples(Exception):
    pass


def build(specs, containers, extra, interrupts=False, tags=(b"",)):
    """All sequences, in the order of the server's table."""
    by_name = {}
    for template in templates.all_templates(containers):
        by_name.setdefault(template.name, []).append(template)
    names = {spec.name for spec in specs}
    missing = []
    for spec in specs:
        if spec.name in by_name or spec.name in containers:
            continue
        template = templates.fallback_template(spec)
        if template is None:
            missing.append(spec.name)
        else:
            by_name[spec.name] = [template]
    unknown = sorted(set(by_name) - names)
    if missing:
        raise MissingExamples(
            f"the server has commands without an example: {' '.join(missing)}; "
            "add them to data_commands.py or server_commands.py"
        )
    builder = Builder(containers, extra, interrupts)
    for number, spec in enumerate(specs):
        builder.tag = tags[number % len(tags)]
        builder.add(spec, by_name.get(spec.name, []))
    return builder.sequences, unknown


class Builder:
    tag = b""

    def __init__(self, containers, extra, interrupts):
        self.containers = containers
        self.extra = extra
        self.interrupts = interrupts  # A push stands inside EXEC's array.
        self.sequences = []

    def add(self, spec, examples):
        for protocol in PROTOCOLS:
            for number, example in enumerate(examples):
                commands = self._filled(example)
                self._append(spec, protocol, "good", number, commands)
                if example.is_for_multi and not (self.interrupts and example.line == INTERRUPTING):
                    multi = [(b"MULTI",), commands[0], (b"EXEC",)]
                    self._append(spec, protocol, "multi", number, multi)
            wrong = self._wrong_counts(spec, examples)
            self._append(spec, protocol, "arity", 0, wrong)
            for number, call in enumerate(wrong):
                self._append(spec, protocol, "multi arity", number,
                             [(b"MULTI",), call, (b"EXEC",)])
            if examples:
                self._add_wrong_types(spec, protocol, examples)
            if examples and spec.count_place:
                self._add_counts(spec, protocol, examples)

    def _filled(self, example, key=None):
        filler = templates.Filler(self.extra, key, self.tag)
        return [templates.fill(command, filler) for command in example.commands]

    def _wrong_counts(self, spec, examples):
        """Too few, one too many, and for a container no sub-command or an unknown one."""
        name = tuple(word.upper().encode() for word in spec.name.split("|"))
        if spec.name in self.containers:
            return [name, name + (b"NOSUCH",), name + (b"nosuch\r\n", b"x")]
        call = self._filled(examples[0])[0]
        wrong = [call[: abs(spec.arity) - 1]] if abs(spec.arity) > len(name) else []
        if (spec.name, "good") not in OMITTED or spec.arity > 0:
            wrong.append(call + (b"surplus",))
        return wrong

    def _add_wrong_types(self, spec, protocol, examples):
        """The keys of a call all become keys of one type, for each type."""
        seen = set()
        for number, example in enumerate(examples):
            pools_of_keys = {word.pool for word in example.commands[0]} & set(pools.KEYS)
            if not pools_of_keys - {"missing"}:
                continue
            for key in pools.TYPES.values():
                call = self._filled(example, key)[0]
                if call not in seen:
                    seen.add(call)
                    self._append(spec, protocol, "type", len(seen), [call])

    def _add_counts(self, spec, protocol, examples):
        """In a transaction also behind a key, which in a cluster ties it to a node."""
        at = spec.count_place
        key = templates.tagged(b"str", self.tag)
        for number, example in enumerate(examples[:2]):
            call = self._filled(example)[0]
            calls = [call[:at] + (count,) + call[at + 1 :] for count in COUNTS]
            self._append(spec, protocol, "count", number, calls)
            for place, each in enumerate(calls):
                commands = [(b"MULTI",), each, (b"EXEC",), (b"MULTI",), (b"GET", key), each]
                self._append(spec, protocol, "multi count", number * len(COUNTS) + place,
                             commands + [(b"EXEC",)])

    def _append(self, spec, protocol, kind, number, commands):
        if (spec.name, kind) in OMITTED or not commands:
            return
        base = spec.name.split("|")[0]
        may_block = base.startswith("b") or base in BLOCKING or kind.startswith("multi ")
        words = {args[0].decode(errors="replace").lower() for args in commands}
        self.sequences.append(
            Sequence(
                f"{kind}/resp{protocol}/{spec.name}/{number}",
                ([(b"HELLO", b"3")] if protocol == 3 else []) + commands,
                is_thorough=bool(words & THOROUGH),
                may_block=may_block,
                lockstep=protocol - 2,
                covers=(spec.name, protocol, kind),
                tags=(self.tag,),
            )
        )
