"""What `aeedge doctor` does: examine this machine, the installed packages, and how a bundle runs here.

onnxruntime is probed in a child process first: on a processor that a build does not support, importing it may end the
process. What a system does not report is None; nothing here fails because /proc, /sys or HOME is missing. The result is
a document of plain values (docs/reference/json-outputs.md).
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distributions, requires
from typing import TYPE_CHECKING, Any

from aeedge.bundle.reader import Bundle
from aeedge.errors import AeedgeError, BundleError, CorruptBundleError, IncompatibleBundleError, VerificationError
from aeedge.loading import load
from aeedge.runtime import policy_store
from aeedge.runtime.session import TELEMETRY_FOUND
from aeedge.system.conditions import Finding, board_flags, celsius, pi_flags, standing
from aeedge.system.fingerprint import fingerprint
from aeedge.system.limits import allowed_cpus, cgroup_folders, cpu_count, read_text, state_folder
from aeedge.system.ort_probe import TIMEOUT, at_fault, failure, probe, words
from aeedge.system.versions import release

if TYPE_CHECKING:
    from aeedge.model import Model
    from aeedge.verification import Deviation

SCHEMA = "aeedge-doctor/2"
_LITTLE_MEMORY_MB = 64  # numpy and onnxruntime 1.32 alone occupy 46 MB, without a bundle
_HOT_CELSIUS = 80.0
_FIRST_WITH_TELEMETRY = (1, 29)
_TELEMETRY_DATABASE = os.path.join("Microsoft", "DeveloperTools", ".onnxruntime", "onnxruntime.db")
_DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
_BUILDS = re.compile(r"onnxruntime([-_].+)?|ort[-_]nightly.*", re.IGNORECASE)
_GRADES = ("error", "warning", "note")


def examine(bundle: str | None = None, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Examine this machine, and how it runs a bundle.

    Args:
        bundle: path of a bundle to open as well.
        timeout: seconds that the probe of onnxruntime may take.

    Returns:
        The document: `schema`, `ok`, `machine`, `onnxruntime`, `threads`, `bundle`, `findings`.

    Raises:
        BundleError: nothing is at that path, or it is not a bundle.
    """
    if bundle is not None:
        with suppress(CorruptBundleError, IncompatibleBundleError):  # a damaged one is part of the examination
            Bundle(bundle)
    facts = machine()
    runtime = probe(timeout)
    facts["versions"]["onnxruntime"] = runtime["version"] or facts["versions"]["onnxruntime"]
    count = threads(facts)
    opened, findings = (None, []) if bundle is None else open_bundle(bundle, count, works=runtime["works"])
    findings += [*package_findings(runtime, facts), *machine_findings(facts)]
    findings.sort(key=lambda finding: _GRADES.index(finding.grade))
    return {
        "schema": SCHEMA,
        "ok": all(finding.grade != "error" for finding in findings),
        "machine": facts,
        "onnxruntime": runtime | {"telemetry": telemetry(facts["versions"]["onnxruntime"])},
        "threads": count,
        "bundle": opened,
        "findings": [finding._asdict() for finding in findings],
    }


# --- the machine


def machine() -> dict[str, Any]:
    """The fingerprint of a benchmark, and what may change from one minute to the next."""
    facts = fingerprint("click")
    return {
        **facts,
        "int8_sums": int8_sums(facts["vector"]),
        "cpus_in_affinity_mask": len(allowed_cpus()),
        "memory_free_mb": _free_memory(),
        "celsius": celsius(),
        "board_flags": board_flags(pi_flags()),
    }


def int8_sums(vector: Iterable[str]) -> str | None:
    """How the processor adds products of int8, or None where its features are unknown.

    "dot_product" is exact and fast, "exact" has no instruction for dot products, "may_saturate" (x86 without VNNI) adds
    in 16 bits.
    """
    known = set(vector)
    if known.intersection(_DOT_PRODUCTS):
        return "dot_product"
    if "asimd" in known:
        return "exact"
    return "may_saturate" if known & {"sse4_2", "avx", "avx2", "avx512f"} else None


def threads(facts: dict[str, Any]) -> dict[str, Any]:
    """The number that threads="auto" stands for, and what sets it: "cpu_quota", "affinity_mask" or "all_cpus"."""
    mask, count = facts["cpus_in_affinity_mask"], cpu_count()
    if count < mask:
        return {"value": count, "source": "cpu_quota"}
    return {"value": count, "source": "affinity_mask" if mask < (facts["cpus_of_machine"] or 1) else "all_cpus"}


