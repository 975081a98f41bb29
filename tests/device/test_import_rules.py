"""The device package stays light: checked in a clean process, not by reading imports."""

import subprocess
import sys
from pathlib import Path

import numpy as np

import aeedge

BUNDLE = Path(__file__).parent.parent / "data" / "bundle_v1"
FORBIDDEN = (
    "torch",
    "onnx",
    "onnxscript",
    "sklearn",
    "scipy",
    "matplotlib",
    "pandas",
    "polars",
    "pyarrow",
    "PIL",
    "rich",
    "aeedge_export",
)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_encoding_imports_nothing_of_the_workstation():
    out = run(
        f"""
import sys, numpy as np, aeedge
model = aeedge.load({str(BUNDLE)!r})
model.denoise(np.ones((2, 12))); model.score(np.ones(12)); model.self_check()
print([m for m in {FORBIDDEN!r} if m in sys.modules])
print("click" in sys.modules)
"""
    )
    assert out.split("\n")[:2] == ["[]", "False"]


def test_the_command_imports_nothing_of_the_workstation():
    out = run(
        f"""
import sys, aeedge.cli
try: aeedge.cli.command(["verify", {str(BUNDLE)!r}])
except SystemExit as done: assert done.code == 0
try: aeedge.cli.command(["--help"])
except SystemExit: pass
print([m for m in {FORBIDDEN!r} if m in sys.modules])
"""
    )
    assert out.strip().endswith("[]")


def test_telemetry_is_off_before_onnxruntime_is_imported():
    assert run("import aeedge, os; print(os.environ['ORT_DISABLE_TELEMETRY'])").strip() == "1"


def test_no_thread_is_started_by_loading_and_encoding_one_row():
    out = run(
        f"""
import os, numpy as np, aeedge
before = len(os.listdir("/proc/self/task"))
model = aeedge.load({str(BUNDLE)!r}); model.encode(np.ones(12))
print(len(os.listdir("/proc/self/task")) - before)
"""
    )
    assert out.strip() == "0"


def test_every_public_name_is_listed_and_there():
    of_annotations, when_used = {"annotations", "Any", "TYPE_CHECKING"}, {"__version__", *aeedge._LATER}
    public = {name for name in vars(aeedge) if not name.startswith("_")} - of_annotations
    modules = {name for name in public if type(getattr(aeedge, name)).__name__ == "module"}
    assert public - modules | when_used == set(aeedge.__all__)
    assert all(hasattr(aeedge, name) for name in aeedge.__all__)
    loaded = set(run("import sys, aeedge; print(*sys.modules)").split())
    assert loaded.isdisjoint(aeedge._LATER.values())
    assert "aeedge.loading" in loaded


def test_errors_are_one_tree():
    assert issubclass(aeedge.InputError, ValueError)
    for name in ("BundleError", "InputError", "VerificationError"):
        assert issubclass(getattr(aeedge, name), aeedge.AeedgeError)
    for name in ("CorruptBundleError", "IncompatibleBundleError"):
        assert issubclass(getattr(aeedge, name), aeedge.BundleError)


def test_the_frozen_bundle_still_encodes_to_the_recorded_numbers(model):
    with np.load(BUNDLE / "golden.npz") as golden:
        np.testing.assert_allclose(model.encode(golden["input"]), golden["fp32.latent"], rtol=1e-4, atol=1e-4)
