"""The commands on keys, one template a line: how each is called with good arguments.

A word in braces is filled in by templates.py: a key of that type, a value, a number. What stands
behind a semicolon follows on the same connection. Marks in front of a line:
  !  left out of the random part: it blocks, its result is random, or it hangs on the clock
  ~  left out inside MULTI; exceptions.py says why
"""

GENERIC = """
COPY {key} {new}
COPY {key} {key} REPLACE
COPY {key} {new} DB {db}
DEL {key}
DEL {key} {key} {new}
DUMP {key}
EXISTS {key} {key} {new}
EXPIRE {rel} {ttl}
EXPIRE {key} -1
EXPIRE {rel} {ttl} NX
! EXPIRE {key} {ttl} GT
EXPIREAT {key} {at}
EXPIREAT {key} {at} GT
EXPIREAT {key} {at} LT
EXPIRETIME {key}
KEYS {pattern}
! MIGRATE 127.0.0.1 1 {missing} 0 10
! MIGRATE 127.0.0.1 1 {str} 0 10
MOVE {key} {db}
OBJECT ENCODING {key}
OBJECT FREQ {key}
OBJECT IDLETIME {key}
OBJECT REFCOUNT {key}
PERSIST {key}
PEXPIRE {rel} {ttl_ms}
PEXPIREAT {key} {at_ms}
PEXPIREAT {key} {at_ms} XX
PEXPIRETIME {key}
PTTL {key}
RANDOMKEY
RENAME {key} {new}
RENAMENX {key} {new}
RESTORE {new} 0 {dump}
RESTORE {key} {at_ms} {dump} REPLACE ABSTTL IDLETIME 5
RESTORE {new} 0 {value}
RESTORE-ASKING {new} 0 {dump} REPLACE
SCAN 0
SCAN 0 MATCH {pattern} COUNT 100
SCAN 0 TYPE string
SCAN {number}
SORT {nums}
SORT {list} ALPHA DESC LIMIT 0 3
SORT {list} BY weight_* GET weight_* GET # ALPHA
SORT {list} BY nosort GET hash->f
SORT {nums} STORE {new}
SORT_RO {nums} DESC
SORT_RO {list} ALPHA LIMIT {index} {count}
TOUCH {key} {new}
TTL {key}
TYPE {key}
UNLINK {key} {new}
DBSIZE
FLUSHDB
FLUSHDB ASYNC
! FLUSHALL
! FLUSHALL SYNC
SWAPDB 0 {db}
"""

STRINGS = """
APPEND {str} {value}
BITCOUNT {bits}
BITCOUNT {bits} {index} {index}
BITCOUNT {bits} {index} {index} BIT
BITFIELD {bits} GET u8 0 SET i5 {offset} {index} OVERFLOW FAIL INCRBY u4 {offset} {number}
BITFIELD {bits} OVERFLOW SAT INCRBY i3 #1 {number}
BITFIELD_RO {bits} GET u8 {offset} GET i5 #0
BITOP AND {new} {bits} {bits}
BITOP NOT {new} {bits}
BITOP XOR {str} {bits} {str}
BITPOS {bits} 1
BITPOS {bits} 0 {index} {index}
BITPOS {bits} 1 {index} {index} BIT
DECR {int}
DECRBY {int} {number}
GET {str}
GET {key}
GETBIT {bits} {offset}
GETDEL {str}
GETEX {str}
GETEX {str} PERSIST
GETEX {str} EXAT {at}
GETEX {rel} EX {ttl}
GETRANGE {str} {index} {index}
GETSET {str} {value}
INCR {int}
INCRBY {int} {number}
INCRBYFLOAT {float} {double}
LCS {str} {str}
LCS {str} {str} LEN
LCS {str} {str} IDX MINMATCHLEN 1 WITHMATCHLEN
MGET {str} {str} {new}
MGET {key} {key} {key}
MSET {str} {value} {new} {value}
MSETNX {new} {value} {str} {value}
PFADD {hll} {member} {member}
PFCOUNT {hll}
PFCOUNT {hll} {hll}
PFMERGE {new} {hll} {hll}
! PFDEBUG ENCODING {hll}
! PFDEBUG DECODE {hll}
! PFDEBUG GETREG {hll}
! PFSELFTEST
PSETEX {rel} {ttl_ms} {value}
SET {str} {value}
SET {str} {value} NX
SET {str} {value} XX GET
SET {rel} {value} EX {ttl}
SET {str} {value} KEEPTTL
SET {str} {value} PXAT {at_ms}
SET {str} {value} IFEQ {value}
! SET {str} {value} IFEQ value GET
SETBIT {bits} {offset} 1
SETEX {rel} {ttl} {value}
SETNX {new} {value}
SETRANGE {str} {offset} {value}
STRLEN {str}
SUBSTR {str} {index} {index}
"""

