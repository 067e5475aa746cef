import os
import unittest
from unittest import mock

from pydantic import ValidationError

from app.core.settings import Settings


def settings_of(**environment):
    with mock.patch.dict(os.environ, environment, clear=True):
        return Settings.from_environment()


class SettingsTest(unittest.TestCase):
    def test_without_an_environment_there_are_defaults(self):
        settings = settings_of()
        self.assertEqual("unix:///run/nearkey/nearkey.sock", settings.cache_url)
        self.assertEqual(
            (1, 60, "INFO"), (settings.cache_timeout_s, settings.report_ttl_s, settings.log_level)
        )

    def test_the_environment_is_taken_with_its_types(self):
        settings = settings_of(
            CACHE_URL="unix:///x.sock",
            CACHE_TIMEOUT_S="0.25",
            REPORT_TTL_S="5",
            LOG_LEVEL="DEBUG",
            OTHER="x",
        )
        self.assertEqual(
            ("unix:///x.sock", 0.25, 5, "DEBUG"),
            (
                settings.cache_url,
                settings.cache_timeout_s,
                settings.report_ttl_s,
                settings.log_level,
            ),
        )

    def test_a_wrong_value_is_refused_by_name(self):
        for name, value in (
            ("CACHE_TIMEOUT_S", "0"),
            ("CACHE_TIMEOUT_S", "soon"),
            ("REPORT_TTL_S", "-1"),
            ("LOG_LEVEL", "loud"),
        ):
            with self.subTest(name=name, value=value):
                with self.assertRaisesRegex(ValidationError, name.lower()):
                    settings_of(**{name: value})
