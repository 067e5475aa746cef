"""Every way in which a reader, the daemon and time can interleave around one entry of a segment.

    tests/model/segment.py [--verbose]

A program is a list of steps: loads and stores of one word, a look at the clock, something that
somebody is told. Under `sc` a program's steps happen in its order. Under `aarch64` each happens as
soon as all do that must precede it there: an acquiring load precedes what follows, a releasing store
follows what precedes; a fence orders loads before it (acquire) or all before it and stores behind it
(release); accesses of the same word keep their order, an address comes before what is read there.
All else is free: branches order nothing, what is read too early is judged all the same. This is what
the architecture may do, being other-multi-copy-atomic: a store is seen by all others at once.

For the order that is used no state may break a promise; for each order that is broken one must be
found. A line for each case is `model/NAME: N states, WHAT: ok|FAIL`.
"""
import argparse
import sys
from collections import namedtuple

BOUND = 2  # max_staleness, in ticks of the clock
LAST_TICK = 5

# kind: load, store, fence, other. order: "", acquire, release. word: what is accessed. after: names
# of steps that its address or (for the clock, with an ISB behind the branch) its branch depends on.
Step = namedtuple("Step", "name kind run order word after", defaults=("", "", ()))


def load(word, order="", name=None, after=()):
    name = name or word

    def run(state):
        state["r_" + name] = state[word]
    return Step(name, "load", run, order, word, after)


def store(word, value, order="", name=None):
    def run(state):
        state[word] = value
    return Step(name or f"{word}={value}", "store", run, order, word)


def fence(order):
    return Step(f"{order} fence", "fence", None, order)


def change_truth(state):
    state["changed"] = state["now"]


def ask_for_proof(state):
    state["asked"] = state["now"]


def renew_lease(state):
    state["lease"] = state["asked"]


def read_clock(state):
    state["r_clock"] = state["now"]


# --- What the daemon does. Value 0 is stored; the server's value becomes 1.

# A system call that sends it: all stores precede it, and what follows is behind it.
SERVER_WRITES = Step("server writes", "store", change_truth, "release", "truth")
REPLY = store("answered", 1, "release", "reply")
ASK = Step("ask for proof", "store", ask_for_proof, "release", "asked")
RENEW = Step("renew lease", "store", renew_lease, "release", "lease")


def change_bucket(version, *entry, fenced=True, even_order="release"):
    """From `version` to the next even one."""
    return [store("version", version + 1), *([fence("release")] if fenced else []), *entry,
            store("version", version + 2, even_order)]


VOID = change_bucket(0, store("entry", -1))
REFILL = [store("low", 1), store("high", 1), *change_bucket(2, store("entry", 0))]
OWN_WRITE = [*VOID, SERVER_WRITES, REPLY, *REFILL]
ELSEWHERE = [SERVER_WRITES, ASK, *VOID, RENEW]

# --- What the reader does.

BEGIN = load("answered", "acquire", "begin")
OWNER = load("owner", "acquire")
FIRST_VERSION = load("version", "acquire", "first version")
ENTRY = load("entry")
COPY = [load("low", after=("entry",)), load("high", after=("entry",))]
LEASE = load("lease", "acquire")
EPOCH = load("epoch", "acquire")
VALIDATE = [fence("acquire"), load("version", "", "second version")]
CLOCK = Step("clock", "other", read_clock, after=("second version",))
READER = [BEGIN, OWNER, FIRST_VERSION, ENTRY, *COPY, LEASE, EPOCH, *VALIDATE, CLOCK]

START = {"version": 0, "entry": 0, "low": 0, "high": 0, "lease": 0, "epoch": 1, "owner": 1,
         "answered": 0, "asked": 0, "changed": -1, "now": 0, "last_look": 0}


def replaced(steps, old, *new):
    at = steps.index(old)
    return [*steps[:at], *new, *steps[at + 1:]]


def without(steps, *names):
    return [step for step in steps if step.name not in names]


def relaxed(step):
    return step._replace(order="")


Case = namedtuple("Case", "name daemon reader is_broken", defaults=(READER, False))

