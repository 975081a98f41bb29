"""The one file that knows onnxruntime.

A session runs on the calling thread alone unless it is asked for more: onnxruntime then creates no pool, nothing spins
when idle, and a forked child inherits nothing that is missing a thread.

What `InferenceSession.run` costs beyond the graph is Python: it looks at names and makes its options anew. Calls here
go to the object below it with names and options made once, and single rows to arrays that are bound once: a call is
then 2 to 4 µs shorter on a server's core. onnxruntime itself is imported with the first session, so that what needs
none works without it: `aeedge info`, and `aeedge doctor` on a processor where that import is an illegal instruction.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.onnx_proto import chain
from aeedge.errors import BundleError, CorruptBundleError, IncompatibleBundleError, of_system
from aeedge.system.versions import release

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.types import Floats


_FLOAT32 = np.dtype(np.float32)
_DTYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "int16": "tensor(int16)"}
# What pybind11 makes of C++ exceptions, and what onnxruntime's Python raises.
_OF_CPP = (RuntimeError, ValueError, IndexError, OverflowError, TypeError, AttributeError, MemoryError)
_SMALL_BYTES = 2**16  # results up to here are copied into their place: cheaper than telling onnxruntime where it is
_FIRST_FOR_NUMPY_2 = 1, 19
_ADAPTERS = "/sys/class/drm"
# How onnxruntime and the C++ below it say that memory ran out, and that a thread could not be started.
_NO_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory", "cannot allocate memory")
_NO_THREAD = ("pthread_create", "_beginthreadex", "std::thread", "resource_unavailable_try_again")
_SPIN_US = "1000"  # how long an idle thread of a pool looks for more work; older versions do not let us say


# What the user said of telemetry, before we say it: onnxruntime reads it once, when it is first imported.
TELEMETRY_FOUND = os.environ.get("ORT_DISABLE_TELEMETRY")
if not TELEMETRY_FOUND:  # an empty value switches nothing off
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


@cache
def _onnxruntime() -> Any:
    """The module, with its telemetry off (from 1.29 on it sends some by default)."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # somebody may have cleared the environment since
    _refuse_what_crashes()
    try:
        with _without_noise():
            import onnxruntime
    except (ImportError, AttributeError) as error:
        if any(words in str(error).lower() for words in _NO_MEMORY):
            raise MemoryError("there is too little memory to import onnxruntime; free some") from error
        raise IncompatibleBundleError(_import_failed(error)) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise IncompatibleBundleError(
            "onnxruntime is installed in part only, its files are missing, as after uninstalling one of two builds of "
            "it; reinstall it with: pip install --force-reinstall onnxruntime"
        )
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()  # somebody may have imported it before us
    return onnxruntime


def _refuse_what_crashes() -> None:
    """Refuse an onnxruntime that is built for numpy 1 where numpy 2 is: importing it may end the process."""
    if int(np.__version__.partition(".")[0]) < 2 or "onnxruntime" in sys.modules:
        return
    found = _version_on_disk()
    if found is not None and release(found) < _FIRST_FOR_NUMPY_2:
        raise IncompatibleBundleError(
            f"onnxruntime {found} is built for numpy 1 and would crash with numpy {np.__version__}; "
            "upgrade it with: pip install 'onnxruntime>=1.19', or go back with: pip install 'numpy<2'"
        )


