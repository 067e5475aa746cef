"""What cases of the clients can not do before a Valkey Cluster, and why: run.py --cluster expects
them to fail, and fails itself where one passes, so that this list only shrinks.
"""

import re

# Those whose case `reconnect` is run: a cluster takes seconds to serve again.
RECONNECTED = ("redis-py-asyncio", "hiredis")

# A regex for CLIENT/CASE, and why. The first that matches counts. Those that know clusters are not
# meant: all that they do must work.
REASONS = [
    (r"[\w-]+-cluster/.*", ""),
    (r"valkey-cli/connect", ""),
    (r"[\w-]+/connect", "CLIENT ID needs a connection to one server, and a cluster has one database"),
    (r"valkey-cli/databases", "a cluster has one database"),
    (r"(redis-py(-asyncio)?|glide)/transaction", "the keys of the transaction are of several slots"),
    (r"hiredis/watch", "the keys that it watches are of several slots"),
    (r"redigo/TestScript", "its script has keys of several slots"),
    (r"redigo/ExampleScan(Slice)?", "it sorts by keys of other slots"),
    (r"glide/client-cache", "CLIENT TRACKING needs a connection to one server"),
]

# The same, of cases that are not run: they would wait until they are given up, or end the program.
NOT_RUN = [
    (r"[\w-]+-cluster/.*", ""),
    (r"[\w-]+/(blocking-pop|streams)",
     "it waits for blocked_clients in INFO, which tells of one node"),
    (r"node-redis-resp3/client-cache", "CLIENT TRACKING needs a connection to one server"),
    (r"valkey-cli/interactive", "a cluster has one database"),
    (r"[\w-]+/reconnect", "a cluster takes seconds to serve again; other clients do it"),
]


def reason(client, case):
    """Why the case fails before a cluster; "" where it must pass."""
    return find(REASONS, client, case)


def reason_not_to_run(client, case):
    """Why the case is not run; "" where it is."""
    if case == "reconnect" and client in RECONNECTED:
        return ""
    return find(NOT_RUN, client, case)


def find(rows, client, case):
    name = f"{client}/{case}"
    return next((why for pattern, why in rows if re.fullmatch(pattern, name)), "")
