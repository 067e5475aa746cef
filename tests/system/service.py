"""What systemd does for a service, without systemd: its sockets, opened before the service starts
and kept while it is away (sd_listen_fds), and what the service says of itself (sd_notify)."""

import copy
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time

from harness import Nearkey, wait_for
from procfs import is_alive

# LISTEN_PID is the service's own: the shell has the pid already that it will have.
START = 'export LISTEN_PID=$$; exec "$@"'


class SocketUnit:
    """Listening sockets that outlive the services which are started with them."""

    def __init__(self, *paths, names=()):
        self.names = list(names)
        self.sockets = []
        for path in paths:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(path)
            listening.listen(512)
            self.sockets.append(listening)

    def close(self):
        for listening in self.sockets:
            listening.close()


class Service(Nearkey):
    """nearkey as a unit with `Sockets=` and Type=notify starts it."""

    def __init__(self, directory, upstream, *, unit=None, notify=None, variables=None, **options):
        super().__init__(directory, upstream, environment={**(variables or {})}, **options)
        self.unit = unit
        if notify is not None:
            self.environment["NOTIFY_SOCKET"] = notify.path

    def spawn(self, command, **options):
        if self.unit is None:
            super().spawn(command, **options)
            return
        count = len(self.unit.sockets)
        options["env"] = {
            **options["env"],
            "LISTEN_FDS": str(count),
            "LISTEN_FDNAMES": ":".join(self.unit.names),
        }
        # The descriptors go to 3 and up in two steps: their numbers here may be among those.
        high = [os.dup2(s.fileno(), 200 + i) for i, s in enumerate(self.unit.sockets)]
        moves = " ".join(f"{3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(high))
        script = f"exec {moves}; {START}"
        try:
            super().spawn(["bash", "-c", script, "bash", *command], pass_fds=high, **options)
        finally:
            for fd in high:
                os.close(fd)


class NotifySocket:
    """$NOTIFY_SOCKET: keeps the messages as dictionaries, each with its sender's pid."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify.sock")
        self.messages = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self):
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(65536, 1024)
            if data == b"close":
                return
            fields = dict(line.split("=", 1) for line in data.decode().splitlines())
            for _, kind, value in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    fields["pid"] = int.from_bytes(value[:4], "little")
            self.messages.append(fields)

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"close", self.path)
        self._thread.join(5)
        self._socket.close()

    def count(self, name, value="1"):
        return sum(message.get(name) == value for message in list(self.messages))

    def statuses(self):
        return [message["STATUS"] for message in list(self.messages) if "STATUS" in message]

    def wait(self, name, value="1", *, more_than=0, timeout=10):
        wait_for(
            lambda: self.count(name, value) > more_than,
            timeout,
            f"{name}={value} more than {more_than} times in {self.messages[-5:]}",
        )


class SuccessorProcess:
    """What subprocess.Popen is for a child, for a process that our child has started."""

    def __init__(self, pid):
        self.pid = pid
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            except ChildProcessError:
                # Its parent lives, or has reaped it.
                self.returncode = None if is_alive(self.pid) else 0
        return self.returncode

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def adopt_orphans():
    """Who is left behind by a child of ours becomes our child, so that its exit code is seen."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def successor_of(old, pid):
    """The nearkey that `old` has started, as one that we have started. Both write to one log."""
    new = copy.copy(old)
    new.process = SuccessorProcess(pid)
    new._stopped = False
    new._reader = None
    return new
