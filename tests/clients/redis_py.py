"""redis-py (sync) as applications use it: redis_py.py SOCKET [CASE,CASE...]"""

import os
import sys
import threading

import redis
from cases import TIMEOUT_S, equal, raises, restart_server, run, until

WORKERS = 8
BINARY = bytes(range(256))


def client(**options):
    return redis.Redis(unix_socket_path=sys.argv[1], socket_timeout=TIMEOUT_S, **options)


def in_threads(count, work):
    """Runs work(index) in that many threads; their first exception is raised here."""
    errors = []

    def guarded(index):
        try:
            work(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "a thread does not end"
    if errors:
        raise errors[0]


def connect():
    app = client(decode_responses=True, client_name="redis-py")
    assert app.ping()
    assert app.set("connect:name", "value", ex=100)
    equal("value", app.get("connect:name"))
    equal(None, app.get("connect:absent"))
    assert 90 < app.ttl("connect:name") <= 100
    equal(2, app.hset("connect:hash", mapping={"a": "1", "b": "zwei"}))
    equal({"a": "1", "b": "zwei"}, app.hgetall("connect:hash"))
    equal(3, app.rpush("connect:list", "x", "y", "z"))
    equal(["x", "y", "z"], app.lrange("connect:list", 0, -1))
    equal(2, app.zadd("connect:zset", {"m": 1.5, "n": 2}))
    equal([("m", 1.5), ("n", 2.0)], app.zrange("connect:zset", 0, -1, withscores=True))
    equal("redis-py", app.client_getname())
    assert app.client_id() > 0
    raises(redis.ResponseError, "not an integer", app.incr, "connect:name")
    raises(redis.ResponseError, "unknown command", app.execute_command, "NOSUCHCOMMAND", "x")
    assert "used_memory" in app.info()
    other = client(db=5)
    equal(None, other.get("connect:name"))
    assert other.set("connect:five", 5)
    equal(0, app.exists("connect:five"))
    if int(redis.__version__.split(".")[0]) >= 5:
        third = client(protocol=3)
        equal({b"a": b"1", b"b": b"zwei"}, third.hgetall("connect:hash"))


def pool():
    app = redis.Redis(
        connection_pool=redis.BlockingConnectionPool(
            connection_class=redis.UnixDomainSocketConnection,
            path=sys.argv[1],
            max_connections=4,
            timeout=TIMEOUT_S,
        )
    )

    def work(index):
        for i in range(100):
            app.set(f"pool:{index}", i)
            equal(b"%d" % i, app.get(f"pool:{index}"))
            app.incr("pool:all")

    in_threads(WORKERS, work)
    equal(b"%d" % (100 * WORKERS), app.get("pool:all"))
    app.connection_pool.disconnect()
    equal(b"99", app.get("pool:0"))


def pipeline():
    app = client()
    pipe = app.pipeline(transaction=False)
    for i in range(1000):
        pipe.set(f"pipe:{i}", i).get(f"pipe:{i}")
    equal([answer for i in range(1000) for answer in (True, b"%d" % i)], pipe.execute())
    pipe.set("pipe:text", "x").incr("pipe:text").get("pipe:text")
    first, second, third = pipe.execute(raise_on_error=False)
    equal((True, b"x"), (first, third))
    assert isinstance(second, redis.ResponseError), second


def transaction():
    app = client()
    with app.pipeline() as pipe:
        equal([True, 2, b"2"], pipe.set("tx:n", 1).incr("tx:n").get("tx:n").execute())
        pipe.set("tx:text", "x").incr("tx:text").set("tx:last", 1)
        first, second, third = pipe.execute(raise_on_error=False)
        equal((True, True), (first, third))
        assert isinstance(second, redis.ResponseError), second
        pipe.set("tx:never", 1).execute_command("GET")
        raises(redis.ResponseError, "wrong number", pipe.execute)
    equal(None, app.get("tx:never"))
    with app.pipeline() as pipe:
        pipe.watch("tx:n")
        pipe.multi()
        pipe.set("tx:n", 9)
        pipe.reset()
    equal(b"2", app.get("tx:n"))


def watch():
    app, other = client(), client()
    app.set("watch:n", 1)
    with app.pipeline() as pipe:
        pipe.watch("watch:n")
        equal(b"1", pipe.get("watch:n"))
        other.set("watch:n", 10)
        pipe.multi()
        pipe.set("watch:n", 2)
        raises(redis.WatchError, "", pipe.execute)
        pipe.watch("watch:n")
        value = int(pipe.get("watch:n"))
        pipe.multi()
        pipe.set("watch:n", value + 1)
        equal([True], pipe.execute())
    equal(b"11", app.get("watch:n"))
    app.set("watch:sum", 0)

    def add_one(pipe):
        value = int(pipe.get("watch:sum"))
        pipe.multi()
        pipe.set("watch:sum", value + 1)

    in_threads(4, lambda _: [app.transaction(add_one, "watch:sum") for _ in range(25)])
    equal(b"100", app.get("watch:sum"))


def next_message(subscriber):
    return until(lambda: subscriber.get_message(timeout=1), "a message")


def pubsub():
    app = client()
    with app.pubsub() as subscriber:
        subscriber.subscribe("ps:a", "ps:b")
        subscriber.psubscribe("ps:*")
        kinds = [next_message(subscriber)["type"] for _ in range(3)]
        equal(["subscribe", "subscribe", "psubscribe"], kinds)
        equal(2, app.publish("ps:a", BINARY))
        got = [next_message(subscriber) for _ in range(2)]
        equal([("message", BINARY), ("pmessage", BINARY)], [(m["type"], m["data"]) for m in got])
        subscriber.ping()
        equal("pong", next_message(subscriber)["type"])
        subscriber.unsubscribe("ps:a")
        subscriber.punsubscribe()
        equal(["unsubscribe", "punsubscribe"], [next_message(subscriber)["type"] for _ in "ab"])
        equal(0, app.publish("ps:a", "nobody"))
        for i in range(300):
            app.publish("ps:b", i)
        got = [next_message(subscriber)["data"] for _ in range(300)]
        equal([b"%d" % i for i in range(300)], got)
    until(lambda: app.publish("ps:b", "nobody") == 0, "the subscription is gone")
    equal([], app.pubsub_channels("ps:*"))


def blocking_pop():
    app = client()
    answers = []
    pops = [
        lambda: answers.append(app.blpop(["bp:a", "bp:b"], timeout=TIMEOUT_S)),
        lambda: answers.append(app.brpoplpush("bp:c", "bp:d", timeout=TIMEOUT_S)),
        lambda: answers.append(app.bzpopmin("bp:z", timeout=TIMEOUT_S)),
    ]
    threads = [threading.Thread(target=pop, daemon=True) for pop in pops]
    for thread in threads:
        thread.start()
    until(lambda: app.info("clients")["blocked_clients"] == 3, "three blocked clients")
    assert app.ping()
    app.rpush("bp:b", "1", "2")
    app.rpush("bp:c", BINARY)
    app.zadd("bp:z", {"m": 3})
    for thread in threads:
        thread.join(TIMEOUT_S)
    expected = [(b"bp:b", b"1"), BINARY, (b"bp:z", b"m", 3.0)]
    equal(sorted(map(repr, expected)), sorted(map(repr, answers)))
    equal(b"2", app.lpop("bp:b"))
    equal(None, app.blpop("bp:none", timeout=1))
    equal(0, app.info("clients")["blocked_clients"])


def streams():
    app = client()
    equal(True, app.xgroup_create("st", "group", id="0", mkstream=True))
    raises(redis.ResponseError, "BUSYGROUP", app.xgroup_create, "st", "group")
    ids = [app.xadd("st", {"n": i, "raw": BINARY}) for i in range(10)]
    [(name, first)] = app.xreadgroup("group", "one", {"st": ">"}, count=4)
    equal((b"st", ids[:4]), (name, [entry for entry, _ in first]))
    equal(BINARY, first[0][1][b"raw"])
    [(_, second)] = app.xreadgroup("group", "two", {"st": ">"})
    equal(ids[4:], [entry for entry, _ in second])
    equal(3, app.xack("st", "group", *ids[:3]))
    equal(7, app.xpending("st", "group")["pending"])
    claimed = app.xclaim("st", "group", "two", min_idle_time=0, message_ids=[ids[3]])
    equal([ids[3]], [entry for entry, _ in claimed])
    equal([2, 2], [len(app.xinfo_consumers("st", "group")), len(first[0][1])])
    late = []
    reader = threading.Thread(
        target=lambda: late.extend(app.xreadgroup("group", "one", {"st": ">"}, block=20000)),
        daemon=True,
    )
    reader.start()
    until(lambda: app.info("clients")["blocked_clients"] == 1, "a blocked reader")
    last = app.xadd("st", {"n": "late"})
    reader.join(TIMEOUT_S)
    equal([[b"st", [(last, {b"n": b"late"})]]], [list(stream) for stream in late])
    equal(1, len(app.xrange("st", last, "+")))
    equal(5, app.xtrim("st", maxlen=6, approximate=False))


def scripts():
    app = client()
    equal([b"a", b"1"], app.eval("return {KEYS[1], ARGV[1]}", 1, "a", "1"))
    add = app.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    equal([5, 12], [add(keys=["sum"], args=[5]), add(keys=["sum"], args=[7])])
    app.script_flush()
    equal([False], app.script_exists(add.sha))
    equal(13, add(keys=["sum"], args=[1]))  # NOSCRIPT: redis-py loads it and tries again.
    raises(redis.ResponseError, "my own", app.eval, "return redis.error_reply('my own')", 0)
    with app.pipeline(transaction=False) as pipe:
        add(keys=["sum"], args=[1], client=pipe)
        pipe.get("sum")
        equal([14, b"14"], pipe.execute())
    code = "#!lua name=mine\nredis.register_function('f', function(k, a) return a[1] end)"
    app.execute_command("FUNCTION", "LOAD", "REPLACE", code)
    equal(BINARY, app.execute_command("FCALL", "f", 0, BINARY))


def scan():
    app = client()
    names = {b"scan:%d" % i for i in range(1000)}
    app.mset({name: 1 for name in names})
    equal(names, set(app.scan_iter(match="scan:*", count=100)))
    app.hset("scan-hash", mapping={name: b"v" for name in names})
    equal(names, {field for field, _ in app.hscan_iter("scan-hash")})
    app.sadd("scan-set", *names)
    equal(names, set(app.sscan_iter("scan-set")))
    app.zadd("scan-zset", {name: 1 for name in names})
    equal(names, {member for member, _ in app.zscan_iter("scan-zset")})


def binary():
    app = client()
    value = os.urandom(1 << 20)
    for key in (BINARY, b"", b"\r\n$-1\r\n", "schl\u00fcssel \U0001f511"):
        assert app.set(key, value)
        equal(value, app.get(key))
        equal(1, app.exists(key))
        assert app.set(key, b"")
        equal(b"", app.get(key))
    equal(256, app.append("bin:append", BINARY))
    equal(BINARY[10:20], app.getrange("bin:append", 10, 19))


def monitor():
    app = client()
    with client().monitor() as watching:
        app.set("monitored", 1)
        app.get("monitored")
        seen = []
        while len(seen) < 2:
            command = watching.next_command()["command"]
            if "monitored" in command:
                seen.append(command)
        equal(["SET monitored 1", "GET monitored"], seen)


def reconnect():
    app = client()
    subscriber = app.pubsub()
    subscriber.subscribe("rc:news")
    equal("subscribe", next_message(subscriber)["type"])
    add = app.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    equal(1, add(keys=["rc:sum"], args=[1]))
    restart_server()

    def is_back():
        try:
            return app.set("rc:key", "new")
        except redis.ConnectionError:
            return False

    until(is_back, "a SET works again")
    equal(b"new", app.get("rc:key"))
    equal(1, add(keys=["rc:sum"], args=[1]))

    def news():
        app.publish("rc:news", "hello")
        try:
            message = subscriber.get_message(timeout=0.02, ignore_subscribe_messages=True)
        except redis.ConnectionError:
            return False
        return message and message["data"] == b"hello"

    until(news, "the subscriber hears news again")
    with app.pipeline() as pipe:
        equal([True, b"1"], pipe.set("rc:tx", 1).get("rc:tx").execute())


run(
    {
        "connect": connect,
        "pool": pool,
        "pipeline": pipeline,
        "transaction": transaction,
        "watch": watch,
        "pubsub": pubsub,
        "blocking-pop": blocking_pop,
        "streams": streams,
        "scripts": scripts,
        "scan": scan,
        "binary": binary,
        "monitor": monitor,
        "reconnect": reconnect,
    }
)
