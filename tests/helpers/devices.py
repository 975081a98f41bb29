"""A device that answers `aeedge bench --batch` without measuring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aeedge.bundle.reader import Bundle
from aeedge.system.fingerprint import fingerprint
from aeedge_export.architecture_search import measuring
from aeedge_export.architecture_search.budget import Budget


def by_size(bundles: Sequence[Path], budget: Budget, *options: Any) -> dict[str, Any]:
    """The document of a device that takes a nanosecond for each byte of the encoder.

    Args:
        bundles: folders.
        budget: how many samples a call has.
        options: of `measuring.measure`, ignored.
    """
    found = []
    for bundle in bundles:
        us = (bundle / "encoder.onnx").stat().st_size / 1e3
        times = {str(at): us * at for at in (budget.latency_at, budget.rate_at)}
        sizes = {"size_bytes": sum(file.stat().st_size for file in bundle.iterdir()), "memory_bytes": 10**6}
        known = {"name": bundle.stem, "id": Bundle(str(bundle)).manifest.id, "variant": "fp32"}
        found.append(known | {"latency_us": times, "noise": dict.fromkeys(times, 0.01)} | sizes)
    at = sorted({budget.latency_at, budget.rate_at})
    machine = {"schema": measuring.SCHEMA, "status": "valid", "machine": fingerprint()}
    return machine | {"at": at, "bundles": found}
