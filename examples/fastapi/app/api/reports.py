"""Reports, which take long to make: cached, and made anew while the cache is away."""

import time

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from app.core.cache import Cache, get_cache

router = APIRouter(prefix="/reports")


class Report(BaseModel):
    name: str
    made_at_ns: int


async def make_report(name: str) -> dict:
    """In your app: the query that takes long."""
    return {"name": name, "made_at_ns": time.time_ns()}


@router.get("/{name}", response_model=Report)
async def read_report(name: str, request: Request, cache: Cache = Depends(get_cache)):
    ttl_s = request.app.state.settings.report_ttl_s
    return await cache.get_or_make(f"report:{name}", ttl_s, lambda: make_report(name))
