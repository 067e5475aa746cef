"""Reads of the nearkeys' shared memory beside those over their sockets: by the client library, while
nearkey is killed and back at once, stopped for longer than its lease, upgraded under load, and all
else goes wrong that server_world.py has. NEARKEY_CLIENT_LIBRARY: another library than that of the
build, which Python can't load if it needs a sanitizer.
"""

import ctypes
import os
import signal
import time

import server_world

NIL, OFF, OPEN_MS = -1, -4, 200
VALUE_MAX = 4096
LEASE_S = 1.0


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("timeout_ms", ctypes.c_uint32),
                ("sample_every", ctypes.c_uint32)]


class Segment:
    """One handle of libnearkey-client."""

    def __init__(self, library, path, database):
        self.library = ctypes.CDLL(library)
        self.library.nearkey_open.restype = ctypes.c_void_p
        self.library.nearkey_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(Options)]
        self.library.nearkey_get.restype = ctypes.c_int64
        self.library.nearkey_get.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t,
                                             ctypes.c_char_p, ctypes.c_size_t]
        self.library.nearkey_refresh.argtypes = [ctypes.c_void_p]
        options = Options(ctypes.sizeof(Options), OPEN_MS, 0xFFFFFFFF)
        self.handle = self.library.nearkey_open(f"unix://{path}?db={database}".encode(),
                                                ctypes.byref(options))
        assert self.handle is not None, path
        self.value = ctypes.create_string_buffer(VALUE_MAX)

    def get(self, key):
        """(whether it is a hit, the value or None)."""
        size = self.library.nearkey_get(self.handle, key, len(key), self.value, VALUE_MAX)
        if size >= 0:
            return True, self.value.raw[:size].decode()
        if size == OFF:
            self.library.nearkey_refresh(self.handle)
        return size == NIL, None


class World(server_world.World):
    """Both nearkeys give their shared memory away."""

    def __init__(self, directory, binary, rule, needs):
        from service import adopt_orphans

        adopt_orphans()
        self.library = os.environ.get("NEARKEY_CLIENT_LIBRARY") or os.path.join(
            os.path.dirname(os.path.abspath(binary)), "libnearkey-client.so.0")
        settings = {"server.upgrade_drain_timeout_ms": 300, **needs.settings}
        super().__init__(directory, binary, rule, needs._replace(settings=settings))

    def make_nearkey(self, home, *arguments, environment, **options):
        from service import Service

        config = os.path.join(home, "nearkey.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'[[listener]]\naddress = "{home}/nearkey.sock"\nshared_memory = true\n')
        return Service(home, *arguments, listen=[], args=["--config", config],
                       variables=environment, **options)


class Faults(server_world.Faults):
    def faults(self):
        return [*super().faults(), self.kill_nearkey, self.kill_nearkey, self.stop_nearkey,
                self.upgrade_nearkey]

    def any_nearkey(self):
        return self.random.choice(sorted(self.world.nearkeys))

    def kill_nearkey(self):
        """And back at once: long before the lease of what it left is over."""
        nearkey = self.world.nearkeys[self.any_nearkey()]
        nearkey.process.kill()
        nearkey.process.wait(10)
        nearkey.start()

    def stop_nearkey(self):
        nearkey = self.world.nearkeys[self.any_nearkey()]
        nearkey.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.5, 2) * LEASE_S)
        nearkey.signal(signal.SIGCONT)

    def upgrade_nearkey(self):
        from harness import wait_for
        from service import successor_of

        name = self.any_nearkey()
        old = self.world.nearkeys[name]
        began = len(started(old))
        old.signal(signal.SIGUSR2)
        wait_for(lambda: len(started(old)) > began, 10, "a successor is started")
        new = successor_of(old, started(old)[-1])
        assert old.process.wait(30) == 0
        new.wait_ready()
        self.world.nearkeys[name] = new


def started(nearkey):
    """The pids of the successors that a nearkey has started."""
    return [entry["pid"] for entry in nearkey.logs() if entry["event"] == "upgrade_started"]
