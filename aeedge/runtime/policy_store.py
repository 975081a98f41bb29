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

from aeedge.errors import InputError, of_system, printable
from aeedge.record import Record
from aeedge.runtime.policy import DispatchPolicy
from aeedge.runtime.session import runtime_version
from aeedge.system.limits import allowed_cpus, cpu_count, processor, record_path

FORMAT = 2
_MAX_CHARS = 2**24  # of a file, which holds some kilobytes for each machine
_LEAST_US, _MOST_US = 1e-3, 1e12  # of a row, and of a cutoff: nothing takes less than a nanosecond, or eleven days
_MAX_ROWS, _MAX_THREADS = 2**31, 2**12
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if not of_system(error):
            raise
        what = printable(f"{type(error).__name__}: {error}", 200)
        warnings.warn(
            f"{path}: not a record that 'aeedge tune' wrote ({what}), it is not used; remove it, or tune again",
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
        text = stream.read(_MAX_CHARS + 1)
    if len(text) > _MAX_CHARS:
        raise ValueError(f"more than {_MAX_CHARS} characters")
    return json.loads(text)


def _others(path: str) -> dict[str, Any]:
    try:
        document = _document(path)
        records = document["records"] if document["format"] == FORMAT else {}
        return dict(records)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def as_document(tuned: TunedPolicy) -> dict[str, Any]:
    """A record as JSON has it, which knows no infinity: null stands for it."""
    policy = {key: None if value == math.inf else value for key, value in tuned.policy._asdict().items()}
    return tuned._asdict() | {"policy": policy}


def _parse(record: dict[str, Any]) -> TunedPolicy:
    """A record as `as_document` makes one.

    Raises:
        ValueError, KeyError, TypeError: a value is missing, of a wrong type, or out of its range.
    """
    values, row_us = record["policy"], record["row_us"]
    policy = DispatchPolicy(
        _cutoff(values["pool_from_us"]),
        _cutoff(values["workers_from_us"]),
        _cutoff(values["block_us"]),
        _count(values["max_rows"], _MAX_ROWS),
        _flag(values["single_on_pool"]),
        _flag(values["measure_pool"]),
    )
    if record["objective"] not in OBJECTIVES:
        raise ValueError(f"the objective is {record['objective']!r}")
    threads, variant = _count(record["threads"], _MAX_THREADS), record["variant"]
    if not isinstance(variant, str):
        raise TypeError(f"the variant is {variant!r}")
    times = {str(name): _number(us, _LEAST_US, _MOST_US) for name, us in row_us.items()}
    return TunedPolicy(record["objective"], variant, threads, policy, times, dict(record["measurements"]))


def _number(value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{value!r} is out of its range")
    return float(value)


def _cutoff(value: Any) -> float:
    """Microseconds; null stands for never."""
    return math.inf if value is None else _number(value, 0.0, _MOST_US)


def _count(value: Any, most: int) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return int(_number(value, 1, most))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {value!r}")
    return value
