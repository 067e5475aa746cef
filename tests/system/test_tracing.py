"""The probes of docs/tracing.md: which the program has, and what they tell a tracer."""

import os
import re
import shutil
import subprocess
import unittest

from harness import BINARY, ROOT, SLOWNESS, SystemTest, proxy_only, wait_for

READELF = shutil.which("readelf")
TRACEFS = "/sys/kernel/tracing"
BPFTRACE = shutil.which("bpftrace")
ROW = re.compile(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \| ", re.M)
NOTE = re.compile(
    r"Provider: (\w+)\s+Name: (\w+)\s+Location: (\w+), Base: (\w+), Semaphore: (\w+)\s+Arguments: (.*)"
)


def rows():
    """Probe -> names of its arguments, as the page has them."""
    with open(os.path.join(ROOT, "docs", "tracing.md")) as page:
        return {name: re.findall(r"\w+", names) for name, names in ROW.findall(page.read())}


def notes():
    """Probe -> (address, semaphore, operands), as the program has them."""
    text = subprocess.run([READELF, "-n", "-W", BINARY], capture_output=True, text=True, check=True)
    found = {}
    for provider, name, place, _, semaphore, operands in NOTE.findall(text.stdout):
        assert provider == "nearkey" and name not in found, (provider, name)
        found[name] = (int(place, 16), int(semaphore, 16), operands.split())
    return found


def file_offset(address):
    text = subprocess.run([READELF, "-lW", BINARY], capture_output=True, text=True, check=True)
    for line in text.stdout.splitlines():
        fields = line.split()
        if fields[:1] != ["LOAD"]:
            continue
        offset, begin, size = (int(fields[i], 16) for i in (1, 2, 4))
        if begin <= address < begin + size:
            return address - begin + offset
    raise AssertionError(f"{address:#x} is in no segment")


def fetched(operand):
    """An operand of a note ("8@%rdi", "-4@-20(%rbp)") as uprobe_events has it, and its type."""
    size, place = operand.split("@")
    register = r"%r?e?([a-z]{2}|\d+)[dwb]?"
    whole = re.fullmatch(register, place)
    part = re.fullmatch(rf"(-?\d*)\({register}\)", place)
    if whole:
        name = whole[1] if not whole[1].isdigit() else "r" + whole[1]
        return f"%{name}", f"u{8 * abs(int(size))}"
    name = part[2] if not part[2].isdigit() else "r" + part[2]
    return f"{int(part[1] or 0):+d}(%{name})", f"u{8 * abs(int(size))}"


@proxy_only
@unittest.skipIf(READELF is None, "readelf is not installed (binutils)")
class ProbesTest(SystemTest):
    def test_the_program_has_those_that_the_page_names(self):
        self.assertEqual(
            {name: len(names) for name, names in rows().items()},
            {name: len(operands) for name, (_, _, operands) in notes().items()},
        )
        self.assertEqual(8, len(rows()))
        for name, (_, semaphore, operands) in notes().items():
            self.assertNotEqual(0, semaphore, f"{name} would cost its arguments")
            self.assertLessEqual(len(operands), 6, f"bpftrace takes no more of {name}")

    def test_one_liners_name_probes_and_arguments_that_there_are(self):
        with open(os.path.join(ROOT, "docs", "tracing.md")) as page:
            lines = re.findall(r"bpftrace -e '(.*?)'\n", page.read(), re.S)
        self.assertGreaterEqual(len(lines), 8)
        for line in lines:
            for probe, body in re.findall(r"usdt:nearkey:nearkey:(\w+)(.*?)(?=usdt:|$)", line, re.S):
                highest = max([-1, *map(int, re.findall(r"\barg(\d+)", body))])
                self.assertLess(highest, len(rows()[probe]), line)


@proxy_only
@unittest.skipIf(READELF is None, "readelf is not installed (binutils)")
class TracedTest(SystemTest):
    """By the kernel's own uprobes, which all tracers use."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root can trace")
        subprocess.run(["mount", "-t", "tracefs", "none", TRACEFS], capture_output=True, timeout=10)
        self.instance = os.path.join(TRACEFS, "instances", f"nearkey{os.getpid()}")
        try:
            os.mkdir(self.instance)
            self.addCleanup(os.rmdir, self.instance)
            os.close(os.open(os.path.join(TRACEFS, "uprobe_events"), os.O_WRONLY | os.O_APPEND))
        except OSError as error:
            self.skipTest(f"the kernel has no uprobes for us: {error}")
        self.group = f"nearkey{os.getpid()}"

    def tell(self, path, text):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)

    def trace(self, name, /, **texts):
        """Begins; `texts`: names of arguments that are shown as text of so many bytes, others are numbers."""
        place, semaphore, operands = notes()[name]
        shown = []
        for argument, operand in zip(rows()[name], operands):
            fetch, kind = fetched(operand)
            shown.append(f"{argument}={fetch}:{kind}")
            if argument in texts:
                where = f"+0({fetch})"
                shown.append(f"{argument}_text={where}:u8[{texts[argument]}]")
        event = f"{self.group}/{name}"
        events = os.path.join(TRACEFS, "uprobe_events")
        self.tell(events, f"p:{event} {BINARY}:{file_offset(place):#x}"
                          f"({file_offset(semaphore):#x}) {' '.join(shown)}\n")
        self.addCleanup(self.tell, events, f"-:{event}\n")
        enable = os.path.join(self.instance, "events", event, "enable")
        self.tell(enable, "1")
        self.addCleanup(self.tell, enable, "0")

    def traced(self, name):
        """Each event's arguments. Other processes that run the same file are traced as well."""
        ours = f"-{self.pid} "
        with open(os.path.join(self.instance, "trace")) as trace:
            lines = [line for line in trace if f" {name}: " in line and ours in line]
        return [dict(re.findall(r"(\w+)=(\{[^}]*\}|\S+)", line.split(")", 1)[1])) for line in lines]

    def text_of(self, shown):
        return bytes(int(each, 0) for each in shown.strip("{}").split(",")).decode()

    def test_a_tagged_command_is_followed_from_the_client_to_valkey_and_into_the_cache(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        self.pid = nearkey.process.pid
        with nearkey.client() as client:
            client.command("SET", "cart:1", "milk")
            self.trace("request", name=3, key=6, tag=4)
            for name in ("upstream_send", "upstream_reply"):
                self.trace(name, command=3)
            self.trace("fill", key=6)
            self.trace("hit", key=6)
            self.trace("invalidation", key=6, cause=4)
            client.command("NEARKEY", "TAG", "7f3a")
            for _ in range(2):
                self.assertEqual(b"$4\r\nmilk\r\n", client.command("GET", "cart:1"))
            with server.client() as direct:
                direct.command("SET", "cart:1", "eggs")
            wait_for(lambda: self.traced("invalidation"), 5, "Valkey's news of the change")
        requests = self.traced("request")
        self.assertEqual(3, len(requests))
        for one in requests[1:]:
            self.assertEqual(
                ("GET", "cart:1", "7f3a"),
                tuple(self.text_of(one[f"{each}_text"]) for each in ("name", "key", "tag")),
            )
            self.assertEqual("6", one["key_length"])
        first, second = [(one["client"], one["request"]) for one in requests[1:]]
        self.assertEqual(first[0], second[0])

        def of(name, command):
            return [one for one in self.traced(name) if (one["client"], one["request"]) == command]

        (reply,) = [one for one in of("upstream_reply", first) if int(one["bytes"]) == 10]
        self.assertEqual("get", self.text_of(reply["command_text"]))
        self.assertGreaterEqual(len(of("upstream_send", first)), 1)
        self.assertEqual([], of("upstream_send", second), "it was a hit")
        (hit,) = of("hit", second)
        self.assertEqual(("cart:1", "10"), (self.text_of(hit["key_text"]), hit["bytes"]))
        (fill,) = self.traced("fill")
        self.assertEqual(("cart:1", "10"), (self.text_of(fill["key_text"]), fill["bytes"]))
        push = self.traced("invalidation")[-1]
        self.assertEqual(
            ("cart:1", "push"), (self.text_of(push["key_text"]), self.text_of(push["cause_text"]))
        )

    @unittest.skipIf(BPFTRACE is None, "bpftrace is not installed")
    def test_bpftrace_runs_a_line_of_the_page(self):
        nearkey = self.start_nearkey(self.start_server().url)
        line = (
            'usdt:%s:nearkey:request /str(arg5) == "7f3a"/ '
            '{ printf("%%s %%s\\n", str(arg2), str(arg3, arg4)); exit(); }'
        )
        tracer = subprocess.Popen(
            [BPFTRACE, "-p", str(nearkey.pid), "-e", line % BINARY],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.addCleanup(tracer.wait)
        self.addCleanup(tracer.kill)
        with nearkey.client() as client:
            client.command("NEARKEY", "TAG", "7f3a")

            def is_seen():
                client.command("GET", "cart:1")
                return tracer.poll() is not None

            wait_for(is_seen, 20, "bpftrace sees a command")
        said = tracer.stdout.read()
        tracer.stdout.close()
        if tracer.returncode != 0:
            self.skipTest(f"bpftrace can't trace here: {said[-400:]}")
        self.assertIn("GET cart:1\n", said)


if __name__ == "__main__":
    unittest.main()
