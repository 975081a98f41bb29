"""Costs of bundles on a device: `aeedge bench --batch`, here or there, and files of its results."""

from __future__ import annotations

import io
import json
import math
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aeedge.bench.batch import SCHEMA
from aeedge.errors import AeedgeError, InputError, printable, shortened
from aeedge_export.architecture_search.budget import Budget, Cost

_PATIENCE, _PER_BUNDLE = 120.0, 30.0  # seconds, until a device counts as one that does not answer


class DeviceError(AeedgeError):
    """A device did not measure what it was asked to; the message says what came."""


def measure(
    bundles: Sequence[Path], budget: Budget, method: str, threads: int | str, seconds: float, remote: str | None = None
) -> dict[str, Any]:
    """The document of `aeedge bench --batch` for bundles, measured in a process of its own, here or by `remote`.

    Args:
        bundles: folders, whose names are unique.
        budget: how many samples a call has.
        method: "encode", "score", …
        threads: of the device runtime.
        seconds: for each bundle and number of samples.
        remote: a command that runs another one on the device, such as "ssh pi@gateway"; None for this machine.

    Raises:
        DeviceError: no answer, or one that is no measurement of these bundles.
    """
    options = ["bench", "--batch", "-", "--json", "--method", method, "--threads", str(threads)]
    options += ["--seconds", f"{seconds:g}"]
    for rows in sorted({budget.latency_at, budget.rate_at}):
        options += ["--at", str(rows)]
    command = [sys.executable, "-m", "aeedge"] if remote is None else [*as_command(remote), "aeedge"]
    timeout = _PATIENCE + (_PER_BUNDLE + 4 * seconds) * len(bundles)
    where = "this machine" if remote is None else f"'{remote}'"
    try:
        done = subprocess.run([*command, *options], input=_packed(bundles), capture_output=True, timeout=timeout)
    except OSError as error:
        raise DeviceError(f"{where}: cannot be run: {error.strerror}; check the command") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{where}: no answer within {timeout:.0f} s; check that it can be reached") from None
    said = printable((done.stderr.strip() or done.stdout.strip()).decode(errors="replace")[-300:])
    try:
        document = json.loads(done.stdout)
    except ValueError:
        raise DeviceError(
            f"{where}: expected the JSON of 'aeedge bench --batch', got exit code {done.returncode} and "
            f"{repr(said) if said else 'nothing'}; check that the device can be reached and has this version of aeedge"
        ) from None
    found = checked(document, where)
    answers = {one["name"]: one for one in found["bundles"]}
    others = [bundle.stem for bundle in bundles if not _is_of(answers.get(bundle.stem), bundle, budget)]
    if others:
        raise DeviceError(
            f"{where}: expected results of the {len(bundles)} bundles that were sent, got none or those of others for "
            f"{shortened(others, 3)}"
        )
    return found


def _is_of(answer: dict[str, Any] | None, bundle: Path, budget: Budget) -> bool:
    """Whether an answer is of a bundle, and of the calls that were asked for."""
    if answer is None or "error" in answer:
        return answer is not None
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    asked = {str(budget.latency_at), str(budget.rate_at)}
    return bool(answer["id"] == manifest["id"] and asked <= answer["latency_us"].keys())


def as_command(remote: str) -> list[str]:
    """The words of a command.

    Raises:
        InputError: there are none, or a quotation mark is missing.
    """
    try:
        words = shlex.split(remote)
    except ValueError:
        words = []
    if not words:
        raise InputError(
            f"remote: expected a command that runs another one on the device, such as 'ssh pi@gateway', got {remote!r}"
        )
    return words


def checked(document: Any, where: str) -> dict[str, Any]:
    """A document of `aeedge bench --batch`.

    Raises:
        DeviceError: something else.
    """
    is_one = isinstance(document, dict) and document.get("schema") == SCHEMA
    if not is_one or not _is_whole(document):
        raise DeviceError(f"{where}: expected what 'aeedge bench --batch --json' prints ({SCHEMA}), got something else")
    found: dict[str, Any] = document
    return found