NOT_VALIDATED = without(READER, "acquire fence", "second version")
CASES = [
    Case("own write", OWN_WRITE),
    Case("write from elsewhere, then the lease", ELSEWHERE),
    Case("write from elsewhere, behind the question for a proof",
         [ASK, SERVER_WRITES, RENEW]),
    Case("lost news: the lease alone", [SERVER_WRITES]),
    Case("source closed before others are shown more",
         [store("lease", -BOUND, "release"), SERVER_WRITES, REPLY]),
    Case("suspended before others are shown more",
         [store("epoch", 0, "release"), SERVER_WRITES, REPLY, *VOID, *REFILL]),
    Case("another epoch, the bucket later",
         [store("epoch", 2, "release"), SERVER_WRITES, REPLY, *VOID, *REFILL]),
    Case("daemon dies: the tombstone precedes the end of its socket",
         [store("owner", 0, "release"), SERVER_WRITES, REPLY]),
    Case("lease read first", ELSEWHERE,
         [BEGIN, OWNER, LEASE, FIRST_VERSION, ENTRY, *COPY, EPOCH, *VALIDATE, CLOCK]),
    Case("lease loaded relaxed: the fence orders it", ELSEWHERE,
         replaced(READER, LEASE, relaxed(LEASE))),
    Case("lease stored relaxed: the fence of the void orders it",
         [SERVER_WRITES, ASK, *VOID, relaxed(RENEW)]),
    Case("even version of a refill stored relaxed: its fence is behind the item",
         [*VOID, SERVER_WRITES, REPLY, *REFILL[:2],
          *change_bucket(2, store("entry", 0), even_order="")]),

    Case("reply before void", [SERVER_WRITES, REPLY, *VOID, *REFILL], is_broken=True),
    Case("memory reused before void",
         [SERVER_WRITES, *REFILL[:2], *VOID, REPLY], is_broken=True),
    Case("no version", [store("entry", -1), SERVER_WRITES, REPLY, *REFILL[:2], store("entry", 0)],
         is_broken=True),
    Case("no validation", OWN_WRITE,
         replaced(NOT_VALIDATED, CLOCK, CLOCK._replace(after=("high", "lease"))), True),
    Case("clock first", [SERVER_WRITES],
         [BEGIN, OWNER, CLOCK._replace(after=("owner",), order="acquire"),
          *without(READER, "begin", "owner", "clock")], True),
    Case("lease behind the validation", ELSEWHERE,
         [*without(READER, "lease", "clock"), LEASE, CLOCK._replace(after=("lease",))], True),
    Case("lease renewed before the news is applied", [SERVER_WRITES, ASK, RENEW, *VOID],
         is_broken=True),
    Case("source not closed", [SERVER_WRITES, REPLY], is_broken=True),
    Case("daemon dies, no tombstone", [store("owner", 0, "release"), SERVER_WRITES, REPLY],
         without(READER, "owner"), True),
    Case("suspended, epoch not looked at",
         [store("epoch", 0, "release"), SERVER_WRITES, REPLY], without(READER, "epoch"), True),
]
# What only a processor that does not keep the order can break.
WEAK_CASES = [
    Case("no release fence behind the odd version",
         [*change_bucket(0, store("entry", -1), fenced=False), SERVER_WRITES, REPLY,
          store("low", 1), store("high", 1),
          *change_bucket(2, store("entry", 0), fenced=False)], is_broken=True),
    Case("even version of a void stored relaxed",
         [*change_bucket(0, store("entry", -1), even_order=""), SERVER_WRITES, REPLY, *REFILL],
         is_broken=True),
    Case("suspended, then memory reused without void",
         [store("epoch", 0, "release"), SERVER_WRITES, REPLY, *REFILL], is_broken=True),
    Case("lease stored relaxed, void without a fence",
         [SERVER_WRITES, ASK, *change_bucket(0, store("entry", -1), fenced=False), relaxed(RENEW)],
         is_broken=True),
    Case("no acquire fence before the second version", OWN_WRITE,
         without(READER, "acquire fence"), True),
    Case("first version loaded relaxed", OWN_WRITE,
         replaced(READER, FIRST_VERSION, relaxed(FIRST_VERSION)), True),
    Case("clock not behind a branch", [SERVER_WRITES],
         replaced(READER, CLOCK, CLOCK._replace(after=())), True),
]


