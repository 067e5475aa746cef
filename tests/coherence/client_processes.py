"""The processes of clients of a run: what they are told, what they answer, and how one has died.

Nobody waits for a process that is gone: whatever waits for clients goes through here, and ends with
Ended, which says who it was, its exit code, and its traceback.
"""

import faulthandler
import multiprocessing
import multiprocessing.connection
import sys
import traceback
from types import SimpleNamespace

LAST_LINES = 20
EXIT_S = 5


class Ended(Exception):
    """A process of the run has ended that should not: the run ends with it."""


class Died:
    """What a client sends in place of an answer."""

    def __init__(self, traceback):
        self.traceback = traceback


class Shared(SimpleNamespace):
    """What the processes tell each other without locks: each cell has one writer."""

    def __init__(self, owners, slots):
        super().__init__(
            stop=multiprocessing.Value("b", 0, lock=False),
            pause=multiprocessing.Value("b", 0, lock=False),
            paused=multiprocessing.Array("b", owners, lock=False),
            generations=multiprocessing.Array("i", owners * slots, lock=False),
        )


class ClientProcesses:
    def __init__(self, owners, slots):
        """So many will be started, each the owner of so many keys."""
        self.shared = Shared(owners, slots)
        self._context = multiprocessing.get_context("fork")
        self._processes = []
        self._pipes = []

    def start(self, target, *arguments):
        """target(*arguments, pipe) in a process of its own."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=run, args=(target, arguments, theirs), daemon=True)
        process.start()
        theirs.close()  # So that the pipe of one that is gone is at its end.
        self._processes.append(process)
        self._pipes.append(ours)

    def __len__(self):
        return len(self._processes)

    def tell(self, what):
        for pipe in self._pipes:
            try:
                pipe.send(what)
            except OSError:
                self.rest(0)
                raise

    def hear(self):
        """One answer from each."""
        answers = {}
        while len(answers) < len(self):
            left = {pipe: n for n, pipe in enumerate(self._pipes) if n not in answers}
            for pipe in multiprocessing.connection.wait(list(left)):
                answers[left[pipe]] = self._take(left[pipe])
        return [answers[number] for number in range(len(self))]

    def rest(self, seconds):
        """Sleeps as long as all of them live."""
        by_sentinel = {process.sentinel: n for n, process in enumerate(self._processes)}
        for sentinel in multiprocessing.connection.wait(list(by_sentinel), seconds):
            raise self._ended(by_sentinel[sentinel])

    def pause(self):
        """Until pause is over nobody writes, and nothing that was written is unanswered."""
        self.shared.pause.value = 1
        while not all(self.shared.paused):
            self.rest(0.001)

    def resume(self, event):
        """`event` is what was done to all keys meanwhile."""
        self.tell(event)
        self.shared.pause.value = 0
        while any(self.shared.paused):
            self.rest(0.001)

    def join(self):
        for process in self._processes:
            process.join()

    def kill(self):
        for process in self._processes:
            process.kill()

    def _take(self, number):
        """What has come from it."""
        try:
            answer = self._pipes[number].recv()
        except (EOFError, OSError):
            answer = Died("")
        if isinstance(answer, Died):
            raise self._error(number, answer.traceback)
        return answer

    def _ended(self, number):
        """Of one that is gone: an answer that nobody has taken is of no use any more."""
        while self._pipes[number].poll():
            try:
                self._take(number)
            except Ended as ended:
                return ended
        return self._error(number, "")

    def _error(self, number, told):
        process = self._processes[number]
        process.join(EXIT_S)
        text = f"client process {number} (pid {process.pid}) ended with {process.exitcode}"
        return Ended(f"{text}\n{told}" if told else text)


def run(target, arguments, pipe):
    faulthandler.enable()  # Of a signal as well its traceback is printed.
    try:
        target(*arguments, pipe)
    except BaseException:
        pipe.send(Died(traceback.format_exc()))
        sys.exit(1)


def check_running(processes):
    """`processes` of a world by name, in the code of tests/system/processes.py."""
    for name, process in processes.items():
        if not process.is_running():
            raise Ended(f"{name} {state(process)}")


def describe(processes):
    """How each is, and the last that it said."""
    return "\n".join(
        f"{name} {state(process)}; its last lines:\n" + "\n".join(f"    {line}" for line in lines)
        for name, process in processes.items()
        for lines in [process.last_words().splitlines()[-LAST_LINES:]]
    )


def state(process):
    code = process.process.poll()
    return f"(pid {process.pid}) " + ("runs" if code is None else f"ended with {code}")
