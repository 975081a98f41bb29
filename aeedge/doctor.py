"""What this machine is, what will be used on it and why, and what is wrong.

onnxruntime is first tried in a process of its own: on a processor that it does not know it may die where no exception
can be caught. Whatever a system does not tell is None; nothing here fails because /proc, /sys or HOME is missing.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distributions, requires
from typing import TYPE_CHECKING, Any, NamedTuple

from aeedge.bundle.reader import Bundle
from aeedge.errors import AeedgeError, BundleError, CorruptBundleError, IncompatibleBundleError, VerificationError
from aeedge.loading import load
from aeedge.runtime.session import TELEMETRY_FOUND
from aeedge.system.conditions import board_says, celsius, pi_flags, standing
from aeedge.system.fingerprint import fingerprint
from aeedge.system.limits import cgroup_folders, cpu_count, cpu_quota, read_text
from aeedge.system.ort_probe import TIMEOUT, at_fault, failure, try_onnxruntime

if TYPE_CHECKING:
    from aeedge.model import Model
    from aeedge.verification import Deviation

SCHEMA = "aeedge-doctor/1"
_LITTLE_MEMORY_MB = 64  # numpy and onnxruntime 1.32 alone occupy 46 MB, without a bundle
_HOT_CELSIUS = 80.0
_FIRST_WITH_TELEMETRY = (1, 29)
_TELEMETRY_DATABASE = os.path.join("Microsoft", "DeveloperTools", ".onnxruntime", "onnxruntime.db")
_EXACT_AND_FAST = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
_BUILDS = re.compile(r"onnxruntime([-_].+)?|ort[-_]nightly.*", re.IGNORECASE)
_ARITHMETIC = {
    "float": "float",
    "integer": "integer, as this processor computes it",
    "exact integer": "exact integer: its own sums saturate, so this takes up to twice the time",
}


class Problem(NamedTuple):
    """Something that a user should know: `grade` is "error", "warning" or "note"."""

    grade: str
    message: str


def examine(bundle: str | None = None, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Look at this machine, and at how it runs a bundle.

    Args:
        bundle: path of a bundle to open as well.
        timeout: seconds that the process which tries onnxruntime may take.

    Returns:
        A document of plain values: `ok`, `machine`, `onnxruntime`, `use`, `bundle`, `problems`.

    Raises:
        BundleError: nothing is at that path, or no bundle.
    """
    if bundle is not None:
        _must_be_a_bundle(bundle)
    facts = machine()
    runtime = try_onnxruntime(timeout)
    facts["versions"]["onnxruntime"] = runtime["version"] or facts["versions"]["onnxruntime"]
    found = [*runtime_problems(runtime, facts), *machine_problems(facts)]
    use = {"threads": threads()}
    opened = None
    if bundle is not None:
        opened, chosen, problems = open_bundle(bundle, runtime["works"])
        use |= chosen
        found = [*problems, *found]
    order = ("error", "warning", "note")
    found.sort(key=lambda problem: order.index(problem.grade))
    return {
        "schema": SCHEMA,
        "ok": all(problem.grade != "error" for problem in found),
        "machine": facts,
        "onnxruntime": runtime | {"telemetry": telemetry(facts["versions"]["onnxruntime"])},
        "use": use,
        "bundle": opened,
        "problems": [problem._asdict() for problem in found],
    }


def _must_be_a_bundle(path: str) -> None:
    """Refuse a mistyped path before anything is tried; a damaged bundle is part of the examination."""
    with suppress(CorruptBundleError, IncompatibleBundleError):
        Bundle(path)


# The machine


def machine() -> dict[str, Any]:
    """The fingerprint of a benchmark, and what may change from one minute to the next."""
    facts = fingerprint("click")
    return {
        **facts,
        "integers": integers(facts["vector"]),
        "cpus_in_mask": _mask(),
        "memory_free_mb": _free_memory(),
        "celsius": celsius(),
        "board": board_says(pi_flags()),
    }


def integers(vector: Iterable[str]) -> str | None:
    """What the processor's features mean for int8, or None where they are unknown."""
    known = set(vector)
    if fast := [name for name in _EXACT_AND_FAST if name in known]:
        return f"integers are fast and exact ({', '.join(fast)})"
    if "asimd" in known:
        return "integers are exact, without instructions for dot products"
    if known & {"sse4_2", "avx", "avx2", "avx512f"}:
        return "integers may saturate (no VNNI): golden rows decide when int8 is loaded"
    return None


