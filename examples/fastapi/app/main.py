"""The application: `uvicorn --factory app.main:create_app`."""

from contextlib import asynccontextmanager
from typing import Optional

from fastapi import FastAPI

from app.api import errors, health, notes, reports
from app.core.cache import open_cache
from app.core.logging import CorrelationIdMiddleware, configure_logging
from app.core.settings import Settings


@asynccontextmanager
async def lifespan(app: FastAPI):
    """One client for the whole process, closed at its end; each worker process makes its own."""
    async with open_cache(app.state.settings) as app.state.cache:
        yield


def create_app(settings: Optional[Settings] = None) -> FastAPI:
    settings = settings or Settings.from_environment()
    configure_logging(settings.log_level)
    app = FastAPI(title="Reports")
    # From FastAPI 0.93 on this is FastAPI(lifespan=lifespan); Debian 12 has 0.92.
    app.router.lifespan_context = lifespan
    app.state.settings = settings
    app.add_middleware(CorrelationIdMiddleware)
    errors.add_handlers(app)
    for module in (reports, notes, health):
        app.include_router(module.router)
    return app
