"""The policy store: what `aeedge tune` found, among the user's device state; one file a bundle, one record a machine.

Where: `$AEEDGE_STATE`, else `$XDG_STATE_HOME/aeedge`, else `~/.local/state/aeedge` (XDG Base Directory Specification).
A record is used on the processor, the number of CPUs and the onnxruntime that it was measured with, and nowhere else.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from typing import Any

from aeedge.errors import InputError
from aeedge.record import Record
from aeedge.runtime.policy import DispatchPolicy
from aeedge.runtime.session import runtime_version
from aeedge.system.limits import allowed_cpus, cpu_count, processor, record_path

FORMAT = 2
OBJECTIVES = ("latency", "throughput", "memory")


class TunedPolicy(Record):
    """A choice for one bundle on one machine.

    Attributes:
        objective: what it was made for, one of OBJECTIVES.
        variant: which runs.
        threads: how many.
        policy: which way a number of rows is run.
        row_us: microseconds of a row on one thread by method, as measured.
        measurements: what decided, for a reader.
    """

    objective: str
    variant: str
    threads: int
    policy: DispatchPolicy
    row_us: dict[str, float]
    measurements: dict[str, Any]


def machine_key() -> str:
    """What a record depends on beside the bundle."""
    return f"{processor()[0]}, {min(cpu_count(), len(allowed_cpus()))} CPUs, onnxruntime {runtime_version()}"


def read(identity: str) -> TunedPolicy | None:
    """The record of a bundle for this machine, if there is a usable one. A damaged file is not used, with a warning."""
    path = record_path(identity)
    if path is None or not os.path.isfile(path):
        return None
    try:
        document = _document(path)
        if document["format"] != FORMAT:
            return None  # of another version of aeedge
        record = document["records"].get(machine_key())
        return None if record is None else _parse(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(
            f"{path}: not a record that 'aeedge tune' wrote ({type(error).__name__}: {error}), it is not used; "
            "remove it, or tune again",
            stacklevel=5,
        )
        return None


def write(identity: str, tuned: TunedPolicy) -> str:
    """Keep a record for this machine, beside those of other machines; gives the file.

    Raises:
        InputError: nowhere to write, or a disk that is full or read-only.
    """
    from aeedge.files.atomic import atomic_file  # imports much, and every load imports this module

    path = record_path(identity)
    if path is None:
        raise InputError("expected HOME, XDG_STATE_HOME or AEEDGE_STATE to say where to keep the result; set one")
    records = _others(path)
    records[machine_key()] = as_document(tuned)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with atomic_file(path, overwrite=True) as part:
            document = {"format": FORMAT, "bundle": identity, "records": records}
            part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: not written, {error.strerror}; set AEEDGE_STATE to a folder you may write to"
        ) from None
    return path


def _document(path: str) -> Any:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def _others(path: str) -> dict[str, Any]:
    try:
        document = _document(path)
        records = document["records"] if document["format"] == FORMAT else {}
        return dict(records)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def as_document(tuned: TunedPolicy) -> dict[str, Any]:
    """A record as JSON has it, which knows no infinity: null stands for it."""
    policy = {key: None if value == math.inf else value for key, value in tuned.policy._asdict().items()}
    return tuned._asdict() | {"policy": policy}


def _parse(record: dict[str, Any]) -> TunedPolicy:
    values = {key: math.inf if value is None else value for key, value in record["policy"].items()}
    policy = DispatchPolicy(
        float(values["pool_from_us"]),
        float(values["workers_from_us"]),
        float(values["block_us"]),
        int(values["max_rows"]),
        bool(values["single_on_pool"]),
        bool(values["measure_pool"]),
    )
    threads, row_us = int(record["threads"]), {str(name): float(us) for name, us in record["row_us"].items()}
    least_us = min(policy.pool_from_us, policy.workers_from_us, policy.block_us)
    if least_us < 0 or min(row_us.values(), default=1) <= 0 or min(policy.max_rows, threads) < 1:
        raise ValueError("a value is out of its range")
    if record["objective"] not in OBJECTIVES:
        raise ValueError(f"the objective is {record['objective']!r}")
    return TunedPolicy(
        record["objective"], str(record["variant"]), threads, policy, row_us, dict(record["measurements"])
    )
