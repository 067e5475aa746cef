"""Listeners of a configuration file, and clients that connect as another user."""

import os
import subprocess
import sys
import unittest

from harness import SystemTest
from processes import SLOWNESS
from resp import RespClient

# Asks for PING, or says what came in its place; the path is the argument.
CLIENT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(10)
    try:
        client.connect(sys.argv[1])
        client.sendall(b"PING\\r\\n")
    except PermissionError:
        print("EACCES")
        sys.exit()
    except OSError:
        pass  # Refused already: what was said is still there.
    sys.stdout.buffer.write(client.recv(4096))
"""

needs_root = unittest.skipUnless(os.geteuid() == 0, "to be another user needs root")


def ask_as(path, user, group, groups=()):
    """What a client with these ids is told when it says PING."""
    extra = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    done = subprocess.run(
        ["setpriv", "--reuid", str(user), "--regid", str(group), *extra]
        + [sys.executable, "-c", CLIENT, path],
        capture_output=True,
        timeout=20 * SLOWNESS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


class ListenerTest(SystemTest):
    """Names a listener by a word: its socket is WORD.sock in the test's folder."""

    def path(self, name):
        return os.path.join(self.directory, f"{name}.sock")

    def write_config(self, listeners):
        """`listeners`: word to lines of TOML. The path of the file."""
        os.chmod(self.directory, 0o755)  # Other users may go through it.
        path = os.path.join(self.directory, "nearkey.toml")
        with open(path, "w") as file:
            for name, options in listeners.items():
                file.write(f'[[listener]]\naddress = "{self.path(name)}"\n{options}\n')
        return path

    def start_listeners(self, listeners, **options):
        config = self.write_config(listeners)
        return self.start_nearkey(
            self.server.url, listen=[], args=["--config", config], **options
        )

    def connect(self, name, **options):
        client = RespClient(self.path(name), **options)
        self.addCleanup(client.close)
        return client