def threads() -> str:
    """What threads="auto" gives, and why."""
    mask, total, quota = _mask(), os.cpu_count(), cpu_quota()
    if mask is None:
        reasons = ["CPUs of this machine"]
    else:
        share = f"{mask} of {total}" if total is not None and mask < total else str(mask)
        reasons = [f"{share} {'CPU' if share == '1' else 'CPUs'} in the affinity mask"]
    if quota is not None:
        reasons.append(f"a quota of {quota:g} CPUs")
    return f"{cpu_count()}: {', '.join(reasons)}"


def _mask() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on macOS, Windows
        return None


def _free_memory() -> int | None:
    """MB that may still be taken: what the machine has, and what the cgroups' limits leave."""
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


def machine_problems(facts: dict[str, Any]) -> list[Problem]:
    """What is wrong with the machine itself, or with how this process is placed on it."""
    found = []
    if hidden := _hidden():
        found.append(
            Problem("warning", f"{hidden}: cannot be read; features, memory or CPUs of this machine are unknown")
        )
    if facts["cpu_quota"] is not None and facts["cpu_quota"] < 1:
        text = f"a quota of {facts['cpu_quota']:g} CPUs: calls are made to wait in their middle; grant one CPU at least"
        found.append(Problem("warning", text))
    if facts["memory_free_mb"] is not None and facts["memory_free_mb"] < _LITTLE_MEMORY_MB:
        text = f"{facts['memory_free_mb']} MB of memory are free, expected {_LITTLE_MEMORY_MB} or more; free some"
        found.append(Problem("warning", text))
    if facts["board"]:
        found.append(Problem("warning", f"the board reports {', '.join(facts['board'])}; mend power or cooling"))
    if facts["celsius"] is not None and facts["celsius"] > _HOT_CELSIUS:
        found.append(Problem("warning", f"{facts['celsius']:.0f} °C: it may throttle; cool it"))
    found += [*_folder_problems(), *_placement_problems(facts)]
    found += [Problem("note", finding.message) for finding in standing() if finding.what == "governor"]
    return found


def _hidden() -> str:
    """Which of the places that tell of a Linux machine do not."""
    if sys.platform != "linux":
        return ""
    silent = [path for path in ("/proc/cpuinfo", "/proc/meminfo") if not read_text(path)]
    if not read_text("/sys/devices/system/cpu/online"):
        silent.append("/sys/devices/system/cpu")
    return ", ".join(silent)


def _placement_problems(facts: dict[str, Any]) -> list[Problem]:
    found = []
    if facts["cpus_in_mask"] == 1 and (facts["cpus_of_machine"] or 1) > 1:
        text = f"the affinity mask allows 1 of {facts['cpus_of_machine']} CPUs; a taskset or a container set it"
        found.append(Problem("note", text))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted and wanted != str(facts["cpus"]):
        text = f"OMP_NUM_THREADS={wanted} has no effect on aeedge; pass threads={wanted} to aeedge.load"
        found.append(Problem("note", text))
    return found


def _folder_problems() -> list[Problem]:
    folder = _user_folder("XDG_STATE_HOME", ".local", "state")
    if folder is None:
        text = "there is no home directory, so nothing can be kept for the next start; set HOME or XDG_STATE_HOME"
        return [Problem("warning", text)]
    folder = os.path.join(folder, "aeedge")
    if _may_write(folder):
        return []
    text = f"{folder} cannot be written, so nothing can be kept for the next start; set XDG_STATE_HOME to a folder"
    return [Problem("warning", f"{text} that can")]


def _user_folder(variable: str, *default: str) -> str | None:
    """A folder of the XDG specification, which says that relative ones are to be ignored."""
    named = os.environ.get(variable, "")
    folder = named if os.path.isabs(named) else os.path.join(os.path.expanduser("~"), *default)
    return folder if os.path.isabs(folder) else None


def _may_write(folder: str) -> bool:
    """Whether a folder can be written, or made where it is missing."""
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


# onnxruntime