def _free_memory() -> int | None:
    """MB that may still be allocated: the least of what the machine has free and of what the cgroups' limits leave."""
    free = []
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    for folder in cgroup_folders():
        limit, used = (read_text(os.path.join(folder, name)).strip() for name in ("memory.max", "memory.current"))
        if limit.isdigit() and used.isdigit():
            fields = dict(line.split() for line in read_text(os.path.join(folder, "memory.stat")).splitlines())
            cache = sum(int(fields.get(name, 0)) for name in ("active_file", "inactive_file"))
            free.append(max(0, int(limit) - int(used) + cache))
    return min(free) // 10**6 if free else None


def machine_findings(facts: dict[str, Any]) -> list[Finding]:
    """Findings on the machine, and on how this process is placed on it."""
    found = []
    if unreadable := _unreadable():
        text = f"{unreadable}: cannot be read; features, memory or CPUs of this machine are unknown"
        found.append(Finding("warning", "unreadable", text))
    if facts["cpu_quota"] is not None and facts["cpu_quota"] < 1:
        text = f"a quota of {facts['cpu_quota']:g} CPUs pauses calls before they are done; grant at least one CPU"
        found.append(Finding("warning", "quota", text))
    if facts["memory_free_mb"] is not None and facts["memory_free_mb"] < _LITTLE_MEMORY_MB:
        text = f"{facts['memory_free_mb']} MB of memory are free, expected {_LITTLE_MEMORY_MB} or more; free some"
        found.append(Finding("warning", "memory", text))
    if facts["board_flags"]:
        flags = ", ".join(facts["board_flags"]).replace("_", "-")
        found.append(Finding("warning", "throttling", f"the board reports {flags}; check its power supply and cooling"))
    if facts["celsius"] is not None and facts["celsius"] > _HOT_CELSIUS:
        found.append(Finding("warning", "temperature", f"{facts['celsius']:.0f} °C: it may throttle; cool it"))
    if (state := _state_problem()) is not None:
        found.append(Finding("warning", "state_folder", state))
    if facts["cpus_in_affinity_mask"] == 1 and (facts["cpus_of_machine"] or 1) > 1:
        text = f"the affinity mask allows 1 of {facts['cpus_of_machine']} CPUs; taskset or a container set it"
        found.append(Finding("note", "affinity_mask", text))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted and wanted != str(facts["cpus"]):
        text = f"OMP_NUM_THREADS={wanted} has no effect on aeedge; pass threads={wanted} to aeedge.load, or --threads"
        found.append(Finding("note", "omp_num_threads", text))
    return found + [finding for finding in standing() if finding.code == "governor"]


def _unreadable() -> str:
    """Files of /proc and /sys that describe a Linux machine and cannot be read."""
    if sys.platform != "linux":
        return ""
    paths = [path for path in ("/proc/cpuinfo", "/proc/meminfo") if not read_text(path)]
    if not read_text("/sys/devices/system/cpu/online"):
        paths.append("/sys/devices/system/cpu")
    return ", ".join(paths)


def _state_problem() -> str | None:
    """Why `aeedge tune` could not keep its result, or None."""
    folder = state_folder()
    if folder is None:
        return "'aeedge tune' has no folder for its result; set AEEDGE_STATE, XDG_STATE_HOME or HOME"
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing) and os.path.dirname(existing) != existing:
        existing = os.path.dirname(existing)
    if os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK):
        return None
    return f"{folder} cannot be written, so 'aeedge tune' cannot keep its result; set AEEDGE_STATE to another folder"


# --- packages


def package_findings(runtime: dict[str, Any], facts: dict[str, Any]) -> list[Finding]:
    """Findings on the packages: they cannot be used, are too old, or overwrite each other."""
    found, versions = [], facts["versions"]
    if not runtime["works"]:
        text = failure(runtime, versions[at_fault(runtime)], facts["processor"], facts["memory_free_mb"])
        found.append(Finding("error", "onnxruntime", text))
    elif runtime["exit"] is not None:
        end = words(runtime["exit"])
        text = f"onnxruntime {runtime['version']} works, but its process ends with {end}; try another version"
        found.append(Finding("warning", "onnxruntime", text))
    for name, least in _minimums().items():
        installed = release(versions.get(name))
        if installed and installed < release(least):
            text = f"{name} {versions[name]}: expected {least} or newer; upgrade it with: pip install '{name}>={least}'"
            found.append(Finding("warning", "package_version", text))
    builds = _builds()
    if len(builds) > 1:
        text = (
            f"{' and '.join(f'{name} {v}' for name, v in builds.items())} are installed over each other, which mixes "
            f"their files; remove all (pip uninstall {' '.join(builds)}) and install one"
        )
        found.append(Finding("warning", "package_conflict", text))
    database = _telemetry_database()
    if database is not None and telemetry(versions["onnxruntime"])["state"] == "on":  # else it is of other programs
        text = f"onnxruntime keeps telemetry in {database}; set ORT_DISABLE_TELEMETRY=1 to switch it off"
        found.append(Finding("note", "telemetry", text))
    return found


