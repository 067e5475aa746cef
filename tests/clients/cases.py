"""What the Python programs of this folder share: reporting cases, asking for a restart of the
server, waiting for a condition. run.py says what a client program prints and reads.
"""

import sys
import time
import traceback

TIMEOUT_S = 20


class Skip(Exception):
    """This client cannot do that; its text says why."""


def report(name, verdict):
    print(f"{name}: {verdict}", flush=True)


def failure(error):
    traceback.print_exc()
    text = " ".join(str(error).split())[:300]
    return f"FAIL {type(error).__name__}: {text}"


def run(cases):
    """Runs the cases {name: function}, or those that the command line names; ends the process."""
    wanted = sys.argv[2].split(",") if len(sys.argv) > 2 else list(cases)
    failed = False
    for name in wanted:
        try:
            cases[name]()
            report(name, "ok")
        except Skip as why:
            report(name, f"skipped ({why})")
        except Exception as error:
            failed = True
            report(name, failure(error))
    sys.exit(1 if failed else 0)


def restart_server():
    """Returns when the server has ended, has started again (empty) and answers."""
    print("restart", flush=True)
    answer = sys.stdin.readline()
    assert answer == "done\n", f"the runner answered {answer!r}"


def until(condition, what):
    """Polls until the condition is true and returns its value."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s: {what}"
        time.sleep(0.005)


def equal(expected, actual):
    assert expected == actual, f"expected {short(expected)}, got {short(actual)}"


def short(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:160]}... ({len(text)} characters)"


def raises(kind, text, function, *args, **options):
    """The function must fail with an exception of that kind whose message has that text."""
    try:
        value = function(*args, **options)
    except kind as error:
        assert text in str(error), f"expected {text!r} in the error {error!r}"
        return
    raise AssertionError(f"expected an error with {text!r}, got {short(value)}")
