"""Many bundles beside each other: `aeedge bench --batch`.

Bundles take turns in rounds, so that a disturbance hits all alike, and each is loaded anew in each round: loads differ
a little, and no more than one is in memory at a time.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bench.compare import half_width, timed
from aeedge.bench.findings import Findings
from aeedge.bench.measuring import LARGEST, SINGLES, inputs
from aeedge.bench.phases import fresh_process
from aeedge.bench.plan import METHODS
from aeedge.bench.statistics import Interval, median_interval
from aeedge.bundle.reader import Bundle
from aeedge.errors import AeedgeError, InputError, of_system
from aeedge.files.unpacking import SUFFIX
from aeedge.loading import load
from aeedge.system.clock import Clock
from aeedge.system.conditions import Finding
from aeedge.system.fingerprint import fingerprint
from aeedge.system.limits import resident_bytes, thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = "aeedge-bench-batch/1"
_NOISY = 0.1  # of a median: half the width of its interval
ROUNDS = 11  # the fewest of which the smallest and the largest need not count (see median_interval)
_WARM_UP = 0.1  # of the time of a turn, before it
_MEMORY = "from aeedge.bench import child; child.added_memory(sys.argv[1:])"


def measure(
    paths: Iterable[str | os.PathLike[str]],
    *,
    at: Sequence[int] = (1, 1024),
    method: str = "encode",
    threads: int | str = "auto",
    seconds: float = 0.5,
    progress: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Measure the latency of bundles beside each other, each in its default variant, and the memory that each adds.

    Args:
        paths: of the bundles; the name of each is that of its folder, without .aeedge.
        at: numbers of samples of a call.
        method: what is called, "encode", "decode", "denoise" or "score", with the bundle's reference inputs, repeated.
        threads: as for `aeedge.load`.
        seconds: for each bundle and number of samples, in all rounds together.
        progress: called with a few words on what comes next.
        clock: what times are read from; tests pass a simulated one.

    Returns:
        The result as plain values (docs/reference/json-outputs.md). A bundle that cannot be used here, or fails its
        reference outputs, has an "error" and no numbers. After Ctrl-C the status is "interrupted", and the bundles are
        those that have numbers of at least one round.

    Raises:
        InputError: no bundles, or an argument that does not fit.
    """
    tell, used = progress or (lambda text: None), clock or Clock()
    sizes = _checked(at, method, threads, seconds)
    if isinstance(paths, (str, os.PathLike)):
        raise InputError(f"paths: expected a list of bundles, got {os.fspath(paths)!r}; put it into a list")
    subjects = [_Subject(os.fspath(path), sizes, method, threads) for path in paths]
    if not subjects:
        raise InputError("paths: expected at least one bundle, got none")
    machine, findings, interrupted = fingerprint(), Findings(used), False
    try:
        for number, subject in enumerate(subjects, 1):
            tell(f"checking {subject.name} ({number} of {len(subjects)})")
            with subject.kept():
                subject.check()
                subject.measure_memory(findings)
        if usable := [subject for subject in subjects if subject.error is None]:
            with findings.watched("rounds"):
                interrupted = _interrupted_rounds(usable, seconds / ROUNDS, used, tell)
    except KeyboardInterrupt:
        interrupted = True
    measured = [subject for subject in subjects if subject.error is None and subject.rounds]
    _judge_noise(measured, findings)
    status = "interrupted" if interrupted else "invalid" if findings.is_invalid() else "valid"
    return {
        "schema": SCHEMA,
        "status": status,
        "machine": machine,
        "method": method,
        "threads": threads,
        "at": sizes,
        "seconds": seconds,
        "findings": findings.document(),
        "bundles": [subject.document() for subject in subjects if subject.error or subject in measured],
    }


def folder_of_bundles(path: str) -> list[str]:
    """Paths of the bundles in a folder, by name.

    Raises:
        InputError: nothing there, a file, a bundle itself, a folder without bundles, or one that cannot be read.
    """
    if os.path.isfile(os.path.join(path, "manifest.json")):
        raise InputError(f"{path}: expected a folder of bundles, got a bundle; leave --batch out to measure it alone")
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIX) and not name.startswith("."))
    except FileNotFoundError:
        raise InputError(f"{path}: expected a folder of bundles, but nothing is there; check the path") from None
    except NotADirectoryError:
        raise InputError(
            f"{path}: expected a folder of bundles, got a file; a tar goes to standard input (-)"
        ) from None
    except OSError as error:
        if not of_system(error):
            raise
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not names:
        raise InputError(f"{path}: expected bundles in it, folders NAME{SUFFIX}, but it has none")
    return [os.path.join(path, name) for name in names]


