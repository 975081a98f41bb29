"""The site of docs/."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(folder):
    """Build it, with every warning an error; where mkdocs is not installed the test is skipped, in CI it fails."""
    if find_spec("mkdocs") is None and os.environ.get("CI", "").lower() not in ("1", "true"):
        pytest.skip("NOTHING WAS TESTED: mkdocs is not installed, see make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
