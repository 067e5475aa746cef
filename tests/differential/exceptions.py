"""What is not compared, each with its reason. There is no other list: what is not here and not in
masks.py must be the same, byte by byte."""

from collections import namedtuple

Omission = namedtuple("Omission", "command kind reason")

# Kinds of calls that can't be compared: see systematic.py.
OMISSIONS = [
    Omission("sync", "good", "the answer is all data of the server, and never ends"),
    Omission("psync", "good", "the answer is all data of the server, and never ends"),
    Omission(
        "client|reply",
        "multi",
        "silenced inside MULTI, the server leaves EXEC's array without elements, which no client "
        "can read",
    ),
]

# Inside MULTI; and in the random part, where that may be.
INTERRUPTING = "DEBUG PROTOCOL push"

# Calls that are left out of the tables or of the random part.
LEFT_OUT = [
    Omission(
        "debug",
        "PROTOCOL push inside MULTI",
        "Redis 7.0 then puts the push into the middle of EXEC's array, which nearkey takes for an "
        "element of it",
    ),
    Omission(
        "auth",
        "a failing one while other replies are pending, inside MULTI too; HELLO AUTH as well",
        "Valkey 8.0 then swallows the error, and all later replies move up by one",
    ),
    Omission(
        "function|list",
        "an unknown argument with a newline in it",
        "Valkey 8.0 repeats it as it is in its error, which then is no longer one reply",
    ),
    Omission(
        "client|reply",
        "an empty request behind SKIP",
        "to the server an empty request (`*0`) is the command that SKIP silences; nearkey drops it",
    ),
]

KINDS = {"good": "good arguments", "multi": "inside MULTI"}
OMITTED = {(row.command, row.kind) for row in OMISSIONS}


def markdown_table(masks):
    """For docs/compatibility.md."""
    lines = ["| command | what differs | why |", "| --- | --- | --- |"]
    for row in OMISSIONS:
        lines.append(f"| {shown(row.command)} | {KINDS[row.kind]}: not compared | {row.reason} |")
    for row in LEFT_OUT:
        lines.append(f"| {shown(row.command)} | {row.kind}: not compared | {row.reason} |")
    for row in masks:
        lines.append(f"| {shown(row.command)} | {row.field} | {row.reason} |")
    return "\n".join(lines)


def shown(command):
    return command.replace("|", " ").upper()
