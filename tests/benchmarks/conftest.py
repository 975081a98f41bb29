"""A workload for fake contenders, and small records."""

import os
from pathlib import Path

import numpy as np
import pytest
from comparison.contenders import Entry
from comparison.records import Records


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A workload whose truth is the first two values of a row."""
    places = [Path(__file__).parent, Path(__file__).parents[1]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    rows = np.random.default_rng(0).random((300, 4), dtype=np.float32)
    np.savez(tmp_path / "rows.npz", test=rows, anomalous=rows[:100] + 1)
    np.savez(tmp_path / "truth.npz", test=rows[:, :2], anomalous=rows[:100, :2] + 1)
    np.save(tmp_path / "first.npy", rows[:1])
    return tmp_path


@pytest.fixture
def fake():
    """Makes an entry for a fake contender."""

    def make(name="fake", exact=True, **options):
        return Entry(name, "fake_contenders", options, ("numpy",), exact)

    return make


@pytest.fixture
def records():
    """A run of two contenders, aeedge twice as fast as its peer for one sample and three times for 64."""
    made = Records()
    made.add(
        "machine", processor="A CPU", cpus=2, vector=[], system="Linux", python="3.11.7", versions={"numpy": "2.4"}
    )
    made.add("settings", quick=False, workloads=["deep"], batches=[1, 64], rounds=5, seconds=0.1, tries=3)
    for threads in ("one", "all"):
        made.add("peak", threads=threads, cpus=2, flops=1e11, read=1e10, copy=1e10, disturbed=None)
        for contender, times in (
            ("aeedge fp32", (1e-5, 1e-4)),
            ("onnxruntime", (2e-5, 3e-4)),
            ("sklearn PCA", (1e-6, 1e-6)),
        ):
            made.add("check", workload="deep", threads=threads, contender=contender, error=1e-7, exact=True)
            for batch, seconds in zip((1, 64), times):
                cell = {"seconds": seconds, "quartiles": [seconds] * 2, "rounds": 5, "repeated": 0, "disturbed": None}
                made.add("speed", workload="deep", threads=threads, contender=contender, batch=batch, **cell)
    made.add("quality", workload="deep", contender="aeedge fp32", error=1e-7, mse=0.01, auc=0.9)
    made.add("start", workload="deep", contender="aeedge fp32", seconds=0.15, peak_bytes=6e7, rounds=5)
    made.add("size", contender="aeedge fp32", bytes=1.4e8, distributions=["aeedge"])
    made.add("end")
    return made
