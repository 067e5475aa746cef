"""Celery through nearkey, which is broker and result backend: `celery -A tasks worker`."""

import os

from celery import Celery

CACHE_URL = os.environ.get("CACHE_URL", "unix:///run/nearkey/nearkey.sock")
# Celery's word for a Unix socket.
URL = CACHE_URL.replace("unix://", "redis+socket://")

app = Celery("tasks", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
app.conf.result_expires = 3600


@app.task
def add(x, y):
    return x + y
