"""What the log says: its two formats, who is meant by a warning, and that nobody fills the disk."""

import os
import re
import signal
import unittest

from harness import Nearkey, SystemTest, proxy_only, wait_for

TEXT_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) [a-z_]+"
    r'( [a-z_]+=("([^"\\]|\\.)*"|[^" =]+))*'
)
BURST = 20


@proxy_only
class LogTest(SystemTest):
    def attack(self, nearkey, times):
        for _ in range(times):
            with nearkey.client() as client:
                client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
                client.read_to_end()

    def test_text_is_one_readable_line_for_each_event(self):
        server = self.start_server()
        nearkey = Nearkey(self.directory, server.url, settings={"log.format": "text"})
        self.addCleanup(nearkey.kill)
        nearkey.start()
        self.attack(nearkey, 1)
        server.stop()
        nearkey.wait_unready()
        nearkey.signal(signal.SIGTERM)
        nearkey.process.wait(20)
        wait_for(lambda: not nearkey._reader.is_alive(), 5, "the log is read to its end")
        for line in nearkey.lines:
            self.assertRegex(line, re.compile(f"^{TEXT_LINE.pattern}$"))
        events = [line.split(" ")[2] for line in nearkey.lines]
        self.assertEqual("starting", events[0])
        self.assertEqual("stopped", events[-1])
        for event in ("listening", "ready", "possible_attack", "upstream_lost", "draining"):
            self.assertIn(event, events)
        (attack,) = [line for line in nearkey.lines if "possible_attack" in line]
        self.assertRegex(attack, r"Z warning possible_attack what=\".*\" session=1 request=0 tag=\"\"$")

    def test_a_warning_about_a_client_names_its_session_and_request(self):
        server = self.start_server()
        nearkey = self.start_nearkey(
            server.url, settings={"limits.input_per_client_max": "64KiB"}
        )
        with nearkey.client() as client:
            client.command("NEARKEY", "TAG", "trace-1")
            client.send(b"*1\r\n$-7\r\n")
            client.read_to_end()
        with nearkey.client() as client:
            client.send(b"*2\r\n$3\r\nGET\r\n$100000\r\n" + b"x" * 90_000)
            client.read_to_end()
        nearkey.wait_logged("client_closed")
        entries = {entry["event"]: entry for entry in nearkey.logs()}
        self.assertEqual((1, 1), self.who(entries["protocol_error"]))
        self.assertEqual((2, 0), self.who(entries["client_closed"]))
        tags = [entries[event]["tag"] for event in ("protocol_error", "client_closed")]
        self.assertEqual(["trace-1", ""], tags)
        self.assertEqual("limits.input_per_client_max", entries["client_closed"]["what"])

    def who(self, entry):
        return entry["session"], entry["request"]

    def test_a_flood_of_warnings_is_counted(self):
        server = self.start_server()
        nearkey = self.start_nearkey(server.url)
        self.attack(nearkey, BURST + 30)
        wait_for(lambda: nearkey.metric("nearkey_security_closes_total") == BURST + 30, 5, "closed")
        self.assertEqual(30, nearkey.metric("nearkey_log_repeats_total"))
        nearkey.stop()
        attacks = [entry for entry in nearkey.logs() if entry["event"] == "possible_attack"]
        self.assertEqual(BURST + 1, len(attacks))
        self.assertEqual(30, attacks[-1]["more"])

    def test_for_the_journal_each_line_has_its_priority(self):
        server = self.start_server()
        path = os.path.join(self.directory, "journal")
        with open(path, "wb") as journal:
            found = os.fstat(journal.fileno())
            nearkey = Nearkey(
                self.directory,
                server.url,
                environment={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            )
            self.addCleanup(nearkey.kill)
            nearkey.start(stderr=journal)
        self.attack(nearkey, 1)
        nearkey.signal(signal.SIGTERM)
        nearkey.process.wait(20)
        with open(path) as journal:
            lines = journal.read().splitlines()
        for line in lines:
            self.assertRegex(line, r'^<[3467]>\{"time":')
        self.assertTrue(any(line.startswith("<4>") and "attack" in line for line in lines))


if __name__ == "__main__":
    unittest.main()
