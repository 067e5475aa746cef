"""Health, of the app and of the cache: an app that serves without its cache is in good health."""

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from app.core.cache import Cache, CacheAway, get_cache

router = APIRouter()


async def health_of(cache: Cache) -> dict:
    """PING goes on to Valkey: its answer says that nearkey and Valkey are there."""
    try:
        await cache.ping()
    except CacheAway as error:
        return {"status": "away", "reason": str(error)}
    return {"status": "ok"}


@router.get("/health")
async def health(cache: Cache = Depends(get_cache)):
    """200 as long as the app serves; for the load balancer."""
    return {"app": {"status": "ok"}, "cache": await health_of(cache)}


@router.get("/health/cache")
async def health_of_cache(cache: Cache = Depends(get_cache)):
    """503 while the app serves without the cache; for alerts."""
    state = await health_of(cache)
    return JSONResponse(state, status_code=200 if state["status"] == "ok" else 503)
