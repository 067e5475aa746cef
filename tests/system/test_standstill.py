"""What tells run_all.py that the machine stood still."""

import contextlib
import io
import unittest

from tests.standstill import INTERVAL_S, LATE_S, StandstillWatch


class StandstillTest(unittest.TestCase):
    def setUp(self):
        self.now = 100.0
        self.late = 0.0
        self.busy = self.used = 0.0
        self.watch = StandstillWatch(clock=lambda: self.now, sleep=self.sleep, busy=lambda: self.used)

    def sleep(self, seconds):
        self.now += seconds + self.late
        self.used += self.busy

    def pass_with(self, late):
        self.late = late
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.watch.watch_once()
        return said.getvalue()

    def test_it_is_seen_by_who_ran_meanwhile_and_by_nobody_else(self):
        self.assertEqual("", self.pass_with(0.9 * LATE_S))
        begin = self.now
        self.assertEqual("the machine stood still for 2.6 s\n", self.pass_with(2.5))
        end = self.now
        self.assertEqual("", self.pass_with(0))
        self.assertFalse(self.watch.was_between(90, begin))
        self.assertFalse(self.watch.was_between(end, end + 10))
        for first, last in ((90, begin + 0.1), (begin + 1, begin + 1.1), (end - 0.1, end + 10)):
            self.assertTrue(self.watch.was_between(first, last), (first, last))

    def test_another_thread_of_the_process_is_no_standstill(self):
        self.busy = 2.0
        self.assertEqual("", self.pass_with(2.5))

    def test_a_busy_machine_wakes_it_in_time(self):
        for _ in range(50):
            self.assertEqual("", self.pass_with(INTERVAL_S))
        self.assertFalse(self.watch.was_between(0, self.now + 1))


if __name__ == "__main__":
    unittest.main()
