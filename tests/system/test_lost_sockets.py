"""faults.md row 67: the file of a socket is removed or replaced while nearkey listens on it."""

import os
import shutil
import socket
import stat
import unittest

from harness import SystemTest, proxy_only, wait_for
from resp import RespClient


@proxy_only
class LostSocketTest(SystemTest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        # In a folder of its own, which can be removed as a whole.
        self.folder = os.path.join(self.directory, "run")
        self.path = os.path.join(self.folder, "nearkey.sock")
        self.nearkey = self.start_nearkey(
            self.server.url, listen=[self.path], args=["--set", "server.listen_mode=0606"]
        )

    def answers(self):
        try:
            with RespClient(self.path) as client:
                return client.command("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def said(self, event, count):
        lines = [line for line in self.nearkey.logs() if line["event"] == event]
        return lines if len(lines) == count else None

    def wait_rebound(self, count=1):
        wait_for(self.answers, 20, "PONG at the old path")
        wait_for(lambda: self.nearkey.metric("nearkey_sockets_rebound_total") >= count, 20, "the count")
        self.assertEqual(0, self.nearkey.metric("nearkey_sockets_lost"))

    def test_row_67_a_removed_file_comes_back_and_nobody_is_dropped(self):
        client = RespClient(self.path)
        self.addCleanup(client.close)
        self.assertEqual(b"+OK\r\n", client.command("SET", "k", "before"))
        for count in (1, 2):
            os.unlink(self.path)
            self.wait_rebound(count)
            self.assertEqual(0o606, stat.S_IMODE(os.stat(self.path).st_mode))
            self.assertEqual(b"$6\r\nbefore\r\n", client.command("GET", "k"))
        events = wait_for(lambda: self.said("socket_rebound", 2), 20, "two lines of it")
        self.assertEqual([self.path] * 2, [line["address"] for line in events])
        self.assertEqual("its file was removed or replaced", events[0]["reason"])
        self.nearkey.stop()
        self.assertFalse(os.path.exists(self.path))

    def test_row_67_the_folder_is_removed(self):
        shutil.rmtree(self.folder)
        self.wait_rebound()
        self.assertTrue(os.path.exists(self.path + ".lock"))

    def test_row_67_a_process_that_answers_there_is_left_alone(self):
        other_path = os.path.join(self.directory, "other.sock")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(other_path)
            other.listen(16)
            os.rename(other_path, self.path)
            wait_for(lambda: self.nearkey.metric("nearkey_sockets_lost") == 1, 20, "the gauge at 1")
            self.nearkey.wait_logged("a running process answers there")
            self.assertEqual(0, self.nearkey.metric("nearkey_sockets_rebound_total"))
        # It is gone now: the path is taken again.
        self.wait_rebound()
        self.assertTrue(self.said("socket_lost", 1), "it is said once for each change of state")

    def test_row_67_the_admin_socket_too(self):
        path = self.nearkey.admin_path
        os.unlink(path)
        wait_for(lambda: os.path.exists(path), 20, "the admin socket")
        wait_for(lambda: self.nearkey.ready_status() == 200, 20, "it answers")
        self.assertEqual(1, self.nearkey.metric("nearkey_sockets_rebound_total"))
        self.assertTrue(self.answers())


if __name__ == "__main__":
    unittest.main()
