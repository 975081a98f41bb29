"""What `aeedge tune` does: measure on this machine which variant, how many threads and which policy is fastest.

Contenders take turns, so that a disturbance hits all alike, and their undisturbed turns are compared. What is not
clearly faster than the default does not replace it: two runs on one machine choose the same.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from aeedge.bundle.reader import Bundle
from aeedge.errors import AeedgeError, InputError, VerificationError
from aeedge.loading import open_as
from aeedge.runtime.policy import SERIAL, DispatchPolicy
from aeedge.runtime.policy_store import OBJECTIVES, TunedPolicy
from aeedge.system import conditions
from aeedge.system.clock import Clock
from aeedge.system.limits import thread_count
from aeedge.system.timing import repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.model import Model
    from aeedge.runtime.dispatch import Dispatcher

    Rows = NDArray[Any]
    Call = tuple[Callable[[Rows], object], Rows]
    Name = TypeVar("Name")

_CLEARLY = 0.92  # a contender replaces the default when it takes this share of its time or less
_ROUNDS, _TRIES = 15, 9
_LONG_SECONDS, _RAREST = 0.003, 5  # calls that take longer have fewer turns, down to every fifth round
_TURN_SECONDS, _SETTLE_SECONDS = 0.005, 0.003
_PAUSE_SECONDS = 0.003  # until the threads of a pool sleep; while they spin, others' share a CPU
_BULK_US, _MAX_BULK_ROWS = 40_000.0, 2**16
_BLOCKS = (64, 128, 256, 512, 1024, 2048)
_SMALL_BLOCK = 64  # rows, where memory is the objective
_NEVER = math.inf
_POOL = DispatchPolicy(0.0, _NEVER, single_on_pool=True, measure_pool=False)
_WORKERS = DispatchPolicy(_NEVER, 0.0, measure_pool=False)


class Outcome(NamedTuple):
    """What was found, and what the machine did meanwhile; with a finding of grade "invalid" it is worth nothing."""

    tuned: TunedPolicy
    findings: list[conditions.Finding]

    @property
    def valid(self) -> bool:
        """Whether the result may be kept."""
        return all(finding.grade != "invalid" for finding in self.findings)


class _Subject(NamedTuple):
    """A variant under measurement."""

    model: Model
    dispatcher: Dispatcher


def autotune(
    path: str,
    objective: str = "latency",
    *,
    variant: str = "auto",
    threads: int | str = "auto",
    progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Measure for some seconds what is fastest here among all that reproduces its reference outputs.

    Args:
        path: the bundle, which is only read.
        objective: "latency" chooses the variant by the time of a single sample, "throughput" by that of many, "memory"
            the smallest one, with one thread and small blocks.
        variant: the only one to try; "auto" for all.
        threads: the most to use; "auto" for the CPUs that this process may use.
        progress: called with a few words on what comes next.

    Returns:
        The choice; `policy_store.write` keeps it for `aeedge.load`.

    Raises:
        InputError: another objective.
        IncompatibleBundleError: the bundle lacks the variant.
        BundleError, VerificationError: no variant can be used here.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"objective: expected {', '.join(OBJECTIVES)}, got {objective!r}")
    subjects, rejected = _usable(path, variant, thread_count(threads), progress)
    clock = Clock()
    before = conditions.read(clock)
    try:
        found = _smallest(subjects) if objective == "memory" else _fastest(subjects, objective, progress)
    finally:
        for subject in subjects.values():
            subject.model.close()
    findings = conditions.judge(before, conditions.read(clock))
    return Outcome(found._replace(measurements=found.measurements | {"rejected": rejected}), findings)


def _usable(
    path: str, variant: str, threads: int, progress: Callable[[str], None]
) -> tuple[dict[str, _Subject], dict[str, str]]:
    """The variants that are right on this machine, the default first, and why others are not used."""
    manifest = Bundle(path).manifest
    names = sorted(manifest.variants, key=lambda name: name != manifest.default_variant)
    if variant != "auto":
        Bundle(path).graph("encoder", variant)  # the error lists the variants that there are
        names = [variant]
    subjects: dict[str, _Subject] = {}
    rejected: dict[str, str] = {}
    for name in names:
        progress(f"checking {name}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a fallback to another variant
                subject = _Subject(*open_as(path, name, threads))
                subject.model.self_check()
                subjects[name] = subject
        except (AeedgeError, UserWarning) as error:
            rejected[name] = str(error)
    if not subjects:
        raise VerificationError(f"{path}: no variant can be used on this machine: {'; '.join(rejected.values())}")
    return subjects, rejected


def _smallest(subjects: dict[str, _Subject]) -> TunedPolicy:
    """The variant with the smallest files, one thread, small blocks."""
    sizes = {name: _bytes(subject.model.manifest.variants[name]) for name, subject in subjects.items()}
    variant = min(sizes, key=lambda name: sizes[name])
    policy = SERIAL._replace(max_rows=_SMALL_BLOCK)
    return TunedPolicy("memory", variant, 1, policy, _row_us(subjects[variant]), {"bytes": sizes})


def _bytes(files: Any) -> int:
    return int(sum(entry.bytes for entry in (files.encoder, files.decoder, files.scorer) if entry is not None))


def _fastest(subjects: dict[str, _Subject], objective: str, progress: Callable[[str], None]) -> TunedPolicy:
    default = next(iter(subjects))
    bulk = _bulk(subjects[default])
    progress("single samples")
    singles = _measured({name: _as_loaded(subject, _rows(subject.model, 1)) for name, subject in subjects.items()})
    progress("many rows")
    many = _measured({name: _as_loaded(subject, bulk) for name, subject in subjects.items()})
    variant = _clear_winner(singles if objective == "latency" else many, default)
    subject = subjects[variant]
    measurements: dict[str, Any] = {"single_us": _us(singles), "bulk_rows": len(bulk), "bulk_us": _us(many)}
    row_us = _row_us(subject)
    progress("block sizes")
    block_us, measurements["block_us"] = _block(subject, bulk, row_us)
    progress("batch sizes")
    policy, measurements["route_us"] = _cutoffs(subject, bulk, row_us, block_us)
    single = measurements["route_us"]["1"]
    if "pool" in single:
        on_pool = objective == "latency" and single["pool"] < _CLEARLY * single["serial"]
        policy = policy._replace(single_on_pool=on_pool)
    return TunedPolicy(objective, variant, subject.model.threads, policy, row_us, measurements)


def _block(subject: _Subject, bulk: Rows, row_us: dict[str, float]) -> tuple[float, dict[str, float]]:
    """Work of a block in microseconds, and microseconds of the bulk by rows of a block."""
    default = subject.dispatcher.default_policy.block_us
    calls = {"default": _run_as(subject, _WORKERS._replace(block_us=default), row_us, bulk)}
    for rows in _BLOCKS:
        if 2 * rows <= len(bulk):
            calls[str(rows)] = _run_as(subject, _WORKERS._replace(block_us=rows * row_us["encode"]), row_us, bulk)
    found = _measured(calls)
    winner = _clear_winner(found, "default")
    return default if winner == "default" else int(winner) * row_us["encode"], _us(found)


def _cutoffs(
    subject: _Subject, bulk: Rows, row_us: dict[str, float], block_us: float
) -> tuple[DispatchPolicy, dict[str, dict[str, float]]]:
    """From how much work on the pool, and then worker threads, are faster; and the times by number of rows, from 1."""
    default = subject.dispatcher.default_policy._replace(block_us=block_us, measure_pool=False)
    if subject.model.threads == 1:
        return default._replace(pool_from_us=_NEVER, workers_from_us=_NEVER), {"1": {}}
    routes = {"serial": SERIAL, "pool": _POOL, "workers": _WORKERS}
    sizes = [1 << power for power in range(len(bulk).bit_length())]
    found = _measured(
        {
            (rows, name): _run_as(subject, route._replace(block_us=block_us), row_us, bulk[:rows])
            for rows in sizes
            for name, route in routes.items()
            if name != "workers" or (rows > 1 and rows * row_us["encode"] > 2 * block_us)
        }
    )
    times: dict[int, dict[str, float]] = {rows: {} for rows in sizes}
    for (rows, name), seconds in found.items():
        times[rows][name] = seconds
    named = {str(rows): _us(by_route) for rows, by_route in times.items()}
    del sizes[0], times[1]  # a single row has no cutoff
    work = [size * row_us["encode"] for size in sizes]
    cutoffs = [0.0, *(math.sqrt(a * b) for a, b in itertools.pairwise(work)), _NEVER]
    first = next((i for i, size in enumerate(sizes) if "workers" in times[size]), len(sizes))  # untried with fewer
    candidates = [(p, q) for i, p in enumerate(cutoffs) for q in cutoffs[max(i, first) :]]
    candidates.insert(0, (default.pool_from_us, default.workers_from_us))
    logs = np.array([_log_times(list(times.values()), work, p, q) for p, q in candidates])
    best = int(logs.mean(axis=1).argmin())
    keep = (logs[0] - logs[best]).max() <= math.log(1 / _CLEARLY)  # at no size is the default clearly slower
    pool_from, workers_from = candidates[0 if keep else best]
    return default._replace(pool_from_us=pool_from, workers_from_us=workers_from), named


def route(us: float, pool_from_us: float, workers_from_us: float, among: Sequence[str]) -> str:
    """The route that a policy takes for this much work, among those that were measured."""
    if us >= workers_from_us and "workers" in among:
        return "workers"
    return "pool" if us >= pool_from_us and "pool" in among else "serial"


def _log_times(times: list[dict[str, float]], work: list[float], pool_from: float, workers_from: float) -> list[float]:
    """Logarithms of the times that cutoffs lead to, by size."""
    return [math.log(by[route(us, pool_from, workers_from, list(by))]) for by, us in zip(times, work)]


def _row_us(subject: _Subject) -> dict[str, float]:
    """Microseconds of a row on one thread by method: the fastest of some calls, which nothing disturbed."""
    model, found = subject.model, {}
    rows = _rows(model, _SMALL_BLOCK)
    subject.dispatcher.set_policy(SERIAL, {})
    for name in model.methods:
        given = model.encode(rows) if name == "decode" else rows
        call = getattr(model, name)
        call(given)
        found[name] = min(repeat(call, [given], least_calls=_TRIES)) / 1e3 / len(rows)
    return found


# --- measuring


def _rows(model: Model, count: int) -> Rows:
    """The bundle's reference inputs, repeated."""
    golden = model.golden_rows()
    return np.resize(golden, (count, *golden.shape[1:]))


