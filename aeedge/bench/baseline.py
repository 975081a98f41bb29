"""Compare a result with an earlier one from the same machine, corrected for the state that the machine was in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from aeedge.bench.compare import verdict
from aeedge.bench.statistics import independent_ratio
from aeedge.errors import InputError
from aeedge.system.fingerprint import same_machine

SCHEMA = "aeedge-bench/2"


def read_baseline(path: str) -> dict[str, Any]:
    """A result document that `aeedge bench --json` wrote.

    Raises:
        InputError: not there, not such a document, of another schema, or INVALID.
    """
    try:
        document: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        schema = document["schema"]
    except OSError as error:
        raise InputError(f"{path}: expected a result of 'aeedge bench --json', but {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: expected a result of 'aeedge bench --json', but it is not one") from None
    if schema != SCHEMA:
        raise InputError(f"{path}: expected a result of schema {SCHEMA}, got {schema}; measure the baseline again")
    if document["status"] == "invalid":
        raise InputError(f"{path}: expected a valid baseline, but this one is INVALID; measure it again")
    return document


def against(document: dict[str, Any], baseline: dict[str, Any], path: str) -> None:
    """Add to `document` a comparison of its scenarios with the baseline's.

    The medians of single loads are compared, each divided by the time of the reference workload just before it, so that
    a machine that runs faster today does not look like a faster bundle.

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
    document["compared_with"] = {
        "path": path,
        "id": b["id"],
        "variant": b["variant"],
        "started_at": baseline["started_at"],
    }
    document["comparison"] = []
    for name in common:
        this, other = document["scenarios"][name], baseline["scenarios"][name]
        ratio = independent_ratio(_normalised(this), _normalised(other))
        document["comparison"].append(
            {
                "scenario": name,
                "ratio": ratio._asdict(),
                "this_us": float(np.median(this["loads_us"])),
                "other_us": float(np.median(other["loads_us"])),
                "reference_ratio": float(np.median(this["reference_us"]) / np.median(other["reference_us"])),
                "verdict": verdict(ratio),
            }
        )


def _both(name: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(len(d["scenarios"].get(name, {}).get("loads_us", [])) > 1 for d in (one, other))


def _normalised(scenario: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    loads = np.asarray(scenario["loads_us"], np.float64)
    return np.divide(loads, np.asarray(scenario["reference_us"], np.float64)[: len(loads)])
