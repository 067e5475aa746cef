import asyncio
import json
import logging
import sys
import unittest

from starlette.datastructures import Headers

from app.core.logging import CorrelationIdMiddleware, JsonFormatter, correlation_id, id_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class JsonFormatterTest(unittest.TestCase):
    def format(self, message, *arguments, exc_info=None):
        record = logging.LogRecord("name", logging.INFO, "f", 1, message, arguments, exc_info)
        line = JsonFormatter().format(record)
        self.assertNotIn("\n", line)
        return json.loads(line)

    def test_a_record_is_one_line_of_json(self):
        line = self.format("two\nlines of %s", '"x"')
        self.assertEqual(
            ("info", "name", 'two\nlines of "x"', None),
            (line["level"], line["logger"], line["message"], line["correlation_id"]),
        )
        self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT.*\+00:00$")

    def test_an_exception_is_in_the_same_line(self):
        try:
            raise ValueError("why")
        except ValueError:
            line = self.format("failed", exc_info=sys.exc_info())
        self.assertIn("Traceback", line["exception"])
        self.assertIn("ValueError: why", line["exception"])


class CorrelationIdTest(unittest.TestCase):
    def test_the_callers_id_is_taken(self):
        self.assertEqual("a-1.b:2", id_of(Headers({"x-request-id": "a-1.b:2"})))

    def test_the_trace_is_taken_where_there_is_no_id(self):
        parent = f"00-{TRACE}-00f067aa0ba902b7-01"
        self.assertEqual(TRACE, id_of(Headers({"traceparent": parent})))
        self.assertEqual("mine", id_of(Headers({"traceparent": parent, "x-request-id": "mine"})))

    def test_what_is_no_id_is_not_taken(self):
        for headers in (
            {},
            {"x-request-id": 'x" y'},
            {"x-request-id": "x" * 129},
            {"x-request-id": "\u00e9"},
            {"traceparent": "00-xyz-1-01"},
            {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"},
        ):
            with self.subTest(headers=headers):
                self.assertRegex(id_of(Headers(headers)), r"^[0-9a-f]{32}$")

    def test_only_requests_have_an_id(self):
        seen = []

        async def app(scope, receive, send):
            seen.append((scope["type"], correlation_id.get()))

        asyncio.run(CorrelationIdMiddleware(app)({"type": "lifespan"}, None, None))
        self.assertEqual([("lifespan", None)], seen)
