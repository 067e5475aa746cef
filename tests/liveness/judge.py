"""Holds what came through nearkey against what came directly: the same bytes, and each reply within
a second of Valkey's."""

from collections import namedtuple

from resp import mask_ids
from stage import LATE_SECONDS
from world import FENCE_REPLY

# kind: "hang", "late", "difference", "state" or "crash".
Finding = namedtuple("Finding", "kind text")

SHOWN_BYTES = 60


class GeneratorError(Exception):
    """Valkey itself did not answer as the sequence expects: the fault is in the test."""


def judge(sequence, direct, through):
    """What is wrong, the gravest first; None if nothing is."""
    for number, outcome in enumerate(direct.outcomes):
        if outcome.ended in ("silence", "garbage"):
            raise GeneratorError(f"client {number} directly: {outcome.ended}, {outcome.where()}")
    findings = []
    for number, client in enumerate(sequence.clients):
        pair = direct.outcomes[number], through.outcomes[number]
        findings += [
            Finding(kind, f"client {number}: {text}") for kind, text in _of_client(client, *pair)
        ]
    has_digests = direct.digest and through.digest
    if not findings and has_digests and direct.digest != through.digest:
        findings.append(Finding("state", "the keys and values at the end are not Valkey's"))
    order = ("hang", "difference", "late", "state")
    return min(findings, key=lambda finding: order.index(finding.kind), default=None)


def _of_client(client, direct, through):
    expected, actual = bytes(direct.data), bytes(through.data)
    is_masked = any(command.args[0].upper() == b"HELLO" for command in client.commands)
    if client.ending == "leave":
        shorter, longer = sorted((expected, actual), key=len)
        if not is_masked and not longer.startswith(shorter):
            yield "difference", _first_difference(client, direct, through, expected, actual)
        return
    if is_masked:
        expected, actual = mask_ids(expected), mask_ids(actual)
    if client.ending == "half-close" and through.ended == "closed":
        expected = expected.removesuffix(FENCE_REPLY)
    if through.ended == "silence":
        yield "hang", f"silence after {through.where()} (directly {direct.where()})"
        expected = expected[: len(actual)]
    elif through.ended != direct.ended and client.ending != "half-close":
        yield "difference", (
            f"it ends with {through.ended!r}, directly with {direct.ended!r}; {through.where()}"
        )
    if expected != actual:
        yield "difference", _first_difference(client, direct, through, expected, actual)
    else:
        yield from _late(direct, through)


def _late(direct, through):
    """A loaded machine, which makes the server itself slow, is given as much time again."""
    for at, (before, after) in enumerate(zip(direct.times, through.times)):
        if after - before > LATE_SECONDS + before:
            yield "late", f"reply {at} came {after:.2f} s after the start, Valkey's {before:.2f} s"
            return


def _first_difference(client, direct, through, expected, actual):
    size = min(len(expected), len(actual))
    low, high = 0, size  # expected[:low] == actual[:low]
    while low < high:
        middle = (low + high + 1) // 2
        if expected[low:middle] == actual[low:middle]:
            low = middle
        else:
            high = middle - 1
    part = slice(max(low - SHOWN_BYTES, 0), low + SHOWN_BYTES)
    reply = sum(1 for end in through.ends if end <= low)
    return (
        f"from byte {low} (reply {reply}) on; {through.ended}, {through.where()}\n"
        f"    valkey  ({len(expected)} bytes) {expected[part]!r}\n"
        f"    nearkey ({len(actual)} bytes) {actual[part]!r}"
    )
