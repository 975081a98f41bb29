"""Readers of bytes that others wrote: a result, or one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import aeedge
from fuzz.targets import CORPUS, TARGETS, seeds

RUNS = 1500
_LIMITED = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")


@_LIMITED
@pytest.mark.parametrize("name", TARGETS)
def test_what_was_made_of_sound_files_ends_in_a_result_or_one_sentence(name, tmp_path):
    """Always the same changes; `make fuzz` finds others."""
    places = [Path(aeedge.__file__).parents[1], Path(__file__).parents[1]]
    line = [sys.executable, "-m", "fuzz.run", name, str(RUNS)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places)), "TMPDIR": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert int(done.stdout) == RUNS + len(seeds(name))


def test_the_corpus_is_small_and_every_target_has_one():
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 300_000
    assert all(seeds(name) for name in TARGETS)
