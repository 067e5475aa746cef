"""Scripts for several clients about what is not an answer, about users and about the server itself;
see scripts_waiting.py for the form."""

TEXT = """
# a message reaches each subscriber
a: SUBSCRIBE news
b: SUBSCRIBE news
c: PUBLISH news hello
a< 1
b< 1
c: PUBSUB NUMSUB news sport
b: UNSUBSCRIBE news
c: PUBLISH news again
a< 1
c: PUBLISH sport nobody

# a pattern and a channel
a: SUBSCRIBE news
a: PSUBSCRIBE n*
b: PSUBSCRIBE ?ews
c: PUBLISH news hello
a< 2
b< 1
c: PUBSUB NUMPAT
c: PUBSUB CHANNELS
a: PUNSUBSCRIBE n*
c: PUBLISH news again
a< 1
b< 1

# channels of shards
a: SSUBSCRIBE news
b: SUBSCRIBE news
c: SPUBLISH news shard
a< 1
c: PUBLISH news all
b< 1
c: PUBSUB SHARDCHANNELS
a: SUNSUBSCRIBE news
c: SPUBLISH news nobody

# several channels at once
a> SUBSCRIBE one two three
a< 3
b: PUBLISH two x
a< 1
a> UNSUBSCRIBE
a< 3
b: PUBLISH two x
a: PING

# binary messages
a: SUBSCRIBE {channel}
b: PUBLISH {channel} {value}
a< 1

# a transaction and a script publish
a: SUBSCRIBE news
b: MULTI
b: PUBLISH news one
b: PUBLISH news two
b: EXEC
a< 2
b: EVAL {lua_publish} 0
a< 1

# RESET ends a subscription
a: SUBSCRIBE news
a: RESET
b: PUBLISH news x
a: GET str

# who leaves is no subscriber any more
a: SUBSCRIBE news
a.
subscribers 0
b: PUBLISH news x

# a subscriber changes its protocol
a: HELLO 3
a: SUBSCRIBE news
a: GET str
a: HELLO 2
a: GET str
b: PUBLISH news x
a< 1
a: PING
a: HELLO 3
b: PUBLISH news y
a< 1
a: GET str

# news of keys
a: CONFIG SET notify-keyspace-events KEA
a: SUBSCRIBE __keyspace@0__:str __keyevent@0__:del
a< 1
b: SET str x
a< 1
b: DEL str list
a< 3

# news of keys of another database
a: CONFIG SET notify-keyspace-events KEA
a: SUBSCRIBE __keyspace@0__:str
b: SELECT 1
b: SET str x
b: SELECT 0
b: SET str x
a< 1

# names of channels in another database
a: SELECT 5
a: SUBSCRIBE news
b: PUBLISH news x
a< 1
a: UNSUBSCRIBE news
a: DBSIZE

# invalidation by another client
a: HELLO 3
a: CLIENT TRACKING ON
a: GET str
a: MGET str2 int
b: SET str x
a< 1
b: SET str y
b: MSET str2 x int 5
a< 2
a: GET str
b: DEL str
a< 1
a: HGETALL hash
b: FLUSHALL
a< 1

# invalidation by broadcast
a: HELLO 3
a: CLIENT TRACKING ON BCAST PREFIX str PREFIX new
b: SET str x
a< 1
b: SET int 5
b: SET new1 x
a< 1
a: CLIENT TRACKING OFF
b: SET str y
a: PING

# tracking by choice
a: HELLO 3
a: CLIENT TRACKING ON OPTIN
a: GET str
b: SET str x
a: CLIENT CACHING YES
a: GET str
b: SET str y
a< 1
a: CLIENT TRACKING OFF
a: CLIENT TRACKING ON OPTOUT
a: CLIENT CACHING NO
a: GET str
b: SET str z
a: GET str
b: SET str z
a< 1

# invalidation goes to another client
b: SUBSCRIBE __redis__:invalidate
a: CLIENT TRACKING ON REDIRECT $b
a: GET str
c: SET str x
b< 1

# a killed client
b: CLIENT KILL ID $a
a< end
b: GET str

# a client kills itself
a> CLIENT KILL ID $a SKIPME no
a< end

# writes are paused
b: CLIENT PAUSE 10000 WRITE
a: GET str
a> SET str x
blocked 1
b: CLIENT UNPAUSE
a< 1
a: GET str

# a user is deleted
a: AUTH bob secret
a: ACL WHOAMI
b: ACL DELUSER bob
a< end
b: ACL USERS

# a user loses a right
a: AUTH eve pw
a: GET str
b: ACL SETUSER eve -get
a: GET str
a: SET str x
a: SET list x

# two users
a: AUTH eve pw
b: AUTH bob secret
a: GET list
b: GET str
a: SET str x
b: GET str
a: RESET
a: GET list
a: ACL WHOAMI
b: ACL WHOAMI

# a failing AUTH is answered, whoever had the connection before
a: CLIENT SETNAME me
a: EVAL {lua} 1 str x
a.
b: AUTH bob wrong
b: SET str x
b: AUTH bob wrong
b: HELLO 3 AUTH bob wrong
b: GET str
b: ACL WHOAMI

# a name is known at once, wherever the client is just then
a> BRPOP missing 0.05
a> CLIENT SETNAME me
a> MULTI
a> CLIENT GETNAME
a> EXEC
a< 5

# a user waits, watches and subscribes
a: AUTH eve pw
a: BLPOP missing 1
a: SUBSCRIBE news
a: WATCH str
a: WATCH list
a: MULTI
a: GET str
a: GET list
a: EXEC

# a script that does not end
a: CONFIG SET busy-reply-threshold 20
a> EVAL {lua_endless} 1 str
b! BUSY GET str
b: SCRIPT KILL
a< 1
b: GET str
a: GET str

# a function that does not end
a: CONFIG SET busy-reply-threshold 20
a> FCALL endless 1 str
b! BUSY GET str
b: FUNCTION KILL
a< 1
b: GET str

# a monitor
a: MONITOR
b: SET monitored x
a- monitored
a: RESET
a: GET str

# silence
a> CLIENT REPLY OFF
a> SET str silent
a> CLIENT REPLY ON
a< 1
b: GET str
a> CLIENT REPLY SKIP
a> SET str skipped
a: GET str
"""