HASHES = """
HDEL {hash} {field} {field}
HEXISTS {hash} {field}
HGET {hash} {field}
HGETALL {hash}
HINCRBY {hash} n {number}
HINCRBYFLOAT {hash} x {double}
HKEYS {hash}
HLEN {hash}
HMGET {hash} {field} {field} {value}
HMSET {hash} {field} {value} {field} {value}
HRANDFIELD {hash}
HRANDFIELD {hash} 100
HRANDFIELD {hash} 100 WITHVALUES
HRANDFIELD {missing} {count} WITHVALUES
HSCAN {hash} 0
HSCAN {hash} 0 MATCH {pattern} COUNT 100
HSCAN {hash} 0 NOVALUES
HSET {hash} {field} {value} {field} {value}
HSET {new} {field} {value}
HSETNX {hash} {field} {value}
HSTRLEN {hash} {field}
HVALS {hash}
"""

# Fields that expire by themselves: Redis 7.4, and what Redis 8.0 has besides.
FIELDS = """
! HEXPIRE {hash} {ttl} FIELDS 1 f ; HTTL {hash} FIELDS 1 f ; HGETALL {hash} ; HSET {hash} f v
HEXPIREAT {hash} {at} FIELDS 2 {field} {field}
HEXPIREAT {hash} {at} NX FIELDS 1 {field}
HEXPIREAT {hash} 1 FIELDS 1 {field}
HEXPIRETIME {hash} FIELDS 2 {field} {field}
HGETDEL {hash} FIELDS 2 {field} {field}
HGETEX {hash} FIELDS 2 {field} {field}
HGETEX {hash} EXAT {at} FIELDS 1 {field}
HGETEX {hash} PERSIST FIELDS 1 {field}
HPERSIST {hash} FIELDS 2 {field} {field}
! HPEXPIRE {hash} {ttl_ms} FIELDS 1 f ; HPTTL {hash} FIELDS 1 f
! HPEXPIRE {hash} 0 FIELDS 2 f n ; HGETALL {hash} ; EXISTS {hash}
HPEXPIREAT {hash} {at_ms} FIELDS 1 {field}
HPEXPIREAT {hash} {at_ms} GT FIELDS 2 {field} {field}
HPEXPIRETIME {hash} FIELDS 1 {field}
HPTTL {hash} FIELDS 2 {field} {field}
HSETEX {hash} FIELDS 2 {field} {value} {field} {value}
HSETEX {hash} FNX EXAT {at} FIELDS 1 {field} {value}
HSETEX {new} FXX KEEPTTL FIELDS 1 {field} {value}
HTTL {hash} FIELDS 2 {field} {field}
"""

# Redis 8.0. What it finds hangs on chance, but not among this few.
VECTORS = """
! VADD {vec} VALUES 2 1 0 a ; VADD {vec} VALUES 2 0 1 b ; VSIM {vec} VALUES 2 1 0.1 WITHSCORES
VADD {vec} VALUES 2 {number} 1 {member} SETATTR {"a":1}
VCARD {vec}
VDIM {vec}
VEMB {vec} {member}
VGETATTR {vec} {member}
! VINFO {vec}
! VADD {vec} VALUES 2 1 0 a ; VINFO {vec} ; VLINKS {vec} a WITHSCORES ; VRANDMEMBER {vec}
VISMEMBER {vec} {member}
VLINKS {vec} {value}
VRANDMEMBER {vec}
VREM {vec} {member}
VSETATTR {vec} {member} {"b":2}
! VSIM {vec} ELE a COUNT 2
"""

