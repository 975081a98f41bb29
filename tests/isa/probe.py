"""What one machine computes with bundles: run under an emulator, read by test_isa.py.

    python probe.py BUNDLE ROWS.npz OUT.npz [BUNDLE ROWS.npz OUT.npz ...]

ROWS.npz has one array, `rows`. OUT.npz has, for each variant and batch size, `VARIANT.latent.SIZE`,
`VARIANT.reconstruction.SIZE` and `VARIANT.score.SIZE`, the verdict of self_check as `VARIANT.verdict` ("ok" or its
message), `VARIANT.arithmetic`, and `machine`, JSON about the machine. Several bundles at once because the imports take
most of the time.
"""

import json
import platform
import sys

import numpy as np
import onnxruntime

import aeedge

BATCHES = (1, 7, 64)  # different kernels run for one row, for a few and for many


def machine():
    """What numpy sees of the CPU (onnxruntime does not tell what it sees), and the versions."""
    core = getattr(np, "_core", None) or np.core
    features = [name for name, there in core._multiarray_umath.__cpu_features__.items() if there]
    versions = {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": onnxruntime.__version__}
    return {"architecture": platform.machine(), "features": features, **versions}


def probe(bundle, rows):
    """Every output of every variant of a bundle, by name."""
    results = {"machine": json.dumps(machine())}
    for variant in aeedge.load(bundle, threads=1).manifest.variants:
        with aeedge.load(bundle, variant=variant, threads=1) as model:
            for size in BATCHES:
                batch = rows[:size]
                results[f"{variant}.latent.{size}"] = model.encode(batch)
                results[f"{variant}.reconstruction.{size}"] = model.denoise(batch)
                results[f"{variant}.score.{size}"] = model.score(batch)
            results[f"{variant}.verdict"] = verdict(model)
            results[f"{variant}.arithmetic"] = model.arithmetic
    return results


def verdict(model):
    """What the bundle's own check says of this machine."""
    try:
        model.self_check()
    except aeedge.VerificationError as error:
        return str(error)
    return "ok"


def main():
    """One OUT.npz for each BUNDLE and ROWS.npz."""
    jobs = [sys.argv[first : first + 3] for first in range(1, len(sys.argv), 3)]
    for bundle, rows, out in jobs:
        with np.load(rows) as file:
            results = probe(bundle, file["rows"])
        np.savez(out, **results)


if __name__ == "__main__":
    main()
