"""A run ends at once with a process that it needs, and says what that had to say."""

import os
import signal
import tempfile
import time
import unittest

from client_processes import ClientProcesses, Ended, check_running, describe
from processes import Nearkey, wait_for

LONG_S = 60
AT_ONCE_S = 30


def answer(number, pipe):
    pipe.send(number)
    pipe.send(pipe.recv() + number)


def fail_when_told(pipe):
    raise ValueError(f"what was wrong with {pipe.recv()}")


def be_killed(pipe):
    pipe.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def live_on(pipe):
    time.sleep(LONG_S)


class ClientProcessesTest(unittest.TestCase):
    def setUp(self):
        self.clients = ClientProcesses(4, 1)
        self.addCleanup(self.clients.join)
        self.addCleanup(self.clients.kill)
        signal.signal(signal.SIGALRM, self.give_up)
        signal.alarm(AT_ONCE_S)
        self.addCleanup(signal.alarm, 0)

    def give_up(self, *_):
        raise AssertionError("it waits for ever")

    def test_answers_come_in_the_order_of_the_processes(self):
        for number in range(4):
            self.clients.start(answer, number)
        self.assertEqual([0, 1, 2, 3], self.clients.hear())
        self.clients.tell(10)
        self.assertEqual([10, 11, 12, 13], self.clients.hear())

    def test_whoever_waits_for_one_that_fails_is_told_why(self):
        self.check_each_wait(fail_when_told, "ended with 1", "Traceback", "what was wrong with it")

    def test_one_that_is_killed(self):
        self.check_each_wait(be_killed, "ended with -9")

    def check_each_wait(self, target, *words):
        for wait in ("pause", "hear", "rest", "resume"):
            with self.subTest(wait):
                signal.alarm(AT_ONCE_S)
                self.clients = ClientProcesses(2, 1)
                self.clients.start(live_on)
                self.clients.start(target)
                self.addCleanup(self.clients.kill)
                self.clients.shared.paused[0] = 1
                if wait != "resume":
                    self.clients.tell("it")
                arguments = {"rest": [LONG_S], "resume": ["it"]}.get(wait, [])
                with self.assertRaises(Ended) as caught:
                    getattr(self.clients, wait)(*arguments)
                for word in ("client process 1", *words):
                    self.assertIn(word, str(caught.exception))


class WorldTest(unittest.TestCase):
    def test_one_that_has_ended_is_named_with_its_last_words(self):
        with tempfile.TemporaryDirectory() as directory:
            ended, living = Nearkey(directory, listen=[]), Nearkey(directory, listen=[])
            ended.command = ["sh", "-c", "echo one; echo last words >&2; exit 3"]
            living.command = ["sleep", str(LONG_S)]
            processes = {"nearkey a": living, "nearkey b": ended}
            for each in processes.values():
                each.start(ready=False)
                self.addCleanup(each.process.stderr.close)
                self.addCleanup(each.kill)
            wait_for(lambda: not ended.is_running() and ended.lines, 10, "it has ended")
            with self.assertRaisesRegex(Ended, r"^nearkey b \(pid \d+\) ended with 3$"):
                check_running(processes)
            self.assertRegex(describe(processes), r"(?s)nearkey a \(pid \d+\) runs; .*"
                             r"nearkey b \(pid \d+\) ended with 3; its last lines:\n    last words$")


if __name__ == "__main__":
    unittest.main()
