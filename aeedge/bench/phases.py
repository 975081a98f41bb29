"""Start, import, load, first call, steady state: the phases of a process, measured in fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from aeedge.errors import AeedgeError

_PROGRAM = """
import time
moments = {{"spawned": {spawned}, "python": time.monotonic_ns()}}
import numpy
moments["numpy"] = time.monotonic_ns()
import aeedge
moments["aeedge"] = time.monotonic_ns()
import sys
from aeedge.bench import child
child.main(moments, sys.argv[1:])
"""
_TIMEOUT = 60  # seconds that a child may take beyond its steady state


def phases(path: str, variant: str, threads: int, method: str, processes: int, seconds: float) -> dict[str, Any]:
    """Medians of what `child.py` reports, over several fresh processes.

    Raises:
        AeedgeError: such a process failed; the message ends with its last line.
    """
    found = [_one(path, variant, threads, method, seconds) for _ in range(processes)]
    result: dict[str, Any] = {"processes": processes}
    for name in found[0]:
        if name == "memory_mb":
            result[name] = {key: _median([child[name][key] for child in found]) for key in found[0][name]}
        else:
            result[name] = _median([child[name] for child in found])
    return result


def _one(path: str, variant: str, threads: int, method: str, seconds: float) -> dict[str, Any]:
    program = _PROGRAM.format(spawned=time.monotonic_ns())
    return fresh_process(program, [path, variant, str(threads), method, str(seconds)], seconds)


def fresh_process(program: str, arguments: list[str], seconds: float = 0.0) -> dict[str, Any]:
    """What a program prints in a process of its own: a document in the last line.

    Args:
        program: Python code.
        arguments: of the program, in sys.argv[1:].
        seconds: how long it runs once it has begun.

    Raises:
        AeedgeError: such a process failed; the message ends with its last line.
    """
    # As installed: with compiled bytecode, which some environments switch off.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + _TIMEOUT,
            env=environment,
        )
        last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise AeedgeError(f"a fresh process took more than {_TIMEOUT} s to start; is the machine overloaded?") from None
    except (IndexError, ValueError):
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, no message"])[-1]
        raise AeedgeError(f"a fresh process could not use the bundle: {reason}") from None
    return last


def _median(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
