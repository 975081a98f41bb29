"""Results of every machine, computed once a session; makes the emulators on first use (tools/emulated.py)."""

import functools
import subprocess
import sys
from pathlib import Path

import emulated
import numpy as np
import pytest

from aeedge.bundle.manifest import FileEntry, sha256_hex
from aeedge.bundle.manifest_reading import read_manifest

DATA = Path(__file__).parent.parent / "data"
PROBE = Path(__file__).parent / "probe.py"
ROWS = 64


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """What every machine runs, by name: the frozen bundles, and one that must be refused everywhere."""
    wrong = tmp_path_factory.mktemp("wrong") / "bundle"
    return {
        "bundle_v1": DATA / "bundle_v1",
        "bundle_v1_uint8": DATA / "bundle_v1_uint8",
        "bundle_v1_int8": DATA / "bundle_v1_int8",
        "bundle_v1_saturating": DATA / "bundle_v1_saturating",
        "wrong": _recorded_wrongly(DATA / "bundle_v1", wrong),
    }


@pytest.fixture(scope="session")
def results(bundles, tmp_path_factory):
    """results(machine)[bundle][output]; the machine "native" is this one, not emulated."""
    folder = tmp_path_factory.mktemp("isa")
    for name, bundle in bundles.items():
        np.savez(folder / f"{name}.rows.npz", rows=_rows(bundle))

    @functools.cache  # also of what failed: nobody waits twice for a registry that does not answer
    def outcome(machine):
        try:
            return _computed(machine, bundles, folder)
        except (emulated.UnavailableError, RuntimeError) as error:
            return error

    def compute(machine):
        found = outcome(machine)
        if isinstance(found, emulated.UnavailableError):
            pytest.skip(f"NOTHING WAS COMPARED, there is no {machine} here: {found}")
        if isinstance(found, RuntimeError):
            raise found
        return found

    return compute


def _computed(machine, bundles, folder):
    """What a machine makes of all bundles, in one process."""
    start = [sys.executable] if machine == "native" else emulated.command(machine)
    outs = {name: folder / f"{machine}.{name}.npz" for name in bundles}
    jobs = [word for name in bundles for word in (bundles[name], folder / f"{name}.rows.npz", outs[name])]
    run = [*start, str(PROBE), *map(str, jobs)]
    done = subprocess.run(run, env=emulated.environment(), capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(run)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return {name: _read(out) for name, out in outs.items()}


def _read(path):
    with np.load(path) as file:
        return dict(file)


def _rows(bundle):
    """Rows in the range of the recorded ones: each feature takes their values in an order of its own."""
    with np.load(bundle / "golden.npz") as golden:
        recorded = golden["input"]
    rng = np.random.default_rng(0)
    return rng.permuted(np.resize(recorded, (ROWS, *recorded.shape[1:])), axis=0)


def _recorded_wrongly(bundle, copy):
    """A sound copy of a bundle, but for one recorded latent that no machine can reproduce."""
    copy.mkdir()
    manifest = read_manifest((bundle / "manifest.json").read_bytes())
    with np.load(bundle / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["fp32.latent"][0, 0] += 1
    np.savez(copy / "golden.npz", **arrays)
    data = (copy / "golden.npz").read_bytes()
    for graph in bundle.glob("*.onnx"):
        (copy / graph.name).write_bytes(graph.read_bytes())
    changed = manifest._replace(golden=FileEntry(sha256_hex(data), len(data)))
    (copy / "manifest.json").write_text(changed.dumps())
    return copy
