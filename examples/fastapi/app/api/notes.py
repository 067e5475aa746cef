"""Notes, which live in the cache alone: while it is away, CacheAway makes the answer 503."""

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel

from app.core.cache import Cache, get_cache

router = APIRouter(prefix="/notes")

NOTE_TTL_S = 3600


class Note(BaseModel):
    text: str


@router.put("/{name}", status_code=204)
async def write_note(name: str, note: Note, cache: Cache = Depends(get_cache)):
    await cache.set(f"note:{name}", note.text, ex=NOTE_TTL_S)


@router.get("/{name}", response_model=Note)
async def read_note(name: str, cache: Cache = Depends(get_cache)):
    text = await cache.get(f"note:{name}")
    if text is None:
        raise HTTPException(404, "no such note")
    return {"text": text}
