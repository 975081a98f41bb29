"""What a measurement depends on: processor, CPUs allowed, memory, system, versions."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aeedge.system.limits import cpu_count, cpu_quota, processor, read_text

_VECTOR = ("sse4_2", "avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def fingerprint(*packages: str) -> dict[str, Any]:
    """The machine as a document (docs/reference/json-outputs.md); `packages` are listed beside the required ones."""
    name, flags = processor()
    return {
        "processor": name,
        "vector": [name for name in _VECTOR if name in flags],
        "cpus": cpu_count(),
        "cpus_of_machine": os.cpu_count(),
        "cpu_quota": cpu_quota(),
        "memory_mb": _memory(),
        "governor": read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "virtual": "hypervisor" in flags,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("aeedge", "numpy", "onnxruntime", *packages)},
    }


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two fingerprints in a way that makes their times incomparable."""
    keys = ("processor", "vector", "cpus", "cpu_quota", "memory_mb")
    return [f"{key} was {other.get(key)}, is {one.get(key)}" for key in keys if one.get(key) != other.get(key)]


def _memory() -> int | None:
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 // 10**6
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # another build of onnxruntime has the module, under another name
        return getattr(sys.modules.get(name), "__version__", None)
