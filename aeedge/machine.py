"""What this process may use of the machine."""

from __future__ import annotations

import os
from pathlib import Path

from aeedge.errors import InputError

_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """CPUs that this process may keep busy: the affinity mask, capped by the cgroup's quota (v2 or v1), at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, Windows
        allowed = os.cpu_count() or 1
    quota = _quota()
    return max(1, allowed if quota is None else min(allowed, int(quota + 0.999)))


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


def _quota() -> float | None:
    """CPUs' worth of time that the innermost limited cgroup grants, or None."""
    limits = [limit for folder in _cgroups() if (limit := _folder_quota(folder)) is not None]
    return min(limits, default=None)


def _cgroups() -> list[Path]:
    """This process's cgroup folders and their parents, v2 and v1."""
    folders = [_CGROUP, _CGROUP / "cpu"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = _CGROUP if not controllers else _CGROUP / "cpu" if "cpu" in controllers.split(",") else None
        if root is not None:
            inner = root / path.lstrip("/")
            folders += [inner, *(p for p in inner.parents if root in p.parents)]
    return folders


def _folder_quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return None if quota.strip() in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
