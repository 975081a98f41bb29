"""`aeedge tune`: measure on this machine which variant, how many threads and which way of running is fastest.

Contenders take turns, so that a disturbance hits all alike, and their undisturbed turns are compared. What is not
clearly faster than the default does not replace it: two runs on one machine choose the same.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from aeedge.bundle.reader import Bundle
from aeedge.errors import AeedgeError, InputError, VerificationError
from aeedge.loading import load_as
from aeedge.model import Model
from aeedge.runtime.policy import Schedule
from aeedge.runtime.policy_store import AIMS, Tuned
from aeedge.system import conditions
from aeedge.system.clock import Clock
from aeedge.system.limits import thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Calls = dict[str, Callable[[], object]]
    Name = TypeVar("Name")

_CLEARLY = 0.92  # a contender replaces the default when it takes this share of its time or less
_ROUNDS, _TRIES = 15, 9
_LONG_SECONDS, _RAREST = 0.003, 5  # calls that take longer have fewer turns, down to every fifth round
_TURN_SECONDS, _SETTLE_SECONDS = 0.005, 0.003
_PAUSE_SECONDS = 0.003  # until the threads of a pool sleep; while they look for work, others' share a CPU
_BULK_US, _MOST_BULK_ROWS = 40_000.0, 2**16
_BLOCKS = (64, 128, 256, 512, 1024, 2048)
_SMALL_BLOCK = 64  # rows, where memory is the aim
_NEVER = math.inf
_ALONE = Schedule(pool_from=_NEVER, lanes_from=_NEVER)
_POOL = Schedule(pool_from=0.0, lanes_from=_NEVER, single_on_pool=True)


def tune(
    path: str,
    aim: str = "latency",
    *,
    variant: str = "auto",
    threads: int | str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Measure for some seconds what is fastest here among all that reproduces its golden rows.

    Args:
        path: the bundle, which is only read.
        aim: "latency" chooses the variant by the time of a single row, "throughput" by that of many rows, "memory" the
            smallest one, with one thread and small blocks.
        variant: the only one to try; "auto" for all.
        threads: the most to use; "auto" for the CPUs that this process may use.
        say: told in a few words what comes next.

    Returns:
        The choice; `aeedge.runtime.policy_store.write` keeps it for `aeedge.load`.

    Raises:
        InputError: another aim.
        IncompatibleBundleError: the bundle lacks the variant.
        BundleError, VerificationError: no variant can be used here.
    """
    if aim not in AIMS:
        raise InputError(f"aim: expected {', '.join(AIMS)}, got {aim!r}")
    models, rejected = _usable(path, variant, thread_count(threads), say)
    clock = Clock()
    before = conditions.read(clock)
    try:
        found = _smallest(path, models) if aim == "memory" else _fastest(path, models, aim, say)
    finally:
        for model in models.values():
            model.close()
    disturbed = [finding.message for finding in conditions.judge(before, conditions.read(clock))]
    return found._replace(seen=found.seen | {"rejected": rejected, "disturbed": disturbed})


