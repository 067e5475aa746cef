"""A FastAPI app that caches through nearkey.

    CACHE_URL=unix:///run/nearkey/nearkey.sock uvicorn --app-dir examples/fastapi app:app

One client for the whole app, made when it starts and closed when it ends. The rule: the cache makes
the app faster and is never needed; while it is away the app serves without it, and says so.
"""

import asyncio
import json
import logging
import os
import time
from contextlib import asynccontextmanager

import redis.asyncio as redis
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

CACHE_URL = os.environ.get("CACHE_URL", "unix:///run/nearkey/nearkey.sock")
# nearkey's admin address: the path of a Unix socket, or 127.0.0.1:PORT.
NEARKEY_ADMIN = os.environ.get("NEARKEY_ADMIN", "/run/nearkey/admin.sock")
# How long one answer of the cache may take. nearkey itself is faster: while Valkey is away, it says
# so after its upstream.queue_timeout_ms (500).
CACHE_TIMEOUT_S = float(os.environ.get("CACHE_TIMEOUT_S", "1"))
REPORT_TTL_S = 60

log = logging.getLogger("app")


@asynccontextmanager
async def lifespan(app: FastAPI):
    # Connects when it is first used, so the app also starts while nearkey is away.
    app.state.cache = redis.from_url(
        CACHE_URL, socket_timeout=CACHE_TIMEOUT_S, socket_connect_timeout=CACHE_TIMEOUT_S
    )
    try:
        yield
    finally:
        # close() alone would leave the connections of a client that from_url() made open.
        await app.state.cache.connection_pool.disconnect()


app = FastAPI()
# From FastAPI 0.93 on this is FastAPI(lifespan=lifespan); Debian 12 has 0.92.
app.router.lifespan_context = lifespan


def get_cache(request: Request) -> redis.Redis:
    return request.app.state.cache


async def get_or_make(cache: redis.Redis, key: str, ttl_s: int, make):
    """The cached value, or a new one that the next request finds in the cache."""
    try:
        cached = await cache.get(key)
    except redis.RedisError as error:
        log.warning("serving without the cache: %s", error)
        return await make()
    if cached is not None:
        return json.loads(cached)
    value = await make()
    try:
        await cache.set(key, json.dumps(value), ex=ttl_s)
    except redis.RedisError as error:
        log.warning("not cached: %s", error)
    return value


async def make_report(name: str) -> dict:
    """In your app: the query that takes long."""
    return {"name": name, "made_at_ns": time.time_ns()}


@app.get("/reports/{name}")
async def report(name: str, cache: redis.Redis = Depends(get_cache)):
    return await get_or_make(cache, f"report:{name}", REPORT_TTL_S, lambda: make_report(name))


@app.get("/health")
async def health():
    """200 as long as the app serves, and what nearkey says of itself."""
    return {"app": "ok", "cache": await ask_nearkey()}


@app.get("/health/cache")
async def health_of_cache():
    """200 while the cache is ready, 503 while the app serves without it."""
    cache = await ask_nearkey()
    return JSONResponse(cache, status_code=200 if cache["is_ready"] else 503)


async def ask_nearkey() -> dict:
    """nearkey's readiness: whether Valkey answers it, since when, and why not."""
    try:
        status, answer = await asyncio.wait_for(get_json(NEARKEY_ADMIN, "/readyz"), CACHE_TIMEOUT_S)
        return {"is_ready": status == 200, **answer}
    except (OSError, ValueError, IndexError, asyncio.TimeoutError) as error:
        return {"is_ready": False, "state": "away", "reason": f"no answer from nearkey: {error}"}


async def get_json(address: str, path: str):
    """A GET over a Unix socket or loopback TCP, without a library for it: (status, body)."""
    if address.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return int(head.split()[1]), json.loads(body)
