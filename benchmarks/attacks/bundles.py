"""Bundles to attack: copies of the frozen ones, what they compute, and how they are sealed again after a change."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
_NAMES = ("", "_encoder", "_int8", "_saturating", "_scorer", "_scorer_int8", "_uint8")
FROZEN = [f"bundle_v1{name}" for name in _NAMES]  # those that every version reads
BUNDLE = DATA / "bundle_v1"
WIDTH, LATENTS = 12, 3


def copied(folder: Path, name: str = "bundle_v1") -> Path:
    """A copy of a frozen bundle."""
    return Path(shutil.copytree(DATA / name, folder / "attacked.aeedge"))


@cache
def manifest(name: str = "bundle_v1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / name / "manifest.json").read_text())
    return found


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows as the sensors of bundle_v1 would give them."""
    made = np.random.default_rng(seed).normal(size=(count, WIDTH)) * np.geomspace(0.01, 100, WIDTH)
    return (made + np.linspace(-50, 1000, WIDTH)).astype(np.float32)


@cache
def latents(count: int, name: str = "bundle_v1") -> NDArray[np.float32]:
    """What bundle_v1 makes of `rows(count)`."""
    import aeedge

    with aeedge.load(DATA / name, threads=1) as model:
        found: NDArray[np.float32] = model.encode(rows(count))
    return found


def close(got: Any, expected: NDArray[Any]) -> bool:
    """Whether an array is the expected one, but for rounding."""
    right_form = isinstance(got, np.ndarray) and got.shape == expected.shape and got.dtype == np.float32
    return right_form and bool(np.allclose(got, expected, rtol=1e-3, atol=1e-3))


def digest(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def seal(path: Path, document: dict[str, Any], raw: dict[str, str] | None = None) -> None:
    """Write a manifest with its checksum; `raw` are texts to put for strings in it, what JSON cannot express."""
    document["manifest_sha256"] = "0" * 64
    text = json.dumps(document, indent=1)
    for mark, literal in (raw or {}).items():
        text = text.replace(json.dumps(mark), literal)
    data = text.encode("utf-8", "surrogatepass")
    sealed = data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)
    (path / "manifest.json").write_bytes(sealed)


def put_graph(path: Path, data: bytes) -> None:
    """Replace the encoder, with its checksum."""
    (path / "encoder.onnx").write_bytes(data)
    document = json.loads((path / "manifest.json").read_text())
    document["variants"]["fp32"]["encoder"] = digest(data)
    seal(path, document)


def command(arguments: list[str], judge: Callable[[str], Any] = lambda text: None) -> str:
    """Run the command in this process.

    Returns:
        What it printed, if it ended with 0.

    Raises:
        AeedgeError: it ended with an error of its own; what else it raised comes through.
    """
    import aeedge
    import aeedge.cli

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = aeedge.cli.command(arguments)
        except SystemExit as end:
            code = end.code
    said = [stream.buffer.getvalue().decode() for stream in (out, err) if not stream.flush()]  # type: ignore[attr-defined]
    judge(said[0] + said[1])
    if code:
        raise aeedge.AeedgeError(f"{said[0][-200:]} {said[1]}")
    return said[0]