def runtime_problems(runtime: dict[str, Any], facts: dict[str, Any]) -> list[Problem]:
    """What is wrong with the packages: they cannot be used, are too old, or lie over each other."""
    found, versions = [], facts["versions"]
    if not runtime["works"]:
        version = versions[at_fault(runtime)]
        known = version if _release(version) else None
        found.append(Problem("error", failure(runtime, known, facts["processor"], facts["memory_free_mb"])))
    elif runtime["how"] is not None:
        text = (
            f"onnxruntime {runtime['version']} works, but its process ends with {runtime['how']}; try another version"
        )
        found.append(Problem("warning", text))
    for name, least in _minimums().items():
        have = _release(versions.get(name))
        if have and have < _release(least):
            text = f"{name} {versions[name]}: expected {least} or newer; upgrade it with: pip install '{name}>={least}'"
            found.append(Problem("warning", text))
    builds = _builds()
    if len(builds) > 1:
        text = (
            f"{' and '.join(f'{name} {v}' for name, v in builds.items())} are installed over each other, so that it is "
            f"chance which files are whose; remove all (pip uninstall {' '.join(builds)}) and install one"
        )
        found.append(Problem("warning", text))
    if (database := _telemetry_database()) is not None:
        text = f"{database} is there: some program of this user ran onnxruntime with telemetry on"
        found.append(Problem("note", text))
    return found


def _minimums() -> dict[str, str]:
    """The oldest versions that aeedge runs with, as its package says."""
    try:
        needs = requires("aeedge") or []
    except PackageNotFoundError:  # run from a source tree
        return {}
    found = [re.match(r"([\w.-]+)[\s(]*>=\s*([\d.]+)", need) for need in needs if "extra" not in need]
    return {match[1]: match[2] for match in found if match is not None}


def _builds() -> dict[str, str]:
    """Installed distributions that bring a folder named onnxruntime, with their versions."""
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


def _release(text: str | None) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", text or "")[:3]]
    return tuple(numbers + [0] * (3 - len(numbers))) if numbers else ()


def telemetry(version: str) -> dict[str, Any]:
    """Whether onnxruntime sends any: from the environment, as it was before aeedge set it."""
    found = TELEMETRY_FOUND
    release = _release(version)
    if release and release < _FIRST_WITH_TELEMETRY:
        meaning = "none in this version"
    elif found is not None and found.strip().lower() in ("1", "true", "yes", "on"):
        meaning = f"off: ORT_DISABLE_TELEMETRY={found} is set"
    elif not found:
        meaning = (
            "off, aeedge sees to it; on in programs that import onnxruntime before aeedge, unless they set "
            "ORT_DISABLE_TELEMETRY=1"
        )
    else:
        meaning = f"ORT_DISABLE_TELEMETRY={found} asks onnxruntime to start it; set it to 1"
    return {"environment": found, "meaning": meaning}


def _telemetry_database() -> str | None:
    """What onnxruntime 1.29 and newer leave in the user's cache when telemetry is on."""
    cache = _user_folder("XDG_CACHE_HOME", ".cache")
    path = os.path.join(cache, _TELEMETRY_DATABASE) if cache else ""
    return path if path and os.path.exists(path) else None


# The bundle


def open_bundle(path: str, works: bool) -> tuple[dict[str, Any], dict[str, str], list[Problem]]:
    """Open a bundle and run its golden rows: what came of it, what will be used and why, what is wrong."""
    if not works:
        return {"path": path, "tried": False}, {"bundle": "not tried, because onnxruntime does not work"}, []
    opened: dict[str, Any] = {"path": path, "tried": True, "ok": False}
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = load(path)
    except AeedgeError as error:
        return opened, {"bundle": f"{path} cannot be used"}, [Problem("error", str(error))]
    found = [Problem("warning", str(one.message)) for one in said if issubclass(one.category, UserWarning)]
    with model:
        opened |= {"id": model.manifest.id, "variant": model.variant, "arithmetic": model.arithmetic}
        opened |= {"threads": model.threads}
        chosen = model.choices | {"arithmetic": _ARITHMETIC[model.arithmetic], "NaN and infinity": _looked_for(model)}
        try:
            worst = model.self_check()
        except (VerificationError, BundleError) as error:
            return opened, chosen | {"golden rows": "not reproduced"}, [Problem("error", str(error)), *found]
    opened |= {"ok": True, "golden": [deviation._asdict() for deviation in worst]}
    return opened, chosen | {"golden rows": _reproduced(worst)}, found


def _looked_for(model: Model) -> str:
    return model.nonfinite_check


def _reproduced(worst: list[Deviation]) -> str:
    if not any(deviation.error for deviation in worst):
        return "reproduced to the bit"
    used = max(deviation.error / deviation.allowed for deviation in worst if deviation.allowed)
    return f"reproduced; the worst uses {100 * used:.2g} % of what is allowed"
