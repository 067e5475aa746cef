"""How the benchmark ends by a signal: SystemExit, which clears up, but never in the middle of a
start, where a child would be running that nobody knows yet."""
import contextlib
import signal

# A signal that our caller ignores, as nohup does, stays ignored.
ENDING = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
          if signal.getsignal(number) != signal.SIG_IGN]
_state = {"depth": 0, "pending": None}


def end_by_signals():
    _set_handler(_end)


def ignore_signals():
    _set_handler(signal.SIG_IGN)


@contextlib.contextmanager
def deferred():
    """What arrives meanwhile ends us afterwards."""
    _state["depth"] += 1
    try:
        yield
    finally:
        _state["depth"] -= 1
        if _state["pending"] and _state["depth"] == 0:
            number, _state["pending"] = _state["pending"], None
            raise SystemExit(128 + number)


def _set_handler(handler):
    for number in ENDING:
        signal.signal(number, handler)


def _end(number, _frame):
    if _state["depth"]:
        _state["pending"] = number
    else:
        raise SystemExit(128 + number)
