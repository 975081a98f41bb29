"""Compare a result with one that was kept: the same machine is a must, its changing state is taken out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from aeedge.bench.compare import verdict
from aeedge.bench.statistics import independent_ratio
from aeedge.errors import InputError
from aeedge.system.fingerprint import same_machine

_SCHEMA = "aeedge-bench/1"


def read_baseline(path: str) -> dict[str, Any]:
    """A result document that `aeedge bench --json` wrote.

    Raises:
        InputError: not there, no such document, of another version, or INVALID.
    """
    try:
        document: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        schema = document["schema"]
    except OSError as error:
        raise InputError(f"{path}: expected a result of 'aeedge bench --json', but {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: expected a result of 'aeedge bench --json', but it is none") from None
    if schema != _SCHEMA:
        raise InputError(f"{path}: expected a result of schema {_SCHEMA}, got {schema}; measure the baseline again")
    if document["status"] == "invalid":
        raise InputError(f"{path}: this baseline is INVALID by its own account; measure it again")
    return document


def against(document: dict[str, Any], baseline: dict[str, Any], path: str) -> None:
    """Add to `document` how its scenarios relate to the baseline's.

    The medians of single loads are compared, each in units of the yardstick that was measured just before it, so that a
    machine that runs faster today does not pass for a faster bundle.

    Raises:
        InputError: measured on another machine, another method, or no scenario in common.
    """
    if different := same_machine(document["machine"], baseline["machine"]):
        raise InputError(f"{path}: measured on another machine ({different[0]}); measure the baseline on this one")
    if baseline["method"] != document["method"]:
        raise InputError(f"{path}: measured {baseline['method']}, this run {document['method']}; use the same --method")
    common = [name for name in ("SingleStream", "MultiStream", "Offline") if _both(name, document, baseline)]
    if not common:
        raise InputError(f"{path}: has no scenario in common with this run; measure the same --scenario")
    b = baseline["bundle"]
    document["compared_with"] = {"path": path, "id": b["id"], "variant": b["variant"], "taken": baseline["taken"]}
    document["comparison"] = []
    for name in common:
        this, other = document["scenarios"][name], baseline["scenarios"][name]
        ratio = independent_ratio(_normalised(this), _normalised(other))
        document["comparison"].append(
            {
                "part": name,
                "ratio": ratio._asdict(),
                "this_us": float(np.median(this["loads_us"])),
                "other_us": float(np.median(other["loads_us"])),
                "yardstick": float(np.median(this["yardstick_us"]) / np.median(other["yardstick_us"])),
                "verdict": verdict(ratio),
            }
        )


def _both(name: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(len(d["scenarios"].get(name, {}).get("loads_us", [])) > 1 for d in (one, other))


def _normalised(scenario: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    loads = np.asarray(scenario["loads_us"], np.float64)
    yardsticks = np.asarray(scenario["yardstick_us"], np.float64)[: len(loads)]
    return np.divide(loads, yardsticks)
