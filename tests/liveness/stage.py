"""One Valkey, a nearkey in front of it for each setting, and how a sequence is played on them."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path += [os.path.join(TESTS, "differential"), os.path.join(TESTS, "system")]

import player  # noqa: E402
import processes  # noqa: E402
from resp import RespClient  # noqa: E402
from sequences import blob_bytes  # noqa: E402

# With small limits a few bytes reach every buffer.
SETTINGS = {
    "default": {},
    "small": {
        "limits.output_per_client_high_water": "16KiB",
        "limits.in_flight_per_client_max": "8",
        "limits.commands_per_turn_max": "4",
        "near_cache.memory": "1MiB",
        "near_cache.value_max": "4KiB",
    },
    "workers": {"server.workers": "2"},
}
# Long pipelines are shorter by so much: four commands a turn take their time.
SCALES = {"small": 10}
# A reply has to be there so long after Valkey's; where nothing moves for longer, a client hangs.
LATE_SECONDS = 3.0 if processes.SLOW else 1.0
SILENCE_SECONDS = 9.0 if processes.SLOW else 3.0
# So long a sanitizer may take to say what it has found.
CRASH_SECONDS = 5.0 if processes.SLOW else 0.5
LAST_LINES = 80
DIGEST_BYTES_MAX = 4 << 20

Result = namedtuple("Result", "outcomes digest")


class Stage:
    tags = None  # Of keys, where what one command or transaction has must be of one slot.

    def __init__(self, binary, settings=tuple(SETTINGS), *, relay=None):
        """relay: a class that takes the place of nearkey, for each setting."""
        self.directory = tempfile.mkdtemp(prefix="nearkey-live-")
        processes.BINARY = binary
        self.server = processes.ValkeyServer(self.directory)
        self.relay = relay
        self.proxies = {}
        self.paths = {}
        self._resetting = {}
        self._had_leavers = False  # What they sent may still be under way.
        try:
            self.server.start()
            self.admin = self.server.client()
            self.upstream = self._start_upstream()
            for setting in settings:
                self._start(setting)
        except BaseException:
            self.close()
            raise

    def _start_upstream(self):
        """The URL of what is behind nearkey."""
        return self.server.url

    def _start(self, setting):
        folder = os.path.join(self.directory, setting)
        os.makedirs(folder, exist_ok=True)
        if self.relay is not None:
            path = os.path.join(folder, "relay.sock")
            self.proxies[setting] = self.relay(path, self.server.path)
        else:
            settings = {**processes.EVERY_COMMAND, **SETTINGS[setting]}
            self.proxies[setting] = processes.Nearkey(folder, self.upstream, settings=settings)
            self.proxies[setting].start()
        self.paths[setting] = self.proxies[setting].path

    def close(self):
        for proxy in self.proxies.values():
            proxy.close() if self.relay is not None else proxy.kill()
        self.server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop(self):
        """What is wrong with how nearkey ends: not with 0, or with something of note in its log."""
        problems = []
        for setting, proxy in self.proxies.items() if self.relay is None else ():
            try:
                problems += self.complaints(setting)
                proxy.stop()
            except AssertionError as error:
                problems.append(str(error))
        return problems

    def complaints(self, setting):
        logs = self.proxies[setting].logs() if self.relay is None else ()
        return [f"nearkey logged {e}" for e in logs
                if e["level"] in ("warning", "error") and not processes.is_slowness(e)]

    def crash(self, setting, patience_seconds):
        """What is left of a nearkey that ends within that time; another one takes its place."""
        proxy = self.proxies[setting]
        try:
            proxy.process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            return None
        time.sleep(0.2)  # The last lines are on their way.
        last = "\n".join(proxy.lines[-LAST_LINES:])
        self._resetting.pop(self.paths[setting], None)
        self._start(setting)
        return f"nearkey ended with {proxy.process.poll()}\n{last}"

    def play(self, sequence, *, directly, silence_seconds=SILENCE_SECONDS):
        path = self.server.path if directly else self.paths[sequence.setting]
        self._reset(path, sequence.shared)
        server = self.server.path if directly else self._server_path()
        outcomes = player.play(
            [(server if c.is_direct else path, c) for c in sequence.clients],
            may_half_close=not directly and self.relay is None,
            silence_seconds=silence_seconds,
        )
        had_leavers, self._had_leavers = self._had_leavers, sequence.has_leavers()
        is_alone = not had_leavers and not self._had_leavers
        has_digest = sequence.bytes() < DIGEST_BYTES_MAX and is_alone
        return Result(outcomes, self._digest(directly=directly) if has_digest else b"")

    def _server_path(self):
        """Of a server behind nearkey."""
        return self.server.path

    def _digest(self, *, directly):
        return self.admin.command("DEBUG", "DIGEST")

    def _reset(self, path, shared):
        """By way of the same path, so that whoever may cache has seen it."""
        client = self._resetting.get(path)
        if client is None:
            client = self._resetting[path] = RespClient(path)
        assert client.command("FLUSHALL") == b"+OK\r\n"
        self._fill(client, [(b"SET", key, blob_bytes(blob)) for key, blob in shared])

    def _fill(self, client, commands):
        self.admin.pipeline(commands)
