"""The one file that knows onnxruntime.

Every session runs on the calling thread alone: onnxruntime creates no pool, nothing spins when idle, and a forked child
inherits nothing that is missing a thread. Parallel work is done a level above, by running blocks of rows on threads of
our own (see batching.py), which is as fast or faster than onnxruntime's pool.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.errors import CorruptBundleError, IncompatibleBundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before onnxruntime is first imported

import onnxruntime

if hasattr(onnxruntime, "disable_telemetry_events"):
    onnxruntime.disable_telemetry_events()  # somebody may have imported it before us

RUNTIME_VERSION: str = onnxruntime.__version__

_DTYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "int16": "tensor(int16)"}


def check_runtime(least: str, where: str) -> None:
    """Refuse a bundle that needs a newer onnxruntime than the installed one."""
    if _release(RUNTIME_VERSION) < _release(least):
        raise IncompatibleBundleError(
            f"{where}: expected onnxruntime {least} or newer, this is {RUNTIME_VERSION}; "
            f"upgrade it with: pip install 'onnxruntime>={least}'"
        )


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(n) for n in re.findall(r"\d+", version)[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))


class Session:
    """One graph with one input and one output, run on the calling thread; safe to call from many threads at once.

    Args:
        graph: bytes of an ONNX file, already checked.
        where: how messages name the file.
        dtype: dtype of the input that the manifest promises.
        row_in, row_out: shapes of one row of input and of output that the manifest promises.
        exact: let x86 processors without VNNI add integer products without saturating, at up to twice the time.

    Raises:
        IncompatibleBundleError: onnxruntime cannot load the graph.
        CorruptBundleError: the graph's input or output is not what the manifest says.
    """

    def __init__(
        self,
        graph: bytes,
        where: str,
        dtype: str,
        row_in: tuple[int, ...],
        row_out: tuple[int, ...],
        exact: bool = False,
    ) -> None:
        self._where = where
        try:
            # enable_fallback: without it a failed call is retried in silence with other settings.
            self._session = onnxruntime.InferenceSession(
                graph, _options(exact), providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise IncompatibleBundleError(
                f"{where}: onnxruntime {RUNTIME_VERSION} cannot load it ({_first_line(error)}); "
                "upgrade onnxruntime or export the bundle again"
            ) from None
        self._check("input", self._session.get_inputs(), dtype, row_in)
        self._check("output", self._session.get_outputs(), "float32", row_out)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]

    def run(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Run rows of shape (n, *row_in), C-contiguous and of the promised dtype; gives a new (n, *row_out)."""
        result: NDArray[np.float32] = self._session.run(self._outputs, {self._input: rows})[0]
        return result

    def _check(self, what: str, found: list[Any], dtype: str, row: tuple[int, ...]) -> None:
        if len(found) != 1:
            raise CorruptBundleError(f"{self._where}: expected one {what}, got {len(found)}; export the bundle again")
        shape = list(found[0].shape)
        if found[0].type != _DTYPES[dtype] or shape[1:] != list(row) or isinstance(shape[0], int):
            raise CorruptBundleError(
                f"{self._where}: expected its {what} to be {dtype} of shape {('n', *row)}, "
                f"got {found[0].type} of {tuple(shape)}; export the bundle again"
            )


class Operator(NamedTuple):
    """One operator of the graph as onnxruntime runs it, after its optimisations: `us` is the mean time of a call."""

    name: str
    kind: str
    us: float


def profile(graph: bytes, rows: NDArray[Any], calls: int) -> tuple[list[Operator], float]:
    """Time by operator, in the order of execution, and microseconds of a whole run, by onnxruntime's own profile.

    Means over `calls` runs on the same rows. onnxruntime counts whole microseconds, and counting costs some itself.
    """
    from tempfile import TemporaryDirectory  # costs milliseconds, and only a profile needs it

    with TemporaryDirectory() as folder:
        options = _options()
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: rows}
        for _ in range(calls):
            session.run(None, feed)
        with open(session.end_profiling()) as stream:
            events = json.load(stream)
    total: dict[tuple[str, str], float] = {}
    whole = 0.0
    for event in events:
        whole += event["dur"] if event.get("name") == "model_run" else 0
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
            total[key] = total.get(key, 0.0) + event["dur"]
    return [Operator(name, kind, us / calls) for (name, kind), us in total.items()], whole / calls


def every_output(graph: bytes, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """All outputs of a graph as it stands, not optimised, by name: for an exporter that looks at what is inside."""
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: rows})))


def as_run(graph: bytes) -> bytes:
    """The graph that onnxruntime makes of another one on this machine: what really runs."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        options = _options()
        options.optimized_model_filepath = os.path.join(folder, "optimized.onnx")
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        with open(options.optimized_model_filepath, "rb") as stream:
            return stream.read()


def _options(exact: bool = False) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # errors reach the caller as exceptions; a library prints nothing
    return options


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
