"""A relay between nearkey and its server that misbehaves on request: latency, one-byte slices, a
cut in mid-reply, a direction that is frozen. `netem` is not to be had in an unprivileged namespace,
so this is done in user space.

One thread per direction of each connection; the knobs may be turned at any time.
"""

import socket
import threading
import time

# Of the requests of each connection: enough for all that makes it what it is.
ASKED_MAX = 4096


class Relay:
    """Listens on a Unix socket at `path`, or on TCP where that is a (host, port) pair, and relays to
    `target`, which is the one or the other. New connections go where that leads by then."""

    def __init__(self, path, target):
        self.path = path
        self.target = target
        self.slice_bytes = 0  # 0: whole reads; n: the server's bytes arrive n at a time.
        self.latency_seconds = 0.0  # Added to each read of the server's bytes.
        self.spread_seconds = 0.0  # The n-th connection lags by n % 4 times as much more.
        self.cut_after_bytes = (
            None  # The connection is closed once so many more of the server's bytes have passed.
        )
        self.accepted = 0
        self._held = None
        self._are_requests_held = False
        self._none_is_held = threading.Event()
        self._none_is_held.set()
        self._replies_flow = threading.Event()
        self._requests_flow = threading.Event()
        self._replies_flow.set()
        self._requests_flow.set()
        self._sockets = []
        self._lock = threading.Lock()
        is_tcp = isinstance(path, tuple)
        self._listener = socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX)
        if is_tcp:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(path)
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze_replies(self):
        """The server's bytes no longer arrive, though every connection stays open: TCP's own timers
        see nothing."""
        self._replies_flow.clear()

    def hold(self, matches, are_requests_held=False):
        """The same for those connections whose first requests match: `matches(bytes)`."""
        self._none_is_held.clear()
        self._are_requests_held = are_requests_held
        self._held = matches

    def freeze_requests(self):
        self._requests_flow.clear()

    def thaw(self):
        self._held = None
        self._none_is_held.set()
        self._replies_flow.set()
        self._requests_flow.set()

    def cut_all(self):
        with self._lock:
            sockets, self._sockets = self._sockets, []
            for end in sockets:
                _shut(end)

    def close(self):
        _shut(self._listener)
        self._listener.close()
        self.thaw()
        self.cut_all()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            far = socket.socket(socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET)
            try:
                far.connect(self.target)
            except OSError:
                near.close()
                far.close()
                continue
            with self._lock:
                self._sockets += [near, far]
            lag = self.accepted % 4 * self.spread_seconds
            threading.Thread(target=self._relay, args=(near, far, lag), daemon=True).start()

    def _relay(self, near, far, lag):
        asked = bytearray()
        replies = threading.Thread(
            target=self._pump_replies, args=(far, near, lag, asked), daemon=True
        )
        replies.start()
        self._pump_requests(near, far, asked)
        replies.join()
        near.close()
        far.close()

    def _pump_requests(self, near, far, asked):
        try:
            while data := near.recv(1 << 16):
                if len(asked) < ASKED_MAX:
                    asked += data
                self._requests_flow.wait()
                if self._are_requests_held:
                    self._wait_while_held(asked)
                far.sendall(data)
        except OSError:
            pass
        _shut(near)
        _shut(far)

    def _pump_replies(self, far, near, lag, asked):
        try:
            while data := far.recv(1 << 16):
                if self.latency_seconds + lag > 0:
                    time.sleep(self.latency_seconds + lag)
                self._replies_flow.wait()
                self._wait_while_held(asked)
                if not self._pass_on(near, data):
                    break
        except OSError:
            pass
        _shut(near)
        _shut(far)

    def _wait_while_held(self, asked):
        held = self._held
        if held is not None and held(bytes(asked)):
            self._none_is_held.wait()

    def _pass_on(self, near, data):
        """False once the connection is to be cut."""
        allowed = self.cut_after_bytes
        if allowed is not None:
            self.cut_after_bytes = max(allowed - len(data), 0)
            if allowed <= len(data):
                near.sendall(data[:allowed])
                return False
        step = self.slice_bytes or len(data)
        for at in range(0, len(data), step):
            near.sendall(data[at : at + step])
            if self.slice_bytes:
                time.sleep(0.0001)
        return True


def _shut(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
