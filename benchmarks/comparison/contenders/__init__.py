"""The contenders. One module per runtime, each with a class `Contender`:

    Contender(folder, options, threads)   opens the network of a workload's folder
    .prepare(rows)                        float32 rows -> the runtime's input, as its user would have it: not timed
    .encode(prepared)                     -> latents as a float32 numpy array; timed

Runtimes are imported inside `__init__`, so that a cold start includes one runtime alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Entry(NamedTuple):
    """A contender: its name in tables, its module, the module's options, the distributions it needs.

    `exact`: its latents must agree with torch's. `only` restricts it to "one" or "all" threads, `batch` to one number
    of samples. `loads` is the dtype of its input.
    """

    name: str
    module: str
    options: dict[str, Any]
    needs: tuple[str, ...]
    exact: bool = True
    only: str = ""
    loads: str = "float32"
    batch: int | None = None


def entries(folder: Path) -> list[Entry]:
    """All contenders for a workload's folder; aeedge once for each variant of each bundle."""
    here = "comparison.contenders."
    tflite = here + "by_litert"
    return [
        *_of_aeedge(folder),
        Entry("onnxruntime", here + "by_onnxruntime", {}, ("onnxruntime",)),
        Entry("onnxruntime, one thread", here + "by_onnxruntime", {"threads": 1}, ("onnxruntime",), only="all"),
        Entry("onnxruntime, bound", here + "by_onnxruntime_bound", {}, ("onnxruntime",), only="one", batch=1),
        Entry("OpenVINO", here + "by_openvino", {}, ("openvino",)),
        Entry("LiteRT fp32", tflite, {"file": "fp32.tflite"}, ("ai-edge-litert",)),
        Entry("LiteRT int8", tflite, {"file": "int8.tflite"}, ("ai-edge-litert",), exact=False, loads="int8"),
        Entry("torch eager", here + "by_torch", {}, ("torch",)),
        Entry("torch compiled", here + "by_torch", {"compiled": True}, ("torch",)),
        Entry("numpy", here + "by_numpy", {}, ("numpy",)),
        Entry("sklearn PCA", here + "by_pca", {}, ("scikit-learn",), exact=False),
    ]


def _of_aeedge(folder: Path) -> list[Entry]:
    found = []
    for bundle in sorted(folder.glob("*.aeedge")):
        manifest = json.loads((bundle / "manifest.json").read_text())
        dtype = manifest["input"]["dtype"]
        for variant in manifest["variants"]:
            name = f"aeedge {variant}" + ("" if dtype == "float32" else f" {dtype}-in")
            options = {"bundle": bundle.name, "variant": variant, "dtype": dtype}
            module = "comparison.contenders.by_aeedge"
            found.append(Entry(name, module, options, ("aeedge",), exact=variant == "fp32", loads=dtype))
            if name == "aeedge fp32":
                found.append(Entry("aeedge fp32, bound", module + "_bound", options, ("aeedge",), only="one", batch=1))
    return found
