"""The data set that every sequence starts with, and the values that the words in braces of a
template stand for: keys by type, values, numbers, scripts.

The first entry of a pool is what the systematic part takes; the random part takes any.
"""

import hashlib

FAR = 4102444800  # The year 2100: nothing expires while a sequence runs.
LONG = b"long" * 25  # Too long for a listpack, so the hash that holds it is a real one.

SCRIPT = b"return redis.call('GET', KEYS[1])"
LIBRARY = b"""#!lua name=testlib
redis.register_function{function_name='echo', flags={'no-writes'},
    callback=function(keys, args) return {#keys, args} end}
redis.register_function('write', function(keys, args)
    return redis.call('SET', keys[1], args[1]) end)
redis.register_function('endless', function() while true do end end)
"""

DATA = [
    ("SET", "str", "value"),
    ("SET", "str2", "another value"),
    ("SET", "int", "10"),
    ("SET", "int2", "-7"),
    ("SET", "float", "1.5"),
    ("SET", b"bin\r\n\x00\xff", b"\x00\r\n$5\r\n\xff+OK\r\n"),
    ("SET", "bits", b"\xf0\x0f\xaa"),
    ("SET", "bits2", b"\x01\x02"),
    ("SET", "expiring", "v", "EXAT", str(FAR)),
    ("SET", "weight_a", "3"),
    ("SET", "weight_b", "1"),
    ("SET", "weight_c", "2"),
    ("HSET", "hash", "f", "v", "n", "1", "x", "2.5"),
    ("HSET", "hash2", "f", LONG, "g", "w", "n", "5", "x", "0.5", "1", "one"),
    ("RPUSH", "list", "a", "b", "c", "1", "2", "a"),
    ("RPUSH", "list2", "x", LONG),
    ("RPUSH", "nums", "3", "1", "2"),
    ("SADD", "set", "a", "b", "c"),
    ("SADD", "set2", "b", "c", "d", LONG),
    ("SADD", "iset", "1", "2", "3"),
    ("ZADD", "zset", "1", "a", "2", "b", "3", "c"),
    ("ZADD", "zset2", "1", "b", "2.5", "d", "inf", LONG, "-0.1", "a"),
    ("ZADD", "lex", "0", "a", "0", "b", "0", "c", "0", "d"),
    ("XADD", "stream", "1-1", "f", "v"),
    ("XADD", "stream", "2-1", "f", "w", "g", "x"),
    ("XGROUP", "CREATE", "stream", "grp", "0"),
    ("XCLAIM", "stream", "grp", "con", "0", "1-1", "2-1", "TIME", "1700000000000", "FORCE"),
    ("XGROUP", "SETID", "stream", "grp", "2-1"),
    ("XADD", "stream", "3-1", "f", "z"),
    ("XADD", "stream2", "5-5", "a", "b"),
    ("XGROUP", "CREATE", "stream2", "grp", "$"),
    ("GEOADD", "geo", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania"),
    ("PFADD", "hll", "a", "b", "c"),
    ("PFADD", "hll2", "c", "d"),
]

# What a sequence may have changed on the server besides the data; done only after those that may.
SERVER_STATE = [
    ("SCRIPT", "FLUSH", "SYNC"),
    ("SCRIPT", "LOAD", SCRIPT),
    ("FUNCTION", "FLUSH", "SYNC"),
    ("FUNCTION", "LOAD", LIBRARY),
    ("ACL", "DELUSER", "bob", "eve", "carol"),
    ("ACL", "SETUSER", "bob", "reset", "on", ">secret", "~*", "&*", "+@all"),
    ("ACL", "SETUSER", "eve", "reset", "on", ">pw", "~str*", "+get", "+set", "+acl|whoami"),
    ("CONFIG", "SET", "maxmemory-samples", "5", "hz", "100", "notify-keyspace-events", ""),
    ("CONFIG", "SET", "busy-reply-threshold", "5000"),
    ("CONFIG", "RESETSTAT"),
    ("CLIENT", "UNPAUSE"),
    ("SLOWLOG", "RESET"),
    ("LATENCY", "RESET"),
    ("ACL", "LOG", "RESET"),
]

# What runs by the clock would differ from run to run.
SERVER_OPTIONS = (
    ["--activerehashing", "no", "--slowlog-log-slower-than", "-1"]
    + ["--latency-monitor-threshold", "0", "--hz", "100", "--maxmemory-samples", "5"]
)

# By the clock, keys expire, and tables grow and with them the order of KEYS and SCAN changes.
# Redis 7.0 can't keep tables as they are.
DEBUG_SWITCHES = ("SET-ACTIVE-EXPIRE", "DICT-RESIZING")

# Behind the names of keys before a cluster. Their slots are of three nodes: 15495, 3300 and 7365.
TAGS = (b"{a}", b"{b}", b"{c}")

STRINGS = [b"str", b"str2", b"int", b"float", b"bin\r\n\x00\xff", b"bits", b"expiring", b"new1"]
# Keys of one type, for calls with the wrong one.
TYPES = {
    "string": b"str",
    "list": b"list",
    "set": b"set",
    "zset": b"zset",
    "hash": b"hash",
    "stream": b"stream",
}
KEYS = {
    "str": STRINGS,
    "int": [b"int", b"int2", b"weight_a", b"new2"],
    "float": [b"float", b"int", b"new3"],
    "bits": [b"bits", b"bits2", b"str", b"new1"],
    "hash": [b"hash", b"hash2", b"new4"],
    "list": [b"list", b"list2", b"nums", b"new5"],
    "nums": [b"nums", b"iset", b"list"],
    "set": [b"set", b"set2", b"iset", b"new6"],
    "zset": [b"zset", b"zset2", b"geo", b"new7"],
    "lex": [b"lex", b"missing"],
    "stream": [b"stream", b"stream2", b"new8"],
    "geo": [b"geo", b"zset", b"new9"],
    "hll": [b"hll", b"hll2", b"str"],
    "key": [b"str", b"hash", b"list", b"set", b"zset", b"stream", b"geo", b"hll", b"nums"]
    + [b"iset", b"expiring", b"stream2", b"missing", b"new1", b"new4", b"", b"a key"],
    "new": [b"new1", b"new2"] + [b"new%d" % i for i in range(3, 10)],
    "drained": [b"stream2"],  # Its group has read all of it.
    "vec": [b"vectors", b"new1"],
    "missing": [b"missing", b"missing2"],
    # Keys whose time to live hangs on the clock; no other command reads it.
    "rel": [b"relative", b"relative2"],
}

LUA = [
    SCRIPT,
    b"return {1, 'two', {3, 4.9, {}}, false, true, redis.status_reply('fine')}",
    b"return redis.error_reply('MY own words')",
    b"return redis.status_reply('fine')",
    b"redis.setresp(3) return redis.call('HGETALL', 'hash')",
    b"return redis.call('HGETALL', 'hash')",
    b"return redis.call('ZRANGE', 'zset', 0, -1, 'WITHSCORES')",
    b"redis.setresp(3) return redis.call('ZRANGE', 'zset', 0, -1, 'WITHSCORES')",
    b"return {double=3.25}",
    b"return {map={key='value'}}",
    b"return {set={member=true}}",
    b"return {big_number='1234567890123456789012345678901234567890'}",
    b"return {verbatim_string={string='some text', format='txt'}}",
    b"redis.setresp(3) return {true, false, redis.call('GET', 'missing')}",
    b"return tonumber(ARGV[1])",
    b"return ARGV",
    b"return nil",
    b"return ''",
    b"return cjson.encode({1, 2, 'x'})",
    b"return redis.pcall('NOSUCH')",
    b"return redis.call('LPUSH', 'str', 1)",
    b"error('thrown')",
    b"this is no Lua",
    b"return redis.call('SUBSCRIBE', 'c')",
    b"return {{{{{{{{{{1}}}}}}}}}}",
]
VALUES = [
    b"v",
    b"",
    b"0",
    b"1",
    b"-1",
    b"1.5",
    b"value",
    b"\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"a b'c\"d\\",
    b"\x00\x01\xff",
    "grün ⚡".encode(),
    b"x" * 1000,
    LONG,
    b"9223372036854775807",
]

POOLS = {
    "value": VALUES,
    "field": [b"f", b"n", b"x", b"g", b"1", b""],
    "member": [b"a", b"b", b"c", b"d", b"1", b"Palermo", b"Catania", LONG],
    "index": [b"0", b"1", b"2", b"-1", b"-2", b"5", b"100", b"-100"],
    "number": [b"5", b"1", b"-3", b"0", b"100", b"9223372036854775807", b"x"],
    "count": [b"2", b"1", b"0", b"10", b"3", b"-1"],
    "offset": [b"7", b"0", b"1", b"16", b"100", b"33"],
    "double": [b"0.5", b"1", b"-2.25", b"3e2", b"10.5", b"nan"],
    "score": [b"1", b"2.5", b"-1", b"0", b"inf", b"1e10", b"0.1", b"x"],
    "low": [b"-inf", b"1", b"(1", b"0", b"2"],
    "high": [b"+inf", b"3", b"(3", b"2", b"1"],
    "lex_low": [b"-", b"[a", b"(a", b"[b"],
    "lex_high": [b"+", b"[c", b"(c", b"[b"],
    "new_id": [],  # Chosen by the fillers.
    "id": [b"1-1", b"2-1", b"3-1", b"0", b"5-5", b"2", b"400-0", b"x"],
    "ttl": [b"1000", b"100000"],
    "ttl_ms": [b"1000000", b"5000000"],
    "at": [b"%d" % (FAR + i * 1000) for i in range(3)],
    "at_ms": [b"%d500" % (FAR + i * 1000) for i in range(3)],
    "db": [b"1", b"0", b"2", b"15"],
    "channel": [b"news", b"sport", b"ch\r\n"],
    "pattern": [b"n*", b"*", b"s*", b"new?", b"[a-h]*"],
    "lua": LUA,
    "lua_write": [b"return redis.call('SET', KEYS[1], ARGV[1])"],
    "lua_publish": [b"return redis.call('PUBLISH', 'news', 'from a script')"],
    "lua_endless": [b"while true do end"],
    "sha": [hashlib.sha1(SCRIPT).hexdigest().encode()],
    "library": [LIBRARY],
    **KEYS,
}
