"""Django's cache through nearkey, with django-redis."""

import os

from django.conf import settings

settings.configure(
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ.get("CACHE_URL", "unix:///run/nearkey/nearkey.sock"),
            "OPTIONS": {
                "SOCKET_TIMEOUT": 1,
                # A cache that is away is a cache that misses; -UPSTREAMDOWN counts as away.
                "IGNORE_EXCEPTIONS": True,
            },
        }
    }
)

from django.core.cache import cache  # noqa: E402  It reads the settings.

cache.set("greeting", {"text": "hello"}, timeout=10)
print("get:", cache.get("greeting"))
print("touch:", cache.touch("greeting", 60), "ttl:", cache.ttl("greeting"))
print("get_or_set:", cache.get_or_set("report", lambda: "made", 60), cache.get("report"))
print("incr:", cache.get_or_set("visits", 0, 60), cache.incr("visits"))
print("many:", dict(cache.get_many(["greeting", "report", "absent"])))
with cache.lock("import", timeout=5, blocking_timeout=1):
    print("lock: held,", "taken" if cache.lock("import").acquire(blocking=False) else "refused")
cache.delete_many(["greeting", "report", "visits"])
print("deleted:", cache.get("greeting"))