def _is_whole(document: dict[str, Any]) -> bool:
    """Whether what is read of a document has the types that it should have."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "status": str,
        "method": str,
        "at": list,
        "machine": (dict, type(None)),
    }
    if not all(isinstance(document[name], kind) for name, kind in kinds.items() if name in document):
        return False
    bundles, ats = document.get("bundles"), document.get("at", [])
    return isinstance(bundles, list) and all(map(_is_entry, bundles)) and all(map(_is_number, ats))


def _is_entry(one: Any) -> bool:
    """Whether something is what was measured of a bundle, or why it was not."""
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        return False
    if "error" in one:
        return isinstance(one["error"], str)
    times, noise, memory = one.get("latency_us"), one.get("noise", {}), one.get("memory_bytes")
    if not (isinstance(one.get("id"), str) and isinstance(times, dict) and isinstance(noise, dict)):
        return False
    positive = all(_is_number(value) and value > 0 for value in (one.get("size_bytes"), *times.values()))
    rest = [value for value in (memory, *noise.values()) if value is not None]
    return positive and all(_is_number(value) and value >= 0 for value in rest)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_measurements(path: str | Path, method: str) -> dict[str, Any]:
    """What was measured on a device and brought back as a file.

    Args:
        path: of the file.
        method: what was to be timed.

    Raises:
        InputError: no such file, another one, or one of another method.
    """
    try:
        found = checked(json.loads(Path(path).read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise InputError(f"measured: cannot read {path}: {error.strerror}") from None
    except (ValueError, DeviceError):
        raise InputError(
            f"measured: expected what 'aeedge bench --batch --json' prints, got something else in {path}"
        ) from None
    if found.get("method", method) != method:
        raise InputError(
            f"measured: expected times of {method}, got those of {found['method']} in {path}; measure again with "
            f"--method {method}"
        )
    return found


def costs(
    document: Mapping[str, Any], budget: Budget, macs: Mapping[str, int], ids: Mapping[str, str]
) -> dict[str, Cost]:
    """Costs by name of bundle, of those that could be measured.

    Args:
        document: of `aeedge bench --batch`.
        budget: how many samples a call has.
        macs: multiply-adds by name.
        ids: of the bundles, by name.

    Raises:
        InputError: the document is of other bundles, or of other numbers of samples.
    """
    found = {one["name"]: one for one in document["bundles"]}
    others = [name for name in ids if name not in found or found[name].get("id", ids[name]) != ids[name]]
    if others:
        raise InputError(
            f"measured: expected results of this search's bundles, got none or those of others for "
            f"{shortened(others, 3)}; measure its folder 'bundles' on the device again"
        )
    result = {}
    for name in ids:
        times = found[name].get("latency_us")
        if times is None:
            continue
        needed = {str(budget.latency_at), str(budget.rate_at)}
        if not needed <= times.keys():
            raise InputError(
                f"measured: expected times of calls with {' and '.join(sorted(needed, key=int))} samples, got "
                f"{', '.join(times)}; measure again with {' '.join(f'--at {at}' for at in sorted(needed, key=int))}"
            )
        latency, many = times[str(budget.latency_at)], times[str(budget.rate_at)]
        rate = budget.rate_at * 1e6 / many
        result[name] = Cost(latency, rate, found[name]["size_bytes"], found[name].get("memory_bytes"), macs[name])
    return result


def failures(document: Mapping[str, Any]) -> dict[str, str]:
    """Why bundles could not be measured, by name."""
    return {one["name"]: one["error"] for one in document.get("bundles", ()) if "error" in one}


def _packed(bundles: Sequence[Path]) -> bytes:
    """Bundles as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for bundle in bundles:
            for file in sorted(bundle.iterdir()):
                archive.add(file, f"{bundle.name}/{file.name}")
    return buffer.getvalue()
