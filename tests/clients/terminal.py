"""A program at a terminal (a pty), typed to and read like a person would."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

# What moves the cursor or sets colours; the rest is text.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    def __init__(self, command, prompt, timeout_s):
        self.prompt = prompt
        self.timeout_s = timeout_s
        self.text = ""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        settings = {"TERM": "xterm", "VALKEYCLI_HISTFILE": "/dev/null"}
        settings["REDISCLI_HISTFILE"] = "/dev/null"
        self.child = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **settings}
        )
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.child.kill()
        self.child.wait()
        os.close(self.master)

    def enter(self, line, pattern=None):
        """Waits for the prompt (what is typed before it is lost), types a line, and waits for what
        is to appear if there is such a pattern; returns the pattern's group, or all of it."""
        self.expect(self.prompt + r"[ \r]*$")
        self.press(line + "\r")
        return self.expect(pattern) if pattern else None

    def any_key(self):
        """Presses the space bar until the prompt is there: a program may miss the first one."""
        deadline = time.monotonic() + self.timeout_s
        while not re.search(self.prompt, self.text):
            assert time.monotonic() < deadline, f"no prompt in {self.text[-600:]!r}"
            self.press(" ")
            self._read_for(0.1)

    def press(self, keys):
        os.write(self.master, keys.encode())

    def expect(self, pattern):
        """Waits for the pattern in the text since the last one; returns its group, or all of it."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            match = re.search(pattern, self.text, re.S)
            if match:
                self.text = self.text[match.end() :]
                return match[1] if match.re.groups else match[0]
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text[-600:]!r}"
            self._read_for(0.1)

    def _read_for(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the other end any more.
            data = b""
        assert data, f"the program has ended: {self.text[-600:]!r}"
        self.text = ESCAPES.sub("", self.text + data.decode(errors="replace"))

    def end(self):
        """Waits for the program to end by itself: its exit code."""
        return self.child.wait(self.timeout_s)
