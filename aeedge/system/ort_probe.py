"""Probe onnxruntime in a child process that may die of it, and describe how it died.

On a processor that a build does not support, the import may end the process with a signal that cannot be caught.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

TIMEOUT = 60.0  # seconds; a slow SD card may need ten for the first import of onnxruntime

# One MatMul of floats and one MatMulInteger of uint8 by int8: both kinds of kernels run. Opset 17, IR version 8.
GRAPH = (
    "CAgSADquAQoRCgFhCgFiEgFmIgZNYXRNdWwKGAoBdQoBcxIBaSINTWF0TXVsSW50ZWdlchIBdFoTCgFhEg4KDAgBEggKAggECgIIQFoTCgFi"
    "Eg4KDAgBEggKAghACgIIIFoTCgF1Eg4KDAgCEggKAggECgIIQFoTCgFzEg4KDAgDEggKAghACgIIIGITCgFmEg4KDAgBEggKAggECgIIIGIT"
    "CgFpEg4KDAgGEggKAggECgIIIEIECgAQEQ=="
)
STAGES = {
    "numpy_import": "while it is imported",
    "onnxruntime_import": "while it is imported",
    "session": "opening a graph",
    "run": "running a graph",
}
"""What the child does, in order, and how a message puts it."""

_PROGRAM = """
import base64, json
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an expected crash leaves no core file behind
except Exception:
    pass

def report(**values):
    print(json.dumps(values), flush=True)

try:
    import numpy
    report(done="numpy_import", numpy=numpy.__version__)
    import onnxruntime
    report(done="onnxruntime_import", version=onnxruntime.__version__)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    graph = base64.b64decode(sys.argv[1])
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    report(done="session")
    a = (numpy.arange(4 * 64).reshape(4, 64) % 7).astype("float32")
    b = (numpy.arange(64 * 32).reshape(64, 32) % 5 - 2).astype("float32")
    feed = {"a": a, "b": b, "u": a.astype("uint8"), "s": b.astype("int8")}
    results = session.run(["f", "i"], feed)
    if not all((result == a @ b).all() for result in results):  # whole numbers, and far too small to saturate
        raise ArithmeticError("a product of small whole numbers is wrong")
    report(done="run")
except Exception as error:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    report(error=type(error).__name__, message=lines[-1].strip(), module=getattr(error, "name", None))
"""


def probe(timeout: float = TIMEOUT) -> dict[str, Any]:
    """Import onnxruntime and run a tiny graph in a child process.

    Returns:
        `works`; `version`; `stages_done`, of STAGES; `failed_stage`, the first that was not done, or None; `exit`, how
        the child ended if not well (the name of a signal or an exception, "exit_code_1", "timeout", "not_started");
        `message`, its last words; `module`, what a ModuleNotFoundError did not find; `built_for_numpy_1`, whether numpy
        2 complained of that; `seconds`.
    """
    program = f"import sys\nsys.path[:] = {[str(path) for path in sys.path]!r}\n{_PROGRAM}"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    began = time.monotonic()
    code: int | None = None
    try:
        child = subprocess.run(
            [sys.executable or "python3", "-c", program, GRAPH],
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
        return _result({}, [], "not_started", f"a child process cannot be started: {error}", 0.0)
    reports = _reports(out)
    done = [report["done"] for report in reports if "done" in report]
    values = {name: value for report in reports for name, value in report.items()}
    values["built_for_numpy_1"] = b"compiled using NumPy 1" in err  # numpy 2 prints this, and the import goes on
    end, message = _exit(code, values, err, timeout, complete=len(done) == len(STAGES))
    return _result(values, done, end, message, time.monotonic() - began)


def _result(
    values: dict[str, Any], done: list[str], end: str | None, message: str | None, seconds: float
) -> dict[str, Any]:
    left = [stage for stage in STAGES if stage not in done]
    return {
        "version": values.get("version"),
        "works": not left,
        "stages_done": done,
        "failed_stage": left[0] if left else None,
        "module": values.get("module"),
        "built_for_numpy_1": values.get("built_for_numpy_1", False),
        "exit": end,
        "message": message,
        "seconds": round(seconds, 3),
    }


def _reports(out: bytes) -> list[dict[str, Any]]:
    """The lines that the child reported, among whatever else was printed."""
    found = []
    for line in out.decode("utf-8", "replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _exit(
    code: int | None, values: dict[str, Any], err: bytes, timeout: float, *, complete: bool
) -> tuple[str | None, str | None]:
    """How the child ended, as a name and in words; None where it ended well."""
    lines = err.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].strip() if lines else "no message"
    if code is None:
        return "timeout", f"no answer in {timeout:g} s"
    if code < 0:
        return _signal(-code), last
    if "error" in values:
        return values["error"], values["message"] or last
    if code or not complete:
        return f"exit_code_{code}", last
    return None, None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def failure(result: dict[str, Any], version: str | None, processor: str, free_mb: int | None) -> str:
    """One sentence on a probe that failed: what happened, when, and what to do.

    Args:
        result: what `probe` returned.
        version: that of the package at fault, None where it is unknown.
        processor: its name.
        free_mb: free memory, None where it is unknown.
    """
    stage, end, message = result["failed_stage"], result["exit"], result["message"]
    package = at_fault(result)
    if end == "not_started":
        return f"onnxruntime was not probed: {message}; free memory or allow more processes"
    if end == "ModuleNotFoundError" and result["module"] == package:
        return f"{package} is not installed; install it with: pip install {package}"
    again = f"reinstall it: pip install --force-reinstall {package}"
    other = f"another version: pip install '{package}!={version}'" if version else "another version"
    older = other.replace("!=", "<")  # newer ones seldom need less of a processor
    free = "" if free_mb is None else f" ({free_mb} MB are free)"
    ends = {
        "SIGILL": f"uses an instruction that this processor ({processor}) does not have; install a build made for it, "
        f"or {older}",
        "SIGSEGV": f"crashed with an invalid memory access; {again}, or {other}",
        "SIGBUS": f"crashed, reading a file that is cut short or a disk that fails; {again}",
        "SIGFPE": f"crashed in a division; install {other}",
        "SIGABRT": f"aborted: {message}; {again}, or {other}",
        "SIGSYS": "made a system call that is forbidden here; loosen the sandbox (seccomp)",
        "SIGKILL": f"was killed, most likely because memory ran out{free}; free some, or raise the limit",
        "timeout": f"gave {message}; if the machine is not overloaded, install {other}",
    }
    unnamed = "was ended by a signal" if end.startswith("SIG") else f"cannot be used: {message}"
    sentence = ends.get(end, f"{unnamed}; {again}, or {other}")
    if result["built_for_numpy_1"]:
        sentence = "is built for numpy 1 and fails with numpy 2; upgrade it, or go back with: pip install 'numpy<2'"
    return f"{package}{f' {version}' if version else ''} {sentence} [{words(end)} {STAGES[stage]}]"


def at_fault(result: dict[str, Any]) -> str:
    """The package at which a probe failed."""
    return "numpy" if result["failed_stage"] == "numpy_import" else "onnxruntime"


def words(end: str) -> str:
    """How a child ended, as people read it: "exit_code_1" is exit code 1."""
    return end.replace("_", " ")
