"""redis-py's RedisCluster as applications use it: redis_py_cluster.py HOST:PORT [CASE,CASE...]"""

import sys
import threading

import redis
from cases import TIMEOUT_S, equal, raises, run, until
from redis.cluster import RedisCluster

HOST, PORT = sys.argv[1].rsplit(":", 1)
KEYS = [f"key:{number}" for number in range(100)]


def client(**options):
    return RedisCluster(host=HOST, port=int(PORT), socket_timeout=TIMEOUT_S, **options)


def connect():
    app = client(decode_responses=True)
    assert app.ping()
    equal([(HOST, int(PORT))], [(node.host, node.port) for node in app.get_nodes()])
    for key in KEYS:
        assert app.set(key, key, ex=100)
        equal(key, app.get(key))
    equal(None, app.get("absent"))
    equal(2, app.hset("hash", mapping={"a": "1", "b": "zwei"}))
    equal({"a": "1", "b": "zwei"}, app.hgetall("hash"))
    raises(redis.ResponseError, "not an integer", app.incr, "key:1")


def pipeline():
    app = client()
    pipe = app.pipeline()
    for key in KEYS:
        pipe.set(key, key).get(key)
    equal([answer for key in KEYS for answer in (True, key.encode())], pipe.execute())


def transaction():
    """RedisCluster itself has none: the node that it believes in is asked for one."""
    app = client()
    node = app.get_redis_connection(app.get_node_from_key("{tx}n"))
    with node.pipeline() as pipe:
        equal([True, 2, b"2"], pipe.set("{tx}n", 1).incr("{tx}n").get("{tx}n").execute())
    with node.pipeline() as pipe:
        pipe.watch("{tx}n")
        app.set("{tx}n", 10)
        pipe.multi()
        pipe.set("{tx}n", 3)
        raises(redis.WatchError, "", pipe.execute)
    equal(b"10", app.get("{tx}n"))


def pubsub():
    app = client()
    subscriber = app.pubsub()
    subscriber.subscribe("news")
    until(lambda: subscriber.get_message(timeout=1), "subscribed")
    for number in range(100):
        app.publish("news", number)
    got = [until(lambda: subscriber.get_message(timeout=1), "news")["data"] for _ in range(100)]
    equal([b"%d" % number for number in range(100)], got)
    subscriber.close()


def blocking_pop():
    app = client()
    answers = []
    waiting = threading.Thread(
        target=lambda: answers.append(app.blpop("list", timeout=TIMEOUT_S)), daemon=True)
    waiting.start()
    until(lambda: app.rpush("list", "x"), "pushed")
    waiting.join(TIMEOUT_S)
    equal([(b"list", b"x")], answers)


def scripts():
    app = client()
    script = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    for number, key in enumerate(KEYS):
        equal(number, app.eval(script, 1, "sum:" + key, number))


def several_keys():
    app = client()
    equal([True], sorted(set(app.mset_nonatomic({key: key for key in KEYS}))))
    equal([key.encode() for key in KEYS], app.mget_nonatomic(KEYS))
    equal(len(KEYS), app.delete(*KEYS))
    equal(0, app.exists(*KEYS))
    equal(True, app.mset({"{t}a": 1, "{t}b": 2}))
    equal([b"1", b"2"], app.mget(["{t}a", "{t}b"]))


run({
    "connect": connect,
    "pipeline": pipeline,
    "transaction": transaction,
    "pubsub": pubsub,
    "blocking-pop": blocking_pop,
    "scripts": scripts,
    "several-keys": several_keys,
})
