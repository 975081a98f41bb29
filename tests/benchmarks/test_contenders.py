"""Contenders that are called in other ways than `encode` compute the same."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

import aeedge

DATA = Path(__file__).parent.parent / "data"
ROOT = str(Path(aeedge.__file__).parent.parent)


@pytest.fixture
def workload(tmp_path):
    """A frozen bundle where contenders look for it."""
    shutil.copytree(DATA / "bundle_v1", tmp_path / "float32.aeedge")
    shutil.copyfile(DATA / "bundle_v1" / "encoder.onnx", tmp_path / "encoder.onnx")
    return tmp_path


def contender(module, folder, **options):
    return importlib.import_module(f"comparison.contenders.{module}").Contender(str(folder), options, 1)


@pytest.mark.parametrize("module", ["by_aeedge_bound", "by_onnxruntime_bound"])
def test_bound_arrays_hold_the_rows_of_each_call(workload, module):
    model = aeedge.load(workload / "float32.aeedge", variant="fp32", threads=1)
    bound = contender(module, workload, bundle="float32.aeedge", variant="fp32")
    for rows in (model.golden_rows()[:1], model.golden_rows()[:5]):
        for given in (rows, rows[::-1].copy()):
            latents = np.array(bound.encode(bound.prepare(rows)))
            assert np.allclose(latents, model.encode(rows), atol=1e-5)
            assert np.allclose(bound.encode(given), model.encode(given), atol=1e-5)


@pytest.mark.parametrize("what", ["encode", "encode, float64", "encode, out=", "encode, propagate", "bind, encode"])
def test_a_version_is_called_in_every_way(workload, monkeypatch, what):
    monkeypatch.syspath_prepend(ROOT)  # restores the path, which the contender changes
    version = contender("by_version", workload, wheel=ROOT)
    rows = aeedge.load(workload / "float32.aeedge").golden_rows()[:3]
    assert np.allclose(version.call(what, rows)(), version.encode(rows), atol=1e-5)


def test_another_aeedge_than_that_of_the_wheel_is_refused(workload, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match="expected aeedge from"):
        contender("by_version", workload, wheel=str(tmp_path))
