"""Logs for machines: one JSON object a line on stdout, with the id of the request it is about."""

import json
import logging
import logging.config
import re
import uuid
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Optional

from starlette.datastructures import Headers, MutableHeaders

correlation_id: ContextVar[Optional[str]] = ContextVar("correlation_id", default=None)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "correlation_id": correlation_id.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(level: str):
    """Everything goes to the root logger, uvicorn's lines as well."""
    to_root = {"handlers": [], "propagate": True}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": {
                "stdout": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "json",
                }
            },
            "loggers": {"uvicorn": to_root, "uvicorn.access": to_root},
            "root": {"level": level, "handlers": ["stdout"]},
        }
    )


class CorrelationIdMiddleware:
    """Gives each request an id, the caller's if it sent one, and returns it as x-request-id."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = id_of(Headers(scope=scope))
        # Never reset: uvicorn logs the request, and an error that nobody handled, after this; the
        # task ends with the request.
        correlation_id.set(request_id)

        async def send_with_id(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


def id_of(headers: Headers) -> str:
    """x-request-id, or the trace of traceparent, or a new one; what is none is not taken over."""
    request_id = headers.get("x-request-id", "")
    if re.fullmatch(r"[\w.:-]{1,128}", request_id, re.ASCII):
        return request_id
    trace = re.match(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-", headers.get("traceparent", ""))
    return trace[1] if trace else uuid.uuid4().hex
