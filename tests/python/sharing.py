"""A Valkey and a nearkey with a listener that shares its memory, for the tests of a class."""

import os
import shutil
import tempfile
import unittest

from harness import Nearkey, ValkeyServer
from nearkey import _shared


class SharingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if _shared.WHY_NO_EXTENSION:
            raise unittest.SkipTest(_shared.WHY_NO_EXTENSION)
        cls.directory = tempfile.mkdtemp(prefix="nearkey-test-")
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)
        cls.path = os.path.join(cls.directory, "shared.sock")
        cls.config = os.path.join(cls.directory, "nearkey.toml")
        cls.write_config("shared_memory = true")
        cls.server = ValkeyServer(cls.directory)
        cls.addClassCleanup(cls.server.stop)
        cls.server.start()
        cls.start_nearkey()
        cls.addClassCleanup(lambda: cls.nearkey.is_running() and cls.nearkey.stop())

    @classmethod
    def start_nearkey(cls):
        cls.nearkey = Nearkey(
            cls.directory, cls.server.url, listen=[], args=["--config", cls.config]
        )
        cls.addClassCleanup(cls.nearkey.kill)
        cls.nearkey.start()

    @classmethod
    def write_config(cls, options):
        with open(cls.config, "w") as file:
            file.write(f'[[listener]]\naddress = "{cls.path}"\n{options}\n')