def predecessors(program, memory):
    """For each step the set of those that must have happened before it, as bits."""
    needed = []
    for at, step in enumerate(program):
        bits = 0
        for before, other in enumerate(program[:at]):
            if step.kind == "fence" or other.kind == "fence":
                continue
            fences = [fence.order for fence in program[before:at] if fence.kind == "fence"]
            is_ordered = (
                memory == "sc" or other.order == "acquire" or step.order == "release"
                or (other.word and other.word == step.word) or other.name in step.after
                or ("acquire" in fences and other.kind == "load" and step.kind in ("load", "store"))
                or ("release" in fences and step.kind == "store"))
            if is_ordered:
                bits |= 1 << before
        needed.append(bits)
    return needed


def judge(state):
    """What is wrong with the reader's hit; empty: nothing, or it is none."""
    get = state.get
    first = get("r_first version")
    is_hit = (first % 2 == 0 and get("r_second version", first) == first and state["r_entry"] >= 0
              and get("r_owner", 1) == 1 and get("r_epoch", 1) == 1
              and state["r_clock"] - state["r_lease"] < BOUND)
    if not is_hit:
        return ""
    low, high = state["r_low"], state["r_high"]
    if low != high:
        return f"TORN {low}/{high}"
    if low < state["r_begin"]:
        return "UNREAD: answered before the read began"
    if low == 0 and state["changed"] >= 0 and state["last_look"] - state["changed"] >= BOUND:
        return f"STALE: changed at {state['changed']}, served at {state['last_look']}"
    return ""


def explore(daemon, reader, memory):
    """The number of states, and what is wrong in one of them with the steps that led there."""
    programs = (daemon, reader)
    needed = tuple(predecessors(program, memory) for program in programs)
    fences = tuple(sum(1 << at for at, step in enumerate(program) if step.kind == "fence")
                   for program in programs)
    everything = (1 << len(reader)) - 1
    names = sorted(set(START) | {"r_" + step.name for step in reader})
    seen = set()
    todo = [(fences, tuple(START.get(name, 0) for name in names), ())]
    while todo:
        done, values, trace = todo.pop()
        if (done, values) in seen:
            continue
        seen.add((done, values))
        if done[1] == everything:
            why = judge(dict(zip(names, values)))
            if why:
                return len(seen), why, trace
            continue
        for who, program in enumerate(programs):
            for at, step in enumerate(program):
                if done[who] >> at & 1 or needed[who][at] & ~done[who]:
                    continue
                state = dict(zip(names, values))
                step.run(state)
                if who == 1:
                    state["last_look"] = state["now"]
                after = list(done)
                after[who] |= 1 << at
                todo.append((tuple(after), tuple(state[name] for name in names),
                             (trace, (who, step.name))))
        state = dict(zip(names, values))
        if state["now"] < LAST_TICK:
            state["now"] += 1
            todo.append((done, tuple(state[name] for name in names), (trace, (2, "tick"))))
    return len(seen), "", ()


def told(trace):
    steps = []
    while trace:
        trace, (who, name) = trace
        steps.append(f"{('daemon', 'reader', 'time')[who]}: {name}")
    return steps[::-1]


def main():
    parser = argparse.ArgumentParser(description="Models a segment's daemon and reader.")
    parser.add_argument("--verbose", action="store_true", help="the steps that led to what is found")
    options = parser.parse_args()
    is_well = True
    runs = [("sc", case) for case in CASES] + [("aarch64", case) for case in CASES + WEAK_CASES]
    for memory, case in runs:
        states, why, trace = explore(tuple(case.daemon), tuple(case.reader), memory)
        is_right = bool(why) == case.is_broken
        is_well &= is_right
        print(f"model/{memory}: {case.name}: {states} states, {why or 'no violation'}:"
              f" {'ok' if is_right else 'FAIL'}", flush=True)
        if why and (options.verbose or not case.is_broken):
            print("    " + "\n    ".join(told(trace)))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
