"""Bundles for the device tests; nothing here imports torch."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import reference

import aeedge
import aeedge.loading

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def bundle(tmp_path):
    """A copy of the frozen bundle, free to be damaged."""
    return Path(shutil.copytree(DATA / "bundle_v1", tmp_path / "motor.aeedge"))


@pytest.fixture(scope="session")
def model():
    return aeedge.load(DATA / "bundle_v1", threads=2)


@pytest.fixture(scope="session")
def pixels():
    return aeedge.load(DATA / "bundle_v1_uint8")


@pytest.fixture(scope="session")
def rows():
    """3 000 rows in the range of the bundle's sensors: several blocks."""
    rng = np.random.default_rng(0)
    mean, scale = np.linspace(-50, 1000, 12), np.geomspace(0.01, 100, 12)
    return (rng.normal(size=(3000, 12)) * scale + mean).astype(np.float32)


@pytest.fixture(scope="session")
def truth(tmp_path_factory):
    """Latents by one thread, all rows at once, where every process finds them."""
    folder = tmp_path_factory.mktemp("truth")
    for name in ("bundle_v1", "bundle_v1_int8"):
        with aeedge.load(DATA / name, threads=1) as model:
            reference.record(model, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(reference.PLACE, str(folder))
        yield


@pytest.fixture
def four_cpus(monkeypatch):
    """Models have pools of threads, also where the tests may use one CPU only."""
    monkeypatch.setattr(aeedge.loading, "allowed_cpus", lambda: range(4))


@pytest.fixture(scope="session", autouse=True)
def no_state_of_the_user(tmp_path_factory):
    """What was tuned on the machine that runs the tests is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("AEEDGE_STATE", raising=False)
        yield


@pytest.fixture
def own_folders(monkeypatch, tmp_path):
    """What the user who runs the tests keeps at home is not what is tested."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("OMP_NUM_THREADS", "AEEDGE_STATE"):
        monkeypatch.delenv(name, raising=False)
