"""What a hit costs a Python process: nearkey.Redis.get beside redis-py's own over the same socket.
A line of JSON: processor time of the calling thread, in nanoseconds a call, by contender. Of
scripts/bench --paths shared-python: shared_python.py SOCKET READS.
"""
import json
import sys
import time

import nearkey
import redis

KEYS = 1000
SOCKET_READS = 4000


def ns_of(get, names, reads):
    rounds = reads // len(names)
    begin = time.thread_time_ns()
    for _ in range(rounds):
        for name in names:
            get(name)
    return (time.thread_time_ns() - begin) / (rounds * len(names))


def main():
    path, reads = sys.argv[1], int(sys.argv[2])
    names = [f"user:{number:012}" for number in range(KEYS)]
    ours, theirs = nearkey.Redis(path), redis.Redis(unix_socket_path=path)
    for _ in range(3):
        values = [ours.get(name) for name in names]
    if ours.shared_memory_info().why_off is not None:
        sys.exit(f"no shared memory: {ours.shared_memory_info().why_off}")
    assert values == [theirs.get(name) for name in names]
    before = ours.shared_memory_info()
    found = {"nearkey": ns_of(ours.get, names, reads)}
    after = ours.shared_memory_info()
    found["hits_share"] = (after.hits - before.hits) / reads
    found["socket"] = ns_of(theirs.get, names, SOCKET_READS)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