def _minimums() -> dict[str, str]:
    """The oldest versions that aeedge runs with, from its package's metadata."""
    try:
        needs = requires("aeedge") or []
    except PackageNotFoundError:  # run from a source tree
        return {}
    found = [re.match(r"([\w.-]+)[\s(]*>=\s*([\d.]+)", need) for need in needs if "extra" not in need]
    return {match[1]: match[2] for match in found if match is not None}


def _builds() -> dict[str, str]:
    """Installed distributions that contain a package named onnxruntime, with their versions."""
    found: dict[str, str] = {}
    for distribution in distributions():
        try:
            fields: Any = distribution.metadata
            name = fields.get("Name") or ""  # indexing warns where there is none
        except (AttributeError, TypeError, OSError, ValueError):  # what a broken uninstall leaves behind
            continue
        if _BUILDS.fullmatch(name) and any(
            file.parts[:2] == ("onnxruntime", "__init__.py") for file in distribution.files or ()
        ):
            found.setdefault(name, distribution.version)
    return dict(sorted(found.items()))


def telemetry(version: str | None) -> dict[str, str | None]:
    """Whether onnxruntime sends telemetry in a process that imports aeedge first, and what decides it.

    `state` is "unsupported" (before 1.29), "off" or "on"; `source` is "version", "environment" or "aeedge";
    `environment` is ORT_DISABLE_TELEMETRY as it was before aeedge set it.
    """
    found = TELEMETRY_FOUND
    state, source = "on", "environment"
    if release(version) and release(version) < _FIRST_WITH_TELEMETRY:
        state, source = "unsupported", "version"
    elif not found:
        state, source = "off", "aeedge"
    elif found.strip().lower() in ("1", "true", "yes", "on"):
        state = "off"
    return {"state": state, "source": source, "environment": found}


def _telemetry_database() -> str | None:
    """What onnxruntime 1.29 and newer leave in the user's cache when telemetry is on."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(cache, _TELEMETRY_DATABASE)
    return path if os.path.exists(path) else None


# --- the bundle


def open_bundle(path: str, threads: dict[str, Any], *, works: bool) -> tuple[dict[str, Any], list[Finding]]:
    """Open a bundle and run its self-check: what runs and why, and the findings. `threads` is the default number."""
    if not works:
        return {"path": path, "status": "not_opened"}, []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = load(path)
            tuned = policy_store.read(model.manifest.id)
    except AeedgeError as error:
        return {"path": path, "status": "unusable"}, [Finding("error", "bundle", str(error))]
    messages = dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning))
    found = [Finding("warning", "bundle", message) for message in messages]
    with model:
        opened = {"path": path, "status": "ok", "id": model.manifest.id} | _settings(model, tuned, threads)
        try:
            opened["outputs"] = outputs(model.self_check())
        except (VerificationError, BundleError) as error:
            return opened | {"status": "check_failed"}, [Finding("error", "self_check", str(error)), *found]
    return opened, found


def _settings(model: Model, tuned: policy_store.TunedPolicy | None, threads: dict[str, Any]) -> dict[str, Any]:
    """What was chosen when the bundle was opened, and the source of each choice."""
    wanted = tuned.variant if tuned else model.manifest.default_variant
    source = "fallback" if model.variant != wanted else "tuned" if tuned else "bundle_default"
    objective = tuned.objective if tuned and source == "tuned" else None  # a fallback runs with the default policy
    return {
        "variant": {"value": model.variant, "source": source},
        "threads": {"value": model.threads, "source": "tuned"} if tuned else threads,
        "dispatch_policy": {"source": "tuned" if objective else "default", "objective": objective},
        "arithmetic": model.arithmetic.replace(" ", "_"),
        "nonfinite_check": model.nonfinite_check,
    }


def outputs(deviations: Iterable[Deviation]) -> list[dict[str, Any]]:
    """Deviations from the reference outputs as a document has them."""
    return [
        {
            "output": d.what,
            "row": d.row,
            "error": d.error,
            "tolerance": d.allowed,
            "used_percent": 100 * d.error / d.allowed if d.error else 0.0,
            "ok": d.ok,
        }
        for d in deviations
    ]
