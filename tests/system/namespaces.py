"""Runs a test again inside namespaces of its own (`unshare`), where it may drop packets and rewrite
/etc/hosts.

Needs no privileges beyond unprivileged user namespaces. A test that wants this is decorated with
@in_namespace: outside it starts itself inside; inside it runs.
"""

import functools
import os
import subprocess
import sys
import unittest

from processes import SLOWNESS

INSIDE = "NEARKEY_TEST_INSIDE"
HERE = os.path.dirname(os.path.abspath(__file__))


def _reason_against(flags, probe):
    done = subprocess.run(
        ["unshare", flags, "sh", "-c", probe], capture_output=True, text=True, timeout=20
    )
    return (
        None
        if done.returncode == 0
        else f"unshare {flags} is not permitted here: {done.stderr.strip()[:200]}"
    )


def in_namespace(flags, probe):
    """`flags` for unshare (-Urn, -Urnm); `probe` is the shell command that shows that what the test
    needs is there."""

    def decorate(method):
        @functools.wraps(method)
        def wrapper(self):
            if os.environ.get(INSIDE) == "1":
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
                return method(self)
            reason = _reason_against(flags, probe)
            if reason is not None:
                raise unittest.SkipTest(reason)
            module = os.path.splitext(os.path.basename(sys.modules[method.__module__].__file__))[0]
            name = f"{module}.{method.__qualname__}"
            done = subprocess.run(
                ["unshare", flags, sys.executable, "-B", "-m", "unittest", name],
                cwd=HERE,
                env={**os.environ, INSIDE: "1"},
                capture_output=True,
                text=True,
                timeout=60 * SLOWNESS,
            )
            if done.returncode != 0:
                self.fail(f"inside unshare {flags}:\n{done.stderr}")

        return wrapper

    return decorate


def iptables(*args):
    subprocess.run(["iptables", *args], check=True, timeout=10, capture_output=True)


def cut_port(port, target):
    """Both directions of the port: `target` is ["DROP"] or ["REJECT", "--reject-with",
    "tcp-reset"]."""
    for side in ("--dport", "--sport"):
        if target[0] == "DROP" or side == "--dport":
            iptables("-A", "INPUT", "-p", "tcp", side, str(port), "-j", *target)


def heal():
    iptables("-F", "INPUT")


def bind_over(path, source):
    """`path` shows the contents of the file `source` from now on; later changes of `source` show
    through."""
    subprocess.run(["mount", "--bind", source, path], check=True, timeout=10)