def _bulk(subject: _Subject) -> Rows:
    """Rows for enough work that a call takes some tens of milliseconds."""
    wanted = int(_BULK_US / _row_us(subject)["encode"])
    return _rows(subject.model, min(max(2 * _SMALL_BLOCK, 1 << wanted.bit_length() - 1), _MAX_BULK_ROWS))


def _as_loaded(subject: _Subject, rows: Rows) -> Call:
    """A call under the policy that a model has where nothing was tuned."""
    return _run_as(subject, subject.dispatcher.default_policy, {}, rows)


def _run_as(subject: _Subject, policy: DispatchPolicy, row_us: dict[str, float], rows: Rows) -> Call:
    """A call under a policy; contenders share the model, so each sets its own policy first."""

    def call(rows: Rows) -> object:
        if subject.dispatcher.policy is not policy:
            subject.dispatcher.set_policy(policy, row_us)
        return subject.model.encode(rows)

    return call, rows


def _measured(calls: Mapping[Name, Call]) -> dict[Name, float]:
    """Seconds a call, the lower quartile over rounds in which all take turns: a disturbance only ever makes slower.

    A turn begins with a pause, until the threads of whoever was before are asleep, and with some calls that do not
    count, until its own are awake. What two threads gain on a virtual machine changes from second to second, as its
    host moves them: many short turns see more of that than few long ones.
    """
    found: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(_ROUNDS):
        for name, call in calls.items():
            if turn and turn % min(_RAREST, 1 + int(found[name][0] / _LONG_SECONDS)):
                continue
            time.sleep(_PAUSE_SECONDS)
            _seconds(*call, _SETTLE_SECONDS)
            found[name].append(_seconds(*call, _TURN_SECONDS))
    return {name: sorted(values)[len(values) // 4] for name, values in found.items()}


def _seconds(call: Callable[[Rows], object], rows: Rows, least: float) -> float:
    """Mean seconds of a call, over at least that many seconds and one call."""
    durations = repeat(call, [rows], least_ns=int(least * 1e9))
    return sum(durations) / len(durations) / 1e9


def _clear_winner(times: dict[str, float], default: str) -> str:
    best = min(times, key=lambda name: times[name])
    return best if times[best] < _CLEARLY * times[default] else default


def _us(times: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds * 1e6, 2) for name, seconds in times.items()}
