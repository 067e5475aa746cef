"""The checker finds what it is there to find, and nothing else."""

import unittest

from history import Checker, Read


class HistoryTest(unittest.TestCase):
    def setUp(self):
        self.checker = Checker({"a": 1.0, "b": 1.0, "direct": 0.0})

    def step(self, state, start, end, channel="a"):
        self.checker.step("k", state, start, end, channel)

    def read(self, state, start, end, channel="a", session="reader"):
        before = len(self.checker.violations)
        self.checker.read("k", state, start, end, channel, session)
        found = self.checker.violations[before:]
        return found[0].rule if found else None

    def test_own_write_is_seen_at_once(self):
        self.step("1", 10.0, 10.1)
        self.assertEqual(self.read(None, 10.2, 10.3), "OWN")
        self.assertIsNone(self.read(None, 10.05, 10.3, session="sent before the answer"))
        self.assertIsNone(self.read("1", 10.2, 10.3))

    def test_elsewhere_is_seen_within_the_bound(self):
        self.step("1", 10.0, 10.1)
        self.assertIsNone(self.read(None, 11.0, 11.2, "b"))
        self.assertEqual(self.read(None, 11.2, 11.3, "b"), "ELSEWHERE")

    def test_the_server_itself_has_no_bound(self):
        self.step("1", 10.0, 10.1)
        self.assertEqual(self.read(None, 10.2, 10.3, "direct"), "ELSEWHERE")

    def test_a_session_does_not_go_back(self):
        self.step("1", 10.0, 10.1)
        self.step("2", 10.2, 10.3)
        self.assertIsNone(self.read("2", 10.4, 10.5, "b"))
        self.assertIsNone(self.read("1", 10.4, 10.5, "b", "another"))
        self.assertEqual(self.read("1", 10.6, 10.7, "b"), "BACK")

    def test_absent_again_is_not_going_back(self):
        self.step("1", 10.0, 10.1)
        self.step(None, 10.2, 10.3)
        self.assertIsNone(self.read("1", 10.25, 10.3, "b"))
        self.assertIsNone(self.read(None, 10.4, 10.5, "b"))
        self.assertEqual(self.read("1", 10.6, 10.7, "b"), "BACK")

    def test_what_nobody_wrote(self):
        self.assertEqual(self.read("1", 1.0, 1.1), "UNKNOWN")
        self.step("1", 10.0, 10.1)
        self.assertEqual(self.read("1", 9.0, 9.9), "UNKNOWN")
        self.assertIsNone(self.read("1", 9.0, 10.05))

    def test_an_unknown_outcome_retires_its_key(self):
        self.step("1", 10.0, 10.1)
        self.checker.retire("k", 10.2)
        self.assertIsNone(self.read("2", 10.1, 10.3))
        self.assertEqual(self.read("2", 10.1, 10.15), "UNKNOWN")
        self.assertEqual(self.checker.reads, 1)

    def test_what_a_former_primary_alone_was_told_is_seen_until_all_have_turned(self):
        self.step("1", 10.0, 10.1)
        self.checker.lose("k", "lost", 10.5)
        self.assertIsNone(self.read("lost", 10.2, 10.9))
        self.assertIsNone(self.read("1", 10.4, 10.5))
        self.assertEqual(self.read("lost", 10.5, 10.6), "LOST")

    def test_of_a_silent_step_only_the_bound_is_known(self):
        self.step("1", 10.0, 10.1)
        self.checker.step("k", "2", 10.2, 10.3, "direct", is_silent=True)
        self.assertIsNone(self.read("2", 10.4, 10.5, "b"))
        self.assertIsNone(self.read("1", 10.6, 10.7, "b"))
        self.assertEqual(self.read(None, 10.7, 10.8, "b"), "BACK")
        self.assertEqual(self.read("1", 11.4, 11.5, "b"), "ELSEWHERE")

    def test_of_a_violation_all_is_told_that_is_known(self):
        self.step("1", 10.0, 10.1)
        self.checker.step("k", "2", 10.2, 10.3, "direct", is_silent=True)
        self.step("3", 10.4, 10.5)
        reads = [
            Read("k", "1", 7.0, 7.1, "b", "reader"),  # Too long ago.
            Read("k", "3", 10.6, 10.7, "b", "reader"),
            Read("k", "3", 10.65, 10.66, "b", "another"),
            Read("k", "3", 10.65, 10.66, "a", "of another channel"),
            Read("other", "3", 10.65, 10.66, "b", "reader"),
            Read("k", "1", 11.35, 11.36, "b", "reader"),
            Read("k", "3", 11.34, 11.35, "b", "another"),
        ]
        for read in reads[1:2] + reads[5:6]:
            self.checker.read(*read)
        (violation,) = self.checker.violations
        self.assertEqual(
            self.checker.explain(violation, reads),
            [
                "step 0: None, sent -11.3500 s, answered -11.3500 s, through nobody",
                "step 1: 1, sent -1.3500 s, answered -1.2500 s, through a",
                "step 2 (silent): 2, sent -1.1500 s, answered -1.0500 s, through direct",
                "step 3: 3, sent -0.9500 s, answered -0.8500 s, through a",
                "reader was shown 3 (step 3), asked -0.7500 s, answered -0.6500 s",
                "reader was shown 1 (step 1), asked +0.0000 s, answered +0.0100 s",
                "another was shown 3 (step 3), asked -0.0100 s, answered +0.0000 s",
            ],
        )


if __name__ == "__main__":
    unittest.main()