class _Subject:
    """A bundle under measurement: `error` says why it has no numbers; `rounds`: nanoseconds by number of samples."""

    def __init__(self, path: str, sizes: list[int], method: str, threads: int | str) -> None:
        self.path, self.file = path, os.path.basename(os.path.abspath(path))
        self.name = self.file.removesuffix(SUFFIX)
        self.error: str | None = None
        self.rounds: list[list[float]] = []
        self._sizes, self._method, self._threads = sizes, method, threads
        self._about: dict[str, Any] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep an error that concerns this bundle alone; the others are measured."""
        try:
            yield
        except (AeedgeError, MemoryError) as error:
            text = str(error) or "there is too little memory; free some"
            self.error = text.replace(self.path, self.file)

    def check(self) -> None:
        """Load it as it is by default, compare its reference outputs, and keep its reference inputs."""
        bundle = Bundle(self.path)
        asked = bundle.manifest.default_variant
        bundle.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that int8 is not right here shows in the variant
            model = load(self.path, variant=asked, threads=self._threads, check="golden")
        with model:
            self._rows = inputs(model, self.path, self._method)
            if (values := max(self._sizes) * max(self._rows[0].size, 1)) > LARGEST:
                raise InputError(
                    f"{self.path}: expected at most {LARGEST} values in a call, got {values} for {max(self._sizes)} "
                    "samples; measure fewer"
                )
            getattr(model, self._method)(self._rows[:1])  # a bundle without decoder is refused here
            self._variant, threads = model.variant, model.threads
            about = {"id": model.manifest.id, "variant": model.variant, "asked_variant": asked, "threads": threads}
        with os.scandir(self.path) as entries:
            self._about = about | {"size_bytes": sum(entry.stat().st_size for entry in entries if entry.is_file())}

    def measure_memory(self, findings: Findings) -> None:
        """What it adds to a fresh process, with the largest call; None where that cannot be known here."""
        self._about["memory_bytes"] = None
        if resident_bytes() is None:
            return
        shape = json.dumps([max(self._sizes), *self._rows.shape[1:]])
        arguments = [self.path, self._variant, str(self._threads), self._method, self._rows.dtype.name, shape]
        program = f"import sys; sys.path[:] = {[str(path) for path in sys.path]!r}; {_MEMORY}"
        try:
            self._about["memory_bytes"] = fresh_process(program, arguments)["bytes"]
        except (AeedgeError, OSError) as error:  # no memory or no right to start one
            if not of_system(error):
                raise
            text = f"the memory of {self.name} was not measured: {error}".replace(self.path, self.file)
            findings.add("memory", Finding("warning", "memory", text))

    def measure_round(self, seconds: float, clock: Clock) -> None:
        """One turn, of so many seconds for each number of samples."""
        found = []
        singles = min(SINGLES, max(1, LARGEST // max(self._rows[0].size, 1)))
        rows = np.resize(self._rows, (max(singles, *self._sizes), *self._rows.shape[1:]))
        with load(self.path, variant=self._variant, threads=self._threads, check="size") as model:
            call = getattr(model, self._method)
            for size in self._sizes:
                queries: list[NDArray[Any]] = list(rows[:singles]) if size == 1 else [rows[:size]]
                for share in (_WARM_UP, 1.0):
                    ns = timed(call, queries, int(share * seconds * 1e9), clock, least_calls=1)
                found.append(ns)
        self.rounds.append(found)

    def document(self) -> dict[str, Any]:
        """Its entry in the result."""
        if self.error is not None:
            return {"name": self.name, "error": self.error}
        latencies = {size: median.estimate / 1e3 for size, median in self._medians().items()}
        return {"name": self.name} | self._about | {"latency_us": latencies, "noise": self.noise()}

    def noise(self) -> dict[str, float | None]:
        """Half the width of the interval of each median, relative to it; None after a single round."""
        several = len(self.rounds) > 1
        return {size: half_width(median) if several else None for size, median in self._medians().items()}

    def _medians(self) -> dict[str, Interval]:
        return {str(size): median_interval(values) for size, values in zip(self._sizes, zip(*self.rounds))}


def _checked(at: Sequence[int], method: str, threads: int | str, seconds: float) -> list[int]:
    """The numbers of samples, each once; bad arguments are refused."""
    sizes: list[Any] = list(at) if isinstance(at, (list, tuple, range, np.ndarray)) else [at]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise InputError(f"at: expected whole numbers of samples, at least 1, got {size!r}")
    if not sizes:
        raise InputError("at: expected at least one number of samples, got none")
    if method not in METHODS:
        raise InputError(f"method: expected {', '.join(METHODS)}, got {method!r}")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise InputError(f"seconds: expected a number above 0, got {seconds!r}")
    thread_count(threads)
    return list(dict.fromkeys(map(int, sizes)))


def _judge_noise(measured: list[_Subject], findings: Findings) -> None:
    """A finding on the median that is known the least, if that is too little."""
    known = [(noise, s.name, size) for s in measured for size, noise in s.noise().items() if noise is not None]
    if known and (worst := max(known))[0] > _NOISY:
        text = (
            f"medians are known to ±{worst[0]:.0%} at worst ({worst[1]}, {int(worst[2]):,} samples), expected "
            f"±{_NOISY:.0%}; stop other programs, use one thread, or measure longer"
        )
        findings.add("rounds", Finding("warning", "noise", text))


def _interrupted_rounds(subjects: list[_Subject], seconds: float, clock: Clock, tell: Callable[[str], None]) -> bool:
    """All rounds, of which every second one goes backwards; whether Ctrl-C ended them."""
    try:
        for number in range(ROUNDS):
            for subject in subjects[:: -1 if number % 2 else 1]:
                tell(f"round {number + 1} of {ROUNDS}, {subject.name}")
                if subject.error is None:
                    with subject.kept():
                        subject.measure_round(seconds, clock)
    except KeyboardInterrupt:
        return True
    return False
