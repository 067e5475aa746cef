"""Commands in which the argument that may be large stands first, in the middle and last."""

from sequences import Blob, Command

KIB = 1024
SIZES = (0, 1, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 8192 * KIB)
SIZE_WEIGHTS = (6, 6, 20, 20, 20, 16, 9, 3)

# {v}: an argument that may be large; {k} and {j}: keys; {n}: a number; {f}: a small value. A key
# that may be large is {K}. What stands here has an answer that depends on nothing but what the same
# client did before.
STRINGS = """
SET {k} {v}
SET {k} {v} EX 100
SET {k} {v} NX PX 100000
SET {k} {v} XX KEEPTTL GET
SET {K} {f} EX 100
SET {K} {v}
SETEX {k} 100 {v}
PSETEX {k} 100000 {v}
GETSET {k} {v}
SETNX {k} {v}
APPEND {k} {v}
SETRANGE {k} {n} {v}
MSET {k} {v} {j} {f}
MSET {j} {f} {k} {v} {k} {f}
MSET {k} {v} {j} {v}
MSETNX {k} {v} {j} {f}
MSET {K} {f} {j} {v}
GET {k}
GET {k}
GET {K}
MGET {k} {K} {j}
MGET {K} {k}
STRLEN {k}
GETRANGE {k} 0 {n}
GETEX {k} EX 100
GETDEL {k}
DEL {k} {K} {j}
EXISTS {K} {k}
COPY {k} {j} REPLACE
TYPE {k}
INCR {k}:n
"""
# HGETALL reads one field: before a cluster another server than that beside it has the hash, and
# each has its tables in an order of its own.
COLLECTIONS = """
HSET {k}:h f {v} g {f}
HSET {k}:h {v} {f} g 1
HSET {k}:h a {f} {v} {v}
HMSET {k}:h f {v} g {v} h {f}
HSETNX {k}:h f {v}
HGET {k}:h f
HGET {k}:h {v}
HMGET {k}:h f {v} g
HSET {k}:one f {v}
HGETALL {k}:one
HDEL {k}:h f {v} g
HEXISTS {k}:h {v}
RPUSH {k}:l a {v} b
RPUSH {k}:l {v}
LPUSH {k}:l {v} {f}
LRANGE {k}:l 0 {n}
LINDEX {k}:l 0
LSET {k}:l 0 {v}
LINSERT {k}:l BEFORE {v} {f}
LREM {k}:l 0 {v}
LPOS {k}:l {v} RANK 1
LPOP {k}:l
SADD {k}:s {v} a
SADD {k}:s a {v} b
SISMEMBER {k}:s {v}
SMISMEMBER {k}:s a {v} b
SREM {k}:s {v} a
SCARD {k}:s
ZADD {k}:z 1 {v} 2 b
ZADD {k}:z GT CH 3 a 4 {v}
ZSCORE {k}:z {v}
ZRANGE {k}:z 0 -1 WITHSCORES
ZREM {k}:z {v} b
PFADD {k}:p {v} a
GETBIT {k} {n}
"""
OTHERS = """
ECHO {v}
PING {v}
PING
ECHO {f}
DBSIZES {v} a
GET {k} {v} a
SET {k} {v} EX notanumber
SET {k} {v} NOSUCHOPTION {v}
HSET {k} f {v} g
PUBLISH {k} {v}
PUBLISH {v} {f}
EVAL return(ARGV[1]) 1 {k} {v} {f}
EVAL return(#ARGV[1]) 0 {v} {f}
EVAL return(redis.call('set',KEYS[1],ARGV[1])) 1 {k} {v}
EVAL return(redis.call('get',KEYS[1])) 1 {k}
EVAL_RO return(redis.call('get',KEYS[1])) 1 {k}
BLPOP {K} {k}:none 0.01
BLPOP {k}:none {K} 0.01
OBJECT ENCODING {K}
SORT {k}:l ALPHA LIMIT 0 1
LCS {k} {j} LEN
"""
TEMPLATES = [
    [line.split() for line in lines.strip().splitlines()]
    for lines in (STRINGS, COLLECTIONS, OTHERS)
]
TEMPLATE_WEIGHTS = (5, 4, 2)


class Maker:
    """Makes the commands of one client, within a budget of bytes."""

    def __init__(self, chance, prefix, budget, tag=b""):
        """tag: a hash tag of its keys, so that they are of one slot; large ones have none."""
        self.chance = chance
        self.is_bound = False  # All keys must be of that slot.
        self.tag = tag
        self.keys = [b"%s%d%s" % (prefix, i, tag) for i in range(4)]
        self.blobs = []
        self.budget = budget

    def blob(self):
        """A new argument, or one of before, so that large keys and fields are found again."""
        fitting = [blob for blob in self.blobs if blob.size <= self.budget]
        if fitting and self.chance.random() < 0.4:
            blob = self.chance.choice(fitting)
        else:
            size = self.chance.choices(SIZES, SIZE_WEIGHTS)[0]
            near = (0, 0, 0, -1, 1, -2, 2, self.chance.randint(-40, 40))
            size = max(0, size + self.chance.choice(near))
            if size > self.budget:
                size = self.chance.choice((0, 1, 7))
            blob = Blob(self.chance.randrange(1 << 30), size)
            self.blobs.append(blob)
        self.budget -= blob.size
        return blob

    def large_key(self):
        """No other client has it: if it is not large, it carries the client's prefix."""
        if self.is_bound:
            return self.chance.choice(self.keys) + b":K"
        blob = self.blob()
        return blob if blob.size > 64 else self.chance.choice(self.keys) + b":K"

    def word(self, word):
        chance = self.chance
        if word == "{v}":
            return self.blob()
        if word == "{K}":
            return self.large_key()
        key = chance.choice(self.keys)
        word = word.replace("{n}", str(chance.choice((0, 1, 10, 5000, 70000))))
        word = word.replace("{f}", chance.choice(("v", "17", "", "a:b")))
        return word.encode().replace(b"{k}", key).replace(b"{j}", chance.choice(self.keys))

    def command(self):
        words = self.chance.choice(self.chance.choices(TEMPLATES, TEMPLATE_WEIGHTS)[0])
        was_bound = self.is_bound
        self.is_bound |= bool(self.tag) and words[0] == "BLPOP"
        args = tuple(self.word(word) for word in words)
        self.is_bound = was_bound
        # Escaped, a byte can take four, and a line of more than 64 KiB is none.
        is_short = all(not isinstance(arg, Blob) or arg.size < 5000 for arg in args)
        return Command(args, inline=is_short and self.chance.random() < 0.12)
