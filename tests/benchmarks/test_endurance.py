"""The endurance run detects growing memory and differing results."""

import itertools
from types import SimpleNamespace

import endurance
import numpy as np
import pytest

from aeedge.verification import Deviation


def test_a_leak_is_detected_and_noise_is_not():
    calls, noise = np.arange(0, 1000, 10), np.random.default_rng(0).normal(0, 1e5, 100)
    leaking = endurance.grown(np.column_stack([calls, 50e6 + 5000 * calls + noise]))
    assert leaking["growth_mb"] == pytest.approx(5, abs=0.2)
    assert leaking["last_minus_first_mb"] == pytest.approx(5, abs=0.5)
    steady = endurance.grown(np.column_stack([calls, 50e6 + noise]))
    assert abs(steady["growth_mb"]) < 0.1
    assert endurance.grown(np.column_stack([calls, np.full(100, np.nan)]))["growth_mb"] is None


def test_sizes_repeat_and_reach_both_ends():
    found = endurance.sizes(20_000, seed=3)
    assert np.array_equal(found, endurance.sizes(20_000, seed=3))
    assert (found.min(), found.max() > 4000, found.max() <= 4096) == (1, True, True)
    assert np.median(found) < 100


@pytest.mark.parametrize(("error", "differ", "beyond"), [(0.0, False, False), (1e-7, True, False), (1.0, True, True)])
def test_a_result_that_differs_is_counted(monkeypatch, error, differ, beyond):
    rows = np.ones((3, 2), np.float32)
    manifest = SimpleNamespace(variants={"fp32": SimpleNamespace(tolerance={"latent": None})}, score=None)

    def deviation(what, rows, got, expected, tolerance, spec):
        return Deviation(what, 0, float(np.abs(got - expected).max()), 1e-3)

    monkeypatch.setattr(endurance, "deviation", deviation)
    model = SimpleNamespace(encode=lambda x: x + np.float64(error), manifest=manifest, variant="fp32")
    monkeypatch.setattr(endurance, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    known = [endurance.Known("encode", rows, rows)]
    tally = endurance.caller(model, known, 0, 5)
    assert tally.calls == 5
    assert tally.differ == (tally.calls if differ else 0)
    assert tally.beyond == (tally.calls if beyond else 0)
    assert tally.off == pytest.approx(error)


def test_fp32_may_differ_within_its_tolerance_and_int8_not_at_all():
    def row(what, differ, beyond):
        return {"what": what, "differ": differ, "beyond_tolerance": beyond}

    assert endurance.wrong([row("fp32", 5, 0), row("int8", 0, 0)]) == []
    assert endurance.wrong([row("fp32", 5, 1), row("int8", 1, 0)]) == ["fp32", "int8"]
