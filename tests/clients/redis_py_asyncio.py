"""redis-py's asyncio client as applications use it: redis_py_asyncio.py SOCKET [CASE,CASE...]"""

import asyncio
import os
import sys
import time

import redis.asyncio as redis
from cases import TIMEOUT_S, equal, restart_server, run

WORKERS = 8
BINARY = bytes(range(256))


def client(**options):
    return redis.Redis(unix_socket_path=sys.argv[1], socket_timeout=TIMEOUT_S, **options)


async def until(condition, what):
    """The same as cases.until, for conditions that are coroutine functions."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what}"
        await asyncio.sleep(0.005)


async def raises(text, awaitable):
    try:
        value = await awaitable
    except redis.ResponseError as error:
        assert text in str(error), f"expected {text!r} in the error {error!r}"
        return
    raise AssertionError(f"expected an error with {text!r}, got {value!r}")


async def connect():
    async with client(decode_responses=True, client_name="asyncio") as app:
        assert await app.ping()
        assert await app.set("connect:name", "value", ex=100)
        equal("value", await app.get("connect:name"))
        equal(None, await app.get("connect:absent"))
        assert 90 < await app.ttl("connect:name") <= 100
        await app.hset("connect:hash", mapping={"a": "1", "b": "zwei"})
        equal({"a": "1", "b": "zwei"}, await app.hgetall("connect:hash"))
        await app.zadd("connect:zset", {"m": 1.5, "n": 2})
        equal([("m", 1.5), ("n", 2.0)], await app.zrange("connect:zset", 0, -1, withscores=True))
        equal("asyncio", await app.client_getname())
        assert await app.client_id() > 0
        await raises("not an integer", app.incr("connect:name"))
        await raises("unknown command", app.execute_command("NOSUCHCOMMAND", "x"))
        async with client(db=5) as other:
            equal(None, await other.get("connect:name"))
            await other.set("connect:five", 5)
        equal(0, await app.exists("connect:five"))


async def pool():
    connections = redis.BlockingConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=sys.argv[1],
        max_connections=4,
        timeout=TIMEOUT_S,
    )
    app = redis.Redis(connection_pool=connections)

    async def work(index):
        for i in range(100):
            await app.set(f"pool:{index}", i)
            equal(b"%d" % i, await app.get(f"pool:{index}"))
            await app.incr("pool:all")

    await asyncio.gather(*(work(index) for index in range(WORKERS)))
    equal(b"%d" % (100 * WORKERS), await app.get("pool:all"))
    await connections.disconnect()
    equal(b"99", await app.get("pool:0"))
    await connections.disconnect()


async def pipeline():
    async with client() as app:
        pipe = app.pipeline(transaction=False)
        for i in range(1000):
            pipe.set(f"pipe:{i}", i).get(f"pipe:{i}")
        expected = [answer for i in range(1000) for answer in (True, b"%d" % i)]
        equal(expected, await pipe.execute())
        pipe.set("pipe:text", "x").incr("pipe:text").get("pipe:text")
        first, second, third = await pipe.execute(raise_on_error=False)
        equal((True, b"x"), (first, third))
        assert isinstance(second, redis.ResponseError), second


async def transaction():
    async with client() as app:
        async with app.pipeline() as pipe:
            equal([True, 2, b"2"], await pipe.set("tx:n", 1).incr("tx:n").get("tx:n").execute())
            pipe.set("tx:text", "x").incr("tx:text").set("tx:last", 1)
            first, second, third = await pipe.execute(raise_on_error=False)
            equal((True, True), (first, third))
            assert isinstance(second, redis.ResponseError), second
            pipe.set("tx:never", 1).execute_command("GET")
            await raises("wrong number", pipe.execute())
        equal(None, await app.get("tx:never"))


async def watch():
    async with client() as app, client() as other:
        await app.set("watch:n", 1)
        async with app.pipeline() as pipe:
            await pipe.watch("watch:n")
            equal(b"1", await pipe.get("watch:n"))
            await other.set("watch:n", 10)
            pipe.multi()
            pipe.set("watch:n", 2)
            try:
                await pipe.execute()
                raise AssertionError("EXEC ran although a watched key had changed")
            except redis.WatchError:
                pass
            await pipe.watch("watch:n")
            value = int(await pipe.get("watch:n"))
            pipe.multi()
            pipe.set("watch:n", value + 1)
            equal([True], await pipe.execute())
        equal(b"11", await app.get("watch:n"))
        await app.set("watch:sum", 0)

        async def add_one(pipe):
            value = int(await pipe.get("watch:sum"))
            pipe.multi()
            pipe.set("watch:sum", value + 1)

        async def work():
            for _ in range(25):
                await app.transaction(add_one, "watch:sum")

        await asyncio.gather(*(work() for _ in range(4)))
        equal(b"100", await app.get("watch:sum"))


async def next_message(subscriber):
    return await until(lambda: subscriber.get_message(timeout=1), "a message")


async def pubsub():
    async with client() as app:
        async with app.pubsub() as subscriber:
            await subscriber.subscribe("ps:a", "ps:b")
            await subscriber.psubscribe("ps:*")
            kinds = [(await next_message(subscriber))["type"] for _ in range(3)]
            equal(["subscribe", "subscribe", "psubscribe"], kinds)
            equal(2, await app.publish("ps:a", BINARY))
            got = [await next_message(subscriber) for _ in range(2)]
            expected = [("message", BINARY), ("pmessage", BINARY)]
            equal(expected, [(m["type"], m["data"]) for m in got])
            await subscriber.unsubscribe("ps:a")
            await subscriber.punsubscribe()
            kinds = [(await next_message(subscriber))["type"] for _ in range(2)]
            equal(["unsubscribe", "punsubscribe"], kinds)
            for i in range(300):
                await app.publish("ps:b", i)
            got = [(await next_message(subscriber))["data"] for _ in range(300)]
            equal([b"%d" % i for i in range(300)], got)

        async def nobody_listens():
            return await app.publish("ps:b", "nobody") == 0

        await until(nobody_listens, "the subscription is gone")


async def blocked(app, count):
    async def are_blocked():
        return (await app.info("clients"))["blocked_clients"] == count

    await until(are_blocked, f"{count} blocked clients")


async def blocking_pop():
    async with client() as app:
        pops = [
            asyncio.create_task(app.blpop(["bp:a", "bp:b"], timeout=TIMEOUT_S)),
            asyncio.create_task(app.brpoplpush("bp:c", "bp:d", timeout=TIMEOUT_S)),
            asyncio.create_task(app.bzpopmin("bp:z", timeout=TIMEOUT_S)),
        ]
        await blocked(app, 3)
        assert await app.ping()
        await app.rpush("bp:b", "1", "2")
        await app.rpush("bp:c", BINARY)
        await app.zadd("bp:z", {"m": 3})
        expected = [(b"bp:b", b"1"), BINARY, (b"bp:z", b"m", 3.0)]
        equal(expected, await asyncio.wait_for(asyncio.gather(*pops), TIMEOUT_S))
        equal(b"2", await app.lpop("bp:b"))
        equal(None, await app.blpop("bp:none", timeout=1))
        given_up = asyncio.create_task(app.blpop("bp:a", timeout=TIMEOUT_S))
        await blocked(app, 1)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        await app.connection_pool.disconnect()
        await blocked(app, 0)


async def streams():
    async with client() as app:
        equal(True, await app.xgroup_create("st", "group", id="0", mkstream=True))
        await raises("BUSYGROUP", app.xgroup_create("st", "group"))
        ids = [await app.xadd("st", {"n": i, "raw": BINARY}) for i in range(10)]
        [(name, first)] = await app.xreadgroup("group", "one", {"st": ">"}, count=4)
        equal((b"st", ids[:4]), (name, [entry for entry, _ in first]))
        equal(BINARY, first[0][1][b"raw"])
        [(_, second)] = await app.xreadgroup("group", "two", {"st": ">"})
        equal(ids[4:], [entry for entry, _ in second])
        equal(3, await app.xack("st", "group", *ids[:3]))
        equal(7, (await app.xpending("st", "group"))["pending"])
        claimed = await app.xclaim("st", "group", "two", min_idle_time=0, message_ids=[ids[3]])
        equal([ids[3]], [entry for entry, _ in claimed])
        reader = asyncio.create_task(app.xreadgroup("group", "one", {"st": ">"}, block=20000))
        await blocked(app, 1)
        last = await app.xadd("st", {"n": "late"})
        [(_, late)] = await asyncio.wait_for(reader, TIMEOUT_S)
        equal([(last, {b"n": b"late"})], late)


async def scripts():
    async with client() as app:
        equal([b"a", b"1"], await app.eval("return {KEYS[1], ARGV[1]}", 1, "a", "1"))
        add = app.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        equal(5, await add(keys=["sum"], args=[5]))
        await app.script_flush()
        equal([False], await app.script_exists(add.sha))
        equal(12, await add(keys=["sum"], args=[7]))  # NOSCRIPT: it is loaded and tried again.
        await raises("my own", app.eval("return redis.error_reply('my own')", 0))


async def scan():
    async with client() as app:
        names = {b"scan:%d" % i for i in range(1000)}
        await app.mset({name: 1 for name in names})
        equal(names, {name async for name in app.scan_iter(match="scan:*", count=100)})
        await app.hset("scan-hash", mapping={name: b"v" for name in names})
        equal(names, {field async for field, _ in _pairs(app.hscan_iter("scan-hash"))})
        await app.sadd("scan-set", *names)
        equal(names, {member async for member in app.sscan_iter("scan-set")})


async def _pairs(rows):
    """hscan_iter of redis-py 4.3 gives field names alone, later ones give pairs."""
    async for row in rows:
        yield row if isinstance(row, tuple) else (row, None)


async def binary():
    async with client() as app:
        value = os.urandom(1 << 20)
        for key in (BINARY, b"", b"\r\n$-1\r\n", "schl\u00fcssel \U0001f511"):
            assert await app.set(key, value)
            equal(value, await app.get(key))
            assert await app.set(key, b"")
            equal(b"", await app.get(key))


async def reconnect():
    async with client() as app:
        assert await app.set("rc:key", "old")
        subscriber = app.pubsub()
        await subscriber.subscribe("rc:news")
        equal("subscribe", (await next_message(subscriber))["type"])
        await asyncio.get_running_loop().run_in_executor(None, restart_server)

        async def is_back():
            try:
                return await app.set("rc:key", "new")
            except redis.ConnectionError:
                return False

        await until(is_back, "a SET works again")
        equal(b"new", await app.get("rc:key"))

        async def news():
            await app.publish("rc:news", "hello")
            try:
                message = await subscriber.get_message(True, timeout=0.02)
            except redis.ConnectionError:
                return False
            return message and message["data"] == b"hello"

        await until(news, "the subscriber hears news again")
        await subscriber.close()
        async with app.pipeline() as pipe:
            equal([True, b"1"], await pipe.set("rc:tx", 1).get("rc:tx").execute())


def case(coroutine_function):
    return lambda: asyncio.run(asyncio.wait_for(coroutine_function(), 2 * TIMEOUT_S))


run(
    {
        "connect": case(connect),
        "pool": case(pool),
        "pipeline": case(pipeline),
        "transaction": case(transaction),
        "watch": case(watch),
        "pubsub": case(pubsub),
        "blocking-pop": case(blocking_pop),
        "streams": case(streams),
        "scripts": case(scripts),
        "scan": case(scan),
        "binary": case(binary),
        "reconnect": case(reconnect),
    }
)
