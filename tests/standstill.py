"""Notices that the machine stands still: a virtual one that is moved or copied runs nothing for some
seconds, in which all clocks go on. What has a bound of time and ran then says little."""
import threading
import time

INTERVAL_S = 0.1
# A thread that only sleeps is woken sooner than this on a machine that is merely busy.
LATE_S = 1.0


class StandstillWatch:
    """Sleeps all the time, and notes when it was woken too late. The arguments: for its test."""

    def __init__(self, clock=time.monotonic, sleep=time.sleep, busy=time.process_time):
        self._clock = clock
        self._busy = busy
        self._sleep = sleep
        self._seen = []  # of each: when it began, and ended

    def start(self):
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def _run(self):
        while True:
            self.watch_once()

    def watch_once(self):
        begin, busy = self._clock(), self._busy()
        self._sleep(INTERVAL_S)
        end = self._clock()
        # Not if it was another thread of this process that let nobody else run.
        if end - begin - (self._busy() - busy) > INTERVAL_S + LATE_S:
            self._seen.append((begin, end))
            print(f"the machine stood still for {end - begin:.1f} s", flush=True)

    def was_between(self, begin, end):
        return any(first < end and begin < last for first, last in self._seen)
