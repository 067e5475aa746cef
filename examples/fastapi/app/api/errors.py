"""What a caller gets where an endpoint lets an exception through."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from app.core.cache import CacheAway
from app.core.logging import correlation_id


async def on_cache_away(request: Request, error: CacheAway) -> JSONResponse:
    return JSONResponse(
        {"detail": "the cache is away"}, status_code=503, headers={"Retry-After": "1"}
    )


async def on_error(request: Request, error: Exception) -> JSONResponse:
    """Answered outside of all middlewares, so it names the request itself."""
    request_id = correlation_id.get()
    return JSONResponse(
        {"detail": "internal error", "request_id": request_id},
        status_code=500,
        headers={"x-request-id": request_id},
    )


def add_handlers(app: FastAPI):
    app.add_exception_handler(CacheAway, on_cache_away)
    app.add_exception_handler(Exception, on_error)
