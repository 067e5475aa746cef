"""faults.md, rows 27 to 35: malformed and unusual requests. Valkey is the oracle: the same bytes,
directly and through nearkey, must get the same answer and the same end."""

import random
import unittest

from fake_valkey import FakeValkey, echo_argument
from harness import SLOW, SharedSystemTest, SystemTest, proxy_only, wait_for
from procfs import rss_bytes
from resp import RespClient, encode

PING = encode("PING")
PONG = b"+PONG\r\n"
NOTHING = (
    b"",
)  # Behind what is too long comes no newline: with one it might be read as a line in time.
ERR = b"-ERR Protocol error: %s\r\n"


class ProtocolErrorTest(SharedSystemTest):
    def check_error(self, bad, text, behinds=(b"", encode("SET", "behind", "executed"))):
        """The error follows the earlier replies of the pipeline, then comes the end; nothing behind
        it is executed."""
        for before, replies in (
            (b"", b""),
            (PING, PONG),
            (encode("SET", "k", "v") + encode("GET", "k"), b"+OK\r\n$1\r\nv\r\n"),
        ):
            for behind in behinds:
                with self.subTest(bad[:40], before=len(before), behind=len(behind)):
                    self.assert_same_answer(before + bad + behind, replies + ERR % text)
        # Without a half-close of ours as well: it is nearkey that closes.
        client = self.client()
        client.send(PING + bad)
        self.assertEqual((PONG + ERR % text, "eof"), client.read_to_end())
        self.assertIsNone(self.direct.value("GET", "behind"))

    def test_row_27_empty_requests_are_swallowed(self):
        for empty in (
            b"*-5\r\n",
            b"*0\r\n",
            b"\r\n",
            b"\n",
            b"*-1\r\n",
            b"*-2147483649\r\n",
            b"*0\r\n" * 50,
            b"\r\n" * 50,
            b"*-5\r\n*0\r\n\r\n\n",
        ):
            with self.subTest(empty):
                self.assert_same_answer(empty + b"PING\n", PONG)
                self.assert_same_answer(PING + empty + PING, PONG + PONG)
                self.assert_same_answer(empty, b"")

    def test_row_27_a_line_of_white_space_leaves_the_next_request_inline(self):
        """A quirk of Valkey 8: it swallows the line, but does not look again at what kind of
        request follows."""
        for blank in (b"   \r\n", b" \n", b"\t\r\n"):
            with self.subTest(blank):
                self.assert_same_answer(blank + b"PING\r\n" + PING, PONG + PONG)
                self.assert_same_answer(PING + blank + b"\r\n" + PING, PONG + PONG)
                self.assert_same_answer(PING + blank + PING + PING)

    def test_row_27_inline_commands(self):
        for line, answer in (
            (b"PING\n", PONG),
            (b"PING\r\n", PONG),
            (b"  PING  \r\n", PONG),
            (b"ping\tx\n", b"$1\r\nx\r\n"),
            (b'ECHO "a b"\r\n', b"$3\r\na b\r\n"),
            (b"ECHO 'a b'\r\n", b"$3\r\na b\r\n"),
            (b'ECHO "\\x41\\n\\q\\""\r\n', b'$4\r\nA\nq"\r\n'),
            (b"ECHO 'it\\'s'\r\n", b"$4\r\nit's\r\n"),
            (b'ECHO ""\r\n', b"$0\r\n\r\n"),
            (b"PING\rX\n", b"$1\r\nX\r\n"),
            (b'ECHO "\\x4g"\r\n', None),
            (b"ECHO \\x41\r\n", b"$4\r\n\\x41\r\n"),
            (b'ECHO "\\r\\n\\t\\b\\a"\n', b"$5\r\n\r\n\t\b\a\r\n"),
            (b"NOSUCH 'a b'\r\n", None),
            (b"ECHO\r\n", None),
            (b"+PING\r\n", None),
            (b"$4\r\nPING\r\n", None),
            (b"SET a b\r\nGET a\r\n", b"+OK\r\n$1\r\nb\r\n"),
            (b"ECHO \xfd\xfe\r\n", b"$2\r\n\xfd\xfe\r\n"),
        ):
            with self.subTest(line):
                self.assert_same_answer(line, answer)

    def test_row_28_invalid_bulk_length(self):
        for header in (
            b"$-5",
            b"$-1",
            b"$04",
            b"$+4",
            b"$4x",
            b"$",
            b"$ 4",
            b"$4 ",
            b"$536870913",
            b"$4294967300",
            b"$99999999999999999999",
            b"$-0",
            b"$0x4",
            b"$4.0",
        ):
            self.check_error(b"*1\r\n" + header + b"\r\nPING\r\n", b"invalid bulk length")

    def test_row_28_invalid_bulk_length_of_a_later_argument(self):
        self.check_error(b"*3\r\n$3\r\nSET\r\n$6\r\nbehind\r\n$-1\r\n", b"invalid bulk length")

    def test_row_29_invalid_multibulk_length(self):
        for header in (
            b"*3x",
            b"*+1",
            b"*2147483648",
            b"*",
            b"*01",
            b"* 1",
            b"*1 ",
            b"*99999999999999999999",
            b"*x",
            b"*1.0",
        ):
            self.check_error(header + b"\r\n", b"invalid multibulk length")

    def test_row_29_lengths_that_never_end(self):
        self.check_error(b"*" + b"1" * 70000, b"too big mbulk count string", NOTHING)
        self.check_error(b"*1\r\n$" + b"1" * 70000, b"too big bulk count string", NOTHING)

    def test_row_31_an_argument_that_is_not_a_bulk_string(self):
        for kind in (b"*", b":", b"+", b"-", b"P", b" ", b"_", b"%", b"\xff"):
            self.check_error(b"*2\r\n" + kind + b"1\r\n", b"expected '$', got '" + kind + b"'")
        self.check_error(b"*2\r\n$4\r\nECHO\r\n:5\r\n", b"expected '$', got ':'")
        self.check_error(b"*1\r\n\r\n", b"expected '$', got ' '")

    def test_row_32_too_big_inline_request(self):
        self.check_error(b"x" * 70000, b"too big inline request", NOTHING)
        self.check_error(b'ECHO "' + b"y" * 70000, b"too big inline request", NOTHING)

    def test_row_32_unbalanced_quotes(self):
        for line in (
            b'"foo"bar',
            b"'foo'bar",
            b'SET "a',
            b"SET 'a",
            b'"',
            b"'",
            b'ECHO "a\\',
            b'ECHO "a\\"',
            b"ECHO 'a\\'",
            b'ECHO a"b',
        ):
            self.check_error(line + b"\r\n", b"unbalanced quotes in request")

    def test_row_32_random_inline_quoting_is_read_as_valkey_reads_it(self):
        seed = random.Random(32)
        alphabet = [
            b'"',
            b"'",
            b"\\",
            b"x",
            b"4",
            b"1",
            b"n",
            b"a",
            b" ",
            b"\t",
            b"\xe9",
            b"$",
            b"*",
            b"\r",
            b"\\x41",
            b'\\"',
        ]
        for number in range(400):
            line = b"".join(seed.choice(alphabet) for _ in range(seed.randint(1, 14)))
            if not line.strip():
                continue  # A line of white space has a test of its own.
            self.assert_same_answer((b"ECHO " if number % 4 else b"") + line + b"\r\n" + PING)

    def test_row_32_a_nul_byte_ends_what_an_inline_request_can_say(self):
        """Valkey looks for the newline with strchr(): behind a NUL it waits, until the request is
        too big."""
        for line in (b"ECHO a\0b\r\n", b"\0\r\n", b"PING\0\r\nPING\r\n"):
            self.assert_same_answer(line)

    def test_row_33_http_is_cut_off_without_a_reply(self):
        for request in (
            b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"Host: localhost\r\n",
            b"post /\r\n",
            b"HOST: x\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            encode("POST", "/"),
            encode("host:", "x"),
        ):
            with self.subTest(request):
                client = self.client()
                client.send(request)
                answer, ended = client.read_to_end()
                self.assertEqual("eof", ended)
                self.assertNotIn(b"POST", answer.upper())
                if not request.startswith(
                    b"GET"
                ):  # GET / HTTP/1.1 has a reply: it is a command with a wrong arity.
                    self.assertEqual(b"", answer)
        client = self.client()
        client.send(b"POST / HTTP/1.1\r\n\r\nSET behind executed\r\n")
        client.read_to_end()
        self.assertIsNone(self.direct.value("GET", "behind"))

    @proxy_only
    def test_row_33_http_is_a_line_in_the_security_log(self):
        before = len(self.nearkey.lines)
        client = self.client()
        client.send(b"POST /secret-canary HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.read_to_end()
        wait_for(lambda: len(self.nearkey.lines) > before, 2, "a log line about the attack")
        lines = "\n".join(self.nearkey.lines[before:])
        self.assertRegex(lines.lower(), "security|cross|attack")
        self.assertNotIn("secret-canary", lines)

    def test_row_34_a_bulk_that_is_not_followed_by_crlf(self):
        for data, answer in (
            (b"*1\r\n$4\r\nPINGxx", PONG),
            (b"*1\r\n$4\r\nPING*1" + PING, PONG + PONG),
            (b"*2\r\n$4\r\nECHO..$2\r\nhi..", b"$2\r\nhi\r\n"),
            (b"*1\rX$4\rYPINGZZ", PONG),
            (b"*1\r\r$4\r\rPING\r\r" + PING, PONG + PONG),
            (b"*0\rXPING\n", PONG),
            (b"*2\r\n$4\r\nECHO\n\r$12\r\n*1\r\n$4\r\nPINGxx", b"$12\r\n*1\r\n$4\r\nPING\r\n"),
        ):
            with self.subTest(data):
                self.assert_same_answer(data, answer)

    def test_row_35_a_tls_client_hello_waits(self):
        hello = b"\x16\x03\x01\x02\x01\x01\xfc\x03\x03" + bytes(range(128, 256)) * 4
        client, other = self.client(), self.client()
        client.send(hello)
        self.assertTrue(client.is_silent(0.3))
        self.assertEqual(PONG, other.command("PING"))
        self.assert_same_answer(hello)
        # With a newline it is an inline command that nobody knows, or quotes that do not match.
        self.assert_same_answer(
            b"\x16\x03\x01\x02\x01\x01\xfc\x03\x03" + bytes(range(128, 256)) + b"\r\n" + PING
        )

    def test_every_cut_of_a_pipeline_gives_the_same_replies(self):
        data = (
            encode("SET", "k", b"\r\n*1\r\n")
            + b"*0\r\n"
            + encode("GET", "k")
            + b"ECHO 'a b'\r\n"
            + encode("ECHO", "x" * 40)
            + b"*1\r\n$4\r\nPINGxx"
            + encode("PING", "")
        )
        answer = (
            b"+OK\r\n$6\r\n\r\n*1\r\n\r\n$3\r\na b\r\n$40\r\n"
            + b"x" * 40
            + b"\r\n+PONG\r\n$0\r\n\r\n"
        )
        for cut in range(1, len(data)):
            with RespClient(self.address) as client:
                client.send(data[:cut])
                client.send(data[cut:])
                self.assertEqual(answer, b"".join(client.read_replies(6)), f"cut at {cut}")


@proxy_only
class IdleHeaderTest(SharedSystemTest):
    def test_row_30_nothing_is_allocated_from_a_declared_length(self):
        headers = [
            b"*1\r\n$536870912\r\n",
            b"*1048577\r\n",
            b"*2147483647\r\n",
            b"*1048576\r\n$4\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nstart",
        ]
        for client in [self.client() for _ in range(50)]:
            client.command("PING")  # What a client costs anyway is not the question here.
            client.close()
        wait_for(
            lambda: self.nearkey.metric("nearkey_clients") == 0, 5, "the first clients are gone"
        )
        before = rss_bytes(self.nearkey.pid)
        clients = [self.client() for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(PING + headers[number % len(headers)])
        for client in clients:
            self.assertEqual(PONG, client.read_reply())
        self.assertTrue(clients[0].is_silent(0.2) and clients[-1].is_silent(0.0))
        for client in clients[: len(headers)]:
            self.assertTrue(client.is_silent(0.01))
        if not SLOW:
            self.assertLess((rss_bytes(self.nearkey.pid) - before) / len(clients), 65536)
        self.assertEqual(PONG, self.client().command("PING"))


@proxy_only
class SmugglingTest(SystemTest):
    """What reaches the shared connection, seen by a server that accepts canonical requests only."""

    def test_rows_27_and_34_only_canonical_requests_are_forwarded(self):
        fake = FakeValkey(f"{self.directory}/fake.sock")
        self.addCleanup(fake.close)
        fake.answers = {"get": echo_argument, "set": b"+OK\r\n"}
        nearkey = self.start_nearkey(fake.url, settings={"upstream.connections": 1})
        victim = nearkey.client()
        self.addCleanup(victim.close)
        tricks = [
            b"*0\r\n",
            b"\r\n\n",
            b"*-7\r\n",
            b"*2\r\n$3\r\nGET**$1\r\naxx",
            b"*2\rX$3\rYGETZZ$1\rXb\r\n",
            b"GET c\r\n",
            b"get 'd'\n",
            b"*2\r\n$3\r\nGET\r\n$13\r\n*1\r\n$4\r\nPING\r\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\n\r",
        ]
        seed = random.Random(34)
        for _ in range(30):
            attacker = nearkey.client()
            attacker.send(b"".join(seed.choice(tricks) for _ in range(20)) + encode("GET", "end"))
            for i in range(10):
                key = b"victim%d" % i
                self.assertEqual(b"$7\r\n" + key + b"\r\n", victim.command("GET", key))
            while attacker.read_reply() != b"$3\r\nend\r\n":
                pass
            attacker.close()
        self.assertEqual([], fake.violations)
        keys = {args[1] for args in fake.received if args[0].lower() == b"get"}
        self.assertLessEqual({b"a", b"b", b"c", b"d", b"*1\r\n$4\r\nPING\r"}, keys)
        self.assertTrue(all(fake.received), "an empty request was forwarded")


if __name__ == "__main__":
    unittest.main()