def _version_on_disk() -> str | None:
    """The version that the installed package states, whichever build it is; None where that is not found."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("onnxruntime")
    try:
        with open(spec.origin if spec and spec.origin else "", encoding="utf-8", errors="replace") as stream:
            found = re.search(r"""^__version__ = ["']([^"']+)""", stream.read(2**14), re.MULTILINE)
    except OSError as error:
        if not of_system(error):
            raise
        return None
    return found[1] if found else None


def _import_failed(error: ImportError | AttributeError) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
        return "expected the package onnxruntime, but it is not installed; install it with: pip install onnxruntime"
    return (
        f"expected the package onnxruntime, but it cannot be imported ({_first_line(error)}); "
        "'aeedge doctor' says more, 'pip install --force-reinstall onnxruntime' installs it anew"
    )


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keep back the lines of onnxruntime's import that are about display adapters, where it would write some.

    From 1.23 on it warns of adapters without a vendor, as a Raspberry Pi has, before it can be told not to.
    """
    if not _has_unknown_adapters():
        yield
        return
    kept: list[int] = []
    with open(os.memfd_create("stderr"), "rb+", buffering=0) as caught:
        try:
            kept.extend(map(os.dup, (2,)))  # in one step: a signal handler may raise between two
            os.dup2(caught.fileno(), 2)
            yield
        finally:
            for stderr in kept:
                os.dup2(stderr, 2)
                os.close(stderr)
            caught.seek(0)
            others = [line for line in caught.readlines() if b"device_discovery.cc" not in line]
            if others:
                os.write(2, b"".join(others))


def _has_unknown_adapters() -> bool:
    """Whether /sys lists a display adapter without its vendor."""
    try:
        names = os.listdir(_ADAPTERS)
        os.fstat(2)  # an error where it is closed
    except OSError as error:
        if not of_system(error):
            raise
        return False
    cards = [name for name in names if re.fullmatch(r"card\d+", name)]
    return hasattr(os, "memfd_create") and not all(
        os.access(os.path.join(_ADAPTERS, card, "device", "vendor"), os.R_OK) for card in cards
    )


@cache
def runtime_version() -> str:
    """Version of the installed onnxruntime, without importing it where it is not there yet and its metadata tells."""
    if "onnxruntime" not in sys.modules:
        from importlib.metadata import PackageNotFoundError, version  # costs milliseconds

        try:
            return version("onnxruntime")
        except PackageNotFoundError:  # onnxruntime-gpu and other builds have the module, but another name
            pass
    found: str = _onnxruntime().__version__
    return found


def check_runtime(least: str, where: str) -> None:
    """Refuse a bundle that needs a newer onnxruntime than the installed one, which is imported by this."""
    _onnxruntime()
    if release(runtime_version()) < release(least):
        raise IncompatibleBundleError(
            f"{where}: expected onnxruntime {least} or newer, this is {runtime_version()}; "
            f"upgrade it with: pip install 'onnxruntime>={least}'"
        )


class Session:
    """One graph with one input and one output; safe to call from many threads at once.

    `chain` names its operators (see onnx_proto.py); `pooled` is whether it runs on an intra-op pool; `row_out` is the
    shape of one sample of output.

    Args:
        graph: bytes of an ONNX file, already checked.
        where: how messages name the file.
        dtype: dtype of the input that the manifest promises.
        row_in, row_out: shapes of one row of input and of output that the manifest promises.
        exact: let x86 processors without VNNI add integer products without saturating, at up to twice the time.
        threads: of a pool, the calling one included. With more than one the session must not be used in a forked
            child, which lacks the others.

    Raises:
        IncompatibleBundleError: onnxruntime cannot load the graph.
        CorruptBundleError: the graph's input or output is not what the manifest says.
        MemoryError: there is too little.
        RuntimeError: the threads of a pool cannot be started.
    """

    def __init__(
        self,
        graph: bytes,
        where: str,
        dtype: str,
        row_in: tuple[int, ...],
        row_out: tuple[int, ...],
        exact: bool = False,
        threads: int = 1,
    ) -> None:
        self.where = where
        self.chain, self.pooled, self.row_out = chain(graph), threads > 1, row_out
        session = self._open(graph, _options(exact, threads))
        self._check("input", session.get_inputs(), dtype, row_in)
        self._check("output", session.get_outputs(), "float32", row_out)
        self._session = session
        # What run() and run_with_iobinding() wrap; the wrappers take the same arguments, should it be missing one day.
        core = getattr(session, "_sess", session)
        self._run, self._run_bound = core.run, core.run_with_iobinding
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]
        self._run_options = _run_options()

    def _open(self, graph: bytes, options: Any) -> Any:
        try:
            # enable_fallback: without it a failed call is retried in silence with other settings.
            return _onnxruntime().InferenceSession(
                graph, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:
            if (told := _translated(error, [self.where], "load")) is None:
                raise
            if self.pooled and any(words in str(error) for words in _NO_THREAD):
                raise RuntimeError("can't start new thread") from None  # as Python says it
            raise told from None

    def run(self, rows: NDArray[Any]) -> Floats:
        """Run samples (n, *row_in), C-contiguous and of the session's dtype; gives a new (n, *row_out) float32.

        Raises:
            BundleError: onnxruntime fails, or gives another shape.
            MemoryError: there is too little.
        """
        try:
            found: Floats = self._run(self._outputs, {self._input: rows}, self._run_options)[0]
        except Exception as error:
            if (told := self.failed(error)) is None:
                raise
            raise told from None
        if found.shape != rows.shape[:1] + self.row_out or found.dtype is not _FLOAT32:
            raise BundleError(
                f"{self.where}: expected its output for {len(rows)} samples to be float32 of shape "
                f"{(len(rows), *self.row_out)}, got {found.dtype} of {found.shape}; export the bundle again"
            )
        return found

    def run_into(self, rows: NDArray[Any], out: Floats) -> None:
        """`run`, with the result written to `out`, a float32 (n, *row_out)."""
        if out.nbytes <= _SMALL_BYTES or not (out.flags.c_contiguous and out.flags.aligned):
            out[...] = self.run(rows)
        else:
            try:
                self.bind(rows, out)()
            except Exception as error:
                if (told := self.failed(error)) is None:
                    raise
                raise told from None

    def bind(self, rows: NDArray[Any], out: Floats) -> Callable[[], None]:
        """A call that runs what `rows` then holds into `out`; what it raises is for `failed`."""
        binding = self._session.io_binding()
        binding.bind_input(self._input, "cpu", 0, rows.dtype.type, rows.shape, rows.ctypes.data)
        binding.bind_output(self._outputs[0], "cpu", 0, np.float32, out.shape, out.ctypes.data)
        call: Any = partial(self._run_bound, getattr(binding, "_iobinding", binding), self._run_options)
        call.arrays = rows, out  # onnxruntime keeps their addresses alone
        run: Callable[[], None] = call
        return run

    def failed(self, error: Exception, *others: Session) -> Exception | None:
        """What to raise instead of an error of a run, of this session or of others that are bound with it.

        BundleError or MemoryError; None where the error is not onnxruntime's but, say, of a signal handler.
        """
        return _translated(error, [session.where for session in (self, *others)], "run")

    def _check(self, what: str, found: list[Any], dtype: str, row: tuple[int, ...]) -> None:
        if len(found) != 1:
            raise CorruptBundleError(f"{self.where}: expected one {what}, got {len(found)}; export the bundle again")
        shape = list(found[0].shape)
        if found[0].type != _DTYPES[dtype] or shape[1:] != list(row) or isinstance(shape[0], int):
            raise CorruptBundleError(
                f"{self.where}: expected its {what} to be {dtype} of shape {('n', *row)}, "
                f"got {found[0].type} of {tuple(shape)}; export the bundle again"
            )


def _translated(error: Exception, where: Sequence[str], what: str) -> Exception | None:
    """What to raise instead of an error of onnxruntime; None for any other, such as that of a signal handler."""
    if not _is_of_onnxruntime(error):
        return None
    text, place = str(error).lower(), " or ".join(where)
    if type(error) is MemoryError or any(words in text for words in _NO_MEMORY):
        advice = ", or pass fewer samples" if what == "run" else ""
        return MemoryError(f"{place}: there is too little memory to {what} it; free some{advice}")
    kind = IncompatibleBundleError if what == "load" else BundleError
    return kind(
        f"{place}: onnxruntime {runtime_version()} cannot {what} it ({_first_line(error)}); "
        "upgrade onnxruntime or export the bundle again"
    )


def _is_of_onnxruntime(error: Exception) -> bool:
    """Whether this is an error of onnxruntime, whose classes share no base, or one that C++ became on its way here.

    A signal handler may raise anything, but has a frame of its own; an exception that another thread sets has none,
    and is of neither kind.
    """
    kind, trace = type(error), error.__traceback__
    if kind not in _OF_CPP and not kind.__module__.startswith("onnxruntime"):
        return False
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if not module.startswith(("aeedge.runtime.", "onnxruntime.")):
            return False
        trace = trace.tb_next
    return True


@contextmanager
def _typed(where: str) -> Iterator[None]:
    """Errors of onnxruntime as a BundleError or MemoryError."""
    try:
        yield
    except Exception as error:
        if (told := _translated(error, [where], "run")) is None:
            raise
        raise told from None


def profile(graph: bytes, rows: NDArray[Any], calls: int) -> tuple[list[tuple[str, str, float]], float]:
    """Name, kind and microseconds of each operator, in the order of execution, and of a whole run.

    The operators are those that onnxruntime runs, after its optimisations, by its own profile: means over `calls` runs
    on the same rows. onnxruntime counts whole microseconds, and counting costs some itself.
    """
    from tempfile import TemporaryDirectory  # costs milliseconds, and only a profile needs it

    with TemporaryDirectory() as folder, _typed("the graph that is profiled"):
        options = _options()
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = _onnxruntime().InferenceSession(graph, options, providers=["CPUExecutionProvider"])
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
    return [(name, kind, us / calls) for (name, kind), us in total.items()], whole / calls


def warm_up() -> None:
    """Run a tiny graph of no bundle, so that what onnxruntime allocates once in a process is there."""
    from base64 import b64decode

    from aeedge.system.ort_probe import GRAPH

    session = _onnxruntime().InferenceSession(b64decode(GRAPH), _options(), providers=["CPUExecutionProvider"])
    a, b = np.zeros((4, 64), np.float32), np.zeros((64, 32), np.float32)
    session.run(None, {"a": a, "b": b, "u": a.astype(np.uint8), "s": b.astype(np.int8)})


def every_output(graph: bytes, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """All outputs of a graph as it stands, not optimised, by name: for an exporter that looks at what is inside."""
    options = _options()
    options.graph_optimization_level = _onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _onnxruntime().InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: rows})))


def as_run(graph: bytes) -> bytes:
    """The graph that onnxruntime makes of another one on this machine: what really runs."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        options = _options()
        options.optimized_model_filepath = os.path.join(folder, "optimized.onnx")
        _onnxruntime().InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        with open(options.optimized_model_filepath, "rb") as stream:
            return stream.read()


def _options(exact: bool = False, threads: int = 1) -> Any:
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if threads > 1:
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    # The bytes are ONNX, whatever they look like, and no folder holds data of theirs; unknown settings are passed over.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # errors reach the caller as exceptions; a library prints nothing
    return options


def _run_options() -> Any:
    options = _onnxruntime().RunOptions()
    options.log_severity_level = 4
    return options


def _first_line(error: Exception) -> str:
    """What went wrong, without onnxruntime's codes and the place in its source."""
    text = str(error).strip()
    if not text:
        return type(error).__name__
    reason = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Status Message: ", text.splitlines()[0])[-1]
    return re.sub(r"^\S+\.(cc|h):\d+ .*?\) ", "", reason)[:300].rstrip(". ")
