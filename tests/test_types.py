"""The types of jmer agree, as a checker sees them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_type_checker_finds_no_error():
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".pytest_cache" / "mypy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