def _usable(
    path: str, variant: str, threads: int, say: Callable[[str], None]
) -> tuple[dict[str, Model], dict[str, str]]:
    """Models of the variants that are right on this machine, the default first, and why others are not used."""
    manifest = Bundle(path).manifest
    names = sorted(manifest.variants, key=lambda name: name != manifest.default_variant)
    if variant != "auto":
        Bundle(path).graph("encoder", variant)  # says what there is
        names = [variant]
    models: dict[str, Model] = {}
    rejected: dict[str, str] = {}
    for name in names:
        say(f"checking {name}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a fall back to another variant
                model = load_as(path, name, threads)
                model.self_check()
                models[name] = model
        except (AeedgeError, UserWarning) as error:
            rejected[name] = str(error)
    if not models:
        raise VerificationError(f"{path}: no variant can be used on this machine: {'; '.join(rejected.values())}")
    return models, rejected


def _smallest(path: str, models: dict[str, Model]) -> Tuned:
    """The variant with the smallest files, one thread, small blocks."""
    manifest = next(iter(models.values())).manifest
    sizes = {name: _bytes(manifest.variants[name]) for name in models}
    variant = min(sizes, key=lambda name: sizes[name])
    schedule = _ALONE._replace(most_rows=_SMALL_BLOCK)
    return Tuned("memory", variant, 1, schedule, _row_us(models[variant]), {"bytes": sizes})


def _bytes(files: Any) -> int:
    return int(files.encoder.bytes + (files.decoder.bytes if files.decoder else 0))


def _fastest(path: str, models: dict[str, Model], aim: str, say: Callable[[str], None]) -> Tuned:
    default = next(iter(models))
    bulk = _bulk(models[default])
    say("single rows")
    singles = _measured({name: _call(model, _rows(model, 1)) for name, model in models.items()})
    say("many rows")
    many = _measured({name: _call(model, bulk) for name, model in models.items()})
    variant = _clear_winner(singles if aim == "latency" else many, default)
    model = models[variant]
    seen: dict[str, Any] = {"single_us": _us(singles), "bulk_rows": len(bulk), "bulk_us": _us(many)}
    row_us = _row_us(model)
    say("block sizes")
    block, seen["block_us"] = _block(model, bulk, row_us)
    say("batch sizes")
    schedule, seen["ways_us"] = _borders(model, bulk, row_us, block)
    single = seen["ways_us"]["1"]
    if "pool" in single:
        seen["single_us"][f"{variant} on the pool"] = single["pool"]
        pooled = aim == "latency" and single["pool"] < _CLEARLY * single["alone"]
        schedule = schedule._replace(single_on_pool=pooled)
    return Tuned(aim, variant, model.threads, schedule, row_us, seen)


def _block(model: Model, bulk: NDArray[Any], row_us: dict[str, float]) -> tuple[float, dict[str, float]]:
    """Work of a block in microseconds, and seconds of the bulk by rows of a block."""
    default = model.default_schedule.block
    calls: Calls = {"default": _run_as(model, Schedule(pool_from=_NEVER, lanes_from=0.0), row_us, bulk)}
    for rows in _BLOCKS:
        if 2 * rows <= len(bulk):
            schedule = Schedule(_NEVER, 0.0, rows * row_us["encode"])
            calls[str(rows)] = _run_as(model, schedule, row_us, bulk)
    found = _measured(calls)
    winner = _clear_winner(found, "default")
    return default if winner == "default" else int(winner) * row_us["encode"], _us(found)


def _borders(
    model: Model, bulk: NDArray[Any], row_us: dict[str, float], block: float
) -> tuple[Schedule, dict[str, dict[str, float]]]:
    """From how much work on the pool, and then our own threads, are faster; and the times by number of rows, from 1."""
    default = model.default_schedule._replace(block=block)
    if model.threads == 1:
        return default._replace(pool_from=_NEVER, lanes_from=_NEVER), {"1": {}}
    ways = {"alone": _ALONE, "pool": _POOL, "lanes": Schedule(_NEVER, 0.0)}
    sizes = [1 << power for power in range(len(bulk).bit_length())]
    found = _measured(
        {
            (rows, name): _run_as(model, way._replace(block=block), row_us, bulk[:rows])
            for rows in sizes
            for name, way in ways.items()
            if name != "lanes" or (rows > 1 and rows * row_us["encode"] > 2 * block)
        }
    )
    seen: dict[int, dict[str, float]] = {rows: {} for rows in sizes}
    for (rows, name), seconds in found.items():
        seen[rows][name] = seconds
    named = {str(rows): _us(times) for rows, times in seen.items()}
    del sizes[0], seen[1]  # a row has no border
    work = [size * row_us["encode"] for size in sizes]
    borders = [0.0, *(math.sqrt(a * b) for a, b in itertools.pairwise(work)), _NEVER]
    first = next((i for i, size in enumerate(sizes) if "lanes" in seen[size]), len(sizes))  # nobody tried fewer rows
    candidates = [(p, q) for i, p in enumerate(borders) for q in borders[max(i, first) :]]
    candidates.insert(0, (default.pool_from, default.lanes_from))
    times = np.array([_log_times(list(seen.values()), work, p, q) for p, q in candidates])
    best = int(times.mean(axis=1).argmin())
    keep = (times[0] - times[best]).max() <= math.log(1 / _CLEARLY)  # at no size is the default clearly slower
    chosen = candidates[0 if keep else best]
    return default._replace(pool_from=chosen[0], lanes_from=chosen[1]), named


def _log_times(seen: list[dict[str, float]], work: list[float], pool_from: float, lanes_from: float) -> list[float]:
    """Logarithms of the times that borders lead to, by size."""
    found = []
    for times, us in zip(seen, work):
        way = "lanes" if us >= lanes_from and "lanes" in times else "pool" if us >= pool_from else "alone"
        found.append(math.log(times[way]))
    return found


def _row_us(model: Model) -> dict[str, float]:
    """Microseconds of a row on one thread by method: the fastest of some calls, which nothing disturbed."""
    rows, found = _rows(model, _SMALL_BLOCK), {}
    model.use(model.threads, _ALONE, {})
    for name in model.methods:
        given = model.encode(rows) if name == "decode" else rows
        call = getattr(model, name)
        call(given)
        found[name] = min(_seconds(partial(call, given)) for _ in range(_TRIES)) * 1e6 / len(rows)
    return found


# --- measuring


def _rows(model: Model, count: int) -> NDArray[Any]:
    """The bundle's golden rows, repeated."""
    golden = model.golden_rows()
    return np.resize(golden, (count, *golden.shape[1:]))


def _bulk(model: Model) -> NDArray[Any]:
    """Rows for so much work that a call takes some tens of milliseconds."""
    wanted = int(_BULK_US / _row_us(model)["encode"])
    return _rows(model, min(max(2 * _SMALL_BLOCK, 1 << wanted.bit_length() - 1), _MOST_BULK_ROWS))


def _call(model: Model, rows: NDArray[Any]) -> Callable[[], object]:
    return lambda: model.encode(rows)


def _run_as(model: Model, schedule: Schedule, row_us: dict[str, float], rows: NDArray[Any]) -> Callable[[], object]:
    """A call that takes a way; contenders share the model, so each sets its own way first."""
    model.use(model.threads, schedule, row_us)

    def call() -> object:
        model.schedule = schedule
        return model.encode(rows)

    return call


def _measured(calls: Mapping[Name, Callable[[], object]]) -> dict[Name, float]:
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
            _seconds(call, _SETTLE_SECONDS)
            found[name].append(_seconds(call, _TURN_SECONDS))
    return {name: sorted(values)[len(values) // 4] for name, values in found.items()}


def _seconds(call: Callable[[], object], least: float = 0.0) -> float:
    """Seconds a call, over calls for at least so long, and at least one."""
    count, began = 0, time.perf_counter()
    while True:
        call()
        count += 1
        spent = time.perf_counter() - began
        if spent >= least:
            return spent / count


def _clear_winner(times: dict[str, float], default: str) -> str:
    best = min(times, key=lambda name: times[name])
    return best if times[best] < _CLEARLY * times[default] else default


def _us(times: dict[str, float]) -> dict[str, float]:
    return {name: round(seconds * 1e6, 2) for name, seconds in times.items()}
