"""What the environment says, checked when the app starts."""

import os
from typing import Literal

from pydantic import BaseModel, PositiveFloat, PositiveInt


class Settings(BaseModel):
    """Each field is a variable of the environment in capitals: CACHE_URL, CACHE_TIMEOUT_S ..."""

    cache_url: str = "unix:///run/nearkey/nearkey.sock"
    # How long connecting, or one answer, may take. nearkey says within half a second that Valkey
    # is away (upstream.queue_timeout_ms).
    cache_timeout_s: PositiveFloat = 1
    report_ttl_s: PositiveInt = 60
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # With Pydantic 2 and the package pydantic-settings, BaseSettings does this; Debian 12 has
    # Pydantic 1.
    @classmethod
    def from_environment(cls) -> "Settings":
        names = [name for name in cls.__annotations__ if name.upper() in os.environ]
        return cls(**{name: os.environ[name.upper()] for name in names})
