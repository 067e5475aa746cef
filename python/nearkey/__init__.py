"""redis-py whose repeated reads cost nanoseconds: hits of nearkey's near cache, read from memory
that nearkey shares, without a system call.

    import nearkey
    r = nearkey.Redis("/run/nearkey/nearkey.sock")
    r.get("user:7")

The clients are redis-py's own, with the same promises as over the socket; what the shared memory
does not hold goes over the socket. docs/python.md says when that is.
"""

from nearkey import asyncio
from nearkey._client import Pipeline, Redis
from nearkey._shared import SharedMemoryInfo

__all__ = ["Pipeline", "Redis", "SharedMemoryInfo", "asyncio"]
