"""memory_limit_mb: what fits is used, what does not is refused with the smallest that would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import aeedge
from aeedge.system import memory

INT8 = Path(__file__).parent.parent / "data" / "bundle_v1_int8"
pytestmark = pytest.mark.skipif(memory.resident_bytes() is None, reason="no /proc/self/statm")

GROWTH = f"""
import sys, numpy as np, onnxruntime, aeedge
from aeedge.system.limits import resident_bytes
rows = np.random.default_rng(0).integers(0, 256, (20000, 1, 16, 16), dtype=np.uint8)
latents, scores = np.ones((20000, 4), np.float32), np.ones(20000, np.float32)
before = resident_bytes()
model = aeedge.load({str(INT8)!r}, memory_limit_mb=float(sys.argv[1]))
model.score(rows, out=scores); model.encode(rows, out=latents); model.score(rows[0]); model.encode(rows[:50])
print((resident_bytes() - before) / 1e6, model.threads, model._dispatcher.policy.max_rows)
"""


def grown(limit):
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(limit)], capture_output=True, text=True, timeout=120, check=True
    )
    megabytes, threads, rows = done.stdout.split()
    return float(megabytes), int(threads), int(rows)


def smallest():
    code = f"import onnxruntime, aeedge; aeedge.load({str(INT8)!r}, memory_limit_mb=0.5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    said = re.search(r"memory_limit_mb: expected at least ([\d.]+) for this bundle, got 0\.5;", done.stderr)
    return float(said[1])


def test_the_smallest_that_is_named_is_enough_and_kept():
    least = smallest()
    megabytes, _, tight = grown(least)
    assert megabytes <= least
    _, _, generous = grown(least + 60)
    assert generous > tight


@pytest.mark.parametrize("more", [2, 10, 40])
def test_the_process_grows_by_no_more_than_allowed(more):
    limit = smallest() + more
    assert grown(limit)[0] <= limit


@pytest.mark.parametrize("limit", [0, -1, True, "10", float("nan")])
def test_what_is_no_limit(limit):
    with pytest.raises(aeedge.InputError, match="memory_limit_mb: expected a number above 0, or None"):
        aeedge.load(INT8, memory_limit_mb=limit)


def test_a_system_that_does_not_tell(monkeypatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda: None)
    with pytest.raises(aeedge.InputError, match="not supported on this system, which has no /proc/self/statm"):
        aeedge.load(INT8, memory_limit_mb=100)


def test_a_limit_travels_with_a_pickled_model():
    import pickle

    with aeedge.load(INT8, memory_limit_mb=300) as model, pickle.loads(pickle.dumps(model)) as other:
        assert "300 MB" in other.choices["calls"]


class Grows:
    """A process that grows as it is told: some bytes a row, and twice that when an arena doubles."""

    def __init__(self, monkeypatch, base, each):
        self.base, self.each, self.most = base, each, 0
        monkeypatch.setattr(memory, "resident_bytes", lambda: int(self.base + self.most * self.each))

    def run(self, rows):
        self.most = max(self.most, rows)


@pytest.mark.parametrize("each", [1e3, 1e5, 3e6])
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_blocks_on_all_threads_fit(monkeypatch, each, threads):
    process = Grows(monkeypatch, 50e6, each)
    limit = memory.Limit(40.0, 50_000_000)
    found = memory.fit(limit, process.run, 100, threads)
    assert 1 <= found.threads <= threads
    assert found.rows >= 1
    assert process.most * each <= limit.bytes
    assert found.threads * found.rows * each <= limit.bytes