LISTS = """
! BLMOVE {list} {list} LEFT RIGHT 0.01
! BLMOVE {missing} {list} LEFT RIGHT 0.01
! BLMPOP 0.01 2 {missing} {list} LEFT COUNT 2
! BLMPOP 0.01 1 {missing} RIGHT
! BLPOP {list} 0.01
! BLPOP {missing} {list} 1
! BLPOP {missing} 0.01
! BRPOP {missing} {list} 1
! BRPOP {missing} 0.01
! BRPOPLPUSH {list} {list} 0.01
! BRPOPLPUSH {missing} {list} 0.01
LINDEX {list} {index}
LINSERT {list} BEFORE {member} {value}
LINSERT {list} AFTER {member} {value}
LLEN {list}
LMOVE {list} {list} LEFT RIGHT
LMOVE {list} {new} RIGHT LEFT
LMPOP 2 {missing} {list} LEFT COUNT {count}
LMPOP 1 {list} RIGHT
LPOP {list}
LPOP {list} {count}
LPOS {list} {member}
LPOS {list} a RANK {index} COUNT 0 MAXLEN 10
LPUSH {list} {value} {value}
LPUSH {new} {member}
LPUSHX {list} {value}
LRANGE {list} {index} {index}
LRANGE {list} 0 -1
LREM {list} {index} {member}
LSET {list} {index} {value}
LTRIM {list} {index} {index}
RPOP {list}
RPOP {list} {count}
RPOPLPUSH {list} {list}
RPUSH {list} {value}
RPUSH {nums} {number} {number}
RPUSHX {list} {value}
"""

SETS = """
SADD {set} {member} {member} {value}
SADD {new} {number}
SCARD {set}
SDIFF {set} {set}
SDIFFSTORE {new} {set} {set}
SINTER {set} {set}
SINTERCARD 2 {set} {set}
SINTERCARD 2 {set} {set} LIMIT {count}
SINTERSTORE {new} {set} {set}
SISMEMBER {set} {member}
SMEMBERS {set}
SMISMEMBER {set} {member} {member}
SMOVE {set} {set} {member}
SPOP {set} 1000
SPOP {missing}
! SPOP {set}
! SPOP {set} 2
SRANDMEMBER {set}
SRANDMEMBER {set} {count}
SRANDMEMBER {set} 100
SREM {set} {member} {member}
SSCAN {set} 0
SSCAN {set} 0 MATCH {pattern} COUNT 100
SUNION {set} {set}
SUNIONSTORE {new} {set} {set}
"""

SORTED_SETS = """
! BZMPOP 0.01 2 {missing} {zset} MIN COUNT 2
! BZMPOP 0.01 1 {missing} MAX
! BZPOPMAX {missing} {zset} 1
! BZPOPMAX {missing} 0.01
! BZPOPMIN {missing} {zset} 1
! BZPOPMIN {missing} 0.01
GEOADD {geo} 13.361389 38.115556 {member}
GEOADD {geo} NX CH 15.087269 37.502669 Catania {double} {double} {member}
GEODIST {geo} Palermo Catania
GEODIST {geo} Palermo {member} km
GEOHASH {geo} Palermo {member}
GEOPOS {geo} Palermo {member}
GEORADIUS {geo} 15 37 200 km
GEORADIUS {geo} 15 37 200 km WITHDIST WITHCOORD WITHHASH COUNT 2 ASC
GEORADIUS {geo} 15 37 200 km STORE {new}
GEORADIUS_RO {geo} 15 37 200 km WITHDIST
GEORADIUSBYMEMBER {geo} Palermo 200 km
GEORADIUSBYMEMBER {geo} Palermo 200 km STOREDIST {new}
GEORADIUSBYMEMBER_RO {geo} Palermo 200 km WITHHASH DESC
GEOSEARCH {geo} FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST WITHHASH
GEOSEARCH {geo} FROMMEMBER Palermo BYBOX 400 400 km ASC COUNT {count} ANY
GEOSEARCHSTORE {new} {geo} FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST
ZADD {zset} {score} {member}
ZADD {zset} NX CH {score} {member} {score} {value}
ZADD {zset} GT {score} {member}
ZADD {zset} INCR {score} {member}
ZCARD {zset}
ZCOUNT {zset} {low} {high}
ZDIFF 2 {zset} {zset}
ZDIFF 2 {zset} {zset} WITHSCORES
ZDIFFSTORE {new} 2 {zset} {zset}
ZINCRBY {zset} {score} {member}
ZINTER 2 {zset} {zset} WITHSCORES
ZINTER 2 {zset} {set} WEIGHTS 2 {number} AGGREGATE MAX
ZINTERCARD 2 {zset} {zset} LIMIT {count}
ZINTERSTORE {new} 2 {zset} {zset} AGGREGATE SUM
ZLEXCOUNT {lex} {lex_low} {lex_high}
ZMPOP 2 {missing} {zset} MIN
ZMPOP 1 {zset} MAX COUNT {count}
ZMSCORE {zset} {member} {value}
ZPOPMAX {zset}
ZPOPMAX {zset} {count}
ZPOPMIN {zset}
ZPOPMIN {zset} {count}
ZRANDMEMBER {zset}
ZRANDMEMBER {zset} 100 WITHSCORES
ZRANDMEMBER {zset} {count}
ZRANGE {zset} {index} {index}
ZRANGE {zset} 0 -1 WITHSCORES
ZRANGE {zset} 0 -1 REV WITHSCORES
ZRANGE {zset} {low} {high} BYSCORE LIMIT 0 {count}
ZRANGE {lex} {lex_low} {lex_high} BYLEX
ZRANGEBYLEX {lex} {lex_low} {lex_high}
ZRANGEBYLEX {lex} - + LIMIT {count} {count}
ZRANGEBYSCORE {zset} {low} {high} WITHSCORES
ZRANGEBYSCORE {zset} -inf +inf LIMIT {count} {count}
ZRANGESTORE {new} {zset} 0 -1
ZRANK {zset} {member}
ZRANK {zset} {member} WITHSCORE
ZREM {zset} {member} {member}
ZREMRANGEBYLEX {lex} {lex_low} {lex_high}
ZREMRANGEBYRANK {zset} {index} {index}
ZREMRANGEBYSCORE {zset} {low} {high}
ZREVRANGE {zset} {index} {index} WITHSCORES
ZREVRANGEBYLEX {lex} {lex_high} {lex_low}
ZREVRANGEBYSCORE {zset} {high} {low} WITHSCORES
ZREVRANK {zset} {member}
ZREVRANK {zset} {member} WITHSCORE
ZSCAN {zset} 0
ZSCAN {zset} 0 MATCH {pattern} COUNT 100
ZSCORE {zset} {member}
ZUNION 2 {zset} {zset} WITHSCORES
ZUNION 2 {zset} {set} WEIGHTS {number} 0.5
ZUNIONSTORE {new} 2 {zset} {zset} AGGREGATE MIN
"""

