"""Scripts for several clients, each run in both protocols. The lines of a scenario:

  # words      its name
  a: COMMAND   client a sends it and waits for one reply
  a> COMMAND   client a sends it; nobody waits
  a< N         waits until client a has got N more frames, pushes as well; a< end: it is closed
  a- text      waits until client a has got that text
  a.           client a leaves
  a! word COMMAND   client a sends it again and again until its reply has that word
  blocked N    waits until the server has N blocked clients; subscribers N the same

Words are split at blanks; $a stands for the id of client a, and {x} is as in a template.
"""

TEXT = """
# a pop that waits is served by another client
a> BLPOP missing 0
blocked 1
b: LPUSH missing x y
a< 1
b: LRANGE missing 0 -1

# two pops are served in their order
a> BRPOP missing 0
blocked 1
b> BLPOP missing other 0
blocked 2
c: RPUSH missing 1 2
a< 1
b< 1

# a move that waits
a> BLMOVE missing list LEFT RIGHT 0
blocked 1
b> BRPOPLPUSH missing2 list2 0
blocked 2
c: RPUSH missing x
c: RPUSH missing2 y
a< 1
b< 1
c: LRANGE list 0 -1

# pops of several keys that wait
a> BLMPOP 0 2 missing missing2 RIGHT COUNT 3
blocked 1
b> BZMPOP 0 2 missing3 missing4 MAX COUNT 2
blocked 2
c> BZPOPMIN missing5 0
blocked 3
d: RPUSH missing2 a b c d
d: ZADD missing4 1 a 2 b 3 c
d: ZADD missing5 1.5 a 2.5 b
a< 1
b< 1
c< 1

# reads of a stream that wait
a> XREAD BLOCK 0 STREAMS stream stream2 $ $
blocked 1
b> XREADGROUP GROUP grp con BLOCK 0 STREAMS stream2 >
blocked 2
c: XADD stream2 900-1 f v
a< 1
b< 1

# a group vanishes under its reader
a> XREADGROUP GROUP grp con BLOCK 0 STREAMS stream2 >
blocked 1
b: XGROUP DESTROY stream2 grp
a< 1

# what is pipelined behind a pop waits with it
a> BLPOP missing 0
a> GET str
a> INCR int
blocked 1
b: SET str changed
b: LPUSH missing x
a< 3

# a pop waits in its own database
a: SELECT 3
a> BLPOP missing 0
blocked 1
b: LPUSH missing zero
b: SELECT 3
b: LPUSH missing three
a< 1
a: GET str

# the wrong type does not end a wait
a> BLPOP missing 0
blocked 1
b: SET missing x
b: DEL missing
b: LPUSH missing y
a< 1

# who leaves while waiting takes nothing
a> BLPOP missing 0
blocked 1
a.
blocked 0
b: LPUSH missing x
b: LLEN missing

# a pop in a transaction of another client
a> BLPOP missing 0
blocked 1
b: MULTI
b: LPUSH missing x
b: LPUSH missing y
b: EXEC
a< 1

# an unblocked client
a> BLPOP missing 0
blocked 1
b: CLIENT UNBLOCK $a
a< 1
a> XREAD BLOCK 0 STREAMS missing $
blocked 1
b: CLIENT UNBLOCK $a ERROR
a< 1
a: GET str
b: CLIENT UNBLOCK $a

# a watched key that another client changes
a: WATCH str
b: SET str theirs
a: MULTI
a: SET str mine
a: EXEC
a: GET str
a: MULTI
a: GET str
a: EXEC

# a watched key that nobody changes
a: WATCH str list
b: SET str2 theirs
b: GET str
a: MULTI
a: SET str mine
a: EXEC

# a key of that name in another database
a: WATCH str
b: SELECT 1
b: SET str theirs
a: MULTI
a: EXEC
a: WATCH str
b: SELECT 0
b: SET str theirs
a: SELECT 1
a: MULTI
a: EXEC

# UNWATCH, DISCARD and RESET forget
a: WATCH str
a: UNWATCH
b: SET str 1
a: MULTI
a: EXEC
a: WATCH str
a: MULTI
a: DISCARD
b: SET str 2
a: MULTI
a: EXEC
a: WATCH str
a: RESET
b: SET str 3
a: MULTI
a: EXEC

# flushed and swapped while watched
a: WATCH str
b: FLUSHDB
a: MULTI
a: EXEC
a: WATCH missing
b: FLUSHALL
a: MULTI
a: EXEC
b: SET str x
a: WATCH str
b: SWAPDB 0 1
a: MULTI
a: EXEC

# a watched key is touched by the script of another client
a: WATCH str
b: EVAL {lua_write} 1 str x
a: MULTI
a: EXEC

# others go on between MULTI and EXEC
a: MULTI
a: INCR int
b: INCR int
a: INCR int
b: MULTI
b: INCR int
a: EXEC
b: EXEC
a: GET int

# who leaves in a transaction has done nothing
a: MULTI
a: SET str x
a.
b: GET str
b: WATCH str
b: MULTI
b: SET str y
b.
c: GET str
"""
