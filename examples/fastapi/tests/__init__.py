"""nearkey's own harness starts the servers that the tests run against."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests" / "system"))
