"""Try onnxruntime in a process that may die of it, and put into words how it died.

On a processor that a build does not know it may end with a signal, where no exception can be caught.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

TIMEOUT = 60.0  # seconds; a slow card may need ten to import onnxruntime for the first time

# One MatMul of floats and one MatMulInteger of uint8 by int8: both kinds of kernels run. Opset 17, IR version 8.
_GRAPH = (
    "CAgSADquAQoRCgFhCgFiEgFmIgZNYXRNdWwKGAoBdQoBcxIBaSINTWF0TXVsSW50ZWdlchIBdFoTCgFhEg4KDAgBEggKAggECgIIQFoTCgFi"
    "Eg4KDAgBEggKAghACgIIIFoTCgF1Eg4KDAgCEggKAggECgIIQFoTCgFzEg4KDAgDEggKAghACgIIIGITCgFmEg4KDAgBEggKAggECgIIIGIT"
    "CgFpEg4KDAgGEggKAggECgIIIEIECgAQEQ=="
)
_STAGES = ("numpy import", "onnxruntime import", "session", "run")
WHILE = dict(zip(_STAGES, ("while it is imported", "while it is imported", "opening a graph", "running a graph")))
_PROGRAM = """
import base64, json
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a death that is looked for leaves no file behind
except Exception:
    pass

def say(**what):
    print(json.dumps(what), flush=True)

try:
    import numpy
    say(done="numpy import", numpy=numpy.__version__)
    import onnxruntime
    say(done="onnxruntime import", version=onnxruntime.__version__)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    graph = base64.b64decode(sys.argv[1])
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    say(done="session")
    a = (numpy.arange(4 * 64).reshape(4, 64) % 7).astype("float32")
    b = (numpy.arange(64 * 32).reshape(64, 32) % 5 - 2).astype("float32")
    feed = {"a": a, "b": b, "u": a.astype("uint8"), "s": b.astype("int8")}
    results = session.run(["f", "i"], feed)
    if not all((result == a @ b).all() for result in results):  # whole numbers, and far too small to saturate
        raise ArithmeticError("a product of small whole numbers came out wrong")
    say(done="run")
except Exception as error:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    say(error=type(error).__name__, message=lines[-1].strip(), module=getattr(error, "name", None))
"""


def try_onnxruntime(timeout: float = TIMEOUT) -> dict[str, Any]:
    """Import onnxruntime and run a tiny graph, in a process that may die of it.

    Returns:
        `works`; `done`, the stages that were reached; `failed_in`, the one that was not; `how` it ended (a signal's
        name, an exception's, "timeout"); `message`; `old_numpy`, whether numpy 2 complains of a build for numpy 1;
        `version`; `seconds`.
    """
    program = f"import sys\nsys.path[:] = {[str(path) for path in sys.path]!r}\n{_PROGRAM}"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    began = time.monotonic()
    code: int | None = None
    try:
        child = subprocess.run(
            [sys.executable or "python3", "-c", program, _GRAPH],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout,
            env=environment,
        )
        code, out, err = child.returncode, child.stdout, child.stderr
    except subprocess.TimeoutExpired as late:
        out, err = late.stdout or b"", b""
    except OSError as error:  # no memory or no right to start a process
        return _trial({}, [], "no process", f"a process to try it in cannot be started: {error}", 0.0)
    said = _lines(out)
    done = [line["done"] for line in said if "done" in line]
    known = {name: value for line in said for name, value in line.items()}
    known["old_numpy"] = b"compiled using NumPy 1" in err  # numpy 2 says so, and lets the import go on
    how, message = _end(code, known, err, timeout, complete=len(done) == len(_STAGES))
    return _trial(known, done, how, message, time.monotonic() - began)


def _trial(known: dict[str, Any], done: list[str], how: str | None, message: str | None, took: float) -> dict[str, Any]:
    left = [stage for stage in _STAGES if stage not in done]
    return {
        "version": known.get("version"),
        "works": not left,
        "done": done,
        "failed_in": left[0] if left else None,
        "module": known.get("module"),
        "old_numpy": known.get("old_numpy", False),
        "how": how,
        "message": message,
        "seconds": round(took, 3),
    }


def _lines(out: bytes) -> list[dict[str, Any]]:
    """What the child said, among whatever else was printed."""
    found = []
    for line in out.decode("utf-8", "replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _end(
    code: int | None, known: dict[str, Any], err: bytes, timeout: float, *, complete: bool
) -> tuple[str | None, str | None]:
    """How the child ended, as a name and in words; None where it ended well."""
    lines = err.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].strip() if lines else "no message"
    if code is None:
        return "timeout", f"no answer in {timeout:g} s"
    if code < 0:
        return _signal(-code), last
    if "error" in known:
        return known["error"], known["message"] or last
    if code or not complete:
        return f"exit code {code}", last
    return None, None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def failure(runtime: dict[str, Any], version: str | None, processor: str, free_mb: int | None) -> str:
    """One sentence on a trial that failed: what happened, when, and what to do.

    Args:
        runtime: what `try_onnxruntime` returned.
        version: that of the package at fault, None where it is unknown.
        processor: its name.
        free_mb: memory that is left, None where it is unknown.
    """
    stage, how, message = runtime["failed_in"], runtime["how"], runtime["message"]
    package = at_fault(runtime)
    if how == "no process":
        return f"onnxruntime was not tried: {message}; free memory or allow more processes"
    if how == "ModuleNotFoundError" and runtime["module"] == package:
        return f"{package} is not installed; install it with: pip install {package}"
    again = f"install it again: pip install --force-reinstall {package}"
    other = f"another version: pip install '{package}!={version}'" if version else "another version"
    older = other.replace("!=", "<")  # newer ones seldom need less of a processor
    free = "" if free_mb is None else f" ({free_mb} MB are free)"
    ends = {
        "SIGILL": f"uses an instruction that this processor ({processor}) does not have; install a build made for it, "
        f"or {older}",
        "SIGSEGV": f"crashed, reaching for memory that is not its own; {again}, or {other}",
        "SIGBUS": f"crashed, reading a file that is cut short or a disk that fails; {again}",
        "SIGFPE": f"crashed in a division; install {other}",
        "SIGABRT": f"gave up: {message}; {again}, or {other}",
        "SIGSYS": "made a system call that is forbidden here; loosen the sandbox (seccomp)",
        "SIGKILL": f"was killed, most likely because memory ran out{free}; free some, or raise the limit",
        "timeout": f"gave {message}; if the machine is not overloaded, install {other}",
    }
    unnamed = "was ended by a signal" if how.upper().startswith("SIG") else f"cannot be used: {message}"
    end = ends.get(how, f"{unnamed}; {again}, or {other}")
    if runtime["old_numpy"]:
        end = "is built for numpy 1 and fails with numpy 2; upgrade it, or go back with: pip install 'numpy<2'"
    return f"{package}{f' {version}' if version else ''} {end} [{how} {WHILE[stage]}]"


def at_fault(runtime: dict[str, Any]) -> str:
    """The package that a failed trial stopped in."""
    return "numpy" if runtime["failed_in"] == "numpy import" else "onnxruntime"
