"""Holds objects against the schemas of Kubernetes and CycloneDX (tests/schemas)."""

import json
import os
import shutil
import subprocess
import unittest

from harness import ROOT, SLOWNESS

MODULES = os.path.join(ROOT, "build", "schemas", "node_modules")
needs_schemas = unittest.skipUnless(
    os.path.isdir(MODULES) and shutil.which("node"), "no schemas (tests/schemas/install.sh)"
)


def mistakes_of(documents):
    """A list for each."""
    done = subprocess.run(
        ["node", os.path.join(ROOT, "tests", "schemas", "validate.mjs"), MODULES],
        input=json.dumps(documents), capture_output=True, text=True, timeout=60 * SLOWNESS,
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)