STREAMS = """
XACK {stream} grp {id} {id}
XADD {stream} {new_id} {field} {value}
XADD {stream} MAXLEN ~ 100 {new_id} {field} {value} {field} {value}
XADD {stream} NOMKSTREAM MINID = 1 {new_id} {field} {value}
! XADD {stream} * f v
XAUTOCLAIM {stream} grp other 0 0
XAUTOCLAIM {stream} grp other 0 0 COUNT {count} JUSTID
XCLAIM {stream} grp other 0 {id}
XCLAIM {stream} grp other 0 {id} {id} JUSTID
XDEL {stream} {id}
XGROUP CREATE {stream} group2 $
XGROUP CREATE {new} group2 0 MKSTREAM
XGROUP CREATECONSUMER {stream} grp consumer2
XGROUP DELCONSUMER {stream} grp con
XGROUP DESTROY {stream} grp
XGROUP SETID {stream} grp {id}
XGROUP SETID {stream} grp 0 ENTRIESREAD 2
XINFO CONSUMERS {stream} grp
XINFO GROUPS {stream}
XINFO STREAM {stream}
! XINFO STREAM {stream} FULL
XLEN {stream}
XPENDING {stream} grp
XPENDING {stream} grp - + 10
XPENDING {stream} grp IDLE 0 - + 10 con
XRANGE {stream} - +
XRANGE {stream} {id} {id} COUNT {count}
XREVRANGE {stream} + -
XREVRANGE {stream} {id} {id} COUNT 2
XREAD STREAMS {stream} 0
XREAD COUNT 2 STREAMS {stream} {stream} 0 {id}
XREAD STREAMS {stream} $
! XREAD BLOCK 10 STREAMS {stream} $
! XREAD BLOCK 1000 STREAMS {stream} 0
XREADGROUP GROUP grp con STREAMS {stream} >
XREADGROUP GROUP grp con COUNT 1 STREAMS {stream} 0
XREADGROUP GROUP grp other COUNT 1 NOACK STREAMS {stream} >
! XREADGROUP GROUP grp con BLOCK 10 STREAMS {stream} >
! XREADGROUP GROUP grp con BLOCK 10 STREAMS {drained} >
XREADGROUP GROUP nogroup con STREAMS {stream} >
XSETID {stream} 900-0
XSETID {stream} 900-0 ENTRIESADDED 10 MAXDELETEDID 1-0
XTRIM {stream} MAXLEN 2
XTRIM {stream} MINID {id}
"""

TEXT = GENERIC + STRINGS + HASHES + FIELDS + VECTORS + LISTS + SETS + SORTED_SETS + STREAMS
