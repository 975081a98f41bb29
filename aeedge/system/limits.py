"""What this process may use of the machine."""

from __future__ import annotations

import ctypes
import os

from aeedge.errors import InputError, of_system

_CGROUP = "/sys/fs/cgroup"


def allowed_cpus() -> tuple[int, ...]:
    """Numbers of the CPUs that this process may run on: its affinity mask."""
    try:
        return tuple(sorted(os.sched_getaffinity(0)))
    except (AttributeError, OSError) as error:  # not on macOS, Windows
        if not of_system(error):
            raise
        return tuple(range(os.cpu_count() or 1))


def other_cpus() -> set[int]:
    """CPUs that the calling thread may run on, but for the one it is on; empty if that is all, or unknown."""
    try:
        found: set[int] = os.sched_getaffinity(0) - {_this_cpu()}
    except (AttributeError, OSError) as error:
        if not of_system(error):
            raise
        return set()
    return found


def _this_cpu() -> int:
    """Number of the CPU that the calling thread runs on; an AttributeError where the C library lacks the function."""
    number: int = ctypes.pythonapi.sched_getcpu()
    return number


def cpu_count() -> int:
    """CPUs that this process may keep busy: the affinity mask, capped by the cgroup's quota (v2 or v1), at least 1."""
    allowed, quota = len(allowed_cpus()), cpu_quota()
    return max(1, allowed if quota is None else min(allowed, int(quota + 0.999)))


def processor() -> tuple[str, set[str]]:
    """Name of the processor and its feature flags, as far as /proc has them."""
    name, flags = "", set()
    for line in read_text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            name = name or value.strip()
        elif key.strip() in ("flags", "Features"):
            flags |= set(value.split())
    if not name:
        import platform  # takes a millisecond, and is rarely needed

        name = platform.processor() or platform.machine()
    return name, flags


def thread_count(threads: int | str) -> int:
    """Resolve the `threads` argument: "auto" or a whole number of at least 1.

    Raises:
        InputError: anything else.
    """
    if threads == "auto":
        return cpu_count()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads: expected 'auto' or a whole number of at least 1, got {threads!r}")
    return threads


def cpu_quota() -> float | None:
    """CPUs that this process may use on average: the smallest quota of its cgroups; None without one."""
    limits = [limit for folder in cgroup_folders() if (limit := _folder_quota(folder)) is not None]
    return min(limits, default=None)


def cgroup_folders() -> list[str]:
    """This process's cgroup folders and their parents, v2 and v1."""
    folders = [_CGROUP, os.path.join(_CGROUP, "cpu")]
    for line in read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = os.path.join(_CGROUP, "cpu") if controllers else _CGROUP
        parts = [part for part in path.split("/") if part]
        folders += [os.path.join(root, *parts[:depth]) for depth in range(1, len(parts) + 1)]
    return folders


def _folder_quota(folder: str) -> float | None:
    try:
        if text := read_text(os.path.join(folder, "cpu.max")):
            quota, period = text.split()
        else:
            quota = read_text(os.path.join(folder, "cpu.cfs_quota_us"))
            period = read_text(os.path.join(folder, "cpu.cfs_period_us"))
        return None if quota.strip() in ("max", "-1") else int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def resident_bytes() -> int | None:
    """Memory that this process occupies, or None without /proc."""
    fields = read_text("/proc/self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None


def state_folder() -> str | None:
    """The folder for device state; None if neither AEEDGE_STATE, XDG_STATE_HOME nor HOME names one."""
    if chosen := os.environ.get("AEEDGE_STATE"):
        return chosen
    if (state := os.environ.get("XDG_STATE_HOME")) and os.path.isabs(state):
        return os.path.join(state, "aeedge")
    home = os.environ.get("HOME", "")  # not from the user database: a service without HOME has to choose a folder
    return os.path.join(home, ".local", "state", "aeedge") if os.path.isabs(home) else None


def record_path(identity: str) -> str | None:
    """The file in which policy_store.py keeps the records of a bundle."""
    folder = state_folder()
    return os.path.join(folder, "tuned", f"{identity}.json") if folder else None


def read_text(path: str) -> str:
    """The content of a file of /proc or /sys; empty where it is missing or cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError as error:
        if not of_system(error):
            raise
        return ""
