"""Sends tasks to the worker, and waits for their results."""

import time

from celery import group

from tasks import add


def result_of(sent):
    """get() waits with UNSUBSCRIBE, which Valkey 8.0 refuses the second time; see README.md."""
    while not sent.ready():
        time.sleep(0.05)
    return sent.get(timeout=1)


print("a task:", add.delay(2, 3).get(timeout=30))
print("a chain:", result_of((add.s(1, 2) | add.s(10)).delay()))
print("a group:", result_of(group(add.s(n, n) for n in range(4)).delay()))
