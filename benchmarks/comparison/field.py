"""Interleave all contenders of one workload and one number of threads, and watch the load of the machine.

Exactly one runs at a time: the others are stopped, since idle thread pools spin for tens of milliseconds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comparison.contenders import Entry
from comparison.processes import Worker, WorkerError, cpus
from comparison.watch import Watch

Log = Callable[[str], None]
Cell = dict[str, Any]
TOLERANCE = 1e-3  # of the largest latent, for every fp32 contender
_LONG = 1.0  # seconds; a round as long as that is not repeated, or a loaded machine would take hours
_PAUSE = 0.002  # lets the system settle after the last one was stopped


class Plan(NamedTuple):
    """How long to measure."""

    batches: tuple[int, ...]
    rounds: int
    seconds: float
    tries: int = 3


class WrongAnswerError(Exception):
    """The outputs of a contender that must agree with torch do not."""


def start(
    entries: Sequence[Entry], folder: Path, threads: str, stack: ExitStack
) -> tuple[list[Worker], list[tuple[Entry, str]]]:
    """Workers for the contenders, and the contenders that cannot be measured, each with the reason."""
    workers, out = [], []
    for entry in entries:
        if entry.only in ("", threads):
            try:
                workers.append(stack.enter_context(Worker(entry, folder, threads)))
            except WorkerError as error:
                out.append((entry, str(error)))
    return workers, out


def check(worker: Worker, folder: Path, out: Path) -> float:
    """Largest error of the contender's latents, relative to torch's largest; its latents are written to `out`.

    Raises:
        WrongAnswerError: the error of an fp32 contender is above TOLERANCE.
    """
    worker.ask("answer", out=str(out))
    with np.load(out) as answer, np.load(folder / "truth.npz") as truth:
        pairs = [(answer[part], truth[part]) for part in ("test", "anomalous")]
        pairs.append((answer["checked"], truth["test"][: len(answer["checked"])]))
    if any(got.shape != true.shape for got, true in pairs):
        raise WrongAnswerError(f"{worker.entry.name}: latents of shape {pairs[0][0].shape}, not {pairs[0][1].shape}")
    error = max(float(np.abs(got - true).max() / np.abs(true).max()) for got, true in pairs)
    if worker.entry.exact and not error <= TOLERANCE:
        raise WrongAnswerError(
            f"{worker.entry.name} computes other latents than torch: expected errors up to {TOLERANCE:.0e} of the "
            f"largest latent, got {error:.1g}; the time of a wrong result means nothing, so nothing is measured"
        )
    return error


class _Turns:
    """Rounds of one batch size: seconds per call, clean or disturbed by other load."""

    def __init__(self) -> None:
        self.clean: list[float] = []
        self.disturbed: list[tuple[float, str]] = []
        self.void: list[str] = []

    def cell(self, rounds: int) -> Cell:
        """Median and quartiles of the clean rounds, or of all if too few are clean; "disturbed" then has the reason."""
        enough = len(self.clean) > rounds // 2
        values = self.clean if enough else self.clean + [seconds for seconds, _ in self.disturbed]
        if not values:
            return {"seconds": None, "disturbed": self.void[-1]}
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        worst = None if enough else self.disturbed[-1][1] if self.disturbed else self.void[-1]
        return {
            "seconds": statistics.median(values),
            "quartiles": [low, high],
            "rounds": len(values),
            "repeated": len(self.disturbed) + len(self.void),
            "disturbed": worst,
        }


def measure(workers: Sequence[Worker], batch: int, plan: Plan, seed: int = 0) -> Iterator[tuple[Worker, Cell]]:
    """Time one batch size for all workers, round by round in shuffled order; a failed one yields {"failed": reason}."""
    turns = {id(worker): _Turns() for worker in workers}
    failed: dict[int, str] = {}
    order, dice = list(workers), random.Random(seed + batch)
    for worker in order:
        with _noted(failed, worker):
            worker.ask("ready", batch=batch, seconds=plan.seconds / 2)
    for _ in range(plan.rounds):
        dice.shuffle(order)
        for worker in order:
            if id(worker) not in failed:
                with _noted(failed, worker):
                    _turn(worker, turns[id(worker)], plan)
    for worker in workers:
        yield worker, {"failed": failed[id(worker)]} if id(worker) in failed else turns[id(worker)].cell(plan.rounds)


@contextmanager
def _noted(failed: dict[int, str], worker: Worker) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        failed[id(worker)] = str(error)


def _turn(worker: Worker, turns: _Turns, plan: Plan) -> None:
    """One round, repeated while it is disturbed, at most `plan.tries` times."""
    for _ in range(plan.tries):
        time.sleep(_PAUSE)
        watch = Watch(cpus("all"))
        answer = worker.ask("time", seconds=plan.seconds)
        load = watch.stop(answer["cpu"])
        if "void" in answer:
            turns.void.append(answer["void"])
        elif load.disturbed:
            turns.disturbed.append((answer["seconds"], load.describe()))
            if load.seconds > _LONG:
                return
        else:
            turns.clean.append(answer["seconds"])
            return
